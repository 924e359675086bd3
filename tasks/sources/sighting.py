"""Looking at a training run: what would be merged now, and whether it has ended; no weights are read."""

from typing import NamedTuple

from tasks.parameters.registration import RegisterParams
from tasks.sources.addresses import HUB, MLFLOW
from tasks.sources.directory_look import look_at_directory
from tasks.sources.remote_look import look_at_mlflow, look_at_repository


class Sighting(NamedTuple):
    """What a source looked like."""

    source: str
    digest: str
    """Changes whenever what fetch would take changes, and with nothing else that lies beside it."""
    ended: bool
    reason: str
    """Why it counts as ended or not, as one phrase for the log."""


def sight(source: str, quiet_for: float, registry: RegisterParams) -> Sighting:
    """Look at a source once; a run has ended when its state says so, or nothing changed for `quiet_for` s.

    `registry` says in which MLflow an mlflow:/ source is. Raises BadInput when there is no such run or no
    checkpoint, Unavailable when the Hub or MLflow does not answer.
    """
    if source.startswith(HUB):
        return Sighting(source, *look_at_repository(source, quiet_for))
    if source.startswith(MLFLOW):
        return Sighting(source, *look_at_mlflow(source, quiet_for, registry))
    return Sighting(source, *look_at_directory(source, quiet_for))
