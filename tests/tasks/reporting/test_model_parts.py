"""A model is cut into kinds and layers by the numbers in names, whatever the family."""

import pytest

from tasks.base.measures import DeviationSummary, TensorMeasures
from tasks.base.records.merge import MergeReport
from tasks.reporting.model_parts import along_the_model, by_kind, by_layer, grouped, role_of, tensor_parts


def parts(*names: str):
    summary = DeviationSummary(norms=(3.0,), anchor=1.0, cosines=(), conflict=0.0, elements=10)
    return tensor_parts(dict.fromkeys(names, summary))


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        (["model.layers.0.up.weight", "model.layers.11.up.weight"], {"model.layers.*.up.weight": 20}),
        (["l.0.experts.0.w1", "l.0.experts.1.w1", "l.1.experts.0.w1"], {"l.*.experts.*.w1": 30}),
        (["h.0.attn", "h.1.mlp", "wte"], {"h.*.attn": 10, "h.*.mlp": 10, "wte": 10}),
        (["layer1.0.conv2.weight", "layer2.0.conv2.weight"], {"layer1.*.conv2.weight": 10, "layer2.*.conv2.weight": 10}),
        (["0.weight", "1.weight"], {"*.weight": 20}),
        (["blocks.0", "blocks.1"], {"blocks.*": 20}),
    ],
)  # fmt: skip
def test_a_kind_is_a_name_without_its_numbers(names: list[str], kinds: dict[str, int]) -> None:
    assert {kind: part.elements for kind, part in by_kind(parts(*names)).items()} == kinds


def test_layers_follow_each_other_as_numbers_between_embeddings_and_the_rest() -> None:
    names = ["lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"]
    names += [f"model.layers.{i}.{kind}" for i in (10, 2, 0) for kind in ("up", "down")]
    layers = by_layer(parts(*names))
    assert list(layers) == ["embeddings", "model.layers.0", "model.layers.2", "model.layers.10", "rest"]
    assert [part.elements for part in layers.values()] == [10, 20, 20, 20, 20]
    assert layers["rest"].products[0, 0] == pytest.approx(2 * 3**2)


def test_two_stacks_are_not_mixed() -> None:
    layers = by_layer(parts("encoder.block.0.x", "decoder.block.0.x", "encoder.block.1.x", "shared.weight"))
    assert list(layers) == ["embeddings", "decoder.block.0", "encoder.block.0", "encoder.block.1"]


def test_integers_are_no_part() -> None:
    report = MergeReport(
        method="lore",
        parameters={},
        inputs=(),
        outputs=(),
        notes=(),
        tensors={"position_ids": TensorMeasures()},
    )
    assert tensor_parts(report.deviations) == {}


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("model.layers.3.self_attn.q_proj.weight", "self_attn.q_proj"),
        ("decoder.block.0.layer.1.EncDecAttention.q.weight", "layer.*.EncDecAttention.q"),
        ("model.layers.3.mlp.experts.7.up_proj.weight", "mlp.experts.*.up_proj"),
        ("lm_head.weight", "lm_head"),
        ("h.0.attn.bias", "attn.bias"),
        ("blocks.0", "blocks.*"),
    ],
)
def test_a_role_is_the_same_in_every_layer(name: str, role: str) -> None:
    assert role_of(name) == role


def test_names_follow_the_model_and_keep_their_order_within_a_layer() -> None:
    names = ["lm_head.weight", "h.10.a", "h.2.b", "h.2.a", "wte.weight"]
    assert along_the_model(names) == ["wte.weight", "h.2.b", "h.2.a", "h.10.a", "lm_head.weight"]


def test_groups_hold_what_belongs_to_them_in_order() -> None:
    assert grouped({"a1": 1, "b1": 2, "a2": 3}, lambda name: name[0]) == {"a": [1, 3], "b": [2]}
