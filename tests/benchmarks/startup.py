"""What a merge costs before there is anything to merge."""

import subprocess
import sys
from functools import partial
from pathlib import Path

from tests.benchmarks.measure import REPOSITORY, digits, in_turn, median, ratio, table
from tests.benchmarks.models import Llama, models
from tests.benchmarks.programs import LORELINE, Command, loreline, run

TINY = Llama(layers=0, hidden=64, vocabulary=64)
"""Three tensors."""
GOAL = 1.3


def startup(root: Path, runs: int) -> str:
    """Measure processes beside `python -c "import torch"`."""
    help_ = [*LORELINE, "merge", "--help"]
    programs: dict[str, Command] = {
        "import torch": lambda out: [sys.executable, "-c", "import torch"],
        "loreline merge --help": lambda out: help_,
        f"a merge of three tensors (goal: ≤ {GOAL})": loreline("average", models(root, TINY)),
    }
    usages = in_turn({name: partial(run, root, command) for name, command in programs.items()}, runs)
    rows = []
    for name, column in usages.items():
        found, of = median(column), ratio(column, usages["import torch"])
        rows.append([name, *digits(2, found.wall, of.wall), *digits(0, found.rss)])
    return (
        table(["process", "s", "to import torch", "MB"], rows)
        + f"\n\n`loreline merge --help` imports torch: {'yes' if imports_torch(help_) else 'no'}."
    )


def imports_torch(command: list[str]) -> bool:
    """Say whether a Python program does."""
    python, *rest = command
    traced = subprocess.run(
        [python, "-X", "importtime", *rest], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return any(line.rpartition("|")[2].strip() == "torch" for line in traced.stderr.splitlines())
