"""A quadratic model of the loss over all weighted averages, from each checkpoint and each pair's midpoint.

Where the loss is quadratic, L(Σ c_i θ_i) = Σ c_i L_i − cᵀMc with M_ij = L_i + L_j − 2·L((θ_i + θ_j)/2) for
Σ c_i = 1, so that n(n + 1)/2 models give the loss of every average, negative weights among them.
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from tasks.base.errors import BadInput
from tasks.search.candidate import WEIGHT_DIGITS, Candidate, weighted
from tasks.search.trials import Losses, Proposals

LEAST, MOST = -0.5, 1.0
"""Bounds of a weight: farther out the loss is not quadratic."""
RIDGE = 0.1
"""Pull towards equal weights, in units of the mean curvature: what is flat is not followed."""
ERRORS = 2.0
"""Standard errors of the paired difference by which the measured gain may miss the predicted one."""

Coefficients = NDArray[np.float64]


def needed(size: int) -> int:
    """Return how many models a surface over the newest `size` checkpoints takes.

    Each of them, the midpoint of every pair, the best average, the plain one, and what has to be beaten.
    """
    return size * (size + 1) // 2 + 2 + (size > 2)  # of two, the midpoint is the plain average


def fitting(count: int, budget: int) -> int:
    """Return for how many of the newest checkpoints a budget is enough.

    Raises BadInput where it is not enough for two.
    """
    able = [size for size in range(2, count + 1) if needed(size) <= budget]
    if not able:
        raise BadInput(
            "search.budget",
            f"the surface of two checkpoints needs {needed(2)}",
            "raise it, or take greedy",
        )
    return max(able)


def surface(count: int, budget: int) -> Proposals:
    """Propose the newest checkpoints that the budget is enough for, their midpoints, and the best average."""
    size = fitting(count, budget)
    couples = list(combinations(range(size), 2))
    weights = [{place: 1.0} for place in range(size)] + [dict.fromkeys(couple, 1.0) for couple in couples]
    answers = yield [_average(own, size, count) for own in weights]
    losses, pairs = answers[:size], dict(zip(couples, answers[size:], strict=True))
    linear = np.array([own.mean for own in losses])
    curved = np.zeros((size, size))
    for (one, other), own in pairs.items():
        curved[one, other] = curved[other, one] = linear[one] + linear[other] - 2 * own.mean
    c = np.round(best_weights(linear, curved), WEIGHT_DIGITS)
    best = _average(dict(enumerate(c.tolist())), size, count)
    found, plain = yield [best, _average(dict.fromkeys(range(size), 1.0), size, count)]
    predicted = _predicted(c / c.sum(), losses, pairs) - _predicted(np.full(size, 1 / size), losses, pairs)
    missed = found.estimate(predicted - (found.items - plain.items))
    told = (
        f"the surface predicts {found.estimate(-predicted).mean:+.4g} over the average of these {size}, and "
        f"{found.estimate(plain.items - found.items).mean:+.4g} is measured"
    )
    if abs(missed.mean) > ERRORS * missed.error:
        return f"{told}: {ERRORS:.0f} standard errors apart or more, so the loss is not quadratic there"
    return told


def best_weights(linear: Coefficients, curved: Coefficients) -> Coefficients:
    """Return the c with Σc = 1, within the bounds, that minimises Lᵀc − cᵀMc + ridge·|c − 1/n|².

    Curvature that noise made negative counts as none.
    """
    from scipy.optimize import minimize

    n = len(linear)
    centring = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-centring @ curved @ centring)
    values = np.maximum(values, 0.0)
    ridge = max(RIDGE * values.sum() / max(n - 1, 1), 1e-12 * (1 + np.abs(linear).max()))
    curvature = (vectors * values) @ vectors.T + ridge * centring
    # The model about 1/n: what M's own part outside the centred space adds is linear in c.
    mean = np.full(n, 1 / n)
    slope = linear - 2 * curved @ mean
    scale = max(float(np.abs(slope - slope.mean()).max()), float(values.max()), 1e-300)

    def loss(c: Coefficients) -> float:
        away = c - mean
        return float(slope @ away + away @ curvature @ away) / scale

    def gradient(c: Coefficients) -> Coefficients:
        down: Coefficients = (slope + 2 * curvature @ (c - mean)) / scale
        return down

    found = minimize(
        loss, mean, jac=gradient, method="SLSQP", bounds=[(LEAST, MOST)] * n,
        constraints={"type": "eq", "fun": lambda c: c.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-12, "maxiter": 500},
    )  # fmt: skip
    best: Coefficients = np.clip(found.x, LEAST, MOST)
    best /= best.sum()
    return best


def _predicted(c: Coefficients, losses: list[Losses], pairs: dict[tuple[int, int], Losses]) -> Coefficients:
    """Return the loss on every item that the model gives an average with weights c."""
    total: Coefficients = sum(
        (weight * own.items for weight, own in zip(c, losses, strict=True)), np.zeros(1)
    )
    for (one, other), own in pairs.items():
        total = total - 2 * c[one] * c[other] * (losses[one].items + losses[other].items - 2 * own.items)
    return total


def _average(weights: dict[int, float], size: int, count: int) -> Candidate:
    """Return an average of the newest `size` of `count` checkpoints, by their place among these."""
    return weighted([0.0] * (count - size) + [weights.get(place, 0.0) for place in range(size)])
