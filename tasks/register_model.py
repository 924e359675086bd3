"""Stage register: the merge becomes one version in MLflow with its evidence; running it again adds none."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.base.errors import BadInput
from tasks.base.fingerprint import fingerprint
from tasks.base.publish import is_published, publishing
from tasks.base.records import Evaluation, MergeReport, Registration, Selection, TrainingRun
from tasks.parameters.registration import RegisterParams
from tasks.registry.evidence import EVALUATION, EVALUATION_FILE
from tasks.registry.facts import MergeRecords, description, metrics, run_tags, title, version_tags
from tasks.registry.facts import (
    params as merge_params,
)
from tasks.registry.files import store_files, verify_directory
from tasks.registry.lineage import lineage
from tasks.registry.mlflow_model import mlflow_files, with_files
from tasks.registry.runs import find_model, find_run, record_run
from tasks.registry.store import connect, experiment, mlflow_errors, store_lock
from tasks.registry.versions import CHALLENGER, find_version, point, unmark_pruned

if TYPE_CHECKING:
    from mlflow import MlflowClient


def register_model(
    params: RegisterParams, artifacts: Path, confirm: Callable[[], None] = lambda: None
) -> Registration:
    """Register the merge in MLflow as its challenger and publish artifacts/registration.

    The same merge is always the same version, brought up to date; the registry is asked every time.
    `confirm` is called before the first change there, and raises when somebody else does this now.
    Raises BadInput for records that do not belong together, Unavailable when MLflow does not answer.
    """
    merged = _read(artifacts)
    client = connect(params)
    with mlflow_errors(client.tracking_uri), store_lock(client.tracking_uri, params.name):
        confirm()
        registration = _register(client, params, merged, artifacts)
    made_from = fingerprint(__name__, registration)
    if not is_published(artifacts / "registration", made_from):
        with publishing(artifacts / "registration", made_from) as out:
            registration.write(out / "registration.json")
    return registration


def _read(artifacts: Path) -> MergeRecords:
    """Read the earlier stages' records, and check that they are about one merge."""
    merged = MergeRecords(
        run=TrainingRun.read(artifacts / "run" / "run.json"),
        selection=Selection.read(artifacts / "selection" / "selection.json"),
        report=MergeReport.read(artifacts / "merged" / "merge.json"),
        evaluation=Evaluation.read(artifacts / "evaluation" / "evaluation.json"),
        manifest=verify_directory(artifacts / "merged", remedy="run loreline merge again"),
    )
    chosen = {(checkpoint.step, checkpoint.digest) for checkpoint in merged.selection.chosen}
    # a search may take the newest few, and merge.on_nan leaves checkpoints out
    if not {(source.step, source.digest) for source in merged.report.inputs} <= chosen:
        raise BadInput(artifacts / "merged", "not made from this selection", "run loreline merge again")
    if merged.report.digest not in [m.digest for m in merged.evaluation.models if m.role == "merge"]:
        raise BadInput(artifacts / "evaluation", "judges another merge", "run loreline evaluate again")
    if not set(merged.report.outputs) <= set(merged.manifest.files):
        raise BadInput(artifacts / "merged" / "merge.json", "names other files", "run loreline merge again")
    return merged


def _register(
    client: "MlflowClient", params: RegisterParams, merged: MergeRecords, artifacts: Path
) -> Registration:
    """Do each step unless it is done, so that a call that was cut short is completed by the next one."""
    merge, parameters = merged.report.digest, merge_params(merged.report)
    added = mlflow_files(artifacts / "merged", merged.manifest, merged.report)
    merged = merged._replace(manifest=with_files(merged.manifest, added))
    home = experiment(client, params.name)
    run = find_run(client, home, merge, title(merged))
    model = find_model(client, home, merge, run.info.run_id, parameters)
    store_files(client, model, artifacts / "merged", merged.manifest, added)
    if model.status != "READY":
        client.finalize_logged_model(model.model_id, "READY")
    evaluation = artifacts / "evaluation"
    files = {
        EVALUATION: [evaluation / EVALUATION_FILE, *evaluation.glob("report.html")],
        "figures": sorted((evaluation / "figures").glob("*.png")),
    }
    record_run(client, run, model.model_id, metrics(merged.evaluation), parameters, run_tags(merged), files)
    tags = version_tags(merged) | lineage(artifacts / "merged")
    version = find_version(client, params.name, model, tags, description(merged))
    unmark_pruned(client, version)
    point(client, params.name, CHALLENGER, version.version)
    return Registration(
        name=params.name,
        version=version.version,
        model_id=model.model_id,
        run_id=run.info.run_id,
        digest=merge,
        aliases=(CHALLENGER,),
    )
