"""Which versions keep their weights, and removing those of the others; a version's records stay for ever."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.base.errors import BadInput
from tasks.base.publish import MANIFEST, Manifest
from tasks.parameters.registration import RegisterParams
from tasks.parameters.retention import RetentionParams
from tasks.registry.alias_changes import AliasState, alias_state, utc_now
from tasks.registry.files import local_directory
from tasks.registry.history import our_versions
from tasks.registry.store import connect, mlflow_errors, store_lock
from tasks.registry.versions import (
    PROMOTED_AT,
    PRUNED,
    PUSH,
    ModelVersion,
    forget_download,
    version_of,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

A_DAY_S = 86400.0
WEIGHT_FILES = ".safetensors"


class VersionFacts(NamedTuple):
    """What decides whether a version keeps its weights."""

    number: int
    created: float
    """Seconds since 1970."""
    aliases: tuple[str, ...] = ()
    promoted: float | None = None
    """The last time, in seconds since 1970; None for never."""
    moving: bool = False
    """A promotion or rollback that is under way names it."""
    pending: bool = False
    """Its push is not complete."""


class Retained(NamedTuple):
    """What becomes of a version's weights."""

    number: int
    kept: bool
    why: str


def retained(versions: Iterable[VersionFacts], params: RetentionParams, now: float) -> list[Retained]:
    """Decide which versions keep their weights, the newest first."""
    ordered = sorted(versions, key=lambda version: version.number, reverse=True)
    return [_decide(version, rank, params, now) for rank, version in enumerate(ordered)]


def version_facts(params: RegisterParams) -> list[VersionFacts]:
    """Read the facts of all versions that Loreline registered; Unavailable when MLflow does not answer."""
    client = connect(params)
    with mlflow_errors(client.tracking_uri):
        found = list(our_versions(client, params.name))
        state = alias_state(client, params.name)  # last: what is promoted meanwhile is seen
    moving = _moving(state)
    return [
        VersionFacts(
            number=(number := int(version.version)),
            created=version.creation_timestamp / 1000,
            aliases=tuple(sorted(alias for alias, at in state.aliases.items() if at == number)),
            promoted=_seconds(version.tags.get(PROMOTED_AT)),
            moving=number in moving,
            pending=version.tags.get(PUSH) == "pending",
        )
        for version in found
    ]


def weights_of(params: RegisterParams, number: int) -> dict[str, int]:
    """Return the weights of a version that its store still holds: name → bytes."""
    client = connect(params)
    with mlflow_errors(client.tracking_uri):
        return _weights(client, version_of(client, params.name, number))


def prune_version(params: RegisterParams, number: int, why: str) -> bool:
    """Remove a version's weights from its store and this machine; again it goes on. False: it is in use now.

    The version is marked before, and the aliases are read after: a promotion notes itself before, and looks
    for the mark after. So of the two at least one sees the other.
    """
    client = connect(params)
    with mlflow_errors(client.tracking_uri), store_lock(client.tracking_uri, params.name):
        version = version_of(client, params.name, number)
        if PRUNED not in version.tags:
            client.set_model_version_tag(params.name, str(number), PRUNED, f"{utc_now()}, {why}")
        state = alias_state(client, params.name)
        if number in _moving(state) | set(state.aliases.values()):
            client.delete_model_version_tag(params.name, str(number), PRUNED)
            return False
        store = _store(client, version)
        for name in _weights(client, version):
            store.delete_artifacts(name)
        forget_download(version)
    return True


def _decide(version: VersionFacts, rank: int, params: RetentionParams, now: float) -> Retained:
    def keep(why: str) -> Retained:
        return Retained(version.number, True, why)

    if version.aliases:
        return keep(", ".join(version.aliases))
    if version.moving:
        return keep("its promotion is under way")
    if version.pending:
        return keep("its push is pending")
    if rank < params.newest:
        return keep(f"one of the newest {params.newest}")
    age = (now - version.created) / A_DAY_S
    if version.promoted is None:
        return Retained(version.number, False, f"{age:.0f} days old, never promoted")
    since = (now - version.promoted) / A_DAY_S
    if since <= params.promoted_within:
        return keep(f"promoted {since:.0f} days ago")
    return Retained(version.number, False, f"{age:.0f} days old, promoted {since:.0f} days ago")


def _moving(state: AliasState) -> set[int]:
    """Return the versions that promotions and rollbacks under way name."""
    named = (number for move in state.moves for number in (move.version, move.over, move.previous))
    return {number for number in named if number is not None}


def _seconds(when: str | None) -> float | None:
    """Return a tag's time; one that cannot be read counts as now, which keeps the version."""
    if when is None:
        return None
    try:
        return datetime.fromisoformat(when).timestamp()
    except ValueError:
        return datetime.now(UTC).timestamp()


def _weights(client: "MlflowClient", version: ModelVersion) -> dict[str, int]:
    """Return a version's weights; in a directory of this machine only what Loreline published there.

    Whoever writes to the registry may name any directory.
    """
    directory = local_directory(version.uri)
    if directory is not None:
        return _published_weights(directory)
    files = _store(client, version).list_artifacts()
    return {file.path: file.file_size or 0 for file in files if file.path.endswith(WEIGHT_FILES)}


def _published_weights(directory: Path) -> dict[str, int]:
    try:
        files = Manifest.read(directory / MANIFEST).files
    except BadInput:
        return {}
    return {
        file.name: file.size
        for file in files
        if file.name.endswith(WEIGHT_FILES) and (directory / file.name).is_file()
    }


def _store(client: "MlflowClient", version: ModelVersion) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(version.uri, tracking_uri=client.tracking_uri)
