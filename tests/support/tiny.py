"""Tiny real checkpoints, written as a Trainer writes them."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

CONFIG = {"architectures": ["LlamaForCausalLM"], "hidden_size": 8, "model_type": "llama", "vocab_size": 16}


def write_checkpoint(
    root: Path,
    step: int,
    tensors: Mapping[str, torch.Tensor] | None = None,
    *,
    metrics: Mapping[str, float] | None = None,
    config: Mapping[str, object] = CONFIG,
) -> Path:
    """Write root/checkpoint-N with the tensors given, or random ones of seed `step`."""
    directory = root / f"checkpoint-{step}"
    directory.mkdir(parents=True)
    tensors = dict(tensors or random_tensors(step))
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer.json").write_text("{}")
    history = [
        {"step": step, "loss": 1.0},
        {"step": step, **({"eval_loss": 1 / step} if metrics is None else metrics)},
    ]
    state = {"global_step": step, "log_history": history}
    (directory / "trainer_state.json").write_text(json.dumps(state))
    return directory


def random_tensors(seed: int) -> dict[str, torch.Tensor]:
    """Matrices both ways round, a vector, a stack and a convolution around a common base."""
    base, noise = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    shapes = {"tall": (12, 5), "wide": (4, 9), "norm": (7,), "experts": (3, 6, 4), "conv": (4, 2, 3, 3)}
    return {
        name: torch.randn(shape, generator=base) + 0.1 * torch.randn(shape, generator=noise)
        for name, shape in shapes.items()
    }
