"""After every training run, by itself: real servers, a real Trainer with the callback, `loreline serve`.

The tests run in order on one project, in which the user has work that is not committed: a team's day.
"""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.base.records import MergeReport
from tasks.fetch_run import fetch_run
from tasks.merge_checkpoints import merge_checkpoints
from tasks.parameters.params import read_params
from tasks.select_checkpoints import select_checkpoints
from tests.support.project import GIT
from tests.support.servers import both_servers, until
from tests.support.team import Team

pytestmark = pytest.mark.servers


class Day(Team):
    """A team, and how its checkout was in the morning."""

    before: tuple[str, ...]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    with both_servers(tmp_path_factory.mktemp("servers")) as servers:
        day = Day(tmp_path_factory.mktemp("day") / "project with spaces", servers)
        root = day.project.root
        (root / "README.md").write_text("edited\n")
        (root / "staged.txt").write_text("staged")
        subprocess.run([*GIT, "add", "staged.txt"], cwd=root, check=True)
        (root / "CHANGELOG.md").unlink()
        day.before = status(root)
        day.serve()
        yield day
        if day.serving:
            day.kill()


def status(root: Path) -> tuple[str, ...]:
    """Return what git and DVC say about the user's checkout."""

    def said(*command: str) -> str:
        return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout

    return (
        said("git", "status", "--porcelain=v2", "--branch"),
        said("git", "diff", "HEAD"),
        said("git", "stash", "list"),
        said(sys.executable, "-m", "dvc", "status"),
    )


def ended(training: "subprocess.Popen[str]") -> float:
    """Wait for a training run; return when it ended."""
    output, _ = training.communicate(timeout=120)
    assert training.returncode == 0, output
    return float(output.splitlines()[-1])


def digest_by_hand(day: Day, name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Merge a run's checkpoints stage by stage, elsewhere."""
    monkeypatch.chdir(day.project.root)
    params = read_params(Path("params.yaml"), [f"fetch.source=runs/{name}"])
    fetch_run(params.fetch, place)
    select_checkpoints(params.select, place)
    return merge_checkpoints(params.merge, place).digest


def test_a_training_run_ends_and_its_merge_is_a_version(
    day: Day, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property
) -> None:
    end = ended(day.train("first"))
    day.wait_for("first")
    (version,) = day.versions("first")
    assert version.tags["loreline.verdict"] in ("PROMOTE", "KEEP", "INCONCLUSIVE")
    assert version.tags["loreline.merge"] == digest_by_hand(day, "first", tmp_path / "artifacts", monkeypatch)
    assert version.tags["loreline.git_tag"] == "merge/first"
    assert "merge/first" in day.project.run("git", "tag").split()
    began = day.tasks(day.merges("first")[0]["id"])["merge"][0]
    print(f"{began - end:.1f} s from the end of training to the start of its merge")
    record_property("seconds_to_merge", began - end)


def test_twenty_announcements_are_one_merge_and_two_runs_together_take_turns(day: Day) -> None:
    training = [day.train("second", seed=1), day.train("third", seed=2)]
    for run in training:
        ended(run)
    for _ in range(20):
        day.announce("second")
    day.wait_for("second", "third")
    until(lambda: len(over := day.merges("second")) == 21 and all(run["end_time"] for run in over), 400)
    assert len(day.versions("second")) == len(day.versions("third")) == 1
    told = {run["id"]: (run["state_name"], run["state"]["message"]) for run in day.merges("second")}
    (worked,) = [run for run, (state, _) in told.items() if state == "Completed"]
    model = f"models:/team/{day.versions('second')[0].version}"
    for state, message in (told[run] for run in told.keys() - {worked}):
        assert state == "NothingToDo"
        assert model in message or worked in message
    first, second = sorted(turn(day, name) for name in ("second", "third"))
    assert first[1] <= second[0]
    (limit,) = day.prefect.post("v2/concurrency_limits/filter")
    assert (limit["name"], limit["limit"]) == (f"loreline-{socket.gethostname()}-cpu", 1)
    until(lambda: not day.prefect.post("v2/concurrency_limits/filter")[0]["active_slots"])


def turn(day: Day, name: str) -> tuple[float, float]:
    """Return when a run had the device: from the start of its merge to the end of its evaluation."""
    (worked,) = [run for run in day.merges(name) if run["state_name"] == "Completed"]
    tasks = day.tasks(worked["id"])
    return tasks["merge"][0], tasks["evaluate"][1]


def test_killed_in_the_middle_of_a_merge_and_served_again_it_ends_with_one_version(
    day: Day, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended(day.train("fourth", seed=3))
    # The merge of this little model takes tenths of a second: look often, and take one that just ended as well.
    until(lambda: list(day.project.state.glob("runs/*/artifacts/*merged*")), every=0.005)
    day.kill()
    assert not day.versions("fourth")
    day.serve()
    day.wait_for("fourth")
    (version,) = day.versions("fourth")
    assert version.tags["loreline.merge"] == digest_by_hand(
        day, "fourth", tmp_path / "artifacts", monkeypatch
    )
    states = sorted(run["state_name"] for run in day.merges("fourth"))
    assert states == ["Completed", "Crashed"]
    until(lambda: not [run for run in day.flow_runs("watch") if run["state_type"] == "RUNNING"])


def test_what_could_not_be_announced_is_found_by_the_schedule(day: Day) -> None:
    day.kill()
    day.prefect.stop()
    ended(day.train("fifth", seed=4))
    day.prefect.restart()
    day.serve(cron="* * * * *")
    day.wait_for("fifth")
    scheduled = day.prefect.post(
        "flow_runs/filter", flows={"name": {"any_": ["watch"]}}, sort="START_TIME_DESC"
    )
    assert any(run["auto_scheduled"] for run in scheduled)
    until(
        lambda: any(
            run["auto_scheduled"] and run["state_type"] == "COMPLETED" for run in day.flow_runs("watch")
        )
    )
    assert len(day.versions("fifth")) == 1


def test_the_user_s_unfinished_work_is_as_it_was(day: Day) -> None:
    day.kill()
    assert status(day.project.root) == day.before
    assert not list((day.project.state / "runs").iterdir())


def test_each_tag_gives_its_model_and_the_parameters_that_ran(day: Day, tmp_path: Path) -> None:
    root, elsewhere = day.project.root, tmp_path / "elsewhere"
    subprocess.run(["git", "clone", "--quiet", str(root), str(elsewhere)], check=True)
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run(
        [*dvc, "config", "--local", "cache.dir", str(root / ".dvc" / "cache")], cwd=elsewhere, check=True
    )
    for version in day.versions():
        run, tag = version.tags["loreline.run"], version.tags["loreline.git_tag"]
        subprocess.run(["git", "checkout", "--quiet", tag], cwd=elsewhere, check=True)
        subprocess.run([*dvc, "checkout", "--quiet", "--force"], cwd=elsewhere, check=True)
        merged = MergeReport.read(elsewhere / "artifacts" / "merged" / "merge.json")
        assert merged.digest == version.tags["loreline.merge"]
        assert read_params(elsewhere / "params.yaml").fetch.source == f"runs/{run}"
        clean = subprocess.run(
            [*dvc, "status"], cwd=elsewhere, check=True, capture_output=True, text=True
        ).stdout
        assert "up to date" in clean
    assert len(day.versions()) == 5


def test_history_names_them_all(day: Day) -> None:
    said = day.project.run("loreline", "history")
    for version in day.versions():
        assert f"models:/team/{version.version}" in said
        assert version.tags["loreline.git_revision"][:10] in said
