"""LoRE's results for the whole model, in numbers and sentences, for every report."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from tasks.base.measures import Averaged, LoreMeasures
from tasks.base.records.merge import MergeReport
from tasks.base.records.record import Record
from tasks.reporting.lore_matrices import FAINT, active_rank, decomposed, doubt, rank_share

NEAR = 0.1
"""Within this share of a checkpoint's own distance a merge is nearly the mean. Around the mean the loss is
about quadratic, so that a tenth of the way is a hundredth of the difference."""
SAME = 1e-9
"""Below this share it is the mean within rounding."""
HIDDEN = 0.25
"""Last places, root mean square, below which few of the numbers written differ from those of the mean."""


class LoreSummary(Record):
    """What LoRE found; medians are over the matrices that it decomposed."""

    matrices: int
    """How many were decomposed."""
    averaged: int
    """Those of them where no singular value rises above μ: there LoRE is averaging."""
    cut: int
    """Those where rank_ratio took some of the active rank."""
    dense: int
    noise: int
    faint: int
    """Those where the low-rank assumption does not hold, by reason (see `doubt`)."""
    rank: float
    """Median active rank of a task vector."""
    rank_share: float
    """Median of the active rank over min(m, n)."""
    explained: float
    """Median share of the deviations' energy that is low-rank."""
    from_mean: float
    """Median distance of the merge from averaging, over that of a checkpoint."""
    farthest: float
    """The largest such distance."""
    places: float | None
    """The largest distance from averaging in last places of the dtype written, if it is known."""
    passes: int
    """The most that any matrix took."""
    gap: float
    """The worst relative duality gap."""
    tolerance: float | None
    """The gap that was asked for, if one was."""
    stopped: bool
    """Whether merge.lore.passes stopped Algorithm 1, converged or not."""
    error: float | None
    """The worst proven distance from the exact merge, in last places; None where one has none."""
    flat: int
    """Those where none could be proven although it was asked for: the minimiser is hardly unique."""
    crowded: int
    """Those where more singular values than 5 % stand above the noise edge, and μ was raised."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """The results in sentences without formulas, the most important first."""
        if self.matrices == 0:
            return ("No matrix was decomposed: this merge is plain averaging.",)
        if self.averaged == self.matrices:
            nothing = "No singular value rises above μ in any matrix: this merge is plain averaging."
            return nothing, *self._doubts()
        return self._found(), self._distance(), *self._doubts(), *self._partly(), self._certificate()

    def _found(self) -> str:
        return (
            f"In the median of {self.matrices} matrices a task vector has rank {self.rank:.3g} "
            f"({_percent(self.rank_share)} of full rank), and the task vectors hold "
            f"{_percent(self.explained)} of the energy by which the checkpoints differ."
        )

    def _distance(self) -> str:
        if self.farthest < SAME:
            return "The result is the plain average."
        nearly = "is nearly the plain average: it " if self.farthest < NEAR else ""
        hidden = ""
        if self.places is not None and self.places < HIDDEN:
            hidden = (
                f" That is {self.places:.2g} last places of the numbers written (root mean square): few of "
                "them differ from the average's."
            )
        return (
            f"The result {nearly}lies {_percent(self.from_mean)} of a checkpoint's own distance from the "
            f"plain average in the median matrix, {_percent(self.farthest)} at most.{hidden}"
        )

    def _doubts(self) -> list[str]:
        dense = (
            "In {} the low-rank assumption fails: at this μ, factors of the active rank would be no smaller "
            "than the matrix; raise merge.lore.mu."
        )
        noise = (
            "In {} the low-rank assumption fails: no singular value rises above the noise edge, so that "
            "nothing low-rank stands out."
        )
        faint = (
            f"In {{}} the low-rank assumption is doubtful: the task vectors hold less than {_percent(FAINT)} "
            "of the energy by which the checkpoints differ; the rest is not low-rank, or μ hides that it is."
        )
        return self._filled({dense: self.dense, noise: self.noise, faint: self.faint})

    def _partly(self) -> list[str]:
        said = {
            "In {} no singular value rises above μ: there the result is the plain average.": self.averaged,
            "In {} merge.lore.rank_ratio cuts the task vectors.": self.cut,
            "In {} the singular values fall without a floor of noise: 5 % of them lie above μ.": self.crowded,
            "In {} the exact base is hardly unique, and only the objective is proven.": self.flat,
        }
        return self._filled(said)

    def _certificate(self) -> str:
        if self.gap == 0:
            return "Every matrix is solved exactly."
        passes = "1 pass" if self.passes == 1 else f"{self.passes} passes"
        if self.stopped if self.tolerance is None else self.gap > self.tolerance:
            above = "" if self.tolerance is None else f", above merge.lore.tolerance {self.tolerance:.1e}"
            return (
                f"Not converged: after {passes} the worst relative duality gap is {self.gap:.1e}{above}; "
                "the result depends on the number of passes."
            )
        if self.error is not None:
            return (
                f"Within {self.error:.2g} last places of the exact LoRE merge everywhere (root mean square), "
                f"proven, in {passes} at most."
            )
        return f"Solved to a relative duality gap of {self.gap:.1e} or less everywhere, in {passes} at most."

    def _filled(self, said: Mapping[str, int]) -> list[str]:
        """Name the matrices in each sentence that holds for any."""
        return [sentence.format(self._of(count)) for sentence, count in said.items() if count]

    def _of(self, count: int) -> str:
        whole = f"{self.matrices} {'matrix' if self.matrices == 1 else 'matrices'}"
        return f"all {whole}" if count == self.matrices > 1 else f"{count} of {whole}"


def summarise(report: MergeReport) -> LoreSummary | None:
    """Sum up what LoRE found; None for other methods."""
    if not any(isinstance(own.method, LoreMeasures | Averaged) for own in report.tensors.values()):
        return None
    matrices = list(decomposed(report.tensors).values())
    doubts = Counter(map(doubt, matrices))
    lore = report.parameters.get("lore", {})
    errors = [matrix.error for matrix in matrices if matrix.error is not None]
    places = [apart for matrix in matrices if (apart := matrix.places_from_mean) is not None]
    return LoreSummary(
        matrices=len(matrices),
        averaged=sum(not any(matrix.active) for matrix in matrices),
        cut=sum(matrix.ranks != matrix.active for matrix in matrices),
        dense=doubts["dense"],
        noise=doubts["noise"],
        faint=doubts["faint"],
        rank=_median(matrices, active_rank),
        rank_share=_median(matrices, rank_share),
        explained=_median(matrices, lambda matrix: matrix.explained),
        from_mean=_median(matrices, lambda matrix: matrix.from_mean),
        farthest=max((matrix.from_mean for matrix in matrices), default=0.0),
        places=max(places) if len(places) == len(matrices) > 0 else None,
        passes=max((matrix.passes for matrix in matrices), default=0),
        gap=max((matrix.gap for matrix in matrices), default=0.0),
        tolerance=tolerance if isinstance(tolerance := lore.get("tolerance"), float) else None,
        error=max(errors) if len(errors) == len(matrices) > 0 else None,
        stopped=lore.get("passes") is not None,
        flat=len(matrices) - len(errors) if _asks_for_distance(lore) else 0,
        crowded=sum(map(_crowded, matrices)) if lore.get("mu_scale") == "auto" else 0,
    )


def _asks_for_distance(lore: Mapping[str, Any]) -> bool:
    """Tell whether a distance from the exact merge is proven wherever the minimiser is sharp."""
    asked = {"tolerance": "auto", "penalty": "nuclear", "passes": None, "rank_ratio": 1.0}
    return all(lore.get(key) == value for key, value in asked.items()) and lore.get("combine") != "ties"


def _crowded(matrix: LoreMeasures) -> bool:
    return matrix.threshold > 1.01 * matrix.mu * matrix.edge


def _median(matrices: Sequence[LoreMeasures], value: Callable[[LoreMeasures], float]) -> float:
    return median(map(value, matrices)) if matrices else 0.0


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"
