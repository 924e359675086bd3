"""The ledger of looks: how often which test items were asked, with the registered model for every machine.

Each look is a tag of its own on the registered model, so that two machines never overwrite each other's. It
is written before the items are asked: one that was cut short counts too.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from tasks.base.errors import BadInput
from tasks.base.json_digest import digest_of
from tasks.base.records.record import Interval, Moment, Record
from tasks.base.records.verdict import Decision
from tasks.registry.store import ensure_registered, store_lock, unless_missing

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOOK = "loreline.look."
KEY_DIGITS = 16
"""Hexadecimal digits of a digest in a tag's key: 250 characters are allowed there."""


class Asked(Record):
    """What is asked in a look: asking the same again is the same look."""

    kind: Literal["test", "vault"]
    items: str
    """Digest of the items."""
    merge: str
    """Digest of the merged model."""
    judgement: str
    """Digest of the parameters that judge it."""

    @property
    def key(self) -> str:
        """The key of its tag."""
        own = digest_of([self.kind, self.merge, self.judgement])
        return f"{LOOK}{self.items[:KEY_DIGITS]}.{own[:KEY_DIGITS]}"


class Look(Record):
    """One look at a set of test items, or of a vault."""

    asked: Asked
    number: int
    """The how many-th look at these items it is, from 1."""
    when: Moment
    """UTC, ISO 8601."""
    run: str
    """The training run that was merged."""
    level: float
    """One-sided level at which it decides."""
    decision: Decision | None = None
    """None while it is under way, or where it was cut short."""
    gain: Interval | None = None
    """Over the model that the decision rests on."""
    excess: float | None = None
    """Of a look at a vault: the gain on the test items less that on the vault's."""


def looks_of(client: "MlflowClient", name: str) -> list[Look]:
    """Return all looks of a registered model, the oldest first; none where there is no such model."""
    found = unless_missing(lambda: client.get_registered_model(name))
    tags = found.tags if found else {}
    looks = [_read(name, key, value) for key, value in tags.items() if key.startswith(LOOK)]
    return sorted(looks, key=lambda look: (look.when, look.asked.key))


def begin_look(
    client: "MlflowClient", name: str, asked: Asked, run: str, level_at: Callable[[int], float]
) -> Look:
    """Record a look before its items are asked, and return it; one that was recorded before counts once.

    `level_at` gives the level of the how many-th look. Two machines in the same instant may get one number.
    """
    with store_lock(client.tracking_uri, name):
        looks = [look for look in looks_of(client, name) if look.asked.items == asked.items]
        for look in looks:
            if look.asked == asked:
                return look
        number = 1 + len(looks)
        look = Look(
            asked=asked,
            number=number,
            when=datetime.now(UTC).isoformat(timespec="milliseconds"),
            run=run,
            level=level_at(number),
        )
        ensure_registered(client, name)
        write_look(client, name, look)
    return look


def write_look(client: "MlflowClient", name: str, look: Look) -> None:
    """Record a look, with what it decided once that is known."""
    client.set_registered_model_tag(name, look.asked.key, look.model_dump_json(exclude_none=True))


def _read(name: str, key: str, value: str) -> Look:
    try:
        return Look.model_validate_json(value)
    except ValidationError:
        raise BadInput(
            f"{name}: tag {key}", "is no record of a look at test items", "restore it, or delete the tag"
        ) from None
