"""The naive loop that the solver is measured by: it is Algorithm 1."""

from itertools import islice

import pytest
import torch

from tests.benchmarks.algorithm_1 import algorithm_1, by_svd, ten_passes
from tests.benchmarks.spiked import deviations

B = deviations(3, 40, 30).double()


def test_singular_values_lose_mu() -> None:
    before, after = (torch.linalg.svdvals(A) for A in (B[0], by_svd(B[0], 5.0)))
    torch.testing.assert_close(after, (before - 5).clamp(min=0), atol=1e-9, rtol=0)


def test_it_ends_where_what_is_clipped_sums_to_zero() -> None:
    """Σ Clip_μ(θ_i − θ_0) = 0 (docs/mathematics.md, fact 4), by singular values of its own."""
    *_, last = islice(algorithm_1(B, 8.0), 400)
    U, sigma, Vt = torch.linalg.svd(B - last.anchor, full_matrices=False)
    clipped = ((U * sigma.clamp(max=8.0)[:, None]) @ Vt).sum(0)
    assert torch.linalg.matrix_norm(clipped) < 1e-4 * torch.linalg.matrix_norm(B).sum()


def test_ten_passes_are_ten() -> None:
    tenth = list(islice(algorithm_1(B, 8.0), 10))[-1]
    torch.testing.assert_close(ten_passes(B, 8.0), tenth.deltas.sum(0))


@pytest.mark.parametrize("N", [2, 3])
def test_deviations_have_sixteen_spikes_for_every_checkpoint_over_unit_noise(N) -> None:
    n = 1024
    own = deviations(N, n, n)
    assert own.sum(0).abs().max() < 1e-4
    sigma = torch.linalg.svdvals(own[0])
    edge = 2 * n**0.5 * (1 - 1 / N) ** 0.5
    assert int((sigma > 1.05 * edge).sum()) == 16 * N
    assert sigma[16 * N] < 1.05 * edge < sigma[16 * N - 1] / 1.2
