"""The table of merge methods."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from tasks.merging import (
    adamerging,
    age_weights,
    anchor,
    combine,
    deltas,
    drift,
    fisher,
    lore_method,
    lore_notes,
    low_rank,
    norms,
    reductions,
    robust,
    spectral,
    step_weights,
    weights,
)
from tasks.merging.compose import Row, compose
from tasks.merging.method import Method
from tasks.merging.model_stock import model_stock, model_stock_findings
from tasks.merging.program import Program, Settings, check_counts
from tasks.merging.regmean import regmean
from tasks.merging.slerp import slerp
from tasks.merging.widen import widen
from tasks.parameters.merge import MergeParams


def _row(row: Row) -> Callable[[Settings], Program]:
    return lambda settings: compose(row, settings)


def _over_the_model(params: MergeParams) -> bool:
    return params.ties.scope == "model" or weights.spans_model(params)


def _check_ties(settings: Settings) -> None:
    check_counts(settings)
    deltas.check_trimmed(settings)


def _check_breadcrumbs(settings: Settings) -> None:
    check_counts(settings)
    deltas.check_band(settings)


PLAIN_AVERAGE = Row(anchor.no_anchor, deltas.weights_themselves, weights.averaged, combine.mean)
"""Used for every method whose settings reduce it to plain averaging."""
WEIGHT_SECTIONS = ("weights", "nan", "metagpt")
"""The sections that `weights.chosen` reads."""

METHODS = {
    "lore": Method(
        "approximate base plus low-rank task vectors",
        "Liu et al. 2025, LoRE-Merging",
        lore_method.program,
        sections=("lore", "lam", "ties"),
        whole=True,
        check=lore_notes.check_lore,
        notes=lore_notes.lore_notes,
        findings=lore_notes.lore_findings,
        averages=lore_notes.lore_averages,
        family=lore_method.family,
        cores=lore_method.on_cores,
        check_span=lore_notes.check_lore_span,
    ),
    "average": Method(
        "plain average",
        "Wortsman et al. 2022, arXiv 2203.05482",
        _row(Row(anchor.no_anchor, deltas.weights_themselves, weights.chosen, combine.mean)),
        sections=WEIGHT_SECTIONS,
        spans_model=weights.spans_model,
        check=weights.check_average,
        notes=weights.cancelling,
        averages_weights=True,
        check_span=low_rank.check_weighed_span,
    ),
    "ema": Method(
        "average with weights decay^age, or by a half-life in steps",
        "Polyak and Juditsky 1992; Izmailov et al. 2018, arXiv 1803.05407",
        _row(Row(anchor.no_anchor, deltas.weights_themselves, age_weights.ema, combine.mean)),
        sections=("ema",),
        check=age_weights.check_ema,
        by_age=True,
        averages_weights=True,
        check_span=low_rank.check_any_span,
    ),
    "wma": Method(
        "average with weights 1, 2, …, N, the newest weighing most",
        "Li et al. 2025, arXiv 2505.12082",
        _row(Row(anchor.no_anchor, deltas.weights_themselves, age_weights.wma, combine.mean)),
        by_age=True,
        averages_weights=True,
        check_span=low_rank.check_any_span,
    ),
    "lawa": Method(
        "average of the latest checkpoints, spaced widely",
        "Kaddour 2022, arXiv 2209.14981; Sanyal et al. 2023, arXiv 2306.03241",
        _row(Row(anchor.no_anchor, deltas.weights_themselves, age_weights.lawa, combine.mean)),
        sections=("lawa",),
        by_age=True,
        averages_weights=True,
        check_span=low_rank.check_any_span,
    ),
    "power_ema": Method(
        "average with weights by step, ∫ t^γ dt since the one before",
        "Karras et al. 2024, arXiv 2312.02696",
        _row(Row(anchor.no_anchor, deltas.weights_themselves, step_weights.power_ema, combine.mean)),
        sections=("power_ema",),
        check=step_weights.check_steps,
        by_age=True,
        averages_weights=True,
        check_span=low_rank.check_any_span,
    ),
    "planned": Method(
        "average by what the learning rate has left to do: `trend`, and the last checkpoint after a decay",
        "Loreline, docs/trajectory.md",
        _row(Row(anchor.no_anchor, deltas.weights_themselves, step_weights.planned, combine.mean)),
        notes=step_weights.planned_notes,
        by_age=True,
        averages_weights=True,
        check_span=low_rank.check_any_span,
    ),
    "wsm": Method(
        "average that does what is left of a decay of the learning rate",
        "Tian et al. 2025, arXiv 2507.17634",
        _row(Row(anchor.no_anchor, deltas.weights_themselves, step_weights.wsm, combine.mean)),
        sections=("wsm",),
        check=step_weights.check_steps,
        notes=step_weights.wsm_notes,
        by_age=True,
        averages_weights=True,
        check_span=low_rank.check_any_span,
    ),
    "trend": Method(
        "the mean, moved towards the end of the line that fits the checkpoints",
        "least squares in the step, element by element",
        _row(Row(anchor.no_anchor, deltas.weights_themselves, step_weights.trend, combine.mean)),
        sections=("trend",),
        check=step_weights.check_steps,
        by_age=True,
        averages_weights=True,
        check_span=low_rank.check_any_span,
    ),
    "drift": Method(
        "the mean, moved towards the end of the fitted line as far as the checkpoints' scatter allows",
        "James and Stein 1961; Loreline, docs/trajectory.md",
        _row(Row(anchor.no_anchor, deltas.weights_themselves, drift.drift, combine.mean)),
        notes=drift.drift_notes,
        findings=drift.drift_findings,
        by_age=True,
        averages_weights=True,
        check_span=low_rank.check_any_span,
    ),
    "median": Method(
        "the middle value, element by element",
        "Yin et al. 2018, arXiv 1803.01498",
        robust.median,
    ),
    "trimmed_mean": Method(
        "the mean of the middle values, element by element",
        "Yin et al. 2018, arXiv 1803.01498",
        robust.trimmed_mean,
        sections=("trimmed_mean",),
    ),
    "geometric_median": Method(
        "the model with the smallest sum of distances to the checkpoints",
        "Weiszfeld 1937; Pillutla et al. 2019, arXiv 1912.13445",
        _row(Row(anchor.no_anchor, deltas.weights_themselves, robust.geometric_median, combine.mean)),
        spans_model=lambda params: True,
        check_span=low_rank.check_any_span,
    ),
    "fisher": Method(
        "average weighted element by element by the diagonal Fisher information on text; for several runs of "
        "one base, with little evidence for one run",
        "Matena and Raffel 2022, arXiv 2111.09832",
        _row(Row(anchor.no_anchor, deltas.weights_themselves, fisher.by_information, combine.mean)),
        sections=("calibration",),
        measures="gradients",
        check_span=fisher.check_no_adapters,
    ),
    "regmean": Method(
        "linear layers by regression on what text feeds them, the rest averaged; for several runs of one "
        "base, with little evidence for one run",
        "Jin et al. 2023, arXiv 2212.09849",
        regmean,
        sections=("regmean", "calibration"),
        whole=True,
        measures="inputs",
        check_span=fisher.check_no_adapters,
    ),
    "adamerging": Method(
        "base plus task vectors, a coefficient of each for every tensor, learned so that predictions on text "
        "become certain; for several runs of one base, with little evidence for one run",
        "Yang et al. 2024, arXiv 2310.02575",
        _row(Row(anchor.base, deltas.as_they_are, adamerging.learned, combine.total)),
        base="required",
        sections=("adamerging", "calibration"),
        measures="coefficients",
        findings=adamerging.adamerging_findings,
        check_span=adamerging.check_no_factors,
    ),
    "task_arithmetic": Method(
        "base plus the sum of task vectors",
        "Ilharco et al. 2022, arXiv 2212.04089",
        _row(Row(anchor.base, deltas.as_they_are, weights.chosen, combine.total)),
        base="required",
        at_least=1,
        sections=("lam", *WEIGHT_SECTIONS),
        spans_model=weights.spans_model,
        check=check_counts,
        notes=reductions.of_task_arithmetic,
        check_span=low_rank.check_weighed_span,
    ),
    "ties": Method(
        "trim, elect sign, disjoint mean",
        "Yadav et al. 2023, arXiv 2306.01708",
        _row(Row(anchor.base, deltas.trimmed, weights.chosen, combine.elected)),
        base="required",
        at_least=1,
        sections=("ties", "lam", *WEIGHT_SECTIONS),
        spans_model=_over_the_model,
        check=_check_ties,
    ),
    "dare": Method(
        "drop and rescale, then the sum",
        "Yu et al. 2023, arXiv 2311.03099",
        _row(Row(anchor.base, deltas.dropped, weights.chosen, combine.total)),
        base="required",
        at_least=1,
        sections=("dare", "lam", *WEIGHT_SECTIONS),
        spans_model=weights.spans_model,
        check=check_counts,
    ),
    "dare_ties": Method(
        "drop and rescale, then TIES",
        "Yu et al. 2023, arXiv 2311.03099",
        _row(Row(anchor.base, deltas.dropped_and_trimmed, weights.chosen, combine.elected)),
        base="required",
        at_least=1,
        sections=("dare", "ties", "lam", *WEIGHT_SECTIONS),
        spans_model=_over_the_model,
        check=check_counts,
    ),
    "breadcrumbs": Method(
        "drop outliers and small changes, then the sum",
        "Davari and Belilovsky 2023, arXiv 2312.06795",
        _row(Row(anchor.base, deltas.banded, weights.chosen, combine.total)),
        base="required",
        at_least=1,
        sections=("breadcrumbs", "lam", *WEIGHT_SECTIONS),
        spans_model=weights.spans_model,
        check=_check_breadcrumbs,
    ),
    "metagpt": Method(
        "base plus task vectors weighted by their squared norms",
        "Zhou et al. 2024, arXiv 2406.11385",
        _row(Row(anchor.base, deltas.as_they_are, norms.metagpt, combine.total)),
        base="required",
        at_least=1,
        sections=("metagpt", "lam"),
        spans_model=lambda params: params.metagpt.per == "model",
        check_span=low_rank.check_any_span,
    ),
    "slerp": Method(
        "along the arc between two checkpoints",
        "Shoemake 1985",
        _row(Row(anchor.no_anchor, deltas.weights_themselves, slerp, combine.total)),
        at_most=2,
        sections=("slerp",),
    ),
    "model_stock": Method(
        "between base and average, by the angle of the task vectors",
        "Jang et al. 2024, arXiv 2403.19522",
        _row(Row(anchor.base, deltas.as_they_are, model_stock, combine.total)),
        base="required",
        findings=model_stock_findings,
        check_span=low_rank.check_any_span,
    ),
    "widen": Method(
        "task vectors weighted column by column, by how far magnitude and direction moved",
        "Yu et al. 2024, arXiv 2408.03092",
        _row(Row(anchor.base, deltas.as_they_are, widen, combine.total)),
        base="required",
        at_least=1,
        sections=("widen",),
        notes=reductions.of_widen,
    ),
    "tsv_m": Method(
        "task singular vectors, decorrelated",
        "Gargiulo et al. 2024, arXiv 2412.00081",
        spectral.tsv_m,
        base="required",
        at_least=1,
        sections=("lam",),
        whole=True,
    ),
    "iso_c": Method(
        "summed task vectors with a flat spectrum",
        "Marczak et al. 2025, arXiv 2502.04959",
        spectral.iso_c,
        base="required",
        at_least=1,
        sections=("lam",),
        whole=True,
    ),
}


def method_of(variants: Sequence[Settings]) -> Method:
    """Return the row of the table; where all variants reduce to averages, one that only averages."""
    row = METHODS[variants[0].params.method]
    if not all(row.averages(settings) for settings in variants):
        return row
    return row._replace(program=lambda own: compose(PLAIN_AVERAGE, averaging(own)), family=None, whole=False)


def averaging(settings: Settings) -> Settings:
    """Return the settings of a plain average of the same checkpoints and tensors.

    With its own defaults: an average must not read what was set for the method that it stands for, whose λ it
    would multiply the weights by.
    """
    plain = MergeParams(method="average")
    return replace(settings, params=plain, at=lambda tensor: plain)
