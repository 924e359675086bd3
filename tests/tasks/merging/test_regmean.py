"""RegMean equals the least-squares problem that it stands for, solved by numpy on the inputs themselves."""

import numpy as np
import pytest

from tasks.base.errors import BadInput
from tasks.merging.block import Block
from tasks.merging.methods import METHODS
from tasks.merging.program import Settings, run_program
from tasks.merging.regmean import LEAST_INPUT
from tasks.parameters.merge import MergeParams

RNG = np.random.default_rng(5)
SIDES = {"tall": (9, 4), "wide": (4, 9), "square": (6, 6)}
"""outputs × inputs."""


def inputs(width: int, tokens: int = 40, rank: int | None = None) -> list[np.ndarray]:
    """Return what three checkpoints' layers are fed: correlated, and not centred."""
    mix = RNG.standard_normal((rank or width, width))
    return [RNG.standard_normal((tokens, rank or width)) @ mix + 0.5 for _ in range(3)]


def merged(weights: list[np.ndarray], X: list[np.ndarray], alpha: float, rows: bool = False) -> np.ndarray:
    """Merge weights, outputs × inputs; of `rows` as a layer holds them whose weights are inputs × outputs."""
    params = MergeParams.model_validate({"method": "regmean", "regmean": {"alpha": alpha}})
    thetas = np.stack([W.T if rows else W for W in weights])
    settings = Settings(params, lambda name: params, (1, 2, 3), {"w": thetas[0].shape})
    grams = [np.ascontiguousarray(x.T @ x) for x in X]
    block = Block("w", 0, 0, thetas.copy(), None, grams=grams, grams_of_rows=rows)
    result, _ = run_program(METHODS["regmean"].program(settings), ["w"], lambda name: block)(block)
    return np.asarray(result).T if rows else np.asarray(result)


def matrices(sides: tuple[int, int]) -> list[np.ndarray]:
    return [RNG.standard_normal(sides) for _ in range(3)]


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("sides", SIDES.values(), ids=SIDES)
def test_it_is_the_nearest_to_every_checkpoint_on_its_own_inputs(sides: tuple[int, int], rows: bool) -> None:
    """min_W Σ ‖X_i Wᵀ − X_i W_iᵀ‖² + ρ‖W − W_i‖², by lstsq on the stacked inputs: no normal equations."""
    W, X = matrices(sides), inputs(sides[1])
    rho = LEAST_INPUT * np.mean([np.mean((x**2).sum(0)) for x in X])
    stacked = [np.vstack([x, np.sqrt(rho) * np.eye(sides[1])]) for x in X]
    outputs = np.vstack([x @ own.T for x, own in zip(stacked, W, strict=True)])
    expected = np.linalg.lstsq(np.vstack(stacked), outputs, rcond=None)[0].T
    np.testing.assert_allclose(merged(W, X, 1.0, rows), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9])
def test_alpha_shrinks_what_lies_off_the_diagonal(alpha: float) -> None:
    W, X = matrices((5, 4)), inputs(4)
    G = [alpha * x.T @ x + (1 - alpha) * np.diag((x**2).sum(0)) for x in X]
    pull = np.sum([own @ g for own, g in zip(W, G, strict=True)], axis=0)
    np.testing.assert_allclose(merged(W, X, alpha), pull @ np.linalg.inv(np.sum(G, 0)), rtol=1e-4, atol=1e-5)


def test_at_alpha_zero_every_input_is_averaged_by_its_squares() -> None:
    W, X = matrices((5, 4)), inputs(4)
    squares = np.array([(x**2).sum(0) for x in X])
    expected = (np.array(W) * squares[:, None]).sum(0) / squares.sum(0)
    np.testing.assert_allclose(merged(W, X, 0.0), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", [None, 2])
def test_identical_checkpoints_merge_into_themselves(rank: int | None) -> None:
    W, X = matrices((5, 6))[0], inputs(6, rank=rank)
    np.testing.assert_array_equal(merged([W] * 3, X, 0.9), W)


def test_equal_inputs_give_the_average_and_so_do_none() -> None:
    W, X = matrices((5, 6)), inputs(6)[0]
    np.testing.assert_allclose(merged(W, [X] * 3, 0.9), np.mean(W, 0), atol=1e-10)
    np.testing.assert_allclose(merged(W, [0 * X] * 3, 0.9), np.mean(W, 0), rtol=1e-15)


def test_what_no_text_feeds_is_averaged() -> None:
    """Two of six inputs are always zero: their columns have nothing to fit."""
    W, X = matrices((5, 6)), inputs(6)
    for x in X:
        x[:, [1, 4]] = 0
    np.testing.assert_allclose(merged(W, X, 0.9)[:, [1, 4]], np.mean(W, 0)[:, [1, 4]], rtol=1e-9)


def test_the_unit_of_the_inputs_does_not_matter() -> None:
    W, X = matrices((5, 6)), inputs(6)
    for unit in (1e-6, 1e6):
        np.testing.assert_allclose(merged(W, [unit * x for x in X], 0.9), merged(W, X, 0.9), rtol=1e-6)


def test_adapters_are_refused() -> None:
    with pytest.raises(BadInput, match=r"merge.method: regmean measures whole models.*take another method"):
        METHODS["regmean"].check_span(MergeParams(method="regmean"))
