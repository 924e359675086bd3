"""After every training run, by itself: servers with passwords, a real Trainer with the callback, `loreline serve`.

The tests run in order on one project, in which the user has work that is not committed: a team's day.
"""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tasks.base.records.merge import MergeReport
from tasks.fetch_run import fetch_run
from tasks.merge_checkpoints import merge_checkpoints
from tasks.parameters.params import read_params
from tasks.select_checkpoints import select_checkpoints
from tests.support.project import GIT
from tests.support.servers import CREDENTIALS, both_servers, until
from tests.support.team import Team
from tests.support.tiny_world import TASKS, write_task

pytestmark = pytest.mark.servers


class Day(Team):
    """A team, and how its checkout was in the morning."""

    before: tuple[str, ...]
    refused: set[str]
    """Workspaces of flow runs with parameters that were refused."""

    def deployment(self, name: str) -> str:
        """Return the id of a deployment, by flow/name."""
        return str(self.prefect.get(f"deployments/name/{name}")["id"])


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    with pytest.MonkeyPatch.context() as patch, both_servers(tmp_path_factory.mktemp("servers"), guarded=True) as servers:  # fmt: skip
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)  # of the day's processes, too
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


def test_a_flow_run_cannot_name_task_files_of_its_own(day: Day, tmp_path: Path) -> None:
    """They can run Python; whoever may start runs may not choose them, nor tasks by the path of a file."""
    ran = tmp_path / "ran"
    task = write_task(tmp_path / "others", "likely", TASKS["likely"] + "doc_to_text: !function run.it\n")
    (task.parent / "run.py").write_text(f"open({str(ran)!r}, 'w')\ndef it(document): return ''\n")
    params = yaml.safe_load((day.project.root / "params.yaml").read_text())
    for asked in ({"include_path": str(task.parent)}, {"tasks": [str(task)], "primary": "likely/acc"}):
        given = params | {"fetch": {"source": "runs/first"}, "evaluate": params["evaluate"] | asked}
        run = day.prefect.post(f"deployments/{day.deployment('merge/team')}/create_flow_run", parameters={"params": given})  # fmt: skip
        until(lambda run=run: day.prefect.get(f"flow_runs/{run['id']}")["state_type"] == "FAILED")
        said = day.prefect.get(f"flow_runs/{run['id']}")["state"]["message"]
        assert "is not that of params.yaml on this machine" in said or "unknown task" in said
    assert not ran.exists()
    day.refused = {path.name for path in (day.project.state / "runs").iterdir()}
    assert len(day.refused) == 1


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
    # a refused run's workspace stays for the next attempt, until loreline prune
    assert {path.name for path in (day.project.state / "runs").iterdir()} == day.refused


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


FORCED = ["promote", "--version", "1", "--force", "--why", "the first of the day"]


@pytest.mark.parametrize(
    ("given", "commands"),
    [
        ({}, (["serve"], ["history"])),
        (dict.fromkeys(CREDENTIALS, "ann:a-guess"), (["watch"], ["run"], FORCED)),
    ],
    ids=["none", "wrong"],
)
def test_without_the_right_credentials_a_command_is_refused_in_a_sentence(
    day: Day, given: dict[str, str], commands: tuple[list[str], ...]
) -> None:
    """The servers ask for theirs; what they are called is the remedy (P5, P7)."""
    right = {name: value for name, value in day.project.env.items() if name not in CREDENTIALS}
    for command in commands:
        done = subprocess.run(
            ["loreline", *command], cwd=day.project.root, env=right | given, check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
        )  # fmt: skip
        told = done.stdout.splitlines()[-1]
        assert (done.returncode, "Traceback" in done.stdout) == (2, False), (command, done.stdout)
        assert told.startswith("error: http://127.0.0.1:"), told
        assert "PREFECT_API_AUTH_STRING" in told or "MLFLOW_TRACKING_USERNAME" in told
        assert "a-guess" not in done.stdout


def test_the_doctor_says_who_asks_for_a_password(day: Day) -> None:
    without = {**day.project.env, **dict.fromkeys(CREDENTIALS, "")}
    done = subprocess.run(["loreline", "doctor"], cwd=day.project.root, env=without, check=False, text=True, capture_output=True)  # fmt: skip
    if "no answer within" not in done.stdout:  # on a busy machine its deadline comes first
        assert done.returncode == 2
        assert "set PREFECT_API_AUTH_STRING" in done.stdout
        assert "set MLFLOW_TRACKING_USERNAME" in done.stdout


def test_with_them_a_version_is_promoted_and_they_are_written_nowhere(day: Day) -> None:
    assert "FORCED" in day.project.run("loreline", *FORCED)
    written = [path for path in day.project.root.rglob("*") if path.is_file() and not path.is_symlink()]
    written += [day.log, day.prefect.log, *day.prefect.log.parent.rglob("*.db")]
    assert len(written) > 100
    assert [path for path in written if path.name != "users.db" and b"Kanarie" in path.read_bytes()] == []
