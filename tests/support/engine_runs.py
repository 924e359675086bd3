"""Carry out merges of tiny checkpoints, and compare what was written."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from tasks.base.measures import TensorMeasures
from tasks.checkpoints.weights import SafetensorsModel, open_weights
from tasks.engine.execute import execute
from tasks.engine.plan import Plan
from tasks.engine.planning import make_plan
from tasks.engine.progress import OnProgress, untold
from tasks.merging.block import OF_ROWS
from tasks.merging.methods import METHODS
from tasks.parameters.merge import MergeParams
from tests.support.in_memory import coefficients
from tests.support.tiny import random_tensors, write_checkpoint

Tensors = dict[str, torch.Tensor]


def params_for(method: str, **more: Any) -> MergeParams:
    """Return a method's defaults; a base that a plan needs is named by whoever plans."""
    return MergeParams(method=method, **more)  # type: ignore[arg-type]


def count_for(method: str) -> int:
    """Return how many checkpoints to merge: three, if it takes them."""
    return min(3, METHODS[method].at_most or 3)


def write_models(root: Path, dtype: torch.dtype = torch.float32, count: int = 3) -> list[Path]:
    """Write a base, which has step 0, and checkpoints around it."""
    return write_all(
        root,
        [
            {name: tensor.to(dtype) for name, tensor in random_tensors(step).items()}
            for step in range(count + 1)
        ],
    )


def write_all(root: Path, models: Sequence[Tensors]) -> list[Path]:
    """Write models as checkpoints of steps 0, 1, ..."""
    return [
        write_checkpoint(root, step, tensors, metrics={"eval_loss": 1.0})
        for step, tensors in enumerate(models)
    ]


def write_noise(root: Path, shapes: Mapping[str, tuple[int, ...]], count: int = 4) -> list[Path]:
    """Write a base and checkpoints that have nothing in common."""
    noise = torch.Generator().manual_seed(0)
    return write_all(
        root,
        [
            {name: torch.randn(shape, generator=noise) for name, shape in shapes.items()}
            for _ in range(count + 1)
        ],
    )


def plan_for(params: MergeParams, models: Sequence[Path]) -> Plan:
    """Plan a merge of the models after the first, which is the base where the method needs one."""
    method = METHODS[params.method]
    base, *checkpoints = models
    checkpoints = checkpoints[: method.at_most or len(checkpoints)]
    plan = make_plan(
        [params],
        [open_weights(directory, directory.name) for directory in checkpoints],
        open_weights(base, "base") if method.base == "required" else None,
        list(range(1, len(checkpoints) + 1)),
    )
    if method.measures == "coefficients":
        known = coefficients(plan.shapes, len(checkpoints))
        return replace(plan, variants=[replace(own, coefficients=known) for own in plan.variants])
    return replace(plan, measured=made_up(plan, base.parent)) if method.measures else plan


def made_up(plan: Plan, place: Path) -> list[SafetensorsModel]:
    """Write what could have been measured of each checkpoint: numbers of all sizes; of `wide` by its rows."""
    found = []
    for step, _ in enumerate(plan.inputs, 1):
        noise = torch.Generator().manual_seed(100 + step)
        if plan.method.measures == "gradients":
            tensors = {
                name: torch.randn(shape, generator=noise).abs() ** 3 for name, shape in plan.shapes.items()
            }
        else:
            sides = {"tall": 5, "wide" + OF_ROWS: 4}
            inputs = {name: torch.randn(20, side, generator=noise) for name, side in sides.items()}
            tensors = {name: own.T @ own for name, own in inputs.items()}
        found.append(open_weights(write_checkpoint(place / plan.method.measures, step, tensors), f"{step}"))
    return found


ON_WEIGHTS_ALONE = [name for name, method in METHODS.items() if not method.measures]
"""Methods that merge any tensors: the others measure models that compute something on text."""


def run(
    plan: Plan,
    directory: Path,
    devices: Sequence[str] = ("cpu",),
    shard_bytes: int = 2**40,
    on_progress: OnProgress = untold,
) -> tuple[Tensors, dict[str, TensorMeasures]]:
    """Execute a plan; return tensors and measures."""
    directory.mkdir(parents=True, exist_ok=True)
    [written] = execute(plan, [directory], shard_bytes, list(devices), on_progress)
    return read(directory), written.measures


def read(directory: Path) -> Tensors:
    """Read a model's weights with the safetensors library."""
    tensors: Tensors = {}
    for path in directory.glob("*.safetensors"):
        tensors |= load_file(path)
    return tensors


def equal(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Say whether two models are the same, dtype and bits."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and np.array_equal(ordinals(one[name]), ordinals(other[name]))
        for name in one
    )


def last_places(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> int:
    """Return by how many last places two models differ at most."""
    assert one.keys() == other.keys()
    return max(int(abs(ordinals(one[name]) - ordinals(other[name])).max()) for name in one)


def ordinals(tensor: torch.Tensor) -> np.ndarray:
    """Return each element's place in the order of all numbers of its dtype, both zeros 0."""
    width = {8: torch.int64, 4: torch.int32, 2: torch.int16}[tensor.element_size()]
    bits = tensor.reshape(-1).view(width).numpy().astype(np.int64)
    least = -(2 ** (8 * tensor.element_size() - 1))
    return np.where(bits < 0, least - bits, bits)


def open_files(below: Path) -> list[str]:
    """Return what this process holds open below a directory; elsewhere earlier tests may still be collected."""
    links = (handle.readlink() for handle in Path("/proc/self/fd").iterdir() if handle.is_symlink())
    return sorted(str(target) for target in links if target.is_relative_to(below))


def visible(directory: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Return everything below a directory: modes, mtimes, inodes, bytes; the directories' own too."""
    return {
        str(path): (
            status.st_mode,
            status.st_mtime_ns,
            status.st_ino,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in [directory, *directory.rglob("*")]
        for status in [path.lstat()]
    }
