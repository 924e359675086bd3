"""The methods as users know them: what holds for every row of the table, and averages and LoRE on whole tensors."""

import itertools
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from tasks.base.measures import MethodMeasures, TensorMeasures
from tasks.merging.block import Block
from tasks.merging.methods import METHODS
from tasks.parameters.merge import LoreParams, MergeParams
from tests.support import in_memory
from tests.support import lore_reference as reference
from tests.support.in_memory import merge
from tests.support.trajectory_models import SHAPES, Model, trajectory

BASE, MODELS = trajectory(3)
EVERY = pytest.mark.parametrize("method", METHODS)


def mean(name: str, count: int = 3) -> np.ndarray:
    return np.mean([model[name] for model in MODELS[:count]], axis=0)


def run(
    method: str, lam: float | None = None, **options: object
) -> tuple[Model, dict[str, MethodMeasures | None]]:
    """Merge as many checkpoints as the method takes; the noise that they are made of is signal to LoRE."""
    params = MergeParams(method=method, lam=lam, lore=LoreParams(mu=0.3, mu_scale="sigma1", tolerance=1e-4))
    return merge(params, MODELS[: METHODS[method].at_most], BASE, **options)


def assert_same(merged: Model, expected: Model, tolerance: float) -> None:
    for name in SHAPES:
        np.testing.assert_allclose(merged[name], expected[name], rtol=0, atol=tolerance, err_msg=name)


def test_every_method_of_the_parameters_is_in_the_table() -> None:
    assert set(METHODS) == set(get_args(MergeParams.model_fields["method"].annotation))


@EVERY
def test_a_method_reads_sections_that_exist(method: str) -> None:
    assert set(METHODS[method].sections) <= set(MergeParams.model_fields)


@EVERY
@pytest.mark.parametrize("rows", [1, 3])
def test_the_result_does_not_depend_on_the_blocks(method: str, rows: int) -> None:
    whole, whole_measures = run(method)
    cut, cut_measures = run(method, rows=rows)
    assert_same(cut, whole, 1e-12)
    for name in SHAPES:
        assert_close(cut_measures[name], whole_measures[name], 1e-9)


@EVERY
def test_float32_is_float64_but_for_rounding(method: str) -> None:
    single, _ = run(method, rows=2, dtype=np.float32)
    assert_same(single, run(method)[0], 1e-5)
    if not METHODS[method].whole:
        assert {tensor.dtype for tensor in single.values()} == {np.dtype(np.float32)}


@EVERY
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_torch_tensors_give_what_numpy_arrays_give(
    method: str, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, expected_measures = run(method, rows=2, dtype=dtype)
    cut = in_memory.cut
    monkeypatch.setattr(in_memory, "cut", lambda *given: [in_torch(block) for block in cut(*given)])
    merged, measures = run(method, rows=2, dtype=dtype)
    assert {tensor.dtype for tensor in merged.values()} == {tensor.dtype for tensor in expected.values()}
    assert_same(merged, expected, 1e-6 if dtype is np.float32 else 1e-12)
    for name in SHAPES:
        assert_close(measures[name], expected_measures[name], 1e-5)


def assert_close(found: Any, expected: Any, rel: float) -> None:
    """Compare records, which may hold text, and tuples of tuples."""
    if isinstance(expected, BaseModel):
        assert type(found) is type(expected)
        for key, value in expected:
            assert_close(getattr(found, key), value, rel)
    elif isinstance(expected, str | None):
        assert found == expected
    elif isinstance(expected, tuple) and expected and isinstance(expected[0], tuple):
        for own, other in zip(found, expected, strict=True):
            assert own == pytest.approx(other, rel=rel)
    else:
        assert found == pytest.approx(expected, rel=rel)


def in_torch(block: Block) -> Block:
    thetas = [torch.from_numpy(theta.copy()) for theta in block.thetas]
    base = None if block.base is None else torch.from_numpy(block.base.copy())
    importance = [torch.from_numpy(own.copy()) for own in block.importance]
    grams = [torch.from_numpy(own.copy()) for own in block.grams]
    return replace(block, thetas=thetas, base=base, importance=importance, grams=grams)


@EVERY
def test_the_measures_survive_json(method: str) -> None:
    for found in run(method)[1].values():
        measures = TensorMeasures(method=found)
        assert TensorMeasures.model_validate_json(measures.model_dump_json()) == measures


@EVERY
def test_checkpoints_that_never_left_the_base_merge_into_it(method: str) -> None:
    count = METHODS[method].at_most or 3
    merged, _ = merge(MergeParams(method=method), [BASE] * count, BASE)
    assert_same(merged, BASE, 1e-15)


@EVERY
def test_the_sources_are_not_changed(method: str) -> None:
    before = [{name: tensor.copy() for name, tensor in model.items()} for model in (BASE, *MODELS)]
    run(method)
    for model, copy in zip((BASE, *MODELS), before, strict=True):
        assert_same(model, copy, 0)


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if "lam" in method.sections])
def test_lambda_counts_where_the_table_says_so(method: str) -> None:
    assert not np.allclose(run(method, lam=0.37)[0]["tall"], run(method, lam=1.2)[0]["tall"], atol=1e-3)


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.at_least == 1])
def test_one_checkpoint_is_enough_where_the_table_says_so(method: str) -> None:
    merged, _ = merge(MergeParams(method=method), MODELS[:1], BASE)
    assert all(np.isfinite(tensor).all() for tensor in merged.values())


@pytest.mark.parametrize("name", SHAPES)
def test_average_is_the_mean(name: str) -> None:
    np.testing.assert_allclose(run("average")[0][name], mean(name), rtol=1e-14)


def test_ema_equals_the_recursion() -> None:
    """Bias-corrected running average, oldest first."""
    total, weight = 0.0, 0.0
    for model in MODELS:
        total, weight = 0.6 * total + model["tall"], 0.6 * weight + 1
    np.testing.assert_allclose(run("ema")[0]["tall"], total / weight)


@pytest.mark.parametrize("name", SHAPES)
def test_task_arithmetic_at_one_nth_is_the_mean(name: str) -> None:
    params = MergeParams(method="task_arithmetic", lam=1 / 3)
    np.testing.assert_allclose(merge(params, MODELS, BASE)[0][name], mean(name), rtol=1e-12)


@pytest.mark.parametrize(
    ("tree", "notes"),
    [
        ({"lam": 1 / 3}, ["equal to averaging: λ = 1/N"]),
        ({"lam": 1 / 3, "weights": "nan"}, []),
        ({"lam": {"gradient": [0.1, 0.2]}}, []),
        ({}, []),
    ],
)
def test_task_arithmetic_says_what_it_amounts_to(tree: dict[str, object], notes: list[str]) -> None:
    params = MergeParams.model_validate({"method": "task_arithmetic", **tree})
    settings = in_memory.Settings(params, lambda name: params, (1, 2, 3), {})
    assert METHODS["task_arithmetic"].notes(settings) == notes


def lore(count: int = 3, **given: object) -> Model:
    return merge(MergeParams(method="lore", **given), MODELS[:count])[0]


@pytest.mark.parametrize("name", SHAPES)
def test_lore_at_one_nth_is_the_mean(name: str) -> None:
    np.testing.assert_allclose(lore(lam=1 / 3)[name], mean(name), rtol=1e-12)


@pytest.mark.parametrize("name", SHAPES)
def test_lore_of_two_is_the_mean_whatever_lambda(name: str) -> None:
    np.testing.assert_allclose(lore(2, lam=7.0)[name], mean(name, 2), rtol=1e-12)


@pytest.mark.parametrize("name", ["tall", "wide", "experts", "conv"])
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_lore_equals_the_paper_s_formula_matrix_by_matrix(name: str, lam: float) -> None:
    """θ* = θ_0 + λ Σδ_i from an independent solver, with the tensor seen as its matrices."""
    params = MergeParams(
        method="lore", lam=lam, lore=LoreParams(mu=0.2, mu_scale="absolute", tolerance=1e-10)
    )
    shape = SHAPES[name]
    tensors = [model[name] for model in MODELS]
    stacks = [t if t.ndim == 3 else t.reshape(1, shape[0], -1) for t in tensors]
    expected = []
    for matrices in zip(*stacks, strict=True):
        theta_0, total = reference.solve(list(matrices), 0.2)
        expected.append(theta_0 + lam * total)
    merged, _ = merge(params, [{name: tensor} for tensor in tensors])
    np.testing.assert_allclose(merged[name], np.stack(expected).reshape(shape), atol=2e-5)


def test_lore_averages_vectors() -> None:
    np.testing.assert_allclose(lore(lam=1.0)["norm"], mean("norm"))


@pytest.mark.parametrize("lam", [0.0, 0.7])
def test_the_lambda_family_is_one_line_through_the_mean(lam: float) -> None:
    settings = LoreParams(mu=0.2, mu_scale="absolute", tolerance=1e-12)
    theta_0 = lore(lam=0.0, lore=settings)["tall"]
    line = mean("tall") + (3 * lam - 1) * (mean("tall") - theta_0)
    np.testing.assert_allclose(lore(lam=lam, lore=settings)["tall"], line, atol=1e-5)


def test_the_order_of_checkpoints_matters_only_along_a_trajectory() -> None:
    for method in ("average", "task_arithmetic", "model_stock", "widen", "tsv_m", "iso_c"):
        expected, _ = run(method)
        for order in itertools.permutations(range(3)):
            merged, _ = merge(MergeParams(method=method), [MODELS[i] for i in order], BASE)
            assert_same(merged, expected, 1e-9)


def test_an_empty_matrix_is_left_empty() -> None:
    merged, _ = merge(MergeParams(method="lore"), [{"w": np.empty((0, 3))}] * 3)
    assert merged["w"].shape == (0, 3)
