"""TIES, DARE and breadcrumbs equal their definitions, whatever the blocks."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.base.errors import BadInput
from tasks.merging.block import Block
from tasks.merging.combine import elected
from tasks.merging.methods import METHODS
from tasks.merging.program import Settings
from tasks.parameters.merge import MergeParams
from tests.support import in_memory
from tests.support import sparsifying_reference as reference
from tests.support.driving import drive
from tests.support.in_memory import Tensors, cut, merge

SHAPES = {"norm": (7,), "mlp": (5, 6), "experts": (2, 3, 4)}
SPARSIFYING: list[dict[str, Any]] = [
    {"method": "ties", "ties": {"density": 0.37}},
    {"method": "ties", "ties": {"density": 0.37, "scope": "model"}},
    {"method": "ties", "ties": {"density": 1}},
    {"method": "dare", "dare": {"p": 0.75}},
    {"method": "dare_ties", "dare": {"p": 0.5}, "ties": {"density": 1}},
    {"method": "dare_ties", "dare": {"p": 0.5}, "ties": {"density": 0.37}},
    {"method": "dare_ties", "dare": {"p": 0.5}, "ties": {"density": 0.37, "scope": "model"}},
    {"method": "breadcrumbs", "breadcrumbs": {"density": 0.5, "gamma": 0.1}},
    {"method": "breadcrumbs", "breadcrumbs": {"density": 0.5, "gamma": 0}},
    {"method": "breadcrumbs", "breadcrumbs": {"density": 0.7, "gamma": 0.3}},
]


def models(count: int, seed: int = 0, unit: int = 8) -> tuple[list[dict[str, np.ndarray]], Tensors]:
    """Return checkpoints and base, in multiples of 1/unit: every sum is exact, with 8 many magnitudes are equal."""
    rng = np.random.default_rng(seed)
    base = {name: rng.integers(-9, 9, shape) / 8 for name, shape in SHAPES.items()}
    deltas = [
        {name: rng.integers(-unit // 2, unit // 2, shape) / unit for name, shape in SHAPES.items()}
        for _ in range(count)
    ]
    return [{name: base[name] + own[name] for name in base} for own in deltas], base


def expected(params: MergeParams, checkpoints: Sequence[Tensors], base: Tensors) -> dict[str, np.ndarray]:
    """Return the merge by the definitions, in float64."""
    sparse = [
        {name: dropped(params, tensor - base[name], name, i) for name, tensor in checkpoint.items()}
        for i, checkpoint in enumerate(checkpoints)
    ]
    if "ties" in params.method:
        sparse = [trimmed(params, deltas) for deltas in sparse]
    c = [1.0] * len(checkpoints) if params.weights == "uniform" else params.weights
    lam = 1 if params.lam is None else params.lam
    return {
        name: base[name] + lam * combined(params, c, [deltas[name] for deltas in sparse]) for name in base
    }


def dropped(params: MergeParams, delta: np.ndarray, tensor: str, checkpoint: int) -> np.ndarray:
    if params.method == "breadcrumbs":
        return reference.band(delta, params.breadcrumbs.density, params.breadcrumbs.gamma)
    if params.method == "ties":
        return delta
    return reference.drop(delta, params.dare.p, params.dare.seed, tensor, checkpoint)


def trimmed(params: MergeParams, deltas: Tensors) -> dict[str, np.ndarray]:
    density = params.ties.density
    if params.ties.scope == "tensor":
        return {name: reference.trim(delta, density) for name, delta in deltas.items()}
    flat = reference.trim(np.concatenate([delta.reshape(-1) for delta in deltas.values()]), density)
    ends = np.cumsum([delta.size for delta in deltas.values()])[:-1]
    parts = zip(deltas.items(), np.split(flat, ends), strict=True)
    return {name: part.reshape(delta.shape) for (name, delta), part in parts}


def combined(params: MergeParams, c: Sequence[float], deltas: list[np.ndarray]) -> np.ndarray:
    if "ties" in params.method:
        return reference.elected(c, deltas)
    return np.tensordot(c, deltas, 1)


@pytest.mark.parametrize("given_params", SPARSIFYING, ids=str)
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_the_method_is_its_definition(given_params: dict[str, Any], data: st.DataObject) -> None:
    """Against whole tensors, sorts and loops in float64: 1 to 6 checkpoints, λ and weights, float32 too."""
    count = data.draw(st.integers(1, 6))
    weights = st.one_of(
        st.just("uniform"), st.lists(st.sampled_from([0.25, 0.5, 1.0, 1.5]), min_size=count, max_size=count)
    )
    extra = {"lam": data.draw(st.sampled_from([None, 0.5, -2.0])), "weights": data.draw(weights)}
    params = MergeParams.model_validate(given_params | extra)
    checkpoints, base = models(count, data.draw(st.integers(0, 99)), data.draw(st.sampled_from([8, 256])))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    merged, _ = merge(params, checkpoints, base, rows=data.draw(st.sampled_from([None, 1, 2])), dtype=dtype)
    for name, tensor in expected(params, checkpoints, base).items():
        assert merged[name].dtype == dtype
        np.testing.assert_allclose(
            merged[name],
            tensor,
            rtol=1e-5 if dtype == np.float32 else 1e-13,
            atol=1e-5 if dtype == np.float32 else 1e-13,
        )


@pytest.mark.parametrize("given_params", SPARSIFYING, ids=str)
@pytest.mark.parametrize("unit", [8, 256])
def test_blocks_of_any_size_give_the_same_bits(given_params: dict[str, Any], unit: int) -> None:
    params = MergeParams.model_validate(given_params)
    checkpoints, base = models(3, unit=unit)
    whole, _ = merge(params, checkpoints, base, dtype=np.float32)
    for rows in (1, 2, 3):
        parts, _ = merge(params, checkpoints, base, rows=rows, dtype=np.float32)
        for name in base:
            assert parts[name].tobytes() == whole[name].tobytes()


@pytest.mark.parametrize("given_params", SPARSIFYING, ids=str)
@pytest.mark.parametrize("unit", [8, 256])
def test_torch_tensors_give_the_same_result(
    given_params: dict[str, Any], unit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs on a GPU, here on the CPU; weights make every operation count."""
    params = MergeParams.model_validate(given_params | {"weights": [1.0, 0.5, 0.25], "lam": 0.5})
    checkpoints, base = models(3, unit=unit)
    on_numpy, _ = merge(params, checkpoints, base, dtype=np.float32)

    def cut_torch(*args: Any) -> list[Block]:
        return [
            Block(
                b.tensor,
                b.matrix,
                b.start,
                [torch.from_numpy(theta) for theta in b.thetas],
                torch.from_numpy(b.base),
            )
            for b in cut(*args)
        ]

    monkeypatch.setattr(in_memory, "cut", cut_torch)
    on_torch, _ = merge(params, checkpoints, base, rows=2, dtype=np.float32)
    for name in base:
        np.testing.assert_allclose(on_torch[name], on_numpy[name], rtol=1e-6, atol=1e-6)


def test_ties_of_all_agreeing_elements_is_the_mean_task_vector() -> None:
    rng = np.random.default_rng(0)
    base, sign = rng.standard_normal((4, 5)), rng.choice([-1, 1], (4, 5))
    checkpoints = [{"w": base + sign * rng.uniform(0.1, 1, (4, 5))} for _ in range(4)]
    params = MergeParams.model_validate({"method": "ties", "ties": {"density": 1}})
    merged, _ = merge(params, checkpoints, {"w": base})
    np.testing.assert_allclose(merged["w"], np.mean([c["w"] for c in checkpoints], 0), rtol=1e-13)


def test_breadcrumbs_without_outliers_keeps_the_top() -> None:
    delta = np.array([[5.0, -1.0, 3.0], [-4.0, 2.0, 0.5]])
    params = MergeParams.model_validate(
        {"method": "breadcrumbs", "breadcrumbs": {"density": 0.5, "gamma": 0}}
    )
    merged, _ = merge(params, [{"w": 1 + delta}], {"w": np.ones((2, 3))})
    np.testing.assert_array_equal(merged["w"] - 1, [[5, 0, 3], [-4, 0, 0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_a_sum_of_zero_within_rounding_elects_nobody(dtype: type, kind: Callable[[np.ndarray], Any]) -> None:
    """0.1 + 0.2 − 0.3 is rounding alone; a majority of one part in 10⁵ is not."""
    votes = np.array([[0.1, 0.1, 1.0, 0.0], [0.2, 0.2, -1.0 + 1e-5, 0.0], [-0.3, -0.2, 0.0, 0.0]], dtype)
    tau = elected([1.0] * 3, [kind(vote) for vote in votes], MergeParams())
    np.testing.assert_allclose(np.asarray(tau), [0, 0.15, 1, 0], rtol=1e-6)


def test_the_two_checkpoints_that_cancel_leave_the_base() -> None:
    """Where zero elects a sign, TIES of two opposite task vectors becomes the one or the other."""
    checkpoints, base = models(1)
    opposite = {name: 2 * base[name] - checkpoints[0][name] for name in base}
    merged, _ = merge(MergeParams(method="ties"), [*checkpoints, opposite], base)
    for name in base:
        np.testing.assert_array_equal(merged[name], base[name])


def test_dare_does_not_depend_on_the_order_of_tensors() -> None:
    checkpoints, base = models(2)
    params = MergeParams(method="dare")
    merged, _ = merge(params, checkpoints, base)
    backwards, _ = merge(
        params, [dict(reversed(c.items())) for c in checkpoints], dict(reversed(base.items()))
    )
    for name in base:
        np.testing.assert_array_equal(merged[name], backwards[name])


@pytest.mark.parametrize(
    ("method", "section", "key", "values"),
    [("ties", "ties", "density", (0.2, 0.8)), ("dare", "dare", "p", (0.25, 0.75)), ("breadcrumbs", "breadcrumbs", "gamma", (0.0, 0.1))],
)  # fmt: skip
def test_parameters_may_differ_from_tensor_to_tensor(
    method: str, section: str, key: str, values: tuple[float, float]
) -> None:
    """One program for two tensors merges each as its own parameters say."""
    checkpoints, base = models(3)
    own = {
        name: MergeParams.model_validate({"method": method, section: {key: value}})
        for name, value in zip(["norm", "mlp"], values, strict=True)
    }
    blocks = {name: cut(name, [c[name] for c in checkpoints], base[name], 2, np.float64) for name in own}
    shapes = {name: SHAPES[name] for name in own}
    program = METHODS[method].program(Settings(own["norm"], own.__getitem__, (1, 2, 3), shapes))
    finish, _ = drive(program, blocks)
    for name, params in own.items():
        merged = np.concatenate([finish(block)[0] for block in blocks[name]]).reshape(SHAPES[name])
        np.testing.assert_allclose(merged, expected(params, checkpoints, base)[name], atol=1e-13)


def test_breadcrumbs_refuses_to_keep_and_drop_more_than_all() -> None:
    params = MergeParams.model_validate(
        {"method": "breadcrumbs", "breadcrumbs": {"density": 0.9, "gamma": 0.2}}
    )
    with pytest.raises(BadInput, match=r"merge.breadcrumbs: density 0.9 and gamma 0.2"):
        METHODS["breadcrumbs"].check(Settings(params, lambda name: params, (1, 2), {"w": (3,)}))


def test_breadcrumbs_may_drop_the_top_and_keep_the_rest() -> None:
    """Both shares of 5 elements round up; still no element counts twice."""
    params = MergeParams.model_validate(
        {"method": "breadcrumbs", "breadcrumbs": {"density": 0.7, "gamma": 0.3}}
    )
    METHODS["breadcrumbs"].check(Settings(params, lambda name: params, (1,), {"w": (5,)}))
    merged, _ = merge(params, [{"w": np.arange(5.0)}], {"w": np.zeros(5)})
    np.testing.assert_array_equal(merged["w"], [0, 1, 2, 0, 0])
