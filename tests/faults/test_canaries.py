"""Secrets in the environment, in settings and in parameters are found nowhere in what is written (P7)."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.support.project import Project, clone
from tests.support.tiny import write_checkpoint

CANARY = "Kanarie7"
"""In every secret, whatever is around it: a part that is shown is found, too."""
PASSWORD = f"{CANARY}/{CANARY}?{CANARY}#{CANARY} @{CANARY}"
NOBODY = "127.0.0.1:9"
STORES = {
    "server": f"http://bob:{PASSWORD}@{NOBODY}",
    "quoted": f"http://bob:{CANARY}%2F%3F%23@{NOBODY}",
    "database": f"postgresql://bob:{PASSWORD}@{NOBODY}/mlflow?sslpassword={CANARY}",
    "scheme": f"ftp://bob:{PASSWORD}@{NOBODY}",
}
ENVIRONMENT = {
    "HF_TOKEN": f"hf_{CANARY}",
    "AWS_ACCESS_KEY_ID": f"AKIA{CANARY}",
    "AWS_SECRET_ACCESS_KEY": f"{CANARY}/+{CANARY}",
    "AWS_SESSION_TOKEN": f"{CANARY}==",
    "AWS_ENDPOINT_URL": f"http://{NOBODY}",
    "AWS_MAX_ATTEMPTS": "1",
    "MLFLOW_TRACKING_USERNAME": "bob",
    "MLFLOW_TRACKING_PASSWORD": PASSWORD,
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "PREFECT_API_AUTH_STRING": f"admin:{CANARY}",
}
SOURCES = [
    f"s3://bob:{PASSWORD}@bucket/run",
    f"https://bucket.example/run?X-Amz-Signature={CANARY}",
    f"hf://bob:{CANARY}@org/name",
    f"mlflow:/runs/bob:{CANARY}@x/checkpoints",
    "s3://bucket/run",
]
SETTINGS = [
    f"register.tracking_uri={{password: {CANARY}}}",
    f"register.tracking_uri={{password: {CANARY}",
    f"register.tracking_uri=['http://bob:{PASSWORD}@host']",
    f"register.tracking_uri=postgresql://bob:{PASSWORD}@host/db",
    f"register.tracking_uri.password={CANARY}",
    f"register.tracking_uri:{CANARY}",
    f"fetch.source={{key: {CANARY}}}",
    f"watch.roots=[s3://bob:{PASSWORD}@bucket/*]",
    f"watch.roots={{secret: [{CANARY}]}}",
    f"merge.base=s3://bob:{PASSWORD}@bucket/base",
]


class Told(NamedTuple):
    """A command, and what it printed."""

    command: tuple[str, ...]
    code: int
    text: str


def loreline(project: Project, *command: str, **env: str) -> Told:
    done = subprocess.run(
        ["loreline", *command], cwd=project.root, env={**project.env, **env}, check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=180,
    )  # fmt: skip
    return Told(command, done.returncode, done.stdout)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Clone, with secrets in the environment, and a training run of three checkpoints."""
    project = clone(tmp_path_factory.mktemp("project"), ENVIRONMENT)
    for step in (1, 2, 3):
        write_checkpoint(project.root / "runs" / "demo", step)
    return project


def written(root: Path) -> Iterator[Path]:
    """Yield the files that hold the canary, git's packed objects unpacked."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and CANARY.encode() in path.read_bytes():
            yield path
    objects = ["git", "cat-file", "--batch-all-objects", "--batch"]
    assert CANARY.encode() not in subprocess.run(objects, cwd=root, capture_output=True, check=True).stdout


def assert_hidden(told: list[Told], root: Path) -> None:
    for each in told:
        assert CANARY not in each.text, each
        assert each.code in (0, 1, 2), each
    assert not list(written(root))
    print(f"{len(told)} commands, 0 canaries in what they printed and in {root}")


def test_a_few_commands_with_secrets(project: Project) -> None:
    told = [loreline(project, "fetch", "--set", setting) for setting in SETTINGS[:2]]
    assert_hidden(told, project.root)
    assert {each.code for each in told} == {2}


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_many_commands_with_secrets(project: Project) -> None:
    told = [loreline(project, "fetch", "--set", setting) for setting in SETTINGS]
    told += [loreline(project, "merge", "--set", setting) for setting in SETTINGS]
    told += [loreline(project, "fetch", "--set", f"fetch.source={source}") for source in SOURCES]
    told += [loreline(project, "watch", source) for source in SOURCES]
    told += [loreline(project, "run", "--run", source) for source in SOURCES]
    told += [loreline(project, "plan", source) for source in SOURCES]
    two = [str(project.root / "runs" / "demo" / f"checkpoint-{step}") for step in (1, 2)]
    told += [loreline(project, "merge", *two, "--out", "out", "--set", "merge.method=average")]
    told += [loreline(project, "merge", *two, "--out", "out", "--base", SOURCES[0])]
    told += [loreline(project, "params", "register"), loreline(project, "methods")]
    for uri in STORES.values():
        for command in (["doctor"], ["history"], ["looks"], ["promote"], ["--debug", "history"], ["run"]):
            told.append(loreline(project, *command, MLFLOW_TRACKING_URI=uri))
    assert_hidden(told, project.root)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_secrets_in_params_yaml_stay_there(project: Project) -> None:
    path = project.root / "params.yaml"
    right = path.read_bytes()
    told = []
    try:
        for setting in SETTINGS[2:4] + SETTINGS[6:9]:
            key, _, value = setting.partition("=")
            section, name = key.split(".")
            tree = yaml.safe_load(right)
            with suppress(yaml.YAMLError):  # then it is written as a text
                value = yaml.safe_load(value)
            tree[section][name] = value
            path.write_text(yaml.safe_dump(tree))
            told += [loreline(project, command) for command in ("fetch", "doctor", "run", "history")]
        path.write_text(f"register: {{tracking_uri: postgresql://bob:{PASSWORD}@host/db, [}}")
        told += [loreline(project, command) for command in ("fetch", "doctor", "run")]
    finally:
        path.write_bytes(right)
    assert_hidden(told, project.root)


@pytest.mark.faults
def test_the_environment_has_the_canaries(project: Project) -> None:
    """The search would find them."""
    (project.root / "leak").write_text(os.environ.get("HOME", "") + ENVIRONMENT["HF_TOKEN"])
    assert [path.name for path in written(project.root)] == ["leak"]
    (project.root / "leak").unlink()
