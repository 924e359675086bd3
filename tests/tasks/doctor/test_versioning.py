from pathlib import Path

import pytest

from tasks.doctor.finding import Finding
from tasks.doctor.versioning import check_remote, check_versioning
from tasks.parameters.version import VersionParams
from tests.support.dvc_project import dvc, make_project, state

PUSH = VersionParams(push=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("project") / "repo")


def by_subject(found: list[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in found}


def test_a_directory_without_git_or_dvc_is_a_warning(tmp_path: Path) -> None:
    found = by_subject(check_versioning(VersionParams(), tmp_path))
    assert {name: finding.level for name, finding in found.items()} == {"git": "warning", "DVC": "warning"}
    assert found["DVC"].remedy == "dvc init"
    assert check_remote(PUSH, tmp_path) == []


def test_a_repository_is_well_and_left_as_it_was(project: Path) -> None:
    before = state(project)
    found = by_subject(check_versioning(VersionParams(), project))
    assert {finding.level for finding in found.values()} == {"ok"}
    assert "will be made" in found["DVC"].found
    assert check_remote(VersionParams(), project)[0].level == "ok"
    assert state(project) == before


def test_the_cache_is_measured(project: Path) -> None:
    (project / ".dvc" / "cache" / "files").mkdir(parents=True, exist_ok=True)
    (project / ".dvc" / "cache" / "files" / "model").write_bytes(bytes(2_500_000))
    assert by_subject(check_versioning(VersionParams(), project))["DVC"].found.endswith("holds 2.5 MB")


def test_a_branch_that_is_checked_out_or_a_git_remote_that_is_not_there_is_a_problem(project: Path) -> None:
    away = by_subject(check_versioning(VersionParams(push=True, git_remote="up"), project))["git"]
    assert (away.level, away.remedy) == ("problem", "run git remote add up URL, or set it to null")
    finding = by_subject(check_versioning(VersionParams(branch="main"), project))["git"]
    assert finding.level == "problem"
    assert f"main is checked out in {project}" in finding.found


def test_the_remote_is_asked_for_and_weighed_by_whether_it_is_needed(project: Path, tmp_path: Path) -> None:
    (finding,) = check_remote(PUSH, project)
    assert (finding.level, "dvc remote add --default" in finding.remedy) == ("problem", True)
    dvc(project, "remote", "add", "--local", "--default", "disk", str(tmp_path / "remote"))
    assert check_remote(PUSH, project) == [Finding("Versioning", "remote", f"disk, {tmp_path / 'remote'}")]
    assert not (tmp_path / "remote").exists()
    dvc(project, "remote", "add", "--local", "--default", "web", "http://bob:hunter2@127.0.0.1:1/x")
    for params, level in ((PUSH, "problem"), (VersionParams(), "warning")):
        (finding,) = check_remote(params, project)
        assert finding.level == level
        assert "web, http://127.0.0.1:1/x does not answer" in finding.found
        assert "hunter2" not in str(finding)
