"""A fingerprint changes exactly when code, parameters or inputs do."""

import ast
from pathlib import Path

import pytest

from tasks.base.fingerprint import IMPORT, ROOT, code_files, fingerprint
from tasks.parameters.selection import SelectParams


def test_code_files_follow_imports_and_stop_at_other_stages() -> None:
    names = [path.relative_to(ROOT).as_posix() for path in code_files("tasks.merge_checkpoints")]
    assert "tasks/merging/lore/dense.py" in names  # two imports away
    assert "tasks/evaluate_merge.py" not in names


def test_a_package_that_is_imported_as_such_counts_with_all_its_files() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in code_files("tasks.fetch_run")}
    assert {path.relative_to(ROOT).as_posix() for path in ROOT.glob("tasks/sources/kinds/*.py")} <= names
    assert "tasks/sources/hub_cache.py" in names  # which only one of them imports


@pytest.mark.parametrize(
    ("line", "counted"),
    [
        ("from tasks.room import kinds", ["__init__", "one", "other", "deeper/__init__", "deeper/third"]),
        ("import tasks.room.kinds", ["__init__", "one", "other", "deeper/__init__", "deeper/third"]),
        ("from tasks.room.kinds import one", ["__init__", "one"]),
        ("from tasks.room.kinds.one import NAME", ["one"]),
        ("import tasks.room.kinds.one", ["one"]),
        ("from tasks.room.kinds import deeper", ["__init__", "deeper/__init__", "deeper/third"]),
    ],
)
def test_a_package_counts_with_the_files_that_may_be_chosen_from(
    line: str, counted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = tmp_path / "tasks" / "room" / "kinds"
    (kinds / "deeper").mkdir(parents=True)
    for name in ("__init__", "one", "other", "deeper/__init__", "deeper/third"):
        (kinds / f"{name}.py").touch()
    (tmp_path / "tasks" / "stage.py").write_text(line)
    monkeypatch.setattr("tasks.base.fingerprint.ROOT", tmp_path)
    found = [
        path.relative_to(kinds).as_posix() for path in code_files("tasks.stage") if kinds in path.parents
    ]
    assert found == sorted(f"{name}.py" for name in counted)


def test_every_import_of_this_project_is_found() -> None:
    for path in ROOT.glob("tasks/**/*.py"):
        source = path.read_text(encoding="utf-8")
        parsed = {
            ast.unparse(node)
            for node in ast.walk(ast.parse(source))
            if (isinstance(node, ast.Import) and node.names[0].name.split(".")[0] == "tasks")
            or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tasks")
        }
        assert {ast.unparse(ast.parse(statement)) for statement in IMPORT.findall(source)} == parsed, path


def test_stages_never_import_each_other() -> None:
    stages = ["fetch_run", "select_checkpoints", "merge_checkpoints", "evaluate_merge", "register_model"]
    for stage in stages:
        others = {f"tasks/{other}.py" for other in stages if other != stage}
        found = {path.relative_to(ROOT).as_posix() for path in code_files(f"tasks.{stage}")}
        assert not found & others


def test_parameters_and_inputs_count() -> None:
    module = "tasks.select_checkpoints"
    one = fingerprint(module, SelectParams(k=3), "run")
    assert one == fingerprint(module, SelectParams(k=3), "run")
    assert (
        len({one, fingerprint(module, SelectParams(k=4), "run"), fingerprint(module, SelectParams(k=3), "x")})
        == 3
    )
