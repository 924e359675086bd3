"""Figures of a run: its trajectory, and the merge's gains."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.base.records import Checkpoint, Evaluation, Selection

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VERDICT_COLOURS = {"PROMOTE": "#2a8f4f", "KEEP": "#b4552d", "INCONCLUSIVE": "#b8962e"}
TICKS = 16
"""Layers that are labelled at most, beside the last."""


def draw_trajectory(path: Path, checkpoints: Sequence[Checkpoint], selection: Selection) -> None:
    """Draw the selection metric along the run, with the merged and the best checkpoints marked."""
    from matplotlib.figure import Figure

    logged = [c for c in checkpoints if selection.metric in c.metrics]
    merged = {c.name for c in selection.chosen}
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(*_points(logged, selection.metric), color="0.6", linewidth=1, marker=".", label="checkpoints")
    chosen = [c for c in logged if c.name in merged]
    axes.plot(*_points(chosen, selection.metric), "o", color="tab:blue", label="merged")
    if selection.best is not None:
        best = _points([selection.best], selection.metric)
        axes.plot(*best, "*", color="tab:orange", markersize=13, label="best single")
    axes.set(xlabel="training step", ylabel=selection.metric, title=f"Trajectory of {selection.run}")
    axes.legend(frameon=False)
    save(figure, path)


def draw_gains(path: Path, evaluation: Evaluation) -> None:
    """Draw the merge's paired gain over each model on the deciding metric, with 95 % intervals."""
    from matplotlib.figure import Figure

    labels = {model.role: model.label for model in evaluation.models}
    gains = [gain for gain in evaluation.differences if gain.metric == evaluation.primary]
    figure = Figure(figsize=(7, 0.8 + 0.5 * len(gains)), layout="constrained")
    axes = figure.subplots()
    for row, difference in enumerate(reversed(gains)):
        gain = difference.gain
        errors = [[gain.mean - gain.low], [gain.high - gain.mean]]
        axes.errorbar([gain.mean], [row], xerr=errors, fmt="o", color="tab:blue", capsize=4)
    axes.axvline(0, color="0.6", linewidth=1)
    axes.set_yticks(range(len(gains)), [f"over {labels[gain.against]}" for gain in reversed(gains)])
    axes.set(
        xlabel=f"gain of the merge in {evaluation.primary} (right is better)", ylim=(-0.6, len(gains) - 0.4)
    )
    save(figure, path)


def _points(checkpoints: Sequence[Checkpoint], metric: str) -> tuple[list[int], list[float]]:
    return [c.step for c in checkpoints], [c.metrics[metric] for c in checkpoints]


def name_layers(axes: "Axes", layers: Sequence[str]) -> None:
    """Name layers along the x axis by number, or in full where a model has several stacks of them."""
    short = [name.rpartition(".")[2] for name in layers]
    names = short if len(set(short)) == len(short) else layers
    step = math.ceil(len(names) / TICKS)
    shown = [*range(0, len(names) - step, step), len(names) - 1]
    axes.set_xticks(shown, [names[i] for i in shown], rotation=30, ha="right", rotation_mode="anchor")


def save(figure: "Figure", path: Path) -> None:
    """Save without date or version, so that the same data give the same bytes."""
    figure.savefig(path, dpi=130, metadata={"Software": None})
