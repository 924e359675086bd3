"""An orthonormal basis of a few long columns: by their Gram matrix, else by Householder reflections."""

from typing import Any, TypeAlias

import numpy as np

Columns: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

MOST_CONDITION = 1e5
"""Of the columns, scaled to equal length: what a triangle's inverse loses stays below 1e-11."""


def orthonormal(columns: Columns) -> tuple[Columns, Columns]:
    """Return Q with orthonormal columns and R with QR = `columns`, m × k.

    By a Gram matrix Q is orthonormal to the square of the condition, so it is done twice, in half the time of
    reflections (Yamamoto et al. 2015, CholeskyQR2).
    """
    once = _by_gram(columns)
    twice = once and _by_gram(once[0])
    if not once or not twice:
        Q, R = np.linalg.qr(columns)
        return Q, R
    return twice[0], twice[1] @ once[1]


def _by_gram(columns: Columns) -> tuple[Columns, Columns] | None:
    """Return Q and R, or None where the columns are nearly dependent, zero, or too large to be squared."""
    with np.errstate(over="ignore", invalid="ignore"):
        gram = columns.T @ columns
        try:
            L = np.linalg.cholesky(gram)
            inverse = np.linalg.inv(L)
        except np.linalg.LinAlgError:
            return None
        # a bound, because that of L with rows scaled to length 1 is at most √k times the norm of its inverse
        condition = np.linalg.norm(inverse * np.sqrt(np.diag(gram))) * len(L) ** 0.5
    if not condition <= MOST_CONDITION:  # NaN, too
        return None
    Q: Columns = columns @ inverse.T
    return Q, np.asarray(L.T, np.float64)  # numpy's stubs do not know
