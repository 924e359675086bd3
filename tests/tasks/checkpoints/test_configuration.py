"""Configurations that mean the same to transformers are the same, whichever release wrote them."""

from typing import Any

import pytest

from tasks.checkpoints.configuration import differing_keys, meaning_of, ties_embeddings

LLAMA = {
    "model_type": "llama",
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 16,
}
QWEN = {**LLAMA, "model_type": "qwen2"}
SCALING = {"rope_type": "linear", "factor": 2.0}

SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({**LLAMA, "rope_theta": 5e5}, {**LLAMA, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}),
    (
        {**LLAMA, "rope_theta": 5e5, "rope_scaling": SCALING},
        {**LLAMA, "rope_parameters": {**SCALING, "rope_theta": 5e5}},
    ),
    (
        {**LLAMA, "rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {**LLAMA, "rope_parameters": {**SCALING, "rope_theta": 5e5}},
    ),
    ({**LLAMA, "torch_dtype": "float32"}, {**LLAMA, "dtype": "bfloat16"}),
    ({**LLAMA, "head_dim": 4}, LLAMA),
    ({**LLAMA, "attention_bias": False}, LLAMA),
    ({**LLAMA, "unheard_of_switch": False}, LLAMA),
    ({**LLAMA, "pad_token_id": None}, LLAMA),
    ({**LLAMA, "_attn_implementation_autoset": True, "unsloth_version": "2025.3.1"}, LLAMA),
    ({**QWEN, "layer_types": ["full_attention", "full_attention"]}, QWEN),
    ({**LLAMA, "tie_word_embeddings": False}, LLAMA),
]
DIFFERENT: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({**LLAMA, "rope_theta": 5e5}, LLAMA, "rope_parameters"),
    (
        {**LLAMA, "rope_scaling": SCALING},
        {**LLAMA, "rope_scaling": {**SCALING, "factor": 4.0}},
        "rope_parameters",
    ),
    ({**LLAMA, "head_dim": 8}, LLAMA, "head_dim"),
    ({**LLAMA, "attention_bias": True}, LLAMA, "attention_bias"),
    ({**LLAMA, "unheard_of_number": 1}, LLAMA, "unheard_of_number"),
    ({**QWEN, "layer_types": ["full_attention", "sliding_attention"]}, QWEN, "layer_types"),
]


def meaning(config: dict[str, Any]) -> dict[str, Any]:
    found = meaning_of(config)
    assert found is not None
    return found


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_transformers_reads_alike_is_alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert differing_keys(meaning(one), meaning(other)) == []


@pytest.mark.parametrize(("one", "other", "key"), DIFFERENT)
def test_what_makes_another_model_is_named(one: dict[str, Any], other: dict[str, Any], key: str) -> None:
    assert differing_keys(meaning(one), meaning(other)) == [key]


def test_reading_changes_nothing_of_what_is_read() -> None:
    config = {**LLAMA, "rope_theta": 5e5, "rope_scaling": dict(SCALING)}
    meaning(config)
    assert config == {**LLAMA, "rope_theta": 5e5, "rope_scaling": SCALING}


@pytest.mark.parametrize(
    "config",
    [{}, {"model_type": "of_nobody"}, {"model_type": ["llama"]}, {**LLAMA, "hidden_size": "wide"}],
)
def test_what_transformers_does_not_know_has_no_meaning_but_its_keys(config: dict[str, Any]) -> None:
    assert meaning_of(config) is None
    assert differing_keys({**config, "a": 1, "b": None}, {**config, "a": 2}) == ["a"]


@pytest.mark.parametrize("key", ["num_hidden_layers", "num_labels", "text_config"])
def test_a_class_is_not_asked_for_lists_that_would_not_end(key: str) -> None:
    assert meaning_of({**QWEN, key: {"num_layers": 10**9} if key == "text_config" else 10**9}) is None


def test_a_class_is_not_asked_about_deep_nesting() -> None:
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    assert meaning_of({**LLAMA, "a": deep}) is None


@pytest.mark.parametrize(
    ("model_type", "tied"), [("gemma", True), ("gpt2", True), ("llama", False), ("of_nobody", False)]
)
def test_a_tie_is_the_class_s_default_unless_it_is_set(model_type: str, tied: bool) -> None:
    assert ties_embeddings({"model_type": model_type}) == tied
    for said in (True, False):
        assert ties_embeddings({"model_type": model_type, "tie_word_embeddings": said}) == said
