"""Sentences say what was measured: how low-rank, how far from averaging, how well solved."""

from pathlib import Path

import numpy as np
import pytest

from tasks.base.measures import LoreMeasures, TensorMeasures, WeightsUsed
from tasks.base.records.merge import MergeInput, MergeReport
from tasks.parameters.merge import MergeParams
from tasks.reporting.lore_summary import LoreSummary, summarise
from tests.support.lore_measures_reference import AVERAGED, EDGE, measures, noise, spiked, tensors


def report(*matrices: LoreMeasures, tolerance: float | str = 1e-4, **lore: object) -> MergeReport:
    defaults = MergeParams().model_dump()["lore"]
    return MergeReport(
        method="lore", parameters={"lore": defaults | lore | {"tolerance": tolerance}}, outputs=(), notes=(),
        inputs=tuple(MergeInput(path="x", step=step, digest="") for step in (1, 2, 3)),
        tensors=tensors({"norm": AVERAGED} | {f"layers.{i}.w": found for i, found in enumerate(matrices)}),
    )  # fmt: skip


def found(*matrices: LoreMeasures, **options: object) -> LoreSummary:
    summary = summarise(report(*matrices, **options))
    assert summary is not None
    return summary


def text(*matrices: LoreMeasures, **options: object) -> str:
    return "\n".join(found(*matrices, **options).sentences)


def test_other_methods_have_no_summary() -> None:
    others = {"w": TensorMeasures(method=WeightsUsed(weights=(1.0, 2.0))), "ids": TensorMeasures()}
    assert summarise(report().model_copy(update={"tensors": others})) is None


def test_numbers_are_medians_and_extremes_over_the_decomposed_matrices() -> None:
    matrices = [
        measures(spiked(seed, height), EDGE, gap=seed / 1e5, passes=seed)
        for seed, height in ((1, 3), (2, 5), (3, 9))
    ]
    summary = found(*matrices, mu_scale="absolute")
    assert summary.matrices == 3
    assert summary.rank == np.median([np.mean(f.active) for f in matrices])
    assert summary.rank_share == pytest.approx(np.median([np.mean(f.active) / 16 for f in matrices]))
    assert summary.explained == np.median([f.explained for f in matrices])
    assert summary.from_mean == np.median([f.from_mean for f in matrices])
    assert summary.farthest == max(f.from_mean for f in matrices)
    assert (summary.gap, summary.passes, summary.tolerance) == (3e-5, 3, 1e-4)
    first, second, last = summary.sentences
    assert f"rank {summary.rank:.3g} ({100 * summary.rank_share:.0f} % of full rank)" in first
    assert f"hold {100 * summary.explained:.0f} % of the energy" in first
    assert f"lies {100 * summary.from_mean:.0f} % of" in second
    assert last == "Solved to a relative duality gap of 3.0e-05 or less everywhere, in 3 passes at most."


def test_nothing_decomposed_is_averaging() -> None:
    assert text() == "No matrix was decomposed: this merge is plain averaging."


def test_nothing_above_mu_anywhere_is_averaging() -> None:
    assert text(measures(spiked(0), 10 * EDGE), measures(spiked(1), 10 * EDGE)) == (
        "No singular value rises above μ in any matrix: this merge is plain averaging."
    )


def test_nothing_above_mu_somewhere_is_counted() -> None:
    said = text(
        measures(spiked(0), EDGE), measures(spiked(1), 10 * EDGE), measures(spiked(2), EDGE, active=[1, 0, 0])
    )
    assert (
        "In 1 of 3 matrices no singular value rises above μ: there the result is the plain average." in said
    )


@pytest.mark.parametrize(
    ("lam", "reading"),
    [
        (1 / 3, "The result is the plain average.\n"),
        (1.05 / 3, "The result is nearly the plain average: it lies"),
        (1.0, "The result lies"),
    ],
)
def test_the_distance_from_averaging_is_read(lam: float, reading: str) -> None:
    """λ = 1/N is the mean (docs/mathematics.md, fact 2)."""
    assert reading in text(measures(spiked(0), EDGE, lam))


@pytest.mark.parametrize(("places", "said"), [(0.04, True), (7.0, False), (None, False)])
def test_what_rounding_hides_is_said(places: float | None, said: bool) -> None:
    """By the matrix that is farthest from the average; older records do not know."""
    near = measures(spiked(0), EDGE, places_from_mean=0.01)
    reading = text(near, measures(spiked(1), EDGE, places_from_mean=places))
    assert (
        "0.04 last places of the numbers written (root mean square): few of them differ" in reading
    ) == said
    assert ("last places of the numbers written" in reading) == said


def test_failures_of_the_assumption_are_said_with_their_reason() -> None:
    assert "assumption" not in text(measures(spiked(0), EDGE))
    dense = measures(spiked(0), 0.1 * EDGE)
    assert "In all 2 matrices the low-rank assumption fails: at this μ, factors" in text(dense, dense)
    mixed = text(dense, measures(noise(0), EDGE), measures(spiked(0, height=2.0), 1.2 * EDGE))
    assert "In 1 of 3 matrices the low-rank assumption fails: at this μ, factors" in mixed
    assert (
        "In 1 of 3 matrices the low-rank assumption fails: no singular value rises above the noise" in mixed
    )
    assert "the low-rank assumption is doubtful: the task vectors hold less than 10 % of" in mixed


def test_noise_alone_is_said_although_nothing_rises_above_mu() -> None:
    assert "In 1 of 1 matrix the low-rank assumption fails: no singular" in text(measures(noise(0), 2 * EDGE))


def test_a_cut_by_rank_ratio_is_counted() -> None:
    said = text(measures(spiked(0), EDGE, rank=1), measures(spiked(1), EDGE))
    assert "In 1 of 2 matrices merge.lore.rank_ratio cuts the task vectors." in said


def test_a_gap_above_the_tolerance_is_no_solution() -> None:
    assert text(measures(spiked(0), EDGE, gap=0.1, passes=1), measures(spiked(1), EDGE, passes=1)).endswith(
        "Not converged: after 1 pass the worst relative duality gap is 1.0e-01, above merge.lore.tolerance "
        "1.0e-04; the result depends on the number of passes."
    )


def test_stopped_passes_are_not_called_a_solution_whatever_the_tolerance() -> None:
    said = text(measures(spiked(0), EDGE, gap=0.1, passes=3), tolerance="auto", passes=3)
    assert said.endswith(
        "Not converged: after 3 passes the worst relative duality gap is 1.0e-01; the result depends on the "
        "number of passes."
    )


def test_the_proven_distance_is_the_worst_of_all_matrices() -> None:
    said = text(
        *(measures(spiked(i), EDGE, error=error) for i, error in enumerate((0.2, 0.31))), tolerance="auto"
    )
    assert said.endswith(
        "Within 0.31 last places of the exact LoRE merge everywhere (root mean square), proven, in 9 passes at most."
    )
    assert "hardly unique" not in said


FLAT = "In 1 of 2 matrices the exact base is hardly unique, and only the objective is proven."


def test_where_a_distance_was_asked_for_and_is_missing_the_base_is_hardly_unique() -> None:
    sharp, flat = measures(spiked(0), EDGE, error=0.2), measures(spiked(1), EDGE)
    said = text(sharp, flat, tolerance="auto")
    assert FLAT in said
    assert said.endswith(
        "Solved to a relative duality gap of 1.0e-07 or less everywhere, in 9 passes at most."
    )
    for other in (
        {"tolerance": 1e-4},
        {"penalty": "squared"},
        {"passes": 3},
        {"rank_ratio": 0.5},
        {"combine": "ties"},
    ):
        assert FLAT not in text(sharp, flat, **({"tolerance": "auto"} | other))


def test_a_threshold_above_the_edge_s_is_said_where_the_scale_chose_it() -> None:
    edge = measures(spiked(0), EDGE).edge
    raised, plain = (measures(spiked(0), EDGE, threshold=x * edge) for x in (1.5, 1.0))
    assert "In 1 of 2 matrices the singular values fall without a floor of noise" in text(raised, plain)
    assert "without a floor" not in text(raised, plain, mu_scale="absolute")


def test_a_closed_form_is_exact() -> None:
    assert text(measures(spiked(0), EDGE, gap=0.0, passes=1)).endswith("Every matrix is solved exactly.")


def test_a_summary_is_a_record(tmp_path: Path) -> None:
    summary = found(measures(spiked(0), EDGE))
    summary.write(tmp_path / "lore.json")
    assert LoreSummary.read(tmp_path / "lore.json") == summary
