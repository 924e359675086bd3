"""LoRE's combinations and exceptions, against the independent solver of lore_reference."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.base.measures import Averaged
from tasks.merging.block import Block
from tasks.merging.lore.penalty import Scale
from tasks.merging.lore.problem import NotConverged
from tasks.merging.lore.solve import solve
from tasks.merging.lore_method import family, program, trim
from tasks.merging.lore_question import lam_of
from tasks.merging.program import Settings
from tasks.parameters.merge import MergeParams
from tests.support import lore_reference, sparsifying_reference
from tests.support.in_memory import merge
from tests.support.trajectory_models import trajectory

LORE = {"mu": 0.2, "mu_scale": "absolute", "tolerance": 1e-10}
MODELS = trajectory(3)[1]


def params(
    lam: float | None = None, density: float = 0.5, scope: str = "tensor", **lore: object
) -> MergeParams:
    tree = {
        "method": "lore",
        "lam": lam,
        "ties": {"density": density, "scope": scope},
        "lore": LORE | lore,
    }
    return MergeParams.model_validate(tree)


def merged(given: MergeParams, names: list[str], count: int = 3) -> dict[str, np.ndarray]:
    return merge(given, [{name: model[name] for name in names} for model in MODELS[:count]])[0]


def mean(name: str, count: int = 3) -> np.ndarray:
    return np.mean([model[name] for model in MODELS[:count]], axis=0)


def fixed_point(name: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """θ_0 and the δ_i of a matrix."""
    thetas = [model[name] for model in MODELS]
    theta_0, _ = lore_reference.solve(thetas, 0.2)
    return theta_0, [lore_reference.svt(theta - theta_0, 0.2) for theta in thetas]


@pytest.mark.parametrize("name", ["tall", "wide"])
@pytest.mark.parametrize("lam", [0.0, 0.6])
def test_the_mean_of_the_task_vectors(name: str, lam: float) -> None:
    theta_0, deltas = fixed_point(name)
    expected = theta_0 + lam * np.mean(deltas, axis=0)
    np.testing.assert_allclose(merged(params(lam, combine="mean"), [name])[name], expected, atol=2e-5)


@pytest.mark.parametrize("name", ["tall", "experts"])
def test_the_mean_with_lambda_one_is_averaging(name: str) -> None:
    np.testing.assert_allclose(merged(params(combine="mean"), [name])[name], mean(name), atol=1e-12)


@pytest.mark.parametrize("name", ["tall", "wide"])
@pytest.mark.parametrize("lam", [0.0, 0.7])
def test_ties_trims_elects_and_averages_the_task_vectors(name: str, lam: float) -> None:
    """The trim is made on the δ_i that the solver found: theirs agree only as far as both converged."""
    B = torch.from_numpy(lore_reference.deviations([model[name] for model in MODELS]))
    found = solve(B, Scale(0.2, "absolute", "nuclear", (B.shape[1], B.shape[2])), 1e-10)
    deltas = [delta.matrix().numpy() for delta in found.deltas]
    theta_0, exact = fixed_point(name)
    np.testing.assert_allclose(deltas, exact, atol=2e-5)
    trimmed = [sparsifying_reference.trim(delta, 0.5) for delta in deltas]
    expected = theta_0 + lam * sparsifying_reference.elected([1.0] * 3, trimmed)
    result = merged(params(lam, combine="ties"), [name])[name]
    np.testing.assert_allclose(result, expected, atol=2e-5)


@pytest.mark.parametrize("combine", ["mean", "ties"])
def test_two_checkpoints_from_the_mean_are_averaged_by_every_combination(combine: str) -> None:
    """δ_1 = −δ_2: a sum of zero elects nobody."""
    result = merged(params(3.0, combine=combine), ["tall"], 2)["tall"]
    np.testing.assert_allclose(result, mean("tall", 2), atol=1e-12)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=24), st.floats(0.05, 1))
@settings(max_examples=50, deadline=None)
def test_trim_keeps_the_largest_and_settles_ties_by_index(values: list[int], density: float) -> None:
    delta = np.array(values, np.float64)[None]
    trimmed = trim(torch.from_numpy(delta), density).numpy()
    np.testing.assert_array_equal(trimmed, sparsifying_reference.trim(delta, density))


def test_embeddings_and_heads_are_averaged_when_asked() -> None:
    embedding = "model.embed_tokens.weight"
    models = [{**model, "lm_head.weight": model[embedding]} for model in MODELS]
    for asked in ("average", "solve"):
        result, measures = merge(params(2.0, embeddings=asked), models)
        for name in (embedding, "lm_head.weight"):
            assert np.allclose(result[name], mean(embedding), atol=1e-9) == (asked == "average")
            assert isinstance(measures[name], Averaged) == (asked == "average")
        assert not np.allclose(result["tall"], mean("tall"), atol=1e-6)


def test_default_lambda() -> None:
    assert lam_of(params(), 5) == pytest.approx(0.15)
    assert lam_of(params(combine="mean"), 5) == lam_of(params(combine="ties"), 5) == 1
    assert lam_of(params(0.0), 5) == 0.0
    assert lam_of(params(preset="paper"), 5) == 1
    assert lam_of(params(0.3, preset="paper"), 5) == 0.3


@pytest.mark.parametrize("N", [3, 5])
@pytest.mark.parametrize("name", ["tall", "experts"])
def test_lambda_of_one_nth_is_averaging(N: int, name: str) -> None:
    models = trajectory(N)[1]
    found = merge(params(1 / N), [{name: model[name]} for model in models])[0][name]
    np.testing.assert_allclose(found, np.mean([model[name] for model in models], axis=0), atol=1e-12)


@pytest.mark.parametrize("lam", [0.0, 0.4, 1.0])
def test_all_lambdas_lie_on_one_line(lam: float) -> None:
    """θ* = mean + (Nλ − 1)(mean − θ_0)."""
    theta_0, found = merged(params(0.0), ["tall"])["tall"], merged(params(lam), ["tall"])["tall"]
    expected = mean("tall") + (3 * lam - 1) * (mean("tall") - theta_0)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert not np.allclose(theta_0, mean("tall"), atol=1e-3)


@pytest.mark.parametrize("name", ["tall", "wide"])
def test_moving_all_checkpoints_moves_the_merge_as_far(name: str) -> None:
    """Whatever the move: no task vector notices even a wild one of low rank."""
    rng = np.random.default_rng(0)
    rows, columns = MODELS[0][name].shape
    wild = np.round(1e3 * np.outer(rng.standard_normal(rows), rng.standard_normal(columns)))
    moved, _ = merge(params(1.0), [{name: model[name] + wild} for model in MODELS])
    np.testing.assert_allclose(moved[name] - wild, merged(params(1.0), [name])[name], atol=1e-6)


@pytest.mark.parametrize("name", ["tall", "wide"])
@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_truncation_cuts_the_task_vectors_and_refreshes_the_base(name: str, lam: float) -> None:
    """θ* = mean + (λ − 1/N)·S of the cut δ_i, for every rank."""
    ratio, shape = 0.4, MODELS[0][name].shape
    rank = round(ratio * min(shape))
    theta_0, total = lore_reference.solve([model[name] for model in MODELS], 0.2, rank)
    found, measures = merge(params(lam, rank_ratio=ratio), [{name: model[name]} for model in MODELS])
    np.testing.assert_allclose(found[name], theta_0 + lam * total, atol=2e-5)
    np.testing.assert_allclose(found[name], mean(name) + (lam - 1 / 3) * total, atol=2e-5)
    assert max(measures[name].ranks) == rank < max(measures[name].active)


def test_the_least_rank_ratio_keeps_one_singular_value() -> None:
    _, measures = merge(params(rank_ratio=1e-9), [{"tall": model["tall"]} for model in MODELS])
    assert measures["tall"].ranks == (1, 1, 1)


@pytest.mark.parametrize("anchor", [0, 1])
@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_two_anchored_checkpoints_have_a_closed_form(anchor: int, lam: float) -> None:
    """θ* = mean + (λ − ½)·SVT(θ_other − θ_anchor; 2μ), the anchor named by its step."""
    models = [{"wide": model["wide"]} for model in MODELS[:2]]
    found, measures = merge(params(lam, anchor=(100, 200)[anchor]), models, steps=(100, 200))
    moved = lore_reference.svt(MODELS[1 - anchor]["wide"] - MODELS[anchor]["wide"], 0.4)
    np.testing.assert_allclose(found["wide"], mean("wide", 2) + (lam - 0.5) * moved, atol=1e-9)
    assert measures["wide"].ranks[anchor] == 0 < measures["wide"].ranks[1 - anchor]


@pytest.mark.parametrize("K", [1, 3])
def test_passes_are_those_of_algorithm_1(K: int) -> None:
    deltas = lore_reference.algorithm_1(
        lore_reference.deviations([model["tall"] for model in MODELS]), 0.2, K
    )
    found, measures = merge(params(1.0, passes=K), [{"tall": model["tall"]} for model in MODELS])
    np.testing.assert_allclose(found["tall"], mean("tall") + (1 - 1 / 3) * deltas.sum(axis=0), atol=1e-8)
    assert (measures["tall"].solver, measures["tall"].passes) == ("passes", K)


def test_the_squared_penalty_is_its_own_problem() -> None:
    B = lore_reference.deviations([model["tall"] for model in MODELS])
    total = lore_reference.minimise(B, 0.05, "squared", gap=1e-13).deltas.sum(axis=0)
    found = merged(params(1.0, penalty="squared", mu=0.05), ["tall"])["tall"]
    np.testing.assert_allclose(found, mean("tall") + (1 - 1 / 3) * total, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("N", [2, 3, 5, 10])
def test_identical_checkpoints_are_returned_exactly_and_reported(N: int, dtype: type) -> None:
    """Also where Σθ/N would be rounded."""
    model = {name: tensor.astype(dtype) for name, tensor in MODELS[0].items()}
    found, measures = merge(params(5.0), [{name: tensor.copy() for name, tensor in model.items()}] * N)
    for name, tensor in model.items():
        np.testing.assert_array_equal(found[name], tensor)
        assert measures[name] == Averaged(identical=True)


def test_a_variant_of_a_family_is_the_merge_by_itself_bit_for_bit() -> None:
    """λ, rank_ratio, combination and density from one solution; μ, penalty and passes from their own."""
    variants = [
        params(0.0), params(1.0), params(1.0, rank_ratio=0.4), params(0.7, combine="mean"), params(combine="ties"),
        params(combine="ties", density=0.2), params(mu=0.4), params(penalty="squared", mu=0.05), params(passes=2),
        params(embeddings="average"), params(mu=1.0, mu_scale="noise_edge"), params(1.0, tolerance=1e-3),
    ]  # fmt: skip
    for name in ("tall", "wide", "model.embed_tokens.weight", "norm"):
        shapes = {name: MODELS[0][name].shape}
        own = [Settings(one, lambda tensor, one=one: one, (1, 2, 3), shapes) for one in variants]
        together = finish(family(own))(block(name))
        for of_variant, (array, measures) in zip(own, together, strict=True):
            alone, own_measures = finish(program(of_variant))(block(name))
            np.testing.assert_array_equal(array, alone)
            assert measures == own_measures


def test_a_family_solves_once_for_all_that_ask_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        "tasks.merging.lore.solve.solve", lambda *given, **more: asked.append(given) or solve(*given, **more)
    )
    variants = [params(0.0), params(1.0), params(1.0, rank_ratio=0.4), params(combine="ties"), params(mu=0.4)]
    own = [Settings(one, lambda tensor, one=one: one, (1, 2, 3), {"tall": (12, 5)}) for one in variants]
    list(finish(family(own))(block("tall")))
    assert len(asked) == 2


def test_what_no_solver_reaches_is_refused_with_the_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.merging.lore.beginning.GRAM_ROUNDING", 0.0)  # Newton's method gives up
    monkeypatch.setattr("tasks.merging.lore.dense.DENSE_PASSES", 4)
    with pytest.raises(NotConverged, match=r"relative duality gap .* above merge\.lore\.tolerance 1\.0e-10"):
        merged(params(), ["wide"])


def test_the_measures_are_those_of_the_task_vectors() -> None:
    theta_0, deltas = fixed_point("tall")
    [measures] = merge(params(1.0), [{"tall": model["tall"]} for model in MODELS])[1].values()
    lengths = [np.linalg.norm(delta) for delta in deltas]
    energy = sum(np.linalg.norm(model["tall"] - theta_0) ** 2 for model in MODELS)
    apart = np.mean([np.linalg.norm(model["tall"] - mean("tall")) for model in MODELS])
    total = np.linalg.norm(np.sum(deltas, axis=0))
    expected = {"mu": 0.2, "threshold": 0.2, "share": total / sum(lengths), "explained": np.sum(np.square(lengths)) / energy,
                "from_mean": (1 - 1 / 3) * total / apart}  # fmt: skip
    assert {key: getattr(measures, key) for key in expected} == pytest.approx(expected, rel=1e-4)
    root = np.sqrt(mean("tall").size)
    place = np.spacing(np.float32(np.linalg.norm(mean("tall")) / root))
    moved = (1 - 1 / 3) * total / root
    assert measures.places_from_mean == pytest.approx(moved / place, rel=1e-4)
    ranks = tuple(np.linalg.matrix_rank(delta, tol=1e-4) for delta in deltas)
    assert measures.active == measures.ranks == ranks
    for model, spectrum in zip(MODELS, measures.spectra, strict=True):
        exact = np.linalg.svd(model["tall"] - theta_0, compute_uv=False)
        assert len(spectrum) >= (exact > 0.2).sum()
        np.testing.assert_allclose(spectrum, exact[: len(spectrum)], rtol=1e-3)
    for delta, effective in zip(deltas, measures.effective_ranks, strict=True):
        sigma = np.linalg.svd(delta, compute_uv=False)
        shares = sigma[sigma > 1e-9] / sigma.sum()
        assert effective == pytest.approx(np.exp(-np.sum(shares * np.log(shares))), abs=0.02)
    assert measures.gap <= 1e-10


def block(name: str) -> Block:
    return Block(name, 0, 0, [model[name].reshape(len(model[name]), -1).copy() for model in MODELS], None)


def finish(steps: Any) -> Callable[[Block], Any]:
    """Return the last function of a program that measures nothing."""
    try:
        next(steps)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("LoRE measures nothing")
