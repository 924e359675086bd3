"""mergekit's YAML: what both can do means the same here; the rest is refused by name."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.base.errors import BadInput
from tasks.merging.layers import Layers
from tasks.parameters.merge import MergeParams
from tasks.parameters.varying import resolve
from tasks.recipes.recipe import Recipe, read_recipe


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Make four empty models of 32 layers."""
    for name in ("base", "one", "two", "three"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"num_hidden_layers": 32}))
    return tmp_path


def read(place: Path, tree: dict[str, Any]) -> Recipe:
    path = place / "merge.yml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return read_recipe(path)


def names(recipe: Recipe) -> list[str]:
    return [checkpoint.name for checkpoint in recipe.checkpoints]


def models(**parameters: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"model": name, "parameters": own} for name, own in parameters.items()]


def vectors(method: str, parameters: dict[str, Any] | None = None, **own: dict[str, Any]) -> dict[str, Any]:
    """Return a merge of task vectors from base."""
    given = own or {"one": {}, "two": {}}
    return {
        "merge_method": method,
        "base_model": "base",
        "models": models(**given),
        "parameters": parameters or {},
    }


def test_linear_is_the_weighted_average(place: Path) -> None:
    tree = {
        "merge_method": "linear",
        "models": models(two={"weight": 1}, one={"weight": 0.5}),
        "dtype": "float16",
    }
    recipe = read(place, tree)
    assert names(recipe) == ["two", "one"]
    assert (recipe.params.method, recipe.params.weights, recipe.params.dtype) == (
        "average",
        (1.0, 0.5),
        "float16",
    )
    assert recipe.params.base is None


def test_equal_weights_are_the_plain_average(place: Path) -> None:
    tree = {"merge_method": "linear", "models": models(one={}, two={}), "parameters": {"weight": 0.3}}
    assert read(place, tree).params.weights == "uniform"


def test_weights_are_left_out_only_where_they_change_nothing(place: Path) -> None:
    for method, weight, weights in [
        ("task_arithmetic", 1, "uniform"),
        ("task_arithmetic", 0.5, (0.5, 0.5)),
        ("ties", 0.5, "uniform"),
        ("ties", 0, (0.0, 0.0)),
    ]:
        assert read(place, vectors(method, {"weight": weight})).params.weights == weights


def test_linear_averages_its_base_model_too(place: Path) -> None:
    tree = {"merge_method": "linear", "base_model": "base", "models": models(one={"weight": 3}, two={}),
            "parameters": {"weight": 1}}  # fmt: skip
    recipe = read(place, tree)
    assert (names(recipe), recipe.params.weights) == (["one", "two", "base"], (3.0, 1.0, 1.0))
    listed = read(place, tree | {"models": models(base={"weight": 2}, one={}, two={})})
    assert (names(listed), listed.params.weights) == (["base", "one", "two"], (2.0, 1.0, 1.0))
    assert listed.notes == []


def test_linear_without_normalizing_needs_weights_that_sum_to_one(place: Path) -> None:
    tree = {"merge_method": "linear", "models": models(one={"weight": 0.1}, two={"weight": 0.9}),
            "parameters": {"normalize": False}}  # fmt: skip
    assert read(place, tree).params.weights == (0.1, 0.9)
    with pytest.raises(BadInput, match=r"parameters\.normalize"):
        read(place, tree | {"models": models(one={"weight": 0.5}, two={"weight": 0.9})})
    with pytest.raises(BadInput, match=r"parameters\.normalize"):
        read(place, tree | {"models": models(one={"weight": [0, 1]}, two={"weight": 0.9})})


T = [{"filter": "self_attn", "value": [0, 0.5, 1]}, {"filter": "mlp", "value": [1, 0]}, {"value": 0.5}]


@pytest.mark.parametrize("listed", [["base", "one"], ["one", "base"], ["one"]])
def test_slerp_s_zero_is_the_base_model_wherever_it_is_listed(place: Path, listed: list[str]) -> None:
    tree = {"merge_method": "slerp", "base_model": "base", "parameters": {"t": T}, "out_dtype": "torch.bfloat16",
            "dtype": "float32", "models": [{"model": name} for name in listed]}  # fmt: skip
    recipe = read(place, tree)
    assert (names(recipe), recipe.params.base, recipe.params.dtype) == (["base", "one"], None, "bfloat16")
    layers = Layers.of(f"model.layers.{i}.x" for i in range(5))
    t = {name: resolve(recipe.params, name, layers.position(name)).slerp.t for name in
         ("model.layers.1.self_attn.q", "model.layers.1.mlp.up", "model.layers.1.norm", "lm_head")}  # fmt: skip
    assert list(t.values()) == [0.25, 0.75, 0.5, 0.5]


def test_one_slice_of_all_layers_is_a_plain_merge(place: Path) -> None:
    """The form of mergekit's own slerp example."""
    sources = [{"model": name, "layer_range": [0, 32]} for name in ("one", "two")]
    tree: dict[str, Any] = {"slices": [{"sources": sources, "parameters": {"t": 0.25}}], "merge_method": "slerp",
            "base_model": "two", "parameters": {"t": 0.5}}  # fmt: skip
    recipe = read(place, tree)
    assert (names(recipe), recipe.params.slerp.t) == (["two", "one"], 0.25)
    tree["slices"][0]["base_model"] = "one"
    assert names(read(place, tree)) == ["one", "two"]
    sources[1]["layer_range"] = [0, 16]
    with pytest.raises(BadInput, match="layers 0 to 16 of two are not its 32 layers"):
        read(place, tree)
    (place / "one" / "config.json").unlink()
    with pytest.raises(BadInput, match="does not say how many layers"):
        read(place, tree)


def test_task_arithmetic_adds_weighted_task_vectors(place: Path) -> None:
    recipe = read(place, vectors("task_arithmetic", {"lambda": 0.7}, one={"weight": 1}, two={"weight": 0.5}))
    assert (names(recipe), recipe.params.method) == (["one", "two"], "task_arithmetic")
    assert (recipe.params.base, recipe.params.lam) == (str(place / "base"), 0.7)
    assert recipe.params.weights == (1.0, 0.5)


def test_normalizing_a_sum_divides_the_weights(place: Path) -> None:
    for method in ("task_arithmetic", "dare_linear", "breadcrumbs"):
        tree = vectors(method, {"normalize": True}, one={"weight": 1}, two={"weight": 3})
        assert read(place, tree).params.weights == (0.25, 0.75)
    cancelling = vectors("task_arithmetic", {"normalize": True}, one={"weight": 1}, two={"weight": -1})
    assert read(place, cancelling).params.weights == (1.0, -1.0)
    assert read(place, vectors("task_arithmetic", {"normalize": True, "weight": 1})).params.weights == (
        0.5,
        0.5,
    )


def test_weights_of_a_model_may_vary_and_fall_back_to_the_file_s(place: Path) -> None:
    own = {"weight": [{"filter": "mlp", "value": [0, 1]}]}
    params = read(place, vectors("task_arithmetic", {"weight": 0.25}, one=own, two={})).params
    layers = Layers.of(f"h.{i}.x" for i in range(3))
    found = [
        resolve(params, name, layers.position(name)).weights
        for name in ("h.1.mlp.w", "h.1.attn.w", "mlp.head")
    ]
    assert found == [(0.5, 0.25), (0.25, 0.25), (0.0, 0.25)]


def test_ties_has_mergekit_s_default_density_not_ours(place: Path) -> None:
    params = read(place, vectors("ties", {"weight": 1})).params
    assert (params.method, params.ties.density, params.ties.scope) == ("ties", 1.0, "tensor")
    assert (params.lam, params.weights) == (1.0, "uniform")
    both = vectors("ties", {"weight": 1}, one={"density": 0.3}, two={"density": 0.3})
    assert read(place, both).params.ties.density == 0.3


def test_densities_of_each_model_stay_apart(place: Path) -> None:
    """A list beside a scalar, as in mergekit's own example of TIES: a gradient for one model alone."""
    layers = Layers.of(f"h.{i}.x" for i in range(3))

    def at(tensor: str, params: MergeParams) -> MergeParams:
        return resolve(params, tensor, layers.position(tensor))

    own = {"one": {"density": [1, 0.7, 0.1]}, "two": {"density": 0.5}}
    ties = read(place, vectors("ties", {"weight": 1}, **own)).params
    assert [at(f"h.{i}.x", ties).ties.density for i in range(3)] == [(1, 0.5), (0.7, 0.5), (0.1, 0.5)]
    dare = read(place, vectors("dare_linear", {"weight": 1}, **own)).params
    assert at("h.2.x", dare).dare.p == (0.9, 0.5)
    crumbs = {"one": {"density": 0.5, "gamma": 0.1}, "two": {"density": 0.95, "gamma": 0.1}}
    found = read(place, vectors("breadcrumbs", {"weight": 1}, **crumbs)).params.breadcrumbs
    assert found.density == (0.5, 0.95)
    assert found.gamma == pytest.approx((0.1, 0.05))
    one = read(
        place, vectors("breadcrumbs", {"weight": 1, "gamma": 0.1}, one={"density": 0.5}, two={"density": 0.6})
    )
    assert (one.params.breadcrumbs.density, one.params.breadcrumbs.gamma) == ((0.5, 0.6), (0.1, 0.1))


def test_dare_drops_what_mergekit_does_not_keep(place: Path) -> None:
    params = read(place, vectors("dare_linear", {"weight": 1, "density": [0.25, 0.75]})).params
    layers = Layers.of(["h.0.x", "h.8.x"])
    assert params.method == "dare"
    assert [resolve(params, f"h.{i}.x", layers.position(f"h.{i}.x")).dare.p for i in (0, 2, 8)] == [
        0.75,
        0.625,
        0.25,
    ]


def test_dare_ties_elects_signs_without_trimming(place: Path) -> None:
    params = read(place, vectors("dare_ties", {"weight": 1, "density": 0.75})).params
    assert (params.method, params.dare.p, params.ties.density) == ("dare_ties", 0.25, 1.0)


def test_what_agrees_in_sign_is_averaged_by_ties_and_added_up_by_dare_ties_unless_said(place: Path) -> None:
    assert read(place, vectors("ties", {"weight": 1})).params.ties.normalize
    assert not read(place, vectors("dare_ties", {"weight": 1})).params.ties.normalize
    for method in ("ties", "dare_ties"):
        for flag in (True, False):
            params = read(place, vectors(method, {"weight": 2, "normalize": flag})).params
            assert params.ties.normalize == flag
            assert params.weights == ("uniform" if flag else (2.0, 2.0))


def test_breadcrumbs_keeps_the_density_and_then_the_outliers(place: Path) -> None:
    crumbs = read(
        place, vectors("breadcrumbs", {"weight": 1, "density": 0.5, "gamma": 0.25})
    ).params.breadcrumbs
    assert (crumbs.density, crumbs.gamma) == (0.5, 0.25)
    crumbs = read(
        place, vectors("breadcrumbs", {"weight": 1, "density": 0.75, "gamma": 0.5})
    ).params.breadcrumbs
    assert (crumbs.density, crumbs.gamma) == (0.75, 0.25)
    assert (
        read(place, vectors("breadcrumbs", {"weight": 1})).params.breadcrumbs.gamma == 0
    )  # density 1 keeps all
    with pytest.raises(BadInput, match="exceed 1 together"):
        read(place, vectors("breadcrumbs", {"weight": 1, "density": [0.75, 1]}))


def test_model_stock_has_no_parameters(place: Path) -> None:
    recipe = read(place, vectors("model_stock", {"filter_wise": False}))
    assert (recipe.params.method, names(recipe), recipe.params.base) == (
        "model_stock", ["one", "two"], str(place / "base"))  # fmt: skip


def test_a_base_among_the_models_is_the_base_only_and_its_parameters_are_named(place: Path) -> None:
    recipe = read(place, vectors("ties", {"weight": 1, "t": 0.5}, one={}, base={"density": 0.1}, two={}))
    assert (names(recipe), recipe.params.ties.density) == (["one", "two"], 1.0)
    assert recipe.notes[:2] == [
        f"{place}/merge.yml: models.1.parameters.density has no effect",
        f"{place}/merge.yml: parameters.t has no effect",
    ]


def test_what_differs_by_design_is_said(place: Path) -> None:
    ties = " ".join(read(place, vectors("ties", {"weight": 1})).notes)
    assert "elects +" in ties
    assert "truncates" in ties
    dare = " ".join(read(place, vectors("dare_linear", {"weight": 1})).notes)
    assert "1/(1 - p)" in dare
    assert "elects" not in dare
    assert "1e-6" in " ".join(read(place, vectors("model_stock")).notes)


TIES = vectors("ties", {"weight": 1, "density": 0.5})


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        (TIES | {"merge_method": "passthrough"}, "merge_method: Loreline has no passthrough; it reads linear, slerp, "),
        (TIES | {"merge_method": "breadcrumbs_ties"}, "Loreline has no breadcrumbs_ties"),
        (TIES | {"merge_method": 3}, "merge_method: "),
        (TIES | {"modules": {"text": {}}}, "modules: Loreline merges a model as one"),
        (TIES | {"slices": [{"sources": [{"model": "one", "layer_range": [0, 32]}]}]}, "list them under models"),
        ({"merge_method": "ties", "base_model": "base"}, "list them under models"),
        ({"merge_method": "ties", "slices": [{"sources": [{"model": name, "layer_range": [0, 1]}]} for name in ("one", "two")]}, "slices: Loreline merges all layers alike; list the models"),
        (TIES | {"base_model": None}, "base_model is missing"),
        (TIES | {"models": models(base={})}, "name at least one model beside base_model"),
        (TIES | {"models": models(one={}, org_x={})}, "checkpoints.1: there is no directory "),
        (TIES | {"models": [{"model": "one+two"}]}, "models.0.model: one+two adds an adapter; merge it "),
        (TIES | {"models": [{"modle": "one"}]}, "unknown key models.0.modle"),
        (TIES | {"bse_model": "base"}, "unknown key bse_model; did you mean base_model?"),
        (TIES | {"tokenizer_source": "other"}, "tokenizer_source: "),
        (TIES | {"tokenizer": {"source": "union", "tokens": {}}}, "tokenizer: "),
        (TIES | {"chat_template": "chatml"}, "chat_template: "),
        (TIES | {"dtype": "float64"}, "dtype: Loreline writes float32, float16, bfloat16, not float64"),
        (vectors("ties", {"weight": 1, "rescale": True}), "parameters.rescale: Loreline has only false here"),
        (vectors("dare_linear", {"weight": 1, "rescale": False}), "parameters.rescale: Loreline has only true here"),
        (vectors("ties", {"weight": 1, "densty": 0.5}), "parameters: unknown key densty; did you mean density?"),
        (vectors("ties", {"weight": 1, "density": 2}), "ties.density: input should be less than or equal to 1, but it is 2"),
        (vectors("ties", {}, one={"weight": 1}, two={}), "models.1.parameters.weight: is missing"),
        (vectors("task_arithmetic", {"normalize": True}, one={"weight": [0, 1]}), "weights that vary cannot be normalized"),
        (vectors("model_stock", {"filter_wise": True}), "parameters.filter_wise: "),
        (vectors("slerp", {"t": 0.5}), "slerp takes base_model and one other model, not 2 others"),
        (vectors("slerp", {}, one={"t": 0.5}), "parameters.t: is missing"),
        (vectors("slerp", {"t": 1.5}, one={}), "slerp.t: input should be less than or equal to 1"),
    ],
)  # fmt: skip
def test_what_loreline_lacks_is_refused_in_one_sentence(
    place: Path, tree: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BadInput) as caught:
        read(place, tree)
    assert sentence in str(caught.value)
    assert f"{place}/merge.yml: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_of_the_base_is_what_is_written_anyway(place: Path) -> None:
    for key, value in [
        ("tokenizer_source", "base"),
        ("tokenizer", {"source": "base"}),
        ("tokenizer_source", "union"),
        ("tokenizer", {"source": "union"}),
        ("name", "my-merge"),
        ("chat_template", "auto"),
    ]:
        assert read(place, TIES | {key: value}).params == read(place, TIES).params


def test_the_union_of_one_vocabulary_is_said(place: Path) -> None:
    notes = " ".join(read(place, TIES | {"tokenizer_source": "union"}).notes)
    assert "models of another are refused" in notes
    assert "union" not in " ".join(read(place, TIES).notes)


def test_all_that_loreline_lacks_is_named_at_once(place: Path) -> None:
    tree = vectors("della", {"weight": 1}) | {
        "chat_template": "chatml",
        "dtype": "float64",
        "modules": {"text": {}},
    }
    with pytest.raises(BadInput) as caught:
        read(place, tree)
    for part in ("no della", "chat_template: ", "not float64", "modules: ", "it reads linear"):
        assert part in str(caught.value)
    tree = vectors("ties", {"weight": 1, "rescale": True}) | {"chat_template": "chatml"}
    with pytest.raises(BadInput, match=r"chat_template: .*; parameters\.rescale: "):
        read(place, tree)


@pytest.mark.parametrize(
    "method",
    ["della", "della_linear", "breadcrumbs_ties", "sce", "karcher", "multislerp", "nearswap", "passthrough"],
)
def test_methods_of_mergekit_alone_are_named(place: Path, method: str) -> None:
    with pytest.raises(BadInput, match=f"merge_method: Loreline has no {method}; it reads linear, slerp, "):
        read(place, vectors(method, {"weight": 1}))


def slices(*ranges: tuple[int, int], **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "sources": [{"model": name, "layer_range": list(layers)} for name in ("one", "two")],
            **deepcopy(more),
        }
        for layers in ranges
    ]


def test_slices_that_make_up_whole_models_are_a_plain_merge(place: Path) -> None:
    tree = {"merge_method": "slerp", "base_model": "one", "parameters": {"t": 0.25}}
    whole = read(place, tree | {"models": models(one={}, two={})})
    assert read(place, tree | {"slices": slices((0, 16), (16, 32))}) == whole
    assert read(place, tree | {"slices": slices((0, 8), (8, 16), (16, 32), parameters={})}) == whole


@pytest.mark.parametrize(
    ("pieces", "sentence"),
    [
        (slices((0, 16), (8, 32)), "layers 0 to 16, 8 to 32 of one are not its 32 layers"),
        (slices((0, 16), (16, 31)), "layers 0 to 16, 16 to 31 of one are not its 32 layers"),
        ([*slices((0, 16)), *slices((16, 32), parameters={"t": 1})], "Loreline merges all layers alike"),
        (slices((0, 16), (16, 32), parameters={"t": [0, 1]}), "Loreline merges all layers alike"),
        (
            slices((0, 16), (16, 32), parameters={"t": [{"value": [0, 1]}]}),
            "Loreline merges all layers alike",
        ),
    ],
)
def test_slices_that_build_another_model_are_refused(
    place: Path, pieces: list[dict[str, Any]], sentence: str
) -> None:
    tree = {"merge_method": "slerp", "base_model": "one", "parameters": {"t": 0.5}, "slices": pieces}
    with pytest.raises(BadInput, match=sentence):
        read(place, tree)


def test_nuslerp_without_a_base_is_slerp_by_the_share_of_the_weights(place: Path) -> None:
    tree = {"merge_method": "nuslerp", "models": models(one={"weight": 1}, two={"weight": 3})}
    recipe = read(place, tree)
    assert (names(recipe), recipe.params.method, recipe.params.slerp.t) == (["one", "two"], "slerp", 0.75)
    for more, sentence in [
        ({"base_model": "base"}, "base_model: Loreline's slerp turns weights"),
        ({"parameters": {"nuslerp_row_wise": True}}, r"parameters\.nuslerp_row_wise: "),
        ({"parameters": {"nuslerp_flatten": False}}, r"parameters\.nuslerp_flatten: "),
        ({"models": models(one={"weight": 1})}, "takes two models"),
        ({"models": models(one={"weight": [0, 1]}, two={"weight": 1})}, "takes two models"),
    ]:
        with pytest.raises(BadInput, match=sentence):
            read(place, tree | more)
