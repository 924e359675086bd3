"""The programs compared. Loreline and mergekit read the same file, so both are asked for the same mathematics."""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks.measure import Usage, measure
from tests.benchmarks.models import CHECKPOINTS

LORELINE = (sys.executable, "-c", "from flows.cli import main; main()")
MERGEKIT = str(Path(sys.executable).with_name("mergekit-yaml"))

Command = Callable[[Path], Sequence[str]]
"""Where to write → what to run."""


class Method(NamedTuple):
    """A method in mergekit's words, and what is to be reached."""

    name: str
    """merge_method."""
    goal: float
    """Loreline / mergekit, seconds."""
    each: Mapping[str, float] = {}
    """Parameters of each model."""
    shared: Mapping[str, float | bool] = {}
    """Parameters of the merge."""
    base: str | None = "base"
    checkpoints: Sequence[str] = CHECKPOINTS

    def recipe(self, models: Path) -> dict[str, Any]:
        """Return the whole recipe, as a user of mergekit writes it for bf16 checkpoints."""
        inputs = [{"model": str(models / name), "parameters": dict(self.each)} for name in self.checkpoints]
        base = {} if self.base is None else {"base_model": str(models / self.base)}
        return {
            "merge_method": self.name,
            "models": inputs,
            **base,
            "parameters": dict(self.shared),
            "dtype": "bfloat16",
        }


MEMORY_GOAL = 0.4
"""Loreline / mergekit, peak resident memory."""
METHODS = {
    "average": Method("linear", 0.15, {"weight": 1.0}, base=None),
    "task_arithmetic": Method("task_arithmetic", 0.15, {"weight": 1.0}),
    # mergekit calls the end where t = 0 the base.
    "slerp": Method("slerp", 0.35, {}, {"t": 0.5}, base=CHECKPOINTS[0], checkpoints=CHECKPOINTS[:2]),
    "model_stock": Method("model_stock", 0.25),
    "dare_ties": Method("dare_ties", 0.12, {"weight": 1.0, "density": 0.5}, {"normalize": True}),
    "breadcrumbs": Method("breadcrumbs", 0.12, {"weight": 1.0, "density": 0.5, "gamma": 0.01}),
    "ties": Method("ties", 0.08, {"weight": 1.0, "density": 0.5}, {"normalize": True}),
}


def loreline(method: str, models: Path) -> Command:
    """Merge with the command line."""
    return lambda out: [*LORELINE, "merge", _recipe(method, models, out), "--out", str(out)]


def mergekit(method: str, models: Path) -> Command:
    """Merge with mergekit-yaml as it comes."""
    return lambda out: [MERGEKIT, _recipe(method, models, out), str(out)]


def _recipe(method: str, models: Path, out: Path) -> str:
    path = out.with_suffix(".yaml")
    path.write_text(json.dumps(METHODS[method].recipe(models)))  # JSON is YAML
    return str(path)


def cat(models: Path, *, sync: bool) -> Command:
    """Read what an average reads and write what it writes, with nothing in between."""
    inputs = [f"'{models / name / 'model.safetensors'}'" for name in CHECKPOINTS]

    def command(out: Path) -> list[str]:
        lines = [f"cat {' '.join(inputs)} > /dev/null", f"cat {inputs[0]} > '{out}'"]
        return ["sh", "-ec", "; ".join([*lines, f"sync '{out}'"] if sync else lines)]

    return command


def run(root: Path, command: Command, cache: Path | None = None) -> Usage:
    """Measure one run with an output of its own, and a cache of its own unless one is given."""
    try:
        with tempfile.TemporaryDirectory(dir=root) as scratch:
            return measure(command(Path(scratch) / "out"), environment(Path(scratch), cache))
    finally:
        os.sync()  # what one program left to be written is not the next one's to wait for


def environment(scratch: Path, cache: Path | None = None) -> dict[str, str]:
    """Return variables that keep a run from what earlier ones left behind, and from the network."""
    own = {"XDG_CACHE_HOME": cache or scratch / "cache", "LORELINE_HOME": scratch / "home"}
    return {key: str(path) for key, path in own.items()} | {"HF_HUB_OFFLINE": "1"}
