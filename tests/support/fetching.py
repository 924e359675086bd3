"""Fetching a run from an object store, whatever its address."""

from tasks.parameters.fetch import FetchParams
from tasks.parameters.registration import RegisterParams
from tasks.sources.kinds.object_store import ObjectStoreSource
from tasks.sources.source import FetchedRun

REGISTRY = RegisterParams()


def fetched(address: str, **params: float) -> FetchedRun:
    unchecked = FetchParams.model_construct(
        source=address, **{"settle": 0, **params}
    )  # what the parameters would refuse is refused here, too
    return ObjectStoreSource().fetch(unchecked, REGISTRY)
