"""LoRE as whole merges of files: beside averaging, beside mergekit's TIES, as a sweep, and its memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median as middle

from tests.benchmarks.measure import Usage, digits, in_turn, judged, median, ratio, table, warm
from tests.benchmarks.models import CHECKPOINTS, Llama, models
from tests.benchmarks.programs import LORELINE, Command, mergekit, run

LORE = ("merge.method=lore",)
SYMMETRIC_GOAL, MODEL_GOAL, SWEEP_GOAL = 1.1, 0.5, 1.2
STRENGTH = 12.0
"""Of strong spikes: σ_1/μ 50 to 60."""
LAMBDAS = tuple(round(0.3 + 0.02 * i, 2) for i in range(10))
LARGE = ((4096, 4096), (2816, 1024))
TINY = (256, 256)
"""Solved in the same way, and next to nothing."""
BYTES_GOAL = 18
MEGABYTE = 1.024e6
"""Bytes: Linux counts kilobytes of 1024, and a thousand of them make the MB of `measure`."""
QUANTITIES = {"wall": "seconds", "rss": "MB"}


@dataclass(frozen=True)
class Single(Llama):
    """A model of one matrix."""

    rows: int = 0
    columns: int = 0

    def __str__(self) -> str:
        return f"single-{self.rows}x{self.columns}"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the one."""
        return {"model.layers.0.mlp.up_proj.weight": (self.rows, self.columns)}


def symmetric(root: Path, llama: Llama, runs: int) -> str:
    """Measure LoRE of two checkpoints beside their average, which it is."""
    checkpoints = models(root, llama)
    two = CHECKPOINTS[:2]
    programs = {
        "LoRE of two": loreline(checkpoints, *LORE, names=two),
        "average of two": loreline(checkpoints, "merge.method=average", names=two),
    }
    return _beside(_measured(root, checkpoints, programs, runs), SYMMETRIC_GOAL, "wall")


def beside_ties(root: Path, llama: Llama, runs: int) -> str:
    """Measure LoRE beside mergekit's TIES on the same checkpoints."""
    checkpoints = models(root, llama)
    programs = {"LoRE": loreline(checkpoints, *LORE), "mergekit's TIES": mergekit("ties", checkpoints)}
    return _beside(_measured(root, checkpoints, programs, runs), MODEL_GOAL, "wall", "rss")


def sweep(root: Path, llama: Llama, runs: int) -> str:
    """Measure ten λ at once beside one merge and nine more copies of such a model, each waiting for the disk."""
    checkpoints = models(root, llama)
    swept = [*_merge(checkpoints, *LORE), "--sweep", f"merge.lam={','.join(map(str, LAMBDAS))}"]
    programs: dict[str, Command] = {
        "ten λ": lambda out: [*swept, "--out", str(out)],
        "one merge": loreline(checkpoints, *LORE),
        "nine copies": copies(checkpoints / CHECKPOINTS[0] / "model.safetensors", len(LAMBDAS) - 1),
    }
    usages = _measured(root, checkpoints, programs, runs)
    share = middle(
        all_.wall / (one.wall + copy.wall) for all_, one, copy in zip(*usages.values(), strict=True)
    )
    seconds = digits(2, *(median(column).wall for column in usages.values()))
    head = ["ten λ s", "one merge s", "nine copies s", "ten λ / (one merge + nine copies)", "goal", "met"]
    return table(head, [[*seconds, *judged(share, "≤", SWEEP_GOAL)]])


def memory(root: Path, runs: int) -> str:
    """Measure peak memory of merging one matrix above that of merging a tiny one, in bytes an element."""
    tiny = models(root, Single(rows=TINY[0], columns=TINY[1]))
    rows = []
    for height, width in LARGE:
        checkpoints = models(root, Single(rows=height, columns=width))
        programs = {"large": loreline(checkpoints, *LORE), "tiny": loreline(tiny, *LORE)}
        usages = _measured(root, checkpoints, programs, runs)
        large, small = (median(column).rss for column in usages.values())
        taken = MEGABYTE * (large - small) / (height * width)
        rows.append([f"{height} × {width}", *digits(0, large, small), *judged(taken, "≤", BYTES_GOAL, 1)])
    return table(["matrix", "MB", "MB for 256²", "bytes an element", "goal", "met"], rows)


def loreline(checkpoints: Path, *settings: str, names: tuple[str, ...] = CHECKPOINTS) -> Command:
    """Merge with the command line, without a recipe."""
    command = _merge(checkpoints, *settings, names=names)
    return lambda out: [*command, "--out", str(out)]


def _merge(checkpoints: Path, *settings: str, names: tuple[str, ...] = CHECKPOINTS) -> list[str]:
    given = [word for setting in settings for word in ("--set", setting)]
    return [*LORELINE, "merge", *(str(checkpoints / name) for name in names), *given]


def copies(file: Path, count: int) -> Command:
    """Write a file so many times, and wait for the disk after each: what writing costs, and nothing else."""
    return lambda out: [
        *["sh", "-ec", 'for i in $(seq "$3"); do cat "$1" > "$2.$i"; sync "$2.$i"; done', "sh"],
        *[str(file), str(out), str(count)],
    ]


def _measured(
    root: Path, checkpoints: Path, programs: Mapping[str, Command], runs: int
) -> dict[str, list[Usage]]:
    warm(checkpoints)
    return in_turn({name: partial(run, root, command) for name, command in programs.items()}, runs)


def _beside(usages: Mapping[str, list[Usage]], goal: float, *quantities: str) -> str:
    """Show a program beside the one it is measured by."""
    (name, ours), (other, theirs) = usages.items()
    found, against, of = median(ours), median(theirs), ratio(ours, theirs)
    rows = [
        [
            *[QUANTITIES[quantity], *digits(2, getattr(found, quantity), getattr(against, quantity))],
            *judged(getattr(of, quantity), "≤", goal),
        ]
        for quantity in quantities
    ]
    return table(["", name, other, "ratio", "goal", "met"], rows)
