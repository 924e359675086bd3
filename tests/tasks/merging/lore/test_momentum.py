"""FISTA's momentum is Beck and Teboulle's sequence, from its beginning after every restart."""

import pytest

from tasks.merging.lore.momentum import Momentum


def sequence(count: int) -> list[float]:
    t, shares = 1.0, []
    for _ in range(count):
        following = (1 + (1 + 4 * t * t) ** 0.5) / 2
        shares.append((t - 1) / following)
        t = following
    return shares


def test_shares_grow_from_zero_towards_one() -> None:
    momentum = Momentum()
    shares = [momentum.after(uphill=False) for _ in range(50)]
    assert shares == pytest.approx(sequence(50))
    assert shares[0] == 0.0
    assert 0.9 < shares[-1] < 1.0


def test_going_uphill_starts_anew() -> None:
    momentum = Momentum()
    for _ in range(7):
        momentum.after(uphill=False)
    restarted = [momentum.after(uphill=True), *(momentum.after(uphill=False) for _ in range(4))]
    assert restarted == pytest.approx(sequence(5))
