"""A base model seen through an adapter: base + scaling · B·A, computed where it is read."""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.base.errors import BadInput
from tasks.base.json_files import read_json
from tasks.checkpoints.configuration import ties_embeddings
from tasks.checkpoints.header import FLOATING, TensorInfo
from tasks.checkpoints.numbers import Numbers, compute_dtype, encode
from tasks.checkpoints.peft.adapter import Adapter, LoraFactors
from tasks.checkpoints.weights import NotFinite, WeightReader

HELD_FACTORS = 16
"""Tensors whose factors are kept: about those that are in work at one time."""


class Change(NamedTuple):
    """What an adapter does to one tensor of its base."""

    replaced: str | None = None
    """The adapter's tensor that takes its place."""
    factors: str | None = None
    """The adapter's name of the tensor that low-rank factors are added to."""
    transposed: bool = False
    """Whether the weight lies as in × out."""


class Adapted:
    """A base model with an adapter on it: a source like any other, of which no whole matrix is ever made."""

    def __init__(self, adapter: Adapter, base: WeightReader, changes: Mapping[str, Change]) -> None:
        self._adapter = adapter
        self._base = base
        self._changes = changes
        self._product = lru_cache(HELD_FACTORS)(self._load)
        self._magnitudes = lru_cache(HELD_FACTORS)(self._load_magnitudes)

    @property
    def base(self) -> WeightReader:
        """The model beneath the adapter."""
        return self._base

    @property
    def label(self) -> str:
        """The adapter's name."""
        return self._adapter.label

    @property
    def directory(self) -> Path:
        """The base's: its configuration and tokenizer hold for the adapted model."""
        return self._base.directory

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The base's."""
        return self._base.tensors

    @property
    def essential_files(self) -> list[Path]:
        """The files of adapter and base that decide what it computes."""
        return [*self._adapter.essential_files, *self._base.essential_files]

    def replaces(self, name: str) -> bool:
        """Tell whether more than factors says what a tensor becomes: it is held whole, or is DoRA's."""
        change = self._changes.get(name, Change())
        return change.replaced is not None or self._is_dora(change)

    def rank(self, name: str) -> int:
        """Return the rank of the factors that are added to a tensor; 0 where there are none."""
        change = self._changes.get(name, Change())
        return self._adapter.factors[change.factors].rank if change.factors is not None else 0

    def product(self, name: str) -> tuple[Numbers, Numbers]:
        """Return the factors in float64 of what is added to a matrix, rows × r and r × columns.

        Raises BadInput when one is NaN or infinite.
        """
        found = self._load(name, np.dtype(np.float64))
        if not all(np.isfinite(half).all() for half in found):
            raise NotFinite(self.label, name)
        return found

    def stored(self, name: str, first: int, count: int) -> Numbers:
        """Return elements as they would be stored in the base's dtype."""
        if name not in self._changes:
            return self._base.stored(name, first, count)
        dtype = self.tensors[name].dtype
        return encode(self._values(name, first, count, compute_dtype(dtype)), dtype)

    def read(self, name: str, first: int, count: int, compute: type[np.floating[Any]]) -> Numbers:
        """Compute elements of a floating tensor; raises BadInput when one is NaN or infinite."""
        if name not in self._changes:
            return self._base.read(name, first, count, compute)
        values = self._values(name, first, count, compute)
        if not np.isfinite(values).all():
            raise NotFinite(self.label, name)
        return values

    def _values(self, name: str, first: int, count: int, compute: type[np.floating[Any]]) -> Numbers:
        change = self._changes[name]
        if self._is_dora(change) and count:
            return self._scaled(name, first, count, compute)
        if change.replaced is not None:
            values = self._adapter.unchecked(change.replaced, first, count, compute)
        else:
            values = self._base.read(name, first, count, compute)
        if change.factors is not None and count:
            left, right = self._product(name, np.dtype(compute))
            columns = right.shape[1]
            row = first // columns
            rows = left[row : -(-(first + count) // columns)] @ right
            values += rows.reshape(-1)[first - row * columns :][:count]
        return values

    def _scaled(self, name: str, first: int, count: int, compute: type[np.floating[Any]]) -> Numbers:
        """Give whole rows of base + change the norms that DoRA learned; what was asked for lies in them."""
        left, right = self._product(name, np.dtype(compute))
        columns = right.shape[1]
        row, end = first // columns, -(-(first + count) // columns)
        rows = self._base.read(name, row * columns, (end - row) * columns, compute).reshape(-1, columns)
        rows += left[row:end] @ right
        norms = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1))
        with np.errstate(divide="ignore", invalid="ignore"):  # what is not finite is refused where it is read
            rows *= (self._magnitudes(name)[row:end] / norms).astype(compute)[:, None]
        return rows.reshape(-1)[first - row * columns :][:count]

    def _is_dora(self, change: Change) -> bool:
        return change.factors is not None and self._adapter.factors[change.factors].magnitude is not None

    def _load_magnitudes(self, name: str) -> Numbers:
        found = self._adapter.magnitudes(str(self._changes[name].factors), np.float64)
        assert found is not None
        return found

    def _load(self, name: str, compute: np.dtype[np.floating[Any]]) -> tuple[Numbers, Numbers]:
        change = self._changes.get(name, Change())
        if change.factors is None:
            rows, columns = self.tensors[name].shape
            return np.empty((rows, 0), compute), np.empty((0, columns), compute)
        B, A = self._adapter.product(change.factors, compute.type)
        return (A.T, B.T) if change.transposed else (B, A)


def adapt(adapter: Adapter, base: WeightReader) -> Adapted:
    """See `base` through `adapter`; raises BadInput, in one sentence, where the two do not fit."""
    changes = {_match(name, adapter, base): Change(replaced=key) for name, key in adapter.replaced.items()}
    for name, key in adapter.replaced.items():
        own, other = adapter.tensors[key].shape, base.tensors[_match(name, adapter, base)].shape
        if own != other:
            raise _misfit(adapter, base, name, own, other)
    ways = {name: _lies_transposed(name, adapter, base) for name in adapter.factors}
    _check_square(adapter, ways)
    for name, transposed in ways.items():
        if transposed and adapter.factors[name].magnitude:
            raise BadInput(
                adapter.label,
                f"{name} lies as in × out, where DoRA's norms are not those of its rows",
                "merge it into its base with peft's merge_and_unload first",
            )
        place = _match(name, adapter, base)
        changes[place] = changes.get(place, Change())._replace(factors=name, transposed=transposed)
    _check_tied(adapter, base, changes)
    return Adapted(adapter, base, changes)


def _match(name: str, adapter: Adapter, base: WeightReader) -> str:
    """Find a tensor in the base, which may be saved with or without a prefix such as `model.`."""
    if name in base.tensors:
        return name
    found = [own for own in base.tensors if own.endswith(f".{name}") or name.endswith(f".{own}")]
    if len(found) != 1:
        raise BadInput(
            adapter.label,
            f"changes {name}, which {base.label} does not have",
            f"the adapter was trained on {adapter.config.base}",
        )
    return found[0]


def _lies_transposed(name: str, adapter: Adapter, base: WeightReader) -> bool:
    factors, info = adapter.factors[name], base.tensors[_match(name, adapter, base)]
    if info.dtype not in FLOATING:
        raise BadInput(
            base.label, f"tensor {name} is quantised ({info.dtype})", "name the unquantised base model"
        )
    out, in_ = factors.shape
    if info.shape == (in_, out) and (factors.embedding or in_ != out):
        return True
    if info.shape != (out, in_) or factors.embedding:
        raise _misfit(adapter, base, name, factors.shape, info.shape)
    return out == in_ and adapter.config.fan_in_fan_out


def _misfit(
    adapter: Adapter, base: WeightReader, name: str, own: tuple[int, ...], other: tuple[int, ...]
) -> BadInput:
    return BadInput(
        adapter.label,
        f"{name} is {own}, but {other} in {base.label}",
        f"the adapter was trained on {adapter.config.base}",
    )


def _check_square(adapter: Adapter, ways: Mapping[str, bool]) -> None:
    """Refuse square matrices that could lie either way: PEFT notes one way, although layers may differ."""
    linear: dict[str, LoraFactors] = {name: f for name, f in adapter.factors.items() if not f.embedding}
    square = [name for name, factors in linear.items() if factors.shape[0] == factors.shape[1]]
    others = {ways[name] for name in linear.keys() - set(square)}
    if square and others - {adapter.config.fan_in_fan_out}:
        raise BadInput(
            adapter.label,
            f"{square[0]} may lie either way round, because fan_in_fan_out in adapter_config.json "
            "does not hold for all layers",
            "merge it into its base with peft's merge_and_unload first",
        )


def _check_tied(adapter: Adapter, base: WeightReader, changes: Mapping[str, Change]) -> None:
    """Refuse to change an embedding that is also the output head, where the adapter does not reach."""
    config = read_json(base.directory / "config.json")
    vocabulary = config.get("vocab_size")
    # tables of tokens: not in a numbered layer, which may have as many rows by chance
    tables = [
        name
        for name, info in base.tensors.items()
        if info.shape[:1] == (vocabulary,) and not re.search(r"\.\d+\.", name)
    ]
    if len(tables) == 1 and tables[0] in changes and ties_embeddings(config):
        raise BadInput(
            adapter.label,
            f"changes {tables[0]}, which {base.label} also uses as its output head",
            "merge the adapters alone, without merge.base, or untie the base",
        )
