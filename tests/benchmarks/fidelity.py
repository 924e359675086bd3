"""How far merged models are from the float64 reference, rounded once."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from tests.benchmarks.measure import measure, say, table
from tests.benchmarks.models import Llama, models
from tests.benchmarks.programs import METHODS, environment, loreline, mergekit
from tests.benchmarks.reference import CUTS, REFERENCES, Array, bfloat16, last_places, open_choices

HEAD = [
    "method",
    "program",
    "compared",
    "bit-equal",
    "unequal",
    "by > 1 last place",
    "error of merged − base",
]

SETTLED = "mergekit, no choice open"


@dataclass
class Fidelity:
    """How a merged model lies to the reference."""

    elements: int = 0
    compared: int = 0
    unequal: int = 0
    far: int = 0
    """Off by more than one last place."""
    error: float = 0.0
    """Sum of squares: merged minus reference."""
    moved: float = 0.0
    """Sum of squares: reference minus base."""

    @property
    def cells(self) -> list[str]:
        """How it reads in a table."""
        return [
            f"{100 * self.compared / self.elements:.1f} %",
            f"{100 * (1 - self.unequal / self.compared):.4f} %",
            *[f"{self.unequal}", f"{self.far}"],
            f"{100 * math.sqrt(self.error / self.moved) if self.moved else 0:.2g} %",
        ]

    def add(
        self, merged: torch.Tensor, reference: torch.Tensor, base: Array, among: Array | None = None
    ) -> None:
        """Count one tensor, among all of its elements or those that are marked."""
        chosen = np.ones(base.shape, bool) if among is None else among
        places = last_places(_bits(merged), _bits(reference))[chosen]
        exact = reference.double().numpy()
        self.elements += base.size
        self.compared += places.size
        self.unequal += int(np.count_nonzero(places))
        self.far += int(np.count_nonzero(places > 1))
        self.error += float(np.square(merged.double().numpy() - exact)[chosen].sum())
        self.moved += float(np.square(exact - base)[chosen].sum())


def fidelity(root: Path, llama: Llama, methods: Sequence[str]) -> str:
    """Compare both programs with the reference.

    mergekit also on the elements where the paper leaves no choice, and not on DARE, whose random draw is its own.
    """
    checkpoints = models(root, llama)
    rows = []
    for method in methods:
        programs = {"Loreline": loreline(method, checkpoints)}
        if method != "dare_ties":
            programs["mergekit"] = mergekit(method, checkpoints)
        with tempfile.TemporaryDirectory(dir=root) as scratch:
            for program, command in programs.items():
                say(f"{method}: {program}")
                measure(command(Path(scratch) / program), environment(Path(scratch)))
            found = compare(method, checkpoints, {program: Path(scratch) / program for program in programs})
        rows += [[method, program, *result.cells] for program, result in found.items()]
    return table(HEAD, rows)


def compare(method: str, checkpoints: Path, merged: Mapping[str, Path]) -> dict[str, Fidelity]:
    """Compare merged models, by name of the program that made them."""
    judged = {*merged, SETTLED} if "mergekit" in merged and method in CUTS else merged
    found = {name: Fidelity() for name in sorted(judged)}
    with ExitStack() as files:
        base, *thetas = (
            _Tensors(checkpoints / name, files) for name in ("base", *METHODS[method].checkpoints)
        )
        outputs = {program: _Tensors(directory, files) for program, directory in merged.items()}
        for name in base.files:
            anchor, *trained = (tensors[name].double().numpy() for tensors in (base, *thetas))
            exact = REFERENCES[method](name, anchor, trained)
            rounded = torch.from_numpy(bfloat16(exact)).view(torch.bfloat16)
            for program, output in outputs.items():
                found[program].add(output[name], rounded, anchor)
            if SETTLED in found:
                settled = ~open_choices(method, anchor, trained)
                found[SETTLED].add(outputs["mergekit"][name], rounded, anchor, settled)
    return found


class _Tensors:
    """The tensors of a model directory, in one file or in shards."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        opened = [stack.enter_context(safe_open(path, "pt")) for path in directory.glob("*.safetensors")]
        self.files = {name: file for file in opened for name in file.keys()}  # noqa: SIM118 - not a dict

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.files[name].get_tensor(name)


def _bits(tensor: torch.Tensor) -> Array:
    return tensor.view(torch.uint16).numpy()
