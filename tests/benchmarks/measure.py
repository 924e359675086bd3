"""Measure whole processes: seconds, processor seconds, peak resident memory.

As a script it is a small `time`. Linux keeps the high-water mark of memory over fork and exec, so a program
started by a process that has imported torch would be charged for torch; this script is what starts it.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[2]


class Usage(NamedTuple):
    """What a process used."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds, user and system."""
    rss: float
    """Peak, in MB."""


Program = Callable[[], Usage]


def measure(command: Sequence[str], env: Mapping[str, str]) -> Usage:
    """Run a program to its end in the repository."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", __file__, *command],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=os.environ | env,
    )
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(command)}\n{done.stderr[-2000:]}")
    return Usage(*json.loads(done.stdout))


def in_turn(programs: Mapping[str, Program], runs: int) -> dict[str, list[Usage]]:
    """Run every program once, then every one again: what disturbs the machine disturbs all of them."""
    usages: dict[str, list[Usage]] = {name: [] for name in programs}
    for run in range(runs):
        for name, program in programs.items():
            usage = program()
            usages[name].append(usage)
            say(f"{run + 1}/{runs} {name}: {usage.wall:.2f} s, {usage.cpu:.2f} s CPU, {usage.rss:.0f} MB")
    return usages


def median(usages: Sequence[Usage]) -> Usage:
    """Return the median of each."""
    return Usage(*(statistics.median(column) for column in zip(*usages, strict=True)))


def ratio(ours: Sequence[Usage], theirs: Sequence[Usage]) -> Usage:
    """Return the medians of the ratios, which are taken run by run."""
    return median(
        [Usage(*(a / b for a, b in zip(*pair, strict=True))) for pair in zip(ours, theirs, strict=True)]
    )


def warm(directory: Path) -> None:
    """Read every file below a directory once, so that all programs find them in the page cache."""
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.read(2**24):
                    pass


def digits(count: int, *numbers: float) -> list[str]:
    """Format numbers with so many digits after the point, as cells of a table."""
    return [f"{number:.{count}f}" for number in numbers]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def judged(value: float, sign: str, goal: float, count: int = 2) -> list[str]:
    """Return a value, its goal (sign ≥ or ≤) and whether it is met, as cells of a table."""
    met = value >= goal if sign == "≥" else value <= goal
    return [f"{value:.{count}f}", f"{sign} {goal:g}", "yes" if met else "no"]


def say(line: str) -> None:
    """Tell the user how far things are."""
    print(line, file=sys.stderr, flush=True)


def main(command: Sequence[str]) -> int:
    """Run a command, print the usage as JSON, return the exit code."""
    start = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - start
    megabyte = 1e6 if sys.platform == "darwin" else 1e3  # macOS counts bytes, Linux kilobytes
    print(json.dumps([wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / megabyte]))
    child.returncode = os.waitstatus_to_exitcode(status)
    return abs(child.returncode)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
