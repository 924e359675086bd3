"""One MLflow run in which every version is a step, so that metrics make lines over the nights."""

from typing import TYPE_CHECKING

from tasks.registry.runs import OLDEST_FIRST, only
from tasks.registry.store import experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient

NIGHTS = "loreline.nights"
TITLE = "all nights"


def record_night(client: "MlflowClient", name: str, number: int, run_id: str) -> None:
    """Add the metrics of a version's MLflow run as the step of its number; doing it again adds nothing."""
    from mlflow.entities import Metric

    home = experiment(client, name)
    nights = only(
        lambda: list(client.search_runs([home], f"tags.`{NIGHTS}` = 'all'", order_by=OLDEST_FIRST)),
        lambda: client.create_run(home, tags={NIGHTS: "all"}, run_name=TITLE),
        lambda run: client.delete_run(run.info.run_id),
    )
    night = client.get_run(run_id)
    when = night.info.end_time or night.info.start_time  # the same every time
    metrics = [Metric(key, value, when, number) for key, value in night.data.metrics.items()]
    client.log_batch(nights.info.run_id, metrics)
    client.set_terminated(nights.info.run_id)
