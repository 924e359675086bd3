"""The charts of the report: trajectory, gains, what LoRE found, how the checkpoints lie to each other."""

from collections.abc import Iterator, Sequence

import numpy as np

from tasks.base.measures import LoreMeasures
from tasks.base.records.evaluation import Evaluation
from tasks.base.records.merge import MergeReport
from tasks.base.records.selection import Selection
from tasks.base.records.training_run import Checkpoint
from tasks.base.records.verdict import Guard
from tasks.merging.deviation_sums import cosines, describe, join
from tasks.reporting.lore_figure import DEPTH, farthest, rank_grid, roles_of, shrinks
from tasks.reporting.lore_matrices import decomposed
from tasks.reporting.model_parts import along_the_model, by_layer, layer_name, tensor_parts
from tasks.reporting.page import VERDICT_COLOURS
from tasks.reporting.svg_chart import ChartLevel, IntervalRow, Point, Series, heat_table, svg_chart, svg_rows

BLUE, ORANGE, GREY = "#1f6fb4", "#d97a00", "#888"
CURVES = ("#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#c2b42c")
"""From the oldest checkpoint to the newest."""
MOST_MARKS = 48
"""Marks of a curve at most; its line goes through these."""


def trajectory_chart(checkpoints: Sequence[Checkpoint], selection: Selection) -> str:
    """Draw the selection metric along the run, with merged and best checkpoints marked; empty without it."""
    logged = [c for c in checkpoints if selection.metric in c.metrics]
    if not logged:
        return ""
    merged = {(c.run, c.step) for c in selection.chosen}

    def points(own: Sequence[Checkpoint]) -> list[Point]:
        return [
            Point(c.step, value, f"{c.name}: {selection.metric} {value:.4g}")
            for c in own
            for value in [c.metrics[selection.metric]]
        ]

    chosen = [c for c in logged if (c.run, c.step) in merged]
    runs = [[c for c in logged if c.run == run] for run in dict.fromkeys(c.run for c in logged)]
    best = [Series(points([selection.best]), ORANGE, "best single", "star")] if selection.best else []
    return svg_chart(
        [
            *(
                Series(points(own), GREY, "" if n else "checkpoints", "ring", line=True)
                for n, own in enumerate(runs)
            ),
            Series(points(chosen), BLUE, "merged"),
            *best,
        ],
        "training step",
        selection.metric,
    )  # fmt: skip


def gains_chart(evaluation: Evaluation) -> str:
    """Draw the merge's gain over each model on the deciding metric."""
    labels = {model.role: model.label for model in evaluation.models}
    colour, reason = VERDICT_COLOURS[evaluation.verdict.decision], evaluation.verdict.reason
    rows = [
        IntervalRow(
            f"over {labels[each.against]} ({each.wins} won, {each.losses} lost)",
            each.gain.mean,
            each.gain.low,
            each.gain.high,
            colour if each.against == evaluation.verdict.against else BLUE,
        )
        for each in evaluation.differences
        if each.metric == evaluation.primary
    ]
    bars = [(0.0, "no gain")]
    if reason and reason.min_gain:
        bars.append((reason.min_gain, "min_gain"))
    return svg_rows(rows, "gain of the merge, 95 % intervals (right is better)", bars)


def guards_chart(evaluation: Evaluation) -> str:
    """Draw what the other metrics show, in units of their margins; empty where none is guarded."""
    labels = {model.role: model.label for model in evaluation.models}
    rows = [row for guard in evaluation.verdict.guards for row in _in_margins(guard, labels[guard.against])]
    return svg_rows(rows, "gain in units of the margin", [(-1.0, "margin"), (0.0, "no loss")]) if rows else ""


def _in_margins(guard: Guard, label: str) -> list[IntervalRow]:
    rows = [
        IntervalRow(
            f"{each.metric} against {label}", gain.mean / margin, gain.low / margin, gain.high / margin, BLUE
        )
        for each in guard.metrics
        for gain, margin in [(each.gain, each.margin)]
        if margin > 0
    ]
    if (pooled := guard.pooled) and len(rows) > 1:
        rows.append(IntervalRow(f"all together against {label}", pooled.mean, pooled.low, pooled.high, BLUE))
    return rows


def spectra_chart(report: MergeReport) -> str:
    """Draw the singular values of the task vectors in the matrix that LoRE moves farthest from averaging."""
    found = decomposed(report.tensors)
    matrix = found[farthest(found)]
    levels = [ChartLevel(matrix.threshold, "threshold μ", "#c03030")]
    if matrix.edge > 0:  # what is exactly low-rank has no noise
        levels.append(ChartLevel(matrix.edge, "noise edge", "#555"))
    labels = [source.label for source in report.inputs]
    series = [own for i, _ in enumerate(labels) for own in _spectrum(i, labels, matrix, shrinks(report))]
    return svg_chart(
        series, "index", "singular value of θᵢ − θ₀", levels, log=True, floor=matrix.threshold / DEPTH
    )


def _spectrum(i: int, labels: Sequence[str], matrix: LoreMeasures, thresholded: bool) -> Iterator[Series]:
    """Yield σ of a checkpoint, and what remains of it above μ where the penalty makes it max(σ − μ, 0)."""
    sigma, colour = matrix.spectra[i], _colour(i, len(labels))
    numbered = [(n, value) for n, value in enumerate(sigma, 1) if value > 0]
    yield Series(
        [Point(n, v, f"{labels[i]}: σ{n} = {v:.4g}") for n, v in _thinned(numbered)],
        colour,
        shape="ring",
        line=True,
    )
    kept = [(n, v - matrix.threshold) for n, v in numbered[: matrix.ranks[i]] if v > matrix.threshold]
    after = [
        Point(n, v, f"{labels[i]}: σ{n} − μ = {v:.4g}") for n, v in _thinned(kept if thresholded else [])
    ]
    yield Series(after, colour, labels[i], line=True)


def ranks_table(report: MergeReport) -> str:
    """Show how many singular values lie above μ, in % of full rank, by kind of matrix and layer."""
    found = decomposed(report.tensors)
    roles = roles_of(found)
    layers = list(dict.fromkeys(map(layer_name, along_the_model(found))))
    grid = 100 * rank_grid(roles, layers, found)
    top = max(float(np.nanmax(grid)), 1.0)
    return heat_table(
        [(role, list(row)) for role, row in zip(roles, grid, strict=True)], layers, 0, top, ".2g"
    )


def norms_chart(report: MergeReport) -> str:
    """Draw the task vectors' norms over the anchor's, layer by layer."""
    layers = by_layer(tensor_parts(report.deviations))
    summaries = [(n, layer, describe(part)) for n, (layer, part) in enumerate(layers.items())]
    labels = [source.label for source in report.inputs]
    series = [
        Series(
            [
                Point(n, norm, f"{label}, {layer}: {norm:.4g}")
                for n, layer, found in summaries
                if found.anchor
                for norm in [found.norms[i] / found.anchor]
            ],
            _colour(i, len(labels)),
            label,
            line=True,
        )
        for i, label in enumerate(labels)
    ]  # fmt: skip
    names = [(float(n), layer.rpartition(".")[2]) for n, layer, _ in summaries]
    return svg_chart(series, "layer", "‖δ‖ / ‖θ₀‖", names=names, floor=0.0)


def conflict_chart(report: MergeReport) -> str:
    """Draw the share of elements in sign conflict, layer by layer."""
    layers = by_layer(tensor_parts(report.deviations))
    shares = [100 * describe(part).conflict for part in layers.values()]
    points = [
        Point(n, share, f"{layer}: {share:.3g} %")
        for n, (layer, share) in enumerate(zip(layers, shares, strict=True))
    ]
    names = [(float(n), layer.rpartition(".")[2]) for n, layer in enumerate(layers)]
    return svg_chart([Series(points, "#c03030", line=True)], "layer", "% of elements", names=names, floor=0.0)


def cosines_table(report: MergeReport) -> str:
    """Show the cosines of the task vectors, whole model."""
    matrix = cosines(join(list(tensor_parts(report.deviations).values())))
    names = [f"{n} {source.label}" for n, source in enumerate(report.inputs, 1)]
    numbers = [str(n) for n, _ in enumerate(names, 1)]
    rows = [(name, list(row)) for name, row in zip(names, matrix, strict=True)]
    return heat_table(rows, numbers, -1, 1, ".2f")


def _colour(i: int, count: int) -> str:
    return CURVES[round(i / max(count - 1, 1) * (len(CURVES) - 1))]


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Keep few enough points, first and last among them."""
    kept = np.unique(np.linspace(0, len(points) - 1, min(len(points), MOST_MARKS)).round().astype(int))
    return [points[i] for i in kept]
