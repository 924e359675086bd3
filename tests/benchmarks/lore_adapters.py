"""LoRE of adapters: computing beside reading and writing their factors, and merging onto a base beside neither."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from tasks.base.threads import one_thread_each
from tasks.checkpoints.layout import ADAPTER_WEIGHTS, SINGLE
from tasks.checkpoints.peft.adapter import PREFIX, read_adapter
from tasks.engine.adapters import AdapterPlan, MergedFactors, merge_factors
from tasks.engine.memory import keep_freed_pages
from tasks.engine.planning import plan_adapters
from tasks.recipes.recipe import read_merge_params
from tests.benchmarks.measure import digits, in_turn, judged, say, table, warm
from tests.benchmarks.models import RANK
from tests.benchmarks.programs import LORELINE, Command, run
from tests.benchmarks.stopwatch import seconds

COUNT = 3
MATRICES = 32
"""As of 16 layers' queries and values."""
MODULES = [f"model.layers.{i // 2}.self_attn.{'qv'[i % 2]}_proj" for i in range(MATRICES)]
GOAL, BASE_GOAL = 2.0, 1.5


class Kind(NamedTuple):
    """What adapters are like."""

    rank: int
    drifts: bool
    """As those of one run; else they have nothing in common."""

    def __str__(self) -> str:
        return f"rank {self.rank}, {'a drift' if self.drifts else 'nothing in common'}"


KINDS = (Kind(RANK, drifts=False), Kind(RANK, drifts=True), Kind(4 * RANK, drifts=True))
APART = 0.3
"""Of the noise, in units of what they share."""
METHODS = {"lore": ("merge.method=lore", "merge.lore.mu=1.05"), "average": ("merge.method=average",)}
"""The average costs what LoRE costs beside its solution: bases, cores and factors."""


def adapters(root: Path, side: int, runs: int) -> str:
    """Measure computing, with the factors in memory, against reading the inputs and writing the merge to the disk."""
    keep_freed_pages()  # as merge_adapters does
    rows = []
    for kind in KINDS:
        with tempfile.TemporaryDirectory(dir=root) as scratch:
            inputs = _write_inputs(Path(scratch), side, kind)
            matrices = f"{MATRICES} of {side}², {kind}"
            rows += [_row(name, matrices, _plan(name, inputs), Path(scratch), runs) for name in METHODS]
    return table(
        ["method", "matrices", "computing s", "reading s", "writing s", "ratio", "goal", "met"], rows
    )


def adapters_on_base(root: Path, side: int, runs: int) -> str:
    """Measure whole merges onto a bf16 base, against those without it and a copy of the base."""
    with tempfile.TemporaryDirectory(dir=root) as scratch:
        inputs, base = _write_inputs(Path(scratch), side, KINDS[0]), _base(Path(scratch) / "base", side)
        settings = [word for setting in METHODS["lore"] for word in ("--set", setting)]
        merge = [*LORELINE, "merge", *map(str, inputs), *settings, "--out"]
        copy = f"cat '{base / SINGLE}' > /dev/null; cat '{base / SINGLE}' > \"$0\"; sync \"$0\""
        commands: dict[str, Command] = {
            "onto the base": lambda out: [*merge, str(out), "--base", str(base)],
            "without it": lambda out: [*merge, str(out)],
            "copy": lambda out: ["sh", "-ec", copy, str(out)],
        }
        warm(Path(scratch))
        usages = in_turn({name: partial(run, root, own) for name, own in commands.items()}, runs)
    onto, alone, copied = usages.values()
    share = median(a.cpu / (b.cpu + c.cpu) for a, b, c in zip(onto, alone, copied, strict=True))
    seconds_each = [median(usage.cpu for usage in own) for own in usages.values()]
    row = [f"{MATRICES} of {side}²", *digits(2, *seconds_each), *judged(share, "≤", BASE_GOAL)]
    return table(["matrices", *(f"{name} CPU s" for name in usages), "ratio", "goal", "met"], [row])


def _row(name: str, matrices: str, plan: AdapterPlan, scratch: Path, runs: int) -> list[str]:
    turns = [_turn(plan, scratch) for _ in range(runs)]
    columns = [median(column) for column in zip(*turns, strict=True)]
    share = median(own / (read + write) for own, read, write in turns)
    return [name, matrices, *digits(2, *columns), *judged(share, "≤", GOAL)]


def _turn(plan: AdapterPlan, scratch: Path) -> tuple[float, float, float]:
    """Return seconds of computing, reading and writing."""
    loaded = {}
    reading = seconds(lambda: loaded.update({name: plan.products(name) for name in plan.shapes}))
    merged: dict[str, MergedFactors] = {}

    def compute() -> None:
        with one_thread_each(plan.method.whole):  # as merge_adapters does
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


def _write_inputs(scratch: Path, side: int, kind: Kind) -> list[Path]:
    return [_adapter(scratch / f"checkpoint-{k}", k, side, kind) for k in range(1, COUNT + 1)]


def _plan(method: str, directories: Sequence[Path]) -> AdapterPlan:
    inputs = [read_adapter(directory, directory.name) for directory in directories]
    return plan_adapters([read_merge_params(METHODS[method])], inputs, range(1, COUNT + 1))


def _base(directory: Path, side: int) -> Path:
    """Write the matrices that the adapters change, as bf16."""
    directory.mkdir()
    random = torch.Generator().manual_seed(0)
    tensors = {f"{name}.weight": torch.randn(side, side, generator=random).bfloat16() for name in MODULES}
    save_torch(tensors, directory / SINGLE)
    (directory / "config.json").write_text('{"model_type": "llama"}')
    return directory


def _adapter(directory: Path, k: int, side: int, kind: Kind) -> Path:
    """Write float32 factors as PEFT does: of a drift B grows with the checkpoint and A stays, but for noise."""
    directory.mkdir()
    shared, own = (torch.Generator().manual_seed(seed) for seed in (0, k))
    tensors = {}
    for name in MODULES:
        for half, shape, grown in (("A", (kind.rank, side), 1.0), ("B", (side, kind.rank), k / COUNT)):
            factor = torch.randn(shape, generator=own)
            if kind.drifts:
                factor = grown * torch.randn(shape, generator=shared) + APART * factor
            tensors[f"{PREFIX}{name}.lora_{half}.weight"] = factor.numpy()
    save_file(tensors, directory / ADAPTER_WEIGHTS)
    config = {
        "peft_type": "LORA",
        "r": kind.rank,
        "lora_alpha": kind.rank,
        "target_modules": ["q_proj", "v_proj"],
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory
