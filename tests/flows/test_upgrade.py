"""What release 0.1.0 left is gone on with as it is: nothing is merged again, and nothing has to be converted."""

import shutil
from pathlib import Path

import pytest
import yaml

from flows.prune_command import prune_old
from flows.watch import look_around
from tasks.base.errors import LorelineError
from tasks.base.records.training_run import SAMPLED
from tasks.doctor.registry import check_registry
from tasks.fetch_run import fetch_run
from tasks.jobs.identity import identity_of
from tasks.jobs.ledger import known_jobs, unmerged
from tasks.parameters.fetch import FetchParams
from tasks.parameters.params import Params, read_params
from tasks.promote_version import promote_version, roll_back
from tasks.registry.history import merged_runs
from tasks.registry.store import connect
from tasks.registry.versions import version_of_run
from tasks.sources.as_before import as_before
from tasks.versioning.git import git_answer
from tests.support.release_0_1_0 import STATE, unpack_project

OTHERS = {"merge": {"method": "average"}, "select": {"k": 2}}


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_prefect_server: None) -> Params:
    root = unpack_project(tmp_path)
    monkeypatch.chdir(root)
    monkeypatch.setenv("LORELINE_HOME", str(root / STATE))
    return read_params(Path("params.yaml"))


def test_history_doctor_and_ledger_know_what_was_done(params: Params) -> None:
    second, first = merged_runs(params.register_)
    assert (first.run, first.method, first.verdict, first.tag) == ("first", "lore", "KEEP", "merge/first")
    assert (first.aliases, second.aliases) == (("previous-champion",), ("challenger", "champion"))
    assert second.revision == git_answer(Path.cwd(), "rev-parse", "merge/second")
    assert [finding.level for finding in check_registry(params.register_)] == ["ok"] * 3
    assert [entry.source for entry in unmerged(known_jobs())] == ["runs/short"]


@pytest.mark.slow
def test_a_version_is_verified_judged_and_promoted_and_rolled_back(params: Params) -> None:
    back = roll_back(params.register_, "ann", "as it was")
    assert (back.moved, back.version) == (True, 1)
    again = promote_version(params, 2, "ann", "the second after all", True)
    assert (again.moved, again.version) == (True, 2)


def test_what_retention_lets_go_is_pruned_and_history_stays(
    params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    client = connect(params.register_)
    client.delete_registered_model_alias("old", "previous-champion")
    old = read_params(Path("params.yaml"), ["retention.newest=1", "retention.promoted_within=0"])
    prune_old(old, Path.cwd(), True)
    assert "removed: weights of version 1: " in capsys.readouterr().out
    assert git_answer(Path.cwd(), "tag") == "merge/second"
    assert [run.pruned for run in merged_runs(params.register_)] == [False, True]


def test_a_copy_of_a_run_is_known_by_the_digests_that_it_was_merged_with(
    params: Params, tmp_path: Path
) -> None:
    """Registry and ledger have SHA-256 of every checkpoint; a run that is another one is not digested whole."""
    shutil.copytree("runs/second", tmp_path / "copy")
    run = fetch_run(FetchParams(source=str(tmp_path / "copy"), settle=0), tmp_path / "artifacts")
    assert run.digest.startswith(SAMPLED)
    before = as_before(run, tmp_path / "artifacts", params.register_)
    assert before is not None
    known = version_of_run(params.register_, before.digest)
    assert known is not None
    assert known.version == 2
    as_said = read_params(Path("params.yaml"), ["merge.method=lore"])  # the default of 0.1.0
    assert identity_of(before, as_said) in {entry.identity for entry in known_jobs()}
    weights = sorted((tmp_path / "copy").glob("*/model.safetensors"))[-1]
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    again = fetch_run(FetchParams(source=str(tmp_path / "copy"), settle=0), tmp_path / "other")
    assert as_before(again, tmp_path / "other", params.register_) is None


@pytest.mark.servers
@pytest.mark.parametrize("changed", [{}, OTHERS], ids=["as it was", "with other parameters"])
def test_a_look_around_merges_nothing_again(
    params: Params, changed: dict[str, object], prefect: None
) -> None:
    """The ledger of 0.1.0 does not know a run by itself, so the registry is asked once."""
    from flows.by_hand import merge_run

    tree, asked = yaml.safe_load(Path("params.yaml").read_text()), list[str]()
    Path("params.yaml").write_text(yaml.safe_dump(tree | changed))
    now = read_params(Path("params.yaml"))

    def merge_it(source: str, _: str) -> None:
        asked.append(source)
        merge_run(source)

    with pytest.raises(LorelineError, match="runs/short"):
        look_around(now, merge_it)
    assert [run.model for run in merged_runs(now.register_)] == ["models:/old/2", "models:/old/1"]
    assert str(git_answer(Path.cwd(), "tag")).split() == ["merge/first", "merge/second"]
    asked.clear()
    look_around(now, merge_it)
    assert asked == []
