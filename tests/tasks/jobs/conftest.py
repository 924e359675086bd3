"""A ledger of this test's own, and where its file lies."""

from pathlib import Path

import pytest

from tasks.jobs.ledger import Ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Ledger:
    return Ledger(path)
