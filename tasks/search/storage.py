"""Where Optuna keeps a study's trials: its journal in the state directory, or a database."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.base.errors import Unavailable, brief, without_secrets

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


def new_storage(address: str | None, log: Path) -> "BaseStorage":
    """Return the database at an address, without a study of the log's name; without an address a new log.

    Raises Unavailable where the database does not answer.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if address is not None:
        return _database(address, log.stem)
    log.parent.mkdir(parents=True, exist_ok=True)
    for left in (log, log.with_name(f"{log.name}.lock")):  # a killed search may have held Optuna's lock
        left.unlink(missing_ok=True)
    return JournalStorage(JournalFileBackend(str(log)))


def _database(address: str, study: str) -> "BaseStorage":
    import optuna

    with answering(address):
        storage = optuna.storages.RDBStorage(address)
        if study in (own.study_name for own in storage.get_all_studies()):
            optuna.delete_study(study_name=study, storage=storage)
    return storage


@contextmanager
def answering(address: str | None) -> Iterator[None]:
    """Raise Unavailable where the database fails within."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError, ImportError) as error:
        told = without_secrets(brief(error.__cause__ or error))
        raise Unavailable(
            "search.storage", f"{address} does not serve trials ({told})", "correct it, or leave it out"
        ) from error
