"""Low rank is doubted where task vectors are not low-rank, not above the noise, or not what differs."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.base.measures import TensorMeasures
from tasks.reporting.lore_matrices import NOISE, active_rank, decomposed, doubt, rank_share
from tests.support.lore_measures_reference import (
    AVERAGED,
    COLUMNS,
    EDGE,
    changed,
    measures,
    noise,
    spiked,
    tensors,
)

SPIKED = measures(spiked(0), EDGE)


def test_spikes_above_noise_raise_no_doubt() -> None:
    assert doubt(SPIKED) is None


@pytest.mark.parametrize("edges", [0.7, 1.0, 2.0])
def test_noise_alone_is_noise_whatever_the_threshold(edges: float) -> None:
    assert doubt(measures(noise(0), edges * EDGE)) == "noise"


def test_a_threshold_far_below_the_noise_makes_task_vectors_dense() -> None:
    assert doubt(measures(spiked(0), 0.1 * EDGE)) == "dense"


@example(16, 16, 8)
@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 40))
def test_dense_is_when_factors_hold_as_many_numbers_as_the_matrix(m: int, n: int, rank: int) -> None:
    rank = min(rank, m, n)
    found = changed(SPIKED, shape=(m, n), active=[rank] * 3)
    factors = np.empty((m, rank)).size + np.empty((rank, n)).size
    assert (doubt(found) == "dense") == (factors >= np.empty((m, n)).size)


def test_spikes_that_hold_little_of_the_energy_are_faint() -> None:
    found = measures(spiked(0, height=2.0), 1.2 * EDGE)
    assert any(found.active)
    assert found.explained < 0.1
    assert doubt(found) == "faint"


def test_spikes_that_the_threshold_hides_raise_no_doubt() -> None:
    """Nothing above μ says nothing against low rank as long as something rises above the noise."""
    found = measures(spiked(0), 10 * EDGE)
    assert not any(found.active)
    assert doubt(found) is None


@pytest.mark.parametrize(("edges", "expected"), [(1.04, "noise"), (1.06, None)])
def test_a_finite_matrix_s_edge_is_not_sharp(edges: float, expected: str | None) -> None:
    assert doubt(changed(SPIKED, edge=2.0, spectra=[[1.0], [2.0 * edges], []])) == expected


def test_what_no_solver_looked_at_lies_below_mu() -> None:
    unseen = {"active": [0, 0, 0], "spectra": [[], [], []], "edge": EDGE}
    assert doubt(measures(spiked(0), NOISE * EDGE, **unseen)) == "noise"
    assert doubt(measures(spiked(0), 1.01 * NOISE * EDGE, **unseen)) is None


def test_ranks_are_means_over_the_task_vectors() -> None:
    found = changed(SPIKED, active=[1, 2, 6])
    assert active_rank(found) == 3
    assert rank_share(found) == 3 / COLUMNS


def test_what_was_averaged_is_no_decomposed_matrix() -> None:
    found = tensors({"norm": AVERAGED, "w": SPIKED}) | {"ids": TensorMeasures()}
    assert decomposed(found) == {"w": SPIKED}
