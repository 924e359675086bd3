"""The plan of a merge: inputs, outputs, method, and estimates of bytes and memory."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from tasks.base.errors import BadInput
from tasks.base.passage import Passage
from tasks.checkpoints.header import FLOATING
from tasks.checkpoints.numbers import compute_dtype
from tasks.checkpoints.weights import Changed, SafetensorsModel, WeightReader
from tasks.engine.cut import ADDED, BLOCK, as_stack
from tasks.engine.shards import Spec
from tasks.merging.method import Method
from tasks.merging.program import Settings
from tasks.merging.roles import is_embedding
from tasks.parameters.merge import MergeParams

DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}

AT_ONCE, HELD_AT_ONCE = 16, 2**28
"""Tensors whose cores are merged together, at most, and bytes that one thread holds of them."""


@dataclass(frozen=True)
class Plan:
    """A checked merge, or several variants of one."""

    inputs: Sequence[WeightReader]
    base: WeightReader | None
    variants: Sequence[Settings]
    """One for each model that is written; they differ in parameters that only the method reads."""
    spec: Spec
    """What is written of each variant, in the order of the files."""
    method: Method
    """The row of the table; a plain average's where all variants reduce to averages."""
    changes: Mapping[str, Sequence[Changed]] = field(default_factory=dict, kw_only=True)
    """Tensor → the inputs, where adapters on the base add factors to it or leave it alone."""
    notes: Sequence[str] = field(default=(), kw_only=True)
    """Differences between the inputs that do no harm."""
    texts: Sequence[Passage] = field(default=(), kw_only=True)
    """What the checkpoints are measured on, where the method wants that."""
    measured: Sequence[WeightReader] = field(default=(), kw_only=True)
    """What was measured on them, one for each checkpoint: float32, by the tensors' names."""

    @property
    def params(self) -> MergeParams:
        """The first variant's parameters, for those that all variants share."""
        return self.variants[0].params

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The tensors that are merged: all floating ones that hold something."""
        return self.variants[0].shapes

    @cached_property
    def groups(self) -> list[list[str]]:
        """Names of floating tensors that are measured together: each alone, all, or a few whose cores are."""
        # the variants share every block, so one that measures the whole model makes all of them wait for it
        if any(self.method.spans_model(settings.params) for settings in self.variants):
            return [list(self.shapes)]
        together = self.together
        alone = [[name] for name in self.shapes if name not in together]
        few = [name for name in self.shapes if name in together]
        return [*alone, *_few_together(few, self._held_factors)]

    @property
    def together(self) -> frozenset[str]:
        """Tensors that are merged within the span of their factors, and several at once."""
        return self.spanned if self.method.cores else frozenset()

    @cached_property
    def spanned(self) -> frozenset[str]:
        """Tensors whose changes are merged by their factors, and added to the base afterwards.

        Only of methods that would take whole matrices and may take cores instead: the others stream anyway.
        """
        return frozenset(self.changes) if self.method.whole and self._takes_cores() else frozenset()

    @property
    def bytes_read(self) -> int:
        """Bytes of one pass over all inputs."""
        return sum(info.end - info.start for source in self.sources for info in source.tensors.values())

    @property
    def bytes_written(self) -> int:
        """Bytes of all variants' weight files, without their headers."""
        return len(self.variants) * sum(stored.size for stored in self.spec.values())

    @property
    def sources(self) -> list[WeightReader]:
        """The checkpoints, and the base if there is one."""
        return [*self.inputs, *([self.base] if self.base else [])]

    @property
    def bytes_held(self) -> int:
        """Estimate of the largest memory in bytes that one thread's arrays take."""
        return max(map(self._held_by, self.groups), default=0)

    @property
    def bytes_measured(self) -> int:
        """Bytes of what is measured of all checkpoints; of inputs an estimate, by the matrices' widths."""
        shapes = self.shapes.items()
        match self.method.measures:
            case "gradients":
                return 4 * len(self.inputs) * sum(math.prod(shape) for _, shape in shapes)
            case "inputs":
                layers = [own for name, own in shapes if len(own) == 2 and not is_embedding(name, own)]
                return 4 * len(self.inputs) * sum(columns**2 for _, columns in layers)
            case "coefficients" | None:
                return 0

    def dtype(self, name: str) -> type[np.floating[Any]]:
        """Return the dtype that a floating tensor is read in, so that it is rounded once, when it is written.

        Whole matrices take the most memory and are read in the narrowest dtype that holds the files' numbers
        exactly. An adapter on a base is in no file: its numbers are computed, in float64.
        """
        if not self.method.whole or name in self.spanned:
            return compute_dtype(self.spec[name].dtype)
        single = (isinstance(s, SafetensorsModel) and s.tensors[name].dtype != "F64" for s in self.sources)
        return np.float32 if all(single) else np.float64

    def ranks(self, name: str) -> list[int]:
        """Return the rank of what each input adds to a tensor that is merged by its factors."""
        return [source.rank(name) for source in self.changes[name]]

    def _takes_cores(self) -> bool:
        try:
            for settings in self.variants:
                self.method.check_span(settings.params)
        except BadInput:
            return False
        return True

    def _held_by(self, group: Sequence[str]) -> int:
        if group[0] in self.spanned:  # the factors of all, and blocks of one after the other
            return sum(map(self._held_factors, group)) + max(map(self._held_added, group))
        return max(map(self._held, group))

    def _held(self, name: str) -> int:
        _, rows, columns = as_stack(self.spec[name].shape)
        if self.method.whole:
            taken = rows * columns * (20 * len(self.sources) + 48)  # bytes of the decompositions in float64
            return taken + 8 * columns**2 * (len(self.inputs) + 4) * (self.method.measures == "inputs")
        elements = min(rows * columns, max(BLOCK, columns))
        read = len(self.sources) + len(self.inputs) * (self.method.measures == "gradients")
        return elements * self.dtype(name)().itemsize * ARRAYS * read

    def _held_factors(self, name: str) -> int:
        """Return bytes of bases, the factors they come from, and cores with the method's work."""
        _, rows, columns = as_stack(self.shapes[name])
        return held_in_span(rows + columns, self.ranks(name))

    def _held_added(self, name: str) -> int:
        """Return bytes of the blocks to which a change is added."""
        _, _, columns = as_stack(self.spec[name].shape)
        return 8 * ARRAYS * ADDED * max(BLOCK, columns)


def held_in_span(sides: int, ranks: Sequence[int]) -> int:
    """Return bytes that merging within the span of low-rank matrices takes, rows + columns = `sides`."""
    k = sum(ranks)
    # float64: both bases and the factors they come from, then the cores and the method's work on them
    return 8 * (3 * sides * k + (len(ranks) + 4) * k * k)


def _few_together(names: Sequence[str], held: Callable[[str], int]) -> Iterator[list[str]]:
    """Yield names in groups of a few that hold little memory together."""
    group, taken = list[str](), 0
    for name in names:
        if group and (len(group) == AT_ONCE or taken + held(name) > HELD_AT_ONCE):
            yield group
            group, taken = [], 0
        group.append(name)
        taken += held(name)
    if group:
        yield group


ARRAYS = 4
"""Arrays of a block's size that a method holds for each checkpoint, estimated generously."""


def written_dtype(found: set[str], params: MergeParams) -> str:
    """Return the dtype that a tensor is written in: the checkpoints' own, a wider one where they differ."""
    if not found <= set(FLOATING):
        return found.pop()
    if params.dtype != "auto":
        return DTYPES[params.dtype]
    if len(found) == 1:
        return found.pop()
    # bfloat16 and float16 differ: only float32 holds the numbers of both
    return "F64" if "F64" in found else "F32"
