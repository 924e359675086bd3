"""Loreline beside the naive way of averaging, on small checkpoints."""

import sys
from functools import partial
from pathlib import Path

from tests.benchmarks.lore_merges import loreline
from tests.benchmarks.measure import digits, in_turn, median, ratio, table, warm
from tests.benchmarks.models import CHECKPOINTS, Llama, models
from tests.benchmarks.programs import Command, run

SMALL = Llama(layers=2, hidden=256, intermediate=704, vocabulary=2048)
SCRIPT = str(Path(__file__).with_name("naive_merge.py"))


def against_naive(root: Path, runs: int) -> str:
    """Measure the average."""
    checkpoints = models(root, SMALL)
    warm(checkpoints)
    programs: dict[str, Command] = {
        "Loreline": loreline(checkpoints, "merge.method=average"),
        "naive": lambda out: [sys.executable, SCRIPT, str(out), *(str(checkpoints / c) for c in CHECKPOINTS)],
    }
    usages = in_turn({name: partial(run, root, command) for name, command in programs.items()}, runs)
    ours, theirs = map(median, usages.values())
    of = ratio(*usages.values())
    row = ["average", *digits(2, ours.wall, theirs.wall, of.wall), *digits(0, ours.rss, theirs.rss)]
    return table(["method", "Loreline s", "naive s", "ratio", "Loreline MB", "naive MB"], [row])
