"""The collector over the wire against recorded answers alone, with what the sandbox's fleet has none of."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from werkzeug.serving import make_server

from optiinfra_pipelines.clouds.vultr.collector import VultrCollector
from optiinfra_pipelines.sandbox.gate import HOST, answer_json
from optiinfra_pipelines.windows import Window
from optiinfra_pipelines_tests.clouds.vultr.recordings import fixture
from optiinfra_pipelines_tests.clouds.vultr.sandbox import open_source, rows_of

RECORDED = {
    "/v2/instances": ("instance", "/instances"),
    "/v2/bare-metals": ("bare_metal_server", "/bare-metals"),
    "/v2/blocks": ("block_storage", "/blocks"),
    "/v2/blocks/snapshots": ("block_storage", "/blocks/snapshots"),
    "/v2/snapshots": ("snapshot", "/snapshots"),
    "/v2/reserved-ips": ("reserved_ip", "/reserved-ips"),
    "/v2/databases": ("database", "/databases"),
    "/v2/inference": ("inference", "/inference"),
    "/v2/plans": ("plans", "/plans"),
    "/v2/plans-metal": ("plans", "/plans-metal"),
}


@pytest.fixture(scope="module")
def recorded_url(data: Path) -> Iterator[str]:
    """A server of the recordings. Their `meta` is left out: it counts and points to pages that were not recorded."""
    answers = {path: fixture(data, *place) for path, place in RECORDED.items()}

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path.endswith("/usage"):
            answer = fixture(data, "inference", "/usage")
        elif path.endswith("/bandwidth"):
            name = "bare_metal_server" if "bare-metals" in path else "instance"
            answer = fixture(data, name, "/bandwidth")
        else:
            answer = {name: value for name, value in answers[path].items() if name != "meta"}
        return answer_json(start_response, json.loads(json.dumps(answer, default=float)))

    server = make_server(HOST, 0, application, threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://{HOST}:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_recorded_list_becomes_rows(recorded_url: str) -> None:
    findings = VultrCollector(open_source(recorded_url)).inventory()
    assert findings.failures == []
    assert sorted((row["resource_type"], row["resource_id"]) for row in rows_of(findings)) == [
        ("database", "999c4ed0-f2e4-4f2a-a951-de358ceb9ab5"),
        ("database", "daeb6d62-a6a2-458c-9f74-e053735d7f50"),
        ("ip_address", "1313044"),
        ("machine", "14b3e7d6-ffb5-4994-8502-57fcd9db3b33"),
        ("machine", "90000"),
        ("model", "999c4ed0-f2e4-4f2a-a951-de358ceb9ab5"),
        ("snapshot", "885ee0f4f263c"),
        ("snapshot", "96aef714-ce33-46a7-88e1-2eb1e8e0646e"),
        ("snapshot", "cb676a46-66fd-4dfb-b839-443f2e6c0b60"),
        ("volume", "123456"),
    ]
    text = json.dumps(rows_of(findings), default=str)
    assert not any(secret in text for secret in ("AVNS_", "REDACTED", "novnc", "vultradmin"))


def test_bare_metal_has_the_threads_of_its_plan_and_its_own_bandwidth(recorded_url: str) -> None:
    source = open_source(recorded_url)
    resources = rows_of(VultrCollector(source).inventory())
    [server] = [row for row in resources if row["resource_id"] == "90000"]
    assert (server["vcpus"], server["gpu_count"], server["hourly_price"]) == (8.0, 0.0, None)
    span = Window(datetime(2017, 4, 1, tzinfo=UTC), datetime(2017, 4, 2, tzinfo=UTC))
    rows = rows_of(VultrCollector(source).metrics(resources, span))
    assert sorted((row["resource_id"], row["source"], row["value"]) for row in rows) == [
        ("14b3e7d6-ffb5-4994-8502-57fcd9db3b33", "vultr:/v2/instances/{id}/bandwidth", 3084731.0),
        ("14b3e7d6-ffb5-4994-8502-57fcd9db3b33", "vultr:/v2/instances/{id}/bandwidth", 91571055.0),
        ("90000", "vultr:/v2/bare-metals/{id}/bandwidth", 3084731.0),
        ("90000", "vultr:/v2/bare-metals/{id}/bandwidth", 91571055.0),
    ]


def test_recorded_plans_become_prices_and_a_missing_list_is_one_failure(recorded_url: str) -> None:
    findings = VultrCollector(open_source(recorded_url, attempts=1)).prices()
    assert sorted((row["sku"], row["price"]) for row in rows_of(findings)) == [
        ("vbm-4c-32gb", Decimal(300)),
        ("vc2-16c-64gb", Decimal(320)),
    ]
    assert [failure.kind for failure in findings.failures] == ["transient"]
