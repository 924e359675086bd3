"""Roles by name, over models of real families built without weights."""

import pytest
import torch
import transformers
from torch import nn

from tasks.merging.roles import is_embedding, is_head

SIZES = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "vocab_size": 64, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "cls_token_id": 0, "sep_token_id": 0,
}  # fmt: skip
FAMILIES = [
    ("CausalLM", "llama", {}),
    ("CausalLM", "qwen2", {"num_key_value_heads": 2}),
    ("CausalLM", "mixtral", {"num_key_value_heads": 2, "num_local_experts": 2}),
    ("CausalLM", "gpt2", {}),
    ("CausalLM", "gpt_neox", {}),
    ("CausalLM", "opt", {"ffn_dim": 32, "word_embed_proj_dim": 8}),
    ("CausalLM", "bloom", {}),
    ("CausalLM", "mamba", {}),
    ("MaskedLM", "bert", {}),
    ("MaskedLM", "roberta", {}),
    ("MaskedLM", "albert", {"embedding_size": 8}),
    ("MaskedLM", "electra", {"embedding_size": 8}),
    ("MaskedLM", "modernbert", {}),
    ("Seq2SeqLM", "t5", {"num_layers": 1, "d_kv": 8, "d_ff": 32}),
    ("Seq2SeqLM", "bart", {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1}),
]


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family[1])
def model(request: pytest.FixtureRequest) -> nn.Module:
    task, family, sizes = request.param
    config = transformers.AutoConfig.for_model(family, **{**SIZES, **sizes})
    with torch.device("meta"):
        return getattr(transformers, f"AutoModelFor{task}").from_config(config)


def named(model: nn.Module, role: object) -> set[str]:
    parameters = model.named_parameters(remove_duplicate=False)
    return {name for name, parameter in parameters if role(name, parameter.shape)}


def test_embeddings_are_the_lookup_tables(model: nn.Module) -> None:
    tables = {
        f"{name}.weight"
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, nn.Embedding)
    }
    assert tables
    assert named(model, is_embedding) == tables


def test_the_head_is_what_the_logits_come_from(model: nn.Module) -> None:
    head = model.get_output_embeddings()
    heads = {f"{name}.weight" for name, module in model.named_modules() if module is head}
    assert heads
    assert named(model, is_head) == heads


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("vision_model.embeddings.patch_embedding.weight", (8, 3, 4, 4)),
        ("vit.embeddings.position_embeddings", (1, 5, 8)),
        ("model.layers.0.mlp.shared_expert.gate_proj.weight", (8, 8)),
        ("bert.embeddings.LayerNorm.weight", (8,)),
        ("bert.encoder.layer.0.output.dense.weight", (8, 8)),
        ("albert.encoder.embedding_hidden_mapping_in.weight", (8, 8)),
        ("lm_head.dense.weight", (8, 8)),
    ],
)
def test_what_only_sounds_like_one_is_neither(name: str, shape: tuple[int, ...]) -> None:
    assert not is_embedding(name, shape)
    assert not is_head(name, shape)


@pytest.mark.parametrize("name", ["embed_out.weight", "output.weight", "model.decoder.lm_head.weight"])
def test_heads_of_older_files(name: str) -> None:
    assert is_head(name, (64, 8))
    assert not is_embedding(name, (64, 8))
