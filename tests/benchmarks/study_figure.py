"""The picture in docs/study.md of LoRE on a trajectory: test loss along the λ line."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.merging.lore_question import lam_of
from tasks.parameters.merge import MergeParams

Losses = Mapping[str, float]
"""By model; merges on the line by their Nλ."""

N = 5
"""How many checkpoints are merged."""
LINE = (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5)
"""Nλ: 0 is θ_0, 1 the mean, N the paper's λ = 1."""
FAR = 2
"""The right panel ends there."""
PLACES = {0: "0\nθ₀", 1: "1\naverage", 2: "2", 3: "3", 4: "4", N: f"{N}\nλ = 1 (paper)"}


def draw_study(path: Path, found: Sequence[Mapping[str, Losses]]) -> None:
    """Draw all seeds: healthy checkpoints on the left, one of five diverged on the right."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(5, 4))
    _draw_gain(left, [one["spaced"] for one in found], "tab:orange", "every fourth checkpoint")
    _draw_gain(left, [one["last"] for one in found], "tab:blue", "the last five")
    left.set(title="Healthy checkpoints", ylabel="test NLL, against the average's", ylim=(-12, 40))
    left.yaxis.set_major_formatter("{x:+.0f} %")
    left.legend(frameon=False, loc="upper left")
    _draw_damaged(right, [one["diverged"] for one in found])
    for axes, last in ((left, N), (right, FAR)):
        shown = [x for x in PLACES if x <= last]
        axes.set_xticks(shown, [PLACES[x] for x in shown])
        axes.set_xlabel("Nλ")
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _draw_gain(axes: Axes, seeds: Sequence[Losses], colour: str, label: str) -> None:
    """Draw the loss relative to plain averaging, in percent."""
    curves = 100 * (_curves(seeds, LINE) / [[losses["average"]] for losses in seeds] - 1)
    axes.axhline(0, color="0.45", linewidth=0.8, linestyle="--", zorder=0)
    _draw_curves(axes, LINE, curves, curves.mean(0), colour, label)


def _draw_damaged(axes: Axes, seeds: Sequence[Losses]) -> None:
    """Draw the loss itself, with geometric means, beside what else there is."""
    line = [x for x in LINE if x <= FAR]
    curves = _curves(seeds, line)
    _draw_curves(axes, line, curves, _geometric_mean(curves), "tab:red", "")
    for name, label in (("best", "best single checkpoint"), ("rest", "average of the other four")):
        level = float(_geometric_mean(np.array([losses[name] for losses in seeds])))
        axes.axhline(level, color="0.45", linewidth=0.8, linestyle="--")
        axes.annotate(label, (FAR, level), (0, 3), textcoords="offset points", color="0.3", ha="right")
    axes.set(title="One of the last five diverged", ylabel="test NLL", yscale="log", ylim=(0.04, 15))
    axes.set_yticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])


def _draw_curves(
    axes: Axes, line: Sequence[float], curves: np.ndarray, middle: np.ndarray, colour: str, label: str
) -> None:
    """Draw a thin curve for every seed and a bold one through their middle, our default marked on it."""
    for curve in curves:
        axes.plot(line, curve, color=colour, linewidth=0.7, alpha=0.4)
    axes.plot(line, middle, color=colour, linewidth=2.2, label=label or None)
    points = [line.index(x) for x in PLACES if x in line and x in (0, 1, N)]
    axes.plot([line[i] for i in points], middle[points], "o", color=colour, markersize=5)
    default = N * lam_of(MergeParams(), N)
    y = float(np.interp(default, line, middle))
    axes.plot(default, y, "D", color="black", markersize=5, label=None if label else "our default λ")
    if not label:
        axes.legend(frameon=False, loc="center right")


def _geometric_mean(values: np.ndarray) -> np.ndarray:
    return np.exp(np.log(values).mean(0))


def _curves(seeds: Sequence[Losses], line: Sequence[float]) -> np.ndarray:
    return np.array([[losses[f"{x:g}"] for x in line] for losses in seeds])
