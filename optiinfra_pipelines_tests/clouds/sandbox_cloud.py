"""A server of the sandbox as the collectors' tests hold it: its faults, the requests it counted, rows that came."""

import json
from dataclasses import asdict
from typing import Any

import httpx
import pyarrow as pa

from optiinfra_pipelines.clouds.collecting import Findings
from optiinfra_pipelines.sandbox.gate import FAULTS_PATH, REQUESTS_PATH, Fault


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


def rows_of(findings: Findings) -> list[dict[str, Any]]:
    """All rows that a collection brought."""
    return pa.concat_tables(findings.tables).to_pylist() if findings.tables else []
