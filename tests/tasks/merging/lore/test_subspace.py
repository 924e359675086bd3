"""Subspaces that follow the active singular vectors: their parts, and what happens when they miss some."""

import numpy as np
import pytest
import torch

from tasks.merging.lore import subspace
from tasks.merging.lore.krylov import leading_triplets
from tasks.merging.lore.penalty import Penalty, Scale
from tasks.merging.lore.problem import Unproven
from tasks.merging.lore.ritz import Triplets
from tests.support.lore_checks import check, matrices, off
from tests.support.lore_factors import factors
from tests.support.lore_matrices import family
from tests.support.lore_reference import noise_edge, prox, threshold

SHAPE = (220, 180)


def triplets(B: np.ndarray) -> Triplets:
    U, sigma, Vt = np.linalg.svd(B, full_matrices=False)
    return Triplets(*map(torch.from_numpy, (U, sigma, np.ascontiguousarray(Vt.transpose(0, 2, 1)))))


@pytest.mark.parametrize(("kind", "mu"), [("nuclear", 6.0), ("squared", 0.1), ("nuclear", 1e3)])
def test_thresholding_triplets_is_the_proximal_map(kind: str, mu: float) -> None:
    B = family("spikes", 3, 20, 14, 0)
    found = subspace.threshold(triplets(B), Penalty(kind, mu))  # type: ignore[arg-type]
    for b, delta, t in zip(B, found.deltas, found.thresholds, strict=True):
        np.testing.assert_allclose(delta.matrix(), prox(b, mu, kind), atol=1e-9)
        assert t == pytest.approx(threshold(np.linalg.svd(b, compute_uv=False), mu, kind))


def test_one_power_pass_from_the_right_vectors_gives_the_triplets_of_the_difference() -> None:
    B, z = family("spikes", 3, 20, 14, 0), factors(0.1 * family("spikes", 3, 20, 14, 1)[0])
    exact = triplets(B - z.matrix().numpy())
    found = subspace.ritz(torch.from_numpy(B), exact.V[..., :3], z)
    np.testing.assert_allclose(found.sigma, exact.sigma[:, :3], rtol=1e-9)
    for U, sigma, V, A in zip(*found, B - z.matrix().numpy(), strict=True):
        np.testing.assert_allclose(A @ V.numpy(), U * sigma, atol=1e-9)


def test_a_basis_is_cut_or_filled_up_with_other_vectors() -> None:
    rng = np.random.default_rng(0)
    V, others = (torch.from_numpy(np.linalg.qr(rng.standard_normal((2, 10, k)))[0]) for k in (3, 6))
    assert torch.equal(subspace.resized(V, 2, others), V[..., :2])
    wider = subspace.resized(V, 5, others)
    assert wider.shape == (2, 10, 5)
    np.testing.assert_allclose(wider.mT @ wider, np.broadcast_to(np.eye(5), (2, 5, 5)), atol=1e-12)
    kept = wider @ (wider.mT @ V)
    np.testing.assert_allclose(kept, V, atol=1e-12)


def test_a_triplet_that_the_start_missed_is_found_because_the_proof_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the largest triplet all estimates converge; only the certificate knows better."""

    def without_the_first(*given: object) -> object:
        start = leading_triplets(*given)  # type: ignore[arg-type]
        assert start is not None
        return start._replace(triplets=Triplets(*(part[..., 1:3] for part in start.triplets)))

    B = family("spikes", 3, *SHAPE, 0)
    scale = Scale(1.05 * noise_edge(B), "absolute", "nuclear", SHAPE)
    whole = subspace.solve_by_subspaces(torch.from_numpy(B), scale, 1e-4)
    monkeypatch.setattr(subspace, "leading_triplets", without_the_first)
    found = subspace.solve_by_subspaces(torch.from_numpy(B), scale, 1e-4)
    assert whole is not None
    assert found is not None
    check(found, B, 1e-4)
    assert off(matrices(found), matrices(whole)) < 2e-3


def test_too_many_active_values_are_left_to_full_decompositions() -> None:
    B = torch.from_numpy(family("spikes", 3, *SHAPE, 0))
    assert subspace.solve_by_subspaces(B, Scale(0.3, "noise_edge", "nuclear", SHAPE), 1e-4) is None


def test_what_cannot_be_proven_in_this_precision_is_not_returned() -> None:
    """float32 against a gap of 1e-12."""
    B = torch.from_numpy(family("spikes", 3, *SHAPE, 0)).float()
    with pytest.raises(Unproven):
        subspace.solve_by_subspaces(B, Scale(1.05, "noise_edge", "nuclear", SHAPE), 1e-12)


def test_the_spectra_are_those_of_the_checkpoints_less_theta_0() -> None:
    B = family("spikes", 3, *SHAPE, 0)
    solution = subspace.solve_by_subspaces(
        torch.from_numpy(B), Scale(1.05, "noise_edge", "nuclear", SHAPE), 1e-6
    )
    assert solution is not None
    z = -matrices(solution).sum(axis=0) / 3
    for b, spectrum, delta in zip(B, solution.spectra, solution.deltas, strict=True):
        exact = np.linalg.svd(b - z, compute_uv=False)
        np.testing.assert_allclose(spectrum[: delta.rank], exact[: delta.rank], rtol=1e-3)
        assert len(spectrum) > delta.rank


def test_one_huge_entry_takes_no_walk_by_thresholds() -> None:
    """The mean lies a million thresholds away from θ_0, which a pass moves by at most one of."""
    B = family("outlier 1e8", 3, *SHAPE, 0)
    scale = Scale(1.2 * noise_edge(B), "absolute", "nuclear", SHAPE)
    solution = subspace.solve_by_subspaces(torch.from_numpy(B), scale, 1e-4)
    assert solution is not None
    assert solution.passes < 60
    check(solution, B, 1e-4, gap=1e-7)
