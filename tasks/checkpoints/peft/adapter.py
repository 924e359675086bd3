"""A PEFT adapter directory: low-rank factors, and whole tensors in place of the base's."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.base.errors import BadInput
from tasks.checkpoints.header import FLOATING, TensorInfo, read_header
from tasks.checkpoints.layout import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_file
from tasks.checkpoints.numbers import Numbers, decode
from tasks.checkpoints.peft.config import AdapterConfig, read_config
from tasks.checkpoints.weights import OpenFile, SafetensorsModel

PREFIX = "base_model.model."
_FACTOR = re.compile(re.escape(PREFIX) + r"(.+)\.lora_(embedding_)?([AB])(\.weight)?")
_ADAPTER_NAME = re.compile(r"(\.lora_[AB])\.\w+(?=\.\w+$)|(\.lora_embedding_[AB])\.\w+$")
"""PEFT leaves it out of its files; trainers that save a state dict keep it: lora_A.default.weight."""
_MAGNITUDE = re.compile(re.escape(PREFIX) + r"(.+)\.lora_magnitude_vector(\.\w+)*")
_SAVED_MODULE = re.compile(r"\.modules_to_save(\.\w+)?(?=\.\w+$)")


class LoraFactors(NamedTuple):
    """Where the change of one module's weight lies: scaling · B·A, B out × r, A r × in."""

    A: str
    """Its name in the file."""
    B: str
    shape: tuple[int, int]
    """out × in"""
    rank: int
    scaling: float
    embedding: bool
    """Whether PEFT keeps it as an embedding's, whose weight lies as in × out."""
    magnitude: str | None
    """The name in the file of DoRA's norms of the rows of the changed weight; None for plain LoRA."""


@dataclass(frozen=True, kw_only=True)
class Adapter(SafetensorsModel):
    """A LoRA adapter by itself; its tensors are those of the adapter's file, named as PEFT names them."""

    config: AdapterConfig
    factors: Mapping[str, LoraFactors]
    """By the tensor that they change, named as PEFT names it: module + .weight."""
    replaced: Mapping[str, str]
    """Tensor of the base (modules_to_save, biases) → its name in the adapter's file."""

    @property
    def essential_files(self) -> list[Path]:
        """The files that decide what it computes."""
        return [self.directory / ADAPTER_CONFIG, *sorted(set(self.files.values()))]

    @property
    def is_dora(self) -> bool:
        """Tell whether it gives changed weights norms of their own, which are nothing without the base."""
        return any(found.magnitude for found in self.factors.values())

    def unchecked(self, key: str, first: int, count: int, compute: type[np.floating[Any]]) -> Numbers:
        """Read elements of a tensor of the adapter's file as `compute`, NaN and Inf among them."""
        return decode(self.stored(key, first, count), self.tensors[key].dtype, compute)

    def magnitudes(self, tensor: str, compute: type[np.floating[Any]]) -> Numbers | None:
        """Return the norms of a changed weight's rows by DoRA (Liu et al. 2024, arXiv 2402.09353)."""
        found = self.factors[tensor]
        if found.magnitude is None:
            return None
        return self.unchecked(found.magnitude, 0, found.shape[0], compute)

    def product(self, tensor: str, compute: type[np.floating[Any]]) -> tuple[Numbers, Numbers]:
        """Return scaling · B (out × r) and A (r × in) of one tensor's change, NaN and Inf among them."""
        found = self.factors[tensor]
        (rows, columns), rank = found.shape, found.rank
        B, A = np.empty((rows, rank), compute), np.empty((rank, columns), compute)
        self.put_product(tensor, B, A)
        return B, A

    def put_product(self, tensor: str, B: Numbers, A: Numbers) -> None:
        """Write scaling · B and A into arrays, which may be parts of larger ones."""
        found = self.factors[tensor]
        np.multiply(self._narrow(found.B, B), found.scaling, out=B, dtype=B.dtype)
        A[:] = self._narrow(found.A, A)

    def _narrow(self, key: str, like: Numbers) -> Numbers:
        """Read a matrix of the file in the narrowest dtype that holds it."""
        compute = np.float64 if self.tensors[key].dtype == "F64" else np.float32
        return self.unchecked(key, 0, like.size, compute).reshape(like.shape)


def read_adapter(directory: Path, label: str) -> Adapter:
    """Open an adapter; raises BadInput, in one sentence, for what is neither scaling · B·A nor DoRA."""
    config = read_config(directory)
    path = adapter_file(directory)
    if not path.exists():
        raise BadInput(directory, f"has no {ADAPTER_WEIGHTS}", "save it again")
    tensors = _named_as_in_peft(read_header(path), label)
    for name, info in tensors.items():
        if not name.startswith(PREFIX):
            raise BadInput(label, f"tensor {name} does not begin with {PREFIX}", "save the adapter with PEFT")
        if info.dtype not in FLOATING:
            raise BadInput(label, f"tensor {name} is quantised ({info.dtype})", "save it in floating point")
    norms = {found[1]: name for name in tensors if (found := _MAGNITUDE.fullmatch(name))}
    halves = {name: found for name in tensors if (found := _FACTOR.fullmatch(name))}
    if not halves:
        raise BadInput(label, f"{ADAPTER_WEIGHTS} holds no LoRA factors", "save the adapter with PEFT")
    changed = {found[1] for found in halves.values()}
    if uneven := sorted(changed ^ norms.keys() if config.use_dora else norms):
        raise BadInput(
            label,
            f"use_dora is {str(config.use_dora).lower()}, which does not fit the tensors of {uneven[0]}",
            "save the adapter again",
        )
    return Adapter(
        label,
        directory,
        tensors,
        dict.fromkeys(tensors, path),
        {path: OpenFile(path)},
        config=config,
        factors={f"{module}.weight": _factors(label, module, halves, norms.get(module), tensors, config)
                 for module in dict.fromkeys(found[1] for found in halves.values())},
        replaced={_replaces(label, name): name for name in tensors if name not in {*halves, *norms.values()}},
    )  # fmt: skip


def _named_as_in_peft(tensors: Mapping[str, TensorInfo], label: str) -> dict[str, TensorInfo]:
    """Name tensors as PEFT's own files do, without the adapter's name; BadInput where there are several."""
    found = {_SAVED_MODULE.sub("", _ADAPTER_NAME.sub(r"\1\2", name)): info for name, info in tensors.items()}
    if len(found) < len(tensors):
        raise BadInput(label, f"{ADAPTER_WEIGHTS} holds several adapters", "save one of them by itself")
    return found


def _factors(
    label: str,
    module: str,
    halves: Mapping[str, re.Match[str]],
    magnitude: str | None,
    tensors: Mapping[str, TensorInfo],
    config: AdapterConfig,
) -> LoraFactors:
    names = {found[3]: name for name, found in halves.items() if found[1] == module}
    if len(names) < 2:
        raise BadInput(label, f"{module} has only one of its two LoRA factors", "save the adapter again")
    A, B = (tensors[names[half]].shape for half in "AB")
    if len(A) != 2 or len(B) != 2 or A[0] != B[1] or 0 in (*A, *B):
        raise BadInput(
            label,
            f"the LoRA factors of {module} are {B} and {A}, which do not multiply to a matrix",
            "merge it into its base with peft's merge_and_unload first",
        )
    embedding = bool(halves[names["A"]][2])
    if magnitude and (embedding or math.prod(tensors[magnitude].shape) != B[0]):
        raise BadInput(
            label,
            f"the magnitudes of {module} are not one for each row of a matrix",
            "merge it into its base with peft's merge_and_unload first",
        )
    scaling = config.scaling(module, A[0])
    return LoraFactors(names["A"], names["B"], (B[0], A[1]), A[0], scaling, embedding, magnitude)


def _replaces(label: str, name: str) -> str:
    """Return the tensor of the base that a whole tensor stands for."""
    if ".lora_" in name:
        raise BadInput(
            label,
            f"tensor {name} is more than a low-rank factor",
            "merge the adapter into its base with peft's merge_and_unload first",
        )
    return name.removeprefix(PREFIX).replace(".base_layer.", ".")
