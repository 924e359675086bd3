"""Full decompositions: the proximal map whatever the condition, and refusal with the gap that was reached."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.lore import dense
from tasks.merging.lore.penalty import Penalty, Scale
from tasks.merging.lore.problem import NotConverged
from tests.support.lore_checks import check, matrices, off, on_devices
from tests.support.lore_matrices import SPECTRA, family
from tests.support.lore_reference import noise_edge, prox, threshold


@given(
    spectrum=st.sampled_from(list(SPECTRA)),
    m=st.integers(1, 25),
    n=st.integers(1, 25),
    seed=st.integers(0, 99),
    share=st.floats(1e-3, 1.5),
    kind=st.sampled_from(["nuclear", "squared"]),
)
@settings(max_examples=80, deadline=None)
def test_shrink_is_the_proximal_map(
    spectrum: str, m: int, n: int, seed: int, share: float, kind: str
) -> None:
    A = SPECTRA[spectrum](np.random.default_rng(seed), max(m, n), min(m, n))
    size = np.linalg.norm(A, 2)
    mu = share * size if kind == "nuclear" else share
    delta, sigma, t = dense.shrink(torch.from_numpy(A), Penalty(kind, mu), 1e-10)  # type: ignore[arg-type]
    np.testing.assert_allclose(delta.matrix(), prox(A, mu, kind), atol=1e-8 * size)
    exact = np.linalg.svd(A, compute_uv=False)
    np.testing.assert_allclose(sigma, exact, atol=1e-7 * size)
    assert t == pytest.approx(threshold(exact, mu, kind), rel=1e-6)
    np.testing.assert_allclose(delta.U.T @ delta.U, np.eye(delta.rank), atol=1e-6)
    np.testing.assert_allclose(delta.V.T @ delta.V, np.eye(delta.rank), atol=1e-10)


@on_devices
@pytest.mark.parametrize("share", [0.3, 0.05, 1e-3, 1e-6])
def test_a_threshold_far_below_the_largest_value_is_exact(share: float, device: str) -> None:
    """The Gram matrix squares the condition number: it is left where that would show."""
    A = family("condition 1e8", 2, 60, 40, 0)[0]
    mu = share * float(np.linalg.norm(A, 2))
    delta, _, _ = dense.shrink(torch.from_numpy(A).to(device), Penalty("nuclear", mu), 1e-4)
    found = delta.matrix().cpu().numpy()
    assert np.linalg.norm(found - prox(A, mu), 2) < 0.01 * mu


@pytest.mark.parametrize("shape", [(20, 20), (30, 8), (7, 1)])
@pytest.mark.parametrize("kind", ["nuclear", "squared"])
def test_its_solution_is_the_minimum(shape: tuple[int, int], kind: str) -> None:
    B = family("spikes", 4, *shape, 5)
    mu = 0.4 * noise_edge(B) if kind == "nuclear" else 0.05
    solution = dense.solve_densely(torch.from_numpy(B), Scale(mu, "absolute", kind, shape), 1e-9, unheard)  # type: ignore[arg-type]
    best = check(solution, B, 1e-9)
    assert off(matrices(solution), best.deltas) < 1e-3
    for b, spectrum in zip(B, solution.spectra, strict=True):
        exact = np.linalg.svd(b - best.z, compute_uv=False)
        np.testing.assert_allclose(spectrum, exact, atol=1e-3 * exact[0])


def test_what_does_not_converge_is_refused_with_the_gap_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    B = family("spikes", 3, 12, 9, 0)
    monkeypatch.setattr(dense, "DENSE_PASSES", 8)
    heard: list[int] = []
    with pytest.raises(
        NotConverged, match=r"relative duality gap \d.* after 8 passes, above merge.lore.tolerance 1.0e-08"
    ):
        dense.solve_densely(
            torch.from_numpy(B), Scale(0.05, "noise_edge", "nuclear", (12, 9)), 1e-8, heard.append
        )
    assert heard == list(range(1, 9))


def test_it_tells_of_every_pass_and_ends_with_the_one_that_it_reports() -> None:
    heard: list[int] = []
    scale = Scale(0.4, "noise_edge", "nuclear", (12, 9))
    solution = dense.solve_densely(torch.from_numpy(family("spikes", 3, 12, 9, 0)), scale, 1e-8, heard.append)
    assert heard == list(range(1, solution.passes + 1))
    assert solution.error == np.inf  # a gap bounds no distance by itself


def unheard(number: int) -> None:
    """Hear of a pass."""


def test_products_are_those_of_numpy() -> None:
    A = family("spikes", 2, 30, 20, 0)
    assert dense.row_dot(*map(torch.from_numpy, A)) == pytest.approx(float(np.sum(A[0] * A[1])))
