"""AdaMerging: its steps are those of torch's Adam, and the merge is the sum that its coefficients say."""

import numpy as np
import pytest
import torch

from tasks.base.errors import BadInput
from tasks.base.measures import TensorMeasures, WeightsUsed
from tasks.merging.adamerging import descended, evenly
from tasks.merging.block import Block
from tasks.merging.methods import METHODS
from tasks.merging.program import Settings, run_program
from tasks.parameters.merge import MergeParams

PARAMS = MergeParams(method="adamerging")
RNG = np.random.default_rng(5)
SLOPES = {
    "steady": [np.full((4, 3), 0.2)] * 40,
    "of all sizes": [RNG.standard_normal((4, 3)) * 10.0 ** RNG.integers(-6, 3, (4, 3)) for _ in range(40)],
    "rare": [RNG.standard_normal((4, 3)) * (RNG.random((4, 3)) < 0.2) for _ in range(40)],
    "none": [np.zeros((4, 3))] * 40,
}


@pytest.mark.parametrize("kind", SLOPES)
@pytest.mark.parametrize("rate", [0.001, 0.05])
def test_every_step_is_that_of_torch_s_adam(kind: str, rate: float) -> None:
    values = torch.full((4, 3), 1 / 3, dtype=torch.float64, requires_grad=True)
    adam, at = torch.optim.Adam([values], lr=rate), evenly(4, 3)
    for slopes in SLOPES[kind]:
        values.grad = torch.from_numpy(slopes.copy())
        adam.step()
        with torch.no_grad():
            values.clamp_(0, 1)
        at = descended(at, slopes, rate)
        np.testing.assert_allclose(at.values, values.detach().numpy(), rtol=0, atol=1e-12)
    assert at.step == 40


def test_coefficients_stay_between_base_and_checkpoint() -> None:
    at = evenly(4, 3)
    for slopes in SLOPES["of all sizes"]:
        at = descended(at, slopes, 0.5)
        assert at.values.min() >= 0
        assert at.values.max() <= 1


@pytest.mark.parametrize("c", [(0.2, 0.9, 0.0), (1 / 3, 1 / 3, 1 / 3), (0.0, 0.0, 0.0)])
def test_the_merge_is_base_and_weighted_task_vectors(c: tuple[float, ...]) -> None:
    base, *thetas = (RNG.standard_normal((6, 4)) for _ in range(4))
    settings = Settings(PARAMS, lambda name: PARAMS, (1, 2, 3), {"w": (6, 4)}, coefficients={"w": c})
    block = Block("w", 0, 0, thetas, base)
    finish = run_program(METHODS["adamerging"].program(settings), ["w"], lambda name: block)
    merged, measures = finish(block)
    expected = base + sum(own * (theta - base) for own, theta in zip(c, thetas, strict=True))
    np.testing.assert_allclose(merged, expected, rtol=1e-13)
    assert measures == WeightsUsed(weights=c)


def test_it_says_how_far_the_coefficients_are_from_the_average_s() -> None:
    settings = Settings(PARAMS, lambda name: PARAMS, (1, 2, 3), {})
    row = METHODS["adamerging"]
    used = {"a": (0.2, 0.9, 0.0), "b": (0.3, 0.3, 0.3)}
    tensors = {name: TensorMeasures(method=WeightsUsed(weights=c)) for name, c in used.items()}
    assert row.findings(settings, {**tensors, "integers": TensorMeasures()}) == [
        "the coefficients are 0 to 0.9, and add up to 0.9 to 1.1 over the tensors; those of the plain average are "
        "0.333 and add up to 1"
    ]
    assert row.findings(settings, {"integers": TensorMeasures()}) == []


def test_adapters_are_refused() -> None:
    with pytest.raises(
        BadInput, match=r"adamerging learns on whole models, and these are adapters; set merge.full"
    ):
        METHODS["adamerging"].check_span(PARAMS)
