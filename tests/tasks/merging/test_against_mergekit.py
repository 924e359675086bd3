"""The sparsifying methods against mergekit 0.1.5 in float32: where they agree, and each deviation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from mergekit.merge_methods.base import ParameterScope, TensorGroup
from mergekit.merge_methods.nuslerp import nuslerp
from mergekit.merge_methods.registry import get

from tasks.parameters.merge import MergeParams
from tests.support.in_memory import merge

SIZES = [(10,), (8, 5), (2, 3, 10)]
DENSITY, GAMMA = 0.3, 0.1
"""Whole numbers of elements for all SIZES, so that rounding and truncating agree."""


def mergekit(method: str, thetas: Sequence[np.ndarray], base: np.ndarray, **parameters: Any) -> np.ndarray:
    """Run mergekit's method with its defaults; density, gamma and weight: one for all, or a tuple."""
    merger = get(method)
    group = TensorGroup.from_tensors([torch.from_numpy(array) for array in (base, *thetas)], base_index=0)
    given = {"weight": 1.0} | parameters
    values = {spec.name: given.get(spec.name, spec.default) for spec in merger.spec.parameters}
    for spec in merger.spec.parameters:
        if spec.scope is ParameterScope.NON_BASE:
            own = values[spec.name]
            each = own if isinstance(own, tuple) else (own,) * len(thetas)
            values[spec.name] = dict(enumerate(each, 1))
    return merger.merge_group(group, **values).numpy()


def loreline(params: dict[str, Any], thetas: Sequence[np.ndarray], base: np.ndarray) -> np.ndarray:
    merged, _ = merge(
        MergeParams.model_validate(params), [{"w": theta} for theta in thetas], {"w": base}, dtype=np.float32
    )
    return merged["w"]


def random(shape: tuple[int, ...], count: int = 3) -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    base = rng.standard_normal(shape, np.float32)
    return [base + rng.standard_normal(shape, np.float32) for _ in range(count)], base


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SIZES)
def test_ties_agrees(shape: tuple[int, ...]) -> None:
    thetas, base = random(shape)
    ours = loreline({"method": "ties", "ties": {"density": DENSITY}, "lam": 0.7}, thetas, base)
    assert_close(ours, mergekit("ties", thetas, base, density=DENSITY, **{"lambda": 0.7}))


@pytest.mark.parametrize("shape", SIZES)
def test_breadcrumbs_agrees(shape: tuple[int, ...]) -> None:
    thetas, base = random(shape)
    ours = loreline(
        {"method": "breadcrumbs", "breadcrumbs": {"density": DENSITY, "gamma": GAMMA}}, thetas, base
    )
    assert_close(ours, mergekit("breadcrumbs", thetas, base, density=DENSITY, gamma=GAMMA))


@pytest.mark.parametrize("shape", SIZES)
def test_densities_of_each_model_agree(shape: tuple[int, ...]) -> None:
    thetas, base = random(shape)
    each, gammas = (0.3, 0.8, 1.0), (0.1, 0.2, 0.0)
    ours = loreline({"method": "ties", "ties": {"density": each}}, thetas, base)
    assert_close(ours, mergekit("ties", thetas, base, density=each))
    ours = loreline(
        {"method": "breadcrumbs", "breadcrumbs": {"density": each, "gamma": gammas}}, thetas, base
    )
    assert_close(ours, mergekit("breadcrumbs", thetas, base, density=each, gamma=gammas))


@pytest.mark.parametrize("method", ["ties", "breadcrumbs"])
def test_mergekit_truncates_shares_where_we_round(method: str) -> None:
    """0.15 · 10 elements: one there, two here."""
    thetas, base = random((10,), 1)
    ours = loreline(
        {"method": method, method: {"density": 0.15} | ({"gamma": 0} if method == "breadcrumbs" else {})},
        thetas,
        base,
    )
    theirs = mergekit(method, thetas, base, density=0.15, gamma=0.0)
    assert (ours != base).sum() == 2
    assert (theirs != base).sum() == 1


def test_mergekit_trims_to_one_element_where_the_share_rounds_to_none() -> None:
    thetas, base = random((10,), 1)
    np.testing.assert_array_equal(loreline({"method": "ties", "ties": {"density": 0.01}}, thetas, base), base)
    assert (mergekit("ties", thetas, base, density=0.01) != base).sum() == 1


def test_mergekit_elects_plus_where_the_sum_is_zero() -> None:
    base, delta = np.ones(4, np.float32), np.array([1, -2, 3, -4], np.float32)
    params = {"method": "ties", "ties": {"density": 1}}
    np.testing.assert_array_equal(loreline(params, [base + delta, base - delta], base), base)
    np.testing.assert_array_equal(mergekit("ties", [base + delta, base - delta], base), base + abs(delta))


@pytest.mark.parametrize("normalize", [True, False])
def test_mergekit_leaves_the_disjoint_mean_out_of_dare_ties_unless_asked(normalize: bool) -> None:
    thetas, base = random((8, 5))
    ties = {"density": 1, "normalize": normalize}
    ours = loreline({"method": "dare_ties", "dare": {"p": 0}, "ties": ties}, thetas, base)
    assert_close(ours, mergekit("dare_ties", thetas, base, normalize=normalize))
    assert abs(ours - mergekit("dare_ties", thetas, base, normalize=not normalize)).max() > 1


def test_mergekit_rescales_dare_by_the_l1_norm_where_we_divide_by_the_share_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With one mask for both, its factor is ‖δ‖₁/‖kept‖₁, which is not 1/(1 − p); without it both agree."""
    (theta,), base = random((8, 5), 1)
    ours = loreline({"method": "dare", "dare": {"p": 0.4}}, [theta], base)
    mask = (ours != base).astype(np.float32)
    monkeypatch.setattr(torch, "bernoulli", lambda probabilities: torch.from_numpy(mask))
    unscaled = mergekit("dare_linear", [theta], base, density=0.6, rescale=False) - base
    scaled = mergekit("dare_linear", [theta], base, density=0.6) - base
    delta = theta - base
    assert_close(ours - base, unscaled / 0.6)
    assert_close(scaled, unscaled * (abs(delta).sum() / abs(unscaled).sum()))
    assert abs(abs(delta).sum() / abs(unscaled).sum() - 1 / 0.6) > 0.01


def test_mergekit_keeps_the_outliers_of_breadcrumbs_at_full_density() -> None:
    """And shrinks gamma silently to make room for the density, where we refuse the two together."""
    thetas, base = random((10,), 1)
    assert_close(mergekit("breadcrumbs", thetas, base, density=1.0, gamma=0.5), thetas[0])
    theirs = mergekit("breadcrumbs", thetas, base, density=0.9, gamma=0.5)
    assert (theirs != base).sum() == 9


def test_mergekit_trims_tensor_by_tensor_only() -> None:
    """Over the model, the paper's way, the tensor with the larger changes keeps all of the share."""
    base = {"large": np.zeros(4), "small": np.zeros(4)}
    theta = {"large": np.array([5.0, 6, 7, 8]), "small": np.array([1.0, 2, 3, 4])}
    params = MergeParams.model_validate({"method": "ties", "ties": {"density": 0.5, "scope": "model"}})
    ours, _ = merge(params, [theta], base)
    np.testing.assert_array_equal(ours["large"], theta["large"])
    np.testing.assert_array_equal(ours["small"], base["small"])
    np.testing.assert_array_equal(
        mergekit("ties", [theta["small"]], base["small"], density=0.5), [0, 0, 3, 4]
    )


@pytest.mark.parametrize("shape", SIZES)
def test_nuslerp_without_a_base_is_our_slerp(shape: tuple[int, ...]) -> None:
    one, two = random(shape, 2)[0]
    theirs = nuslerp(0.75, torch.from_numpy(one), torch.from_numpy(two), flatten=True).numpy()
    params = MergeParams.model_validate({"method": "slerp", "slerp": {"t": 0.75}})
    ours, _ = merge(params, [{"w": one}, {"w": two}], dtype=np.float32)
    assert_close(ours["w"], theirs)
