"""Low-rank matrices as factors, matrices less such ones, and the norms and inner products of both."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch

Tensor = torch.Tensor
ROWS, ROWS_ON_GPU = 2**8, 2**13
"""Rows of a matrix that are computed at a time, so that none is held twice; on a GPU calls take the time."""
STRIPS, STRIP_FROM = 4, 2**10
"""Of a Gram matrix on a GPU, computed up to the diagonal; and columns from where on that gains."""
SEED = 0
"""Of the random starting blocks: fixed, so that the same matrices always give the same bytes."""
ROUNDING = 8
"""Of products, in units of ε: of a matrix's norm for residuals."""
WIDE = 0.18
"""Elements of the factors for each of the matrix, from where on it is multiplied out: products take less."""


class Factors(NamedTuple):
    """A low-rank matrix U diag(σ) Vᵀ, its singular values descending."""

    U: Tensor
    """m × r, orthonormal columns."""
    sigma: Tensor
    """r"""
    V: Tensor
    """n × r, orthonormal columns."""

    @property
    def rank(self) -> int:
        """The number of singular values."""
        return self.sigma.numel()

    @property
    def transposed(self) -> "Factors":
        """The transpose, V diag(σ) Uᵀ."""
        return Factors(self.V, self.sigma, self.U)

    def truncated(self, rank: int) -> "Factors":
        """Return the nearest matrix of at most this rank."""
        return Factors(self.U[..., :rank], self.sigma[..., :rank], self.V[..., :rank])

    def above(self, limit: float) -> "Factors":
        """Return the part whose singular values exceed the limit."""
        return self.truncated(int((self.sigma > limit).sum()))

    def thresholded(self, mu: float, level: float | None = None) -> "Factors":
        """Return the matrix with μ taken off the singular values above the level (μ), the others 0."""
        kept = self.above(mu if level is None else level)
        return kept._replace(sigma=kept.sigma - mu)

    def to(self, dtype: torch.dtype) -> "Factors":
        """Return the same matrix in another dtype."""
        return Factors(*(part.to(dtype) for part in self))

    def matrix(self) -> Tensor:
        """Return the m × n matrix, multiplied out."""
        return (self.U * self.sigma) @ self.V.T


class Spanned(NamedTuple):
    """A low-rank matrix U·core·Vᵀ."""

    U: Tensor
    """m × p"""
    core: Tensor
    """p × q"""
    V: Tensor
    """n × q"""
    whole: Tensor | None = None
    """m × n, where it is multiplied out."""

    @property
    def transposed(self) -> "Spanned":
        """The transpose, V·coreᵀ·Uᵀ."""
        return Spanned(self.V, self.core.T, self.U)

    def times(self, X: Tensor) -> Tensor:
        """Return this matrix times X, a few columns."""
        return (((X.mT @ self.V) @ self.core.T) @ self.U.T).mT  # where X is several, these are one product

    def within(self, U: Tensor, V: Tensor) -> Tensor:
        """Return Uᵀ·this·V."""
        return (U.T @ self.U) @ self.core @ (self.V.T @ V)

    def matrix(self) -> Tensor:
        """Return the m × n matrix, multiplied out."""
        return (self.U @ self.core) @ self.V.T if self.whole is None else self.whole

    def rows(self, own: Tensor, rows: slice) -> Tensor:
        """Return some rows, given U·core."""
        return own[rows] @ self.V.T if self.whole is None else self.whole[rows]

    def spread(self) -> "Spanned":
        """Return this, multiplied out where the factors are hardly smaller."""
        (m, p), (n, q) = self.U.shape, self.V.shape
        return self._replace(whole=self.matrix()) if m * p + n * q > WIDE * m * n else self


class Shifted(NamedTuple):
    """The matrix b − z, or several of them with one z."""

    b: Tensor
    """m × n, or N × m × n"""
    z: Spanned

    @property
    def shape(self) -> torch.Size:
        """That of b."""
        return self.b.shape

    @property
    def transposed(self) -> "Shifted":
        """The transpose."""
        return Shifted(self.b.mT, self.z.transposed)

    def matrix(self) -> Tensor:
        """Return the m × n matrix, subtracted."""
        return torch.addmm(self.b, self.z.U @ self.z.core, self.z.V.T, alpha=-1)


MatrixLike = Tensor | Shifted
"""One matrix, or several of a shape."""


class Norms(NamedTuple):
    """Norms at a z."""

    energy: float
    """‖z‖²"""
    length: float
    """‖step‖, step = −z − S/N; 0 at the minimum."""
    along: float
    """⟨step, z⟩"""


def zero(like: Tensor) -> Factors:
    """Return the factors of a zero matrix, of the shape of another."""
    m, n = like.shape
    return Factors(like.new_zeros(m, 0), like.new_zeros(0), like.new_zeros(n, 0))


def add_up(parts: Sequence[Factors]) -> Factors:
    """Return the sum of some matrices, by concatenating their factors; its columns are not orthonormal."""
    return Factors(*(torch.cat(own, dim=-1) for own in zip(*parts, strict=True)))


def inner(left: Factors, right: Factors) -> float:
    """Return ⟨left, right⟩ = Σ_jk σ_j τ_k ⟨u_j, p_k⟩⟨v_j, q_k⟩; the columns need not be orthonormal."""
    # r × r products instead of m × n matrices; float64, because gaps are small differences of such numbers
    overlap = (left.U.T @ right.U) * (left.V.T @ right.V)
    return float(left.sigma.double() @ overlap.double() @ right.sigma.double())


def inner_each(left: Tensor, right: Tensor) -> Tensor:
    """Return ⟨left, right⟩, of several problems … × 1 × 1."""
    return (left * right).sum((-2, -1), keepdim=True)


def gaussian(*shape: int, like: Tensor) -> Tensor:
    """Return normal random numbers, the same on every call and every device (drawn on the CPU)."""
    return _drawn(shape, like.dtype).to(like.device, copy=True)


@lru_cache(maxsize=16)
def _drawn(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(SEED), dtype=dtype)


def energy(B: Tensor) -> float:
    """Return Σ‖B_i‖_F²."""
    # Rows in their own precision, which avoids a float64 copy of B; only the long sum needs float64.
    return float(torch.linalg.vector_norm(B, dim=-1).double().square().sum())


def row_dot(left: Tensor, right: Tensor) -> float:
    """Return ⟨left, right⟩ of two dense matrices, summed as in `energy`."""
    # a few rows at a time, as products need memory
    return sum(
        float(torch.linalg.vecdot(left[rows], right[rows]).double().sum()) for rows in row_blocks(left)
    )


def product(A: Tensor, X: Tensor) -> Tensor:
    """Return AX, X a few columns: as (XᵀAᵀ)ᵀ, in half the time."""
    # where the right factor is the narrow one MKL takes twice as long at most widths, ten times at some
    return (X.mT @ A.mT).mT


def shifted(b: Tensor, z: Spanned) -> MatrixLike:
    """Return b − z."""
    return Shifted(b, z) if z.whole is None else b - z.whole


def times(A: MatrixLike, X: Tensor) -> Tensor:
    """Return AX, X a few columns."""
    return product(A.b, X) - A.z.times(X) if isinstance(A, Shifted) else product(A, X)


def transposed(A: MatrixLike) -> MatrixLike:
    """Return Aᵀ."""
    return A.transposed if isinstance(A, Shifted) else A.mT


def each(A: MatrixLike) -> Iterator[Tensor]:
    """Yield a matrix, or several, multiplied out."""
    if isinstance(A, Shifted):
        yield from (Shifted(b, A.z).matrix() for b in each(A.b))
    else:
        yield from [A] if A.ndim == 2 else A


def computed_together(B: Tensor, known: Sequence[Factors]) -> Iterator[tuple[Tensor, Sequence[Factors]]]:
    """Yield N matrices with what is known of each: one by one, on a GPU all at once."""
    if B.is_cuda:
        yield B, known
    else:
        yield from ((b, [own]) for b, own in zip(B, known, strict=True))


def rows_without(A: MatrixLike, found: Factors) -> Iterator[Tensor]:
    """Yield A − UΣVᵀ, a few rows at a time."""
    b, left, right, whole = A, found.U * found.sigma, found.V, None
    if isinstance(A, Shifted):
        b, whole = A.b, A.z.whole
        if whole is None:
            left, right = torch.cat([left, A.z.U @ A.z.core], 1), torch.cat([right, A.z.V], 1)
    assert isinstance(b, Tensor)
    for rows in row_blocks(b):
        rest = torch.addmm(b[rows], left[rows], right.T, alpha=-1)
        yield rest if whole is None else rest.sub_(whole[rows])


def row_blocks(A: Tensor) -> Iterator[slice]:
    """Yield the rows of a matrix, some at a time."""
    count = ROWS_ON_GPU if A.is_cuda else ROWS
    return (slice(first, first + count) for first in range(0, len(A), count))


def gram_matrix(Y: Tensor) -> Tensor:
    """Return YᵀY."""
    if Y.is_cuda:
        return _lower(Y) if Y.shape[1] >= STRIP_FROM else Y.T @ Y
    # numpy recognises array.T @ array and calls BLAS syrk, which computes one triangle: half the time
    array = Y.numpy()
    return torch.from_numpy(array.T @ array)


def _lower(Y: Tensor) -> Tensor:
    """Return YᵀY from its lower triangle, strip by strip."""
    n = Y.shape[1]
    G, width = Y.new_zeros(n, n), -(-n // STRIPS)
    for first in range(0, n, width):
        end = first + width
        torch.mm(Y[:, first:end].T, Y[:, :end], out=G[first:end, :end])
    return G.tril_() + G.tril(-1).T


def precise(B: Tensor) -> Tensor:
    """Return deviations in float64, summing to zero in float64 too."""
    return B if B.dtype == torch.float64 else _centred(B.double())


def single(B: Tensor) -> Tensor:
    """Return deviations in float32, summing to zero as well as that can."""
    return B if B.dtype == torch.float32 else _centred(B.float())


def _centred(B: Tensor) -> Tensor:
    # what sums to zero in one precision does so in the other only within the rounding of float32
    return B.sub_(B.mean(0))
