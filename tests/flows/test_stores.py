"""The servers of the tests really keep their state where LORELINE_TEST_STORE says."""

import os

import pytest
from sqlalchemy import create_engine, inspect, make_url

from tests.support.servers import Servers


@pytest.mark.servers
@pytest.mark.parametrize(("server", "table"), [("prefect", "flow_run"), ("mlflow", "model_versions")])
def test_a_server_s_tables_are_in_the_store_that_was_asked_for(
    servers: Servers, server: str, table: str
) -> None:
    url = make_url(getattr(servers, server).store)
    kind = url.get_backend_name()
    assert kind == os.environ.get("LORELINE_TEST_STORE", "sqlite")
    assert inspect(create_engine(url.set(drivername=kind))).has_table(table)
