"""Stage register: the merge becomes one version in MLflow with its evidence; running it again adds none."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.base.errors import BadInput
from tasks.base.fingerprint import fingerprint
from tasks.base.publish import is_published, publishing
from tasks.base.records.evaluation import Evaluation
from tasks.base.records.merge import MergeReport
from tasks.base.records.record import Record
from tasks.base.records.registration import Registration, Unregistered
from tasks.base.records.selection import Selection
from tasks.base.records.training_run import TrainingRun
from tasks.parameters.registration import RegisterParams
from tasks.registry.evidence import EVALUATION, EVALUATION_FILE, recorded_evaluation
from tasks.registry.facts import (
    MergeRecords,
    datasets,
    description,
    judgement_of,
    metrics,
    model_name,
    run_tags,
    title,
    version_facts_of,
)
from tasks.registry.facts import (
    params as merge_params,
)
from tasks.registry.files import FILES, store_files, verify_directory
from tasks.registry.lineage import lineage
from tasks.registry.links import REPORT_FILE, link_to_file, place_of_file
from tasks.registry.mlflow_model import mlflow_files, with_files
from tasks.registry.runs import JUDGEMENT_TAG, RunRecords, find_model, find_run, record_run
from tasks.registry.store import connect, experiment, mlflow_errors, store_lock
from tasks.registry.versions import (
    CHALLENGER,
    PRUNED,
    ModelVersion,
    find_version,
    point_at_newest,
    unmark_pruned,
    versions_of_merge,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient


def register_model(
    params: RegisterParams,
    artifacts: Path,
    confirm: Callable[[], None] = lambda: None,
    began: float | None = None,
) -> Registration:
    """Register the merge in MLflow as its challenger and publish artifacts/registration.

    A merge with its judgement is always the same version, which is never rewritten; another judgement of
    it is another version with a run of its own. The registry is asked every time, and the alias moves to
    newer versions only.
    `confirm` is called before the first change there, and raises when somebody else does this now. `began` is
    when the merge's work began, in seconds since 1970: the MLflow run lasts from then on.
    Raises BadInput for records that do not belong together, Unavailable when MLflow does not answer.
    """
    merged = _read(artifacts)
    client = connect(params)
    with mlflow_errors(client.tracking_uri), store_lock(client.tracking_uri, params.name):
        confirm()
        registration = _register(client, params, merged, artifacts, began)
    _publish(registration, artifacts, "registration.json")
    return registration


def leave_unregistered(artifacts: Path, why: str) -> Unregistered:
    """Publish artifacts/registration with the reason why the merge is not registered; no server is asked.

    Raises BadInput for records that do not belong together.
    """
    left = Unregistered(digest=_read(artifacts).report.digest, reason=why)
    _publish(left, artifacts, "unregistered.json")
    return left


def _publish(record: Record, artifacts: Path, name: str) -> None:
    made_from = fingerprint(__name__, record)
    if not is_published(artifacts / "registration", made_from):
        with publishing(artifacts / "registration", made_from) as out:
            record.write(out / name)


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
    client: "MlflowClient", params: RegisterParams, merged: MergeRecords, artifacts: Path, began: float | None
) -> Registration:
    """Do each step unless it is done, so that a call that was cut short is completed by the next one."""
    added = mlflow_files(artifacts / "merged", merged.manifest, merged.report)
    merged = merged._replace(manifest=with_files(merged.manifest, added))
    facts, parameters = version_facts_of(merged), merge_params(merged)
    if (known := _of_release_0_1(client, params.name, merged, facts[JUDGEMENT_TAG])) is not None:
        return known
    home = experiment(client, params.name)
    run = find_run(client, home, facts, title(merged), began)
    model = find_model(client, home, facts, run.info.run_id, model_name(merged), parameters)
    if model.status != "READY":
        store_files(client, model, artifacts / "merged", merged.manifest, added)
        client.finalize_logged_model(model.model_id, "READY")
    evaluation = artifacts / "evaluation"
    files = {
        EVALUATION: [evaluation / EVALUATION_FILE],
        "figures": sorted((evaluation / "figures").glob("*.png")),
    }
    seconds = None if began is None else time.time() - began
    recorded = RunRecords(
        metrics(merged, seconds), parameters, run_tags(merged), datasets(merged.evaluation), files
    )
    record_run(client, run, model.model_id, recorded)
    facts |= lineage(artifacts / "merged") | {"loreline.report": place_of_file(client, run, REPORT_FILE)}
    told = description(merged, link_to_file(run, REPORT_FILE))
    version = find_version(client, params.name, model, facts, told)
    if PRUNED in version.tags or version.tags.get(FILES) == facts[FILES]:
        # what was damaged or removed since; with another model card a version keeps the first one's
        store_files(client, model, artifacts / "merged", merged.manifest, added)
        unmark_pruned(client, version, facts[FILES])
    point_at_newest(client, params.name, CHALLENGER, version.version)
    return _registration(version, model.model_id, run.info.run_id)


def _of_release_0_1(
    client: "MlflowClient", name: str, merged: MergeRecords, judgement: str
) -> Registration | None:
    """Return the version of this judgement that release 0.1 registered, without a tag for it."""
    for version in versions_of_merge(client, name, merged.report.digest):
        with suppress(BadInput):
            if JUDGEMENT_TAG in version.tags or version.run_id is None:
                continue
            if judgement_of(recorded_evaluation(client, version)) == judgement:
                made = client.get_run(version.run_id).outputs
                model_id = made.model_outputs[0].model_id if made and made.model_outputs else ""
                return _registration(version, model_id, version.run_id)
    return None


def _registration(version: ModelVersion, model_id: str, run_id: str) -> Registration:
    return Registration(
        name=version.name,
        version=version.version,
        model_id=model_id,
        run_id=run_id,
        digest=version.digest,
        aliases=(CHALLENGER,),
    )
