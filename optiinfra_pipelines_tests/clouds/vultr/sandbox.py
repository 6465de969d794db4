"""The collectors' view of the sandbox's Vultr: an opened connection, and faults that are switched on for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from typing import Any

import httpx
from pydantic import SecretStr

from optiinfra_pipelines.clouds.collecting import Findings, Source
from optiinfra_pipelines.customers import Connection
from optiinfra_pipelines.sandbox import vultr_server
from optiinfra_pipelines.sandbox.fleet import Fleet
from optiinfra_pipelines.sandbox.gate import FAULTS_PATH, Fault

TODAY = date(2026, 11, 20)
FLEET = Fleet(TODAY)


def open_source(url: str, customer: str = "acme", timeout: float = 5, attempts: int = 5, **changed: Any) -> Source:
    """The customer's connection to the sandbox, as customers.yaml would have it."""
    entry = vultr_server.connection(customer, url) | changed
    values = vultr_server.environment([customer])
    secrets = {field: SecretStr(values[name]) for field, name in entry["credentials"].items()}
    return Source(customer, Connection.model_validate(entry), secrets, timeout=timeout, attempts=attempts)


@contextmanager
def switched_on(url: str, fault: Fault) -> Iterator[None]:
    """The fault, until the block ends."""
    httpx.post(f"{url}{FAULTS_PATH}", json=asdict(fault)).raise_for_status()
    try:
        yield
    finally:
        httpx.delete(f"{url}{FAULTS_PATH}").raise_for_status()


def rows_of(findings: Findings) -> list[dict[str, Any]]:
    """All rows, in an order of their own."""
    rows = [row for table in findings.tables for row in table.to_pylist()]
    return sorted(rows, key=lambda row: str(sorted(row.items(), key=lambda item: item[0])))
