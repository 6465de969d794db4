"""One Azure of the sandbox for all tests here, and ways into it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, time, timedelta
from typing import Any

import httpx
import pyarrow as pa
import pytest
from pydantic import SecretStr

from optiinfra_pipelines.clouds.collecting import Findings, Source
from optiinfra_pipelines.customers import Connection
from optiinfra_pipelines.sandbox.azure_server import connection, environment, serve_azure
from optiinfra_pipelines.sandbox.fleet import Fleet
from optiinfra_pipelines.sandbox.gate import FAULTS_PATH, REQUESTS_PATH, Fault
from optiinfra_pipelines.windows import Window

TODAY = datetime.now(UTC).date()  # Cost Management is asked for the twelve months up to now
FLEET = Fleet(TODAY, clouds=("azure",))
_TEN = datetime.combine(TODAY - timedelta(days=1), time(10), UTC)
SPAN = Window(_TEN, _TEN + timedelta(minutes=45))

OpenSource = Callable[..., Source]


class Cloud:
    """The server at `url`: its faults and the requests it counted."""

    def __init__(self, url: str) -> None:
        self.url = url

    def break_with(self, fault: Fault) -> None:
        """Do `fault` to the next requests that it matches."""
        httpx.post(self.url + FAULTS_PATH, content=json.dumps(asdict(fault))).raise_for_status()

    def heal(self) -> None:
        """Forget all faults and requests."""
        httpx.delete(self.url + FAULTS_PATH)
        httpx.delete(self.url + REQUESTS_PATH)

    @property
    def requests(self) -> dict[str, int]:
        """How often each "METHOD /path" was asked for."""
        return dict(httpx.get(self.url + REQUESTS_PATH).json())


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


def rows_of(findings: Findings) -> list[dict[str, Any]]:
    """All rows that a collection brought."""
    return pa.concat_tables(findings.tables).to_pylist() if findings.tables else []
