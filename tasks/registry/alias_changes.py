"""Records of champion moves: a note that survives a crash, and an entry in the history of each version.

Notes are tags of the registered model, one for each move under way, so that one request returns the aliases
and every note.
"""

import json
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import ValidationError

from tasks.base.errors import BadInput
from tasks.base.records.record import Moment, Record
from tasks.registry.store import unless_missing
from tasks.registry.versions import PROMOTED_AT

if TYPE_CHECKING:
    from mlflow import MlflowClient

NOTE = "loreline.promotion."
STORY = "loreline.promotions"
STORY_LIMIT = 100_000  # of a model version's tag
TEXT_LIMIT = 1_000  # of a text in a note: a registered model's tag has 5000 characters in some databases


class AliasChange(Record):
    """A promotion or a rollback of a registered model's champion."""

    kind: Literal["promotion", "rollback"]
    token: str
    version: int
    """The new champion."""
    over: int | None
    """The champion before; None when there was none."""
    previous: int | None
    """The previous-champion before; None when there was none."""
    by: str
    when: Moment
    """UTC, ISO 8601."""
    why: str
    evidence: str
    forced: bool
    place: str
    """The machine and lock file under which it is made."""

    @property
    def becomes_previous(self) -> int | None:
        """Return the previous-champion afterwards."""
        return self.previous if self.over is None else self.over


class AliasState(NamedTuple):
    """Aliases and noted moves of a registered model, from one request."""

    aliases: dict[str, int]
    moves: list[AliasChange]


def alias_state(client: "MlflowClient", name: str) -> AliasState:
    """Return aliases and notes, both empty for a model that does not exist."""
    found = unless_missing(lambda: client.get_registered_model(name))
    if found is None:
        return AliasState({}, [])
    notes = [value for key, value in found.tags.items() if key.startswith(NOTE)]
    moves = sorted((_read(name, note) for note in notes), key=lambda move: move.when)
    return AliasState({alias: int(number) for alias, number in found.aliases.items()}, moves)


def note_change(client: "MlflowClient", name: str, move: AliasChange) -> None:
    """Note a move in the registry, before the first alias moves."""
    client.set_registered_model_tag(name, NOTE + move.token, move.model_dump_json())


def forget_change(client: "MlflowClient", name: str, move: AliasChange) -> None:
    """Remove the note of a move that is complete or reverted."""
    unless_missing(lambda: client.delete_registered_model_tag(name, NOTE + move.token))


def record_change(client: "MlflowClient", name: str, move: AliasChange) -> None:
    """Record a complete move in the tags of both versions; calling it again changes nothing."""
    _write(client, name, move.version, move, _tags(move) if move.kind == "promotion" else {})
    if move.over is not None:
        _write(client, name, move.over, move, {})


def lock_location(lock: str) -> str:
    """Return `place` of the moves that are made under a lock file of this machine."""
    return f"{socket.gethostname()}:{lock}"


def utc_now() -> str:
    """Return the time as the records give it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def age_of(move: AliasChange) -> float:
    """Return the seconds since a move was noted, by this machine's clock."""
    return (datetime.now(UTC) - datetime.fromisoformat(move.when)).total_seconds()


def _write(client: "MlflowClient", name: str, number: int, move: AliasChange, tags: dict[str, str]) -> None:
    found = unless_missing(lambda: client.get_model_version(name, str(number)))
    if found is None:  # Somebody deleted the version meanwhile.
        return
    for key, value in (tags | {STORY: _story(found.tags.get(STORY, "[]"), move)}).items():
        if found.tags.get(key) != value:
            client.set_model_version_tag(name, str(number), key, value)


def _tags(move: AliasChange) -> dict[str, str]:
    tags = {
        "loreline.promoted_by": move.by,
        PROMOTED_AT: move.when,
        "loreline.promoted_why": move.why,
        "loreline.promoted_over": str(move.over or "none"),
        "loreline.promoted_evidence": move.evidence,
    }
    return tags | ({"loreline.forced": move.why} if move.forced else {})


def _read(name: str, note: str) -> AliasChange:
    try:
        return AliasChange.model_validate_json(note)
    except ValidationError:
        raise BadInput(
            name, f"a tag {NOTE}... is no record of a promotion", "restore it, or delete the tag"
        ) from None


def _story(text: str, move: AliasChange) -> str:
    """Append a move to a version's history; the oldest entries go when MLflow has no room for more."""
    try:
        history = [entry for entry in json.loads(text) if entry["token"] != move.token]
    except (ValueError, TypeError, KeyError, RecursionError):  # somebody wrote into the tag
        history = []
    history.append(
        move.model_dump(include={"kind", "token", "version", "over", "by", "when", "why", "forced"})
    )
    while len(json.dumps(history)) > STORY_LIMIT:
        del history[0]
    return json.dumps(history)
