"""The quadratic surface: exact where the loss is quadratic, rejected where it is not, and its best average."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint, minimize

from tasks.base.errors import BadInput
from tasks.search.candidate import Candidate, plain_average
from tasks.search.surface import LEAST, MOST, RIDGE, best_weights, fitting, needed, surface
from tasks.search.trials import Losses, Tried, run_trials
from tests.support.trying import whole

Matrix = NDArray[np.float64]
ITEMS = 50


class World:
    """Checkpoints as points, and a loss for each item that is quadratic in them."""

    def __init__(self, seed: int, count: int, directions: int = 3) -> None:
        random = np.random.default_rng(seed)
        self.points = random.normal(size=(count, directions))
        self.centres = random.normal(size=(ITEMS, directions)) * 0.3
        root = random.normal(size=(directions, directions))
        self.curvature = root @ root.T + 0.1 * np.eye(directions)

    def at(self, c: Matrix) -> Matrix:
        away = c @ self.points - self.centres
        return np.einsum("ij,jk,ik->i", away, self.curvature, away)

    def of(self, candidate: Candidate) -> Losses:
        return Losses(self.at(weights_of(candidate, len(self.points))))


def weights_of(candidate: Candidate, count: int) -> Matrix:
    given = dict(candidate.settings).get("weights")
    c = np.array(given if isinstance(given, tuple) else [1.0] * count)
    return c / c.sum()


def search(of: Callable[[Candidate], Losses], count: int, budget: int) -> Tried:
    return run_trials(surface(count, budget), plain_average(count), budget, whole(of))


@example(seed=7880, count=2)  # next to nothing to gain: what rounding the weights changes is all there is
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_where_the_loss_is_quadratic_the_surface_is_exact(seed: int, count: int) -> None:
    world = World(seed, count)
    tried = search(world.of, count, needed(count))
    assert tried.said is not None
    predicted, measured = (float(word) for word in words_with_signs(tried.said))
    assert predicted == pytest.approx(measured, rel=1e-3, abs=1e-9)  # four digits are told
    assert len(tried.losses) <= needed(count)
    assert tried.losses[tried.best].mean <= min(own.mean for own in tried.losses.values())


def words_with_signs(text: str) -> list[str]:
    return [word for word in text.split() if word[0] in "+-" and word[1:2].isdigit()]


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(3, 6))
def test_the_best_weights_are_those_of_an_independent_solver(seed: int, count: int) -> None:
    world = World(seed, count, directions=2)
    linear = np.array([world.at(row).mean() for row in np.eye(count)])
    curved = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            middle = np.zeros(count)
            middle[i] += 0.5
            middle[j] += 0.5
            curved[i, j] = linear[i] + linear[j] - 2 * world.at(middle).mean()
    ridge = RIDGE * np.trace(centred(-curved)) / (count - 1)

    def loss(c: Matrix) -> float:
        return float(world.at(c).mean() + ridge * ((c - 1 / count) ** 2).sum())

    c = best_weights(linear, curved)
    assert c.sum() == pytest.approx(1)
    assert (c >= LEAST - 1e-9).all()
    assert (c <= MOST + 1e-9).all()
    reference = minimize(
        loss, np.full(count, 1 / count), method="trust-constr", bounds=[(LEAST, MOST)] * count,
        constraints=LinearConstraint(np.ones((1, count)), 1, 1), options={"gtol": 1e-10, "maxiter": 3000},
    )  # fmt: skip
    span = loss(np.full(count, 1 / count)) - reference.fun
    assert loss(c) <= reference.fun + 1e-3 * span + 1e-9


def centred(matrix: Matrix) -> Matrix:
    centring = np.eye(len(matrix)) - 1 / len(matrix)
    found: Matrix = centring @ matrix @ centring
    return found


def test_where_the_loss_is_not_quadratic_it_says_so() -> None:
    world = World(3, 4)

    def jagged(candidate: Candidate) -> Losses:
        c = weights_of(candidate, 4)
        return Losses(world.at(c) + 5 * np.abs(np.sin(40 * c)).sum())

    said = search(jagged, 4, 12).said
    assert said is not None
    assert "not quadratic" in said


def test_a_small_budget_is_spent_on_the_newest() -> None:
    assert [fitting(5, budget) for budget in (5, 9, 13, 17, 18, 50)] == [2, 3, 4, 4, 5, 5]
    world, budget = World(1, 5), 9
    tried = search(world.of, 5, budget)
    asked = [weights_of(candidate, 5) for candidate in tried.losses if candidate != tried.first]
    assert len(tried.losses) == budget
    assert all((c[:2] == 0).all() for c in asked)
    with pytest.raises(BadInput, match="needs 5"):
        fitting(5, 4)


def test_noise_in_the_loss_does_not_break_it() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        linear, curved = random.normal(size=4), random.normal(size=(4, 4))
        c = best_weights(linear, curved + curved.T)
        assert np.isfinite(c).all()
        assert c.sum() == pytest.approx(1)
    flat = best_weights(np.ones(3), np.zeros((3, 3)))
    assert flat == pytest.approx(np.full(3, 1 / 3), abs=1e-6)
