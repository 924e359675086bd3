"""LoRE's combinations and exceptions, against the independent solver of lore_reference."""

import lore_reference
import numpy as np
import pytest
import sparsifying_reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from in_memory import merge
from trajectory_models import trajectory

from tasks.errors import BadInput
from tasks.merge_params import MergeParams
from tasks.merging.lore import check, lam_of, notes, trim
from tasks.merging.program import Settings
from tasks.merging.robust_base import solve

LORE = {"mu": 0.2, "mu_scale": "absolute", "tolerance": 1e-10}
MODELS = trajectory(3)[1]


def params(
    lam: float | None = None, density: float = 0.5, scope: str = "tensor", **lore: object
) -> MergeParams:
    tree = {"lam": lam, "ties": {"density": density, "scope": scope}, "lore": LORE | lore}
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
    thetas = [torch.from_numpy(model[name]) for model in MODELS]
    deltas = [delta.numpy() for delta in solve(thetas, 0.2, "absolute", 1.0, None, 1e-10).deltas]
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


@pytest.mark.parametrize("anchor", [0, 1])
def test_each_task_vector_belongs_to_its_checkpoint(anchor: int) -> None:
    """With two checkpoints the anchor's own δ is zero."""
    thetas = [torch.from_numpy(model["tall"]) for model in MODELS[:2]]
    solution = solve(thetas, 0.1, "absolute", 1.0, anchor, 1e-8)
    assert not solution.deltas[anchor].any()
    assert solution.ranks[anchor] == 0
    torch.testing.assert_close(solution.deltas[1 - anchor], solution.total)
    assert solution.ranks[1 - anchor] > 0


@pytest.mark.parametrize("shape", [(12, 5), (4, 9)])
def test_the_task_vectors_add_up_to_their_total(shape: tuple[int, int]) -> None:
    thetas = [torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)) for seed in range(3)]
    solution = solve(thetas, 0.5, "absolute", 1.0, None, 1e-8)
    assert [delta.shape for delta in solution.deltas] == [shape] * 3
    torch.testing.assert_close(torch.stack(solution.deltas).sum(0), solution.total)


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
        result, facts = merge(params(2.0, embeddings=asked), models)
        for name in (embedding, "lm_head.weight"):
            assert np.allclose(result[name], mean(embedding), atol=1e-9) == (asked == "average")
            assert facts[name].get("averaged", False) == (asked == "average")
        assert not np.allclose(result["tall"], mean("tall"), atol=1e-6)


def noted(given: MergeParams, steps: tuple[int, ...]) -> list[str]:
    return notes(Settings(given, lambda name: given, steps, {}))


@pytest.mark.parametrize(
    ("given", "steps", "note"),
    [
        (params(), (1, 2), "equal to averaging"),
        (params(0.25), (1, 2, 3, 4), "equal to averaging: λ = 1/N"),
        (params(1.0), (1, 2, 3), "λ extrapolates: 2 times"),
        (params(), (1, 2, 3), "θ* = mean + 0.25 · (mean − θ_0)"),
        (params(anchor=2), (1, 2), "anchored at step 2: θ* = mean + 0.125 · SVT"),
        (params(0.5, anchor=2), (1, 2), "equal to averaging: λ = 1/N"),
        (params(anchor=2), (1, 2, 3), "changes nothing"),
        (params(combine="mean"), (1, 2, 3), "equal to averaging: λ = 1"),
        (params(1.5, combine="mean"), (1, 2, 3), "θ* = mean + 0.5 · (mean − θ_0)"),
        (params(2.0, combine="mean", anchor=1), (1, 2), "θ* = mean + 0.5 · SVT"),
        (params(combine="ties"), (1, 2), "equal to averaging"),
        (params(combine="ties"), (1, 2, 3), "θ* = θ_0 + 1 · the sign-elected mean"),
    ],
)
def test_the_notes_say_what_the_settings_amount_to(
    given: MergeParams, steps: tuple[int, ...], note: str
) -> None:
    assert any(note in line for line in noted(given, steps))


def test_a_lambda_that_varies_is_not_read_as_one_number() -> None:
    varying = MergeParams.model_validate({"lam": {"gradient": [0.2, 0.5]}})
    assert noted(varying, (1, 2, 3)) == []


def test_default_lambda() -> None:
    assert lam_of(params(), 5) == pytest.approx(0.25)
    assert lam_of(params(combine="mean"), 5) == lam_of(params(combine="ties"), 5) == 1
    assert lam_of(params(0.0), 5) == 0.0


@pytest.mark.parametrize(
    ("refused", "key"),
    [
        (params(anchor=7), "merge.lore.anchor"),
        (params(scope="model", combine="ties"), "merge.ties.scope"),
    ],
)
def test_an_anchor_that_is_not_merged_and_a_trim_over_the_model_are_refused(
    refused: MergeParams, key: str
) -> None:
    with pytest.raises(BadInput, match=key):
        check(Settings(refused, lambda name: refused, (1, 2, 3), {}))


@pytest.mark.parametrize("accepted", [params(anchor=3), params(scope="model"), params(combine="ties")])
def test_what_fits_is_accepted(accepted: MergeParams) -> None:
    check(Settings(accepted, lambda name: accepted, (1, 2, 3), {}))
