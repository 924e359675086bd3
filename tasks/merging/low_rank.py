"""Merging low-rank matrices in the span of their factors, without multiplying them out.

With U and V orthonormal bases of all columns and all rows, ΔW_i = U C_i Vᵀ with small cores C_i. A method
that is linear in the ΔW_i, or weighs them by norms and angles, does to the ΔW_i what it does to the cores; so
does LoRE, whose problem is unitarily invariant and loses nothing outside the span.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tasks.base.errors import BadInput
from tasks.merging.block import Block
from tasks.merging.orthonormal import Basis, orthonormal
from tasks.parameters.merge import MergeParams

Matrix: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


class Products(NamedTuple):
    """Low-rank matrices B_i A_i, their factors side by side."""

    B: Matrix
    """m × Σr_i"""
    A: Matrix
    """Σr_i × n"""
    ranks: Sequence[int]


def abreast(products: Sequence[tuple[Matrix, Matrix]]) -> Products:
    """Return products B_i A_i (m × r_i times r_i × n)."""
    columns, rows = zip(*products, strict=True)
    return Products(np.hstack(columns), np.vstack(rows), [B.shape[1] for B in columns])


class Span(NamedTuple):
    """N low-rank matrices m × n, ΔW_i = U C_i Vᵀ."""

    U: Basis
    """m × k"""
    V: Basis
    """n × l"""
    cores: list[Matrix]
    """C_i, k × l"""


def span(products: Products) -> Span:
    """Return the joint span of products."""
    U, left = orthonormal(products.B)
    V, right = orthonormal(products.A.T)
    return Span(U, V, [left[:, part] @ right[:, part].T for part in slices_of(products.ranks)])


def slices_of(ranks: Sequence[int]) -> list[slice]:
    """Return where each product's factors lie."""
    return [slice(end - rank, end) for end, rank in zip(accumulate(ranks), ranks, strict=True)]


def core_block(tensor: str, within: Span) -> Block:
    """Return the cores as a block."""
    return Block(tensor, 0, 0, within.cores, np.zeros_like(within.cores[0]))  # the base is where ΔW = 0


def factored(
    within: Span, core: Matrix, rounding: float, at_most: int | None = None
) -> tuple[Matrix, Matrix]:
    """Return U·core·Vᵀ as B (m × r) times A (r × n), r its numerical rank, at least 1.

    Singular values up to `rounding` · σ_1 are left out; the others are shared evenly by the two factors. Of
    larger rank than `at_most` it is the nearest matrix of that rank (Eckart and Young 1936).
    """
    P, sigma, Qt = np.linalg.svd(core, full_matrices=False)
    rank = max(1, int((sigma > rounding * sigma[0]).sum()))
    rank = min(rank, at_most or rank)
    root = np.sqrt(sigma[:rank])
    return within.U.times(P[:, :rank] * root), within.V.turned_times(Qt[:rank] * root[:, None])


def rank_rounding(dtype: str) -> float:
    """Return the share of σ_1 below which a singular value is rounding, by the dtype written.

    The computation is float64, and dtypes narrower than that keep no more than float32.
    """
    return 1e-14 if dtype == "F64" else 1e-7


ADVICE = "set merge.full to merge these adapters into a full model"


def check_no_span(params: MergeParams) -> None:
    """Raise BadInput: the method needs the elements of the matrices, or the base beneath them."""
    raise BadInput("merge.method", f"{params.method} works on elements, not on low-rank factors", ADVICE)


def check_any_span(params: MergeParams) -> None:
    """Accept: the method commutes with a change of basis and stays in the span."""


def check_weighed_span(params: MergeParams) -> None:
    """Raise BadInput where the weights come from norms of what lies beneath the factors."""
    if params.weights == "nan" and params.nan.of == "weights":
        raise BadInput(
            "merge.nan.of", "weights are unknown where adapters are merged", f"set task_vectors, or {ADVICE}"
        )
