"""One Azure of the sandbox for all tests here, and ways into it."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from optiinfra_pipelines.clouds.collecting import Source
from optiinfra_pipelines.customers import Connection
from optiinfra_pipelines.sandbox.azure_server import connection, environment, serve_azure
from optiinfra_pipelines.sandbox.fleet import Fleet
from optiinfra_pipelines.windows import Window
from optiinfra_pipelines_tests.clouds.sandbox_cloud import Cloud

TODAY = datetime.now(UTC).date()  # Cost Management is asked for the twelve months up to now
FLEET = Fleet(TODAY, clouds=("azure",))
_TEN = datetime.combine(TODAY - timedelta(days=1), time(10), UTC)
SPAN = Window(_TEN, _TEN + timedelta(minutes=45))

OpenSource = Callable[..., Source]


@pytest.fixture(scope="package")
def server() -> Iterator[Cloud]:
    with serve_azure(TODAY) as url:
        yield Cloud(url)


@pytest.fixture
def cloud(server: Cloud) -> Iterator[Cloud]:
    server.heal()
    yield server
    server.heal()


@pytest.fixture
def open_source(cloud: Cloud) -> OpenSource:
    """A Source of one customer; keywords change its entry in customers.yaml, `secret` its client_secret."""

    def opened(customer: str = "acme", secret: str | None = None, **changes: Any) -> Source:
        entry = Connection.model_validate({**connection(customer, cloud.url), **changes})
        variables = environment([customer])
        credentials = {name: SecretStr(variables[variable]) for name, variable in entry.credentials.items()}
        if secret is not None:
            credentials["client_secret"] = SecretStr(secret)
        return Source(customer, entry, credentials, timeout=0.5)

    return opened
