"""Llama-like checkpoints to merge: a base, and checkpoints as if trained from it; bf16, random, always the same."""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

DEVIATION = 0.02
"""Of the base's matrices; the noise and the low-rank part of a task vector have 0.2 % of it each."""
CHANGE = 0.002 * DEVIATION
RANK = 16
CHECKPOINTS = ("checkpoint-1", "checkpoint-2", "checkpoint-3")


@dataclass(frozen=True)
class Llama:
    """A shape; as it stands, 220 million parameters."""

    layers: int = 12
    hidden: int = 1024
    intermediate: int = 2816
    vocabulary: int = 32_000
    strength: float = 1.0
    """Of the low-rank part, in units of the noise."""

    def __str__(self) -> str:
        shape = f"llama-{self.layers}x{self.hidden}-{self.intermediate}-{self.vocabulary}"
        return shape if self.strength == 1 else f"{shape}-strong-{self.strength:g}"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensor name → shape; embeddings and head are untied."""
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, self.hidden)}
        for i in range(self.layers):
            layer = f"model.layers.{i}"
            shapes |= {f"{layer}.self_attn.{x}_proj.weight": (self.hidden, self.hidden) for x in "qkvo"}
            shapes |= {
                f"{layer}.mlp.{x}_proj.weight": (self.intermediate, self.hidden) for x in ("gate", "up")
            }
            shapes[f"{layer}.mlp.down_proj.weight"] = (self.hidden, self.intermediate)
            shapes |= {f"{layer}.{x}_layernorm.weight": (self.hidden,) for x in ("input", "post_attention")}
        return shapes | {
            "model.norm.weight": (self.hidden,),
            "lm_head.weight": (self.vocabulary, self.hidden),
        }

    @property
    def parameters(self) -> int:
        """How many."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def config(self) -> dict[str, object]:
        """config.json."""
        heads = max(1, self.hidden // 64)
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 2048,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
        }


SCALES = {1: Llama(layers=6, vocabulary=16_000), 2: Llama(), 4: Llama(layers=24, vocabulary=64_000)}
"""Layers and vocabulary grow together, so that parameters do: 110, 220 and 439 million."""
LARGE = Llama(layers=24, hidden=2048, intermediate=5632)
"""1.36 billion parameters, where starting is not what takes the time."""


def models(root: Path, llama: Llama) -> Path:
    """Return the directory that holds `base` and CHECKPOINTS; write what is not there yet."""
    directory = root / str(llama)
    for k, name in enumerate(("base", *CHECKPOINTS)):
        if not (directory / name).is_dir():
            unfinished = directory / f"{name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            tensors = {
                tensor: _tensor(shape, i, k, llama.strength)
                for i, (tensor, shape) in enumerate(llama.shapes.items())
            }
            save_file(tensors, unfinished / "model.safetensors", metadata={"format": "pt"})
            (unfinished / "config.json").write_text(json.dumps(llama.config, indent=2))
            unfinished.rename(directory / name)
    return directory


def as_models(root: Path, run: Path) -> Path:
    """Return a directory like that of `models` with the last checkpoints of a run and the base beside it."""
    directory = root / f"trained-{run.name}"
    directory.mkdir(parents=True, exist_ok=True)
    last = sorted(run.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))[
        -len(CHECKPOINTS) :
    ]
    for name, target in zip(("base", *CHECKPOINTS), (run.parent / "base", *last), strict=True):
        if not (directory / name).exists():
            (directory / name).symlink_to(target.absolute())
    return directory


def _tensor(shape: tuple[int, ...], i: int, k: int, strength: float) -> torch.Tensor:
    """Return the i-th tensor of the base (k = 0) or of the k-th checkpoint."""
    random = torch.Generator().manual_seed(i)
    theta = DEVIATION * torch.randn(shape, generator=random) if len(shape) == 2 else torch.ones(shape)
    if k:
        random.manual_seed(10_000 * k + i)
        theta += CHANGE * torch.randn(shape, generator=random)
        if len(shape) == 2:
            left, right = (
                torch.randn(size, generator=random) for size in ((shape[0], RANK), (RANK, shape[1]))
            )
            theta += (strength * CHANGE / RANK**0.5) * (left @ right)
    return theta.bfloat16()
