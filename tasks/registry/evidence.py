"""The evaluation that a version was registered with, read back from its MLflow run."""

import contextlib
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.base.errors import BadInput
from tasks.base.records.evaluation import Evaluation
from tasks.registry.versions import ModelVersion, version_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

EVALUATION, EVALUATION_FILE = "evaluation", "evaluation.json"


def recorded_evaluation(client: "MlflowClient", version: ModelVersion) -> Evaluation:
    """Return the evaluation that a version was registered with.

    Raises BadInput when there is none, or it judges another merge.
    """
    what = f"{version.name} version {version.version}"
    if version.run_id is None or not client.list_artifacts(version.run_id, EVALUATION):
        raise BadInput(what, "has no recorded evaluation", "register it with Loreline")
    with tempfile.TemporaryDirectory() as scratch:
        path = client.download_artifacts(version.run_id, f"{EVALUATION}/{EVALUATION_FILE}", scratch)
        evaluation = Evaluation.read(Path(path))
    if version.digest not in [model.digest for model in evaluation.models if model.role == "merge"]:
        raise BadInput(what, "its recorded evaluation judges another merge", "run loreline register again")
    return evaluation


def recorded_evaluations(client: "MlflowClient", models: Iterable[str]) -> dict[str, Evaluation]:
    """Return the evaluations of versions, by their models:/name/version, one download for each.

    Left out are versions whose evaluation somebody removed.
    """
    found = {}
    for model in models:
        name, _, number = model.removeprefix("models:/").rpartition("/")
        with contextlib.suppress(BadInput):
            found[model] = recorded_evaluation(client, version_of(client, name, int(number)))
    return found
