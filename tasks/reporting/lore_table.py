"""What LoRE found, by kind of matrix."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median

from tasks.base.measures import LoreMeasures, TensorMeasures
from tasks.reporting.lore_matrices import active_rank, decomposed, rank_share
from tasks.reporting.model_parts import grouped, kind_of

LORE_HEADER = [
    "kind of matrix",
    "μ / edge",
    "active rank",
    "effective rank",
    "explained",
    "surviving",
    "from mean",
    "gap",
    "passes",
]
LORE_LEGEND = (
    "Medians over the matrices of a kind; gap and passes are the largest. μ / edge: the threshold over the "
    "noise edge, the largest singular value that noise alone would have. Active rank: how many singular "
    "values of a task vector lie above μ, and their share of full rank; effective rank: how many equal ones "
    "they amount to. Explained: the task vectors' share of the energy by which the checkpoints differ. "
    "Surviving: how much of the task vectors' length is left in their sum. From mean: how far the result "
    "lies from plain averaging, over the mean distance of a checkpoint."
)


def lore_rows(tensors: Mapping[str, TensorMeasures]) -> list[list[str]]:
    """Return rows of text under `HEADER`, one for each kind of matrix that was decomposed."""
    kinds = grouped(decomposed(tensors), kind_of)
    return [[kind, *_cells(matrices)] for kind, matrices in kinds.items()]


def _cells(matrices: Sequence[LoreMeasures]) -> list[str]:
    def middle(value: Callable[[LoreMeasures], float]) -> float:
        return median(map(value, matrices))

    edges = [matrix.threshold / matrix.edge for matrix in matrices if matrix.edge]
    return [
        f"{median(edges):.3g}" if edges else "-",
        f"{middle(active_rank):.3g} ({middle(rank_share):.0%})",
        f"{middle(lambda matrix: fmean(matrix.effective_ranks)):.3g}",
        f"{middle(lambda matrix: matrix.explained):.1%}",
        f"{middle(lambda matrix: matrix.share):.1%}",
        f"{middle(lambda matrix: matrix.from_mean):.1%}",
        f"{max(matrix.gap for matrix in matrices):.1e}",
        f"{max(matrix.passes for matrix in matrices)}",
    ]
