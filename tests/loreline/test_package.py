"""`from loreline import MergeAfterTraining` in an environment, and beside packages, that are not Loreline's."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys, flows, tasks
from loreline import MergeAfterTraining
print(flows.OURS and tasks.OURS, MergeAfterTraining.__name__)
"""


def by_path(project: Path) -> str:
    """Put the repository on PYTHONPATH."""
    return str(ROOT)


def copied(project: Path) -> str:
    """Copy the package beside the script."""
    shutil.copytree(ROOT / "loreline", project / "loreline")
    return ""


def installed(project: Path) -> str:
    """Install the repository without what it depends on."""
    source = project / "source"
    for name in ("loreline", "flows", "tasks"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", project / "site", source], check=True)
    return str(project / "site")


@pytest.mark.parametrize(
    "way", [*(pytest.param(way, marks=pytest.mark.slow) for way in (by_path, copied)), installed]
)
def test_a_training_script_with_packages_called_flows_and_tasks(
    project: Path, way: Callable[[Path], str]
) -> None:
    (project / "train.py").write_text(SCRIPT)
    env = {**os.environ, "PYTHONPATH": way(project)}
    said = subprocess.run(
        [sys.executable, "train.py"], cwd=project, env=env, capture_output=True, text=True, check=False
    )
    assert said.stdout == "True MergeAfterTraining\n", said.stderr


def test_the_event_s_name_needs_nothing_but_python() -> None:
    """Without site (-S) there is no package at all."""
    code = "import sys, loreline; print(loreline.EVENT, 'transformers' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = subprocess.run(
        [sys.executable, "-S", "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert said.stdout == "loreline.training.ended False\n"


def test_what_it_does_not_have_is_an_attribute_error() -> None:
    import loreline

    with pytest.raises(AttributeError, match="'loreline' has no attribute 'nothing'"):
        loreline.nothing  # noqa: B018
