"""What is computed at a z, a product of few columns: the step from there, and other matrices between."""

from collections.abc import Iterator, Sequence

import torch

from tasks.merging.lore.algebra import Factors, Norms, Spanned, Tensor, add_up, row_blocks


def nowhere(like: Tensor) -> Spanned:
    """Return the zero matrix, of the shape of another."""
    return Spanned(like.new_zeros(len(like), 0), like.new_zeros(0, 0), like.new_zeros(like.shape[1], 0))


def best_base(deltas: Sequence[Factors]) -> Spanned:
    """Return −S/N, S = Σδ_i: the best z for these task vectors (fact 2)."""
    S = add_up(deltas)
    return Spanned(S.U, torch.diag(S.sigma / -len(deltas)), S.V)


def between(one: Spanned, other: Spanned, share: float) -> Spanned:
    """Return the matrix that lies so far from one on the way to the other."""
    parts = (one._replace(core=(1 - share) * one.core), other._replace(core=share * other.core))
    return _together(*parts).spread()


def slope_at(z: Spanned, deltas: Sequence[Factors]) -> Spanned:
    """Return Nz + S, minus the slope of the fit."""
    S = add_up(deltas)
    return _together(z._replace(core=len(deltas) * z.core), Spanned(S.U, torch.diag(S.sigma), S.V))


def _together(one: Spanned, other: Spanned) -> Spanned:
    """Return the sum, as one product."""
    core = one.core.new_zeros(len(one.core) + len(other.core), one.core.shape[1] + other.core.shape[1])
    core[: len(one.core), : one.core.shape[1]] = one.core
    core[len(one.core) :, one.core.shape[1] :] = other.core
    return Spanned(torch.cat([one.U, other.U], 1), core, torch.cat([one.V, other.V], 1))


def step_within(z: Spanned, deltas: Sequence[Factors], U: Tensor, V: Tensor) -> Tensor:
    """Return Uᵀ(−z − S/N)V."""
    S = sum_within(deltas, U, V)
    return -(z.within(U, V) + S / len(deltas))


def sum_within(deltas: Sequence[Factors], U: Tensor, V: Tensor) -> Tensor:
    """Return UᵀSV, S = Σδ_i."""
    left, right = _sum(deltas)
    return (U.T @ left) @ (right.T @ V)


def norms_of(z: Spanned, deltas: Sequence[Factors]) -> Norms:
    """Return the norms at z, a few rows at a time: of small differences cores would tell nothing."""
    energy = square = along = 0.0
    for here, step in _with_step(z, deltas):
        energy, square, along = energy + _dot(here, here), square + _dot(step, step), along + _dot(here, step)
    return Norms(energy, square**0.5, along)


def slope_towards(last: Spanned, z: Spanned, deltas: Sequence[Factors]) -> float:
    """Return ⟨last − z, step⟩, the step at z."""
    left = last.U @ last.core
    blocks = zip(row_blocks(left), _with_step(z, deltas), strict=True)
    return sum(_dot(last.rows(left, rows) - here, step) for rows, (here, step) in blocks)


def _with_step(z: Spanned, deltas: Sequence[Factors]) -> Iterator[tuple[Tensor, Tensor]]:
    left, right = _sum(deltas)
    own = z.U @ z.core
    for rows in row_blocks(own):
        here = z.rows(own, rows)
        yield here, torch.addmm(here, left[rows], right.T, beta=-1, alpha=-1 / len(deltas))


def _sum(deltas: Sequence[Factors]) -> tuple[Tensor, Tensor]:
    """Return S as a product of two, the second transposed."""
    return torch.cat([delta.U * delta.sigma for delta in deltas], 1), torch.cat(
        [delta.V for delta in deltas], 1
    )


def _dot(left: Tensor, right: Tensor) -> float:
    return float(torch.linalg.vecdot(left, right).double().sum())
