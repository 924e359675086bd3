"""The gate errs no more often than it says: merges drawn from known distributions, through evaluate_results.

Seeds are fixed. The bounds are those that docs/reference/verdict.md promises; a rate of 2.5 % in 3000 draws has
a standard error of 0.3 points.
"""

import pytest

from tests.support.simulated_verdicts import (
    CLUSTERED,
    FAMILIES,
    drift,
    equals,
    nights,
    over_a_far_champion,
    passing,
    promoted,
    right_or_wrong,
    ruled_out,
)

pytestmark = pytest.mark.slow

HARMLESS = {f"m{number}": right_or_wrong(0.1) for number in range(6)}


@pytest.mark.parametrize(("items", "draws", "at_most"), [(200, 3000, 0.045), (1500, 2500, 0.035)])
@pytest.mark.parametrize("family", FAMILIES)
def test_intervals_cover_and_equals_are_not_promoted(
    family: str, items: int, draws: int, at_most: float
) -> None:
    found = equals(FAMILIES[family], items, draws, seed=2)
    assert 0.94 <= found.coverage <= 0.975
    assert found.promoted <= at_most
    if FAMILIES[family] not in CLUSTERED or items > 300:  # 20 clusters never promote
        assert found.promoted > 0


def test_a_true_gain_of_two_points_is_found() -> None:
    assert promoted(1500, 1500, right_or_wrong(0.1, gain=0.02)) >= 0.55


def test_a_loss_of_two_points_on_another_metric_does_not_pass() -> None:
    assert passing(1000, 1500, {"other": right_or_wrong(0.1, gain=-0.02)}) <= 0.05


def test_six_harmless_metrics_seldom_block_and_one_bad_one_among_them_seldom_passes() -> None:
    assert passing(1000, 1500, HARMLESS) >= 0.85
    assert passing(1000, 1500, HARMLESS | {"m0": right_or_wrong(0.1, gain=-0.03)}) <= 0.10


def test_every_opponent_has_to_be_beaten() -> None:
    assert over_a_far_champion(1500, 1500) <= 0.025


def test_a_true_gain_is_seldom_ruled_out() -> None:
    assert ruled_out(2000, 100) <= 0.025


def test_small_losses_do_not_add_up_night_by_night() -> None:
    assert drift(10, 30, 1500, with_reference=True) >= -0.016


def test_a_vault_keeps_equals_from_being_promoted_in_ninety_nights() -> None:
    """Of 1000 runs 7 % promoted one of them; these are 200, whose share has a standard error of 1.8 points."""
    found = nights(200, 90, 1500, seed=1)
    assert found.any_promotion <= 0.1
    assert found.vault_looks <= 2.5


def test_a_vault_costs_next_to_no_promotion_of_what_is_better() -> None:
    alone, confirmed = (nights(100, 90, 1500, spread=1.0, vault=vault) for vault in (False, True))
    assert confirmed.promotions >= 0.85 * alone.promotions
    assert confirmed.quality >= 0.9 * alone.quality
