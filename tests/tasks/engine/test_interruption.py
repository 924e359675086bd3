"""An execution that stops says where, leaves no thread behind, and goes on where it stopped."""

import gc
import math
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from blake3 import blake3
from safetensors.torch import load_file, save_file

from tasks.base.errors import BadInput
from tasks.checkpoints.weights import NotFinite
from tasks.engine import blocks, cut, devices, output
from tasks.engine.execute import execute
from tasks.engine.progress import Headway, OnProgress
from tasks.merging.block import Block
from tasks.merging.lore import beginning, dense
from tasks.merging.lore.problem import NotConverged
from tasks.merging.methods import METHODS
from tasks.parameters.merge import LoreParams, MergeParams
from tests.support.engine_runs import (
    equal,
    last_places,
    open_files,
    params_for,
    plan_for,
    run,
    write_all,
    write_models,
)

SMALL_BLOCK = 20
"""Several blocks to each tensor of the tiny checkpoints."""

on_all_methods = pytest.mark.parametrize("method", METHODS)


class Stopped(Exception):
    pass


def stop_after(count: int) -> OnProgress:
    seen = set[str]()

    def stop(headway: Headway) -> None:
        seen.add(headway.last)
        seen.discard("")
        if len(seen) == count:
            raise Stopped

    return stop


@on_all_methods
@pytest.mark.parametrize("finished", [1, 3, 5])
def test_an_execution_goes_on_where_it_stopped(
    method: str, finished: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors that are written are believed, not written again; tensors and measures are the same."""
    plan = plan_for(params_for(method), write_models(tmp_path / "training"))
    undisturbed, measures = run(plan, tmp_path / "undisturbed", shard_bytes=300)
    with pytest.raises(Stopped):
        run(plan, tmp_path / "stopped", shard_bytes=300, on_progress=stop_after(finished))
    written, write = set[str](), output.write_numbers

    def note(shard: Any, tensor: str, first_byte: int, numbers: Any) -> None:
        written.add(tensor)
        write(shard, tensor, first_byte, numbers)

    monkeypatch.setattr(output, "write_numbers", note)
    tensors, resumed_measures = run(plan, tmp_path / "stopped", shard_bytes=300)
    assert written == set(sorted(plan.spec)[finished:])
    assert equal(tensors, undisturbed)
    assert resumed_measures == measures


@pytest.mark.parametrize("method", ["average", "task_arithmetic", "ties", "lore"])
def test_a_full_gpu_falls_back_to_the_cpu(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_for(params_for(method), write_models(tmp_path / "training"))
    moved = blocks.to_device

    def full(block: Block, device: str, whole: bool) -> Block:
        if block.tensor == "tall":
            raise torch.OutOfMemoryError
        return moved(block, device, whole)

    expected, _ = run(plan, tmp_path / "cpu")
    monkeypatch.setattr(blocks, "to_device", full)
    with pytest.warns(UserWarning, match="cpu:0: out of memory at tensor tall; computed on the CPU"):
        found, _ = run(plan, tmp_path / "gpu", ["cpu:0"])
    assert last_places(found, expected) <= 1


def test_a_block_that_is_written_twice_has_the_digest_of_the_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU may run out of memory when it has written a block; what the CPU writes then may differ in bits."""
    plan = plan_for(params_for("average"), write_models(tmp_path / "training"))
    write, out = output.Output.write, tmp_path / "out"

    def full(own: output.Output, name: str, first: int, values: Any) -> None:
        if isinstance(values, torch.Tensor):
            write(own, name, first, values + 1)
            raise torch.OutOfMemoryError
        write(own, name, first, values)

    monkeypatch.setattr(output.Output, "write", full)
    out.mkdir()
    with pytest.warns(UserWarning, match="out of memory"):
        [written] = execute(plan, [out], 2**40, ["cpu:0"])
    assert {path: blake3(path.read_bytes()).hexdigest() for path in out.iterdir()} == written.digests
    expected, _ = run(plan, tmp_path / "cpu")
    assert equal(load_file(out / "model.safetensors"), expected)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_of_several_faults_the_first_in_order_is_named(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cut, "BLOCK", SMALL_BLOCK)
    monkeypatch.setattr(devices, "cores", lambda: workers)
    models = write_models(tmp_path / "training")
    for directory, name in ((models[3], "experts"), (models[2], "tall"), (models[1], "wide")):
        tensors = load_file(directory / "model.safetensors")
        tensors[name].view(-1)[-1] = math.nan
        save_file(tensors, directory / "model.safetensors")
    with pytest.raises(NotFinite, match="checkpoint-3: tensor experts holds NaN or Inf"):
        run(plan_for(params_for("average"), models), tmp_path / "out")


def test_nan_in_the_base_is_named(tmp_path: Path) -> None:
    models = write_models(tmp_path / "training")
    tensors = load_file(models[0] / "model.safetensors")
    tensors["norm"][0] = math.inf
    save_file(tensors, models[0] / "model.safetensors")
    with pytest.raises(NotFinite, match="base: tensor norm holds NaN or Inf"):
        run(plan_for(params_for("task_arithmetic"), models), tmp_path / "out")


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_overflow_of_the_output_dtype_stops_the_merge(device: str, tmp_path: Path) -> None:
    values = (0.0, 60000.0, 60000.0, 60000.0)
    models = write_all(tmp_path, [{"w": torch.full((2, 2), value).half()} for value in values])
    with pytest.raises(BadInput, match="tensor w: the merge overflows F16; choose a smaller merge.lam"):
        run(plan_for(params_for("task_arithmetic"), models), tmp_path / "out", [device])
    wide = params_for("task_arithmetic", dtype="float32")
    assert run(plan_for(wide, models), tmp_path / "wide", [device])[0]["w"].tolist() == [[180000.0] * 2] * 2


def test_a_solver_that_fails_names_the_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginning, "GRAM_ROUNDING", 0.0)  # Newton's method gives up
    monkeypatch.setattr(dense, "DENSE_PASSES", 1)
    plan = plan_for(
        MergeParams(method="lore", lore=LoreParams(mu=0.2, mu_scale="sigma1")),
        write_models(tmp_path / "training"),
    )
    with pytest.raises(NotConverged, match=r"tensor conv: LoRE: relative duality gap"):
        run(plan, tmp_path / "out")


def test_no_thread_and_no_file_outlives_a_failure(tmp_path: Path) -> None:
    models = write_models(tmp_path / "training")
    tensors = load_file(models[3] / "model.safetensors")
    tensors["wide"][0, 0] = math.nan
    save_file(tensors, models[3] / "model.safetensors")
    gc.collect()  # what earlier tests left to it
    threads = threading.active_count()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NotFinite):
            run(plan_for(params_for("average"), models), tmp_path / "out")
        gc.collect()
    assert threading.active_count() == threads
    assert not open_files(tmp_path)
