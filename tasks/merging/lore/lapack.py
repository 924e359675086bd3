"""What torch does not call of LAPACK: leading eigenpairs, and Cholesky factors of packed triangles.

torch and numpy decompose in full, which takes four times as long where a tenth of the vectors is wanted.
scipy.linalg.lapack holds the interpreter's lock while a routine runs, so that two threads take turns; called
through scipy.linalg.cython_lapack, the interface meant for that, the same routine runs beside others.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.linalg import cython_lapack
from torch import Tensor

MANY = 0.3
"""Share of the pairs from where on a full decomposition is faster."""
PREFIXES = {torch.float32: "s", torch.float64: "d"}
REALS = {torch.float32: ctypes.c_float, torch.float64: ctypes.c_double}


class EigenPairs(NamedTuple):
    """Eigenvalues, descending, and their vectors."""

    values: Tensor
    """k"""
    vectors: Tensor
    """n × k"""


def eigenpairs_above(G: Tensor, limit: float, expected: int) -> EigenPairs:
    """Return the eigenpairs of G (n × n, overwritten) whose value exceeds the limit.

    `expected` is about how many there are.
    """
    if G.is_cuda or expected > MANY * len(G):
        return _largest(G, lambda values: int((values > limit).sum()))
    # every eigenvalue is at most the largest sum of a row
    upper = float(torch.linalg.matrix_norm(G, float("inf")))
    if upper <= limit:
        return EigenPairs(G.new_empty(0), G.new_empty(len(G), 0))
    return _syevr(G, b"V", (limit, 2 * upper), (0, 0))


def leading_eigenpairs(G: Tensor, count: int) -> EigenPairs:
    """Return the largest eigenpairs of G (n × n, overwritten)."""
    if G.is_cuda or count > MANY * len(G):
        return _largest(G, lambda values: min(count, len(values)))
    return _syevr(G, b"I", (0.0, 0.0), (len(G) - count + 1, len(G)))


def _largest(G: Tensor, count: Callable[[Tensor], int]) -> EigenPairs:
    # a GPU takes as long in float64, and its float32 is off by more than LAPACK's
    values, vectors = (part.to(G.dtype) for part in torch.linalg.eigh(G.double() if G.is_cuda else G))
    first = len(G) - count(values)
    return EigenPairs(values[first:].flip(-1), vectors[:, first:].flip(-1))


def _syevr(G: Tensor, kind: bytes, limits: tuple[float, float], places: tuple[int, int]) -> EigenPairs:
    """Return the pairs between two values (kind V), or at these places, ascending from 1 (kind I)."""
    n = len(G)
    values, vectors = G.new_empty(n), G.new_empty(n, n)  # LAPACK writes columns: rows of this array
    found, info = ctypes.c_int(), ctypes.c_int()
    support = torch.empty(2 * n, dtype=torch.int32)

    def find(work: Tensor, integers: Tensor, lwork: int, liwork: int) -> None:
        _call(
            "syevr", G, b"V", kind, b"L", n, G, n, *map(float, limits), *places, 0.0, found, values, vectors,
            n, support, work, lwork, integers, liwork, info,
        )  # fmt: skip

    sizes, counts = G.new_empty(1), torch.empty(1, dtype=torch.int32)
    find(sizes, counts, -1, -1)  # asks for the sizes of the work arrays
    lwork, liwork = int(sizes[0]), int(counts[0])
    find(G.new_empty(lwork), torch.empty(liwork, dtype=torch.int32), lwork, liwork)
    if info.value:
        raise np.linalg.LinAlgError(f"syevr failed ({info.value})")
    k = found.value
    return EigenPairs(values[:k].flip(-1), vectors[:k].T.flip(-1))


class PackedTriangle:
    """A symmetric matrix as one triangle, half the memory, in LAPACK's rectangular full packed format.

    That is computed in blocks, in the time of a whole matrix.
    """

    def __init__(self, n: int, diagonal: float, like: Tensor) -> None:
        """Begin with a multiple of the unit matrix n × n."""
        self._n, self._elements = n, like.new_zeros(n * (n + 1) // 2)
        self._elements[packed_diagonal(n)] = diagonal

    def subtract_product(self, W: Tensor) -> None:
        """Subtract WᵀW."""
        _call("sfrk", W, b"N", b"U", b"N", self._n, len(W), -1.0, W, self._n, 1.0, self._elements)

    def factor(self) -> bool:
        """Put the Cholesky factor in its place; tell whether there is one."""
        info = ctypes.c_int()
        _call("pftrf", self._elements, b"N", b"U", self._n, self._elements, info)
        return info.value == 0


def packed_diagonal(n: int) -> Tensor:
    """Return where that format has the diagonal of an upper triangle n × n."""
    half = n // 2
    # the second half of the triangle lies as it is, with the first, transposed, below its diagonal
    rows, j = n + 1 - n % 2, torch.arange(n - half)
    return torch.cat([j[:half] * rows + half + 1 + j[:half], j * rows + half + j])


def _call(name: str, like: Tensor, *arguments: Any) -> None:
    """Call a routine, named without its precision, in that of a tensor.

    Tensors are passed where they lie, bytes as characters, int and float as numbers, ctypes by reference.
    """
    given = [_passed(own, like) for own in arguments]
    _routine(PREFIXES[like.dtype] + name, len(given))(*given)


def _passed(own: Any, like: Tensor) -> Any:
    """Return an argument as Fortran takes it: by its address."""
    if isinstance(own, int):
        return ctypes.byref(ctypes.c_int(own))
    if isinstance(own, float):
        return ctypes.byref(REALS[like.dtype](own))
    if isinstance(own, torch.Tensor):
        return ctypes.c_void_p(own.data_ptr())
    return own if isinstance(own, bytes) else ctypes.byref(own)


@cache
def _routine(name: str, arguments: int) -> Callable[..., None]:
    capsule = cython_lapack.__pyx_capi__[name]
    signature = ctypes.pythonapi.PyCapsule_GetName
    signature.restype, signature.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    address = pointer(capsule, signature(capsule))
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)(address)
