"""Loreline beside the naive way of merging, on checkpoints small enough for full decompositions."""

import sys
from functools import partial
from pathlib import Path

from measure import digits, in_turn, median, ratio, table, warm
from models import CHECKPOINTS, Llama, models
from programs import LORELINE, Command, run

SMALL = Llama(layers=2, hidden=256, intermediate=704, vocabulary=2048)
SCRIPT = str(Path(__file__).with_name("naive_merge.py"))


def against_naive(root: Path, runs: int) -> str:
    """Measure the average and LoRE."""
    checkpoints = models(root, SMALL)
    warm(checkpoints)
    inputs = [str(checkpoints / name) for name in CHECKPOINTS]
    rows = []
    for method in ("average", "lore"):
        programs = {"Loreline": _loreline(method, inputs), "naive": _naive(method, inputs)}
        usages = in_turn({name: partial(run, root, command) for name, command in programs.items()}, runs)
        ours, theirs = map(median, usages.values())
        of = ratio(*usages.values())
        rows.append([method, *digits(2, ours.wall, theirs.wall, of.wall), *digits(0, ours.rss, theirs.rss)])
    return table(["method", "Loreline s", "naive s", "ratio", "Loreline MB", "naive MB"], rows)


def _loreline(method: str, inputs: list[str]) -> Command:
    settings = ["--set", f"merge.method={method}", "--set", "merge.lore.tolerance=1e-4"]
    return lambda out: [*LORELINE, "merge", *inputs, "--out", str(out), *settings]


def _naive(method: str, inputs: list[str]) -> Command:
    return lambda out: [sys.executable, SCRIPT, method, str(out), *inputs]
