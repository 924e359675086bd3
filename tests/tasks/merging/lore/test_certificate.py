"""A certificate holds at the optimum, and is refused to anything that is not near it."""

import numpy as np
import pytest
import torch

from tasks.merging.lore.algebra import Factors, energy, gram_matrix
from tasks.merging.lore.certificate import certify
from tasks.merging.lore.penalty import Penalty
from tests.support.lore_checks import on_devices
from tests.support.lore_factors import factors, thresholds
from tests.support.lore_matrices import family
from tests.support.lore_reference import Array, minimise, noise_edge, primal, prox

TOLERANCE = 1e-4
KINDS = {"nuclear": 4.0, "squared": 0.02}


def optimum(
    kind: str, shape: tuple[int, int] = (20, 14)
) -> tuple[Array, Penalty, list[Factors], list[float]]:
    B = family("spikes", 3, *shape, 0)
    mu = KINDS[kind]
    z = minimise(B, mu, kind).z
    found = [factors(b - z, mu, kind) for b in B]
    return B, Penalty(kind, mu), found, thresholds(B - z, mu, kind)  # type: ignore[arg-type]


def proof(
    B: Array, penalty: Penalty, deltas: list[Factors], taken: list[float], tolerance: float = TOLERANCE
) -> float | None:
    return certify(torch.from_numpy(B), float(np.sum(B**2)), deltas, penalty, taken, tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(20, 14), (9, 16)])
def test_the_optimum_is_certified_and_the_gap_is_an_upper_bound(kind: str, shape: tuple[int, int]) -> None:
    B, penalty, deltas, taken = optimum(kind, shape)
    gap = proof(B, penalty, deltas, taken)
    assert gap is not None
    here = primal(B, np.stack([delta.matrix().numpy() for delta in deltas]), penalty.mu, kind)
    assert here - minimise(B, penalty.mu, kind).primal <= gap * here <= TOLERANCE * here * (1 + 1e-9)
    assert proof(B, penalty, deltas, taken, 1e-8) is not None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", [0, -1])
def test_one_triplet_left_out_is_refused(kind: str, which: int) -> None:
    """Even the weakest active one, which nobody would see in the objective."""
    B, penalty, deltas, taken = optimum(kind)
    first = deltas[0]
    kept = [j for j in range(first.rank) if j != which % first.rank]
    fewer = Factors(first.U[:, kept], first.sigma[kept], first.V[:, kept])
    assert proof(B, penalty, [fewer, *deltas[1:]], taken) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_task_vectors_of_the_wrong_size_are_refused(kind: str, factor: float) -> None:
    B, penalty, deltas, taken = optimum(kind)
    wrong = [delta._replace(sigma=factor * delta.sigma) for delta in deltas]
    assert proof(B, penalty, wrong, taken) is None


def test_a_residual_beyond_the_threshold_is_refused_where_all_other_sums_agree() -> None:
    """Noise just above μ in a direction that no task vector has: only the spectral norm shows it."""
    B, penalty, deltas, taken = optimum("nuclear")
    u, v = np.linalg.svd(B.mean(axis=0) + np.eye(20, 14))[0][:, 0], np.eye(14)[3]
    for delta in deltas:
        u -= delta.U.numpy() @ (delta.U.numpy().T @ u)
    u /= np.linalg.norm(u)
    hidden = np.multiply.outer([2.0, -1.0, -1.0], 2 * penalty.mu * np.outer(u, v))
    assert proof(B + hidden, penalty, deltas, taken) is None


def test_the_mean_itself_is_certified_where_no_task_vector_is_worth_its_price() -> None:
    B = family("spikes", 3, 20, 14, 0)
    none = [factors(b, 1e3) for b in B]
    assert proof(B, Penalty("nuclear", 1e3), none, [1e3] * 3) is not None
    assert proof(B, Penalty("nuclear", 10.0), none, [10.0] * 3) is None


def test_with_a_given_base_the_proximal_map_alone_is_the_optimum() -> None:
    """N = 1, z = 0: what two anchored checkpoints need."""
    D = family("spikes", 2, 20, 14, 0)[:1]
    mu = noise_edge(D)
    given = torch.from_numpy(D), float(np.sum(D**2)), [factors(D[0], mu)], Penalty("nuclear", mu), [mu]
    gap = certify(*given, 1e-8, free_base=False)
    assert gap is not None
    assert gap <= 1e-8
    assert certify(*given, 1e-8, free_base=True) is None
    np.testing.assert_allclose(given[2][0].matrix(), prox(D[0], mu), atol=1e-10)


@on_devices
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_energy_and_products_are_those_of_numpy(dtype: torch.dtype, device: str) -> None:
    B = torch.from_numpy(family("power law", 3, 50, 40, 0)).to(device, dtype)
    exact = B.double().cpu().numpy()
    rounding = 100 * torch.finfo(dtype).eps
    assert energy(B) == pytest.approx(np.sum(exact**2), rel=rounding)
    assert energy(B.mT) == pytest.approx(np.sum(exact**2), rel=rounding)
    for given in (B[0], B[0].T):
        np.testing.assert_allclose(
            gram_matrix(given).double().cpu(),
            given.double().cpu().numpy().T @ given.double().cpu().numpy(),
            atol=rounding,
        )
