"""Arithmetic on stored numbers that is written down first and done later, in one pass.

A method is written for arrays. Given a `Deferred` for each checkpoint, its operators build an expression
instead of computing: numpy hands each of its element-wise functions to `__array_ufunc__` (NEP 13), and tells
which dtype its result has. What asks for numbers gets them from one compiled loop over the expression
(kernels.py), operation by operation as the method says, and so the same bits that numpy gives step by step.
What no loop can do (sorting, broadcasting, sums) numpy does with the numbers.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from tasks.merging import kernels, loop_source
from tasks.merging.kernels import Buffer, Loop
from tasks.merging.loop_source import DECODED, Step

Operand: TypeAlias = "Deferred | Buffer | float"

LOOP_KINDS = {np.dtype(own): np.dtype(own).str[1:] for own in (np.float32, np.float64, np.int32, np.bool_)}
"""What a loop can hold."""
READ = {*DECODED, "load"}
"""Operations whose operand is an array."""
SCALARS = (float, int, np.generic)


class Deferred(NDArrayOperatorsMixin):
    """An element-wise expression over arrays of one shape, which must not change until it is computed."""

    __slots__ = ("dtype", "kind", "operands", "operation", "shape")

    def __init__(
        self, operation: str, operands: tuple[Operand, ...], dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> None:
        self.operation = operation
        self.operands = operands
        self.dtype = dtype
        self.kind = LOOP_KINDS[dtype]
        self.shape = shape

    @property
    def size(self) -> int:
        """How many elements it has."""
        return int(np.prod(self.shape, dtype=np.int64))

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        """Convert the numbers, as numpy does."""
        target = np.dtype(dtype)
        if target == self.dtype:
            return self
        if target not in LOOP_KINDS or not loop_source.converts(self.kind, LOOP_KINDS[target]):
            return self.numpy().astype(target)
        return Deferred("astype", (self,), target, self.shape)

    def view(self, dtype: Any) -> Any:
        """See the bits of the numbers as another dtype."""
        target = np.dtype(dtype)
        if (self.kind, LOOP_KINDS.get(target)) not in loop_source.VIEW:
            return self.numpy().view(target)
        return Deferred("view", (self,), target, self.shape)

    def numpy(self) -> Buffer:
        """Compute the numbers."""
        out = np.empty(self.shape, self.dtype)
        self.write(out)
        return out

    def write(self, out: Buffer) -> None:
        """Compute the numbers into an array of their dtype that lies in order."""
        kernels.compute(_loop(self), self.kind, out.reshape(-1))

    def rounded(self, dtype: str, out: Buffer) -> Buffer | None:
        """Compute the numbers, rounded once to a dtype of safetensors, into a flat array; return that.

        None where no loop can round them so.
        """
        return kernels.compute(_loop(self), dtype, out) if loop_source.rounds(self.kind, dtype) else None

    def tallied(self, size: int, where: "Deferred | None" = None) -> Buffer:
        """Count how often each integer below `size` occurs, among all elements or where a mask holds."""
        return kernels.count(_loop(self) if where is None else _loop(self, where), size)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """Write down a function that a loop can compute; else compute with numpy."""
        if "out" in options and isinstance(options["out"][0], Deferred):
            del options["out"]  # of `a += b`: what is returned takes a's place
        if method == "__call__" and not options:
            return self._written(ufunc, inputs)
        return getattr(ufunc, method)(*map(_numbers, inputs), **options)

    def _written(self, ufunc: np.ufunc, inputs: tuple[Any, ...]) -> Any:
        """Write down a function of this and other operands; else compute it with numpy."""
        types = _types(ufunc, *[_type(own) for own in inputs])
        operands = _operands(inputs, types, self.shape) if types else None
        if types and operands:
            return Deferred(ufunc.__name__, operands, types[-1], self.shape)
        return ufunc(*map(_numbers, inputs))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Buffer:
        return self.numpy() if dtype is None else self.numpy().astype(dtype, copy=False)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.numpy(), name)  # sums, reshape and all else that an array can do

    def __getitem__(self, key: Any) -> Any:
        return self.numpy()[key]

    def __len__(self) -> int:
        return self.shape[0]

    def __bool__(self) -> bool:
        return bool(self.numpy())


def _operator(ufunc: np.ufunc, reflected: bool) -> Callable[[Deferred, Any], Any]:
    name = ufunc.__name__
    known: dict[tuple[str, Any], np.dtype[Any]] = {}  # the result's dtype, where no operand is converted

    def operator(self: Deferred, other: Any) -> Any:
        alike = type(other) is Deferred and other.shape == self.shape
        kinds = self.kind, other.kind if alike else type(other)
        operands = (other, self) if reflected else (self, other)
        if (dtype := known.get(kinds)) is not None:
            return Deferred(name, operands, dtype, self.shape)
        written = self._written(ufunc, operands)
        if (alike or type(other) is float) and isinstance(written, Deferred):
            kept = all(own is given for own, given in zip(written.operands, operands, strict=True))
            known.update({kinds: written.dtype} if kept else {})
        return written

    return operator


for _name, _ufunc in {"add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide,
                      "and": np.bitwise_and, "rshift": np.right_shift}.items():  # fmt: skip
    # as the mixin would, without the way through numpy, which takes as long again
    setattr(Deferred, f"__{_name}__", _operator(_ufunc, reflected=False))
    setattr(Deferred, f"__r{_name}__", _operator(_ufunc, reflected=True))
for _name, _ufunc in {"gt": np.greater, "lt": np.less, "ge": np.greater_equal, "le": np.less_equal,
                      "eq": np.equal}.items():  # fmt: skip
    setattr(Deferred, f"__{_name}__", _operator(_ufunc, reflected=False))


def defer(raw: Buffer, dtype: str, compute: type[np.floating[Any]], shape: tuple[int, ...]) -> Deferred:
    """Return stored numbers of a floating dtype of safetensors as `compute`, decoded when they are needed."""
    return Deferred(dtype, (raw,), np.dtype(compute), shape)


def written_down(array: Buffer) -> Deferred:
    """Return an array as an expression."""
    return Deferred("load", (array.reshape(-1),), array.dtype, array.shape)


def totals_of(expressions: Sequence[Deferred]) -> list[float]:
    """Return the sum of each of some expressions of the same elements, added up in float64, in one pass."""
    totals: list[float] = kernels.accumulate(_loop(*expressions)).tolist()
    return totals


def _loop(*results: Deferred) -> Loop:
    """Write expressions as one body, what they share once."""
    body = _Body()
    places = tuple([body.place(own, own.kind) for own in results])
    return Loop(tuple(body.steps), places, body.arrays, body.constants)


class _Body:
    """Steps that are being written. Not a closure: as a circle it would keep arrays until it is collected."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.arrays: list[Any] = []
        self.constants: list[float] = []
        self._places: dict[int, int] = {}

    def place(self, own: Operand, kind: str) -> int:
        """Return where an operand of this kind is computed."""
        known = self._places.get(id(own))
        if known is not None:
            return known
        steps = self.steps
        if isinstance(own, Deferred):
            operands = own.operands
            if own.operation in READ:
                step: Step = (own.operation, own.kind, (self._read(operands[0]),))
            elif len(operands) == 1:
                step = (own.operation, own.kind, (self.place(operands[0], operands[0].kind),))  # type: ignore[union-attr]
            else:
                left, right = operands
                of = (left if isinstance(left, Deferred) else right).kind  # type: ignore[union-attr]
                step = (own.operation, own.kind, (self.place(left, of), self.place(right, of)))
        elif isinstance(own, np.ndarray):
            step = ("load", kind, (self._read(own),))
        else:  # constants of one value are not shared: the form of a loop must not depend on values
            self.constants.append(float(own))
            steps.append(("constant", kind, (len(self.constants) - 1,)))
            return len(steps) - 1
        steps.append(step)
        self._places[id(own)] = place = len(steps) - 1
        return place

    def _read(self, array: Any) -> int:
        self.arrays.append(array)
        return len(self.arrays) - 1


def _operands(
    inputs: Sequence[Any], types: Sequence[np.dtype[Any]], shape: tuple[int, ...]
) -> tuple[Operand, ...] | None:
    """Return operands in the dtypes that a function computes in; None where they are not of one shape."""
    operands: list[Any] = []
    for own, dtype in zip(inputs, types, strict=False):
        if isinstance(own, SCALARS):
            operands.append(own)
        elif own.shape == shape:
            operands.append(own if own.dtype is dtype else _converted(own, dtype))
        else:
            return None
    return tuple(operands)


def _converted(own: Any, dtype: np.dtype[Any]) -> Any:
    """Return an array in another dtype; a mask, which DARE has for every element, when it is needed."""
    if isinstance(own, np.ndarray) and own.dtype == np.bool_:
        own = Deferred("load", (own,), own.dtype, own.shape)
    return own.astype(dtype)


@cache
def _types(ufunc: np.ufunc, *types: Any) -> tuple[np.dtype[Any], ...] | None:
    """Return the dtypes of operands and result, as numpy promotes them; None where no loop computes that.

    Of a Python number, which takes the dtype of the others, the type is given.
    """
    try:
        *wanted, result = ufunc.resolve_dtypes((*types, None))
    except TypeError:
        return None
    given = [own if isinstance(own, np.dtype) else to for own, to in zip(types, wanted, strict=True)]
    if any(dtype not in LOOP_KINDS for dtype in [*given, *wanted, result]):
        return None
    kinds = [LOOP_KINDS[dtype] for dtype in wanted]
    if not loop_source.computes(ufunc.__name__, kinds):
        return None
    convert = all(loop_source.converts(LOOP_KINDS[own], to) for own, to in zip(given, kinds, strict=True))
    return (*wanted, result) if convert else None


def _type(own: Any) -> Any:
    return own.dtype if isinstance(own, Deferred) else getattr(own, "dtype", type(own))


def _numbers(own: Any) -> Any:
    return own.numpy() if isinstance(own, Deferred) else own
