"""Whichever system call of a merge fails, the old output or the new one is there, and the exit code says which."""

import hashlib
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.base.publish import is_intact
from tasks.merge_checkpoints import merge_directories
from tasks.parameters.merge import MergeParams
from tests.faults.system_calls import calls_of, run_failing
from tests.support.tiny import write_checkpoint

LORELINE = [
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); from flows.cli import main; main()",
]
SEED = 0
WRITING = {
    "openat",
    "write",
    "pwrite64",
    "sendfile",
    "fsync",
    "fallocate",
    "ftruncate",
    "mkdir",
    "rename",
    "close",
}
"""Calls that a full disk can fail."""

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


def digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def fail_calls(root: Path, errors: tuple[str, ...], sample: int | None) -> None:
    """Fail calls one by one, all of them or a sample; print the figures."""
    inputs = [write_checkpoint(root / "run", step) for step in (100, 200)]
    old, out = root / "old", root / "out"
    merge_directories(MergeParams(method="ema"), inputs, old)
    merge_directories(MergeParams(method="average"), inputs, root / "new")
    states = [digests(old), digests(root / "new")]
    sources = {path: digests(path) for path in inputs}
    merge = [*LORELINE, "merge", *map(str, inputs), "--out", str(out), "--set", "merge.method=average"]
    shutil.copytree(old, out)
    calls = calls_of(merge, root, [out, root / ".out", root / "run"])
    assert digests(out) == states[1]
    wanted = [
        (call, error) for call in calls for error in errors if error != "ENOSPC" or call.name in WRITING
    ]
    refused, raw = 0, list[str]()
    for number, (call, error) in enumerate(random.Random(SEED).sample(wanted, sample) if sample else wanted):
        if number % 50 == 49:
            print(f"{number} of {len(wanted)}: {refused} refused, {len(raw)} in raw words", flush=True)
        shutil.rmtree(out)
        shutil.copytree(old, out)
        done = run_failing(merge, root, call, error)
        said = f"{call} {error}: {done.returncode} {done.stderr}"
        assert is_intact(out), said
        # the one error that may come after the merge is there: its last line cannot be printed
        printed = done.returncode == 1 and str(root) not in done.stderr and digests(out) == states[1]
        assert printed or digests(out) == states[done.returncode == 0], said
        assert {path: digests(path) for path in inputs} == sources, said
        assert "Traceback" not in done.stderr, said
        last = done.stderr.strip().splitlines()[-1:]
        assert done.returncode == 0 or (last and last[0].startswith("error: ") and "; " in last[0]), said
        raw += [said for name in ("OSError", "Errno") if name in done.stderr]
        refused += done.returncode != 0
        subprocess.run(merge, cwd=root, check=True, capture_output=True)
        assert digests(out) == states[1], said
        left = {path.name for path in root.iterdir()} - {"run", "old", "new", "out"}
        assert not left, (said, left)
    print(
        f"{len(wanted)} faults known, seed {SEED}: {refused} refused, {len(raw)} in raw words, 0 half results"
    )
    assert not raw, "\n".join(raw)


def test_a_few_system_calls(tmp_path: Path) -> None:
    fail_calls(tmp_path, ("EIO", "ENOSPC"), sample=3)


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_every_system_call(tmp_path: Path, error: str) -> None:
    fail_calls(tmp_path, (error,), sample=None)
