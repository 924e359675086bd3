"""Failing one system call of a program, with strace."""

import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

CALLS = (
    "openat",
    "read",
    "pread64",
    "preadv2",
    "write",
    "pwrite64",
    "sendfile",
    "fsync",
    "fallocate",
    "ftruncate",
    "newfstatat",
    "getdents64",
    "statfs",
    "mkdir",
    "rename",
    "renameat2",
    "unlink",
    "rmdir",
    "flock",
    "close",
)
LINE = re.compile(r"^(\d+) +(\w+)\((.*)")


class Call(NamedTuple):
    """The how many-th call of a thread by this name."""

    name: str
    count: int


def calls_of(command: Sequence[str], cwd: Path, about: Sequence[Path]) -> list[Call]:
    """Run a command, and list its main thread's calls that concern files below `about`."""
    log = cwd / "strace.log"
    trace = ["strace", "-f", "--seccomp-bpf", "-y", "-e", f"trace={','.join(CALLS)}", "-o", str(log)]
    subprocess.run([*trace, *command], cwd=cwd, check=True, capture_output=True)
    lines = [found.groups() for line in log.read_text().splitlines() if (found := LINE.match(line))]
    log.unlink()
    counts, found, main = Counter[str](), [], lines[0][0]
    for thread, name, arguments in lines:
        if thread == main:
            counts[name] += 1
            if any(str(path) in arguments for path in about):
                found.append(Call(name, counts[name]))
    return found


def run_failing(
    command: Sequence[str], cwd: Path, call: Call, error: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command in which one call fails (in every thread that makes so many)."""
    fault = f"inject={call.name}:error={error}:when={call.count}"
    trace = ["strace", "-f", "--seccomp-bpf", "-e", f"trace={call.name}", "-e", fault, "-o", "/dev/null"]
    return subprocess.run(
        [*trace, *command], cwd=cwd, check=False, capture_output=True, text=True, timeout=120
    )
