"""Versions of the registered model: finding or creating a merge's, its files, and the aliases."""

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.base.directories import cache_dir
from tasks.base.errors import BadInput, Unavailable
from tasks.base.json_digest import digest_of
from tasks.base.model_files import ModelFiles, published_model
from tasks.base.publish import is_intact
from tasks.base.records.model import AdapterBase
from tasks.base.records.record import Record
from tasks.base.records.training_run import SAMPLED
from tasks.parameters.registration import RegisterParams
from tasks.registry.files import FILES, check_files, download_model, local_directory
from tasks.registry.runs import MERGE_TAG, only
from tasks.registry.store import connect, ensure_registered, mlflow_errors, unless_missing
from tasks.registry.tags import filters, packed, unpacked

if TYPE_CHECKING:
    from mlflow import MlflowClient

VERDICT, PUSH = "loreline.verdict", "loreline.push"
RUN_DIGEST = "loreline.run_digest"
PROMOTED_AT = "loreline.promoted_at"
GIT_TAG, GIT_REVISION = "loreline.git_tag", "loreline.git_revision"
PRUNED = "loreline.pruned"
"""Set before the first of a version's weights is removed."""
VERSIONS_SHOWN = "mlflow.modelVersions"
CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous-champion"


class ModelVersion(Record):
    """A version of the registered model."""

    name: str
    version: int
    digest: str
    """The digest of the merge; name/version when something other than Loreline registered it."""
    uri: str
    """Location of its files."""
    run_id: str | None
    """The MLflow run that recorded it."""
    tags: dict[str, str]
    """Its facts, whichever release wrote them."""


class Contended(Unavailable):
    """Another writer moved the aliases meanwhile."""


def champion(
    client: "MlflowClient", params: RegisterParams, challenger: Collection[str] = ()
) -> ModelVersion | None:
    """Return the version that is in use, by alias; None when there is none.

    For a challenger (its digests) that is champion already it is the one it replaced, which it had to beat.
    """
    with mlflow_errors(client.tracking_uri):
        now = aliases(client, params.name)
        numbers = [now[alias] for alias in (CHAMPION, PREVIOUS) if alias in now and CHAMPION in now]
        found = [version_of(client, params.name, number) for number in numbers]
        return next((version for version in found if version.digest not in challenger), None)


def files_of(client: "MlflowClient", version: ModelVersion, known: AdapterBase | None = None) -> ModelFiles:
    """Return where a version's model is on this machine; a remote one is downloaded once and checked.

    An adapter's base may be `known` to be at another place than where it was when it was registered.
    Raises BadInput when the downloaded files are not those that were registered, and for an adapter whose
    base is not here.
    """
    directory, kept = local_directory(version.uri), _downloaded(version)
    if directory is None:
        directory = kept if is_intact(kept) else _fetch(client, version)
    return published_model(directory, known)


def find_version(
    client: "MlflowClient", name: str, model: Any, facts: Mapping[str, str], description: str
) -> ModelVersion:
    """Return the one version of a logged model; a new one gets these facts as tags and this description.

    One that is there is history, and stays as it is.
    """
    ensure_registered(client, name)
    found = only(
        lambda: _search(client, name, f"run_id = '{model.source_run_id}'", model.artifact_location),
        # Not models:/m-… as source: MLflow would look that up in its global store.
        lambda: client.create_model_version(
            name,
            model.artifact_location,
            run_id=model.source_run_id,
            tags=packed(facts),
            description=description,
            model_id=model.model_id,
        ),
        lambda surplus: client.delete_model_version(name, surplus.version),
    )
    _show(client, model, name, int(found.version))
    return version_of(client, name, int(found.version))


def version_of(client: "MlflowClient", name: str, number: int) -> ModelVersion:
    """Return a version by its number; raises BadInput when there is no such version."""
    found = unless_missing(lambda: client.get_model_version(name, str(number)))
    if found is None:
        raise BadInput(
            f"{name} version {number}", "not in the registry", "choose one that is, or register it"
        )
    return ModelVersion(
        name=name,
        version=number,
        digest=(facts := unpacked(found.tags)).get(MERGE_TAG, f"{name}/{number}"),
        uri=client.get_model_version_download_uri(name, str(number)),
        run_id=found.run_id or None,
        tags=facts,
    )


def is_by_sha256(version: ModelVersion) -> bool:
    """Tell whether a version is of a release that knew no other digest, and digested whole runs."""
    return not version.tags.get(RUN_DIGEST, SAMPLED).startswith(SAMPLED)


def is_versioned(version: ModelVersion) -> bool:
    """Tell whether git and DVC have a version, and its push is complete where it is pushed."""
    return GIT_TAG in version.tags and version.tags.get(PUSH) != "pending"


def aliases(client: "MlflowClient", name: str) -> dict[str, int]:
    """Return where the aliases of the registered model point; none when it does not exist."""
    found = unless_missing(lambda: client.get_registered_model(name))
    return {alias: int(number) for alias, number in (found.aliases if found else {}).items()}


def point(client: "MlflowClient", name: str, alias: str, number: int) -> None:
    """Point an alias at a version and read it back; raises Contended when another writer came between."""
    if aliases(client, name).get(alias) != number:
        client.set_registered_model_alias(name, alias, str(number))
        if (now := aliases(client, name).get(alias)) != number:
            raise Contended(
                name,
                f"the alias {alias} went to version {now} meanwhile, not {number}",
                "run the same command again",
            )


def check_not_pruned(version: ModelVersion) -> None:
    """Raise BadInput when a version's weights were removed, or are being removed."""
    if PRUNED in version.tags:
        raise BadInput(
            f"{version.name} version {version.version}",
            f"its weights were pruned ({version.tags[PRUNED]})",
            "choose another version, or merge its run again: loreline run --refresh",
        )


def unmark_pruned(client: "MlflowClient", version: ModelVersion, files: str) -> None:
    """Take the mark from a version whose weights are in its store again, as the files with this digest."""
    if PRUNED in version.tags:
        client.set_model_version_tag(version.name, str(version.version), FILES, files)
        client.delete_model_version_tag(version.name, str(version.version), PRUNED)


def forget_download(version: ModelVersion) -> None:
    """Remove what was downloaded of a version, if anything was."""
    shutil.rmtree(_downloaded(version), ignore_errors=True)


def point_at_newest(client: "MlflowClient", name: str, alias: str, number: int) -> None:
    """Point an alias at a version unless it points at that or a newer one; raises as `point` does."""
    if aliases(client, name).get(alias, 0) < number:
        point(client, name, alias, number)


def verify_files(client: "MlflowClient", version: ModelVersion) -> None:
    """Check every file of a version, as its store has it now, against the digests that were registered.

    Raises BadInput naming the file that differs, or the version when it has no digests.
    """
    recorded, directory = version.tags.get(FILES), local_directory(version.uri)
    check_not_pruned(version)
    if recorded is None:
        raise BadInput(
            f"{version.name} version {version.version}", "has no digests", "register it with Loreline"
        )
    if directory is None:
        _fetch(client, version)  # an earlier download says nothing about the server's files now
    else:
        check_files(directory, recorded)


def _show(client: "MlflowClient", model: Any, name: str, number: int) -> None:
    """Link MLflow's page of the logged model to the version, as mlflow.register_model would."""
    try:
        known = list(json.loads(model.tags.get(VERSIONS_SHOWN, "[]")))
    except (ValueError, TypeError, RecursionError):  # somebody wrote into the tag
        known = []
    if (entry := {"name": name, "version": number}) not in known:
        client.set_logged_model_tags(model.model_id, {VERSIONS_SHOWN: json.dumps([*known, entry])})


def versions_of_merge(client: "MlflowClient", name: str, merge: str) -> list[ModelVersion]:
    """Return the versions of a merge, the newest first."""
    found = _search_fact(client, name, MERGE_TAG, merge)
    return [version_of(client, name, int(version.version)) for version in reversed(found)]


def version_of_run(params: RegisterParams, run_digest: str) -> ModelVersion | None:
    """Return the newest version of a training run's checkpoints; None where none was registered.

    Raises Unavailable when MLflow does not answer.
    """
    client = connect(params)
    with mlflow_errors(client.tracking_uri):
        found = _search_fact(client, params.name, RUN_DIGEST, run_digest)
        return version_of(client, params.name, int(found[-1].version)) if found else None


def _search_fact(client: "MlflowClient", name: str, key: str, digest: str) -> list[Any]:
    """List the versions of a model of which a fact is this digest, oldest first."""
    found = [version for wanted in filters(key, digest) for version in _search(client, name, wanted)]
    return sorted(found, key=lambda version: int(version.version))


def _search(client: "MlflowClient", name: str, wanted: str, location: str | None = None) -> list[Any]:
    """List the wanted versions of a model, those with their files at `location`, oldest first."""
    ours = [
        version
        for version in client.search_model_versions(wanted)
        if version.name == name and location in (None, version.source)
    ]
    return sorted(ours, key=lambda version: int(version.version))


def _fetch(client: "MlflowClient", version: ModelVersion) -> Path:
    return download_model(client, version.uri, _downloaded(version), version.tags.get(FILES))


def _downloaded(version: ModelVersion) -> Path:
    return cache_dir() / "models" / digest_of([version.uri, version.tags.get(FILES)])
