"""Weights: given, from norms, and along the trajectory; against sums written out in float64."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.base.errors import BadInput
from tasks.base.measures import WeightsUsed
from tasks.merging.methods import METHODS
from tasks.merging.norms import by_square, inverse_to_norm
from tasks.merging.program import Settings
from tasks.parameters.merge import MergeParams
from tests.support.in_memory import merge
from tests.support.trajectory_models import SHAPES, Model, trajectory

BASE, MODELS = trajectory(3)
SQUARES = st.lists(st.floats(1e-12, 1e12), min_size=1, max_size=6)


def run(tree: dict[str, object], models: list[Model] = MODELS) -> tuple[Model, dict[str, dict[str, object]]]:
    return merge(MergeParams.model_validate(tree), models, BASE, rows=2)


def weighted(weights: list[float], models: list[Model], name: str) -> np.ndarray:
    return sum(weight * model[name] for weight, model in zip(weights, models, strict=True))


def squares(models: list[Model], names: list[str]) -> np.ndarray:
    return np.array([sum(np.sum(model[name] ** 2) for name in names) for model in models])


def deltas() -> list[Model]:
    return [{name: model[name] - BASE[name] for name in SHAPES} for model in MODELS]


@pytest.mark.parametrize("name", SHAPES)
def test_an_average_divides_given_weights_by_their_sum_and_a_sum_does_not(name: str) -> None:
    weights = [1.0, 0.5, 2.5]
    average, measures = run({"method": "average", "weights": weights})
    np.testing.assert_allclose(average[name], weighted(weights, MODELS, name) / 4, rtol=1e-12)
    assert measures[name] == WeightsUsed(weights=tuple(weights))
    total, _ = run({"method": "task_arithmetic", "weights": weights, "lam": 0.5})
    np.testing.assert_allclose(total[name], BASE[name] + 0.5 * weighted(weights, deltas(), name), rtol=1e-12)


def check(tree: dict[str, object]) -> None:
    params = MergeParams.model_validate(tree)
    METHODS[params.method].check(Settings(params, lambda name: params, (1, 2, 3), {"w": (2, 2)}))


def readers() -> list[str]:
    return [name for name, method in METHODS.items() if "weights" in method.sections]


@pytest.mark.parametrize("method", readers())
def test_the_weights_given_are_one_for_each_checkpoint(method: str) -> None:
    check({"method": method, "weights": [1, 2, 3]})
    with pytest.raises(BadInput, match=r"merge\.weights: 2 weights for 3 checkpoints"):
        check({"method": method, "weights": [1, 2]})


def test_an_average_refuses_weights_that_add_up_to_nothing_and_a_sum_takes_them() -> None:
    check({"method": "task_arithmetic", "weights": [1, -1, 0]})
    with pytest.raises(BadInput, match=r"merge\.weights: \[1\.0, -1\.0, 0\.0\] add up to 0 for w"):
        check({"method": "average", "weights": [1, -1, 0]})


@pytest.mark.parametrize(
    ("weights", "noted"),
    [([1, -0.999, 0], True), ([1, 1, 1], False), ([-0.2, 0.2, 1], False), ([5, -4.6, 0.01], True)],
)
def test_weights_that_nearly_cancel_are_said_to(weights: list[float], noted: bool) -> None:
    params = MergeParams(method="average", weights=tuple(weights))
    notes = METHODS["average"].notes(Settings(params, lambda name: params, (1, 2, 3), {"w": (2, 2)}))
    assert bool(notes) == noted
    assert all("the weights nearly cancel" in note for note in notes)


@pytest.mark.parametrize("of", ["weights", "task_vectors"])
@pytest.mark.parametrize("per", ["tensor", "model"])
@pytest.mark.parametrize("name", SHAPES)
def test_nan_weighs_inversely_to_the_norm(of: str, per: str, name: str) -> None:
    found = squares(MODELS if of == "weights" else deltas(), [name] if per == "tensor" else list(SHAPES))
    c = found**-0.5 / np.sum(found**-0.5)
    nan = {"of": of, "per": per, "scale": 1.5}
    merged, measures = run({"method": "task_arithmetic", "weights": "nan", "nan": nan, "lam": 0.8})
    expected = BASE[name] + 1.5 * 0.8 * weighted(list(c), deltas(), name)
    np.testing.assert_allclose(merged[name], expected, rtol=1e-12)
    np.testing.assert_allclose(measures[name].weights, c, rtol=1e-12)


@pytest.mark.parametrize("method", ["average", "ties", "dare_ties"])
def test_the_scale_of_nan_survives_a_division_by_the_sum_of_weights(method: str) -> None:
    once, _ = run({"method": method, "weights": "nan"})
    twice, _ = run({"method": method, "weights": "nan", "nan": {"scale": 2.0}})
    for name in SHAPES:
        origin = 0.0 if method == "average" else BASE[name]
        np.testing.assert_allclose(twice[name] - origin, 2 * (once[name] - origin), atol=1e-12)


def test_nan_with_equal_norms_is_uniform_exactly() -> None:
    flipped = [{name: sign * BASE[name] for name in SHAPES} for sign in (1, -1, 1)]
    _, measures = run({"method": "average", "weights": "nan"}, flipped)
    assert all(found.weights == (1 / 3,) * 3 for found in measures.values())


@given(SQUARES)
def test_nan_weights_sum_to_one_and_level_the_norms(squares: list[float]) -> None:
    c = inverse_to_norm(squares)
    assert sum(c) == pytest.approx(1)
    level = [weight * math.sqrt(square) for weight, square in zip(c, squares, strict=True)]
    assert level == pytest.approx([level[0]] * len(level))


def test_zero_norms_take_all_the_weight() -> None:
    assert inverse_to_norm([4.0, 0.0, 9.0, 0.0]) == [0, 0.5, 0, 0.5]
    assert inverse_to_norm([4.0, 1e-30, 9.0]) == pytest.approx([0, 1, 0])


@pytest.mark.parametrize("per", ["tensor", "model"])
@pytest.mark.parametrize("name", SHAPES)
def test_metagpt_weighs_by_the_squared_norm_of_the_task_vector(per: str, name: str) -> None:
    found = squares(deltas(), [name] if per == "tensor" else list(SHAPES))
    c = found / found.sum()
    merged, measures = run({"method": "metagpt", "metagpt": {"per": per}})
    np.testing.assert_allclose(merged[name], BASE[name] + weighted(list(c), deltas(), name), rtol=1e-12)
    np.testing.assert_allclose(measures[name].weights, c, rtol=1e-12)
    as_weights, _ = run({"method": "task_arithmetic", "weights": "metagpt", "metagpt": {"per": per}})
    np.testing.assert_array_equal(merged[name], as_weights[name])


@given(SQUARES)
def test_metagpt_weights_sum_to_one(squares: list[float]) -> None:
    assert sum(by_square(squares)) == pytest.approx(1)


def test_metagpt_without_any_change_is_uniform() -> None:
    assert by_square([0.0, 0.0]) == [0.5, 0.5]


@pytest.mark.parametrize(
    ("tree", "weights"),
    [
        ({"method": "ema", "ema": {"decay": 0.5}}, [1, 2, 4, 8, 16]),
        ({"method": "wma"}, [1, 2, 3, 4, 5]),
        ({"method": "lawa", "lawa": {"k": 3}}, [0, 0, 1, 1, 1]),
        ({"method": "lawa", "lawa": {"k": 2, "spacing": 2}}, [0, 0, 1, 0, 1]),
        ({"method": "lawa", "lawa": {"k": 9, "spacing": 3}}, [0, 1, 0, 0, 1]),
        ({"method": "lawa", "lawa": {"k": 1}}, [0, 0, 0, 0, 1]),
    ],
)
def test_trajectory_weights_grow_towards_the_newest(tree: dict[str, object], weights: list[float]) -> None:
    models = trajectory(5)[1]
    merged, measures = run(tree, models)
    shares = [weight / sum(weights) for weight in weights]
    for name in SHAPES:
        np.testing.assert_allclose(merged[name], weighted(shares, models, name), rtol=1e-12, atol=1e-14)
        assert measures[name].weights == pytest.approx(shares)


def test_identical_checkpoints_are_what_lawa_returns() -> None:
    merged, _ = run({"method": "lawa"}, [BASE] * 5)
    for name in SHAPES:
        np.testing.assert_array_equal(merged[name], BASE[name])


@pytest.mark.parametrize(
    ("tree", "spans"),
    [
        ({"weights": "nan"}, False),
        ({"weights": "nan", "nan": {"per": "model"}}, True),
        ({"weights": "metagpt"}, True),
        ({"weights": "metagpt", "metagpt": {"per": "tensor"}}, False),
        ({"nan": {"per": "model"}}, False),
        ({"weights": [1.0]}, False),
    ],
)
@pytest.mark.parametrize("method", readers())
def test_norms_of_the_model_need_the_whole_model(method: str, tree: dict[str, object], spans: bool) -> None:
    assert METHODS[method].spans_model(MergeParams.model_validate({"method": method, **tree})) == spans
