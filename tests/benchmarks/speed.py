"""Seconds and memory of whole merges: beside mergekit, beside copying, and as models grow."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.benchmarks.lore_merges import STRENGTH
from tests.benchmarks.measure import Usage, digits, in_turn, median, ratio, say, table, warm
from tests.benchmarks.models import SCALES, Llama, as_models, models
from tests.benchmarks.programs import MEMORY_GOAL, METHODS, Command, cat, loreline, mergekit, run

HEAD = [
    *["method", "Loreline s", "mergekit s", "ratio", "goal"],
    *["Loreline CPU s", "mergekit CPU s", "ratio"],
    *["Loreline MB", "mergekit MB", "ratio", "goal"],
]


def against_mergekit(root: Path, checkpoints: Path, methods: Sequence[str], runs: int) -> str:
    """Measure both programs in turn, method by method."""
    rows = []
    for method in methods:
        say(method)
        programs = {"Loreline": loreline(method, checkpoints), "mergekit": mergekit(method, checkpoints)}
        usages = in_turn(
            {name: partial(_warm_run, root, checkpoints, command) for name, command in programs.items()}, runs
        )
        ours, theirs = map(median, usages.values())
        of = ratio(*usages.values())
        rows.append(
            [
                *[method, *digits(2, ours.wall, theirs.wall, of.wall), f"≤ {METHODS[method].goal:g}"],
                *digits(2, ours.cpu, theirs.cpu, of.cpu),
                *[*digits(0, ours.rss, theirs.rss), *digits(2, of.rss), f"≤ {MEMORY_GOAL:g}"],
            ]
        )
    return table(HEAD, rows)


def _warm_run(root: Path, checkpoints: Path, command: Command) -> Usage:
    """Measure a run whose inputs are in the page cache: mergekit's memory may have taken their place."""
    warm(checkpoints)
    return run(root, command)


def on_kinds(root: Path, run: Path | None, methods: Sequence[str], runs: int) -> str:
    """Measure both programs on checkpoints of three kinds; those of a run that was trained are float32."""
    kinds = {
        "noise": models(root, Llama()),
        "strong spikes": models(root, replace(Llama(), strength=STRENGTH)),
    }
    if run is not None:
        kinds[f"trained, {run.name}"] = as_models(root, run)
    tables = [
        f"{kind}:\n\n{against_mergekit(root, directory, methods, runs)}" for kind, directory in kinds.items()
    ]
    return "\n\n".join(tables)


def against_copying(root: Path, checkpoints: Path, runs: int) -> str:
    """Measure the average beside reading the inputs and writing the output with nothing in between."""
    warm(checkpoints)
    average = loreline("average", checkpoints)
    with tempfile.TemporaryDirectory(dir=root) as cache:
        run(root, average, Path(cache))
        usages = in_turn(
            {
                "average": partial(run, root, average),
                "average, digests known": partial(run, root, average, Path(cache)),
                "cat": partial(run, root, cat(checkpoints, sync=False)),
                "cat and sync": partial(run, root, cat(checkpoints, sync=True)),
            },
            runs,
        )
    first, known = usages["average"], usages["average, digests known"]
    rows = [
        [name, *digits(2, median(column).wall, ratio(first, column).wall, ratio(known, column).wall)]
        for name, column in usages.items()
    ]
    return table(["program", "s", "average / it", "average, digests known / it"], rows)


def scaling(root: Path, methods: Sequence[str], runs: int) -> str:
    """Measure at one, two and four times the parameters."""
    checkpoints = {scale: models(root, llama) for scale, llama in SCALES.items()}
    rows = []
    for method in methods:
        for directory in checkpoints.values():
            warm(directory)
        say(method)
        programs = {f"{scale}×": loreline(method, directory) for scale, directory in checkpoints.items()}
        usages = in_turn({name: partial(run, root, command) for name, command in programs.items()}, runs)
        for scale, column in zip(SCALES, usages.values(), strict=True):
            found, of = median(column), ratio(column, usages["1×"])
            rows.append(
                [
                    *[method, f"{scale}× ({SCALES[scale].parameters / 1e6:.0f} M)"],
                    *digits(2, found.wall, of.wall, found.cpu, of.cpu),
                    *digits(0, found.rss),
                ]
            )
    return table(["method", "parameters", "s", "to 1×", "CPU s", "to 1×", "MB"], rows)
