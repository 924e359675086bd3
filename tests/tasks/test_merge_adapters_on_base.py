"""The way through the factors of adapters and the way through whole matrices read the same parameters."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tasks.base.errors import BadInput
from tasks.merge_checkpoints import merge_directories
from tasks.parameters.merge import MergeParams
from tests.support.tiny_adapters import double, unloaded, write_adapter, write_llama

SETTINGS = [
    {"method": "average", "weights": "nan", "nan": {"of": "task_vectors"}},
    {"method": "task_arithmetic", "weights": "nan", "nan": {"of": "task_vectors", "scale": 1.7}},
    {"method": "average", "weights": "nan", "nan": {"of": "task_vectors", "per": "model"}},
    {"method": "average", "weights": "metagpt", "metagpt": {"per": "tensor"}},
    {"method": "ema", "ema": {"decay": 0.3}},
    {"method": "lawa", "lawa": {"k": 1, "spacing": 2}},
    {"method": "task_arithmetic", "lam": 0.0},
    {"method": "task_arithmetic", "lam": 1.7, "weights": "metagpt"},
    {"method": "metagpt", "lam": 1.7, "metagpt": {"per": "tensor"}},
    {"method": "model_stock"},
    {"method": "lore", "lam": 1.7, "lore": {"mu": 0.3, "mu_scale": "sigma1", "tolerance": 1e-9}},
    {"method": "lore", "lore": {"mu": 0.3, "mu_scale": "sigma1", "rank_ratio": 0.1, "combine": "mean"}},
    {"method": "lore", "lam": 1.7, "lore": {"mu": 0.02, "mu_scale": "absolute", "passes": 4}},
    {"method": "lore", "lam": 0.0, "lore": {"embeddings": "average", "mu": 0.3, "mu_scale": "sigma1"}},
]


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_adapters_alone_merge_as_they_do_on_their_base(
    adapter_family: tuple[Path, list[Path]], tmp_path: Path, settings: dict[str, Any], count: int
) -> None:
    base, adapters = adapter_family[0], double(adapter_family[1][:count], tmp_path / "double")
    merge_directories(MergeParams.model_validate(settings), adapters, tmp_path / "alone")
    on_base = {**settings, "base": str(base), "dtype": "float32"}
    merge_directories(MergeParams.model_validate(on_base), adapters, tmp_path / "whole")
    alone = load_file(unloaded(base, tmp_path / "alone", tmp_path / "applied") / "model.safetensors")
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    for name, tensor in whole.items():
        if name in alone:
            torch.testing.assert_close(
                alone[name], tensor, rtol=0, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.mark.parametrize("method", ["average", "lore", "ema"])
def test_dora_merges_on_its_base_and_not_by_itself(tmp_path: Path, method: str) -> None:
    base = write_llama(tmp_path / "base")
    dora = {"target_modules": ["q_proj", "up_proj"], "use_dora": True}
    adapters = [write_adapter(tmp_path / f"checkpoint-{step}", base, step, **dora) for step in (1, 2, 3)]
    with pytest.raises(
        BadInput, match="checkpoint-1: is DoRA, .*; set merge.full to true, to merge on the base"
    ):
        merge_directories(MergeParams(method=method), adapters, tmp_path / "alone")
    merge_directories(MergeParams(method=method, full=True), adapters, tmp_path / "full")
    whole = [unloaded(base, adapter, tmp_path / f"{adapter.name}-whole") for adapter in adapters]
    merge_directories(MergeParams(method=method), whole, tmp_path / "expected")
    found, expected = (load_file(tmp_path / out / "model.safetensors") for out in ("full", "expected"))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=2e-6)
