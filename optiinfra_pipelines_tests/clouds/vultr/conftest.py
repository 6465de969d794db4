"""The sandbox's Vultr, one for all tests of a module."""

from collections.abc import Iterator

import pytest

from optiinfra_pipelines.sandbox.vultr_server import serve_vultr
from optiinfra_pipelines_tests.clouds.vultr.sandbox import TODAY


@pytest.fixture(scope="package")
def vultr_url() -> Iterator[str]:
    """URL of a server with the fleet of acme and globex."""
    with serve_vultr(TODAY) as url:
        yield url
