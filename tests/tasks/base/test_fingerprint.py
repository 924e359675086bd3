"""A fingerprint changes exactly when code, parameters or inputs do."""

from tasks.parameters.selection import SelectParams

from tasks.base.fingerprint import ROOT, code_files, fingerprint


def test_code_files_follow_imports_and_stop_at_other_stages() -> None:
    names = [path.relative_to(ROOT).as_posix() for path in code_files("tasks.merge_checkpoints")]
    assert "tasks/merging/lore/dense.py" in names  # two imports away
    assert "tasks/evaluate_merge.py" not in names


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
