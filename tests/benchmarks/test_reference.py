"""What merges are compared with: rounding, distances and what is left open."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.reference import bfloat16, last_places, leading, open_choices

NUMBERS = st.floats(-(2.0**100), 2.0**100, width=32).filter(lambda x: x == 0 or abs(x) > 2.0**-100)


@given(st.lists(NUMBERS, min_size=1, max_size=50))
def test_float32_numbers_round_as_torch_rounds_them(numbers) -> None:
    expected = torch.tensor(numbers, dtype=torch.float32).bfloat16().view(torch.uint16).numpy()
    np.testing.assert_array_equal(bfloat16(np.array(numbers)), expected)


def test_rounds_once() -> None:
    """Just above the middle of two bf16 numbers; rounded to float32 first it is the middle, and goes down."""
    x = np.array([1 + 2**-8 + 2**-40])
    assert torch.from_numpy(x).float().bfloat16().item() == 1
    assert torch.from_numpy(bfloat16(x)).view(torch.bfloat16).item() == 1 + 2**-7


def test_last_places_count_the_numbers_between() -> None:
    numbers = torch.tensor([1.0, 1 + 2**-7, 2.0, -1.0, 0.0, -0.0]).bfloat16().view(torch.uint16).numpy()
    one, next_, two, minus, zero, minus_zero = numbers[:, None]
    assert last_places(one, one) == 0
    assert last_places(one, next_) == 1
    assert last_places(one, two) == 128
    assert last_places(zero, minus_zero) == 0
    assert last_places(one, minus) == 2 * last_places(one, zero)


def test_of_equal_magnitudes_the_lower_index_comes_first() -> None:
    delta = np.array([[1.0, -2.0, 2.0], [-2.0, 3.0, 0.5]])
    np.testing.assert_array_equal(leading(delta, 3), [[False, True, True], [False, True, False]])


def test_open_are_magnitudes_at_the_cutoff_and_sums_of_zero() -> None:
    """Half of 4: the first checkpoint keeps 3 and one of two 2s; the others keep −3, 4 and 5, 6."""
    thetas = [
        np.array([3.0, 2.0, -2.0, 1.0]),
        np.array([-3.0, 4.0, 0.0, 0.0]),
        np.array([0.0, 0.0, 5.0, 6.0]),
    ]
    base = np.zeros(4)
    #   0: −3 is the second's cutoff, 1 and 2: the first's, and 5 the third's; 3: 6 is above it
    np.testing.assert_array_equal(open_choices("ties", base, thetas), [True, True, True, False])
    np.testing.assert_array_equal(open_choices("average", base, thetas), [False] * 4)
    zero_sum = [np.array([3.0, 2.0, 1.0, 0.0]), np.array([-3.0, 2.0, 1.0, 0.0])]
    np.testing.assert_array_equal(open_choices("ties", base, zero_sum), [True, True, False, False])
