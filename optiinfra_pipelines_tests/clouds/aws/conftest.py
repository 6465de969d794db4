"""What the tests of AWS share: its server, sources that reach it, recordings, faults switched on."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from optiinfra_pipelines.clouds.collecting import Calls, Source
from optiinfra_pipelines.customers import Connection
from optiinfra_pipelines.sandbox.aws_server import connection, environment, serve_aws
from optiinfra_pipelines.sandbox.fleet import Fleet
from optiinfra_pipelines.sandbox.gate import FAULTS_PATH, Fault
from optiinfra_pipelines.windows import Window

TODAY = date(2026, 11, 21)
SPAN = Window(datetime(2026, 11, 20, 10, tzinfo=UTC), datetime(2026, 11, 20, 11, tzinfo=UTC))
FLEET = Fleet(TODAY, clouds=("aws",))
Open = Callable[..., Source]
Recording = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="session")
def aws_url() -> Iterator[str]:
    """The server's address, for this pytest process."""
    with serve_aws(TODAY) as url:
        yield url


@pytest.fixture
def open_source(aws_url: str) -> Iterator[Open]:
    """Opens a Source on a customer's account; `changes` are fields of its connection. No fault outlives the test."""

    def opened(
        customer: str = "acme",
        calls: Calls | None = None,
        timeout: float = 5,
        secrets: dict[str, str] | None = None,
        **changes: Any,
    ) -> Source:
        entry = {**connection(customer, aws_url), **changes}
        values = environment([customer])
        given = {field: SecretStr(values[name]) for field, name in entry["credentials"].items()}
        given |= {field: SecretStr(value) for field, value in (secrets or {}).items()}
        return Source(customer, Connection.model_validate(entry), given, calls or Calls(), timeout, 3)

    yield opened
    httpx.delete(aws_url + FAULTS_PATH)


@pytest.fixture
def switch_on(aws_url: str) -> Callable[[Fault], None]:
    """Switches a fault on."""

    def post(fault: Fault) -> None:
        httpx.post(aws_url + FAULTS_PATH, content=json.dumps(asdict(fault))).raise_for_status()

    return post


@pytest.fixture(scope="session")
def recording(data: Path) -> Recording:
    """Reads a recorded answer of AWS by its path, with placebo's datetimes made real."""
    folder = data / "finops" / "c7n_recordings" / "aws"

    def read(path: str) -> dict[str, Any]:
        text = (folder / f"{path}.json").read_text()
        return dict(json.loads(text, object_hook=_datetimes)["data"])

    return read


def _datetimes(item: dict[str, Any]) -> Any:
    if item.get("__class__") != "datetime":
        return item
    return datetime(**{name: value for name, value in item.items() if name != "__class__"}, tzinfo=UTC)
