"""A move of the alias champion: the note that survives a crash, and the record that stays with the versions.

Notes are tags of the registered model, one for each move under way, so that one answer of the registry has
the aliases and every note.
"""

import json
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

from tasks.base.records import Record
from tasks.registry.versions import unless_missing

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
    """Who becomes champion."""
    over: int | None
    """Who was champion until then."""
    previous: int | None
    """Who was previous-champion until then."""
    by: str
    when: str
    """UTC, ISO 8601."""
    why: str
    evidence: str
    forced: bool
    place: str
    """The machine and lock under which it is made."""

    @property
    def becomes_previous(self) -> int | None:
        """Return who is previous-champion afterwards."""
        return self.previous if self.over is None else self.over


class AliasState(NamedTuple):
    """Where the aliases of a registered model point, and which moves are noted, in one answer."""

    aliases: dict[str, int]
    moves: list[AliasChange]


def alias_state(client: "MlflowClient", name: str) -> AliasState:
    """Ask for aliases and notes; nothing for a model that does not exist."""
    found = unless_missing(lambda: client.get_registered_model(name))
    if found is None:
        return AliasState({}, [])
    notes = [value for key, value in found.tags.items() if key.startswith(NOTE)]
    moves = sorted((AliasChange.model_validate_json(note) for note in notes), key=lambda move: move.when)
    return AliasState({alias: int(number) for alias, number in found.aliases.items()}, moves)


def note_change(client: "MlflowClient", name: str, move: AliasChange) -> None:
    """Say in the registry, before the first alias moves, what is about to happen."""
    client.set_registered_model_tag(name, NOTE + move.token, move.model_dump_json())


def forget_change(client: "MlflowClient", name: str, move: AliasChange) -> None:
    """Remove the note of a move that is done or undone."""
    unless_missing(lambda: client.delete_registered_model_tag(name, NOTE + move.token))


def record_change(client: "MlflowClient", name: str, move: AliasChange) -> None:
    """Write a move that was made into the tags of the versions that took part, once however often called."""
    _write(client, name, move.version, move, _tags(move) if move.kind == "promotion" else {})
    if move.over is not None:
        _write(client, name, move.over, move, {})


def lock_location(lock: str) -> str:
    """Return the place of the moves that are made under a lock file of this machine."""
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
        "loreline.promoted_at": move.when,
        "loreline.promoted_why": move.why,
        "loreline.promoted_over": str(move.over or "none"),
        "loreline.promoted_evidence": move.evidence,
    }
    return tags | ({"loreline.forced": move.why} if move.forced else {})


def _story(text: str, move: AliasChange) -> str:
    """Append a move to the list of a version; the oldest go when MLflow has no room for more."""
    told = [entry for entry in json.loads(text) if entry["token"] != move.token]
    told.append(move.model_dump(include={"kind", "token", "version", "over", "by", "when", "why", "forced"}))
    while len(json.dumps(told)) > STORY_LIMIT:
        del told[0]
    return json.dumps(told)
