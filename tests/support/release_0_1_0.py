"""A project as release 0.1.0 (ee4523b) left it, in release_0_1_0.tar.xz: what an upgrade begins with.

Two runs of three tiny checkpoints were merged by `loreline watch`, a third, of one checkpoint, was refused. Both
versions were promoted by force, the second last. Then `loreline serve` was run and stopped. The databases are in SQL,
with @ROOT@ for the project's directory, of Prefect's the rows alone; of files are left out reports, figures, results,
and what DVC's cache holds besides the merged models.
"""

import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

ARCHIVE = Path(__file__).with_suffix(".tar.xz")
STATE = ".loreline"


def unpack_project(directory: Path) -> Path:
    """Unpack the project below a directory, with its ledger and MLflow's database; return where it is."""
    with tarfile.open(ARCHIVE) as archive:
        # what Python 3.11.4 brought; the archive is our own
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(directory)
    root = directory / "project"
    for name in ("ledger", "mlflow"):
        with closing(sqlite3.connect(root / STATE / f"{name}.db")) as database:
            database.executescript(_statements(root, name))
    return root


def add_prefect_rows(root: Path, database: Path) -> None:
    """Write the rows of Prefect's (flows, deployments, trigger, flow runs) into another server's database."""
    with closing(sqlite3.connect(database, timeout=30)) as store, store:
        for statement in _statements(root, "prefect").split(";\n"):
            store.execute(statement.replace("INSERT INTO", "INSERT OR IGNORE INTO", 1))


def _statements(root: Path, name: str) -> str:
    return (root / STATE / f"{name}.sql").read_text(encoding="utf-8").replace("@ROOT@", str(root))
