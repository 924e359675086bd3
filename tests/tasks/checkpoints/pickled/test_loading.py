"""Pickles are loaded by allow-lists: a canary of each kind is refused, named, and never runs (P6)."""

import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tasks.base.errors import BadInput
from tasks.checkpoints.pickled.loading import load_allowed, load_tensors
from tests.support.pickled_states import Canary


@pytest.mark.parametrize(
    "write",
    [
        lambda canary, path: torch.save({"a": torch.ones(2), "b": canary}, path),
        lambda canary, path: torch.save(canary, path, _use_new_zipfile_serialization=False),
        lambda canary, path: path.write_bytes(pickle.dumps(canary, protocol=2)),
    ],
)
def test_a_canary_does_not_run_and_is_named(tmp_path: Path, write: Callable[[Canary, Path], Any]) -> None:
    path = tmp_path / "x.bin"
    write(Canary(tmp_path / "sang"), path)
    with pytest.raises(BadInput, match=r"x\.bin: names posix\.mkdir, which no weights need"):
        load_tensors(path, path)
    assert not (tmp_path / "sang").exists()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_metadata_names_what_is_allowed_only(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / ".metadata"
    path.write_bytes(pickle.dumps({"a": [Canary(tmp_path / "sang")]}, protocol=protocol))
    with pytest.raises(BadInput, match=r"\.metadata: names posix\.mkdir"):
        load_allowed(path, {("torch", "Size"): tuple})
    assert not (tmp_path / "sang").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"version https://git-lfs.github.com/spec/v1\n", b"PK\x03\x04", b"\x80\x02}", bytes(range(256))],
)
def test_what_torch_did_not_write_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"x\.bin: is truncated, or not what torch writes .*again") as refused:
        load_tensors(path, path)
    assert "weights_only" not in str(refused.value)
    with pytest.raises(BadInput, match=r"x\.bin: is truncated, or not what torch writes"):
        load_allowed(path, {})


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    torch.save({"a": torch.arange(5000.0)}, path)
    whole = path.read_bytes()
    for length in range(1, len(whole), len(whole) // 20):
        path.write_bytes(whole[:length])
        with pytest.raises(BadInput, match="truncated"):
            load_tensors(path, path)


def test_tar_and_foreign_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    tarfile.open(path, "w").close()
    with pytest.raises(BadInput, match="truncated, or not what torch writes"):
        load_tensors(path, path)
    for content, name in (({"a": np.ones(3)}, "numpy"), (torch.nn.Linear(2, 2), "torch.nn")):
        torch.save(content, path)
        with pytest.raises(BadInput, match=f"names {name}"):
            load_tensors(path, path)


def test_old_and_new_files_of_torch_load(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    for new in (True, False):
        torch.save({"a": torch.arange(3)}, path, _use_new_zipfile_serialization=new)
        assert torch.equal(load_tensors(path, path)["a"], torch.arange(3))
