"""Every tensor of real architectures is of the kind that its own modules say."""

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from tasks.parameters.merge import MergeParams
from tasks.parameters.varying import resolve
from tasks.search.layer_kinds import LAYER_KINDS, for_layer_kinds
from tasks.search.settings import merge_params

NUMBERS = {"embeddings": 0.1, "attention": 0.2, "mlp": 0.3, "others": 0.4}
SMALL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 32, "intermediate_size": 24,
    "num_key_value_heads": 2, "max_position_embeddings": 32, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32,
    "num_local_experts": 2, "word_embed_proj_dim": 16, "ffn_dim": 24, "pad_token_id": 0,
}  # fmt: skip
EXPECTED = {
    "embeddings": {"embed_tokens", "wte", "wpe", "lm_head", "embed_in", "embed_out", "embed_positions"},
    "attention": {"self_attn", "attn", "attention"},
    "mlp": {"mlp", "fc1", "fc2", "block_sparse_moe", "experts"},
}
"""Kind → names of modules that are of it, whatever lies in them."""


def expected(tensor: str) -> str:
    modules = set(tensor.split("."))
    return next((kind for kind, names in EXPECTED.items() if modules & names), "others")


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "opt", "mixtral", "qwen2"])
def test_the_kinds_are_those_of_the_modules(family: str) -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SMALL))
    params = merge_params(MergeParams(method="trend"), [("trend.kappa", for_layer_kinds(NUMBERS))])
    found = {name: resolve(params, name, 0.5).trend.kappa for name in model.state_dict()}
    for name, kappa in found.items():
        assert kappa == NUMBERS[expected(name)], name
    assert set(found.values()) == set(NUMBERS.values())
    assert tuple(NUMBERS) == tuple(LAYER_KINDS)
