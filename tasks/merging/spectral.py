"""Methods on the singular vectors of the task vectors δ_i = θ_i − θ_b; vectors take the mean of theirs.

θ* = θ_b + λτ, matrix by matrix. Singular values below RANK · σ_1 are rounding: their vectors are arbitrary,
and both methods leave them out instead of amplifying them.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tasks.base.measures import IsoCMeasures, TsvMMeasures
from tasks.merging.block import Block
from tasks.merging.program import Merged, Program, Settings, without_measuring

if TYPE_CHECKING:
    from torch import Tensor

RANK = 1e-6
"""Singular values come from Gram matrices, exact to 1e-8 · σ_1 and, of large ones, to 1e-7."""


def tsv_m(settings: Settings) -> Program:
    """Merge task singular vectors, decorrelated (Gargiulo et al. 2024, arXiv 2412.00081)."""
    return without_measuring(lambda block: _merge(block, settings, decorrelated))


def iso_c(settings: Settings) -> Program:
    """Flatten the spectrum of the summed task vectors (Marczak et al. 2025, arXiv 2502.04959)."""
    return without_measuring(lambda block: _merge(block, settings, isotropic))


def decorrelated(deltas: Sequence["Tensor"]) -> tuple["Tensor", TsvMMeasures]:
    """Return τ = U_⊥ Σ V_⊥ᵀ for N matrices with m ≥ n.

    Of each matrix the n/N largest singular values (at least one) and their vectors, side by side; U_⊥ and V_⊥
    are the nearest matrices with orthonormal columns.
    """
    import torch

    share = max(1, deltas[0].shape[1] // len(deltas))
    parts = [_leading(delta, share) for delta in deltas]
    U, S, V = (torch.cat(own, dim=-1) for own in zip(*parts, strict=True))
    return (_polar(U) * S) @ _polar(V).T, TsvMMeasures(ranks=tuple(part[1].numel() for part in parts))


def isotropic(deltas: Sequence["Tensor"]) -> tuple["Tensor", IsoCMeasures]:
    """Return τ = σ̄ U Vᵀ for N matrices with m ≥ n, σ̄ the mean of the n singular values of Σδ_i."""
    import torch

    whole = torch.stack(list(deltas)).sum(0)
    U, S, V = _leading(whole, whole.shape[1])
    sigma = float(S.sum()) / whole.shape[1]
    return sigma * U @ V.T, IsoCMeasures(sigma=sigma, rank=S.numel())


def _merge(
    block: Block,
    settings: Settings,
    method: Callable[[Sequence["Tensor"]], tuple["Tensor", TsvMMeasures | IsoCMeasures]],
) -> Merged:
    import torch

    block = block.double()
    given = settings.at(block.tensor).lam
    lam = 1.0 if given is None else given
    if len(settings.shapes[block.tensor]) < 2:
        return block.anchor + lam * (sum(block.deltas[1:], block.deltas[0]) / settings.count), None
    deltas = [torch.as_tensor(delta) for delta in block.deltas]
    wide = deltas[0].shape[0] < deltas[0].shape[1]
    tau, measures = method([delta.T for delta in deltas] if wide else deltas)
    merged = torch.as_tensor(block.anchor) + lam * (tau.T if wide else tau)
    return merged if isinstance(block.anchor, torch.Tensor) else merged.numpy(), measures


def _leading(matrix: "Tensor", count: int) -> tuple["Tensor", "Tensor", "Tensor"]:
    """Return U, σ and V of the `count` largest singular values, fewer where the rank is lower."""
    import torch

    squares, V = torch.linalg.eigh(matrix.T @ matrix)
    V, sigma = V.flip(-1), squares.flip(-1).clamp(min=0).sqrt()
    rank = min(count, int((sigma > RANK * sigma[:1]).sum()))
    V, sigma = V[:, :rank], sigma[:rank]
    return matrix @ V / sigma, sigma, V


def _polar(matrix: "Tensor") -> "Tensor":
    """Return the nearest matrix with orthonormal columns; with dependent columns, nearest to a projection."""
    U, _, V = _leading(matrix, matrix.shape[1])
    return U @ V.T
