"""An address has one spelling, and a run a name; the roots hold the runs that are there now."""

import ast
import re
from pathlib import Path

import pytest

from tasks.base.errors import BadInput
from tasks.base.fingerprint import ROOT
from tasks.parameters.registration import RegisterParams
from tasks.sources.addresses import normal_address, source_of, sources_in
from tests.support.tiny import write_checkpoint

NOWHERE = RegisterParams(tracking_uri="http://127.0.0.1:1")


@pytest.mark.parametrize(
    "spelt",
    ["runs/demo", "runs/demo/", "./runs//demo", "runs/other/../demo", "{root}/runs/demo", "runs/latest"],
)
def test_a_directory_inside_the_project_is_spelt_relative_to_it(tmp_path: Path, spelt: str) -> None:
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "latest").symlink_to("demo")
    assert normal_address(spelt.format(root=tmp_path), tmp_path) == "runs/demo"


def test_a_directory_elsewhere_is_spelt_absolute(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    assert (
        normal_address("../training/", root)
        == normal_address(f"{tmp_path}/training", root)
        == f"{tmp_path}/training"
    )
    assert normal_address(f"{tmp_path}/project-2", root) == f"{tmp_path}/project-2"


def test_the_project_may_be_named_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "project" / "runs").mkdir(parents=True)
    (tmp_path / "link").symlink_to("project")
    assert (
        normal_address("runs", tmp_path / "link")
        == normal_address(f"{tmp_path}/link/runs", tmp_path / "project")
        == "runs"
    )


@pytest.mark.parametrize(
    "source", ["hf://lab/model", "hf://lab/model@step*", "mlflow:/runs/0af3/checkpoints"]
)
def test_what_is_no_directory_stays_as_it_is(tmp_path: Path, source: str) -> None:
    assert normal_address(source, tmp_path) == normal_address(f"{source}/", tmp_path) == source


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("runs/demo", "demo"),
        ("/data/runs/demo/", "demo"),
        ("runs/demo/../other", "other"),
        ("hf://lab/model", "model"),
        ("hf://lab/model@runs/step*", "model"),
        ("mlflow:/runs/0af3c2b1d4e5f6a7/deep/checkpoints", "0af3c2b1"),
    ],
)
def test_a_run_is_called_by_what_names_it(source: str, name: str) -> None:
    assert source_of(source).run_name(source) == name


def test_the_working_directory_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert source_of(".").run_name(".") == tmp_path.name


# --- what the roots hold --------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a project with runs at several depths, and what looks like runs."""
    root = tmp_path / "project"
    for run in ("runs/b", "runs/a", "runs/deep/er/c", "elsewhere/d"):
        write_checkpoint(root / run, 10)
    (root / "runs" / "empty").mkdir()
    (root / "runs" / "file").touch()
    (root / "runs" / "best" / "checkpoint-best").mkdir(parents=True)
    write_checkpoint(tmp_path / "outside" / "e", 10)
    return root


@pytest.mark.parametrize(
    ("roots", "found"),
    [
        (["runs/*"], ["runs/a", "runs/b"]),
        (["runs/**"], ["runs/a", "runs/b", "runs/deep/er/c"]),
        (["runs/[a]", "*/d"], ["elsewhere/d", "runs/a"]),
        (["runs/*", "runs/a", "./runs/b/", "{root}/runs/*"], ["runs/a", "runs/b"]),
        (["{root}/../outside/*", "../outside/e"], ["{outside}/e"]),
        (["runs/nothing-*", "missing/*"], []),
        (["runs/empty"], []),
        ([], []),
    ],
)
def test_globs_find_directories_with_checkpoints_each_once(
    project: Path, roots: list[str], found: list[str]
) -> None:
    places = {"root": project, "outside": project.parent / "outside"}
    assert sources_in([each.format(**places) for each in roots], project, NOWHERE) == [
        each.format(**places) for each in found
    ]


def test_the_working_directory_plays_no_part(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project / "runs")
    assert sources_in(["runs/a", "runs/*"], project, NOWHERE) == ["runs/a", "runs/b"]


def test_a_directory_that_is_reached_twice_is_one_source(project: Path) -> None:
    (project / "runs" / "latest").symlink_to("a")
    (project / "runs" / "deep" / "round").symlink_to("..")
    assert sources_in(["runs/**"], project, NOWHERE) == ["runs/a", "runs/b", "runs/deep/er/c"]


def test_looking_changes_nothing(project: Path) -> None:
    before = {path: path.lstat().st_mtime_ns for path in [project, *project.rglob("*")]}
    sources_in(["**"], project, NOWHERE)
    assert {path: path.lstat().st_mtime_ns for path in [project, *project.rglob("*")]} == before


@pytest.mark.parametrize("root", ["missing", "runs/missing/", "/nowhere/at/all", "runs/file"])
def test_a_directory_that_is_not_there_is_a_mistake(project: Path, root: str) -> None:
    with pytest.raises(
        BadInput, match=rf"^watch\.roots: {root}: no such directory; correct it, or write a glob"
    ):
        sources_in(["runs/*", root], project, NOWHERE)


def test_repositories_are_named_and_not_asked(project: Path) -> None:
    assert sources_in(["hf://lab/model@step*", "hf://lab/model/", "runs/a"], project, NOWHERE) == [
        "hf://lab/model",
        "hf://lab/model@step*",
        "runs/a",
    ]


# --- who knows the kinds --------------------------------------------------------------------------


def test_only_the_kinds_know_their_addresses_and_one_file_the_names_of_checkpoints() -> None:
    """In code: what is written for people, in docstrings and messages, may name examples."""
    for path in [*ROOT.glob("tasks/**/*.py"), *ROOT.glob("flows/**/*.py")]:
        place, texts = path.relative_to(ROOT).as_posix(), plain_texts(path)
        # the base of adapters may be on the Hub, wherever the run is
        if not place.startswith("tasks/sources/kinds/") and place != "tasks/base/hub_address.py":
            assert not texts & {"hf://", "mlflow:/", "mlflow:/runs/"}, place
        if place != "tasks/checkpoints/names.py":
            assert "checkpoint-" not in texts, place
            assert not [text for text in texts if re.search(r"checkpoint-[(\[\\]", text)], place


def plain_texts(path: Path) -> set[str]:
    """Return the strings of a source file, but for the parts of f-strings."""
    nodes = list(ast.walk(ast.parse(path.read_bytes())))
    parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    constants = [node for node in nodes if isinstance(node, ast.Constant) and id(node) not in parts]
    return {node.value for node in constants if isinstance(node.value, str)}


@pytest.mark.parametrize("address", ["s3://me:hunter2@bucket/run", "nobody-knows://me:hunter2@host/run", "https://host/run?sig=hunter2"])  # fmt: skip
def test_an_address_with_a_secret_is_refused_and_not_told(address: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="fetch.source: holds a user") as caught:
        normal_address(address, tmp_path)
    assert "hunter2" not in str(caught.value)
