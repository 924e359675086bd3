"""Fisher merging equals Σ F_i θ_i / Σ F_i computed in a line of float64."""

import numpy as np
import pytest

from tasks.base.errors import BadInput
from tasks.merging.block import Block
from tasks.merging.fisher import LEAST_INFORMATION
from tasks.merging.methods import METHODS
from tasks.merging.program import Settings, run_program
from tasks.parameters.merge import MergeParams

PARAMS = MergeParams(method="fisher")
RNG = np.random.default_rng(3)
THETAS = [RNG.standard_normal((6, 4)) for _ in range(3)]
KINDS = {
    "even": [np.ones((6, 4))] * 3,
    "skewed": [RNG.exponential(size=(6, 4)) ** 4 for _ in range(3)],
    "sparse": [RNG.exponential(size=(6, 4)) * (RNG.random((6, 4)) < 0.3) for _ in range(3)],
    "one alone knows": [np.zeros((6, 4)), np.ones((6, 4)), np.zeros((6, 4))],
}


def merged(importance: list[np.ndarray], thetas: list[np.ndarray] = THETAS) -> np.ndarray:
    settings = Settings(PARAMS, lambda name: PARAMS, range(1, len(thetas) + 1), {"w": (6, 4)})
    block = Block("w", 0, 0, thetas, None, importance)
    result, _ = run_program(METHODS["fisher"].program(settings), ["w"], lambda name: block)(block)
    return np.asarray(result)


@pytest.mark.parametrize("kind", KINDS)
def test_every_element_is_weighed_by_its_information(kind: str) -> None:
    F = np.maximum(KINDS[kind], 1e-6)
    np.testing.assert_allclose(merged(KINDS[kind]), (F * THETAS).sum(0) / F.sum(0), rtol=1e-13)


def test_without_information_it_is_the_plain_average() -> None:
    np.testing.assert_allclose(merged([np.zeros((6, 4))] * 3), np.mean(THETAS, 0), rtol=1e-14)
    np.testing.assert_allclose(merged([np.full((6, 4), 7.0)] * 3), np.mean(THETAS, 0), rtol=1e-14)


def test_what_one_checkpoint_alone_depends_on_comes_from_it() -> None:
    np.testing.assert_allclose(merged(KINDS["one alone knows"]), THETAS[1], atol=10 * LEAST_INFORMATION)


@pytest.mark.parametrize("kind", KINDS)
def test_identical_checkpoints_merge_into_themselves(kind: str) -> None:
    np.testing.assert_allclose(merged(KINDS[kind], [THETAS[0]] * 3), THETAS[0], rtol=1e-15)


def test_the_unit_of_the_information_does_not_matter() -> None:
    np.testing.assert_allclose(merged([5 * F for F in KINDS["even"]]), merged(KINDS["even"]), rtol=1e-14)
    np.testing.assert_allclose(merged([9 * F for F in KINDS["skewed"]]), merged(KINDS["skewed"]), rtol=1e-4)


def test_adapters_are_refused() -> None:
    with pytest.raises(BadInput, match=r"merge.method: fisher measures whole models.*take another method"):
        METHODS["fisher"].check_span(PARAMS)
