"""What LoRE is asked of a matrix: which task vectors, of which deviations, and how near to the exact ones."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tasks.merging.arrays import Array
from tasks.merging.block import Block
from tasks.merging.program import Settings
from tasks.merging.roles import is_embedding, is_head
from tasks.merging.solving import MatrixProblem
from tasks.parameters.merge import LoreParams, MergeParams

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.merging.lore.problem import Near

DIGITS = {"F64": 53, "F32": 24, "F16": 11, "BF16": 8}
"""Binary digits of a number."""
LAST_PLACES, FINE = 0.5, 256
"""Of tolerance auto: half a last place, or this fraction of how far the checkpoints lie apart: what is finer
drowns in their noise."""


class AroundMean(NamedTuple):
    """The checkpoints of one matrix around their mean."""

    mean: "Tensor"
    B: "Tensor"
    """N × m × n, the deviations."""
    energy: float
    """‖mean‖²"""
    energies: list[float]
    """‖B_i‖²"""
    shape: tuple[int, int]
    """Of the matrix, of which an adapter's block is only the core."""
    of_numpy: bool

    def as_given(self, matrix: "Tensor") -> Array:
        """Return a matrix as the block has its arrays."""
        return matrix.numpy() if self.of_numpy else matrix


class Demand(NamedTuple):
    """What is to be solved, and how exactly."""

    problem: MatrixProblem
    goal: "float | Near"
    place: float
    """One unit in the last place of a usual weight, as it is written."""


def spread(block: Block, settings: Settings) -> AroundMean:
    """Return a block's checkpoints around their mean; the deviations lie where they lay."""
    import torch

    from tasks.merging.lore.algebra import energy

    mean, B = deviations(block)
    tensor = settings.shapes[block.tensor]
    shape = (tensor[0], tensor[1]) if len(tensor) == 2 else (B.shape[1], B.shape[2])
    return AroundMean(
        mean, B, energy(mean), [energy(b) for b in B], shape, not isinstance(block.thetas, torch.Tensor)
    )


def question(block: Block, own: AroundMean, settings: Settings, params: MergeParams) -> Demand:
    """Return what parameters ask of a matrix."""
    elements = math.prod(own.shape)
    place = last_place(settings.dtypes.get(block.tensor, "F32"), (own.energy / elements) ** 0.5)
    reach = max(1.0, abs(settings.count * beyond(params, settings.count)))
    problem = MatrixProblem(block.tensor, block.matrix, tuple(own.B.shape), _asked(params.lore, reach))
    return Demand(problem, _tolerance(params.lore, own.energies, place * elements**0.5, reach), place)


def are_identical(block: Block) -> bool:
    """Tell whether the checkpoints share this tensor, as they do where a layer is frozen."""
    first, *others = block.thetas
    return all(bool((theta[:1] == first[:1]).all()) and bool((theta == first).all()) for theta in others)


def is_averaged(block: Block, settings: Settings, params: MergeParams) -> bool:
    """Tell whether parameters leave a block out: a vector, or an embedding."""
    shape = settings.shapes[block.tensor]
    if len(shape) < 2 or math.prod(shape) == 0:
        return True
    return params.lore.embeddings == "average" and (
        is_embedding(block.tensor, shape) or is_head(block.tensor, shape)
    )


def deviations(block: Block) -> tuple["Tensor", "Tensor"]:
    """Return mean(θ), and a whole matrix's θ_i as B_i = θ_i − mean(θ), N × m × n, where they lie.

    There is no room for both; a few rows at a time, which caches hold. The B_i sum to zero but for rounding
    of their own size.
    """
    import torch

    from tasks.merging.lore.algebra import row_blocks

    stacked = hasattr(block.thetas, "shape")
    thetas = block.thetas if stacked else torch.stack([torch.as_tensor(theta) for theta in block.thetas])
    B = torch.as_tensor(thetas)
    mean = B.new_empty(B.shape[1:])
    for rows in row_blocks(mean):
        mean[rows] = torch.as_tensor(block.part(rows.start, rows.stop).mean)
        part = B[:, rows].sub_(mean[rows])
        part.sub_(part.mean(0))  # the mean of the weights was rounded to their size
    return mean, B


def _asked(lore: LoreParams, reach: float) -> tuple[object, ...]:
    """Return what decides the task vectors, before they are cut and combined."""
    accuracy = reach if lore.tolerance == "auto" else lore.tolerance
    return lore.mu, lore.mu_scale, lore.penalty, lore.anchor, lore.tolerance, accuracy, lore.passes


def last_place(dtype: str, magnitude: float) -> float:
    """Return one unit in the last place of a number of this size, as it is stored."""
    return math.ldexp(1.0, math.frexp(magnitude)[1] - DIGITS[dtype])


def _tolerance(lore: LoreParams, energies: Sequence[float], rounding: float, reach: float) -> "float | Near":
    """Return how near to the exact θ_0 is near enough; what λ multiplies it by, `reach`, is at least 1.

    `rounding` is one last place of every element, in the Frobenius norm. At least 1 so that all λ up to 2/N,
    with the average in the middle, share one solution.
    """
    from tasks.merging.lore.problem import Near

    if lore.tolerance != "auto":
        return lore.tolerance
    deviation = (sum(energies) / len(energies)) ** 0.5
    return Near(max(LAST_PLACES * rounding, deviation / FINE) / reach)


def lam_of(params: MergeParams, count: int) -> float:
    """Return λ: the one given, else 1; for the sum 0.75/N, chosen by the demo's seeds (docs/study.md)."""
    if params.lam is not None:
        return params.lam
    return 0.75 / count if params.lore.combine == "sum" and params.lore.preset is None else 1.0


def beyond(params: MergeParams, count: int) -> float:
    """Return the factor f in θ* = mean + f·S, for τ = S and τ = S/N (docs/mathematics.md, fact 2)."""
    lam = lam_of(params, count)
    return lam - 1 / count if params.lore.combine == "sum" else (lam - 1) / count
