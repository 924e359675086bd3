"""LoRE of adapters: what computing costs beside reading and writing their factors."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from unittest import mock

import numpy as np
import torch
from safetensors.numpy import save_file

from tasks.base.threads import one_thread_each
from tasks.checkpoints.peft.adapter import ADAPTER_WEIGHTS, PREFIX, read_adapter
from tasks.engine.adapters import AdapterPlan, MergedFactors, merge_factors
from tasks.engine.planning import plan_adapters
from tasks.recipes.recipe import read_merge_params
from tests.benchmarks.measure import digits, judged, say, table
from tests.benchmarks.models import RANK
from tests.benchmarks.stopwatch import seconds

COUNT = 3
MATRICES = 32
"""As of 16 layers' queries and values."""
GOAL = 1.5


def adapters(root: Path, side: int, runs: int) -> str:
    """Measure computing, with the factors in memory, against reading the inputs and writing the merge to the disk."""
    with tempfile.TemporaryDirectory(dir=root) as scratch:
        plan = _plan(Path(scratch), side)
        turns = [_turn(plan, Path(scratch)) for _ in range(runs)]
    compute, reading, writing = (median(column) for column in zip(*turns, strict=True))
    share = median(own / (read + write) for own, read, write in turns)
    row = [
        *[f"{MATRICES} of {side}², rank {RANK}", *digits(2, compute, reading, writing)],
        *judged(share, "≤", GOAL),
    ]
    return table(["matrices", "computing s", "reading s", "writing s", "ratio", "goal", "met"], [row])


def _turn(plan: AdapterPlan, scratch: Path) -> tuple[float, float, float]:
    """Return seconds of computing, reading and writing."""
    loaded = {}
    reading = seconds(lambda: loaded.update({name: plan.products(name) for name in plan.shapes}))
    merged: dict[str, MergedFactors] = {}

    def compute() -> None:
        with one_thread_each(True):  # as merge_adapters does
            merged.update(merge_factors(plan, plan.variants[0], lambda name: None))

    with mock.patch.object(AdapterPlan, "products", lambda self, name: loaded[name]):
        computing = seconds(compute)
    halves = {f"{name}.{half}": getattr(found, half) for name, found in merged.items() for half in "AB"}
    os.sync()
    writing = seconds(lambda: _write(halves, scratch / "merged.safetensors"))
    say(f"adapters: {computing:.2f} s computing, {reading:.2f} s reading, {writing:.2f} s writing")
    return computing, reading, writing


def _write(halves: Mapping[str, np.ndarray], path: Path) -> None:
    save_file(dict(halves), path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _plan(scratch: Path, side: int) -> AdapterPlan:
    directories = [_adapter(scratch / f"checkpoint-{k}", k, side) for k in range(1, COUNT + 1)]
    params = read_merge_params(["merge.method=lore", "merge.lore.mu=1.05"])
    inputs = [read_adapter(directory, directory.name) for directory in directories]
    return plan_adapters([params], inputs, range(1, COUNT + 1))


def _adapter(directory: Path, seed: int, side: int) -> Path:
    """Write float32 factors as PEFT does."""
    directory.mkdir()
    random = torch.Generator().manual_seed(seed)
    tensors = {
        f"{PREFIX}model.layers.{i // 2}.self_attn.{'qv'[i % 2]}_proj.lora_{half}.weight": torch.randn(
            shape, generator=random
        ).numpy()
        for i in range(MATRICES)
        for half, shape in (("A", (RANK, side)), ("B", (side, RANK)))
    }
    save_file(tensors, directory / ADAPTER_WEIGHTS)
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": ["q_proj", "v_proj"]}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory
