"""Tiny real models and adapters, written by transformers and PEFT."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel


def write_llama(
    directory: Path, *, tied: bool = False, hidden: int = 16, dtype: torch.dtype = torch.float32
) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=hidden, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, attention_bias=True, tie_word_embeddings=tied,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).to(dtype).save_pretrained(directory)
    return directory


def write_gpt2(directory: Path) -> Path:
    """Its attention and feed-forward weights lie as in × out (Conv1D)."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=64, n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=2
    )
    GPT2LMHeadModel(config).save_pretrained(directory)
    return directory


def load(directory: Path) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(directory, dtype="auto")
    return model


def write_adapter(
    directory: Path, base: Path, seed: int, *, dtype: torch.dtype = torch.float32, **settings: Any
) -> Path:
    """Write a LoRA adapter whose trainable tensors all moved, by PEFT itself."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT talks of Conv1D and of embeddings
        model = get_peft_model(load(base), LoraConfig(**{"r": 3, "lora_alpha": 5, **settings}))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = (parameter + 0.1 * torch.randn_like(parameter)).to(dtype)
        model.save_pretrained(directory)
    return directory


def unloaded(base: Path, adapter: Path, directory: Path, dtype: torch.dtype | None = None) -> Path:
    """Write what PEFT's merge_and_unload makes of an adapter."""
    from peft import PeftModel

    model = load(base)
    if dtype is not None:
        model = model.to(dtype)
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(directory)
    return directory


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([[1, 5, 9, 33, 60, 7]])).logits
    return found


def changes(adapter: Path) -> dict[str, np.ndarray]:
    """Return every scaling · B·A of an adapter in float64, by the module's name in PEFT's keys."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    tensors = {
        name: t.double().numpy() for name, t in load_file(adapter / "adapter_model.safetensors").items()
    }
    found = {}
    for name, A in tensors.items():
        module, _, half = name.partition(".lora_")
        if half.removeprefix("embedding_").removesuffix(".weight") == "A":
            B = tensors[f"{module}.lora_{half.replace('A', 'B')}"]
            alpha = config["alpha_pattern"].get(
                module.removeprefix("base_model.model."), config["lora_alpha"]
            )
            found[module] = alpha / (len(A) ** 0.5 if config["use_rslora"] else len(A)) * B @ A
    return found


def double(adapters: list[Path], directory: Path) -> list[Path]:
    """Copy adapters, their factors widened to float64."""
    for adapter in adapters:
        (directory / adapter.name).mkdir(parents=True)
        config = (adapter / "adapter_config.json").read_text()
        (directory / adapter.name / "adapter_config.json").write_text(config)
        tensors = load_file(adapter / "adapter_model.safetensors")
        wide = {name: tensor.double() for name, tensor in tensors.items()}
        for name, tensor in wide.items():
            if "A" in name.partition(".lora_")[2]:
                tensor[0] *= 1e-8  # what float32 would not have kept must not get lost
        save_file(wide, directory / adapter.name / "adapter_model.safetensors")
    return [directory / adapter.name for adapter in adapters]


def write_tensors(directory: Path, tensors: dict[str, torch.Tensor]) -> Path:
    directory.mkdir(parents=True)
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text('{"model_type": "llama"}')
    return directory
