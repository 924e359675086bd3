"""What holds for every solution of LoRE's problem, and the devices on which it must."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest
import torch

from tasks.merging.lore import columns
from tasks.merging.lore.penalty import Scale
from tasks.merging.lore.problem import Solution
from tasks.merging.lore.solve import solve
from tests.support.lore_reference import Array, Minimum, minimise, primal

GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
on_devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
DTYPES = [torch.float32, torch.float64]


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Take the way of a GPU with CPU tensors: matrices of a shape at once, bases from Gram matrices.

    Fails where that way was not taken.
    """
    with (
        mock.patch.object(torch.Tensor, "is_cuda", True, create=True),
        mock.patch.object(columns, "basis_by_gram", wraps=columns.basis_by_gram) as taken,
    ):
        yield
    assert taken.called


def ignore(number: int) -> None:
    """Take no notice of a pass."""


def absolute(B: Array, mu: float, kind: str = "nuclear", tolerance: float = 1e-10) -> Solution:
    """Solve float64 deviations with μ as a singular value."""
    return solve(torch.from_numpy(B), Scale(mu, "absolute", kind, B.shape[1:]), tolerance)  # type: ignore[arg-type]


def matrices(solution: Solution) -> Array:
    """Return the δ_i, N × m × n in float64."""
    return np.stack([delta.to(torch.float64).matrix().cpu().numpy() for delta in solution.deltas])


def check(solution: Solution, B: Array, tolerance: float, gap: float = 1e-10) -> Minimum:
    """Hold a solution to its certificate and to what follows from it; return the minimum.

    The objective is ½Σ‖Y_i‖² of the residuals plus something convex, so a suboptimality of ε leaves them
    within Σ‖Y_i − Y_i*‖² ≤ 2ε; and Y_i = B_i − (δ_i − mean δ).
    """
    penalty, deltas = solution.penalty, matrices(solution)
    assert [delta.shape for delta in deltas] == [B.shape[1:]] * len(B)
    here, best = primal(B, deltas, penalty.mu, penalty.kind), minimise(B, penalty.mu, penalty.kind, gap)
    claimed = solution.gap + 1e-12
    assert 0 <= solution.gap <= tolerance
    assert here - best.primal <= claimed * here
    apart = (deltas - deltas.mean(axis=0)) - (best.deltas - best.deltas.mean(axis=0))
    allowed = np.sqrt(2 * claimed * here) + np.sqrt(2 * gap * best.primal)
    assert np.linalg.norm(apart) <= allowed
    return best


def off(found: Array, exact: Array) -> float:
    """Return the relative distance."""
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
