"""Checkpoints for a Hub of the tests' own, and what its users set."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from tasks.parameters.fetch import FetchParams
from tasks.parameters.registration import RegisterParams
from tasks.sources.kinds.hub import HubSource
from tasks.sources.source import FetchedCheckpoint
from tests.support.hub_server import Files

REPO = "hf://lab/model"


def environment(tmp_path: Path) -> dict[str, str]:
    return {
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_CACHE": str(tmp_path / "hf" / "hub"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }


def checkpoint(value: float, size: int = 4, under: str = "") -> Files:
    """Make what a Trainer saves, as small as it gets, with the kinds of file that must stay away."""
    weights = save({"w": torch.full((size,), value)})
    files = {
        "model.safetensors": weights,
        "config.json": b'{"model_type": "llama"}',
        "trainer_state.json": json.dumps({"global_step": value}).encode(),
        "merges.txt": b"a b",
        "optimizer.pt": b"a pickle",
        "pytorch_model.bin": b"a pickle",
        "modeling.py": b"raise SystemExit",
        "README.md": b"# a model",
    }
    return {f"{under}{name}": data for name, data in files.items()}


def value_of(directory: Path) -> float:
    return float(load_file(directory / "model.safetensors")["w"][0])


def names(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def download(address: str) -> list[FetchedCheckpoint]:
    unchecked = FetchParams.model_construct(
        source=address
    )  # what the parameters would refuse is refused here, too
    return HubSource().fetch(unchecked, RegisterParams()).checkpoints


def restore(address: str) -> Path:
    return HubSource().restore(address)
