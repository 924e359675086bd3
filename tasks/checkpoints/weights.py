"""Weights of a checkpoint, read in pieces."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tasks.base.errors import BadInput
from tasks.base.running_digest import RunningDigest
from tasks.checkpoints.header import TensorInfo
from tasks.checkpoints.layout import read_tensors
from tasks.checkpoints.numbers import STORED, Numbers, all_finite, as_bytes, decode


class WeightReader(Protocol):
    """A model that tensors are read from: its own weights, or an adapter on a base."""

    @property
    def label(self) -> str:
        """What messages call it."""

    @property
    def directory(self) -> Path:
        """Where its configuration lies."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Its tensors, nothing read yet."""

    @property
    def essential_files(self) -> Sequence[Path]:
        """The files that decide what it computes: weights and configuration."""

    def stored(self, name: str, first: int, count: int) -> Numbers:
        """Read `count` elements from `first` on as they are stored."""

    def read(self, name: str, first: int, count: int, compute: type[np.floating[Any]]) -> Numbers:
        """Read elements of a floating tensor as `compute`; raises BadInput when one is NaN or infinite."""


class Changed(WeightReader, Protocol):
    """A base whose matrices have low-rank products added to them."""

    def rank(self, name: str) -> int:
        """Return the rank of what is added to a tensor; 0 where that is nothing."""

    def product(self, name: str) -> tuple[Numbers, Numbers]:
        """Return the factors in float64 of what is added to a matrix, rows × r and r × columns.

        Raises BadInput when one is NaN or infinite.
        """


class OpenFile:
    """A file that stays open for as long as a model reads from it."""

    handle = -1
    """Until it is open."""

    def __init__(self, path: Path) -> None:
        self.handle = os.open(path, os.O_RDONLY)
        self.state = os.fstat(self.handle)

    def __del__(self) -> None:
        with suppress(OSError):  # what was only read can lose nothing
            os.close(self.handle)


@dataclass(frozen=True)
class SafetensorsModel:
    """The safetensors files of one model directory. Files stay open, so that a deletion does no harm."""

    label: str
    directory: Path
    tensors: Mapping[str, TensorInfo]
    files: Mapping[str, Path]
    """Tensor name → file."""
    opened: Mapping[Path, OpenFile] = field(repr=False, compare=False)
    running: Mapping[Path, RunningDigest] = field(default_factory=dict, repr=False, compare=False)
    """The files that are digested while they are read."""

    @property
    def essential_files(self) -> Sequence[Path]:
        """The files that decide what it computes: weights and configuration."""
        return [*sorted(set(self.files.values())), self.directory / "config.json"]

    def stored(self, name: str, first: int, count: int) -> Numbers:
        """Read `count` elements from `first` on as they are stored; the array must not be changed."""
        info = self.tensors[name]
        values: Numbers = np.empty(count, STORED[info.dtype])
        offset = info.start + first * values.itemsize
        view = as_bytes(values)
        while view:
            got = os.preadv(self.opened[self.files[name]].handle, [view], offset)
            if not got:
                raise BadInput(
                    self.files[name], "became shorter while it was read", "fetch the checkpoint again"
                )
            view, offset = view[got:], offset + got
        if running := self.running.get(self.files[name]):
            running.passed(offset - values.nbytes, as_bytes(values))
        return values

    def read(self, name: str, first: int, count: int, compute: type[np.floating[Any]]) -> Numbers:
        """Read elements of a floating tensor as `compute`; raises BadInput when one is NaN or infinite."""
        return decode(self.finite(name, first, count), self.tensors[name].dtype, compute)

    def finite(self, name: str, first: int, count: int) -> Numbers:
        """Read elements of a floating tensor as they are stored; raises BadInput for NaN and infinity."""
        raw = self.stored(name, first, count)
        if not all_finite(raw, self.tensors[name].dtype):
            raise NotFinite(self.label, name)
        return raw

    def renamed(self, names: Mapping[str, str]) -> "SafetensorsModel":
        """Return the same model with other names for some of its tensors."""
        return replace(
            self,
            tensors={names.get(name, name): info for name, info in self.tensors.items()},
            files={names.get(name, name): path for name, path in self.files.items()},
        )


class NotFinite(BadInput):
    """A checkpoint holds NaN or Inf."""

    def __init__(self, label: str, tensor: str) -> None:
        super().__init__(
            label,
            f"tensor {tensor} holds NaN or Inf",
            "leave that checkpoint out of the merge, or set merge.on_nan to drop",
        )
        self.label = label
        self.tensor = tensor


def open_weights(directory: Path, label: str) -> SafetensorsModel:
    """Read and check the headers of a model directory; `label` names it in messages."""
    if not directory.is_dir():
        raise BadInput(directory, "no such directory", "name a checkpoint directory")
    placed = read_tensors(directory)
    files = {name: path for name, (path, _) in placed.items()}
    return SafetensorsModel(
        label,
        directory,
        {name: info for name, (_, info) in placed.items()},
        files,
        {path: OpenFile(path) for path in set(files.values())},
    )
