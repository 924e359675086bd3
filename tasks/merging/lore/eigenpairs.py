"""The eigenpairs of a symmetric matrix above a limit, by LAPACK's syevr.

torch and numpy decompose in full, which takes four times as long where a tenth of the vectors is wanted.
scipy.linalg.eigh can leave the rest out, but holds the interpreter's lock, so that two threads take turns;
called through scipy.linalg.cython_lapack, the interface meant for that, the same routine runs beside others.
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
ROUTINES = {torch.float32: "ssyevr", torch.float64: "dsyevr"}


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
    support = np.empty(2 * n, np.intc)
    scalar = ctypes.c_float if G.dtype == torch.float32 else ctypes.c_double

    def call(work: Tensor, integers: Any, lwork: int, liwork: int) -> None:
        _routine(ROUTINES[G.dtype])(
            b"V", kind, b"L", _integer(n), _address(G), _integer(n),
            *(ctypes.byref(scalar(limit)) for limit in limits), *map(_integer, places),
            ctypes.byref(scalar(0.0)), ctypes.byref(found), _address(values), _address(vectors), _integer(n),
            support.ctypes.data_as(ctypes.c_void_p), _address(work), _integer(lwork),
            integers.ctypes.data_as(ctypes.c_void_p), _integer(liwork), ctypes.byref(info),
        )  # fmt: skip

    sizes, counts = G.new_empty(1), np.empty(1, np.intc)
    call(sizes, counts, -1, -1)  # asks for the sizes of the work arrays
    lwork, liwork = int(sizes[0]), int(counts[0])
    call(G.new_empty(lwork), np.empty(liwork, np.intc), lwork, liwork)
    if info.value:
        raise np.linalg.LinAlgError(f"{ROUTINES[G.dtype]} failed ({info.value})")
    k = found.value
    return EigenPairs(values[:k].flip(-1), vectors[:k].T.flip(-1))


def _address(array: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.data_ptr())


def _integer(value: int) -> Any:
    return ctypes.byref(ctypes.c_int(value))


@cache
def _routine(name: str) -> Any:
    """Return a LAPACK routine that is called without the interpreter's lock."""
    capsule = cython_lapack.__pyx_capi__[name]
    signature = ctypes.pythonapi.PyCapsule_GetName
    signature.restype, signature.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 21)(pointer(capsule, signature(capsule)))
