"""What is computed of B − z from factors is what the matrices give."""

import numpy as np
import pytest
import torch

from tasks.merging.lore import algebra, place
from tasks.merging.lore.algebra import Factors, Spanned
from tests.support.lore_factors import factors
from tests.support.lore_matrices import family


def z_of(m: int, n: int, rank: int, seed: int) -> Spanned:
    """Return a matrix whose factors are not orthonormal."""
    random = torch.Generator().manual_seed(seed)
    shapes = ((m, rank), (rank, rank + 1), (n, rank + 1))
    return Spanned(*(torch.randn(*shape, generator=random, dtype=torch.float64) for shape in shapes))


@pytest.mark.parametrize("rank", [0, 2, 9])
@pytest.mark.parametrize("kind", ["spikes", "power law", "low rank"])
def test_products_rows_and_sizes_are_those_of_the_matrices(
    kind: str, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether z is multiplied out or not, a few rows at a time."""
    monkeypatch.setattr(algebra, "ROWS", 7)
    B = torch.from_numpy(family(kind, 3, 30, 20, 0))
    deltas = [factors(b.numpy(), 0.5) for b in B]
    S = sum(delta.matrix() for delta in deltas)
    for z in (z_of(30, 20, rank, 0), z_of(30, 20, rank, 0).spread()):
        A, dense = algebra.shifted(B[0], z), z.matrix()
        assert (z.whole is not None) == isinstance(A, torch.Tensor)
        step = -dense - S / 3
        close = {"atol": 1e-9 * float(dense.norm() + B[0].norm() + S.norm()), "rtol": 1e-9}
        X, Y = torch.eye(20, 4, dtype=torch.float64), torch.eye(30, 4, dtype=torch.float64)
        np.testing.assert_allclose(algebra.times(A, X), (B[0] - dense) @ X, **close)
        np.testing.assert_allclose(algebra.times(algebra.transposed(A), Y), (B[0] - dense).T @ Y, **close)
        np.testing.assert_allclose(next(algebra.each(A)), B[0] - dense, **close)
        rest = torch.cat(list(algebra.rows_without(A, deltas[1])))
        np.testing.assert_allclose(rest, B[0] - dense - deltas[1].matrix(), **close)
        norms = place.norms_of(z, deltas)
        exactly = [float(one) for one in (dense.norm() ** 2, step.norm(), (step * dense).sum())]
        assert list(norms) == pytest.approx(exactly, rel=1e-9)
        np.testing.assert_allclose(place.step_within(z, deltas, Y, X), Y.T @ step @ X, **close)
        np.testing.assert_allclose(place.slope_at(z, deltas).matrix(), 3 * dense + S, **close)
        last = z_of(30, 20, 3, 1)
        towards = ((last.matrix() - dense) * step).sum()
        assert place.slope_towards(last, z, deltas) == pytest.approx(
            float(towards), rel=1e-9, abs=1e-9 * float(dense.norm())
        )
        middle = place.between(last, z, 0.25).matrix()
        np.testing.assert_allclose(middle, 0.75 * last.matrix() + 0.25 * dense, **close)


def test_factors_are_multiplied_out_where_they_are_hardly_smaller() -> None:
    assert z_of(30, 20, 1, 0).spread().whole is None
    assert z_of(30, 20, 3, 0).spread().whole is not None
    assert place.nowhere(torch.ones(4, 3)).spread().whole is None
    deltas = [Factors(torch.zeros(4, 0), torch.zeros(0), torch.zeros(3, 0))] * 3
    assert place.norms_of(place.nowhere(torch.ones(4, 3)), deltas) == (0.0, 0.0, 0.0)
