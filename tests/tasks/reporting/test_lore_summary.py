"""Sentences say what the facts say: how low-rank, how far from averaging, how well solved."""

from pathlib import Path

import numpy as np
import pytest

from tasks.base.records import MergeInput, MergeReport
from tasks.reporting.lore_summary import LoreSummary, summarise
from tests.support.lore_facts_reference import EDGE, facts, noise, spiked

AVERAGED = {"averaged": True}


def report(*matrices: dict, method: str = "lore", tolerance: float = 1e-4) -> MergeReport:
    return MergeReport(
        method=method, parameters={"lore": {"tolerance": tolerance}}, outputs=(), notes=(),
        inputs=tuple(MergeInput(path="x", step=step, digest="") for step in (1, 2, 3)),
        tensors={"norm": AVERAGED} | {f"layers.{i}.w": found for i, found in enumerate(matrices)},
    )  # fmt: skip


def found(*matrices: dict, **options: object) -> LoreSummary:
    summary = summarise(report(*matrices, **options))
    assert summary is not None
    return summary


def text(*matrices: dict, **options: object) -> str:
    return "\n".join(found(*matrices, **options).sentences)


def test_other_methods_have_no_summary() -> None:
    assert summarise(report(method="ties")) is None


def test_numbers_are_medians_and_extremes_over_the_decomposed_matrices() -> None:
    matrices = [
        facts(spiked(seed, height), EDGE, gap=seed / 1e5, passes=seed)
        for seed, height in ((1, 3), (2, 5), (3, 9))
    ]
    summary = found(*matrices)
    assert summary.matrices == 3
    assert summary.rank == np.median([np.mean(f["active"]) for f in matrices])
    assert summary.rank_share == pytest.approx(np.median([np.mean(f["active"]) / 16 for f in matrices]))
    assert summary.explained == np.median([f["explained"] for f in matrices])
    assert summary.from_mean == np.median([f["from_mean"] for f in matrices])
    assert summary.farthest == max(f["from_mean"] for f in matrices)
    assert (summary.gap, summary.passes, summary.tolerance) == (3e-5, 3, 1e-4)
    first, second, last = summary.sentences
    assert f"rank {summary.rank:.3g} ({100 * summary.rank_share:.0f} % of full rank)" in first
    assert f"hold {100 * summary.explained:.0f} % of the energy" in first
    assert f"lies {100 * summary.from_mean:.0f} % of" in second
    assert last == "Solved to a relative duality gap of 3.0e-05 or less everywhere, in 3 passes at most."


def test_nothing_decomposed_is_averaging() -> None:
    assert text() == "No matrix was decomposed: this merge is plain averaging."


def test_nothing_above_mu_anywhere_is_averaging() -> None:
    assert text(facts(spiked(0), 10 * EDGE), facts(spiked(1), 10 * EDGE)) == (
        "No singular value rises above μ in any matrix: this merge is plain averaging."
    )


def test_nothing_above_mu_somewhere_is_counted() -> None:
    said = text(facts(spiked(0), EDGE), facts(spiked(1), 10 * EDGE), facts(spiked(2), EDGE, active=[1, 0, 0]))
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
    assert reading in text(facts(spiked(0), EDGE, lam))


def test_failures_of_the_assumption_are_said_with_their_reason() -> None:
    assert "assumption" not in text(facts(spiked(0), EDGE))
    dense = facts(spiked(0), 0.1 * EDGE)
    assert "In all 2 matrices the low-rank assumption fails: at this μ, factors" in text(dense, dense)
    mixed = text(dense, facts(noise(0), EDGE), facts(spiked(0, height=2.0), 1.2 * EDGE))
    assert "In 1 of 3 matrices the low-rank assumption fails: at this μ, factors" in mixed
    assert (
        "In 1 of 3 matrices the low-rank assumption fails: no singular value rises above the noise" in mixed
    )
    assert "the low-rank assumption is doubtful: the task vectors hold less than 10 % of" in mixed


def test_noise_alone_is_said_although_nothing_rises_above_mu() -> None:
    assert "In 1 of 1 matrix the low-rank assumption fails: no singular" in text(facts(noise(0), 2 * EDGE))


def test_a_cut_by_rank_ratio_is_counted() -> None:
    said = text(facts(spiked(0), EDGE, rank=1), facts(spiked(1), EDGE))
    assert "In 1 of 2 matrices merge.lore.rank_ratio cuts the task vectors." in said


def test_a_gap_above_the_tolerance_is_no_solution() -> None:
    assert text(facts(spiked(0), EDGE, gap=0.1, passes=1), facts(spiked(1), EDGE, passes=1)).endswith(
        "Not converged: after 1 pass the worst relative duality gap is 1.0e-01, above merge.lore.tolerance "
        "1.0e-04; the result depends on the number of passes."
    )


def test_a_closed_form_is_exact() -> None:
    assert text(facts(spiked(0), EDGE, gap=0.0, passes=1)).endswith("Every matrix is solved exactly.")


def test_a_summary_is_a_record(tmp_path: Path) -> None:
    summary = found(facts(spiked(0), EDGE))
    summary.write(tmp_path / "lore.json")
    assert LoreSummary.read(tmp_path / "lore.json") == summary
