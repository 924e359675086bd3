"""The gap is primal minus dual, each by definition; the allowance is where it meets the tolerance."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.lore.duality_gap import DualityGap
from tasks.merging.lore.penalty import Penalty
from tests.support.lore_matrices import family
from tests.support.lore_reference import Array, dual, primal, prox, threshold

KINDS = st.sampled_from([("nuclear", 8.0), ("squared", 0.05)])


def accounts(B: Array, z: Array, kind: str, mu: float) -> tuple[DualityGap, Array, float]:
    """Account for the task vectors at some z; return them, and how far ‖Y_i‖_2 exceed their bounds."""
    deltas = np.stack([prox(b - z, mu, kind) for b in B])
    taken = [threshold(np.linalg.svd(b - z, compute_uv=False), mu, kind) for b in B]
    S, Y = deltas.sum(axis=0), B - deltas + deltas.mean(axis=0)
    sigmas = [torch.from_numpy(s[s > 1e-12]) for s in np.linalg.svd(deltas, compute_uv=False)]
    sizes = np.linalg.norm(Y, 2, axis=(1, 2))
    found = DualityGap.of(
        Penalty(kind, mu),  # type: ignore[arg-type]
        sigmas,
        taken,
        aligned=float(np.sum(B * deltas)),
        pulled=float(np.sum(S**2)) / len(B),
        energy=float(np.sum(B**2)),
    )
    return found, deltas, max(0.0, float(np.max(sizes - taken)))


@given(kind=KINDS, N=st.integers(3, 6), seed=st.integers(0, 99), shift=st.floats(0, 2))
@settings(max_examples=40, deadline=None)
def test_the_primal_is_the_objective_and_the_gap_reaches_down_to_a_dual_value(
    kind: tuple[str, float], N: int, seed: int, shift: float
) -> None:
    B = family("spikes", N, 9, 7, seed)
    z = shift * np.random.default_rng(seed).standard_normal((9, 7))
    found, deltas, excess = accounts(B, z, *kind)
    name, mu = kind
    assert found.primal == pytest.approx(primal(B, deltas, mu, name))
    proven = primal(B, deltas, mu, name) - dual(B, deltas, mu, name)
    # nuclear: the very dual point; squared: the bound takes the largest excess for every matrix
    assert found.gap(excess) * found.primal >= proven - 1e-9 * found.primal
    if name == "nuclear":
        assert found.gap(excess) * found.primal == pytest.approx(proven, abs=1e-9 * found.primal)


@given(kind=KINDS, seed=st.integers(0, 99), tolerance=st.floats(1e-3, 0.5))
@settings(max_examples=40, deadline=None)
def test_the_allowance_is_the_largest_excess_within_the_tolerance(
    kind: tuple[str, float], seed: int, tolerance: float
) -> None:
    B = family("spikes", 3, 9, 7, seed)
    found, _, _ = accounts(B, np.zeros((9, 7)), *kind)
    allowed = found.allowance(tolerance)
    if found.gap(0.0) > tolerance:
        assert allowed < 1e-9
    else:
        assert found.gap(allowed) <= tolerance
        assert allowed >= 0.999 * max(found.thresholds) or found.gap(1.001 * allowed + 1e-9) > tolerance


def test_a_gap_is_never_smaller_than_what_rounding_may_hide() -> None:
    """Squares of 1e16 are known to 1: a gap of exactly zero cannot be told from that."""
    B = family("outlier 1e8", 3, 9, 7, 0)
    found, _, _ = accounts(B, np.zeros((9, 7)), "nuclear", 5.0)
    closed = replace(found, products=5.0 * sum(found.nuclear))  # ⟨Y, δ⟩ = μ‖δ‖_*, as at the optimum
    assert closed.gap(0.0) * closed.primal >= np.sum(B**2) * 2.0**-53


def test_nothing_has_no_gap() -> None:
    found, _, _ = accounts(np.zeros((3, 4, 3)), np.zeros((4, 3)), "nuclear", 1.0)
    assert found.primal == found.gap(0.0) == 0.0
