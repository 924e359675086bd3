"""Positions: 0 at the first layer, 1 at the last, for every stack and whatever the family calls things."""

import pytest

from tasks.merging.layers import Layers


@pytest.mark.parametrize(
    ("stack", "tensor"),
    [
        ("model.layers", "self_attn.q_proj.weight"),
        ("transformer.h", "attn.c_attn.weight"),
        ("h", "mlp.c_fc.bias"),
        ("bert.encoder.layer", "attention.self.query.weight"),
        ("decoder.block", "layer.2.DenseReluDense.wo.weight"),
        ("model.layers", "mlp.experts.60.w1.weight"),
    ],
)
def test_the_first_number_in_a_name_is_its_layer(stack: str, tensor: str) -> None:
    layers = Layers.of(f"{stack}.{i}.{tensor}" for i in range(5))
    assert [layers.position(f"{stack}.{i}.{tensor}") for i in range(5)] == [0, 0.25, 0.5, 0.75, 1]


def test_an_encoder_and_a_decoder_each_run_from_0_to_1() -> None:
    layers = Layers.of(
        [*(f"encoder.block.{i}.x" for i in range(3)), *(f"decoder.block.{i}.x" for i in range(9))]
    )
    assert layers.position("encoder.block.1.x") == 0.5
    assert layers.position("decoder.block.1.x") == 0.125


@pytest.mark.parametrize(
    ("tensor", "position"),
    [
        ("model.embed_tokens.weight", 0),
        ("wte.weight", 0),
        ("transformer.wpe.weight", 0),
        ("gpt_neox.embed_in.weight", 0),
        ("bert.embeddings.LayerNorm.weight", 0),
        ("shared.weight", 0),
        ("transformer.word_embeddings_layernorm.weight", 0),
        ("embed_out.weight", 1),
        ("unembed.weight", 1),
        ("lm_head.weight", 1),
        ("model.norm.weight", 1),
        ("cls.predictions.bias", 1),
    ],
)
def test_embeddings_lie_at_the_start_and_the_rest_at_the_end(tensor: str, position: float) -> None:
    assert Layers.of(["model.layers.0.x", "model.layers.1.x"]).position(tensor) == position


def test_the_only_layer_is_the_last() -> None:
    assert Layers.of(["h.0.x"]).position("h.0.x") == 1


def test_a_number_inside_a_word_is_no_layer() -> None:
    assert Layers.of(["layer1.conv2.weight"]).position("layer1.conv2.weight") == 1
