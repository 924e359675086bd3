"""Optuna's samplers: the same seed draws the same, and only what the drawn method reads."""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.base.errors import BadInput, Unavailable
from tasks.parameters.merge import MergeParams
from tasks.parameters.search import SearchParams
from tasks.parameters.varying import Rules, resolve
from tasks.search.candidate import Candidate, plain_average
from tasks.search.drawn import draw_candidates
from tasks.search.layer_kinds import LAYER_KINDS
from tasks.search.settings import check_space, is_read, merge_params
from tasks.search.trials import Losses, Tried, run_trials
from tests.support.postgresql_cluster import shared_cluster
from tests.support.servers import ON_POSTGRESQL
from tests.support.trying import whole

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
    return run_trials(proposals, plain_average(5), params.budget, whole(measure))


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
    assert {dict(candidate.settings)["method"] for candidate in tried.losses} == {
        "average",
        "ema",
        "trend",
        "drift",
    }
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


def test_a_number_for_each_kind_of_layer_is_drawn_by_itself(tmp_path: Path) -> None:
    space = {
        "over": {"method": ["trend", "average"]},
        "between": {"trend.kappa": [0, 1]},
        "by_layer_kind": True,
    }
    tried = drawn(SearchParams.model_validate({"budget": 12, **space}), tmp_path / "x.log")
    found = [own for candidate in tried.losses if (own := dict(candidate.settings).get("trend.kappa"))]
    for kappa in found:
        assert isinstance(kappa, Rules)
        values = [rule.value for rule in kappa.rules]
        assert len(set(values)) == len(LAYER_KINDS)
        merged = merge_params(LORE, [("method", "trend"), ("trend.kappa", kappa)])
        assert resolve(merged, "model.layers.0.mlp.up_proj.weight", 0.5).trend.kappa == values[2]
    assert len(found) > 4
    assert len({str(candidate) for candidate in tried.losses}) == 12


def test_a_database_keeps_the_trials_for_the_dashboard_and_draws_the_same(tmp_path: Path) -> None:
    import optuna

    address = f"sqlite:///{tmp_path / 'trials.db'}"
    kept = SearchParams(budget=6, storage=address)
    first, again = drawn(kept, tmp_path / "x.log"), drawn(kept, tmp_path / "x.log")
    assert list(first.losses) == list(again.losses)
    assert list(first.losses) == list(drawn(SearchParams(budget=6), tmp_path / "y.log").losses)
    assert not (tmp_path / "x.log").exists()
    study = optuna.load_study(study_name="x", storage=address)
    told = {trial.value for trial in study.trials if trial.value is not None}
    assert told <= {own.mean for own in first.losses.values()}
    assert len(told) > 1


@pytest.mark.servers
@pytest.mark.skipif(not ON_POSTGRESQL, reason="make test-postgres runs it")
def test_postgresql_keeps_them_too_and_its_user_stays_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import optuna

    role, _, place = shared_cluster().new_database().partition("@")
    monkeypatch.setenv("PGUSER", role)
    params = SearchParams(budget=5, storage=f"postgresql://{place}")
    first, again = (drawn(params, tmp_path / "x.log") for _ in range(2))
    assert list(first.losses) == list(again.losses)
    assert optuna.get_all_study_names(params.storage) == ["x"]


@pytest.mark.parametrize(
    "address", ["sqlite:////proc/nowhere/trials.db", "postgresql://127.0.0.1:1/optuna", "mongo://host/x"]
)
def test_a_database_that_does_not_answer_is_said_in_a_sentence(address: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"search.storage: .* does not serve trials"):
        drawn(SearchParams(budget=3, storage=address), tmp_path / "x.log")


@pytest.mark.parametrize(
    ("space", "problem"),
    [
        ({"over": {"methud": ["ema"]}}, "unknown key merge.methud; did you mean method"),
        ({"over": {"method": ["ema", "best"]}}, "merge.*method.*best"),
        ({"over": {"newest": [2, 9]}}, "search.over.newest: 9 is not among 2 to 5"),
        ({"between": {"newest": [2, 4]}}, "list numbers in search.over"),
        ({"between": {"ema.decay": [0.5, 7]}}, "ema.decay"),
        ({"between": {"ema": [0.5, 0.7]}}, "ema"),
        ({"between": {"trimmed_mean.share": [0.1, 0.3]}, "by_layer_kind": True}, "trimmed_mean.share"),
        ({"by_layer_kind": True, "sampler": "cmaes"}, "search.by_layer_kind: there is no number to draw"),
        ({"by_layer_kind": True, "sampler": "greedy"}, "greedy searches weights alone"),
    ],
)
def test_what_merge_does_not_take_is_refused(space: dict[str, Any], problem: str) -> None:
    params = SearchParams.model_validate({"budget": 5, **space})
    with pytest.raises(BadInput, match=problem):
        check_space(params, LORE, 5)
