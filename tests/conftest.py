"""Fixtures shared by all rooms."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.tiny import write_checkpoint


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a state directory and caches that nothing else sees."""
    state = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("LORELINE_HOME", str(state / "loreline"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(state / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return state


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Write checkpoints into one training directory."""
    return partial(write_checkpoint, tmp_path / "training")
