"""A safetensors file is accepted exactly when it is whole; a refusal names the file."""

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from tasks.base.errors import BadInput
from tasks.checkpoints.header import read_header


def raw(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_every_tensor_is_where_the_library_finds_it(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {
        "a": torch.arange(6.0).reshape(2, 3),
        "b": torch.ones(3, dtype=torch.bfloat16),
        "c": torch.tensor(7),
    }
    save_file(tensors, path)
    header = read_header(path)
    data = path.read_bytes()
    with safe_open(path, "pt") as file:
        assert set(header) == set(file.keys())
        for name, info in header.items():
            expected = file.get_tensor(name)
            assert info.shape == tuple(expected.shape)
            assert data[info.start : info.end] == bytes(expected.reshape(-1).view(torch.uint8).tolist())


@given(cut=st.integers(min_value=0))
@settings(max_examples=60)
def test_a_file_cut_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "model.safetensors"
    save_file({"a": torch.ones(2, 3)}, path)
    os.truncate(path, cut % path.stat().st_size)
    with pytest.raises(BadInput, match="model.safetensors"):
        read_header(path)


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        (2**63).to_bytes(8, "little"),
        raw(b'{"a": ' + json.dumps(ONE).encode() + b', "a": ' + json.dumps(ONE).encode() + b"}", bytes(4)),
        raw({"a": ONE}, bytes(5)),  # trailing
        raw({"a": ONE, "b": ONE}, bytes(4)),  # overlap
        raw({"a": {**ONE, "data_offsets": [4, 8]}}, bytes(8)),  # hole
        raw({"a": {**ONE, "data_offsets": [0, 8]}}, bytes(8)),  # shape and bytes disagree
        raw({"a": {**ONE, "dtype": "F31"}}, bytes(4)),
        raw({"a": {**ONE, "shape": [-1, -1]}}, bytes(4)),
        raw({"a": {**ONE, "shape": ["1"]}}, bytes(4)),
        raw({"a": {"dtype": "F32"}}, bytes(4)),
        raw([1]),
        raw(b"{"),
        raw(b"\xff\xfe"),
        raw(b"[" * 100_000),
    ],
)
def test_damage_is_refused_and_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="model.safetensors") as caught:
        read_header(path)
    assert "\n" not in str(caught.value)


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match="not a regular file"):
        read_header(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "header",
    [
        b'{"a": {"dtype": "F32", "shape": [' + b"1," * 10**6 + b'1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, ' + b"9" * 4000 + b"]}}",
        b"{" + b'"a": {}, ' * 10**6 + b'"b": {}}',
        b"{" + b'"a": [], ' * 10**6 + b'"b": []}',
    ],
    ids=["long shape", "long number", "entries without dtype", "lists"],
)
def test_what_no_tensor_has_is_refused_before_it_is_parsed(
    tmp_path: Path, header: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.safetensors").write_bytes(raw(header, bytes(4)))
    monkeypatch.setattr(json, "loads", None)
    with pytest.raises(BadInput, match="model.safetensors") as caught:
        read_header(tmp_path / "model.safetensors")
    assert len(str(caught.value)) < 500


def test_long_metadata_is_no_reason_to_refuse(tmp_path: Path) -> None:
    """Trainers of image models write their whole configuration there."""
    metadata = {"tags": json.dumps({f"tag {i}": i for i in range(5000)}), "hash": "0123456789" * 6}
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors", metadata)
    assert read_header(tmp_path / "model.safetensors").keys() == {"a"}
