"""Fixtures shared by the tests of the package that training scripts import."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.announcements import announcing


@pytest.fixture
def no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure no server and no proxy, whatever the machine's user has."""
    for name in [
        name for name in os.environ if name.startswith("PREFECT_") or name.lower().endswith("_proxy")
    ]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """Return an output directory; nothing that announces it outlives the test."""
    run = tmp_path / "a run"
    yield run
    for process in announcing(run):
        process.kill()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a directory with packages called flows and tasks that are not ours."""
    for package in ("flows", "tasks"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("OURS = True")
    return tmp_path
