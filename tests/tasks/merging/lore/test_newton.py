"""Newton's iterates are what they claim to be, and end at the minimum."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.merging.lore import newton, triplets
from tasks.merging.lore import spectrum as spectra
from tasks.merging.lore.penalty import Penalty, Scale
from tasks.merging.lore.problem import Iterate, Start
from tasks.merging.lore.steering import CUT, DEEP
from tests.support.lore_checks import DTYPES, ignore, on_devices
from tests.support.lore_curvature_reference import exact
from tests.support.lore_factors import double
from tests.support.lore_matrices import TRAJECTORIES, family, trajectory
from tests.support.lore_reference import Array, minimise, noise_edge, svt


def iterates(
    B: Array, mu: float, count: int, dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> list[Iterate]:
    given = torch.from_numpy(B).to(device, dtype)
    start = spectra.look(given, Scale(mu, "absolute", "nuclear", B.shape[1:]))  # type: ignore[arg-type]
    steps = newton.iterates(given, start, CUT, ignore)
    return [next(steps), *(steps.send(False) for _ in range(count - 1))]


@on_devices
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("direct", [20, 1000])
@pytest.mark.parametrize("kind", ["spikes", "power law"])
def test_task_vectors_and_step_are_those_of_thresholding_at_z(
    kind: str, direct: int, dtype: torch.dtype, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As exactly as the step to the minimum that is left asks for."""
    for module in (triplets, spectra, newton):
        monkeypatch.setattr(module, "DIRECT", direct)
    B = family(kind, 3, 60, 50, 0)
    mu, size = 1.05 * noise_edge(B), float(np.linalg.norm(B[0]))
    for here in iterates(B, mu, 5, dtype, device):
        z = double(here.z.matrix())
        exactly = [svt(b - z, mu) for b in B]
        step = -z - np.mean(exactly, axis=0)
        sharp = 0.02 * size + 1e-5 * size
        for delta, best in zip(here.deltas, exactly, strict=True):
            assert np.linalg.norm(double(delta.matrix()) - best) <= sharp
        assert abs(here.norms.length - np.linalg.norm(step)) <= sharp
        own = -here.z.matrix() - sum(delta.matrix() for delta in here.deltas) / 3
        assert here.norms.length == pytest.approx(float(own.norm()), rel=1e-3, abs=1e-5 * size)
        for b, found in zip(B, here.leading, strict=True):
            assert found.above(mu).rank == np.sum(np.linalg.svd(b - z, compute_uv=False) > mu)
            assert not found.rank or float(found.sigma[-1]) > here.cut * mu
    assert np.linalg.norm(step) < 1e-3 * size  # of the last


@example(kind="strong", N=5, m=2, n=4, seed=78, place=0.25)  # steps far too long, where all lead
@example(kind="strong", N=5, m=8, n=7, seed=19, place=0.6348371709214301)
@given(
    kind=st.sampled_from([kind for kind in TRAJECTORIES if kind != "drift"]),
    N=st.sampled_from([3, 5]),
    m=st.integers(1, 8),
    n=st.integers(1, 8),
    seed=st.integers(0, 99),
    place=st.floats(0.2, 0.95),
)
@settings(max_examples=40, deadline=None)
def test_they_come_within_a_thousandth_of_the_minimum_in_thirty_passes(
    kind: str, N: int, m: int, n: int, seed: int, place: float
) -> None:
    """Of the noise, that is: of μ. Plain descent takes thousands."""
    B = trajectory(kind, N, max(m, n), min(m, n), seed)
    sigma = np.sort(np.linalg.svd(B, compute_uv=False).ravel())
    mu = float(sigma[int(place * (len(sigma) - 1))])
    if mu < max(1e-3 * sigma[-1], 1e-9):
        return
    best = exact(B, mu)
    if best.curvature > 0.3:
        here = iterates(B, mu, 30)[-1]
        assert np.linalg.norm(double(here.z.matrix()) - best.z) < 1e-3 * mu + best.off


def test_near_the_minimum_every_pass_takes_most_of_what_is_left() -> None:
    B = family("spikes", 3, 16, 12, 0)
    mu = 1.05 * noise_edge(B)
    best = minimise(B, mu, gap=1e-13).z
    left = [float(np.linalg.norm(double(here.z.matrix()) - best)) for here in iterates(B, mu, 9)]
    for before, after in pairwise(left):
        assert after < 0.5 * before or after < 1e-5 * np.linalg.norm(best)
    assert left[-1] < 1e-5 * np.linalg.norm(best)


@pytest.mark.parametrize("N", [3, 6])
def test_passes_are_told_before_they_are_made_and_counted(N: int) -> None:
    """The first passes, on which μ comes down, are told but not yielded."""
    B = torch.from_numpy(trajectory("strong", N, 30, 20, 0))
    told = list[int]()
    start = spectra.look(B, Scale(1.0, "absolute", "nuclear", (30, 20)))
    steps = newton.iterates(B, start, CUT, told.append)
    first = next(steps)
    assert told == list(range(1, first.passes + 1))
    assert first.passes > 1
    assert steps.send(True).passes == told[-1] == first.passes + 1


def test_nothing_above_the_threshold_is_solved_in_one_pass() -> None:
    B = family("spikes", 3, 20, 14, 0)
    [first, second] = iterates(B, 1e3, 2)
    assert first.passes == 1
    for here in (first, second):
        assert not double(here.z.matrix()).any()
        assert here.norms == (0.0, 0.0, 0.0)


def test_triplets_reach_below_the_threshold_but_not_into_the_noise() -> None:
    """Down to near a close noise edge, where subspaces tell the two apart; all the way where eigenpairs do."""
    near, far = (Start(Penalty("nuclear", 1.0), edge, 9.0, 1.0, []) for edge in (0.9, 0.5))
    beyond = triplets.DIRECT + 1
    for least in (CUT, DEEP):
        assert newton.cut_below(near, beyond, least) == pytest.approx(0.925)
        assert newton.cut_below(near, triplets.DIRECT, least) == CUT
        assert newton.cut_below(far, beyond, least) == least
