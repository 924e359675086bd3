"""The methods as users know them: identities on whole tensors of any rank."""

import itertools

import lore_reference as reference
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import random_tensors

from tasks.merging.methods import METHODS, ema_weights, lore_lam
from tasks.params import LoreParams, MergeParams

STEPS = (100, 200, 300)
NAMES = sorted(random_tensors(0))


def tensors(name: str, count: int = 3) -> list[torch.Tensor]:
    return [random_tensors(seed)[name].double() for seed in range(1, count + 1)]


def merged(params: MergeParams, name: str, count: int = 3) -> torch.Tensor:
    return METHODS[params.method].make(params, STEPS[:count])(tensors(name, count))[0]


def mean(name: str, count: int = 3) -> torch.Tensor:
    return torch.stack(tensors(name, count)).mean(0)


@pytest.mark.parametrize("name", NAMES)
def test_average_is_the_mean(name: str) -> None:
    torch.testing.assert_close(merged(MergeParams(method="average"), name), mean(name))


@pytest.mark.parametrize("name", NAMES)
def test_lore_at_one_nth_is_the_mean(name: str) -> None:
    torch.testing.assert_close(merged(MergeParams(lam=1 / 3), name), mean(name))


@pytest.mark.parametrize("name", NAMES)
def test_lore_of_two_is_the_mean_whatever_lambda(name: str) -> None:
    torch.testing.assert_close(merged(MergeParams(lam=7.0), name, 2), mean(name, 2))


@pytest.mark.parametrize("name", ["tall", "wide", "experts", "conv"])
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_lore_equals_the_paper_s_formula_matrix_by_matrix(name: str, lam: float) -> None:
    """θ* = θ_0 + λ Σδ_i from an independent solver, with the tensor seen as its matrices."""
    params = MergeParams(lam=lam, lore=LoreParams(mu=0.2, mu_scale="absolute", tolerance=1e-10))
    shape = tensors(name)[0].shape
    stacks = [t.numpy() if t.ndim == 3 else t.numpy().reshape(1, shape[0], -1) for t in tensors(name)]
    expected = []
    for matrices in zip(*stacks, strict=True):
        theta_0, total = reference.solve(list(matrices), 0.2)
        expected.append(theta_0 + lam * total)
    np.testing.assert_allclose(merged(params, name).numpy(), np.stack(expected).reshape(shape), atol=2e-5)


def test_lore_averages_vectors() -> None:
    torch.testing.assert_close(merged(MergeParams(lam=1.0), "norm"), mean("norm"))


@pytest.mark.parametrize("lam", [0.0, 0.7])
def test_the_lambda_family_is_one_line_through_the_mean(lam: float) -> None:
    params = MergeParams(lore=LoreParams(mu=0.2, mu_scale="absolute", tolerance=1e-12))
    theta_0 = merged(params.model_copy(update={"lam": 0.0}), "tall")
    line = mean("tall") + (3 * lam - 1) * (mean("tall") - theta_0)
    torch.testing.assert_close(
        merged(params.model_copy(update={"lam": lam}), "tall"), line, atol=1e-5, rtol=0
    )


@given(st.integers(2, 30), st.floats(0.01, 0.99))
def test_ema_weights_sum_to_one_and_decay_with_age(count: int, decay: float) -> None:
    weights = ema_weights(count, decay)
    assert sum(weights) == pytest.approx(1)
    for older, newer in itertools.pairwise(weights):
        assert older == pytest.approx(decay * newer)


def test_ema_equals_the_recursion() -> None:
    """Bias-corrected running average, oldest first."""
    total, weight = 0.0, 0.0
    for tensor in tensors("tall"):
        total, weight = 0.6 * total + tensor, 0.6 * weight + 1
    params = MergeParams.model_validate({"method": "ema", "ema": {"decay": 0.6}})
    torch.testing.assert_close(merged(params, "tall"), total / weight)


def test_an_empty_matrix_is_left_empty() -> None:
    out, _ = METHODS["lore"].make(MergeParams(), STEPS)([torch.empty(0, 3).double()] * 3)
    assert out.shape == (0, 3)


@pytest.mark.parametrize(
    ("params", "steps", "note"),
    [
        (MergeParams(), (1, 2), "equal to averaging"),
        (MergeParams(lam=0.25), (1, 2, 3, 4), "equal to averaging: λ = 1/N"),
        (MergeParams(lam=1.0), (1, 2, 3), "λ extrapolates: 2 times"),
        (MergeParams(), (1, 2, 3), "θ* = mean + 0.25 · (mean − θ_0)"),
        (MergeParams(lore=LoreParams(anchor=2)), (1, 2), "anchored at step 2"),
        (MergeParams(lore=LoreParams(anchor=2)), (1, 2, 3), "changes nothing"),
    ],
)
def test_the_notes_say_what_the_settings_amount_to(
    params: MergeParams, steps: tuple[int, ...], note: str
) -> None:
    assert any(note in line for line in METHODS["lore"].notes(params, steps))


def test_default_lambda() -> None:
    assert lore_lam(MergeParams(), 5) == pytest.approx(0.25)
    assert lore_lam(MergeParams(lam=0.0), 5) == 0.0
