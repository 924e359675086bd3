"""Training runs in a real MLflow, logged as a user's script does."""

from pathlib import Path

from safetensors.torch import load_file

from tasks.parameters.fetch import FetchParams
from tasks.parameters.registration import RegisterParams
from tasks.registry.store import connect, experiment
from tasks.sources.kinds.mlflow import MlflowSource
from tasks.sources.source import FetchedCheckpoint


def log_run(
    params: RegisterParams,
    output: Path,
    path: str = "checkpoints",
    status: str | None = "FINISHED",
    experiment_name: str = "training",
) -> str:
    """Log a training directory under `path` of a new MLflow run, end it, and return the run's id."""
    client = connect(params)
    run_id = client.create_run(experiment(client, experiment_name)).info.run_id
    client.log_artifacts(run_id, str(output), path)
    if status:
        client.set_terminated(run_id, status)
    return str(run_id)


def fetch_checkpoints(address: str, params: RegisterParams) -> list[FetchedCheckpoint]:
    unchecked = FetchParams.model_construct(
        source=address
    )  # what the parameters would refuse is refused here, too
    return MlflowSource().fetch(unchecked, params).checkpoints


def value_of(directory: Path) -> float:
    return float(load_file(directory / "model.safetensors")["w"][0])
