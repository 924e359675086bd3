"""What is proven of a spectral norm is true, on either side of it."""

import numpy as np
import pytest
import torch

from tasks.merging.lore.norm_bound import bounded
from tests.support.lore_checks import DTYPES
from tests.support.lore_factors import factors
from tests.support.lore_matrices import family


@pytest.mark.parametrize("spectral", [0.5, 0.99, 1.01, 2.0])
def test_bounded_tells_the_spectral_norm_of_what_is_left(spectral: float) -> None:
    A = family("spikes", 3, 1500, 14, 0)[0]  # of more rows than are taken at a time
    found = factors(A).truncated(3)
    left = A - found.matrix().numpy()
    hidden = left * (spectral * 5.0 / np.linalg.norm(left, 2)) + found.matrix().numpy()
    for dtype in DTYPES:
        assert bounded(torch.from_numpy(hidden).to(dtype), found.to(dtype), 5.0) == (spectral < 1)
