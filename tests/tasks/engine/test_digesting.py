"""Checkpoints are digested from what the merge reads of them, and what merge.json says is what the files are."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from blake3 import blake3
from safetensors.torch import save_file

from tasks.base.digests import CLOCK_TICK_NS
from tasks.base.records.merge import MergeReport
from tasks.base.records.model import model_digest
from tasks.base.records.record import FileDigest
from tasks.engine.digesting import digesting, is_digested_on_the_way
from tasks.merge_checkpoints import merge_directories, plan_directories
from tasks.parameters.merge import MergeParams
from tests.support.tiny import write_checkpoint
from tests.support.tiny_adapters import write_adapter, write_llama


def write_sorted(root: Path, step: int) -> Path:
    """As save_pretrained writes it: by name."""
    return write_checkpoint(root, step, tensors(step))


def write_by_dtype(root: Path, step: int) -> Path:
    """Safetensors puts wider dtypes first, whatever their names."""
    return write_checkpoint(root, step, tensors(step) | {"layer.1": tensors(step)["layer.1"].float()})


def write_shards(root: Path, step: int) -> Path:
    directory = write_checkpoint(root, step, tensors(step))
    (directory / "model.safetensors").unlink()
    shards = {
        "model-00001-of-00002.safetensors": ("layer.0", "layer.2"),
        "model-00002-of-00002.safetensors": ("layer.1",),
    }
    for file, names in shards.items():
        save_file({name: tensors(step)[name] for name in names}, directory / file)
    weight_map = {name: file for file, names in shards.items() for name in names}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return directory


def write_with_more(root: Path, step: int) -> Path:
    """With integers, and a buffer that is left out."""
    more = {
        "a.inv_freq": torch.ones(3),
        "layer.10": torch.arange(5),
        "layer.11.rotary_emb.inv_freq": torch.ones(9),
    }
    return write_checkpoint(root, step, tensors(step) | more)


def tensors(step: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(step)
    return {f"layer.{i}": torch.randn(600, 900, generator=random).bfloat16() for i in range(3)}


def settled(write: Callable[[Path, int], Path], root: Path) -> list[Path]:
    models = [write(root, step) for step in range(1, 4)]
    time.sleep(1.5 * CLOCK_TICK_NS / 1e9)
    return models


KINDS = pytest.mark.parametrize("write", [write_sorted, write_by_dtype, write_shards, write_with_more])


@KINDS
@pytest.mark.parametrize("method", ["average", "model_stock", "ties"])
def test_merge_json_has_the_digests_of_the_files(
    write: Callable[[Path, int], Path], method: str, tmp_path: Path
) -> None:
    models = settled(write, tmp_path / "run")
    base = None if method == "average" else str(write(tmp_path / "base", 9))
    params = MergeParams.model_validate({"method": method, "base": base})
    report = merge_directories(params, models, tmp_path / "out")
    assert [source.digest for source in report.inputs] == [digest(model) for model in models]
    assert {file.name: file.blake3 for file in MergeReport.read(tmp_path / "out" / "merge.json").outputs} == {
        path.name: of_file(path)
        for path in (tmp_path / "out").iterdir()
        if path.name not in ("merge.json", "README.md", "manifest.json")
    }
    assert merge_directories(params, models, tmp_path / "out") == report  # found again by the same digests


@pytest.mark.parametrize("write", [write_sorted, write_shards])
def test_each_file_is_read_once(write: Callable[[Path, int], Path], tmp_path: Path) -> None:
    models = settled(write, tmp_path / "run")
    size = sum(path.stat().st_size for model in models for path in model.glob("*.safetensors"))
    before = bytes_read()
    merge_directories(MergeParams(method="average"), models, tmp_path / "out")
    assert bytes_read() - before < size + 4e6  # code and configurations: 1.4e6 here


def test_the_base_of_adapters_is_read_once(tmp_path: Path) -> None:
    """And is part of the adapters' digests, too."""
    base = write_llama(tmp_path / "base", hidden=512)
    adapters = [
        write_adapter(tmp_path / f"checkpoint-{i}", base, i, target_modules=["q_proj", "v_proj"])
        for i in (1, 2, 3)
    ]
    time.sleep(1.5 * CLOCK_TICK_NS / 1e9)
    of_base = [base / "config.json", base / "model.safetensors"]
    own = [[path / "adapter_config.json", path / "adapter_model.safetensors"] for path in adapters]
    size = sum(path.stat().st_size for files in (of_base, *own) for path in files)
    before = bytes_read()
    report = merge_directories(MergeParams(method="lore", base=str(base)), adapters, tmp_path / "out")
    assert bytes_read() - before < size + 4e6
    assert [source.digest for source in report.inputs] == [digest_of([*files, *of_base]) for files in own]


def test_who_cannot_be_digested_on_the_way_is_not(tmp_path: Path) -> None:
    """Files that lie in another order, that were just written, and whose digest is known."""

    def on_the_way(models: list[Path]) -> list[bool]:
        plan = plan_directories({tmp_path / "none": MergeParams(method="average")}, models)
        return [is_digested_on_the_way(source) for source in digesting(plan).sources]

    models = settled(write_sorted, tmp_path / "sorted")
    assert on_the_way(models) == [True] * 3
    assert on_the_way(settled(write_by_dtype, tmp_path / "by dtype")) == [False] * 3
    just_now = time.time() + 3600  # on a slow machine later than now
    os.utime(models[0] / "model.safetensors", (just_now, just_now))
    assert on_the_way(models) == [False, True, True]
    merge_directories(MergeParams(method="average"), models, tmp_path / "out")
    assert on_the_way(models) == [False] * 3


def digest(model: Path) -> str:
    return digest_of([*sorted(model.glob("*.safetensors")), model / "config.json"])


def digest_of(files: list[Path]) -> str:
    return model_digest(
        tuple(FileDigest(name=path.name, size=path.stat().st_size, blake3=of_file(path)) for path in files)
    )


def of_file(path: Path) -> str:
    return blake3(path.read_bytes()).hexdigest()


def bytes_read() -> int:
    """Return what this process has read of files, of those in memory too."""
    return int(Path("/proc/self/io").read_text().split()[1])
