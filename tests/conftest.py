"""Fixtures shared by all rooms."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import threadpoolctl
import torch
from hypothesis import settings

from tests.support.tiny import write_checkpoint

# Workers share the cores: threads that wait for each other on busy ones take twenty times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start
torch.set_num_threads(1)
threadpoolctl.threadpool_limits(1)

# On a busy machine any example may take long. What judges a change tries the same examples each time;
# make test-random looks for others.
settings.register_profile("random", deadline=None, derandomize=False)
settings.register_profile("same", deadline=None, derandomize=True)
settings.load_profile("same")


@pytest.fixture(scope="session")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("states")


@pytest.fixture(scope="session", autouse=True)
def own_locks(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep apart from whoever else computes on this machine, other tests among them."""
    os.environ["LORELINE_LOCKS"] = str(tmp_path_factory.mktemp("locks"))


@pytest.fixture(autouse=True)
def own_state(states: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a state directory and caches that nothing else sees."""
    state = Path(
        tempfile.mkdtemp(dir=states)
    )  # pytest's own numbers are found by listing the thousands before
    monkeypatch.setenv("LORELINE_HOME", str(state / "loreline"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(state / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return state


@pytest.fixture
def no_prefect_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave no Prefect server configured, whatever an earlier test of this process made Prefect remember."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        yield


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Write checkpoints into one training directory."""
    return partial(write_checkpoint, tmp_path / "training")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of a megabyte; skip where that is not permitted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs is not permitted")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)  # a database may still be open there
