"""The whole thing in a clone of the repository: Trainer, Prefect, lm-eval, MLflow and DVC, all real.

The tests run in order on one project: a user's afternoon.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from flows.demo.training import finished_run
from tasks.base.publish import MANIFEST
from tasks.base.records.evaluation import Evaluation
from tests.support.project import ROOT, Project, clone
from tests.support.servers import prefect_server


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Clone, train briefly, and run the flow once; after that a Prefect server runs, which saves time."""
    project = clone(tmp_path_factory.mktemp("project"))
    project.set("fetch", settle=0)
    project.set("evaluate", limit=40)
    finished_run(project.root / "runs" / "demo", seed=0, steps=150)
    project.output = project.run("loreline", "run")
    database = f"sqlite+aiosqlite:///{project.state / 'prefect' / 'prefect.db'}"
    place = tmp_path_factory.mktemp("server")
    with prefect_server(place, PREFECT_API_DATABASE_CONNECTION_URL=database) as server:
        project.env["PREFECT_API_URL"] = server.api_url
        yield project


def test_the_flow_ends_with_table_verdict_and_where_to_look(project: Project) -> None:
    evaluation = Evaluation.read(project.root / "artifacts" / "evaluation" / "evaluation.json")
    assert [model.role for model in evaluation.models] == ["best", "last", "average", "merge"]
    assert {score.metric for score in evaluation.scores} >= {
        "word_problems_nll/nll",
        "word_problems/exact_match",
    }
    flat = " ".join(project.output.split())
    assert evaluation.verdict.sentence in flat
    assert evaluation.verdict.decision in ("PROMOTE", "KEEP", "INCONCLUSIVE")
    assert "models:/loreline-demo/1 (challenger)" in flat
    assert "merge/demo" in flat
    assert project.run("git", "tag").split() == ["merge/demo"]
    assert "Traceback" not in project.output


def test_a_merged_model_lies_once_on_the_disk_and_nobody_can_write_through_a_name_of_it(
    project: Project,
) -> None:
    weights = project.root / "artifacts" / "merged" / "model.safetensors"
    kept = [*(project.root / ".dvc" / "cache").rglob("*"), *(project.state / "mlartifacts").rglob("*")]
    same = [path for path in kept if path.is_file() and path.samefile(weights)]
    assert (len(same), weights.stat().st_nlink, weights.stat().st_mode & 0o222) == (2, 3, 0)
    assert "up to date" in project.run("dvc", "status")


def test_prefect_shows_the_verdict_and_what_each_task_did(project: Project) -> None:
    with closing(sqlite3.connect(project.root / ".loreline" / "prefect" / "prefect.db")) as database:
        shown = database.execute("select data from artifact where key = 'verdict-loreline-demo'").fetchall()
        names = {name for (name,) in database.execute("select name from task_run")}
    assert len(shown) == 1
    assert "word_problems_nll/nll" in shown[0][0]
    assert {"fetch runs/demo", "merge by planned", "register as loreline-demo"} <= names


def test_the_flow_run_s_log_and_name_tell_what_became_of_it(project: Project) -> None:
    with closing(sqlite3.connect(project.root / ".loreline" / "prefect" / "prefect.db")) as database:
        ((run, name),) = database.execute("select id, name from flow_run").fetchall()
    verdict = Evaluation.read(project.root / "artifacts" / "evaluation" / "evaluation.json").verdict
    assert name.endswith(f" {verdict.decision}: loreline-demo 1 from runs/demo")
    told = " ".join(project.run("prefect", "flow-run", "logs", run).split())
    for expected in (
        "evaluate: model 4 of 4, planned merge",
        "peak memory of this process",
        " ".join(verdict.sentence.split()),
        "registered as models:/loreline-demo/1 in ",
        "tagged merge/demo",
    ):
        assert expected in told


def test_the_version_says_where_it_came_from(project: Project) -> None:
    code = (
        "import json; from tasks.parameters.params import RegisterParams; from tasks.registry.store import connect\n"
        "from tasks.registry.versions import version_of\n"
        "client = connect(RegisterParams(name='loreline-demo'))\n"
        "print(json.dumps(version_of(client, 'loreline-demo', 1).tags))"
    )
    tags = json.loads(project.run(sys.executable, "-c", code).splitlines()[-1])
    lock = yaml.safe_load((project.root / "dvc.lock").read_text())
    head = project.run("git", "rev-parse", "HEAD").strip()
    assert tags["loreline.dvc"] == lock["stages"]["merge"]["outs"][0]["md5"]
    assert tags["loreline.git_commit"] == head
    assert json.loads(tags["loreline.steps"]) == [source.step for source in project.merge().inputs]


def test_afterwards_dvc_has_nothing_to_do(project: Project) -> None:
    assert "up to date" in project.run("dvc", "status")
    assert "up to date" in project.run("dvc", "repro")
    metrics = json.loads(project.run("dvc", "metrics", "show", "--json"))
    assert "word_problems_nll/nll" in json.dumps(metrics)


@pytest.mark.slow
def test_the_registered_model_loads_and_generates_in_another_process(project: Project) -> None:
    code = (
        "from tasks.parameters.params import RegisterParams; from tasks.registry.store import connect\n"
        "import mlflow; mlflow.set_tracking_uri(connect(RegisterParams()).tracking_uri)\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "path = mlflow.artifacts.download_artifacts('models:/loreline-demo@challenger')\n"
        "model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)\n"
        "out = model.generate(**tokenizer('2 + 2', return_tensors='pt'), max_new_tokens=4)\n"
        "print('generated', out.shape[1])"
    )
    assert "generated" in project.run(sys.executable, "-c", code)


def test_the_flow_again_changes_nothing(project: Project) -> None:
    before = (project.merge(), project.registration())
    manifests = {path: path.stat().st_ino for path in project.root.glob(f"artifacts/*/{MANIFEST}")}
    project.run("loreline", "run")
    assert (project.merge(), project.registration()) == before
    assert {path: path.stat().st_ino for path in manifests} == manifests
    assert project.versions() == 1
    assert "up to date" in project.run("dvc", "status")


@pytest.mark.slow
def test_killed_in_the_middle_of_the_merge_it_ends_with_the_same_digests(project: Project) -> None:
    before = (project.merge(), project.registration())
    shutil.rmtree(project.root / "artifacts" / "merged")
    flow = subprocess.Popen(["loreline", "run"], cwd=project.root, env=project.env, start_new_session=True,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    while not list(project.root.glob("artifacts/.merged.*/model.safetensors")):
        assert flow.poll() is None, "the flow ended before it could be killed"
        time.sleep(0.001)
    os.killpg(flow.pid, signal.SIGKILL)
    flow.wait()
    assert not (project.root / "artifacts" / "merged").exists()
    project.run("loreline", "run")
    assert (project.merge(), project.registration()) == before
    assert project.versions() == 1
    assert not list(project.root.glob("artifacts/.*"))


@pytest.mark.slow
def test_dvc_repro_from_nothing_gives_the_same_weights(project: Project) -> None:
    weights = (project.root / "artifacts" / "merged" / "model.safetensors").read_bytes()
    lock = (project.root / "dvc.lock").read_text()
    shutil.rmtree(project.root / "artifacts")
    shutil.rmtree(project.root / ".dvc" / "cache")
    project.run("dvc", "repro")
    assert (project.root / "artifacts" / "merged" / "model.safetensors").read_bytes() == weights
    assert (project.root / "dvc.lock").read_text() == lock


@pytest.mark.slow
def test_another_method_reruns_merge_and_what_follows_and_nothing_before(project: Project) -> None:
    project.set("merge", method="ema")
    before = project.merge().digest
    said = project.run("dvc", "repro")
    assert "Running stage" in said
    ran = [line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")]
    assert ran == [
        "search",
        "merge",
        "evaluate",
        "register",
    ]  # search reads the merge section, to say: nothing
    assert project.merge().digest != before
    assert project.versions() == 2


@pytest.mark.slow
def test_exploring_publishes_nothing_unless_it_is_asked_to(project: Project) -> None:
    """And what was explored is registered by hand, with the commit that it was judged in."""
    before, params = project.registration(), (project.root / "params.yaml").read_text()
    for key in ("user.name", "user.email"):  # which DVC's experiments want, and this machine may lack
        project.run("git", "config", key, "somebody@example.org")
    project.run("dvc", "exp", "run", "--force", "--single-item", "register")
    left = project.root / "artifacts" / "registration" / "unregistered.json"
    assert json.loads(left.read_text()) == {"digest": before.digest, "reason": "it is an experiment of DVC"}
    project.run("git", "checkout", "--quiet", "-b", "try")
    project.set("merge", method="wma")
    said = project.run("dvc", "repro")
    assert "Nothing is registered: it is dvc repro on the branch try, not on main or master." in said
    assert json.loads(left.read_text())["digest"] == project.merge().digest != before.digest
    assert project.versions() == before.version
    project.run("loreline", "register")
    assert (project.registration().version, left.exists()) == (before.version + 1, False)
    project.set("merge", method="lawa")
    project.set("register", publish="always")
    project.run("dvc", "repro")
    assert project.registration().version == before.version + 2
    project.run("git", "checkout", "--quiet", "main")
    (project.root / "params.yaml").write_text(params)
    project.run("dvc", "repro")
    assert project.versions() == before.version + 2
    assert project.registration() == before


@pytest.mark.slow
def test_a_run_with_other_parameters_leaves_the_pipeline_s_artifacts_alone(project: Project) -> None:
    tags, before = project.run("git", "tag").split(), project.merge()
    said = project.run("loreline", "run", "--set", "merge.method=average")
    (tag,) = set(project.run("git", "tag").split()) - set(tags)
    assert tag in said
    assert "method: average" in project.run("git", "show", f"{tag}:params.yaml")
    assert not list((project.state / "runs").iterdir())
    assert project.merge() == before
    assert "up to date" in project.run("dvc", "status")


@pytest.mark.slow
def test_a_run_that_was_merged_before_is_named_at_once(project: Project) -> None:
    before = project.versions()
    said = project.run("loreline", "run", "--set", "merge.method=average")
    assert f"models:/loreline-demo/{before} in {project.state / 'mlflow.db'}: " in said
    assert project.versions() == before


@pytest.mark.slow
def test_the_workflow_on_a_pull_request_compares_with_the_last_merge_and_publishes_nothing(
    project: Project, tmp_path: Path
) -> None:
    """The steps of merge.yml as a runner's shell runs them; what they install is there, and gh takes notes."""
    origin, checkout, remote, own = (tmp_path / name for name in ("origin", "checkout", "remote", "bin"))
    project.run("dvc", "remote", "add", "--local", "--default", "store", str(remote))
    project.run("dvc", "push", "--all-branches")
    project.run("git", "clone", "--quiet", "--bare", ".", str(origin))
    project.run("git", "clone", "--quiet", str(origin), str(checkout))
    project.run("git", "-C", str(checkout), "checkout", "--quiet", "--detach")
    shutil.copyfile(project.root / ".dvc" / "config.local", checkout / ".dvc" / "config.local")
    (checkout / "runs").symlink_to(project.root / "runs")
    params = yaml.safe_load(project.run("git", "show", "merges:params.yaml"))
    params["evaluate"]["limit"] = 30
    (checkout / "params.yaml").write_text(yaml.safe_dump(params))
    own.mkdir()
    (own / "gh").write_text(f'#!/bin/sh\necho "$GH_TOKEN $@" > {tmp_path}/said; cp "$5" {tmp_path}/comment\n')
    (own / "gh").chmod(0o755)
    before = (project.versions(), sorted(remote.rglob("*")))
    env = project.env | {
        "PATH": f"{own}:{project.env['PATH']}",
        "PYTHONPATH": str(checkout),
        "LORELINE_HOME": str(tmp_path / "state"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{project.state / 'mlflow.db'}",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
    }
    env.pop("PREFECT_API_URL")
    for step in steps_of_the_workflow("pull_request"):
        command = ["bash", "-e", "-c", step.pop("run")]
        done = subprocess.run(command, cwd=checkout, env=env | step, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)  # fmt: skip
        assert done.returncode == 0, done.stdout
    told, last = (tmp_path / "comment").read_text(), project.run("git", "log", "-1", "--format=%s", "merges")
    assert told.startswith(f"### Metrics against: {last}")
    assert "| artifacts/evaluation/metrics.json |" in told  # items were left out, so numbers differ
    assert told == (tmp_path / "summary").read_text()
    said = (tmp_path / "said").read_text()
    assert said.startswith("of github.token pr comment of github.event.number --body-file")
    assert (checkout / "artifacts" / "registration" / "unregistered.json").is_file()
    assert (project.versions(), sorted(remote.rglob("*"))) == before


def steps_of_the_workflow(event: str) -> list[dict[str, str]]:
    """Return the shell commands of merge.yml that run on an event, each with its environment; values say what they are of."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "merge.yml").read_text())
    (job,) = workflow["jobs"].values()
    runs = {f"github.event_name == '{event}'": True, None: True}
    taken = [step for step in job["steps"] if runs.get(step.get("if")) and not step.get("run", "make setup").startswith("make setup")]  # fmt: skip
    named = {**workflow["env"], **{key: "" for key in job["env"] if key != "MLFLOW_TRACKING_URI"}}
    assert all("${{" not in step["run"] for step in taken)  # what others write is no shell
    assert all(f"secrets.{key} " in job["env"][key] for key in named.keys() & job["env"].keys())
    return [
        {
            **named,
            "run": step["run"],
            **{key: f"of {value.strip('${} ')}" for key, value in step.get("env", {}).items()},
        }
        for step in taken
    ]


def test_an_unreachable_registry_is_a_failure_in_one_sentence(project: Project) -> None:
    said = project.run("loreline", "evaluate", "--set", "register.tracking_uri=http://127.0.0.1:9", code=1)
    assert "http://127.0.0.1:9: the MLflow server does not answer" in said
    assert "Traceback" not in said


def test_bad_input_inside_the_flow_is_one_sentence_and_exit_code_2(project: Project) -> None:
    said = project.run("loreline", "run", "--set", "evaluate.tasks=[word_problem]", code=2)
    assert "word_problems" in said.splitlines()[-1] or "word_problems" in said
    assert "Traceback" not in said
