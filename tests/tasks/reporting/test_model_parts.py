"""A model is cut into kinds and layers by the numbers in names, whatever the family."""

import pytest

from tasks.reporting.model_parts import by_kind, by_layer, tensor_parts


def parts(*names: str):
    return tensor_parts(
        {
            name: {"norms": [3.0], "anchor": 1.0, "cosines": [], "conflict": 0.0, "elements": 10}
            for name in names
        }
    )


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
    assert list(tensor_parts({"position_ids": {}})) == []
