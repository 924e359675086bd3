"""Distances between checkpoints from a sample of every tensor: a few megabytes are read of each."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.base.errors import BadInput
from tasks.checkpoints.header import FLOATING
from tasks.checkpoints.layout import is_adapter
from tasks.checkpoints.peft.adapter import read_adapter
from tasks.checkpoints.weights import SafetensorsModel, open_weights
from tasks.merging.distances import PairMatrix, distances

RUNS, RUN = 16, 1024
"""Runs of neighbouring elements that are read of a tensor, and their length; smaller ones are read whole."""


class Spread(NamedTuple):
    """Distances between checkpoints."""

    model: PairMatrix
    """N × N, over the whole model."""
    tensors: dict[str, PairMatrix]
    """N × N, tensor by tensor."""
    norms: dict[str, float]
    """The median norm of each tensor."""


def sampled_spread(directories: Sequence[Path]) -> Spread | None:
    """Estimate how far checkpoints lie apart; None where they cannot be compared, which their merge refuses.

    Every tensor counts with all its elements, of which the same ones are read of every checkpoint.
    """
    try:
        models = [_opened(directory) for directory in directories]
        shapes = {
            name: info.shape
            for name, info in models[0].tensors.items()
            if info.dtype in FLOATING and 0 not in info.shape
        }
        tensors, norms = {}, {}
        for name, shape in shapes.items():
            size = math.prod(shape)
            rows = np.stack([_sample(model, name, size) for model in models])
            scale = size / rows.shape[1]
            centred = rows - rows.mean(axis=0)
            tensors[name] = distances(scale * (centred @ centred.T))
            norms[name] = float(np.median(np.linalg.norm(rows, axis=1)) * scale**0.5)
    except (BadInput, KeyError, ValueError):
        return None
    whole = np.sqrt(sum((own**2 for own in tensors.values()), np.zeros((len(models), len(models)))))
    return Spread(whole, tensors, norms)


def _opened(directory: Path) -> SafetensorsModel:
    """Open a whole model, or an adapter's own file."""
    label = directory.name
    return read_adapter(directory, label) if is_adapter(directory) else open_weights(directory, label)


def _sample(model: SafetensorsModel, name: str, size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    if size <= RUNS * RUN:
        return model.read(name, 0, size, np.float64)
    starts = np.linspace(0, size - RUN, RUNS).astype(int)
    return np.concatenate([model.read(name, int(start), RUN, np.float64) for start in starts])
