"""Varying parameters: the rule or gradient that holds for a tensor, bounds on every number, and round trips."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.base.errors import BadInput
from tasks.merging.layers import Layers
from tasks.parameters.merge import MergeParams
from tasks.parameters.reading import parse
from tasks.parameters.varying import resolve, varies
from tasks.recipes.recipe import read_merge_params

LAYERS = Layers.of([f"model.layers.{i}.mlp.up_proj.weight" for i in range(5)])


def at(tensor: str, tree: dict[str, Any], layers: Layers = LAYERS) -> MergeParams:
    return resolve(parse(MergeParams, tree, "test"), tensor, layers.position(tensor))


def test_parameters_that_do_not_vary_are_returned_themselves() -> None:
    params = MergeParams()
    assert resolve(params, "model.layers.3.mlp.up_proj.weight", 0.75) is params


RULES = [{"match": r"attn|q_proj", "value": 0.1}, {"match": r"\.4\.", "value": 0.2}, {"value": 0.3}]


@pytest.mark.parametrize(
    ("tensor", "density"),
    [
        ("model.layers.4.self_attn.o_proj.weight", 0.1),  # both match: the first wins
        ("model.layers.4.mlp.up_proj.weight", 0.2),
        ("model.layers.3.mlp.up_proj.weight", 0.3),
        ("lm_head.weight", 0.3),
    ],
)
def test_the_first_rule_found_in_the_name_decides(tensor: str, density: float) -> None:
    assert at(tensor, {"ties": {"density": RULES}}).ties.density == density


def test_a_tensor_that_no_rule_matches_has_the_parameter_s_default_and_a_weight_of_one() -> None:
    rules = [{"match": "attn", "value": 0.9}]
    found = at("lm_head.weight", {"ties": {"density": rules}, "lam": rules, "weights": [0.5, rules]})
    assert found.ties.density == MergeParams().ties.density
    assert found.lam is None
    assert found.weights == (0.5, 1.0)


@pytest.mark.parametrize("layer", range(5))
def test_a_gradient_runs_linearly_through_its_knots(layer: int) -> None:
    found = at(f"model.layers.{layer}.x", {"slerp": {"t": {"gradient": [0, 0.6, 1]}}})
    assert found.slerp.t == pytest.approx([0, 0.3, 0.6, 0.8, 1][layer], rel=1e-15)


def test_a_rule_may_hold_a_gradient_and_a_weight_may_vary() -> None:
    rules = [{"match": "mlp", "value": {"gradient": [2, 4]}}, {"value": 7}]
    assert at("model.layers.2.mlp.w", {"weights": [1, rules]}).weights == (1.0, 3.0)
    assert at("model.layers.2.attn.w", {"weights": [1, rules]}).weights == (1.0, 7.0)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=6), st.integers(1, 40), st.integers(0, 40))
@settings(max_examples=200)
def test_a_gradient_never_leaves_the_range_of_its_knots(knots: list[float], last: int, layer: int) -> None:
    found = at(f"h.{min(layer, last)}.x", {"lam": {"gradient": knots}}, Layers.of([f"h.{last}.x"])).lam
    assert found is not None
    assert min(knots) <= found <= max(knots)
    assert not varies(found)


FIELDS = [
    ("lore", "mu", 2.0), ("lore", "rank_ratio", 0.5), ("ema", "decay", 0.5), ("ema", "half_life", 9.0), ("power_ema", "width", 0.2), ("trend", "kappa", 0.1), ("ties", "density", 0.5),
    ("dare", "p", 0.5), ("breadcrumbs", "density", 0.5), ("breadcrumbs", "gamma", 0.5), ("slerp", "t", 0.5),
    ("nan", "scale", 2.0), ("widen", "t", 2.0), ("widen", "s", 2.0),
]  # fmt: skip


@pytest.mark.parametrize(("section", "key", "value"), FIELDS)
def test_every_numeric_parameter_of_a_method_may_vary(section: str, key: str, value: float) -> None:
    tree = {"method": "lore", section: {key: [{"match": "attn", "value": value}]}}
    assert getattr(getattr(at("attn", tree), section), key) == value
    assert at("mlp.w", tree) == MergeParams(method="lore")


number = st.floats(0.01, 0.99)
gradient = st.builds(lambda knots: {"gradient": knots}, st.lists(number, min_size=2, max_size=4))
rule = st.builds(
    lambda match, value: ({} if match is None else {"match": match}) | {"value": value},
    st.none() | st.text(max_size=5).map(re.escape),
    number | gradient,
)
varying = number | gradient | st.lists(rule, min_size=1, max_size=4)


@given(varying, varying)
@settings(max_examples=100)
def test_what_was_read_is_written_back_and_read_again_the_same(one: Any, other: Any) -> None:
    tree = {"ties": {"density": one}, "lam": other, "weights": [one, other]}
    params = parse(MergeParams, tree, "test")
    plain = params.model_dump(mode="json", exclude_unset=True)
    assert plain == tree
    assert MergeParams.model_validate(plain) == params
    assert MergeParams.model_validate(params.model_dump()) == params
    assert MergeParams.model_validate_json(params.model_dump_json()) == params
    assert MergeParams(lam=params.lam, weights=params.weights, ties=params.ties) == params
    assert hash(MergeParams.model_validate(plain)) == hash(params)


def test_rules_come_from_the_command_line_as_yaml() -> None:
    params = read_merge_params(
        ["merge.ties.density=[{match: a=b, value: 0.1}, {value: {gradient: [0.2, 0.4]}}]"]
    )
    assert resolve(params, "x.a=b", 1.0).ties.density == 0.1
    assert resolve(params, "model.layers.4.x", 1.0).ties.density == 0.4


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("ties.density=[{match: x, value: 2}]", "merge.ties.density: input should be less than or equal to 1, but it is 2"),
        ("ties.density={gradient: [0.5, 0]}", "merge.ties.density: input should be greater than 0, but it is 0"),
        ("lam=[{value: {gradient: [1, .inf]}}]", "merge.lam: input should be a finite number, but it is inf"),
        ("lam=[{match: 'a(', value: 1}]", "merge.lam: match 'a(' is no regular expression: "),
        ("lam=[{match: 3, value: 1}]", "merge.lam: match is a regular expression, not 3; quote it"),
        ("lam=[{mach: a, value: 1}]", "merge.lam: a rule is {match: REGEX, value: x}"),
        ("lam=[{match: a}]", "merge.lam: a rule is {match: REGEX, value: x}"),
        ("lam=[1, 2]", "merge.lam: a rule is {match: REGEX, value: x}"),
        ("lam=[]", "merge.lam: holds no rule"),
        ("lam={gradient: [1]}", "merge.lam: a mapping is a gradient"),
        ("lam={gradient: [1, 2], value: 1}", "merge.lam: a mapping is a gradient"),
        ("lam={match: a, value: 1}", "rules are a list"),
        ("lam=[{value: [{value: 1}]}]", "merge.lam: input should be a valid number"),
        ("lore.tolerance={gradient: [0.1, 0.2]}", "merge.lore.tolerance: input should be a valid number"),
        ("weights=[{gradient: [a, b]}]", "merge.weights.0: input should be a valid number"),
        ("weights=unifrom", "merge.weights: input should be 'uniform', 'nan' or 'metagpt'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_that_names_the_key(override: str, sentence: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_merge_params([f"merge.{override}"])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_json_schema_says_what_a_parameter_may_hold() -> None:
    """What Prefect draws its form from: a bounded number, a gradient of them, or rules."""
    definitions = MergeParams.model_json_schema()["$defs"]
    number, gradient, rules = definitions["SlerpParams"]["properties"]["t"]["anyOf"]
    assert number == {"type": "number", "minimum": 0, "maximum": 1}
    assert gradient["properties"]["gradient"]["items"] == number
    assert rules["items"]["required"] == ["value"]
    assert "number" in str(MergeParams.model_json_schema(mode="serialization"))
