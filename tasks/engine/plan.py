"""Everything about a merge that can be known, and checked, before any arithmetic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from tasks.base.errors import BadInput
from tasks.checkpoints.compatibility import check_compatible
from tasks.checkpoints.header import FLOATING
from tasks.checkpoints.numbers import compute_dtype
from tasks.checkpoints.weights import SafetensorsModel, WeightReader
from tasks.engine.cut import BLOCK, as_stack
from tasks.engine.shards import Spec, Stored
from tasks.engine.tied import stored_twice
from tasks.merging.layers import Layers
from tasks.merging.methods import METHODS, Method, method_of
from tasks.merging.program import Settings
from tasks.parameters.merge import MergeParams
from tasks.parameters.varying import resolve

DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True)
class Plan:
    """A merge, or several variants of one, that nothing is known to stand in the way of."""

    inputs: Sequence[WeightReader]
    base: WeightReader | None
    variants: Sequence[Settings]
    """One for each model that is written; they differ in parameters that only the method reads."""
    spec: Spec
    """What is written of each variant, in the order of the files."""

    @property
    def params(self) -> MergeParams:
        """The first variant's parameters, for those that all variants share."""
        return self.variants[0].params

    @cached_property
    def method(self) -> Method:
        """The row of the table."""
        return method_of(self.variants)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The tensors that are merged: all floating ones that hold something."""
        return self.variants[0].shapes

    @cached_property
    def groups(self) -> list[list[str]]:
        """Names of floating tensors that are measured together: each alone, or all."""
        spans_model = any(self.method.spans_model(settings.params) for settings in self.variants)
        return [list(self.shapes)] if spans_model else [[name] for name in self.shapes]

    @property
    def bytes_read(self) -> int:
        """Of one pass over all inputs."""
        return sum(info.end - info.start for source in self.sources for info in source.tensors.values())

    @property
    def bytes_written(self) -> int:
        """Of all variants' weight files, without their headers."""
        return len(self.variants) * sum(stored.size for stored in self.spec.values())

    @property
    def sources(self) -> list[WeightReader]:
        """The checkpoints, and the base if there is one."""
        return [*self.inputs, *([self.base] if self.base else [])]

    @property
    def bytes_held(self) -> int:
        """Estimate of the memory that one thread's arrays take at most."""
        return max(self._held(name) for group in self.groups for name in group) if self.groups else 0

    def dtype(self, name: str) -> type[np.floating[Any]]:
        """Return what a floating tensor is read as, so that it is rounded once, when it is written.

        Whole matrices, which take the most memory, come as narrow as holds the files' numbers exactly; the
        numbers of an adapter on a base are computed, and lie in no file.
        """
        if not self.method.whole:
            return compute_dtype(self.spec[name].dtype)
        single = (isinstance(s, SafetensorsModel) and s.tensors[name].dtype != "F64" for s in self.sources)
        return np.float32 if all(single) else np.float64

    def _held(self, name: str) -> int:
        _, rows, columns = as_stack(self.spec[name].shape)
        if self.method.whole:
            return rows * columns * (20 * len(self.sources) + 48)  # decompositions in float64
        elements = min(rows * columns, max(BLOCK, columns))
        return elements * self.dtype(name)().itemsize * ARRAYS * len(self.sources)


ARRAYS = 4
"""Arrays of a block's size that a method holds for each checkpoint, measured generously."""


def make_plan(
    variants: Sequence[MergeParams],
    inputs: Sequence[WeightReader],
    base: WeightReader | None,
    steps: Sequence[int],
) -> Plan:
    """Check that these models can be merged by this method, and say what will be written.

    Variants differ in what the method reads. Raises BadInput naming what does not fit.
    """
    params, method = variants[0], check_method(variants, len(inputs))
    if method.base == "required" and base is None:
        raise BadInput(f"merge.base: {params.method} needs the model the checkpoints started from; name it")
    check_compatible(inputs, base)
    names = sorted(inputs[-1].tensors.keys() - stored_twice([*([base] if base else []), *inputs]))
    spec = {
        name: Stored(
            written_dtype({source.tensors[name].dtype for source in inputs}, params),
            inputs[-1].tensors[name].shape,
        )
        for name in names
    }
    floating = {
        name: stored.shape for name, stored in spec.items() if stored.dtype in FLOATING and stored.size
    }
    return Plan(inputs, base, make_settings(variants, steps, floating, Layers.of(names)), spec)


def make_settings(
    variants: Sequence[MergeParams],
    steps: Sequence[int],
    shapes: Mapping[str, tuple[int, ...]],
    layers: Layers,
) -> list[Settings]:
    """Return each variant's settings, values that vary over layers resolved, once the method has agreed."""
    found = [_settings(params, steps, shapes, layers) for params in variants]
    for settings in found:
        METHODS[settings.params.method].check(settings)
    return found


def _settings(
    params: MergeParams, steps: Sequence[int], shapes: Mapping[str, tuple[int, ...]], layers: Layers
) -> Settings:
    return Settings(params, cache(lambda tensor: resolve(params, tensor, layers)), steps, shapes)


def check_method(variants: Sequence[MergeParams], count: int) -> Method:
    """Return the method, once its parameters fit it and so many checkpoints (BadInput otherwise)."""
    name = variants[0].method
    method = METHODS[name]
    _check_count(name, method, count)
    for params in variants:
        _check_parameters(params, method)
    return method


def _check_count(name: str, method: Method, count: int) -> None:
    if count < method.at_least:
        noun = "checkpoint is" if count == 1 else "checkpoints are"
        raise BadInput(f"nothing to merge: {count} {noun} named, and {name} needs {method.at_least}")
    if method.at_most is not None and count > method.at_most:
        raise BadInput(f"merge.method: {name} takes {method.at_most} checkpoints, but {count} are named")


def _check_parameters(params: MergeParams, method: Method) -> None:
    given = {"lam": params.lam is not None, "weights": params.weights != "uniform"}
    for key, is_given in given.items():
        if is_given and key not in method.sections:
            raise BadInput(f"merge.{key}: method {params.method} does not read it; leave it out")


def written_dtype(found: set[str], params: MergeParams) -> str:
    """Return what a tensor is written as: the checkpoints' own dtype, the wider where they differ."""
    if not found <= set(FLOATING):
        return found.pop()
    if params.dtype != "auto":
        return DTYPES[params.dtype]
    if len(found) == 1:
        return found.pop()
    return "F64" if "F64" in found else "F32"
