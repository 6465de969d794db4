"""What a Prometheus tells of the fleet's machines is what the fleet did, of any cloud, to the last window."""

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import isclose
from typing import Any

import pytest
from pydantic import SecretStr

from optiinfra_pipelines.clouds.collecting import Findings, Source, naive_utc
from optiinfra_pipelines.clouds.prometheus.client import prometheus_metrics
from optiinfra_pipelines.customers import Connection
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.sandbox import prometheus_server
from optiinfra_pipelines.sandbox.fleet import FLEET_CLOUDS, FleetCloud, window_starts
from optiinfra_pipelines.sandbox.gate import Fault
from optiinfra_pipelines.sandbox.prometheus_server import FAULTS, shown_series
from optiinfra_pipelines.sandbox.vultr_wire import private_ip
from optiinfra_pipelines.tables.cloud import METRICS
from optiinfra_pipelines.windows import DAY, WINDOW, Window
from optiinfra_pipelines_tests.clouds.vultr.sandbox import FLEET, TODAY, rows_of, switched_on

NOON = datetime(TODAY.year, TODAY.month, TODAY.day, 12, tzinfo=UTC) - DAY
SPAN = Window(NOON, NOON + 4 * WINDOW)
RECOVERED = ("throttled", "server_error_500", "server_error_503", "connection_reset", "timeout", "truncated_json")
RECORDED = {"partial_page": "transient", "permission_denied": "auth"}


def open_source(
    url: str,
    customer: str = "acme",
    cloud: FleetCloud = "vultr",
    secrets: Mapping[str, str] | None = None,
    timeout: float = 5,
    **changed: str,
) -> Source:
    """A connection of the cloud that is measured by the sandbox's Prometheus."""
    entry = {
        "id": f"{cloud}-api",
        "provider": cloud,
        "collect": ["metrics"],
        "prometheus": prometheus_server.prometheus(customer, url, cloud) | changed,
        "credentials": prometheus_server.credentials(customer),
    }
    token = prometheus_server.environment([customer])[prometheus_server.credentials(customer)["prometheus_token"]]
    given = {"prometheus_token": token} if secrets is None else secrets
    secret = {name: SecretStr(value) for name, value in given.items()}
    return Source(customer, Connection.model_validate(entry), secret, timeout=timeout)


def inventory(customer: str = "acme", cloud: FleetCloud = "vultr") -> list[dict[str, Any]]:
    """The machines as raw inventory has them."""
    return [
        {
            "account_id": each.account_id,
            "resource_id": each.resource_id,
            "resource_type": "machine",
            "name": each.name,
            "details": json.dumps({"private_ips": [private_ip(each)] if cloud == "vultr" else []}),
        }
        for each in FLEET.of(customer, cloud, "machine")
    ]


def collected(source: Source, resources: Sequence[Mapping[str, Any]], span: Window = SPAN) -> Findings:
    """What the connection's Prometheus tells."""
    return prometheus_metrics(source, METRICS[source.connection.provider], resources, span)  # type: ignore[index]


def key_values(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], float]:
    names = ("account_id", "resource_id", "metric_name", "component", "statistic", "window_start")
    found = {tuple(row[name] for name in names): row["value"] for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.parametrize("cloud", FLEET_CLOUDS)
@pytest.mark.parametrize("customer", ["acme", "globex"])
def test_every_window_of_every_series_is_there_and_true(prometheus_url: str, customer: str, cloud: FleetCloud) -> None:
    source = open_source(prometheus_url, customer, cloud)
    findings = collected(source, inventory(customer, cloud))
    expected = {
        (*owner, each.metric, each.component, each.statistic, naive_utc(at)): value
        for each in shown_series(FLEET, customer, cloud)
        for owner in [(each.resource.account_id, each.resource.resource_id)]
        for at in window_starts(*SPAN)
        if (value := each.value(at)) is not None
    }
    found = key_values(rows_of(findings))
    assert findings.failures == []
    assert found.keys() == expected.keys()
    assert all(isclose(found[key], expected[key], rel_tol=1e-9) for key in expected)
    assert source.calls.made[("prometheus", "query_range")][0] == 3


def test_an_idle_llm_server_has_no_time_to_first_token(prometheus_url: str) -> None:
    rows = rows_of(collected(open_source(prometheus_url), inventory()))
    idle = {each.resource_id for each in FLEET.of("acme", "vultr", "machine") if each.profile == "idle"}
    first = {row["resource_id"] for row in rows if row["metric_name"] == "time_to_first_token_seconds"}
    assert first
    assert not first & idle
    assert idle <= {row["resource_id"] for row in rows if row["metric_name"] == "requests_running"}


def test_a_server_that_two_connections_share_gives_each_its_own_machines_and_a_warning_counts_the_others(
    prometheus_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = key_values(rows_of(collected(open_source(prometheus_url), inventory())))
    machines = inventory()
    assert caplog.records == []
    with caplog.at_level(logging.WARNING, "optiinfra_pipelines"):
        ours, others = (
            key_values(rows_of(collected(open_source(prometheus_url), part))) for part in (machines[:2], machines[2:])
        )
    assert {resource_id for _, resource_id, *_ in ours} == {each["resource_id"] for each in machines[:2]}
    assert not ours.keys() & others.keys()
    assert ours | others == whole
    first, second = (record.getMessage() for record in caplog.records)
    measured = {resource_id for _, resource_id, *_ in whole}
    assert f"acme/vultr-api: prometheus measures {len(measured) - 2} hosts" in first
    assert "prometheus measures 2 hosts" in second


def test_without_an_inventory_nothing_is_written_and_the_warning_says_what_to_check(
    prometheus_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert collected(open_source(prometheus_url), []).row_count == 0
    assert "check prometheus.resource_label and that inventory is collected" in caplog.text


def test_two_days_and_a_half_are_asked_by_day_and_have_no_gap(prometheus_url: str) -> None:
    source = open_source(prometheus_url)
    span = Window(NOON - 2 * DAY, NOON + timedelta(hours=12))
    rows = [row for row in rows_of(collected(source, inventory(), span)) if row["metric_name"] == "cpu_utilization"]
    machine = next(each for each in FLEET.of("acme", "vultr", "machine") if each.name == "api-1")
    starts = sorted(
        row["window_start"]
        for row in rows
        if (row["resource_id"], row["statistic"]) == (machine.resource_id, "average")
    )
    assert starts == [naive_utc(at) for at in window_starts(*span)]
    assert source.calls.made[("prometheus", "query_range")][0] == 3 * 3


def test_a_user_and_password_are_accepted_as_well_as_a_token(prometheus_url: str) -> None:
    pair = {"prometheus_username": "acme", "prometheus_password": "canary-prometheus-acme-token"}
    assert collected(open_source(prometheus_url, secrets=pair), inventory()).row_count > 0


def test_a_server_that_refuses_altogether_is_an_auth_error_without_the_secret(prometheus_url: str) -> None:
    with pytest.raises(CollectionError, match="401") as refused:
        collected(open_source(prometheus_url, secrets={"prometheus_token": "canary-wrong"}), inventory())
    assert refused.value.kind == "auth"
    assert "canary" not in str(refused.value)


def test_a_resource_label_that_nothing_has_brings_no_rows(prometheus_url: str) -> None:
    findings = collected(open_source(prometheus_url, resource_label="hostname"), inventory())
    assert (findings.row_count, findings.failures) == (0, [])


def test_every_fault_that_a_prometheus_can_have_is_tried() -> None:
    assert {name for name, fault in FAULTS.items() if fault is not None} == {*RECOVERED, *RECORDED}


@pytest.mark.parametrize("name", RECOVERED)
def test_a_passing_fault_leaves_no_trace(prometheus_url: str, name: str) -> None:
    fault = FAULTS[name]
    assert fault is not None
    usual = collected(open_source(prometheus_url), inventory())
    with switched_on(prometheus_url, fault):
        findings = collected(open_source(prometheus_url, timeout=0.5), inventory())
    assert findings.failures == []
    assert rows_of(findings) == rows_of(usual)


@pytest.mark.parametrize("name", RECORDED)
def test_a_lasting_fault_is_one_failure_and_the_next_run_is_whole(prometheus_url: str, name: str) -> None:
    fault = FAULTS[name]
    assert fault is not None
    with switched_on(prometheus_url, fault):
        findings = collected(open_source(prometheus_url), inventory())
    following = collected(open_source(prometheus_url), inventory())
    assert [failure.kind for failure in findings.failures] == [RECORDED[name]]
    assert following.failures == []
    whole, part = key_values(rows_of(following)), key_values(rows_of(findings))
    assert 0 < len(part) < len(whole)
    assert part.items() <= whole.items()


def test_a_refused_expression_is_malformed_and_says_why(prometheus_url: str) -> None:
    with switched_on(prometheus_url, Fault(status=400, times=3)):
        findings = collected(open_source(prometheus_url), inventory())
    assert [failure.kind for failure in findings.failures] == ["malformed"] * 3
