"""What is written at its final place, in any order, is what the safetensors library reads."""

import errno
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from tasks.checkpoints.layout import INDEX, SINGLE, read_tensors
from tasks.engine.shards import Shard, Spec, Stored, open_shards, parse_size, plan_shards, write_numbers
from tests.support.engine_runs import open_files

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I64": torch.int64,
    "BOOL": torch.bool,
}

specs = st.dictionaries(
    st.text("abc._0é", min_size=1, max_size=6),
    st.builds(
        Stored, st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 4), max_size=3).map(tuple)
    ),
    min_size=1,
    max_size=8,
)  # fmt: skip


def raw(tensor: torch.Tensor) -> np.ndarray:
    return tensor.reshape(-1).view(torch.uint8).numpy()


def write(shards: list[Shard], tensors: dict[str, torch.Tensor], order: random.Random) -> None:
    """Write every tensor in two parts, all parts shuffled."""
    parts = []
    for shard in shards:
        for name in shard.offsets:
            data = raw(tensors[name])
            middle = order.randint(0, data.size)
            parts += [(shard, name, 0, data[:middle]), (shard, name, middle, data[middle:])]
    order.shuffle(parts)
    for part in parts:
        write_numbers(*part)


def random_tensors(spec: Spec) -> dict[str, torch.Tensor]:
    return {name: (torch.rand(stored.shape) * 9).to(DTYPES[stored.dtype]) for name, stored in spec.items()}


@given(spec=specs, limit=st.integers(0, 400), seed=st.randoms(use_true_random=False))
@settings(max_examples=80)
def test_what_was_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, spec: Spec, limit: int, seed: random.Random
) -> None:
    directory, tensors = tmp_path_factory.mktemp("model"), random_tensors(spec)
    with open_shards(directory, spec, limit) as shards:
        write(shards, tensors, seed)
        for shard in shards:
            assert len(shard.header) % 8 == 0
            assert shard.path.read_bytes().startswith(shard.header)
    read: dict[str, torch.Tensor] = {}
    for path in directory.glob("*.safetensors"):
        read |= load_file(path)
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    assert {name: (info.dtype, info.shape) for name, (_, info) in read_tensors(directory).items()} == dict(
        spec
    )


@given(spec=specs, limit=st.integers(0, 400))
def test_no_shard_is_over_the_limit_unless_it_is_one_tensor(spec: Spec, limit: int) -> None:
    shards = plan_shards(spec, limit)
    assert [name for names in shards.values() for name in names] == list(spec)
    for names in shards.values():
        assert len(names) == 1 or sum(spec[name].size for name in names) <= limit


def test_one_shard_has_no_index_and_several_have(tmp_path: Path) -> None:
    spec = {"a": Stored("F32", (4,)), "b": Stored("F32", (4,))}
    for name, limit, indexed in (("one", 32, False), ("two", 31, True)):
        (tmp_path / name).mkdir()
        with open_shards(tmp_path / name, spec, limit):
            assert (tmp_path / name / INDEX).exists() == indexed
    index = json.loads((tmp_path / "two" / INDEX).read_text())
    assert index == {
        "metadata": {"total_size": 32},
        "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"},
    }


def test_reopening_keeps_what_was_written(tmp_path: Path) -> None:
    spec = {"a": Stored("F32", (4,))}
    with open_shards(tmp_path, spec, 100) as (shard,):
        write_numbers(shard, "a", 4, np.array([2.0, 3.0], np.float32))
    with open_shards(tmp_path, spec, 100):
        pass
    assert load_file(tmp_path / SINGLE)["a"].tolist() == [0, 2, 3, 0]


@pytest.mark.parametrize("before", [b"", b"x" * 10, b"x" * 10_000])
def test_a_file_of_another_size_is_made_the_right_one(tmp_path: Path, before: bytes) -> None:
    (tmp_path / SINGLE).write_bytes(before)
    with open_shards(tmp_path, {"a": Stored("I64", (3,))}, 100) as (shard,):
        write_numbers(shard, "a", 0, np.arange(3))
    assert load_file(tmp_path / SINGLE)["a"].tolist() == [0, 1, 2]


def test_disk_space_is_taken_before_the_first_tensor(tmp_path: Path) -> None:
    with open_shards(tmp_path, {"a": Stored("F32", (250_000,))}, 2**30) as (shard,):
        assert shard.path.stat().st_blocks * 512 >= 10**6


def test_no_handle_stays_open_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, start: int, size: int) -> None:
        if size > 200:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with (
        pytest.raises(OSError, match="No space"),
        open_shards(tmp_path, {"a": Stored("F32", (1,)), "b": Stored("F32", (100,))}, 1),
    ):
        pass
    assert not open_files(tmp_path)


@pytest.mark.parametrize(
    ("text", "size"),
    [("5GB", 5 * 10**9), ("500 MiB", 500 * 2**20), ("1.5KB", 1500), ("12", 12), ("3B", 3), ("2TiB", 2**41)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size
