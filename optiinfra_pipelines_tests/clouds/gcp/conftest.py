"""One Google Cloud of the sandbox for all tests here, and ways into it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

import httpx
import pyarrow as pa
import pytest
from pydantic import SecretStr

from optiinfra_pipelines.clouds.collecting import Findings, Source
from optiinfra_pipelines.customers import Connection
from optiinfra_pipelines.sandbox.fleet import Fleet
from optiinfra_pipelines.sandbox.gate import FAULTS_PATH, REQUESTS_PATH, Fault
from optiinfra_pipelines.sandbox.gcp_server import connection, environment, serve_gcp
from optiinfra_pipelines.windows import Window

TODAY = date(2026, 11, 20)
FLEET = Fleet(TODAY, clouds=("gcp",))
SPAN = Window(datetime(2026, 11, 19, 10, tzinfo=UTC), datetime(2026, 11, 19, 10, 45, tzinfo=UTC))

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
    return Source(customer, entry, credentials, timeout=0.5)


def rows_of(findings: Findings) -> list[dict[str, Any]]:
    """All rows that a collection brought."""
    return pa.concat_tables(findings.tables).to_pylist() if findings.tables else []
