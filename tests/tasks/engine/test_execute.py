"""The same inputs give the same bytes, however the work is divided, and a killed execution goes on."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blake3 import blake3
from safetensors.torch import load_file, save_file

from tasks.base.errors import BadInput
from tasks.base.measures import TensorMeasures
from tasks.checkpoints.layout import INDEX
from tasks.engine import blocks, cut, devices, execute
from tasks.engine.execute import survey
from tasks.engine.progress import Headway
from tasks.merging.deviation import deviation
from tasks.merging.deviation_sums import join
from tasks.merging.methods import METHODS
from tests.support.engine_runs import (
    count_for,
    equal,
    last_places,
    params_for,
    plan_for,
    run,
    write_all,
    write_models,
)
from tests.support.tiny import random_tensors

SMALL_BLOCK = 20
"""Several blocks to each tensor of the tiny checkpoints."""

DTYPES = [torch.bfloat16, torch.float32]
on_all_methods = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(params=DTYPES, ids=["bf16", "fp32"])
def models(request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
    return write_models(tmp_path / "training", request.param)


def with_workers(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(devices, "cores", lambda: count)


@on_all_methods
def test_shard_size_workers_and_compiled_loops_change_no_bit(
    method: str, models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cut, "BLOCK", SMALL_BLOCK)
    plan, results = plan_for(params_for(method), models), []
    for workers, shard_bytes, compiled_from in ((1, 2**40, 2**40), (2, 300, 0), (5, 0, 2**40)):
        with_workers(monkeypatch, workers)
        monkeypatch.setattr(blocks, "COMPILED_FROM", compiled_from)
        results.append(run(plan, tmp_path / f"{workers}", shard_bytes=shard_bytes))
    assert len(list((tmp_path / "5").glob("*.safetensors"))) == len(plan.spec)
    for tensors, measures in results[1:]:
        assert equal(tensors, results[0][0])
        assert measures == results[0][1]


@on_all_methods
def test_torch_agrees_with_numpy_within_the_last_place(
    method: str, models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Take the path of a GPU without one: "cpu:0" is a device to torch, and not our "cpu"."""
    monkeypatch.setattr(cut, "BLOCK", SMALL_BLOCK)
    plan = plan_for(params_for(method), models)
    with_torch, _ = run(plan, tmp_path / "torch", ["cpu:0"])
    with_numpy, _ = run(plan, tmp_path / "numpy")
    assert last_places(with_torch, with_numpy) <= 1


on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.gpu
@on_a_gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_cuda_agrees_with_the_cpu_within_the_last_place(dtype: torch.dtype, tmp_path: Path) -> None:
    models = write_models(tmp_path / "training", dtype)
    for method in METHODS:
        plan = plan_for(params_for(method), models)
        on_gpu, _ = run(plan, tmp_path / method / "gpu", ["cuda:0"])
        on_cpu, _ = run(plan, tmp_path / method / "cpu")
        assert last_places(on_gpu, on_cpu) <= 1, method


@pytest.mark.gpu
@on_a_gpu
def test_how_many_devices_share_the_work_changes_no_bit(tmp_path: Path) -> None:
    models = write_models(tmp_path / "training", torch.bfloat16)
    for method in METHODS:
        plan = plan_for(params_for(method), models)
        one, _ = run(plan, tmp_path / method / "one", ["cuda:0"])
        two, _ = run(plan, tmp_path / method / "two", ["cuda:0", "cuda:0"])
        assert equal(one, two), method


@on_all_methods
def test_the_size_of_a_block_changes_no_more_than_rounding(
    method: str, models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_for(params_for(method), models)
    whole, _ = run(plan, tmp_path / "whole")
    for block in (1, SMALL_BLOCK):
        monkeypatch.setattr(cut, "BLOCK", block)
        in_blocks, _ = run(plan, tmp_path / f"{block}")
        assert last_places(whole, in_blocks) <= 1


def rewritten(source: Path, target: Path, files: Sequence[Sequence[str]]) -> None:
    """Write a checkpoint again, its tensors in the order and the files given."""
    target.mkdir(parents=True)
    (target / "config.json").write_bytes((source / "config.json").read_bytes())
    tensors = load_file(source / "model.safetensors")
    names = {f"part-{i}.safetensors": names for i, names in enumerate(files)}
    for file_name, members in names.items():
        data, header = b"", dict[str, Any]()
        for name in members:
            raw = tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes()
            dtype = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}[str(tensors[name].dtype)[6:]]
            header[name] = {
                "dtype": dtype,
                "shape": list(tensors[name].shape),
                "data_offsets": [len(data), len(data) + len(raw)],
            }
            data += raw
        text = json.dumps(header).encode()
        (target / file_name).write_bytes(len(text).to_bytes(8, "little") + text + data)
    index = {name: file_name for file_name, members in names.items() for name in members}
    (target / INDEX).write_text(json.dumps({"weight_map": index}))


@on_all_methods
def test_order_and_sharding_of_the_inputs_change_no_bit(method: str, tmp_path: Path) -> None:
    models = write_models(tmp_path / "training", torch.bfloat16)
    names = sorted(random_tensors(0))
    orders = [[names[::-1]], [names[2:], names[:2]], [[name] for name in names], [names[::2], names[1::2]]]
    for source, order in zip(models, orders, strict=True):
        rewritten(source, tmp_path / "again" / source.name, order)
    again = [tmp_path / "again" / source.name for source in models]
    params = params_for(method)
    one, measures = run(plan_for(params, models), tmp_path / "one")
    other, other_measures = run(plan_for(params, again), tmp_path / "other")
    assert equal(one, other)
    assert measures == other_measures


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if row.whole])
def test_a_stack_is_merged_as_its_matrices_one_by_one(method: str, tmp_path: Path) -> None:
    stacks = [random_tensors(step)["experts"] for step in range(4)]
    stacked = write_all(tmp_path / "stacked", [{"w": stack} for stack in stacks])
    apart = write_all(
        tmp_path / "apart", [{f"w{i}": matrix.clone() for i, matrix in enumerate(s)} for s in stacks]
    )
    one, _ = run(plan_for(params_for(method), stacked), tmp_path / "one")
    other, _ = run(plan_for(params_for(method), apart), tmp_path / "other")
    assert equal(one, {"w": torch.stack([other[f"w{i}"] for i in range(3)])})


def test_returned_digests_are_those_of_the_files(tmp_path: Path) -> None:
    plan = plan_for(params_for("average"), write_models(tmp_path / "training"))
    (tmp_path / "out").mkdir()
    [written] = execute.execute(plan, [tmp_path / "out"], 300, ["cpu"])
    assert len(written.digests) > 1
    for path, digest in written.digests.items():
        assert blake3(path.read_bytes()).hexdigest() == digest


def test_progress_names_every_tensor_in_order_and_ends_at_the_whole(tmp_path: Path) -> None:
    plan, heard = plan_for(params_for("average"), write_models(tmp_path / "training")), list[Headway]()
    run(plan, tmp_path / "out", on_progress=heard.append)
    assert [name for name in dict.fromkeys(own.last for own in heard) if name] == sorted(plan.spec)
    for column in ("done", "tensors"):
        assert [getattr(own, column) for own in heard] == sorted(getattr(own, column) for own in heard)
    assert heard[-1] == Headway("wide", plan.bytes_written, plan.bytes_written, 5, 5, {})


def test_integers_are_copied_when_equal_and_refused_when_not(tmp_path: Path) -> None:
    tensors = {"w": torch.ones(2, 2), "ids": torch.arange(3), "mask": torch.tensor([True, False])}
    models = write_all(tmp_path, [tensors] * 4)
    merged, _ = run(plan_for(params_for("average"), models), tmp_path / "out")
    assert torch.equal(merged["ids"], tensors["ids"])
    assert torch.equal(merged["mask"], tensors["mask"])
    save_file({**tensors, "ids": torch.tensor([0, 1, 3])}, models[2] / "model.safetensors")
    with pytest.raises(BadInput, match=r"checkpoint-2: tensor ids .* differs from checkpoint-3"):
        run(plan_for(params_for("average"), models), tmp_path / "out2")


def test_scalars_and_empty_tensors_are_merged(tmp_path: Path) -> None:
    shapes = {"scalar": (), "empty": (0, 4), "w": (2, 3)}
    models = write_all(
        tmp_path,
        [{name: torch.full(shape, float(step)) for name, shape in shapes.items()} for step in range(4)],
    )
    for method in METHODS:
        merged, _ = run(plan_for(params_for(method), models), tmp_path / method)
        assert {name: tuple(tensor.shape) for name, tensor in merged.items()} == shapes


@pytest.mark.filterwarnings("error")
@on_all_methods
def test_identical_checkpoints_merge_in_silence(method: str, tmp_path: Path) -> None:
    """Task vectors of zero: no division by zero, nothing but the base."""
    models = write_all(tmp_path, [random_tensors(0)] * 4)
    merged, measures = run(plan_for(params_for(method), models), tmp_path / "out")
    assert last_places(merged, random_tensors(0)) <= 2
    for found in measures.values():
        assert TensorMeasures.model_validate_json(found.model_dump_json()) == found  # NaN is no JSON


def exact_deviation(models: Sequence[Path], base: Path | None) -> dict[str, Any]:
    """Compute norms, cosines and conflict of the tensor tall in float64."""
    thetas = [load_file(path / "model.safetensors")["tall"].double().numpy().ravel() for path in models]
    anchor = (
        np.mean(thetas, 0)
        if base is None
        else load_file(base / "model.safetensors")["tall"].double().numpy().ravel()
    )
    deltas = np.array(thetas) - anchor
    norms = np.sqrt((deltas**2).sum(1))
    pairs = [(i, j) for i in range(len(deltas)) for j in range(i + 1, len(deltas))]
    return {
        "norms": pytest.approx(norms.tolist(), rel=1e-5),
        "cosines": pytest.approx([deltas[i] @ deltas[j] / norms[i] / norms[j] for i, j in pairs], abs=1e-5),
        "conflict": pytest.approx(((deltas > 0).any(0) & (deltas < 0).any(0)).mean()),
    }


@on_all_methods
@pytest.mark.parametrize("block", [SMALL_BLOCK, 2**18])
def test_measures_hold_norms_cosines_and_sign_conflict(
    method: str, block: int, models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cut, "BLOCK", block)
    _, measures = run(plan_for(params_for(method), models), tmp_path / "out")
    base = models[0] if METHODS[method].base == "required" else None
    for key, value in exact_deviation(models[1 : count_for(method) + 1], base).items():
        assert getattr(measures["tall"].deviation, key) == value


@pytest.mark.parametrize("method", ["average", "ties", "lore"])
def test_of_a_large_tensor_a_sample_is_measured_and_said(
    method: str, models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The norms stand for the whole tensor all the same."""
    monkeypatch.setattr(cut, "BLOCK", SMALL_BLOCK)
    plan = plan_for(params_for(method), models)
    tensors, measures = run(plan, tmp_path / "whole")
    monkeypatch.setattr(cut, "AT_LEAST", SMALL_BLOCK)
    same, sampled = run(plan, tmp_path / "sampled")
    assert equal(tensors, same)
    every, some = measures["tall"].deviation, sampled["tall"].deviation
    assert every
    assert some
    assert some.sampled
    assert every.sampled is None
    assert some.sampled < some.elements == every.elements
    assert some.norms == pytest.approx(every.norms, rel=0.5)
    assert some.norms != every.norms


def test_a_survey_measures_every_floating_block_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cut, "BLOCK", SMALL_BLOCK)
    plan = plan_for(params_for("task_arithmetic"), write_models(tmp_path / "training"))
    before = sorted(tmp_path.rglob("*"))
    found = survey(plan, deviation, ["cpu"])
    assert list(found) == sorted(plan.spec)
    for name, parts in found.items():
        assert join(parts).elements == math.prod(plan.spec[name].shape)
    assert sorted(tmp_path.rglob("*")) == before
