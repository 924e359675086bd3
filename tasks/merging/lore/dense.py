"""Solving with full decompositions in every pass: for many active singular values, or small matrices."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from tasks.merging.lore.certificate import energy, gram_matrix
from tasks.merging.lore.duality_gap import DualityGap
from tasks.merging.lore.momentum import Momentum
from tasks.merging.lore.penalty import Penalty
from tasks.merging.lore.problem import Factors, NotConverged, Solution, Tensor, Unproven
from tasks.merging.lore.scale import Deviations, Scale, values

DENSE_PASSES = 10_000
DENSE_SINGLE_PASSES = 300
"""In float32, whose rounding may be what is in the way."""
GRAM_SHARE = 0.1
"""Share of the tolerance that a Gram matrix may cost: it squares the condition number.

Of its root in float32, where what is found has to be proven: errors of δ count squared.
"""


class Shrunk(NamedTuple):
    """The proximal map of a matrix."""

    delta: Factors
    sigma: list[float]
    """Of the matrix itself."""
    threshold: float


def solve_densely(B: Tensor, scale: Scale, tolerance: float, passes: int | None = None) -> Solution:
    """Solve for N × m × n deviations, m ≥ n; with `passes`, just so many of Algorithm 1's, converged or not.

    Raises NotConverged naming the gap reached; Unproven where float32 is too coarse.
    """
    N, total_energy = len(B), energy(B)
    spectra = [values(singular(b)) for b in B]
    found = Deviations(spectra, total_energy)
    penalty, edge = scale.penalty(found)
    z = previous = torch.zeros_like(B[0])
    momentum = Momentum()
    limit = passes or (DENSE_PASSES if B.dtype == torch.float64 else DENSE_SINGLE_PASSES)
    for taken in range(1, limit + 1):
        current = penalty if passes else penalty.coming_down(found.largest, taken)
        shrunk = [shrink(b - z, current, tolerance) for b in B]
        S = torch.zeros_like(z)
        for delta, _, _ in shrunk:
            S.addmm_(delta.U * delta.sigma, delta.V.T)
        step = -z - S / N
        accounts = _accounts(total_energy, z, S, shrunk, current)
        gap = accounts.gap(_excess(step, accounts, tolerance))
        if taken == passes or (passes is None and current == penalty and gap <= tolerance):
            return Solution(
                [delta for delta, _, _ in shrunk],
                [sigma for _, sigma, _ in shrunk],
                current,
                list(accounts.thresholds),
                edge,
                taken,
                gap,
                "passes" if passes else "dense",
            )
        if passes is None and current == penalty and accounts.rounding > tolerance * accounts.primal:
            break  # no number of passes will prove it
        moved = z + step
        beta = 0.0 if passes else momentum.after(uphill=float((step * (moved - previous)).sum()) < 0)
        z = moved + beta * (moved - previous)
        previous = moved
    raise NotConverged(
        f"LoRE: relative duality gap {gap:.1e} after {taken} passes, above merge.lore.tolerance "
        f"{tolerance:.1e}; raise merge.lore.mu or the tolerance"
    )


def singular(A: Tensor) -> Tensor:
    """Return the singular values, descending, exact to √ε · σ_1."""
    sigma: Tensor = torch.linalg.eigvalsh(gram_matrix(A)).flip(-1).clamp(min=0).sqrt()
    return sigma


def shrink(A: Tensor, penalty: Penalty, tolerance: float) -> Shrunk:
    """Return the proximal map of A (m ≥ n), its singular values and the threshold taken off them.

    Through the Gram matrix where that is exact enough, else by a singular value decomposition.
    """
    squares, V = torch.linalg.eigh(gram_matrix(A))
    sigma, V = squares.flip(-1).clamp(min=0).sqrt(), V.flip(-1)
    t = penalty.threshold(values(sigma))
    U = None
    lost = torch.finfo(A.dtype).eps * float(sigma[0]) ** 2
    if A.dtype == torch.float32 and lost > GRAM_SHARE * tolerance**0.5 * t**2:
        raise Unproven
    if A.dtype == torch.float64 and lost > GRAM_SHARE * tolerance * t**2:
        U, sigma, Vt = torch.linalg.svd(A, full_matrices=False)
        V = Vt.T
        t = penalty.threshold(values(sigma))
    r = int((sigma > t).sum())
    left = U[:, :r] if U is not None else A @ V[:, :r] / sigma[:r]
    return Shrunk(Factors(left, sigma[:r] - t, V[:, :r]), values(sigma).tolist(), t)


def _accounts(
    total_energy: float, z: Tensor, S: Tensor, shrunk: Sequence[Shrunk], penalty: Penalty
) -> DualityGap:
    """Account for the task vectors found at z (see Accounts for what the numbers are)."""
    sigmas = [delta.sigma for delta, _, _ in shrunk]
    thresholds = [t for _, _, t in shrunk]
    aligned = row_dot(z, S) + sum(
        float(((sigma + t).double() * sigma.double()).sum())
        for sigma, t in zip(sigmas, thresholds, strict=True)
    )
    return DualityGap.of(penalty, sigmas, thresholds, aligned, row_dot(S, S) / len(shrunk), total_energy)


def row_dot(left: Tensor, right: Tensor) -> float:
    """Return ⟨left, right⟩; rows in their own precision, their sum in float64."""
    return float(torch.linalg.vecdot(left, right).double().sum())


def _excess(step: Tensor, accounts: DualityGap, tolerance: float) -> float:
    """Bound how far the dual point exceeds its bound, by ‖step‖_F or, where that decides, ‖step‖_2."""
    size, allowed = float(torch.linalg.matrix_norm(step)), accounts.allowance(tolerance)
    if allowed < size <= math.sqrt(step.shape[1]) * allowed:
        return float(singular(step)[0]) * (1 + 1e-6)
    return size
