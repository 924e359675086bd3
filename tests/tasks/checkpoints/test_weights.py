"""Any piece of any tensor is read as the safetensors library reads it, whatever happens to the files' names."""

import gc
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tasks.base.errors import BadInput
from tasks.checkpoints.weights import NotFinite, OpenFile, open_weights
from tests.support.engine_runs import open_files
from tests.support.tiny import random_tensors, write_checkpoint

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@given(dtype=st.sampled_from(DTYPES), first=st.integers(0, 30), count=st.integers(0, 30), wide=st.booleans())
@settings(max_examples=60)
def test_a_piece_is_what_the_library_reads(
    tmp_path_factory: pytest.TempPathFactory, dtype: torch.dtype, first: int, count: int, wide: bool
) -> None:
    directory = tmp_path_factory.mktemp("run")
    tensor = torch.randn(10, 6).to(dtype)
    weights = open_weights(write_checkpoint(directory, 1, {"before": torch.ones(3), "w": tensor}), "one")
    compute = np.float64 if wide else np.float32
    piece = weights.read("w", first, count, compute)
    expected = tensor.reshape(-1)[first : first + count].to(torch.float64 if wide else torch.float32)
    assert piece.dtype == compute
    assert np.array_equal(piece, expected.numpy())


def test_a_file_that_cannot_be_opened_leaves_nothing_to_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is raised while Python drops it would be printed as a traceback."""
    raised: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", raised.append)
    with pytest.raises(FileNotFoundError):
        OpenFile(tmp_path / "missing")
    gc.collect()
    assert not raised


def test_integers_are_read_as_they_are_stored(make_checkpoint: Callable[..., Path]) -> None:
    directory = make_checkpoint(1, {"ids": torch.arange(9), "mask": torch.tensor([True, False, True])})
    weights = open_weights(directory, "one")
    assert weights.stored("ids", 2, 4).tolist() == [2, 3, 4, 5]
    assert weights.stored("mask", 0, 3).tolist() == [True, False, True]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_inf_name_checkpoint_and_tensor(
    make_checkpoint: Callable[..., Path], value: float, dtype: torch.dtype
) -> None:
    tensor = torch.ones(9, dtype=dtype)
    tensor[4] = value
    weights = open_weights(make_checkpoint(1, {"w": tensor}), "checkpoint-1")
    assert weights.read("w", 0, 4, np.float64).tolist() == [1, 1, 1, 1]
    with pytest.raises(NotFinite, match="checkpoint-1: tensor w holds NaN or Inf") as caught:
        weights.read("w", 3, 3, np.float64)
    assert (caught.value.label, caught.value.tensor) == ("checkpoint-1", "w")


def test_a_checkpoint_deleted_before_the_first_read_is_read_whole(
    make_checkpoint: Callable[..., Path],
) -> None:
    """A Trainer rotates its checkpoints whenever it likes."""
    directory = make_checkpoint(1)
    weights = open_weights(directory, "one")
    shutil.rmtree(directory)
    for name, tensor in random_tensors(1).items():
        assert np.array_equal(weights.read(name, 0, tensor.numel(), np.float32), tensor.reshape(-1).numpy())


def test_a_checkpoint_replaced_under_its_name_does_not_mix_in(make_checkpoint: Callable[..., Path]) -> None:
    directory = make_checkpoint(1, {"w": torch.ones(4)})
    weights = open_weights(directory, "one")
    save_file({"w": torch.zeros(4)}, directory / "other.safetensors")
    (directory / "other.safetensors").replace(directory / "model.safetensors")
    assert weights.read("w", 0, 4, np.float32).tolist() == [1, 1, 1, 1]


def test_a_file_that_shrinks_is_noticed(make_checkpoint: Callable[..., Path]) -> None:
    directory = make_checkpoint(1, {"w": torch.ones(1000)})
    weights = open_weights(directory, "one")
    os.truncate(directory / "model.safetensors", 2000)
    with pytest.raises(BadInput, match=r"model.safetensors: became shorter while it was read"):
        weights.read("w", 0, 1000, np.float32)


def test_no_file_stays_open_when_weights_are_gone(make_checkpoint: Callable[..., Path]) -> None:
    directory = make_checkpoint(1)
    weights = open_weights(directory, "one")
    assert open_files(directory)
    del weights
    assert not open_files(directory)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere: no such directory"):
        open_weights(tmp_path / "nowhere", "nowhere")
