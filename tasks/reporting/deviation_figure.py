"""The figure of checkpoints' deviations: norms, cosines and sign conflicts over the layers."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.base.measures import DeviationSummary
from tasks.merging.deviation_sums import Deviation, cosines, describe, join
from tasks.reporting.drawing import in_figure, name_layers, save
from tasks.reporting.model_parts import Parts, by_layer, tensor_parts

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_deviation(
    path: Path, labels: Sequence[str], tensors: Mapping[str, DeviationSummary], has_base: bool
) -> None:
    """Draw the task vectors' norms over the layers; of several checkpoints, cosines and sign conflict too.

    Differences from a mean add up to zero, so that nearly all is in sign conflict: that is not drawn.
    """
    from matplotlib.figure import Figure

    parts = tensor_parts(tensors)
    layers = by_layer(parts)
    figure = Figure(figsize=(9.5, 5 if has_base else 3.5), layout="constrained")
    panels = figure.subplot_mosaic(_arrangement(len(labels), has_base))
    _draw_norms(panels["norms"], labels, layers)
    if "cosines" in panels:
        _draw_cosines(panels["cosines"], join(list(parts.values())))
    if "conflict" in panels:
        _draw_conflict(panels["conflict"], layers)
    save(figure, path)


def _arrangement(count: int, has_base: bool) -> list[Any]:
    """Place the panels over the layers on the left, three fifths of the width."""
    if count == 1:
        return [["norms"]]
    rows = ["norms", "conflict"] if has_base else ["norms"]
    return [[row] * 3 + ["cosines"] * 2 for row in rows]


def _draw_norms(axes: "Axes", labels: Sequence[str], layers: Parts) -> None:
    from matplotlib import colormaps

    summaries = [describe(part) for part in layers.values()]
    for i, label in enumerate(labels):
        # A part of the anchor that is all zero leaves a gap.
        relative = [found.norms[i] / (found.anchor or math.nan) for found in summaries]
        colour = colormaps["viridis"](0.9 * i / max(len(labels) - 1, 1))
        axes.plot(relative, ".-", color=colour, linewidth=1, label=f"{i + 1} {in_figure(label)}")
    axes.set(title="Task vectors' norm over the anchor's, by layer", ylabel="‖δ‖ / ‖θ₀‖", ylim=(0, None))
    axes.legend(frameon=False, fontsize="small")
    name_layers(axes, list(layers))


def _draw_conflict(axes: "Axes", layers: Parts) -> None:
    shares = [100 * describe(part).conflict for part in layers.values()]
    axes.plot(shares, ".-", color="tab:red", linewidth=1)
    axes.set(title="Sign conflict, by layer", ylabel="% of elements", ylim=(0, None))
    name_layers(axes, list(layers))


def _draw_cosines(axes: "Axes", whole: Deviation) -> None:
    matrix = cosines(whole)
    numbers = np.arange(len(matrix))
    axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
    for i, j in np.ndindex(matrix.shape):
        colour = "white" if abs(matrix[i, j]) > 0.6 else "black"
        size = min(10, 60 / len(matrix))
        axes.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", color=colour, fontsize=size)
    axes.set_xticks(numbers, numbers + 1)
    axes.set_yticks(numbers, numbers + 1)
    axes.set(title="Cosines, whole model", xlabel="checkpoint", ylabel="checkpoint")
