"""One MLflow run in which every version is a step, so that metrics make lines over the nights."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tasks.base.records.evaluation import Evaluation
from tasks.registry.runs import BYTES, OLDEST_FIRST, SECONDS, mlflow_name, only
from tasks.registry.store import experiment
from tasks.registry.versions import ModelVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient

NIGHTS = "loreline.nights"
TITLE = "all nights"


def record_night(client: "MlflowClient", version: ModelVersion, evaluation: Evaluation) -> None:
    """Add what decided about a version as the step of its number; doing it again adds nothing."""
    from mlflow.entities import Metric

    if version.run_id is None:
        return
    home = experiment(client, version.name)
    nights = only(
        lambda: list(client.search_runs([home], f"tags.`{NIGHTS}` = 'all'", order_by=OLDEST_FIRST)),
        lambda: client.create_run(home, tags={NIGHTS: "all"}, run_name=TITLE),
        lambda run: client.delete_run(run.info.run_id),
    )
    night = client.get_run(version.run_id)
    values = _of_night(evaluation, night.data.metrics)
    when = night.info.end_time or night.info.start_time  # the same every time
    metrics = [Metric(mlflow_name(key), value, when, version.version) for key, value in values.items()]
    client.log_batch(nights.info.run_id, metrics)
    client.set_terminated(nights.info.run_id, end_time=nights.info.start_time)


def _of_night(evaluation: Evaluation, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics by the names of MLflow's sections, which it sorts: gain, scores, cost."""
    gain, primary = evaluation.decisive.gain, evaluation.primary
    found = {"1 gain/gain": gain.mean, "1 gain/low": gain.low, "1 gain/high": gain.high}
    found |= {
        f"2 {primary}/{each.model}": each.value.mean for each in evaluation.scores if each.metric == primary
    }
    cost = {"3 cost/minutes": (SECONDS, 60), "3 cost/MB": (BYTES, 1e6)}
    return found | {name: metrics[key] / unit for name, (key, unit) in cost.items() if key in metrics}
