"""Optuna's samplers: the same seed draws the same, and only what the drawn method reads."""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.base.errors import BadInput
from tasks.parameters.merge import MergeParams
from tasks.parameters.search import SearchParams
from tasks.search.candidate import Candidate
from tasks.search.drawn import draw_candidates
from tasks.search.settings import check_space, is_read, merge_params
from tasks.search.trials import Losses, Tried, run_trials

LORE = MergeParams.model_validate({"method": "lore", "lam": 0.2, "dtype": "float32", "lore": {"mu": 2}})
SPACE: dict[str, Any] = {
    "over": {"method": ["average", "ema", "trend", "lore"], "newest": [2, 3, 5]},
    "between": {"ema.decay": [0.3, 0.95], "trend.kappa": [0, 1], "lam": [0.05, 0.2]},
}


def drawn(params: SearchParams, log: Path) -> Tried:
    def measure(candidate: Candidate) -> Losses:
        numbers = [value for _, value in candidate.settings if isinstance(value, float)]
        return Losses(np.array([1.0, 2.0]) * (1 + sum(numbers)) / candidate.newest)

    proposals = draw_candidates(params, partial(is_read, LORE), 5, log)
    return run_trials(proposals, 5, params.budget, measure)


@pytest.mark.parametrize(
    ("sampler", "space"), [("tpe", {}), ("cmaes", {}), ("gp", {}), ("tpe", SPACE), ("cmaes", SPACE)]
)
def test_the_same_seed_draws_the_same_again(sampler: str, space: dict[str, Any], tmp_path: Path) -> None:
    params = SearchParams.model_validate({"budget": 14, "sampler": sampler, "seed": 3, **space})
    first, again = (drawn(params, tmp_path / "log" / "x.log") for _ in range(2))
    assert list(first.losses) == list(again.losses)
    assert len(first.losses) == 14
    other = drawn(params.model_copy(update={"seed": 4}), tmp_path / "y.log")
    assert list(other.losses) != list(first.losses)


def test_a_candidate_has_only_what_its_method_reads(tmp_path: Path) -> None:
    tried = drawn(SearchParams.model_validate({"budget": 40, "sampler": "tpe", **SPACE}), tmp_path / "x.log")
    seen = Counter[str]()
    for candidate in tried.losses:
        settings = dict(candidate.settings)
        method = str(settings.pop("method"))
        seen[method] += 1
        assert (
            set(settings)
            <= {"average": set(), "ema": {"ema.decay"}, "trend": {"trend.kappa"}, "lore": {"lam"}}[method]
        )
        assert candidate.newest in (2, 3, 5)
        merged = merge_params(LORE, candidate.settings)
        assert merged.dtype == "float32"
        assert merged.method == method
    assert len(seen) == 4


def test_where_nothing_is_named_tpe_draws_methods_and_how_many(tmp_path: Path) -> None:
    tried = drawn(SearchParams(budget=30), tmp_path / "x.log")
    assert {dict(candidate.settings)["method"] for candidate in tried.losses} == {"average", "ema", "trend"}
    assert {candidate.newest for candidate in tried.losses} == {2, 3, 4, 5}


def test_a_lock_that_a_killed_search_left_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "x.log.lock").symlink_to("x.log")
    (tmp_path / "x.log").write_text("{")
    assert len(drawn(SearchParams(budget=3), tmp_path / "x.log").losses) == 3


def test_the_journal_is_one_that_optuna_opens(tmp_path: Path) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    tried = drawn(SearchParams(budget=6, sampler="cmaes"), tmp_path / "x.log")
    study = optuna.load_study(
        study_name="x", storage=JournalStorage(JournalFileBackend(str(tmp_path / "x.log")))
    )
    assert study.best_value == pytest.approx(min(own.mean for own in tried.losses.values()))


@pytest.mark.parametrize(
    ("space", "problem"),
    [
        ({"over": {"methud": ["ema"]}}, "unknown key merge.methud; did you mean method"),
        ({"over": {"method": ["ema", "best"]}}, "merge.*method.*best"),
        ({"over": {"newest": [2, 9]}}, "search.over.newest: 9 is not among 2 to 5"),
        ({"between": {"newest": [2, 4]}}, "list numbers in search.over"),
        ({"between": {"ema.decay": [0.5, 7]}}, "ema.decay"),
        ({"between": {"ema": [0.5, 0.7]}}, "ema"),
    ],
)
def test_what_merge_does_not_take_is_refused(space: dict[str, Any], problem: str) -> None:
    params = SearchParams.model_validate({"budget": 5, "sampler": "tpe", **space})
    with pytest.raises(BadInput, match=problem):
        check_space(params, LORE, 5)
