"""Adapters of every kind answer on their base as the model did that PEFT trained; the tokenizer is their own."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from tasks.base.errors import BadInput
from tasks.base.model_files import ModelFiles
from tasks.evaluation.backends import hf
from tests.support.tiny_adapters import load
from tests.support.tiny_world import write_model

KINDS: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": ["q_proj", "down_proj"]},
    "rank-stabilised": {"target_modules": ["q_proj"], "use_rslora": True},
    "different ranks": {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 5}},
    "on a tied embedding": {"target_modules": ["embed_tokens", "v_proj"]},
    "whole modules": {"target_modules": ["v_proj"], "modules_to_save": ["norm"]},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("world") / "base")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([[1, 5, 9, 33, 40, 7]])).logits
    return found


def trained(base: Path, directory: Path, tokens: int | None = None, **settings: Any) -> torch.Tensor:
    """Save an adapter whose tensors all moved, and return what its model computes."""
    model = load(base)
    if tokens:
        model.resize_token_embeddings(tokens, mean_resizing=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT talks of tied embeddings
        adapted = get_peft_model(model, LoraConfig(r=3, lora_alpha=5, task_type="CAUSAL_LM", **settings))
        torch.manual_seed(1)
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn_like(parameter)
        adapted.save_pretrained(directory)
    return logits(adapted.eval())[..., : load(base).config.vocab_size]


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS.keys())
def test_it_computes_what_was_trained(base: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    expected = trained(base, tmp_path / "adapter", **settings)
    model, _ = hf._load(ModelFiles(tmp_path / "adapter", base), "cpu")
    torch.testing.assert_close(logits(model), expected)
    assert not torch.allclose(expected, logits(load(base)), atol=1e-2)


def test_an_embedding_of_more_tokens_than_the_base_has(base: Path, tmp_path: Path) -> None:
    tokens = load(base).config.vocab_size + 3
    settings = {
        "target_modules": ["v_proj"],
        "modules_to_save": ["embed_tokens"],
        "ensure_weight_tying": True,
    }
    expected = trained(base, tmp_path / "adapter", tokens, **settings)
    model, _ = hf._load(ModelFiles(tmp_path / "adapter", base), "cpu")
    found = logits(model)
    assert found.shape[-1] == tokens
    torch.testing.assert_close(found[..., : tokens - 3], expected)


def test_its_own_tokenizer_comes_before_that_of_the_base(base: Path, tmp_path: Path) -> None:
    trained(base, tmp_path / "adapter", target_modules=["v_proj"])
    files = ModelFiles(tmp_path / "adapter", base)
    assert hf._load(files, "cpu")[1].chat_template is None
    for path in base.glob("tokenizer*"):
        (files.directory / path.name).write_bytes(path.read_bytes())
    config = files.directory / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": "{{ messages }}"}))
    assert hf._load(files, "cpu")[1].chat_template == "{{ messages }}"


def test_an_adapter_of_another_model_is_refused(base: Path, tmp_path: Path) -> None:
    trained(base, tmp_path / "adapter", target_modules=["v_proj"])
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name: torch.ones(3, 7) for name in load_file(weights)}, weights)
    with pytest.raises(
        BadInput, match="adapter: does not fit its base .*; name the model that it was trained"
    ):
        hf._load(ModelFiles(tmp_path / "adapter", base), "cpu")


def test_a_pickled_adapter_is_not_opened(base: Path, tmp_path: Path) -> None:
    trained(base, tmp_path / "adapter", target_modules=["v_proj"])
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(BadInput, match="has no adapter_model.safetensors"):
        hf._load(ModelFiles(tmp_path / "adapter", base), "cpu")
