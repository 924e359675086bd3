"""The smallest value of N − ΣK_i, bounded by Lanczos from a random start; of several problems at once."""

import math
from collections.abc import Generator, Sequence
from typing import NamedTuple, Protocol, Self

import torch

from tasks.merging.lore.algebra import Tensor, inner_each

DOUBT = 1e-6
"""The probability, over the random start, that the bound is wrong."""
CHECK = 10
"""Steps between two looks at the bound."""
CLOSELY = 0.05
"""Share of a bound to which it is computed."""


NEGLIGIBLE = 0.01
"""A value that is not told from 0."""


class Sum(Protocol):
    """ΣK_i, symmetric; of several problems at once, maybe."""

    def of(self, X: Tensor) -> Tensor:
        """Return ΣK_i(X)."""

    def __getitem__(self, problems: Tensor) -> Self:
        """Return that of some of several problems."""


class Bounds(NamedTuple):
    """What some steps tell of the smallest value."""

    steps: int
    estimate: float
    """Never below it."""
    bound: float
    """Never above it."""
    exhausted: bool


def looks(curvature: Sum, N: int, start: Tensor) -> Generator[list[Bounds], list[int] | None, None]:
    """Bound the smallest value on cores p × q better and better; of several problems, … × p × q, of each.

    Sending the positions of some among those that were looked at goes on with these alone.
    """
    order = math.prod(start.shape[-2:])
    here = start / torch.linalg.matrix_norm(start, keepdim=True)
    before, beta = torch.zeros_like(here), inner_each(here, here) * 0
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    while True:
        image = curvature.of(here).addcmul_(before, beta, value=-1)
        alpha = inner_each(image, here)
        image.addcmul_(here, alpha, value=-1)
        beta = inner_each(image, image).sqrt_()
        # not after as many steps as there are directions: rounding may have hidden some
        exhausted = (beta < 1e-6 * N).flatten().tolist()
        beta.clamp_(min=1e-30)
        diagonal.append(alpha.flatten())
        beside.append(beta.flatten())
        k = len(diagonal)
        if k % CHECK == 0 or any(exhausted):
            own, next_to = torch.stack(diagonal, 1).double(), torch.stack(beside, 1).double()
            T = torch.diag_embed(own) + torch.diag_embed(next_to[:, :-1], -1)
            largest = torch.linalg.eigvalsh(T.cpu())[:, -1].tolist()
            found = zip(own.tolist(), next_to.tolist(), largest, exhausted, strict=True)
            going = yield [
                Bounds(k, N - top, N - _most(a, b, top, N, order), ended) for a, b, top, ended in found
            ]
            if going is not None:
                some = torch.tensor(going, device=here.device)
                curvature, here, image, beta = curvature[some], here[some], image[some], beta[some]
                diagonal, beside = [one[some] for one in diagonal], [one[some] for one in beside]
        before, here = here, image.div_(beta)


def _most(diagonal: Sequence[float], beside: Sequence[float], largest: float, N: int, order: int) -> float:
    """Return what no eigenvalue exceeds, given the tridiagonal matrix of Lanczos and its largest value.

    An eigenvalue λ has in the random start a weight, of which no more than 1/Σp_j(λ)² is compatible with that
    matrix, p_j its orthonormal polynomials. It is less than DOUBT² π/2d with a probability of at most DOUBT
    (van Dorsselaer, Hochstenbach and van der Vorst 2000).
    """
    least = DOUBT**2 * math.pi / (2 * order)
    low, high = largest, float(N)  # which it never exceeds
    while high - low > CLOSELY * (N - high):
        middle = (low + high) / 2
        p, before, total, last = 1.0, 0.0, 1.0, 0.0
        for own, following in zip(diagonal, beside, strict=True):
            before, p = p, ((middle - own) * p - last * before) / following
            last = following
            total += p * p
            if total * least > 1:
                break
        low, high = (low, middle) if total * least > 1 else (middle, high)
        if N - low < NEGLIGIBLE:
            break
    return high
