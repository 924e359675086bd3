"""Fixtures shared by the tests of flows."""

from collections.abc import Iterator

import pytest

from tests.support.servers import Servers, both_servers


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Prefect's and MLflow's servers, one of each for the session: use names of your own in them."""
    soon = {"PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "0.5"}  # events are read back at once
    with both_servers(tmp_path_factory.mktemp("servers"), **soon) as running:
        yield running


@pytest.fixture(scope="session")
def prefect() -> Iterator[None]:
    """Run flows against a temporary server of Prefect's own."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield
