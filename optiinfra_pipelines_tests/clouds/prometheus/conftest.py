"""The sandbox's Prometheus, one for all tests of a module."""

from collections.abc import Iterator

import pytest

from optiinfra_pipelines.sandbox.prometheus_server import serve_prometheus
from optiinfra_pipelines_tests.clouds.vultr.sandbox import TODAY


@pytest.fixture(scope="package")
def prometheus_url() -> Iterator[str]:
    """URL of a server with the machines of acme and globex on every cloud."""
    with serve_prometheus(TODAY) as url:
        yield url
