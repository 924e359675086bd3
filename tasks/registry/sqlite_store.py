"""MLflow's database in a SQLite file: made beside its place and moved there whole."""

import glob
import sqlite3
from contextlib import closing
from pathlib import Path

OWN = ("alembic_version", "sqlite_sequence")
"""Tables with rows in a database that is only begun."""


def ensure_database(path: Path, artifacts: str) -> None:
    """Make MLflow's tables where nothing is yet, or where a killed process only began with them.

    MLflow makes them in a hundred steps, and cannot go on from the middle. The caller holds the store's lock.
    """
    if _is_begun(path):
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        beside = path.with_name(f".{path.name}.new")
        for left in path.parent.glob(f"{glob.escape(beside.name)}*"):  # a journal would be played back
            left.unlink()
        store = SqlAlchemyStore(f"sqlite:///{beside}", artifacts)  # type: ignore[no-untyped-call]
        store.engine.dispose()
        beside.replace(path)


def _tables_of_mlflow() -> set[str]:
    """Return the names of its tables: an empty database with another is somebody else's."""
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 (it declares them)
    from mlflow.store.db.base_sql_model import Base

    names = set(Base.metadata.tables)
    return names | {f"_alembic_tmp_{name}" for name in names}  # while one is altered


def _is_begun(path: Path) -> bool:
    """Tell whether a database holds no row but how far it is; MLflow's first experiment comes last."""
    with closing(sqlite3.connect(path)) as connection:

        def has_rows(table: str) -> bool:
            return connection.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone() is not None

        found = connection.execute("SELECT name FROM sqlite_master WHERE type != 'index'")
        tables = {name for (name,) in found} - {*OWN}
        empty = not any(map(has_rows, sorted(tables, key=lambda name: name != "experiments")))
        return empty and (not tables or tables <= _tables_of_mlflow())
