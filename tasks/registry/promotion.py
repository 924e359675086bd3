"""Moving the alias champion without a compare-and-set in MLflow, and repairing moves cut short by a crash.

The lock excludes this machine's other processes. Other machines are excluded by notes: a writer moves nothing
while another's note stands beside its own, and of two the one with the higher token withdraws.
"""

import time
from typing import TYPE_CHECKING

from tasks.base.errors import BadInput, Unavailable
from tasks.parameters.registration import RegisterParams
from tasks.registry.alias_changes import (
    AliasChange,
    age_of,
    alias_state,
    forget_change,
    lock_location,
    note_change,
    record_change,
)
from tasks.registry.store import connect, mlflow_errors, store_lock
from tasks.registry.versions import (
    CHAMPION,
    PREVIOUS,
    Contended,
    aliases,
    check_not_pruned,
    point,
    version_of,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHANGE_LEASE_S = 120.0
"""How long another machine's note counts as a move under way; a move takes seconds."""
RIVAL_WAIT_S = 10.0
"""How long a lower token waits for the others to finish or withdraw."""


def reconcile(params: RegisterParams) -> list[str]:
    """Complete or revert the moves that a crash interrupted; return a sentence for each."""
    client = connect(params)
    with mlflow_errors(client.tracking_uri), store_lock(client.tracking_uri, params.name) as lock:
        return mend(client, params.name, lock_location(lock.lock_file))


def mend(client: "MlflowClient", name: str, place: str) -> list[str]:
    """Do what reconcile does, for a caller that holds the lock of `place`."""
    return [settle(client, name, move) for move in alias_state(client, name).moves if not _alive(move, place)]


def carry_out(client: "MlflowClient", name: str, move: AliasChange) -> None:
    """Make a move, reading back every alias, for a caller that holds the lock and has verified the files.

    Raises Contended, with nothing half made, when another writer is at work or was first.
    """
    note_change(client, name, move)  # before looking for others, so that of two at least one sees the other
    try:
        # likewise `prune` marks a version before it looks for notes
        check_not_pruned(version_of(client, name, move.version))
        _exclude_others(client, name, move)
    except (Contended, BadInput):
        forget_change(client, name, move)
        raise
    try:
        # champion last: whether it has moved tells `settle` whether to complete or to revert
        _point(client, name, PREVIOUS, move.becomes_previous)
        _point(client, name, CHAMPION, move.version)
    except Contended:
        settle(client, name, move)
        raise
    record_change(client, name, move)
    forget_change(client, name, move)


def settle(client: "MlflowClient", name: str, move: AliasChange) -> str:
    """Complete a noted move if champion has moved, else revert it; remove the note."""
    now = aliases(client, name).get(CHAMPION)
    what = f"{name}: the {move.kind} of version {move.version} by {move.by} was cut short"
    if now == move.version:
        _point(client, name, PREVIOUS, move.becomes_previous)
        record_change(client, name, move)
        forget_change(client, name, move)
        return f"{what} and is complete now"
    if now == move.over:  # Else somebody else has moved champion since, and previous-champion is theirs.
        _point(client, name, PREVIOUS, move.previous)
    forget_change(client, name, move)
    return f"{what} and has been undone"


def _exclude_others(client: "MlflowClient", name: str, move: AliasChange) -> None:
    """Return when no other note is there and the aliases are as this move expects; raises Contended."""
    deadline = time.monotonic() + RIVAL_WAIT_S
    now = alias_state(client, name)
    while others := [other for other in now.moves if other.token != move.token]:
        if min(other.token for other in others) < move.token or time.monotonic() > deadline:
            raise Contended(
                name,
                f"{others[0].by} is moving champion on {others[0].place.partition(':')[0]}",
                f"run the same command again in {CHANGE_LEASE_S:.0f} s",
            )
        time.sleep(0.1)
        now = alias_state(client, name)
    if (now.aliases.get(CHAMPION), now.aliases.get(PREVIOUS)) != (move.over, move.previous):
        raise Contended(name, "the champion changed meanwhile", "run the same command again")


def _alive(move: AliasChange, place: str) -> bool:
    """Tell whether a move may still be under way; one under the lock that is held here cannot be."""
    return move.place != place and age_of(move) < CHANGE_LEASE_S


def _point(client: "MlflowClient", name: str, alias: str, number: int | None) -> None:
    if number is not None:
        point(client, name, alias, number)
    elif alias in aliases(client, name):
        client.delete_registered_model_alias(name, alias)
        if alias in aliases(client, name):
            raise Unavailable(name, f"the alias {alias} came back", "run the same command again")
