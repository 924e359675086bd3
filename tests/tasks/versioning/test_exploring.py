"""What DVC runs to explore is told from what is to be published, in real repositories."""

import os
import sys
from pathlib import Path

import pytest
import yaml

from tasks.versioning.exploring import why_exploring
from tests.support.dvc_project import dvc, git, run

ROOT = Path(__file__).parents[3]
ASK = "from pathlib import Path; from tasks.versioning.exploring import why_exploring as why; print(why(Path()))"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a stage of DVC's, in a repository with a commit on main."""
    for name in ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DVC_STAGE", "register")
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "Begin")
    return tmp_path


def test_the_main_branch_publishes_and_others_do_not(checkout: Path) -> None:
    assert why_exploring(checkout) is None
    git(checkout, "checkout", "--quiet", "-b", "try/this")
    assert why_exploring(checkout) == "it is dvc repro on the branch try/this, not on main or master"
    git(checkout, "checkout", "--quiet", "--detach")  # as on a pull request
    assert str(why_exploring(checkout)).startswith(
        "it is dvc repro on a commit that no branch is checked out"
    )


def test_the_main_branch_is_the_remote_s_default(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    git(checkout, "branch", "--quiet", "-m", "trunk")
    cloned = tmp_path_factory.mktemp("clone")
    git(cloned, "clone", "--quiet", str(checkout), ".")
    assert why_exploring(cloned) is None
    git(cloned, "checkout", "--quiet", "-b", "main")
    assert why_exploring(cloned) == "it is dvc repro on the branch main, not on trunk"


def test_a_person_who_asks_is_asked_nothing_and_without_git_there_is_no_branch(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert why_exploring(tmp_path_factory.mktemp("plain")) is None
    git(checkout, "checkout", "--quiet", "-b", "try")
    monkeypatch.delenv("DVC_STAGE")
    assert why_exploring(checkout) is None


@pytest.mark.slow
def test_dvc_says_what_it_runs(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the checkout, and in a directory of its own with --temp."""
    monkeypatch.delenv("DVC_STAGE")
    stage = {"cmd": f'"{sys.executable}" -c "{ASK}" > why', "params": ["x"], "outs": ["why"]}
    (checkout / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"register": stage}}))
    (checkout / "params.yaml").write_text("x: 1\n")
    (checkout / ".gitignore").write_text("/why\n")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    dvc(checkout, "init", "--quiet")
    dvc(checkout, "repro", "--quiet")
    assert (checkout / "why").read_text() == "None\n"
    run(checkout, "git", "add", ".")
    git(checkout, "commit", "--quiet", "-m", "Run")
    dvc(checkout, "exp", "run", "--quiet", "-S", "x=2")
    assert (checkout / "why").read_text() == "it is an experiment of DVC\n"
    dvc(checkout, "exp", "run", "--quiet", "--temp", "-n", "apart", "-S", "x=3")
    dvc(checkout, "exp", "apply", "apart")
    assert "x: 3" in (checkout / "params.yaml").read_text()
    assert (checkout / "why").read_text() == "it is an experiment of DVC\n"
