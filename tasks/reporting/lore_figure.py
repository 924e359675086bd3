"""The figure of LoRE's results: the spectra of one matrix, and the active ranks of all."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.base.measures import LoreMeasures
from tasks.base.records.merge import MergeReport
from tasks.reporting.drawing import in_figure, name_layers, save
from tasks.reporting.lore_matrices import decomposed, rank_share
from tasks.reporting.model_parts import along_the_model, layer_name, role_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Grid = np.ndarray[Any, np.dtype[np.float64]]
NUMBERED = 10
"""Layers up to which every cell shows its number."""
DEPTH = 30
"""The spectra's axis ends at μ divided by this."""


def draw_lore(path: Path, report: MergeReport) -> None:
    """Draw the spectra of the matrix that the merge moves farthest from averaging, and all active ranks.

    The left panel is Figure 1 of Liu et al. 2025. At least one matrix must have been decomposed.
    """
    from matplotlib.figure import Figure

    found = decomposed(report.tensors)
    roles = roles_of(found)
    figure = Figure(figsize=(12, max(4.6, 1.8 + 0.26 * len(roles))), layout="constrained")
    spectra, ranks = figure.subplots(1, 2, width_ratios=(5, 6))
    shown, thresholded = farthest(found), shrinks(report)
    labels = [source.label for source in report.inputs]
    _draw_spectra(spectra, labels, found[shown], thresholded)
    spectra.set_title(f"Singular values of the task vectors\n{in_figure(shown)}")
    _draw_legend(figure, spectra, thresholded)
    _draw_ranks(ranks, roles, found)
    save(figure, path)


def farthest(found: Mapping[str, LoreMeasures]) -> str:
    """Return the name of the matrix that the merge moves farthest from averaging."""
    return max(found, key=lambda name: (found[name].from_mean, found[name].explained))


def shrinks(report: MergeReport) -> bool:
    """Tell whether the penalty makes every singular value σ of a task vector max(σ − μ, 0)."""
    penalty = report.parameters.get("lore", {}).get("penalty", "nuclear")
    return bool(penalty == "nuclear")


def _draw_spectra(axes: "Axes", labels: Sequence[str], matrix: LoreMeasures, thresholded: bool) -> None:
    """Draw σ before and, where the penalty makes it max(σ − μ, 0), after thresholding."""
    from matplotlib import colormaps

    for i, (label, sigma) in enumerate(zip(labels, matrix.spectra, strict=True)):
        colour = colormaps["viridis"](0.9 * i / max(len(labels) - 1, 1))
        axes.plot(range(1, len(sigma) + 1), sigma, color=colour, linewidth=1, alpha=0.5)
        # Rounded, or of one expert beside the largest μ of all, a value that was kept may lie below μ.
        above = [value for value in sigma[: matrix.ranks[i]] if value > matrix.threshold]
        kept = [value - matrix.threshold for value in above] if thresholded else []
        axes.plot(range(1, len(kept) + 1), kept, ".-", color=colour, linewidth=1, label=label)
    axes.set(xlabel="index", ylabel="singular value of θᵢ − θ₀", yscale="log")
    _draw_thresholds(axes, matrix)


def _draw_thresholds(axes: "Axes", matrix: LoreMeasures) -> None:
    """Draw μ, the noise edge, and what is taken away below μ."""
    threshold, edge = matrix.threshold, matrix.edge
    largest = max((sigma[0] for sigma in matrix.spectra if sigma), default=threshold)
    axes.set(ylim=(threshold / DEPTH, 1.5 * max(largest, threshold, edge)))
    axes.axhspan(threshold / DEPTH, threshold, color="0.95", zorder=0)
    higher, lower = (4, "bottom"), (-4, "top")
    _draw_level(axes, "threshold μ", threshold, "tab:red", "-", *(higher if threshold >= edge else lower))
    if edge > 0:  # what is exactly low-rank has no noise
        _draw_level(axes, "noise edge", edge, "0.35", "--", *(lower if threshold >= edge else higher))


def _draw_level(
    axes: "Axes", text: str, value: float, colour: str, style: str, offset: float, side: str
) -> None:
    axes.axhline(value, color=colour, linewidth=1, linestyle=style)
    axes.annotate(
        text, (0.99, value), (0, offset), xycoords=("axes fraction", "data"), textcoords="offset points",
        color=colour, fontsize="small", ha="right", va=side,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1},
    )  # fmt: skip


def _draw_legend(figure: "Figure", axes: "Axes", thresholded: bool) -> None:
    """Write the left panel's legend below both panels."""
    from matplotlib.lines import Line2D

    handles, labels = axes.get_legend_handles_labels()
    styles = {"before thresholding": Line2D([], [], color="0.4", linewidth=1, alpha=0.5)}
    if thresholded:
        styles["after: δᵢ"] = Line2D([], [], color="0.4", linewidth=1, marker=".")
    figure.legend(
        [*handles, *styles.values()], [*labels, *styles], loc="outside lower left", ncols=8, frameon=False,
        fontsize="small",
    )  # fmt: skip


def _draw_ranks(axes: "Axes", roles: Sequence[str], found: Mapping[str, LoreMeasures]) -> None:
    layers = list(dict.fromkeys(map(layer_name, along_the_model(found))))
    grid = 100 * rank_grid(roles, layers, found)
    axes.set_facecolor("0.95")
    image = axes.imshow(grid, cmap="YlGnBu", vmin=0, vmax=max(np.nanmax(grid), 1.0), aspect="auto")
    if len(layers) <= NUMBERED:
        _write_numbers(axes, grid)
    axes.set_yticks(range(len(roles)), roles)
    name_layers(axes, layers)
    axes.set_title("Active rank: how many singular values lie above μ,\n% of full rank; 0 is plain averaging")
    axes.figure.colorbar(image, ax=axes, format="%g %%", pad=0.02)


def _write_numbers(axes: "Axes", grid: Grid) -> None:
    for row, column in np.argwhere(~np.isnan(grid)):
        value = grid[row, column]
        colour = "white" if value > 0.55 * np.nanmax(grid) else "black"
        text = f"{value:.0f}" if value >= 10 else f"{value:.2g}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize="small")


def rank_grid(roles: Sequence[str], layers: Sequence[str], found: Mapping[str, LoreMeasures]) -> Grid:
    """Return mean shares of full rank, roles × layers; NaN where there is no such matrix."""
    cells = defaultdict(list)
    for name, matrix in found.items():
        cells[roles.index(role_of(name)), layers.index(layer_name(name))].append(rank_share(matrix))
    grid = np.full((len(roles), len(layers)), math.nan)
    for cell, shares in cells.items():
        grid[cell] = np.mean(shares)
    return grid


def roles_of(names: Iterable[str]) -> list[str]:
    """Order what matrices are called as data flow through them: attention before the rest of a layer."""
    attention_first = sorted(names, key=lambda name: "att" not in role_of(name).lower())
    return list(dict.fromkeys(map(role_of, along_the_model(attention_first))))
