"""Real language models of several families with the tiny world's tokenizer, and texts that it knows."""

from pathlib import Path
from typing import Any

import torch

from tests.support.tiny_world import LETTERS, write_model

TEXTS = ("1 + 5: 6\n", "hello there", "a", "the sum of 2 and 3 is 5, and that of 4 and 4 is 8")
FAMILIES = ("llama", "llama untied", "gpt2", "gpt2 untied")


def write(directory: Path, family: str, seed: int) -> Path:
    """Write a model of a family with the tokenizer of the tiny world."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    write_model(directory, seed)
    kind, tied = family.split()[0], "untied" not in family
    torch.manual_seed(seed)
    tokens = len(LETTERS) + 2
    model: Any
    if kind == "llama":
        config = LlamaConfig(
            vocab_size=tokens, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=24, initializer_range=0.3, tie_word_embeddings=tied,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
    else:
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=tokens, n_positions=24, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3,
                tie_word_embeddings=tied, bos_token_id=0, eos_token_id=1,
            )
        )  # fmt: skip
    model.save_pretrained(directory)
    return directory
