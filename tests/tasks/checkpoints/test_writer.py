"""Shards written tensor by tensor are what the safetensors library reads, whatever their size."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from tasks.checkpoints.header import ITEM_SIZE, TensorInfo
from tasks.checkpoints.layout import INDEX, read_tensors
from tasks.checkpoints.writer import parse_size, plan_shards, write_weights

DTYPES = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I64": torch.int64,
    "BOOL": torch.bool,
}


def spec_of(shapes: dict[str, tuple[str, tuple[int, ...]]]) -> dict[str, TensorInfo]:
    return {
        name: TensorInfo(dtype, shape, 0, math.prod(shape) * ITEM_SIZE[dtype])
        for name, (dtype, shape) in shapes.items()
    }


tensors = st.dictionaries(
    st.text("abc._0", min_size=1, max_size=6),
    st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 4), max_size=3).map(tuple)),
    min_size=1,
    max_size=8,
)


@given(shapes=tensors, limit=st.integers(1, 400))
@settings(max_examples=60)
def test_what_was_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, tuple[str, tuple[int, ...]]], limit: int
) -> None:
    directory, spec = tmp_path_factory.mktemp("model"), spec_of(shapes)
    written = {name: (torch.rand(info.shape) * 9).to(DTYPES[info.dtype]) for name, info in spec.items()}
    write_weights(directory, spec, iter(written.items()), limit)
    read: dict[str, torch.Tensor] = {}
    for path in directory.glob("*.safetensors"):
        read |= load_file(path)
    assert read.keys() == written.keys()
    assert all(torch.equal(read[name], written[name]) for name in written)
    assert read_tensors(directory).keys() == written.keys()  # our own reader follows the index


@given(shapes=tensors, limit=st.integers(1, 400))
def test_no_shard_is_over_the_limit_unless_it_is_one_tensor(
    shapes: dict[str, tuple[str, tuple[int, ...]]], limit: int
) -> None:
    spec = spec_of(shapes)
    shards = plan_shards(spec, limit)
    assert [name for names in shards.values() for name in names] == list(spec)
    for names in shards.values():
        assert len(names) == 1 or sum(spec[name].end for name in names) <= limit


def test_one_shard_has_no_index_and_several_have(tmp_path: Path) -> None:
    spec = spec_of({"a": ("F32", (4,)), "b": ("F32", (4,))})
    for name, limit, indexed in (("one", 32, False), ("two", 31, True)):
        directory = tmp_path / name
        directory.mkdir()
        write_weights(directory, spec, iter([("a", torch.ones(4)), ("b", torch.ones(4))]), limit)
        assert (directory / INDEX).exists() == indexed
    index = json.loads((tmp_path / "two" / INDEX).read_text())
    assert index["metadata"]["total_size"] == 32
    assert set(index["weight_map"].values()) == {
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    }


@pytest.mark.parametrize(
    ("text", "size"), [("5GB", 5 * 10**9), ("500 MiB", 500 * 2**20), ("1.5KB", 1500), ("12", 12)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size
