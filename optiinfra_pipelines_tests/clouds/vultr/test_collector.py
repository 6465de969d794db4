"""What is collected from the sandbox's Vultr is what the fleet is, to the field and to the byte."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import isclose
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from optiinfra_pipelines.clouds.collecting import Source, naive_utc
from optiinfra_pipelines.clouds.vultr.client import VultrApi
from optiinfra_pipelines.clouds.vultr.collector import VultrCollector
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.sandbox.fleet import Resource
from optiinfra_pipelines.sandbox.gate import Fault
from optiinfra_pipelines.sandbox.vultr_server import daily_series, day_value, shown_resources
from optiinfra_pipelines.windows import DAY, WINDOW, Window
from optiinfra_pipelines_tests.clouds.vultr.sandbox import FLEET, TODAY, open_source, rows_of, switched_on

MIDNIGHT = datetime(TODAY.year, TODAY.month, TODAY.day, tzinfo=UTC)


def planted(resource: Resource) -> dict[str, Any]:
    """The fields of raw inventory that the fleet knows."""
    shape = resource.shape
    return {
        "account_id": "",
        "resource_id": resource.resource_id,
        "resource_type": resource.resource_type,
        "name": resource.name,
        "native_type": shape.native_type if shape else None,
        "state": resource.state,
        "region": resource.region,
        "vcpus": float(shape.vcpus) if shape else None,
        "memory_gib": float(shape.memory_gib) if shape else None,
        "gpu_model": shape.gpu_model if shape else None,
        "gpu_count": float(shape.gpu_count) if shape and resource.resource_type == "machine" else None,
        "storage_gib": resource.storage_gib,
        "attached_to": resource.attached_to,
        "created_at": naive_utc(resource.created_at) if resource.created_at else None,
        "tags": resource.tags_json,
        "hourly_price": shape.hourly if shape and resource.resource_type == "machine" else None,
    }


@pytest.mark.parametrize("customer", ["acme", "globex"])
def test_the_inventory_is_the_fleet_field_by_field(vultr_url: str, customer: str) -> None:
    findings = VultrCollector(open_source(vultr_url, customer)).inventory()
    assert findings.failures == []
    found = {row["resource_id"]: row for row in rows_of(findings)}
    shown = {each.resource_id: planted(each) for each in shown_resources(FLEET, customer)}
    assert found.keys() == shown.keys()
    for resource_id, fields in shown.items():
        if fields["resource_type"] == "volume":
            fields["native_type"] = "high_perf"
        assert {name: found[resource_id][name] for name in fields} == fields


def test_no_password_console_link_or_key_is_taken_over(vultr_url: str) -> None:
    findings = VultrCollector(open_source(vultr_url)).inventory()
    text = json.dumps(rows_of(findings), default=str)
    assert "canary" not in text
    assert "novnc" not in text


def test_an_inventory_costs_one_request_a_list(vultr_url: str) -> None:
    source = open_source(vultr_url)
    VultrCollector(source).inventory()
    assert {operation: calls for (_, operation), (calls, _, _) in source.calls.made.items()} == dict.fromkeys(
        (
            *("instances", "plans", "bare-metals", "blocks", "blocks/snapshots", "snapshots"),
            *("reserved-ips", "databases", "inference"),
        ),
        1,
    )


def inventory_rows(source: Source) -> list[Mapping[str, Any]]:
    return [row for table in VultrCollector(source).inventory().tables for row in table.to_pylist()]


@pytest.mark.parametrize("customer", ["acme", "globex"])
def test_bandwidth_of_each_day_is_the_sum_of_the_days_windows(vultr_url: str, customer: str) -> None:
    source = open_source(vultr_url, customer)
    resources = inventory_rows(source)
    before = dict(source.calls.made)
    span = Window(MIDNIGHT - 5 * DAY + WINDOW, MIDNIGHT - 2 * DAY)
    findings = VultrCollector(source).metrics(resources, span)
    days = [MIDNIGHT - ago * DAY for ago in (5, 4, 3)]
    expected = {
        (each.resource.resource_id, each.metric, "", "sum", naive_utc(day), 86400): int(value)
        for each in daily_series(FLEET, customer)
        for day in days
        if (value := day_value(each, day)) is not None
    }
    keys = ("resource_id", "metric_name", "component", "statistic", "window_start", "window_seconds")
    found = {tuple(row[key] for key in keys): row["value"] for row in rows_of(findings)}
    assert findings.failures == []
    assert found.keys() == expected.keys()
    assert all(isclose(found[key], expected[key], rel_tol=1e-9) for key in expected)
    calls = {key: value[0] for key, value in source.calls.made.items() if key not in before}
    machines = sum(row["resource_type"] == "machine" for row in resources)
    assert calls == {("vultr", "instances/{id}/bandwidth"): machines}


def test_a_span_in_the_middle_of_a_day_asks_nothing(vultr_url: str) -> None:
    source = open_source(vultr_url)
    resources = inventory_rows(source)
    before = dict(source.calls.made)
    noon = MIDNIGHT + timedelta(hours=12)
    findings = VultrCollector(source).metrics(resources, Window(noon, noon + WINDOW))
    assert (findings.row_count, findings.failures, source.calls.made) == (0, [], before)


def test_a_resource_younger_than_the_day_has_no_row(vultr_url: str) -> None:
    source = open_source(vultr_url)
    young = next(each for each in FLEET.of("acme", "vultr") if each.guard == "young")
    resources = [row for row in inventory_rows(source) if row["resource_id"] == young.resource_id]
    findings = VultrCollector(source).metrics(resources, Window(MIDNIGHT - 10 * DAY, MIDNIGHT))
    assert {row["window_start"] for row in rows_of(findings)} == {naive_utc(MIDNIGHT - ago * DAY) for ago in (1, 2, 3)}


def test_a_machine_that_went_since_the_inventory_has_no_rows_and_is_no_failure(vultr_url: str) -> None:
    source = open_source(vultr_url)
    [row, *_] = inventory_rows(source)
    gone = {**row, "resource_id": "00000000-0000-4000-8000-000000000000"}
    findings = VultrCollector(source).metrics([gone, row], Window(MIDNIGHT - DAY, MIDNIGHT))
    assert findings.failures == []
    assert {each["resource_id"] for each in rows_of(findings)} == {row["resource_id"]}


def test_prices_are_by_plan_and_place_with_overrides_and_without_the_free_plan(vultr_url: str) -> None:
    findings = VultrCollector(open_source(vultr_url)).prices()
    assert findings.failures == []
    assert {
        (row["sku"], row["region"], row["price_type"]): (row["price"], row["unit"]) for row in rows_of(findings)
    } == {
        ("vc2-2c-4gb", "ewr", "on_demand"): (Decimal("0.03"), "hour"),
        ("vc2-2c-4gb", "sao", "on_demand"): (Decimal("0.045"), "hour"),
        ("vcg-a100-1c-6g-4vram", "ewr", "on_demand"): (Decimal("0.123"), "hour"),
        ("vcg-a100-6c-60g-40vram", "ewr", "on_demand"): (Decimal("1.397"), "hour"),
        ("vcg-a100-12c-120g-80vram", "ewr", "on_demand"): (Decimal("2.397"), "hour"),
        ("vbm-256c-2048gb-8-mi300x-gpu", "ord", "on_demand"): (Decimal("17.52"), "hour"),
        ("vbm-256c-2048gb-8-mi300x-gpu", "ord", "spot"): (Decimal("14.72"), "hour"),
        ("vultr-dbaas-business-cc-2-80-4", "ewr", "on_demand"): (Decimal(150), "month"),
    }


def test_prices_are_of_the_connections_regions(vultr_url: str) -> None:
    findings = VultrCollector(open_source(vultr_url, regions=["sao"])).prices()
    assert {row["region"] for row in rows_of(findings)} == {"sao"}


def test_a_list_of_many_pages_comes_whole_and_once(vultr_url: str) -> None:
    source = open_source(vultr_url)
    whole = VultrApi(source).list("/instances", "instances")
    paged = VultrApi(source, page_size=2).list("/instances", "instances")
    assert paged == whole
    assert len(whole) == 6
    assert source.calls.made["vultr", "instances"][0] == 1 + 3


def test_a_wrong_key_is_refused_as_a_whole_and_not_shown(vultr_url: str) -> None:
    source = open_source(vultr_url)
    wrong = Source("acme", source.connection, {"api_key": SecretStr("canary-wrong")}, timeout=5)
    with pytest.raises(CollectionError, match="Invalid API token") as refused:
        VultrCollector(wrong).inventory()
    assert refused.value.kind == "auth"
    assert "canary" not in str(refused.value)


def test_a_connection_without_a_key_is_not_configured(vultr_url: str) -> None:
    source = open_source(vultr_url)
    with pytest.raises(CollectionError) as refused:
        VultrCollector(Source("acme", source.connection, {}))
    assert refused.value.kind == "not_configured"


def test_a_429_without_retry_after_is_waited_out(vultr_url: str) -> None:
    source = open_source(vultr_url)
    with switched_on(vultr_url, Fault(status=429, times=1, match="/v2/snapshots")):
        assert VultrCollector(source).inventory().failures == []
    assert source.calls.made["vultr", "snapshots"][0] == 2


def test_a_page_that_lacks_its_list_is_malformed(vultr_url: str) -> None:
    with pytest.raises(CollectionError, match="has no list machines") as refused:
        VultrApi(open_source(vultr_url)).list("/instances", "machines")
    assert refused.value.kind == "malformed"


def test_one_customers_key_shows_nothing_of_another(vultr_url: str) -> None:
    theirs = {each.resource_id for each in FLEET.of("globex", "vultr")}
    assert not theirs & {row["resource_id"] for row in inventory_rows(open_source(vultr_url))}
    machine = next(each for each in FLEET.of("globex", "vultr", "machine"))
    key = open_source(vultr_url).secret("api_key")
    answer = httpx.get(
        f"{vultr_url}/v2/instances/{machine.resource_id}/bandwidth", headers={"Authorization": f"Bearer {key}"}
    )
    assert answer.status_code == 404
