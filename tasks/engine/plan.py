"""Everything about a merge that can be known, and checked, before any arithmetic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from tasks.checkpoints.agreement import check_agreement
from tasks.checkpoints.header import FLOATING
from tasks.checkpoints.numbers import compute_dtype
from tasks.checkpoints.weights import Source
from tasks.engine.cut import BLOCK, as_stack
from tasks.engine.shards import Spec, Stored
from tasks.engine.tied import stored_twice
from tasks.errors import BadInput
from tasks.merge_params import MergeParams
from tasks.merging.layers import Layers
from tasks.merging.methods import METHODS, Method
from tasks.merging.program import Settings
from tasks.varying import resolve

DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True)
class Plan:
    """A merge that nothing is known to stand in the way of."""

    inputs: Sequence[Source]
    base: Source | None
    settings: Settings
    spec: Spec
    """What is written, in the order of the files."""

    @property
    def method(self) -> Method:
        """The row of the table."""
        return METHODS[self.settings.params.method]

    @cached_property
    def groups(self) -> list[list[str]]:
        """Names of floating tensors that are measured together: each alone, or all."""
        floating = list(self.settings.shapes)
        return [floating] if self.method.spans_model(self.settings.params) else [[name] for name in floating]

    @property
    def bytes_read(self) -> int:
        """Of one pass over all inputs."""
        return sum(info.end - info.start for source in self.sources for info in source.tensors.values())

    @property
    def bytes_written(self) -> int:
        """Of the weight files, without their headers."""
        return sum(stored.size for stored in self.spec.values())

    @property
    def sources(self) -> list[Source]:
        """The checkpoints, and the base if there is one."""
        return [*self.inputs, *([self.base] if self.base else [])]

    @property
    def bytes_held(self) -> int:
        """Estimate of the memory that one thread's arrays take at most."""
        return max(self._held(name) for group in self.groups for name in group) if self.groups else 0

    def _held(self, name: str) -> int:
        _, rows, columns = as_stack(self.spec[name].shape)
        whole = self.method.whole
        elements = rows * columns if whole else min(rows * columns, max(BLOCK, columns))
        width = 8 if whole else compute_dtype(self.spec[name].dtype)().itemsize
        return elements * width * (ARRAYS_WHOLE if whole else ARRAYS) * len(self.sources)


ARRAYS, ARRAYS_WHOLE = 4, 6
"""Arrays of a block's size that a method holds for each checkpoint, measured generously."""


def make_plan(
    params: MergeParams, inputs: Sequence[Source], base: Source | None, steps: Sequence[int]
) -> Plan:
    """Check that these models can be merged by this method, and say what will be written.

    Raises BadInput naming what does not fit.
    """
    method = check_method(params, len(inputs))
    if method.base == "required" and base is None:
        raise BadInput(f"merge.base: {params.method} needs the model the checkpoints started from; name it")
    check_agreement(inputs, base)
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
    settings = make_settings(params, steps, floating, Layers.of(names))
    method.check(settings)
    return Plan(inputs, base, settings, spec)


def make_settings(
    params: MergeParams, steps: Sequence[int], shapes: Mapping[str, tuple[int, ...]], layers: Layers
) -> Settings:
    """Return the settings of a merge, parameters that vary over the layers resolved for each tensor."""
    at = cache(lambda tensor: resolve(params, tensor, layers))
    return Settings(params, at, steps, shapes)


def check_method(params: MergeParams, count: int) -> Method:
    """Return the method, once its parameters fit it and so many checkpoints (BadInput otherwise)."""
    method = METHODS[params.method]
    _check_count(params.method, method, count)
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
