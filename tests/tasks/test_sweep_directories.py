"""The merges of a sweep are those of as many commands, from one read, and as safe."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.checkpoints.weights import SafetensorsModel
from tasks.engine import cut
from tasks.engine.progress import Headway
from tasks.merge_checkpoints import merge_directories
from tasks.merging.methods import METHODS
from tasks.recipes.recipe import read_merge_params
from tests.support.engine_runs import ON_WEIGHTS_ALONE, count_for, write_models
from tests.support.sweeping import contents, one_by_one, sweep
from tests.support.tiny_adapters import write_adapter, write_llama

SWEEPS = {
    "lore": {"lam": "0.3,0.8", "lore.rank_ratio": "0.5,1.0", "lore.combine": "sum,ties"},
    "average": {"weights": "uniform,nan", "nan.per": "tensor,model"},
    "ema": {"ema.decay": "0.2,0.6"},
    "power_ema": {"power_ema.width": "0.05,0.1"},
    "wsm": {"wsm.profile": "linear,cosine"},
    "trend": {"trend.kappa": "0,0.5"},
    "trimmed_mean": {"trimmed_mean.share": "0,0.4"},
    "lawa": {"lawa.k": "1,2,3"},
    "task_arithmetic": {"lam": "0.5,1", "weights": "uniform,metagpt"},
    "ties": {"ties.density": "0.3,1.0", "ties.scope": "tensor,model", "lam": "0.5,1"},
    "dare": {"dare.p": "0,0.5", "dare.seed": "0,1"},
    "dare_ties": {"dare.p": "0,0.5", "ties.density": "0.5,1.0"},
    "breadcrumbs": {"breadcrumbs.density": "0.5,0.9", "breadcrumbs.gamma": "0.01,0.1"},
    "metagpt": {"metagpt.per": "tensor,model"},
    "slerp": {"slerp.t": "0.25,0.5"},
    "widen": {"widen.t": "-1,1", "widen.s": "0.5,1"},
    "tsv_m": {"lam": "0.5,1"},
    "iso_c": {"lam": "0.5,1"},
}
"""Of every method that reads a section: with them, programs that take different numbers of rounds."""

LAM = {"lam": "0.5,1,1.5"}
EMA, DECAY = ["merge.method=ema"], {"ema.decay": "0.2,0.5,0.8"}


def with_method(method: str, models: Sequence[Path]) -> tuple[list[str], list[Path]]:
    """Return settings and inputs for a method, the first model being the base."""
    base = [f"merge.base={models[0]}"] if METHODS[method].base == "required" else []
    return [f"merge.method={method}", *base], list(models[1 : 1 + count_for(method)])


def test_every_method_that_reads_a_section_is_swept() -> None:
    assert set(SWEEPS) == {name for name in ON_WEIGHTS_ALONE if METHODS[name].sections}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize("method", SWEEPS)
def test_a_sweep_gives_the_bytes_of_its_merges_one_by_one(
    method: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, merge.json, model card and manifest."""
    monkeypatch.setattr(cut, "BLOCK", 20)
    settings, inputs = with_method(method, write_models(tmp_path / "training", dtype))
    names = sweep(settings, SWEEPS[method], inputs, tmp_path / "swept")
    one_by_one(settings, SWEEPS[method], inputs, tmp_path / "single")
    assert len(names) == math.prod(len(own.split(",")) for own in SWEEPS[method].values())
    assert contents(tmp_path / "swept") == contents(tmp_path / "single")
    assert sorted(names) == sorted(path.name for path in (tmp_path / "swept").iterdir())


@pytest.mark.parametrize(("method", "axes"), [("ema", DECAY), ("ties", LAM), ("lore", LAM)])
def test_a_sweep_reads_no_more_than_one_merge(
    method: str, axes: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, inputs = with_method(method, write_models(tmp_path / "training"))
    blocks: list[tuple[Path, str, int]] = []
    read = SafetensorsModel.read

    def note(source: SafetensorsModel, name: str, first: int, *rest: Any) -> Any:
        blocks.append((source.directory, name, first))
        return read(source, name, first, *rest)

    monkeypatch.setattr(SafetensorsModel, "read", note)
    merge_directories(read_merge_params(settings), inputs, tmp_path / "single")
    single = sorted(blocks)
    blocks.clear()
    sweep(settings, axes, inputs, tmp_path / "swept")
    assert sorted(blocks) == single
    assert len(set(single)) == len(single)


def test_adapters_are_swept_too(tmp_path: Path) -> None:
    base = write_llama(tmp_path / "base")
    inputs = [
        write_adapter(tmp_path / f"checkpoint-{i}", base, i, target_modules=["q_proj"]) for i in (1, 2, 3)
    ]
    heard: list[Headway] = []
    sweep(EMA, DECAY, inputs, tmp_path / "swept", on_progress=heard.append)
    one_by_one(EMA, DECAY, inputs, tmp_path / "single")
    assert contents(tmp_path / "swept") == contents(tmp_path / "single")
    assert [headway.done for headway in heard] == sorted(headway.done for headway in heard)
    assert heard[-1].done == heard[-1].total
    assert heard[-1].tensors == heard[-1].of


def damage(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    tensors["tall"][1, 1] = math.nan
    save_file(tensors, directory / "model.safetensors")


def test_checkpoints_with_nan_and_twins_are_left_out_of_every_variant(tmp_path: Path) -> None:
    _, *inputs = write_models(tmp_path / "training", count=5)
    damage(inputs[1])
    shutil.copytree(inputs[4], tmp_path / "training" / "checkpoint-9")
    inputs.append(tmp_path / "training" / "checkpoint-9")
    settings = [*EMA, "merge.on_nan=drop"]
    sweep(settings, DECAY, inputs, tmp_path / "swept")
    one_by_one(settings, DECAY, inputs, tmp_path / "single")
    assert contents(tmp_path / "swept") == contents(tmp_path / "single")
    card = (tmp_path / "swept" / "ema.decay=0.5" / "merge.json").read_text()
    assert "checkpoint-2 is left out: tensor tall holds NaN" in card
    assert "left out: it is the same as" in card
