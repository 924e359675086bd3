"""One merge at a time on each device of this machine."""

import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress

from prefect import get_client, get_run_logger
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from tasks.base.directories import shared_locks_dir
from tasks.base.held_lock import SHARED, held_lock
from tasks.engine.devices import choose_devices
from tasks.parameters.params import Params

SLOT_LEASE_S = 60
"""How long Prefect keeps a slot without a sign of its holder."""


@contextmanager
def device_lock(params: Params) -> Iterator[None]:
    """Hold the devices that a run computes on, waiting until they are free.

    A file lock decides, which all users of the machine share, and which ends with its process; a slot leaks
    when a server that keeps its leases in memory is restarted. The concurrency limit of each device shows
    which run holds it, and set to 0 takes the device out of service.
    """
    names = [f"loreline-{socket.gethostname()}-{device.replace(':', '-')}" for device in _devices(params)]
    with ExitStack() as held:
        for name in names:
            held.enter_context(_locked(name, f"the merge of run {params.fetch.address}"))
            _prepare_limit(name)
        slots = concurrency(
            names, strict=True, lease_duration=SLOT_LEASE_S, raise_on_lease_renewal_failure=False
        )
        held.enter_context(slots)
        yield


def _devices(params: Params) -> list[str]:
    """List the devices of merging and evaluating, sorted, so that two runs cannot deadlock."""
    wanted = (params.merge.device, params.evaluate.device)
    return sorted({device for each in wanted for device in choose_devices(each, decomposes=True)})


def _locked(name: str, work: str) -> AbstractContextManager[None]:
    say = get_run_logger().info
    return held_lock(shared_locks_dir() / name, work, lambda news: say("%s: in use; %s", name, news), SHARED)


def _prepare_limit(name: str) -> None:
    """Create a device's limit, and free slots of dead processes: the caller holds the lock."""
    with get_client(sync_client=True) as client:
        try:
            occupied = client.read_global_concurrency_limit_by_name(name).active_slots
        except ObjectNotFound:
            occupied = 0
            with suppress(ObjectAlreadyExists):
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
        if occupied:
            client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(active_slots=0))
