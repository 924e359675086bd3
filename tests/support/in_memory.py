"""Run a merge method on arrays in memory, cut into blocks of any size: what the engine does, without files."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from tasks.base.measures import MethodMeasures
from tasks.merging.block import Block
from tasks.merging.layers import Layers
from tasks.merging.method import Method
from tasks.merging.methods import METHODS
from tasks.merging.program import Settings, worst
from tasks.parameters.merge import MergeParams
from tasks.parameters.varying import resolve

Tensors = Mapping[str, np.ndarray]


def merge(
    params: MergeParams,
    checkpoints: Sequence[Tensors],
    base: Tensors | None = None,
    *,
    rows: int | None = None,
    dtype: type = np.float64,
    steps: Sequence[int] | None = None,
    row: Method | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, MethodMeasures | None]]:
    """Merge whole models; `rows` a block, computing in `dtype`. Return tensors and what was found.

    `row`: how; unset: as the table says of params.method.
    """
    shapes = {name: tensor.shape for name, tensor in checkpoints[0].items()}
    steps = steps or range(1, len(checkpoints) + 1)
    layers = Layers.of(shapes)

    def at(tensor: str) -> MergeParams:
        return resolve(params, tensor, layers.position(tensor))

    settings = Settings(params, at, steps, shapes)
    method = row or METHODS[params.method]
    groups = [list(shapes)] if method.spans_model(params) else [[name] for name in shapes]
    merged: dict[str, np.ndarray] = {}
    measures: dict[str, MethodMeasures | None] = {}
    for names in groups:
        known = coefficients(names, len(checkpoints)) if method.measures == "coefficients" else {}
        own = Settings(params, at, steps, {n: shapes[n] for n in names}, coefficients=known)
        blocks = {
            name: cut(name, [c[name] for c in checkpoints], base and base[name],
                      None if method.whole else rows, dtype, method.measures)
            for name in names
        }  # fmt: skip
        program = method.run([own])
        try:
            measure = next(program)
            while True:
                measure = program.send({name: [measure(block) for block in blocks[name]] for name in names})
        except StopIteration as stop:
            finish = stop.value
        for name in names:
            parts, found = zip(*(one for block in blocks[name] for one in finish(block)), strict=True)
            merged[name] = np.concatenate([part.reshape(-1) for part in parts]).reshape(shapes[name])
            measures[name] = worst(found)
    assert settings.count == len(checkpoints)
    return merged, measures


def cut(
    name: str,
    thetas: Sequence[np.ndarray],
    base: np.ndarray | None,
    rows: int | None,
    dtype: type,
    measures: str | None = None,
) -> list[Block]:
    """Cut one tensor into blocks of `rows` rows, as the engine does; make up what is measured of it on text."""
    important = made_up(name, thetas) if measures == "gradients" else []
    stacks = [as_stack(own).astype(dtype) for own in (*thetas, *important, *([] if base is None else [base]))]
    count, height, width = stacks[0].shape
    step, N = rows or max(height, 1), len(thetas)
    blocks = [
        Block(name, matrix, (matrix * height + row) * width,
              [stack[matrix, row : row + step] for stack in stacks[:N]],
              stacks[-1][matrix, row : row + step] if base is not None else None,
              [stack[matrix, row : row + step] for stack in stacks[N : N + len(important)]])
        for matrix in range(count)
        for row in range(0, max(height, 1), step)
    ]  # fmt: skip
    return [with_grams(block) for block in blocks] if measures == "inputs" else blocks


def made_up(name: str, thetas: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return an importance of every element: positive, and much more for some than for others."""
    rng = np.random.default_rng([len(name), *thetas[0].shape])
    return [rng.exponential(size=theta.shape) ** 3 for theta in thetas]


def coefficients(names: Iterable[str], count: int) -> dict[str, tuple[float, ...]]:
    """Make up what could have been learned on text: others for every tensor."""
    return {name: tuple((i + len(name)) / 10 for i in range(1, count + 1)) for name in names}


def with_grams(block: Block) -> Block:
    """Make up what the layer of a matrix was fed: of a wide one its rows, of others their columns."""
    rows, columns = block.thetas[0].shape
    if 1 in (rows, columns):
        return block
    rng = np.random.default_rng([rows, columns])
    inputs = [rng.standard_normal((30, min(rows, columns))) for _ in block.thetas]
    return replace(block, grams=[x.T @ x for x in inputs], grams_of_rows=rows < columns)


def as_stack(tensor: np.ndarray) -> np.ndarray:
    """See a tensor as matrices: (stack, rows, columns)."""
    if tensor.ndim == 3:
        return tensor
    if tensor.ndim < 2:
        return tensor.reshape(1, -1, 1)
    return tensor.reshape(1, tensor.shape[0], math.prod(tensor.shape[1:]))
