"""Everything that can go wrong with Google's APIs: collection recovers, or fails as a recorded failure and is whole
the next time."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from optiinfra_pipelines.clouds.collecting import Findings, Source
from optiinfra_pipelines.clouds.gcp.bill import BigQueryBill
from optiinfra_pipelines.clouds.gcp.client import Access
from optiinfra_pipelines.clouds.gcp.collector import GcpCollector
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.sandbox.fleet_bills import bill_periods
from optiinfra_pipelines.sandbox.gate import Fault
from optiinfra_pipelines.sandbox.gcp_server import FAULTS
from optiinfra_pipelines_tests.clouds.gcp.conftest import SPAN, TODAY, OpenSource, source_at
from optiinfra_pipelines_tests.clouds.sandbox_cloud import Cloud, rows_of

PERIOD = bill_periods(TODAY)[0]
WHOLLY = ("clock_skew",)  # what nothing of a connection survives
RECOVERS = (
    *("throttled", "server_error_500", "server_error_503", "connection_reset", "timeout", "truncated_json"),
    *("partial_page", "token_expiry", "empty_zone"),
)


def _inventory(source: Source, _: list[Any]) -> Findings:
    return GcpCollector(source).inventory()


def _metrics(source: Source, inventory: list[Any]) -> Findings:
    return GcpCollector(source).metrics(inventory, SPAN)


def _bill(source: Source, _: list[Any]) -> Findings:
    return Findings([BigQueryBill(source).rows(PERIOD)])


COLLECTS: dict[str, Callable[[Source, list[Any]], Findings]] = {
    "inventory": _inventory,
    "metrics": _metrics,
    "bill": _bill,
}


def _ordered(found: Findings) -> list[str]:
    return sorted(str(sorted(row.items())) for row in rows_of(found))


@pytest.fixture(scope="module")
def inventory(server: Cloud) -> list[Any]:
    return rows_of(GcpCollector(source_at(server.url)).inventory())


@pytest.fixture(scope="module")
def whole(server: Cloud, inventory: list[Any]) -> dict[str, list[str]]:
    """What each kind brings where nothing goes wrong."""
    return {kind: _ordered(collect(source_at(server.url), inventory)) for kind, collect in COLLECTS.items()}


@pytest.mark.parametrize("kind", COLLECTS)
@pytest.mark.parametrize("name", RECOVERS)
def test_recovers(
    cloud: Cloud, open_source: OpenSource, inventory: list[Any], whole: dict[str, list[str]], name: str, kind: str
) -> None:
    collect, fault = COLLECTS[kind], FAULTS[name]
    assert fault is not None
    cloud.break_with(fault)
    found = collect(open_source(), inventory)
    assert found.failures == []
    assert _ordered(found) == whole[kind]


@pytest.mark.parametrize(
    ("name", "kind", "error"),
    [
        ("endless_cursor", "inventory", "malformed"),
        ("endless_cursor", "metrics", "malformed"),
        ("endless_cursor", "bill", "malformed"),
        ("repeated_page", "inventory", "malformed"),
        ("repeated_page", "metrics", "malformed"),
        ("repeated_page", "bill", "malformed"),
        ("clock_skew", "inventory", "auth"),
        ("clock_skew", "metrics", "auth"),
        ("clock_skew", "bill", "auth"),
        ("permission_denied", "inventory", "auth"),
    ],
)
def test_fails_by_name_and_is_whole_the_next_time(
    cloud: Cloud,
    open_source: OpenSource,
    inventory: list[Any],
    whole: dict[str, list[str]],
    name: str,
    kind: str,
    error: str,
) -> None:
    collect, fault = COLLECTS[kind], FAULTS[name]
    assert fault is not None
    cloud.break_with(fault)
    source = open_source()
    if name in WHOLLY or kind == "bill":
        with pytest.raises(CollectionError) as failure:
            collect(source, inventory)
        assert failure.value.kind == error
    else:
        found = collect(source, inventory)
        assert [each.kind for each in found.failures] == [error]
        assert 0 < found.row_count <= len(whole[kind]), "the other parts came"
    assert _ordered(collect(open_source(), inventory)) == whole[kind]


def test_every_fault_of_the_matrix_is_tried_or_said_not_to_exist() -> None:
    tried = {*RECOVERS, "endless_cursor", "repeated_page", "clock_skew", "permission_denied"}
    assert {name for name, fault in FAULTS.items() if fault} == tried
    assert [name for name, fault in FAULTS.items() if fault is None] == ["region_not_enabled"]


def test_one_denied_service_leaves_the_others_whole(
    cloud: Cloud, open_source: OpenSource, inventory: list[Any]
) -> None:
    denied = FAULTS["permission_denied"]
    assert denied is not None
    cloud.break_with(denied)
    found = GcpCollector(open_source()).inventory()
    assert rows_of(found) == [row for row in inventory if row["resource_type"] != "database"]
    assert "sqladmin instances.list" in str(found.failures[0])


def test_throttling_by_403_is_no_lack_of_permission(cloud: Cloud, open_source: OpenSource) -> None:
    fault = FAULTS["throttled"]
    assert fault is not None
    cloud.break_with(replace(fault, kind="rate_limit_403", match="/aggregated/disks"))
    assert GcpCollector(open_source()).inventory().failures == []


def test_429_without_retry_after_that_goes_on_is_throttled_and_others_come(
    cloud: Cloud, open_source: OpenSource
) -> None:
    cloud.break_with(Fault("status", 429, times=5, match="/aggregated/disks"))
    source = replace(open_source(), attempts=2)
    found = GcpCollector(source).inventory()
    assert [error.kind for error in found.failures] == ["throttled"]
    assert {row["resource_type"] for row in rows_of(found)} == {
        *("machine", "snapshot", "image", "ip_address", "database")
    }


def test_token_expiry_mid_page(cloud: Cloud, open_source: OpenSource, inventory: list[Any]) -> None:
    cloud.break_with(Fault("partial_page", match="/aggregated/instances"))
    cloud.break_with(Fault("token_expiry", match="pageToken"))
    source = open_source()
    assert rows_of(GcpCollector(source).inventory()) == inventory
    assert source.calls.made["oauth2", "token"][0] == 2


def test_requests_that_were_refused_with_one_token_share_the_new_one(open_source: OpenSource) -> None:
    source = open_source()
    access = Access(source)
    refused = access.headers()["Authorization"]
    first, second = access.headers(refused), access.headers(refused)
    assert first == second != {"Authorization": refused}
    assert source.calls.made["oauth2", "token"][0] == 2


def test_no_token_because_google_is_out_of_order_is_transient(cloud: Cloud, open_source: OpenSource) -> None:
    cloud.break_with(Fault("reset", times=20, match="/token"))
    with pytest.raises(CollectionError) as silent:
        GcpCollector(open_source()).inventory()
    assert silent.value.kind == "transient"


def test_partial_page_failure_keeps_what_came_and_says_what_did_not(
    cloud: Cloud, open_source: OpenSource, inventory: list[Any]
) -> None:
    cloud.break_with(Fault("partial_page", match="/aggregated/instances"))
    cloud.break_with(Fault("status", 503, times=9, match="pageToken"))
    found = GcpCollector(replace(open_source(), attempts=1)).inventory()
    assert [(error.kind, "instances.aggregatedList" in str(error)) for error in found.failures] == [("transient", True)]
    machines = [row["name"] for row in rows_of(found) if row["resource_type"] == "machine"]
    assert machines == [next(row["name"] for row in inventory if row["resource_type"] == "machine")]
    assert len(rows_of(found)) == len(inventory) - 5, "the six machines but one are missing, nothing else is"
