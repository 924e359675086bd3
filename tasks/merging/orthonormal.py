"""An orthonormal basis of a few long columns: by their Gram matrix, else by Householder reflections."""

from typing import Any, NamedTuple, TypeAlias

import numpy as np

Columns: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

MOST_CONDITION = 1e5
"""Of the columns, scaled to equal length: what a triangle's inverse loses stays below 1e-11."""
ONCE = 100.0
"""Condition up to which once by a Gram matrix is enough: the basis is orthonormal to 1e-12."""

LEAST_SQUARE = 1e-280
"""Below it squares lose digits."""


class Basis(NamedTuple):
    """Orthonormal columns Q, m × k, as a product that is not multiplied out: they are long."""

    columns: Columns
    """m × k"""
    inverse: Columns
    """k × k"""

    def times(self, core: Columns) -> Columns:
        """Return Q·core."""
        product: Columns = self.columns @ (self.inverse @ core)
        return product

    def turned_times(self, core: Columns) -> Columns:
        """Return core·Qᵀ."""
        product: Columns = (core @ self.inverse.T) @ self.columns.T
        return product

    @property
    def matrix(self) -> Columns:
        """Return Q."""
        product: Columns = self.columns @ self.inverse
        return product


def orthonormal(columns: Columns) -> tuple[Basis, Columns]:
    """Return Q with orthonormal columns and R with QR = `columns`, m × k.

    By a Gram matrix Q is orthonormal to the square of the condition, so where that is large it is done
    twice, in half the time of reflections (Yamamoto et al. 2015, CholeskyQR2).
    """
    once = _by_gram(columns)
    if once and once[2] <= ONCE:
        return once[:2]
    twice = once and _by_gram(once[0].matrix)
    if not once or not twice:
        Q, R = np.linalg.qr(columns)
        return Basis(Q, np.eye(Q.shape[1])), R
    return twice[0], twice[1] @ once[1]


def _by_gram(columns: Columns) -> tuple[Basis, Columns, float] | None:
    """Return Q, R and a bound on the condition; None where it, or a column, is too large."""
    with np.errstate(over="ignore", invalid="ignore"):
        gram = columns.T @ columns
        try:
            L = np.linalg.cholesky(gram)
            inverse = np.linalg.inv(L)
        except np.linalg.LinAlgError:
            return None
        # a bound, because that of L with rows scaled to length 1 is at most √k times the norm of its inverse
        condition = float(np.linalg.norm(inverse * np.sqrt(np.diag(gram))) * len(L) ** 0.5)
    if not condition <= MOST_CONDITION or np.diag(gram).min() < LEAST_SQUARE:  # NaN, too
        return None
    return Basis(columns, inverse.T), np.asarray(L.T, np.float64), condition  # numpy's stubs do not know
