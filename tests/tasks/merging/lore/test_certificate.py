"""A certificate holds at the optimum, bounds what is missing elsewhere, and is refused where a triplet is missing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.lore.algebra import Factors, energy, gram_matrix
from tasks.merging.lore.certificate import Proof, bounded, distance_from, prove
from tasks.merging.lore.converge import curvature_at
from tasks.merging.lore.problem import Iterate
from tests.support.lore_checks import on_devices
from tests.support.lore_factors import factors
from tests.support.lore_matrices import SPECTRA, family
from tests.support.lore_reference import Array, minimise, noise_edge, primal

CUT = 0.85
SHAPE = (20, 14)


def iterate(B: Array, z: Array, mu: float) -> Iterate:
    """Return the iterate at z, by full decompositions."""
    leading = [factors(b - z).above(CUT * mu) for b in B]
    deltas = [part.thresholded(mu) for part in leading]
    S = sum(delta.matrix() for delta in deltas)
    return Iterate(torch.from_numpy(z), leading, deltas, -torch.from_numpy(z) - S / len(B), mu, CUT, 1)


def proof(B: Array, here: Iterate) -> Proof | None:
    return prove(torch.from_numpy(B), float(np.sum(B**2)), here, curvature_at(here))


@pytest.mark.parametrize("shape", [(20, 14), (30, 9)])
def test_the_optimum_is_proven(shape: tuple[int, int]) -> None:
    B = family("spikes", 3, *shape, 0)
    mu = noise_edge(B)
    best = minimise(B, mu, gap=1e-12)
    found = proof(B, iterate(B, best.z, mu))
    assert found is not None
    assert found.gap < 1e-5
    assert found.error < 1e-3 * mu


@given(
    spectrum=st.sampled_from([name for name in SPECTRA if not name.startswith("outlier")]),
    N=st.integers(3, 5),
    seed=st.integers(0, 99),
    share=st.floats(0.1, 1.0),
    away=st.floats(-6, -1).map(lambda x: 10**x),
)
@settings(max_examples=60, deadline=None)
def test_no_bound_is_below_the_truth(spectrum: str, N: int, seed: int, share: float, away: float) -> None:
    """At a distance from the minimum, in any direction: the gap, and the distance of z where there is a bound."""
    B = family(spectrum, N, *SHAPE, seed)
    mu = share * float(np.linalg.norm(B, 2, axis=(1, 2)).max())
    best = minimise(B, mu, gap=1e-12)
    direction = np.random.default_rng(seed).standard_normal(SHAPE)
    here = iterate(B, best.z + away * mu * direction / np.linalg.norm(direction), mu)
    found = proof(B, here)
    if found is None:
        return
    deltas = np.stack([delta.matrix().numpy() for delta in here.deltas])
    objective = primal(B, deltas, mu)
    assert objective - best.primal <= (found.gap + 2e-12) * objective
    # the reference's own distance from the minimum is known by its gap only
    known = np.sqrt(2e-12 * best.primal / max(curvature_at(here), 1e-3))
    assert np.linalg.norm(here.z.numpy() - best.z) <= found.error + known


@pytest.mark.parametrize("which", [0, -1])
def test_one_triplet_left_out_is_refused(which: int) -> None:
    """Even the weakest active one, which nobody would see in the objective."""
    B = family("spikes", 3, *SHAPE, 0)
    mu = 0.9 * noise_edge(B)
    here = iterate(B, minimise(B, mu).z, mu)
    first = here.leading[0].above(mu)
    kept = [j for j in range(first.rank) if j != which % first.rank]
    fewer = Factors(first.U[:, kept], first.sigma[kept], first.V[:, kept])
    assert proof(B, here._replace(leading=[fewer, *here.leading[1:]])) is None


def test_triplets_that_are_none_widen_the_bounds() -> None:
    """Turned by a hundredth: the residual says so."""
    B = family("spikes", 3, *SHAPE, 0)
    mu = noise_edge(B)
    here = iterate(B, minimise(B, mu).z, mu)
    exact, first = proof(B, here), here.leading[0]
    U = torch.linalg.qr(first.U + 1e-3 * torch.ones_like(first.U)).Q
    turned = first._replace(U=U * torch.sign((U * first.U).sum(0)))
    found = proof(B, here._replace(leading=[turned, *here.leading[1:]]))
    assert exact is not None
    assert found is None or found.gap > 10 * exact.gap


@on_devices
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bound_on_the_rest_is_proven_just_above_it_and_not_below(dtype: torch.dtype, device: str) -> None:
    A = torch.from_numpy(family("power law", 2, 60, 40, 0)[0]).to(device, dtype)
    exact = np.linalg.svd(A.double().cpu().numpy(), compute_uv=False)
    found = Factors(*(part.to(device, dtype) for part in factors(A.double().cpu().numpy()).truncated(5)))
    assert bounded(A, found, 1.001 * exact[5])
    assert not bounded(A, found, 0.999 * exact[5])
    assert distance_from(A, found) < 1e-4 * exact[0]


@on_devices
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_energy_and_products_are_those_of_numpy(dtype: torch.dtype, device: str) -> None:
    B = torch.from_numpy(family("power law", 3, 50, 40, 0)).to(device, dtype)
    exact = B.double().cpu().numpy()
    rounding = 100 * torch.finfo(dtype).eps
    assert energy(B) == pytest.approx(np.sum(exact**2), rel=rounding)
    assert energy(B.mT) == pytest.approx(np.sum(exact**2), rel=rounding)
    for given_matrix in (B[0], B[0].T):
        np.testing.assert_allclose(
            gram_matrix(given_matrix).double().cpu(),
            given_matrix.double().cpu().numpy().T @ given_matrix.double().cpu().numpy(),
            atol=rounding,
        )
