"""Each fault either recovers in the run or ends as a recorded failure, and the next collection is whole."""

from typing import Any

import pytest

from optiinfra_pipelines.clouds.azure.collector import AzureCollector
from optiinfra_pipelines.clouds.collecting import Findings
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.sandbox.azure_server import FAULTS
from optiinfra_pipelines.sandbox.gate import Fault
from optiinfra_pipelines_tests.clouds.azure.conftest import SPAN, OpenSource
from optiinfra_pipelines_tests.clouds.sandbox_cloud import Cloud, rows_of

RECOVERING = (
    *("throttled", "server_error_500", "server_error_503", "connection_reset", "timeout", "truncated_json"),
    *("token_expiry", "clock_skew"),
)
MALFORMED = ("partial_page", "endless_cursor", "repeated_page")
NAMES = (*RECOVERING, *MALFORMED, "empty_zone", "permission_denied", "region_not_enabled")


def _sorted(findings: Findings) -> list[str]:
    return sorted(map(repr, rows_of(findings)))


def _fault(name: str) -> Fault:
    fault = FAULTS[name]
    assert fault is not None
    return fault


def test_every_fault_of_the_matrix_is_named() -> None:
    assert tuple(FAULTS) == tuple(sorted(FAULTS, key=list(FAULTS).index))
    assert set(FAULTS) == set(NAMES)


@pytest.mark.parametrize("name", RECOVERING)
def test_inventory_recovers(open_source: OpenSource, cloud: Cloud, name: str) -> None:
    whole = _sorted(AzureCollector(open_source()).inventory())
    cloud.break_with(_fault(name))
    source = open_source()
    findings = AzureCollector(source).inventory()
    assert not findings.failures
    assert _sorted(findings) == whole
    assert source.calls.made["management", "resources"][0] == 2


@pytest.mark.parametrize("name", [name for name in RECOVERING if name != "throttled"])
def test_metrics_recover(open_source: OpenSource, cloud: Cloud, name: str) -> None:
    resources = rows_of(AzureCollector(open_source()).inventory())
    whole = _sorted(AzureCollector(open_source()).metrics(resources, SPAN))
    fault = _fault(name)
    cloud.break_with(fault)
    source = open_source()
    findings = AzureCollector(source).metrics(resources, SPAN)
    assert not findings.failures
    assert _sorted(findings) == whole
    assert source.calls.made["metrics", "getBatch"][0] == 4


@pytest.mark.parametrize("name", MALFORMED)
def test_wrong_pages_end_as_a_failure_and_the_next_collection_is_whole(
    open_source: OpenSource, cloud: Cloud, name: str
) -> None:
    whole = _sorted(AzureCollector(open_source()).inventory())
    cloud.break_with(_fault(name))
    with pytest.raises(CollectionError) as failed:
        AzureCollector(open_source()).inventory()
    assert failed.value.kind == "malformed"
    cloud.heal()
    assert _sorted(AzureCollector(open_source()).inventory()) == whole


def test_logs_denied_are_one_part_and_platform_metrics_come(open_source: OpenSource, cloud: Cloud) -> None:
    resources = rows_of(AzureCollector(open_source()).inventory())
    cloud.break_with(_fault("permission_denied"))
    findings = AzureCollector(open_source()).metrics(resources, SPAN)
    assert [error.kind for error in findings.failures] == ["auth"]
    assert {row["source"] for row in rows_of(findings)} == {"azure_monitor:getBatch"}


@pytest.mark.parametrize("match", ["Microsoft.Compute/skus", "GET /management/subscriptions"])
def test_sizes_or_dates_denied_leave_the_rows_without_them(open_source: OpenSource, cloud: Cloud, match: str) -> None:
    whole = AzureCollector(open_source()).inventory().row_count
    cloud.break_with(Fault("status", 403, match=match))
    findings = AzureCollector(open_source()).inventory()
    assert [error.kind for error in findings.failures] == ["auth"]
    assert findings.row_count == whole


def test_everything_denied_raises(open_source: OpenSource, cloud: Cloud) -> None:
    cloud.break_with(Fault("status", 403, match="POST /m"))
    with pytest.raises(CollectionError) as refused:
        AzureCollector(open_source()).inventory()
    assert refused.value.kind == "auth"


def test_of_azures_three_headers_the_longest_wait_counts(open_source: OpenSource, cloud: Cloud) -> None:
    name = "x-ms-ratelimit-microsoft.costmanagement-"
    headers: dict[str, Any] = {f"{name}qpu-retry-after": "1", f"{name}entity-retry-after": "600", "Retry-After": "2"}
    cloud.break_with(Fault("status", 429, match="ResourceGraph", headers=headers))
    with pytest.raises(CollectionError, match="asks to wait 600 s") as throttled:
        AzureCollector(open_source()).inventory()
    assert throttled.value.kind == "throttled"


def test_a_login_that_fails_once_is_asked_again(open_source: OpenSource, cloud: Cloud) -> None:
    cloud.break_with(Fault("status", 503, match="/login/"))
    assert not AzureCollector(open_source()).inventory().failures


def test_no_agent_ever_reported_is_no_failure(open_source: OpenSource, cloud: Cloud) -> None:
    resources = rows_of(AzureCollector(open_source()).inventory())
    cloud.break_with(Fault("no_tables", match="POST /logs/"))
    findings = AzureCollector(open_source()).metrics(resources, SPAN)
    assert not findings.failures
    assert {row["source"] for row in rows_of(findings)} == {"azure_monitor:getBatch"}
