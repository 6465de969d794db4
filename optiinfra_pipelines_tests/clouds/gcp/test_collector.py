"""Google Cloud collected from the sandbox, held against the facts of its fleet."""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC
from decimal import Decimal

import pytest

from optiinfra_pipelines.clouds.collecting import Calls, naive_utc
from optiinfra_pipelines.clouds.gcp.client import Access, open_cloud
from optiinfra_pipelines.clouds.gcp.collector import GcpCollector
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.sandbox.fleet import Resource, window_starts
from optiinfra_pipelines.sandbox.gate import Fault
from optiinfra_pipelines.sandbox.gcp_server import environment, shown_resources, shown_series
from optiinfra_pipelines.tables.cloud import INVENTORY, METRICS
from optiinfra_pipelines_tests.clouds.gcp.conftest import FLEET, SPAN, OpenSource
from optiinfra_pipelines_tests.clouds.sandbox_cloud import Cloud, rows_of


@pytest.mark.parametrize("customer", FLEET.customers)
def test_inventory_equals_the_fleet_field_by_field(open_source: OpenSource, customer: str) -> None:
    found = GcpCollector(open_source(customer)).inventory()
    assert found.failures == []
    rows = {row["resource_id"]: row for row in rows_of(found)}
    resources = shown_resources(FLEET, customer)
    assert sorted(rows) == sorted(each.resource_id for each in resources)
    for resource in resources:
        row = rows[resource.resource_id]
        assert {name: row[name] for name in _facts(resource)} == _facts(resource)


def _facts(resource: Resource) -> dict[str, object]:
    shape, kind = resource.shape, resource.resource_type
    facts: dict[str, object] = {
        "account_id": resource.account_id,
        "resource_type": kind,
        "name": resource.name,
        "state": resource.state,
        "region": resource.region,
        "storage_gib": resource.storage_gib,
        "attached_to": resource.attached_to,
        "created_at": naive_utc(resource.created_at),
        "tags": resource.tags_json,
        "vcpus": shape.vcpus if shape else None,
        "memory_gib": shape.memory_gib if shape else None,
        "gpu_model": shape.gpu_model if shape else None,
        "gpu_count": (shape.gpu_count or None) if shape else None,
        "hourly_price": None,
    }
    if shape:
        facts["native_type"] = shape.native_type
    if kind in ("machine", "volume", "database"):
        facts["zone"] = resource.zone
    return facts


def test_details_tell_what_guards_a_resource_against_clean_up(open_source: OpenSource) -> None:
    rows = {row["name"]: row for row in rows_of(GcpCollector(open_source()).inventory())}
    details = {name: json.loads(row["details"]) for name, row in rows.items()}
    assert details["api-2"]["autoscaling_group"] == "api"
    assert details["replica-disk"]["replica_of"].endswith("/disks/orders-primary")
    assert details["golden-base"]["used_by_images"] == [rows["golden"]["resource_id"]]
    assert "used_by_images" not in details["nightly-2025"]
    assert details["api-1"]["public_ips"] == [details["ip-203-0-113-10"]["address"]] == ["203.0.113.10"]


@pytest.mark.parametrize("customer", FLEET.customers)
def test_metrics_equal_the_true_values_window_by_window(open_source: OpenSource, customer: str) -> None:
    collector = GcpCollector(open_source(customer))
    found = collector.metrics(rows_of(collector.inventory()), SPAN)
    assert found.failures == []
    assert {table.schema for table in found.tables} == {found.tables[0].schema}, (
        "every table of one collection has the contract's columns"
    )
    rows = rows_of(found)
    key = ("resource_type", "resource_id", "metric_name", "component", "statistic", "window_start")
    measured = {tuple(row[name] for name in key): row["value"] for row in rows}
    assert len(measured) == len(rows)
    true = {
        (each.resource.resource_type, each.resource.resource_id, each.metric, each.component, each.statistic,
         naive_utc(start)): value
        for each in shown_series(FLEET, customer)
        for start in window_starts(*SPAN)
        if (value := each.value(start)) is not None
    }  # fmt: skip
    assert measured.keys() == true.keys()
    assert all(measured[each] == pytest.approx(value, rel=1e-9) for each, value in true.items())
    assert {row["window_seconds"] for row in rows} == {900}
    assert {row["account_id"] for row in rows if row["resource_type"] != "model"} == {rows[0]["account_id"]}


def test_metrics_take_one_request_a_metric_type_and_statistic(cloud: Cloud, open_source: OpenSource) -> None:
    collector = GcpCollector(open_source())
    inventory = rows_of(collector.inventory())
    cloud.heal()
    collector.metrics(inventory, SPAN)
    path = f"GET /v3/projects/{inventory[0]['account_id']}/timeSeries"
    assert cloud.requests == {path: 25}  # 8 gauges by mean and maximum, 9 counters; the token is still good
    cloud.heal()
    idle = [row for row in inventory if row["resource_type"] == "snapshot"]
    collector.metrics(idle, SPAN)
    assert cloud.requests == {path: 3}  # models alone, which no inventory lists


def test_a_metric_that_nothing_ever_wrote_is_no_failure_and_an_unknown_project_is(open_source: OpenSource) -> None:
    source = open_source()
    endpoints = 'metric.type = "aiplatform.googleapis.com/prediction/online/prediction_count"'
    with open_cloud(source, Access(source)) as google:
        pages = google.series(source.connection.accounts[0], endpoints, "ALIGN_DELTA", SPAN, 900, 0)
        with pytest.raises(CollectionError) as unknown:
            next(pages)
    assert unknown.value.kind == "not_configured"  # as it is for every customer of the sandbox; and yet
    assert GcpCollector(source).metrics([], SPAN).failures == []
    with pytest.raises(CollectionError):
        GcpCollector(open_source(accounts=["no-such-project"])).metrics([], SPAN)


def test_calls_are_accounted_for_with_the_price_of_the_series_that_they_return(open_source: OpenSource) -> None:
    source = open_source()
    collector = GcpCollector(source)
    collector.metrics(rows_of(collector.inventory()), SPAN)
    calls, series, price = source.calls.made["monitoring", "timeSeries.list"]
    assert (calls, price) == (25, series * Decimal("0.0000005"))
    assert source.calls.made["oauth2", "token"][0] == 1


def test_a_spent_budget_stops_paid_calls_and_says_so(open_source: OpenSource) -> None:
    source = open_source()
    inventory = rows_of(GcpCollector(source).inventory())
    found = GcpCollector(replace(source, calls=Calls(left=Decimal(0), budget=Decimal(1)))).metrics(inventory, SPAN)
    assert {error.kind for error in found.failures} == {"budget"}
    assert "api_budget_usd" in str(found.failures[0])
    assert found.row_count == 0


def test_a_budget_that_ends_on_the_way_keeps_what_was_paid_for_and_is_told_first(
    cloud: Cloud, open_source: OpenSource
) -> None:
    source = open_source()
    inventory = rows_of(GcpCollector(source).inventory())
    whole = rows_of(GcpCollector(source).metrics(inventory, SPAN))
    cloud.break_with(Fault("status", 403, match="network%2Freceived_bytes_count"))
    half = source.calls.made["monitoring", "timeSeries.list"][2] / 2
    poor = replace(source, calls=Calls(left=half, budget=Decimal(1)))
    found = GcpCollector(poor).metrics(inventory, SPAN)
    assert found.failures[0].kind == "budget"
    assert {error.kind for error in found.failures} == {"budget", "auth"}
    rows = rows_of(found)
    assert 0 < len(rows) < len(whole)
    assert all(row in whole for row in rows)


def test_what_came_before_an_answer_broke_off_is_kept_but_for_sums_that_lack_a_part(
    cloud: Cloud, open_source: OpenSource
) -> None:
    collector = GcpCollector(open_source())
    inventory = rows_of(collector.inventory())
    whole = rows_of(collector.metrics(inventory, SPAN))
    for metric in ("instance%2Fcpu%2Futilization", "disk%2Fread_bytes_count"):
        cloud.break_with(Fault("partial_page", match=metric))
        cloud.break_with(Fault("status", 403, match=metric))  # the second page, or the other statistic
    found = collector.metrics(inventory, SPAN)
    assert [error.kind for error in found.failures] == ["auth", "auth"]
    rows = rows_of(found)
    assert all(row in whole for row in rows)
    kept = Counter(row["metric_name"] for row in rows if row["resource_type"] == "machine")
    assert kept["cpu_utilization"] == 1
    assert kept["disk_read_bytes"] == 0


def test_what_stopped_since_has_the_metrics_of_the_time_it_ran(open_source: OpenSource) -> None:
    collector = GcpCollector(open_source())
    inventory = rows_of(collector.inventory())
    kinds = ("machine", "database")
    later = [row | {"state": "stopped"} if row["resource_type"] in kinds else row for row in inventory]
    found = collector.metrics(later, SPAN)
    assert found.failures == []
    whole = collector.metrics(inventory, SPAN)
    assert sorted(map(repr, rows_of(found))) == sorted(map(repr, rows_of(whole)))


def test_prices_are_exact_and_machine_types_are_the_sum_of_their_parts(open_source: OpenSource) -> None:
    found = GcpCollector(open_source()).prices()
    assert found.failures == []
    rows = rows_of(found)
    prices = {row["native_type"]: row["price"] for row in rows if row["kind"] == "machine"}
    shapes = {each.shape.native_type: each.shape.hourly for each in FLEET.of("acme", "gcp", "machine") if each.shape}
    assert prices == shapes
    tiers = [(row["tier_start"], row["price"]) for row in rows if row["kind"] == "ip_address"]
    assert tiers == [(0, 0), (1, Decimal("0.01"))]
    assert Counter(row["price_type"] for row in rows)["spot"] == 1
    assert {row["region"] for row in rows} == {"us-central1"}


def test_regions_of_the_connection_narrow_what_is_collected(open_source: OpenSource) -> None:
    elsewhere = GcpCollector(open_source(regions=["europe-west4"]))
    rows = rows_of(elsewhere.inventory())
    assert rows == []
    assert elsewhere.prices().row_count == 0


def test_an_unreachable_zone_is_a_failure_that_names_it_and_the_rest_comes(
    cloud: Cloud, open_source: OpenSource
) -> None:
    whole = GcpCollector(open_source()).inventory()
    cloud.break_with(Fault("unreachable_zone", match="/aggregated/instances"))
    found = GcpCollector(open_source()).inventory()
    assert rows_of(found) == rows_of(whole)
    assert [(error.kind, "zones/us-west4-b" in str(error)) for error in found.failures] == [("transient", True)]


def test_credentials_of_one_customer_do_not_reach_another(open_source: OpenSource) -> None:
    with pytest.raises(CollectionError, match="403") as refused:
        GcpCollector(open_source("acme", accounts=["globex-ml-8852"])).inventory()
    assert refused.value.kind == "auth"


def test_a_key_that_google_does_not_know_is_refused_before_anything_is_asked(
    cloud: Cloud, open_source: OpenSource
) -> None:
    key = json.loads(environment(["acme"])["SANDBOX_GCP_KEY_ACME"])
    stranger = json.dumps(key | {"client_email": "someone@else.iam.gserviceaccount.com"})
    with pytest.raises(CollectionError, match="invalid_grant") as refused:
        GcpCollector(open_source(key=stranger)).inventory()
    assert refused.value.kind == "auth"
    assert set(cloud.requests) == {"POST /token"}


def test_a_key_that_is_no_key_is_told_without_showing_it(open_source: OpenSource) -> None:
    for key in ("canary-secret", '{"type": "service_account", "private_key": "canary-secret"}', '["canary-secret"]'):
        with pytest.raises(CollectionError, match="service_account_json") as refused:
            GcpCollector(open_source(key=key)).inventory()
        assert refused.value.kind == "not_configured"
        assert "canary" not in str(refused.value)


def test_rows_fit_the_contracts(open_source: OpenSource) -> None:
    collector = GcpCollector(open_source())
    inventory = collector.inventory()
    metrics = collector.metrics(rows_of(inventory), SPAN)
    for table, found in ((INVENTORY["gcp"], inventory), (METRICS["gcp"], metrics)):
        for rows in found.tables:
            for column in table.columns:
                if column.name in rows.schema.names and not column.nullable:
                    assert rows[column.name].null_count == 0, column.name
    assert SPAN.start.tzinfo is UTC
