"""The collector against the sandbox's AWS: what the fleet is, all of it and nothing else."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from optiinfra_pipelines.clouds.aws.client import open_accounts
from optiinfra_pipelines.clouds.aws.collector import AwsCollector
from optiinfra_pipelines.clouds.collecting import Calls, Findings, collected_schema, naive_utc
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.sandbox.aws_server import FAULTS, shown_resources, shown_series
from optiinfra_pipelines.sandbox.fleet import account_of, window_starts
from optiinfra_pipelines.sandbox.gate import FAULTS_PATH, Fault
from optiinfra_pipelines.tables.cloud import INVENTORY, METRICS, PRICES
from optiinfra_pipelines.windows import Window
from optiinfra_pipelines_tests.clouds.aws.conftest import FLEET, SPAN, Open

RECOVERED = (
    *("throttled", "server_error_500", "server_error_503", "connection_reset", "timeout", "truncated_json"),
    "token_expiry",
)
RECORDED = {
    "endless_cursor": ("malformed", "rds"),
    "repeated_page": ("malformed", "rds"),
    "permission_denied": ("auth", "rds"),
    "clock_skew": ("auth", "rds"),
    "region_not_enabled": ("auth", "ap-east-1"),
}


def _rows(findings: Findings) -> list[dict[str, Any]]:
    return [row for table in findings.tables for row in table.to_pylist()]


def _values(findings: Findings) -> dict[tuple[Any, ...], float]:
    rows = _rows(findings)
    names = ("resource_type", "resource_id", "metric_name", "component", "statistic", "window_start")
    found = {tuple(row[name] for name in names): row["value"] for row in rows}
    assert len(found) == len(rows), "no point comes twice"
    return found


def _true_values(customer: str, span: Window) -> dict[tuple[Any, ...], float]:
    return {
        (
            *(each.resource.resource_type, each.resource.resource_id, each.metric, each.component, each.statistic),
            naive_utc(start),
        ): value
        for each in shown_series(FLEET, customer)
        for start in window_starts(*span)
        if (value := each.value(start)) is not None
    }


@pytest.mark.parametrize("customer", ["acme", "globex"])
def test_inventory_is_the_fleet_field_by_field(open_source: Open, customer: str) -> None:
    findings = AwsCollector(open_source(customer)).inventory()
    assert findings.failures == []
    assert all(table.schema == collected_schema(INVENTORY["aws"]) for table in findings.tables)
    found = {row["resource_id"]: row for row in _rows(findings)}
    shown = shown_resources(FLEET, customer)
    assert set(found) == {each.resource_id for each in shown}
    for each in shown:
        row, shape = found[each.resource_id], each.shape
        for name in ("account_id", "resource_type", "name", "native_type", "state", "region", "attached_to"):
            assert row[name] == getattr(each, name), (each.name, name)
        assert row["tags"] == each.tags_json
        assert row["storage_gib"] == each.storage_gib
        told = each.resource_type not in ("ip_address", "function")
        assert row["created_at"] == (naive_utc(each.created_at) if told else None)
        if shape is not None:
            assert (row["vcpus"], row["memory_gib"], row["gpu_model"]) == (
                *(shape.vcpus, shape.memory_gib),
                shape.gpu_model,
            )
            assert (row["gpu_count"] or 0) == shape.gpu_count


@pytest.mark.parametrize("customer", ["acme", "globex"])
def test_metrics_are_exactly_the_series_that_cloudwatch_shows(open_source: Open, customer: str) -> None:
    inventory = _rows(AwsCollector(open_source(customer)).inventory())
    findings = AwsCollector(open_source(customer)).metrics(inventory, SPAN)
    assert findings.failures == []
    assert all(table.schema == collected_schema(METRICS["aws"]) for table in findings.tables)
    found, true = _values(findings), _true_values(customer, SPAN)
    assert set(found) == set(true)
    assert found == {key: pytest.approx(value, rel=1e-9) for key, value in true.items()}


def test_points_come_oldest_first_and_an_absent_point_is_no_row(open_source: Open) -> None:
    inventory = _rows(AwsCollector(open_source()).inventory())
    young = next(each for each in FLEET.of("acme", "aws", "machine") if each.guard == "young")
    before = Window(young.created_at.replace(hour=8, minute=0), young.created_at.replace(hour=10, minute=0))
    found = _values(AwsCollector(open_source()).metrics(inventory, before))
    starts = [
        key[-1] for key in found if key[1] == young.resource_id and key[2:5] == ("cpu_utilization", "", "average")
    ]
    assert starts == sorted(starts)
    assert starts == [naive_utc(before.start + timedelta(minutes=each)) for each in (75, 90, 105)]


def test_a_tick_asks_once_for_all_that_fits_one_request(open_source: Open) -> None:
    inventory = _rows(AwsCollector(open_source()).inventory())
    source = open_source()
    AwsCollector(source).metrics(inventory, SPAN)
    made = {name: calls for name, (calls, _, _) in source.calls.made.items()}
    assert made == {
        ("sts", "AssumeRole"): 1,
        ("ec2", "DescribeRegions"): 1,
        ("cloudwatch", "ListMetrics"): 3,
        ("cloudwatch", "GetMetricData"): 1,
    }
    series = len({key[:-1] for key in _true_values("acme", SPAN)}) + 8  # those of the stopped machine have no points
    assert source.calls.made["cloudwatch", "GetMetricData"][1:] == (series, series * Decimal("0.00001"))


def test_a_spent_budget_stops_the_paid_call_before_it_is_sent(open_source: Open) -> None:
    inventory = _rows(AwsCollector(open_source()).inventory())
    source = open_source(calls=Calls(Decimal("0.0001"), Decimal(5)))
    findings = AwsCollector(source).metrics(inventory, SPAN)
    [stopped] = findings.failures
    assert stopped.kind == "budget"
    assert "GetMetricData would cost" in str(stopped)
    assert findings.row_count == 0
    assert ("cloudwatch", "GetMetricData") not in source.calls.made


def test_a_budget_that_ends_on_the_way_keeps_what_was_paid_for_and_is_told_first(
    open_source: Open, switch_on: Callable[[Fault], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory = _rows(AwsCollector(open_source()).inventory())
    monkeypatch.setattr("optiinfra_pipelines.clouds.aws.series.QUERIES_PER_REQUEST", 20)
    partial = FAULTS["partial_page"]
    assert partial is not None
    switch_on(partial)
    source = open_source(calls=Calls(Decimal("0.0002"), Decimal(5)))  # one request of 20 series, which comes in part
    findings = AwsCollector(source).metrics(inventory, SPAN)
    assert source.calls.made["cloudwatch", "GetMetricData"] == (1, 20, Decimal("0.0002"))
    assert {error.kind for error in findings.failures[:-1]} == {"budget"}
    assert findings.failures[-1].kind == "transient"
    found, true = _values(findings), _true_values("acme", SPAN)
    assert found
    assert found == {key: pytest.approx(true[key], rel=1e-9) for key in found}


def test_what_stopped_since_has_the_metrics_of_the_time_it_ran(open_source: Open) -> None:
    inventory = _rows(AwsCollector(open_source()).inventory())
    kinds = ("machine", "database")
    later = [{**row, "state": "stopped"} if row["resource_type"] in kinds else row for row in inventory]
    findings = AwsCollector(open_source()).metrics(later, SPAN)
    assert findings.failures == []
    assert set(_values(findings)) == set(_true_values("acme", SPAN))


def test_prices_are_those_of_the_shapes(open_source: Open) -> None:
    findings = AwsCollector(open_source()).prices()
    assert findings.failures == []
    assert all(table.schema == collected_schema(PRICES["aws"]) for table in findings.tables)
    found = {row["native_type"]: row for row in _rows(findings)}
    for each in FLEET.of("acme", "aws", "machine", "database"):
        assert each.shape is not None
        row = found[each.shape.native_type]
        assert (row["price"], row["currency"], row["unit"]) == (each.shape.hourly, "USD", "hour")
        assert (row["vcpus"], row["memory_gib"]) == (each.shape.vcpus, each.shape.memory_gib)
        assert (row["gpu_model"], row["gpu_count"] or 0) == (each.shape.gpu_model, each.shape.gpu_count)
    assert {row["kind"] for row in found.values()} == {"machine", "volume", "snapshot", "ip_address", "database"}


def test_a_public_snapshot_that_self_did_not_filter_is_none_of_ours(open_source: Open) -> None:
    rows = _rows(AwsCollector(open_source()).inventory())
    assert "snap-0f0f0f0f0f0f0f0f0" not in {row["resource_id"] for row in rows}


def test_what_guards_a_resource_stands_in_its_details(open_source: Open) -> None:
    found = {row["name"]: json.loads(row["details"]) for row in _rows(AwsCollector(open_source()).inventory())}
    image = next(each for each in FLEET.of("acme", "aws", "image"))
    assert found["golden-base"]["used_by_images"] == [image.resource_id]
    assert found["api-2"]["autoscaling_group"] == "api"


@pytest.mark.parametrize("name", RECOVERED)
def test_a_passing_fault_leaves_no_trace(open_source: Open, switch_on: Callable[[Fault], None], name: str) -> None:
    whole = AwsCollector(open_source()).inventory()
    fault = FAULTS[name]
    assert fault is not None
    switch_on(fault)
    findings = AwsCollector(open_source(timeout=0.5 if name == "timeout" else 5)).inventory()
    assert findings.failures == []
    assert _rows(findings) == _rows(whole)


@pytest.mark.parametrize("name", RECORDED)
def test_a_lasting_fault_is_a_recorded_failure_of_one_part(
    open_source: Open, switch_on: Callable[[Fault], None], aws_url: str, name: str
) -> None:
    whole = _rows(AwsCollector(open_source()).inventory())
    fault, (kind, part) = FAULTS[name], RECORDED[name]
    assert fault is not None
    switch_on(fault)
    findings = AwsCollector(open_source()).inventory()
    assert {each.kind for each in findings.failures} == {kind}
    assert all(part in str(each) and "account 111122223333" in str(each) for each in findings.failures)
    rest = [row for row in _rows(findings) if row["resource_type"] != "database"]
    assert rest == [row for row in whole if row["resource_type"] != "database"]
    httpx.delete(aws_url + FAULTS_PATH)
    assert _rows(AwsCollector(open_source()).inventory()) == whole


def test_partial_data_is_kept_and_recorded_so_that_it_is_asked_again(
    open_source: Open, switch_on: Callable[[Fault], None]
) -> None:
    inventory = _rows(AwsCollector(open_source()).inventory())
    fault = FAULTS["partial_page"]
    assert fault is not None
    switch_on(fault)
    findings = AwsCollector(open_source()).metrics(inventory, SPAN)
    [failure] = findings.failures
    assert failure.kind == "transient"
    assert "PartialData" in str(failure)
    assert 0 < findings.row_count < len(_true_values("acme", SPAN))
    assert AwsCollector(open_source()).metrics(inventory, SPAN).row_count == len(_true_values("acme", SPAN))


def test_a_region_that_is_not_opted_into_fails_alone(open_source: Open) -> None:
    findings = AwsCollector(open_source(regions=["us-east-1", "ap-east-1"])).inventory()
    assert findings.row_count == len(shown_resources(FLEET, "acme"))
    assert {each.kind for each in findings.failures} == {"auth"}
    assert all("ap-east-1" in str(each) for each in findings.failures)


def test_an_account_that_cannot_be_entered_fails_alone(open_source: Open) -> None:
    accounts = [account_of("acme", "aws"), account_of("globex", "aws")]
    findings = AwsCollector(open_source(accounts=accounts)).inventory()
    assert findings.row_count == len(shown_resources(FLEET, "acme"))
    [failure] = findings.failures
    assert failure.kind == "auth"
    assert "AssumeRole" in str(failure)


def test_keys_without_a_role_reach_their_own_account(open_source: Open) -> None:
    findings = AwsCollector(open_source(accounts=[], assume_role=None)).inventory()
    assert {row["account_id"] for row in _rows(findings)} == {account_of("acme", "aws")}


@pytest.mark.parametrize("field", ["access_key_id", "secret_access_key"])
def test_wrong_keys_are_refused_and_never_shown(open_source: Open, field: str) -> None:
    with pytest.raises(CollectionError) as refused:
        AwsCollector(open_source(secrets={field: "canary-wrong-key"})).inventory()
    assert refused.value.kind == "auth"
    assert "canary" not in str(refused.value)


def test_a_token_that_ends_under_two_requests_at_once_is_renewed_once_for_both(
    open_source: Open, switch_on: Callable[[Fault], None]
) -> None:
    source = open_source()
    [account] = open_accounts(source, Findings())
    switch_on(Fault("expired", times=2, match="/ec2", seconds=0.5))  # the second is refused before keys are new
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(account.ask, "ec2", "us-east-1", "DescribeVolumes") for _ in range(2)]
        assert len([each.result()["Volumes"] for each in asked]) == 2
    assert source.calls.made["sts", "AssumeRole"][0] == 2


def test_a_service_that_calls_every_token_expired_is_asked_no_more_than_twice(
    open_source: Open, switch_on: Callable[[Fault], None]
) -> None:
    source = open_source()
    [account] = open_accounts(source, Findings())
    switch_on(Fault("expired", times=1000, match="/ec2"))
    with pytest.raises(CollectionError, match="ExpiredToken") as refused:
        account.ask("ec2", "us-east-1", "DescribeVolumes")
    assert refused.value.kind == "auth"
    assert source.calls.made["ec2", "DescribeVolumes"][0] == 2
    assert source.calls.made["sts", "AssumeRole"][0] == 2


ROLE = "arn:aws:iam::{account}:role/optiinfra-reader"
ACME, GLOBEX = account_of("acme", "aws"), account_of("globex", "aws")


@pytest.mark.parametrize(
    ("accounts", "role", "why"),
    [
        ([ACME, GLOBEX], ROLE.replace("{account}", ACME), "one role for several accounts"),
        ([GLOBEX], ROLE.replace("{account}", ACME), f"another account than {GLOBEX}"),
        ([ACME], ROLE.replace("{account}", "{acct}"), "no other placeholder"),
        ([ACME], ROLE + "{0}", "no other placeholder"),
        ([GLOBEX], None, f"its credentials are of account {ACME}"),
        ([ACME, GLOBEX], None, "set assume_role"),
    ],
)
def test_a_role_or_keys_of_another_account_than_is_named_are_refused(
    open_source: Open, accounts: list[str], role: str | None, why: str
) -> None:
    with pytest.raises(CollectionError, match=why) as refused:
        AwsCollector(open_source(accounts=accounts, assume_role=role)).inventory()
    assert refused.value.kind == "not_configured"


@pytest.mark.parametrize(
    ("accounts", "role"),
    [
        ([ACME], None),
        ([ACME], ROLE.replace("{account}", ACME)),
        ([ACME, ACME], ROLE),
        ([], ROLE),
        ([], ROLE.replace("{account}", ACME)),
    ],
)
def test_every_way_to_name_the_account_collects_it_once(
    open_source: Open, accounts: list[str], role: str | None
) -> None:
    findings = AwsCollector(open_source(accounts=accounts, assume_role=role)).inventory()
    assert findings.failures == []
    assert findings.row_count == len(shown_resources(FLEET, "acme"))
    assert {row["account_id"] for row in _rows(findings)} == {ACME}


def test_a_credential_that_fits_no_header_is_not_shown(open_source: Open) -> None:
    source = open_source(secrets={"session_token": "canary\nsession"})
    with pytest.raises(CollectionError, match="HTTPClientError") as refused:
        AwsCollector(source).inventory()
    assert "canary" not in str(refused.value)


def test_half_an_answer_with_a_roles_keys_is_not_shown(open_source: Open, switch_on: Callable[[Fault], None]) -> None:
    switch_on(Fault("cut", times=100, match="/sts"))
    with pytest.raises(CollectionError, match=r"AssumeRole .* the answer is not whole") as refused:
        AwsCollector(open_source()).inventory()
    assert "canary" not in str(refused.value)
    assert "Secret" not in str(refused.value)
