"""What a registry holds, and that a merge is in it exactly once."""

import json
from pathlib import Path
from typing import Any

from tasks.base.records.registration import Registration
from tasks.parameters.registration import RegisterParams
from tasks.register_model import register_model
from tasks.registry.store import connect
from tasks.registry.versions import aliases


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def everything(params: RegisterParams) -> tuple[list[Any], list[Any], list[Any]]:
    """List all versions, runs and logged models in a store."""
    client = connect(params)
    experiment = client.get_experiment_by_name(params.name)
    ids = [experiment.experiment_id] if experiment else []
    versions = [v for v in client.search_model_versions() if v.name == params.name]
    return versions, list(client.search_runs(ids)), list(client.search_logged_models(ids)) if ids else []


def assert_registered_once(params: RegisterParams, artifacts: Path) -> None:
    """Exactly one version, finished run and ready model, holding exactly the merge."""
    registration = register_model(params, artifacts)
    ([version], [run], [model]) = everything(params)
    assert (run.info.status, str(model.status), version.status) == (
        "FINISHED",
        "READY",
        "READY",
    )
    assert registration == Registration.read(artifacts / "registration" / "registration.json")
    assert (registration.version, registration.run_id) == (int(version.version), run.info.run_id)
    assert (registration.model_id, version.run_id) == (model.model_id, run.info.run_id)
    assert aliases(connect(params), params.name)["challenger"] == registration.version
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": params.name, "version": 1}]
