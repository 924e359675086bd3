"""Marking flow runs of dead processes as crashed in Prefect."""

from contextlib import suppress
from typing import Any
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Crashed

from tasks.jobs.ledger import LedgerEntry


def mark_crashed(predecessor: LedgerEntry | None) -> None:
    """Mark the flow run that this one takes over from as crashed; it would be shown as running for ever."""
    if predecessor is None or predecessor.flow_run is None:
        return
    over: State[Any] = Crashed(
        message=f"Its process ended; {flow_run.name} ({flow_run.id}) goes on with its work."
    )
    with get_client(sync_client=True) as client, suppress(ObjectNotFound):
        dead = client.read_flow_run(UUID(predecessor.flow_run))
        if dead.state is None or not dead.state.is_final():
            client.set_flow_run_state(dead.id, over, force=True)
