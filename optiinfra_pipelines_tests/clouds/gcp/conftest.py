"""One Google Cloud of the sandbox for all tests here, and ways into it."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

import pytest
from pydantic import SecretStr

from optiinfra_pipelines.clouds.collecting import Source
from optiinfra_pipelines.customers import Connection
from optiinfra_pipelines.sandbox.fleet import Fleet
from optiinfra_pipelines.sandbox.gcp_server import connection, environment, serve_gcp
from optiinfra_pipelines.windows import Window
from optiinfra_pipelines_tests.clouds.sandbox_cloud import Cloud

TODAY = date(2026, 11, 20)
FLEET = Fleet(TODAY, clouds=("gcp",))
SPAN = Window(datetime(2026, 11, 19, 10, tzinfo=UTC), datetime(2026, 11, 19, 10, 45, tzinfo=UTC))

OpenSource = Callable[..., Source]


@pytest.fixture(scope="package")
def server() -> Iterator[Cloud]:
    with serve_gcp(TODAY) as url:
        yield Cloud(url)


@pytest.fixture
def cloud(server: Cloud) -> Iterator[Cloud]:
    server.heal()
    yield server
    server.heal()


@pytest.fixture
def open_source(cloud: Cloud) -> OpenSource:
    """A Source of one customer; keywords change its entry in customers.yaml."""
    return partial(source_at, cloud.url)


def source_at(url: str, customer: str = "acme", key: str | None = None, **changes: Any) -> Source:
    """A Source of one customer of the server at `url`."""
    entry = Connection.model_validate({**connection(customer, url), **changes})
    variables = environment([customer])
    credentials = {name: SecretStr(key or variables[variable]) for name, variable in entry.credentials.items()}
    return Source(customer, entry, credentials, timeout=1.5)  # a hanging server hangs for 2 s
