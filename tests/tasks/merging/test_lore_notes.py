"""What LoRE's settings amount to is said; what cannot be is refused in one sentence that names the key."""

import pytest
from pydantic import ValidationError

from tasks.base.errors import BadInput
from tasks.merging.lore_notes import check_lore, lore_notes
from tasks.merging.program import Settings
from tasks.parameters.merge import LoreParams, MergeParams
from tasks.recipes.recipe import read_merge_params


def params(lam: float | None = None, scope: str = "tensor", **lore: object) -> MergeParams:
    return MergeParams.model_validate({"method": "lore", "lam": lam, "ties": {"scope": scope}, "lore": lore})


def settings(given: MergeParams, steps: tuple[int, ...]) -> Settings:
    return Settings(given, lambda name: given, steps, {})


@pytest.mark.parametrize(
    ("given", "steps", "note"),
    [
        (params(), (1, 2), "equal to averaging"),
        (params(0.25), (1, 2, 3, 4), "equal to averaging: λ = 1/N"),
        (params(1.0), (1, 2, 3), "λ extrapolates: 2 times"),
        (params(), (1, 2, 3), "θ* = mean − 0.25 · (mean − θ_0)"),
        (params(0.0), (1, 2, 3), "θ* = mean − 1 · (mean − θ_0)"),
        (params(anchor=2), (1, 2), "anchored at step 2: θ* = mean − 0.125 · SVT"),
        (params(0.5, anchor=2), (1, 2), "equal to averaging: λ = 1/N"),
        (params(anchor=2), (1, 2, 3), "changes nothing"),
        (params(combine="mean"), (1, 2, 3), "equal to averaging: λ = 1"),
        (params(1.5, combine="mean"), (1, 2, 3), "θ* = mean + 0.5 · (mean − θ_0)"),
        (params(2.0, combine="mean", anchor=1), (1, 2), "θ* = mean + 0.5 · SVT"),
        (params(combine="ties"), (1, 2), "equal to averaging"),
        (params(combine="ties"), (1, 2, 3), "θ* = θ_0 + 1 · the sign-elected mean"),
        (params(passes=10), (1, 2, 3), "stopped after 10 passes, converged or not"),
        (params(preset="paper"), (1, 2, 3), "λ extrapolates: 2 times"),
    ],
)
def test_the_notes_say_what_the_settings_amount_to(
    given: MergeParams, steps: tuple[int, ...], note: str
) -> None:
    assert any(note in line for line in lore_notes(settings(given, steps)))


@pytest.mark.parametrize(
    ("given", "steps"), [(params(), (1, 2, 3)), (params(1.0, anchor=1), (1, 2)), (params(0.5), (1, 2, 3))]
)
def test_averaging_is_not_claimed_of_what_is_none(given: MergeParams, steps: tuple[int, ...]) -> None:
    assert not any("equal to averaging" in line for line in lore_notes(settings(given, steps)))


def test_a_lambda_that_varies_is_not_read_as_one_number() -> None:
    varying = MergeParams.model_validate({"method": "lore", "lam": {"gradient": [0.2, 0.5]}})
    assert lore_notes(settings(varying, (1, 2, 3))) == []


@pytest.mark.parametrize(
    ("refused", "key"),
    [
        (params(anchor=7), "merge.lore.anchor: step 7 is not merged; the steps are [1, 2, 3]"),
        (params(scope="model", combine="ties"), "merge.ties.scope"),
        (params(penalty="squared"), "merge.lore.mu_scale"),
        (params(penalty="squared", mu_scale="sigma1"), "merge.lore.mu_scale"),
        (params(passes=3, anchor=1), "merge.lore.passes"),
    ],
)
def test_settings_that_contradict_each_other_or_the_checkpoints_are_refused(
    refused: MergeParams, key: str
) -> None:
    with pytest.raises(BadInput) as raised:
        check_lore(settings(refused, (1, 2, 3)))
    assert str(raised.value).startswith(key)


@pytest.mark.parametrize(
    "accepted",
    [
        params(anchor=3),
        params(scope="model"),
        params(combine="ties"),
        params(penalty="squared", mu_scale="absolute"),
        params(passes=3),
        params(preset="paper", penalty="squared"),
    ],
)
def test_what_fits_is_accepted(accepted: MergeParams) -> None:
    check_lore(settings(accepted, (1, 2, 3)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mu", "0"), ("mu", "-0.1"), ("mu", ".nan"), ("mu", ".inf"), ("rank_ratio", "0"), ("rank_ratio", "1.01"),
        ("rank_ratio", "-1"), ("rank_ratio", ".nan"), ("tolerance", "0"), ("tolerance", "1"), ("tolerance", ".nan"),
        ("passes", "0"), ("passes", "1.5"), ("mu_scale", "sigma"), ("penalty", "l1"), ("combine", "median"),
        ("anchor", "first"), ("preset", "demo"), ("mew", "1"),
    ],
)  # fmt: skip
def test_values_outside_their_ranges_are_refused_by_key(key: str, value: str) -> None:
    with pytest.raises(BadInput, match=rf"merge\.lore\.{key}"):
        read_merge_params([f"merge.lore.{key}={value}"])


@pytest.mark.parametrize("key", ["mu", "rank_ratio"])
def test_values_that_vary_over_layers_are_held_to_the_same_ranges(key: str) -> None:
    with pytest.raises(ValidationError):
        params(**{key: {"gradient": [0.5, -0.5]}})


def test_the_preset_is_the_paper_s_and_given_values_win() -> None:
    """Liu et al. 2025: μ = 0.01 on the singular values themselves, r = 0.2 · min(m, n)."""
    paper = LoreParams.model_validate({"preset": "paper"})
    assert (paper.mu, paper.mu_scale, paper.rank_ratio) == (0.01, "absolute", 0.2)
    own = LoreParams.model_validate({"preset": "paper", "mu": 0.5, "rank_ratio": 0.7})
    assert (own.mu, own.mu_scale, own.rank_ratio) == (0.5, "absolute", 0.7)
    assert LoreParams().mu_scale == "auto"
