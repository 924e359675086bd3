"""mergekit's settings mean the same number for every tensor here as in mergekit itself."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mergekit.config import ParameterSetting
from mergekit.merge_methods.base import ParameterScope, ParameterSpec
from mergekit.parameter_resolver import resolve_parameter
from pydantic import TypeAdapter

from tasks.base.errors import BadInput
from tasks.merging.layers import Layers
from tasks.parameters.merge import MergeParams
from tasks.parameters.reading import parse
from tasks.parameters.varying import resolve
from tasks.recipes.mergekit_settings import Scope, all_numbers, flag, mapped, setting

AS_MERGEKIT = TypeAdapter(ParameterSetting)
SUFFIXES = [
    "self_attn.q_proj.weight",
    "mlp.up_proj.weight",
    "mlp.experts.3.w1.weight",
    "input_layernorm.weight",
]
OUTSIDE = ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
FILTERS = [
    "self_attn",
    "mlp",
    "q_proj",
    "weight",
    "layers.1.",
    "layers.3",
    "lm_head",
    "norm",
    ".",
    "*",
    "[a-z]",
    "",
]

number = st.floats(-2, 2) | st.integers(-3, 3) | st.sampled_from(["1e-3", "0.25"])
gradient = st.lists(number, min_size=1, max_size=5)
condition = st.builds(
    lambda name, value: {"value": value} | ({} if name is None else {"filter": name}),
    st.none() | st.sampled_from(FILTERS),
    number | gradient,
)
any_setting = number | gradient | condition | st.lists(condition, min_size=1, max_size=4)


def theirs(name: str, t: float, scopes: list[Any], default: float) -> float:
    spec = ParameterSpec("weight", float, ParameterScope.SHARED, default)
    read = [{"weight": AS_MERGEKIT.validate_python(scope)} for scope in scopes]
    return float(resolve_parameter(spec, read, tensor_name=name, t=t))


def ours(name: str, layers: Layers, scopes: list[Any], default: float) -> float:
    value = setting("weight", [Scope("here", {"weight": scope}) for scope in scopes], default)
    found = resolve(parse(MergeParams, {"weights": [value]}, "test"), name, layers.position(name)).weights[0]
    assert isinstance(found, float)
    return found


@given(st.lists(any_setting, max_size=3), st.floats(-2, 2), st.integers(1, 7), st.sampled_from(SUFFIXES))
@settings(max_examples=300, deadline=None)
def test_every_layer_has_mergekit_s_number(
    scopes: list[Any], default: float, count: int, suffix: str
) -> None:
    names = [f"model.layers.{i}.{suffix}" for i in range(count)]
    layers = Layers.of(names)
    for index, name in enumerate(names):
        t = index / (count - 1) if count > 1 else 1  # as mergekit's plan has it
        expected = theirs(name, t, scopes, default)
        assert ours(name, layers, scopes, default) == pytest.approx(expected, rel=1e-14, abs=1e-15)


@given(st.lists(any_setting, max_size=3), st.floats(-2, 2), st.sampled_from(OUTSIDE))
@settings(max_examples=200, deadline=None)
def test_embeddings_and_heads_too_where_mergekit_takes_the_first_knot(
    scopes: list[Any], default: float, name: str
) -> None:
    layers = Layers.of(["model.layers.0.x", "model.layers.9.x"])
    assert ours(name, layers, scopes, default) == theirs(name, 0, scopes, default)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("many", "here.weight: must be a number"),
        ([], "here.weight: must be a number"),
        (None, "here.weight: must be a number"),
        ([1, {"value": 1}], "here.weight: must be a number"),
        ([[1]], "here.weight: must be a number"),
        ({"filter": "mlp"}, "here.weight: a condition is {filter: TEXT, value: x}"),
        ({"filter": 1, "value": 1}, "here.weight: a condition is {filter: TEXT, value: x}"),
        ({"fliter": "mlp", "value": 1}, "here.weight: a condition is {filter: TEXT, value: x}"),
        ({"filter": "mlp", "value": []}, "here.weight: must be a number"),
        ({"filter": "mlp", "value": 1}, "here.weight: leaves out the tensors that no filter matches"),
    ],
)
def test_a_malformed_setting_is_refused_by_its_place(value: Any, problem: str) -> None:
    with pytest.raises(BadInput) as caught:
        setting("weight", [Scope("here", {"weight": value})])
    assert problem in str(caught.value)


def test_a_required_setting_has_to_be_there() -> None:
    with pytest.raises(BadInput, match=r"here\.weight: is missing"):
        setting("weight", [Scope("here", {}), Scope("there", {"density": 1})])


def test_a_switch_is_true_or_false_in_the_most_specific_scope() -> None:
    scopes = [
        Scope("slice", {"normalize": False}),
        Scope("file", {"normalize": True, "rescale": [True, False]}),
    ]
    assert flag("normalize", scopes, True) is False
    assert flag("int8_mask", scopes, True) is True
    with pytest.raises(BadInput, match=r"file\.rescale: must be true or false"):
        flag("rescale", scopes, True)


def test_a_change_reaches_every_number() -> None:
    value = [{"match": "a", "value": {"gradient": [0.25, 0.5]}}, {"value": 0.75}]
    changed = mapped(value, lambda x: 1 - x)
    assert changed == [{"match": "a", "value": {"gradient": [0.75, 0.5]}}, {"value": 0.25}]
    assert list(all_numbers(changed)) == [0.75, 0.5, 0.25]
    assert (mapped(1.0, lambda x: 1 - x), list(all_numbers(1.0))) == (0.0, [1.0])
