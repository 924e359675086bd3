"""A part of a matrix that stands for all of it: runs of rows, and every so many-th column of them."""

import math
from typing import Any, NamedTuple

import numpy as np

from tasks.checkpoints.numbers import Numbers
from tasks.checkpoints.weights import WeightReader
from tasks.engine.cut import as_stack
from tasks.engine.plan import Plan
from tasks.merging.block import Block

CHUNKS = 16
"""Runs of rows, spread over a matrix, that a crop is taken from: neighbouring tokens are alike."""


class Crop(NamedTuple):
    """As much of a tensor's matrix as is solved."""

    tensor: str
    rows: int
    columns: int


def cropped(plan: Plan, name: str, share: float) -> Crop:
    """Return a matrix of the same proportions that takes a share of the time, at most all."""
    rows, columns = _sides(plan, name)
    scale = min(1.0, share ** (1 / 3))
    return Crop(name, math.ceil(rows * scale), math.ceil(columns * scale))


def small(plan: Plan, name: str, side: int) -> Crop:
    """Return a matrix of a few rows and columns."""
    rows, columns = _sides(plan, name)
    return Crop(name, min(side, rows), min(side, columns))


def read_crop(plan: Plan, crop: Crop) -> Block:
    """Read a crop of every checkpoint: runs of rows that are spread over the matrix."""
    rows, columns = _sides(plan, crop.tensor)
    chunks = min(CHUNKS, crop.rows) if crop.rows < rows else 1
    counts = [len(part) for part in np.array_split(np.arange(crop.rows), chunks)]
    starts = [round(i * (rows - counts[0]) / max(1, chunks - 1)) for i in range(chunks)]
    kept = np.linspace(0, columns - 1, crop.columns).round().astype(int)
    dtype = plan.dtype(crop.tensor)

    def of(source: WeightReader) -> Numbers:
        parts = (
            source.read(crop.tensor, start * columns, count * columns, dtype).reshape(count, columns)
            for start, count in zip(starts, counts, strict=True)
        )
        return np.concatenate([part.take(kept, 1) for part in parts])  # in order: [:, kept] would turn it

    thetas: Any = np.stack([of(source) for source in plan.inputs])
    return Block(crop.tensor, 0, 0, thetas, of(plan.base) if plan.base else None)


def _sides(plan: Plan, name: str) -> tuple[int, int]:
    return as_stack(plan.spec[name].shape)[1:]
