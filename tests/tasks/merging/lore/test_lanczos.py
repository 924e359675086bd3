"""Of several problems each has its own bound, and those that go on keep theirs."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merging.lore.algebra import gaussian
from tasks.merging.lore.curvature import Coordinates, Curvature
from tasks.merging.lore.lanczos import looks
from tests.support.lore_curvature_reference import hessian
from tests.support.lore_matrices import TRAJECTORIES, trajectory
from tests.support.lore_reference import Array

SHAPE = (6, 5)


def curvature_of(Bs: list[Array]) -> Curvature:
    """Return that at z = 0 and μ = 1, where every singular value is known."""
    U, sigma, Vt = (torch.from_numpy(part) for part in np.linalg.svd(np.stack(Bs), full_matrices=False))
    known = Coordinates(U.mT.contiguous(), sigma, Vt)
    return Curvature(known, (1.0, 1.0), lambda s: (s - 1).clamp(min=0) / s.clamp(min=1e-12))


@given(
    kinds=st.lists(st.sampled_from(list(TRAJECTORIES)), min_size=1, max_size=4),
    N=st.integers(3, 5),
    seed=st.integers(0, 99),
    place=st.floats(0.2, 0.95),
)
@settings(max_examples=40, deadline=None)
def test_each_bound_is_no_more_than_the_smallest_eigenvalue_and_each_estimate_no_less(
    kinds: list[str], N: int, seed: int, place: float
) -> None:
    Bs = []
    for kind in kinds:
        B = trajectory(kind, N, *SHAPE, seed)
        sigma = np.sort(np.linalg.svd(B, compute_uv=False).ravel())
        Bs.append(B / max(0.999 * sigma[int(place * (len(sigma) - 1))], 1e-3 * sigma[-1]))
    lowest = [np.linalg.eigvalsh(hessian(B, np.zeros(SHAPE), 1.0))[0] for B in Bs]
    start = gaussian(*SHAPE, like=torch.empty(0, dtype=torch.float64)).expand(len(Bs), *SHAPE)
    search, going = looks(curvature_of(Bs), N, start), list(range(len(Bs)))
    told = next(search)
    for _ in range(3):
        for k, look in zip(going, told, strict=True):
            assert look.bound <= lowest[k] + 1e-6 * N
            assert look.estimate >= lowest[k] - 1e-6 * N
        kept = [j for j, look in enumerate(told) if not look.exhausted][1:]  # and one of them leaves
        if not kept:
            break
        going = [going[j] for j in kept]
        told = search.send(kept)
