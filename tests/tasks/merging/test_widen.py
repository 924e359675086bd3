"""WIDEN against the paper's equations written out column by column, and its special cases."""

from fractions import Fraction

import numpy as np
import pytest

from tasks.merging.program import Settings
from tasks.merging.reductions import of_widen
from tasks.merging.widen import scores
from tasks.parameters.merge import MergeParams, WidenParams
from tests.support.in_memory import merge
from tests.support.trajectory_models import SHAPES, Model, trajectory

EMBEDDING = "model.embed_tokens.weight"


def run(
    models: list[Model], base: Model, rows: int | None = 2, dtype: type = np.float64, **widen: float
) -> tuple[Model, dict[str, dict[str, list[float]]]]:
    params = MergeParams.model_validate({"method": "widen", "widen": widen})
    return merge(params, models, base, rows=rows, dtype=dtype)


def ranks(divergences: list[float]) -> list[Fraction]:
    """j/k, j the place in ascending order (equation 3); exact, for the mean rank is often a rank."""
    k = len(divergences)
    ascending = sorted(range(k), key=lambda j: (divergences[j], j))
    return [Fraction(ascending.index(j) + 1, k) for j in range(k)]


def calibrated(rows: list[list[Fraction]], t: float, s: float) -> np.ndarray:
    """Softmax over the models, s where a rank exceeds t times its row's mean (equations 4 to 6)."""
    soft = np.exp(np.array(rows, float))
    soft /= soft.sum(0)
    return np.array(
        [
            [s if rank > Fraction(t) * sum(row) / len(row) else soft[n, j] for j, rank in enumerate(row)]
            for n, row in enumerate(rows)
        ]
    )


def angle(w: np.ndarray, b: np.ndarray) -> float:
    lengths = np.linalg.norm(w) * np.linalg.norm(b)
    return 1 - w @ b / lengths if lengths else 0.0


def by_column(thetas: list[np.ndarray], base: np.ndarray, t: float, s: float) -> np.ndarray:
    """Merge a matrix whose columns are columns."""
    k = base.shape[1]
    m = [ranks([abs(np.linalg.norm(w[:, j]) - np.linalg.norm(base[:, j])) for j in range(k)]) for w in thetas]
    d = [ranks([angle(w[:, j], base[:, j]) for j in range(k)]) for w in thetas]
    weights = (calibrated(m, t, s) + calibrated(d, t, s)) / 2
    return base + sum(weights[n][None] * (w - base) for n, w in enumerate(thetas))


def by_element(thetas: list[np.ndarray], base: np.ndarray, t: float, s: float) -> np.ndarray:
    weights = calibrated([ranks(list(abs(v - base))) for v in thetas], t, s)
    return base + sum(weights[n] * (v - base) for n, v in enumerate(thetas))


def reference(name: str, thetas: list[np.ndarray], base: np.ndarray, t: float, s: float) -> np.ndarray:
    if base.ndim == 1:
        return by_element(thetas, base, t, s)
    if base.ndim == 3:
        return np.stack([by_column([w[i] for w in thetas], base[i], t, s) for i in range(len(base))])
    if name == EMBEDDING:
        return by_column([w.T for w in thetas], base.T, t, s).T
    flat = (len(base), -1)
    return by_column([w.reshape(flat) for w in thetas], base.reshape(flat), t, s).reshape(base.shape)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(("t", "s"), [(1.0, 1.0), (0.5, 0.7), (1.7, 2.0), (0.0, 1.0)])
@pytest.mark.parametrize("name", SHAPES)
def test_every_column_is_weighed_as_in_the_paper(count: int, t: float, s: float, name: str) -> None:
    base, models = trajectory(count)
    merged, _ = run(models, base, t=t, s=s)
    expected = reference(name, [model[name] for model in models], base[name], t, s)
    np.testing.assert_allclose(merged[name], expected, atol=1e-12)


@pytest.mark.parametrize("name", SHAPES)
def test_with_negative_t_it_is_task_arithmetic_and_for_one_nth_averaging(name: str) -> None:
    base, models = trajectory(3)
    thetas = [model[name] for model in models]
    merged, measures = run(models, base, t=-1.0, s=0.4)
    np.testing.assert_allclose(
        merged[name], base[name] + 0.4 * sum(w - base[name] for w in thetas), atol=1e-12
    )
    assert measures[name].weights == pytest.approx([0.4] * 3)
    merged, _ = run(models, base, t=-1.0, s=1 / 3)
    np.testing.assert_allclose(merged[name], np.mean(thetas, axis=0), atol=1e-12)


def test_the_measures_are_the_mean_weights_whatever_the_blocks() -> None:
    base, models = trajectory(3)
    _, measures = run(models, base, rows=2)
    _, whole = run(models, base, rows=None)
    for name in SHAPES:
        assert measures[name].weights == pytest.approx(whole[name].weights, rel=1e-12)
    moved = np.stack([(model["norm"] - base["norm"]) for model in models])
    soft = calibrated([ranks(list(abs(row))) for row in moved], 1.0, 1.0)
    assert measures["norm"].weights == pytest.approx(soft.mean(1))


def test_the_sign_of_a_vectors_element_may_change() -> None:
    """The divergence of an element is |w − w_b|, not the change of |w|."""
    base = {"bias": np.array([1.0, 1.0, 1.0])}
    model = {"bias": np.array([-1.0, 1.5, 1.25])}
    merged, _ = run([model, base], base, t=1.2, s=10.0)
    expected = by_element([model["bias"], base["bias"]], base["bias"], 1.2, 10.0)
    np.testing.assert_allclose(merged["bias"], expected)
    assert merged["bias"][0] == 1 - 10 * 2


def test_a_zero_column_changed_no_direction() -> None:
    """It ranks below every column that did, in the base and in a checkpoint."""
    base, models = trajectory(2)
    w, b = models[0]["tall"].copy(), base["tall"].copy()
    w[:, 3], b[:, 1] = 0, 0
    thetas = [w, models[1]["tall"]]
    merged, _ = run([{"tall": theta} for theta in thetas], {"tall": b})
    np.testing.assert_allclose(merged["tall"], by_column(thetas, b, 1.0, 1.0), atol=1e-12)


def test_nothing_moved_is_the_base() -> None:
    base, _ = trajectory(1)
    merged, _ = run([base] * 2, base)
    for name in SHAPES:
        np.testing.assert_array_equal(merged[name], base[name])


def test_equal_divergences_rank_by_index() -> None:
    flat = np.full((1, 4), 0.5)
    given = scores(flat, flat, WidenParams(t=9.0))
    np.testing.assert_array_equal(given, 1.0)
    given = scores(flat, flat, WidenParams(t=1.0, s=5.0))
    np.testing.assert_array_equal(given, [[1, 1, 5, 5]])


@pytest.mark.parametrize("step", [1e-2, 1e-4])
def test_what_moved_little_is_ranked_by_its_movement_and_not_by_rounding(step: float) -> None:
    """In float32 a cosine of 1 − 1e-8 is 1: differences of such numbers order columns at random."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal((64, 40)).astype(np.float32)
    models = [(base + step * rng.standard_normal((64, 40))).astype(np.float32) for _ in range(2)]
    merged, _ = run([{"w": w} for w in models], {"w": base}, rows=16, dtype=np.float32, t=9.0)
    exact = [w.astype(np.float64) for w in models]
    expected = by_column(exact, base.astype(np.float64), 9.0, 1.0)
    assert np.abs(merged["w"] - expected).max() < 0.01 * step


@pytest.mark.parametrize(
    ("widen", "notes"),
    [
        ({}, []),
        ({"t": -1, "s": 0.25}, ["equal to averaging: t < 0 and s = 1/N"]),
        ({"t": -1, "s": 1.0}, ["equal to task arithmetic with λ = s: t < 0"]),
    ],
)
def test_the_notes_say_what_the_settings_amount_to(widen: dict[str, float], notes: list[str]) -> None:
    params = MergeParams.model_validate({"method": "widen", "widen": widen})
    assert of_widen(Settings(params, lambda name: params, (1, 2, 3, 4), {})) == notes
