"""Matrices as LoRE is made for: unit noise and a few spikes, as in the checkpoints of models.py."""

import torch

from tests.benchmarks.models import RANK


def deviations(N: int, m: int, n: int) -> torch.Tensor:
    """Return N × m × n float32 deviations from the mean of N matrices, always the same ones.

    Each is noise of variance 1 and as much of rank 16, so every deviation has 16·N spikes.
    """
    random = torch.Generator().manual_seed(N)
    theta = torch.randn(N, m, n, generator=random)
    left, right = torch.randn(N, m, RANK, generator=random), torch.randn(N, RANK, n, generator=random)
    theta.baddbmm_(left, right, alpha=RANK**-0.5)
    return theta.sub_(theta.mean(0))
