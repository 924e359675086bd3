"""MLflow's database is there whole or not at all; what a killed process only began is made again."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tasks.parameters.registration import RegisterParams
from tasks.registry.sqlite_store import ensure_database
from tasks.registry.store import connect, ensure_registered

ROOT = Path(__file__).parents[3]


def statements(database: Path, *commands: str) -> None:
    with closing(sqlite3.connect(database)) as connection:
        for command in commands:
            connection.execute(command)
        connection.commit()


def test_what_was_only_begun_is_made_again(tmp_path: Path) -> None:
    """MLflow itself goes on from an unfinished revision, and fails for ever at the tables that are there."""
    database = tmp_path / "mlflow.db"
    statements(
        database,
        "CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY)",
        "CREATE TABLE alembic_version (version_num VARCHAR(32))",
        "INSERT INTO alembic_version VALUES ('451aebb31d03')",
    )
    ensure_registered(connect(RegisterParams(tracking_uri=f"sqlite:///{database}")), "model")
    assert [path.name for path in tmp_path.glob("*mlflow*")] == ["mlflow.db"]


def test_a_database_with_anything_in_it_is_left_as_it_is(store: RegisterParams, own_state: Path) -> None:
    whole = own_state / "loreline" / "mlflow.db"
    other = own_state / "other.db"
    statements(other, "CREATE TABLE mine (a INTEGER)", "INSERT INTO mine VALUES (1)")
    before = [(path.stat().st_ino, path.read_bytes()) for path in (whole, other)]
    for path in (whole, other):
        ensure_database(path, "file:///nowhere")
    assert [(path.stat().st_ino, path.read_bytes()) for path in (whole, other)] == before


@pytest.mark.parametrize(
    "command",
    [
        "CREATE TABLE mine (a)",
        "CREATE TABLE experiments (a); CREATE TABLE mine (a)",
        "CREATE VIEW mine AS SELECT 1 WHERE 0",
    ],
)
def test_an_empty_database_of_somebody_else_is_not_replaced(tmp_path: Path, command: str) -> None:
    statements(tmp_path / "mine.db", *command.split(";"))
    before = (tmp_path / "mine.db").read_bytes()
    ensure_database(tmp_path / "mine.db", "file:///nowhere")
    assert (tmp_path / "mine.db").read_bytes() == before


@pytest.mark.slow
def test_killed_while_it_is_made_the_next_process_makes_it(tmp_path: Path) -> None:
    code = "import sys; from tasks.parameters.registration import RegisterParams as P\n"
    code += "from tasks.registry.store import connect, ensure_registered\n"
    code += "ensure_registered(connect(P(tracking_uri='sqlite:///' + sys.argv[1])), 'model')"
    command = [sys.executable, "-c", code, str(tmp_path / "mlflow.db")]
    for size in (0, 100_000, 300_000, 500_000):
        killed = subprocess.Popen(command, cwd=ROOT)
        while killed.poll() is None and size_of(tmp_path) <= size:
            time.sleep(0.01)
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
    subprocess.run(command, cwd=ROOT, check=True)
    assert [path.name for path in tmp_path.glob("*mlflow*")] == ["mlflow.db"]


def size_of(directory: Path) -> int:
    """Return the bytes of the database, wherever it is by now."""
    with suppress(FileNotFoundError):
        return sum(path.stat().st_size for path in directory.glob("*mlflow.db*"))
    return 0
