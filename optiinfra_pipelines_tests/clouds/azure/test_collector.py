"""The collector and the bill against the sandbox's Azure, over the real wire."""

import json
from datetime import UTC, timedelta
from decimal import Decimal
from math import isclose

import httpx
import pytest

from optiinfra_pipelines.clouds.azure.bill import CostManagementBill
from optiinfra_pipelines.clouds.azure.client import INVENTORY_QUERY, Access, open_azure
from optiinfra_pipelines.clouds.azure.collector import AzureCollector
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.sandbox.azure_server import environment, shown_resources, shown_series
from optiinfra_pipelines.sandbox.fleet import window_starts
from optiinfra_pipelines.sandbox.fleet_bills import bill_periods, charges
from optiinfra_pipelines_tests.clouds.azure.conftest import FLEET, SPAN, TODAY, OpenSource
from optiinfra_pipelines_tests.clouds.sandbox_cloud import Cloud, rows_of

_SAME = ("account_id", "name", "state", "region", "attached_to")


@pytest.mark.parametrize("customer", FLEET.customers)
def test_inventory_is_what_was_planted_field_by_field(open_source: OpenSource, customer: str) -> None:
    findings = AzureCollector(open_source(customer)).inventory()
    assert not findings.failures
    found = {(row["resource_type"], row["resource_id"]): row for row in rows_of(findings)}
    planted = {(each.resource_type, each.resource_id): each for each in shown_resources(FLEET, customer)}
    assert found.keys() == planted.keys()
    for key, resource in planted.items():
        row, shape = found[key], resource.shape
        assert [row[name] for name in _SAME] == [getattr(resource, name) for name in _SAME]
        assert row["created_at"].replace(microsecond=0, tzinfo=UTC) == resource.created_at
        assert row["tags"] == resource.tags_json
        if resource.storage_gib is not None:
            assert row["storage_gib"] == resource.storage_gib
        if shape:
            assert (row["native_type"], row["vcpus"], row["memory_gib"]) == (
                shape.native_type,
                shape.vcpus,
                shape.memory_gib,
            )
            assert (row["gpu_model"], row["gpu_count"] or 0) == (shape.gpu_model, shape.gpu_count)


def test_inventory_tells_what_guards_a_resource(open_source: OpenSource) -> None:
    rows = {row["name"]: row for row in rows_of(AzureCollector(open_source()).inventory())}
    details = {name: json.loads(row["details"]) for name, row in rows.items()}
    assert details["api-2"]["autoscaling_group"].endswith("/virtualmachinescalesets/api")
    assert details["replica-disk"]["replica"] is True
    assert details["golden-base"]["used_by_images"] == [rows["golden"]["resource_id"]]
    assert details["api-1"]["public_ips"] == ["203.0.113.10"]
    assert details["api-1"]["private_ips"][0].startswith("10.0.")
    assert "master" not in rows


def test_stopped_and_deallocated_are_two_states(open_source: OpenSource) -> None:
    states = {row["name"]: row["state"] for row in rows_of(AzureCollector(open_source()).inventory())}
    assert (states["batch-old"], states["batch-deallocated"]) == ("stopped", "deallocated")


@pytest.mark.parametrize("customer", FLEET.customers)
def test_metrics_are_the_planted_values_and_no_others(open_source: OpenSource, customer: str) -> None:
    source = open_source(customer)
    resources = rows_of(AzureCollector(source).inventory())
    findings = AzureCollector(source).metrics(resources, SPAN)
    assert not findings.failures
    found = {
        (row["resource_id"], row["metric_name"], row["component"], row["statistic"], row["window_start"]): row["value"]
        for row in rows_of(findings)
    }
    assert len(found) == findings.row_count
    planted = {
        (each.resource.resource_id, each.metric, each.component, each.statistic, start.replace(tzinfo=None)): value
        for each in shown_series(FLEET, customer)
        for start in window_starts(SPAN.start, SPAN.end)
        if (value := each.value(start)) is not None
    }
    assert found.keys() == planted.keys()
    assert all(isclose(found[key], value, rel_tol=1e-9) for key, value in planted.items())


def test_metrics_take_one_request_a_type_and_region_and_one_for_all_guests(
    open_source: OpenSource, cloud: Cloud
) -> None:
    source = open_source()
    resources = rows_of(AzureCollector(source).inventory())
    cloud.heal()
    AzureCollector(source).metrics(resources, SPAN)
    asked = cloud.requests
    assert sum(count for path, count in asked.items() if path.endswith("getBatch")) == 3
    assert sum(count for path, count in asked.items() if path.startswith("POST /logs/")) == 1
    assert sum(asked.values()) == 3 + 1 + 2  # and a token for each of the two services


def test_a_machine_that_is_gone_since_the_inventory_does_not_hide_the_others(open_source: OpenSource) -> None:
    source = open_source()
    resources = rows_of(AzureCollector(source).inventory())
    running = next(row for row in resources if row["name"] == "api-1")
    gone = running | {"resource_id": running["resource_id"].replace("api-1", "deleted-yesterday")}
    whole = AzureCollector(source).metrics(resources, SPAN)
    with_gone = AzureCollector(source).metrics([gone, *resources], SPAN)
    assert not with_gone.failures
    assert with_gone.row_count == whole.row_count


def test_what_stopped_since_has_the_metrics_of_the_time_it_ran(open_source: OpenSource, cloud: Cloud) -> None:
    source = open_source()
    resources = rows_of(AzureCollector(source).inventory())
    off = {"machine": "deallocated", "database": "stopped", "volume": "unattached"}
    later = [row | {"state": off.get(row["resource_type"], row["state"])} for row in resources]
    whole = AzureCollector(source).metrics(resources, SPAN)
    cloud.heal()
    found = AzureCollector(source).metrics(later, SPAN)
    assert not found.failures
    assert sorted(map(repr, rows_of(found))) == sorted(map(repr, rows_of(whole)))
    assert sum(count for path, count in cloud.requests.items() if path.endswith("getBatch")) == 3


def test_nothing_is_asked_where_nothing_is(open_source: OpenSource, cloud: Cloud) -> None:
    cloud.heal()
    assert AzureCollector(open_source()).metrics([], SPAN).row_count == 0
    assert cloud.requests == {}


def test_prices_leave_out_windows_and_low_priority_and_keep_spot_apart(open_source: OpenSource) -> None:
    findings = AzureCollector(open_source()).prices()
    rows = rows_of(findings)
    assert not findings.failures
    machines = {(row["native_type"], row["price_type"]): row for row in rows if row["kind"] == "machine"}
    gpu = machines["Standard_NC24ads_A100_v4", "on_demand"]
    assert gpu["price"] == Decimal("3.673")
    assert (gpu["vcpus"], gpu["memory_gib"], gpu["gpu_model"]) == (24, 220, "NVIDIA A100 80GB")
    assert set(machines) == {
        (name, kind) for name in ("Standard_D2s_v5", "Standard_NC24ads_A100_v4") for kind in ("on_demand", "spot")
    }
    assert {row["kind"] for row in rows} == {"machine", "database", "volume", "snapshot", "ip_address"}
    [disk] = [row for row in rows if row["kind"] == "volume"]
    assert (disk["storage_gib"], disk["unit"], disk["price"]) == (128, "month", Decimal("21.68"))


@pytest.mark.parametrize("customer", FLEET.customers)
def test_a_bill_adds_up_to_the_last_digit(open_source: OpenSource, customer: str) -> None:
    bill = CostManagementBill(open_source(customer))
    assert bill.periods() == list(bill_periods(TODAY)) if TODAY.day > 1 else [bill_periods(TODAY)[0]]
    for period in bill_periods(TODAY):
        rows = bill.rows(period).to_pylist()
        planted = list(charges(FLEET, customer, "azure", period))
        assert len(rows) == len(planted)
        for column in ("BilledCost", "EffectiveCost"):
            assert sum(Decimal(row[column]) for row in rows) == sum(each.cost for each in planted)
        categories = {"Usage", "Credit", "Tax"} if planted else set()
        assert {row["ChargeCategory"] for row in rows} == categories
        assert {row["InvoiceId"] for row in rows} == {each.invoice_id for each in planted}
        days = {row["ChargePeriodStart"] for row in rows}
        assert days == {f"{each.start:%Y-%m-%dT00:00:00Z}" for each in planted}


def test_a_month_without_a_bill_has_no_rows(open_source: OpenSource) -> None:
    assert CostManagementBill(open_source()).rows(bill_periods(TODAY)[0].previous).num_rows == 0


def test_resource_graph_is_read_page_by_page(
    open_source: OpenSource, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optiinfra_pipelines.clouds.azure.client._GRAPH_PAGE", 7)
    source = open_source()
    cloud.heal()
    with open_azure(source, Access(source)) as azure:
        paged = [record["id"] for record in azure.graph(INVENTORY_QUERY)]
    monkeypatch.undo()
    with open_azure(source, Access(source)) as azure:
        assert paged == [record["id"] for record in azure.graph(INVENTORY_QUERY)]
    assert sum(count for path, count in cloud.requests.items() if "ResourceGraph" in path) == -(-len(paged) // 7) + 1


def test_wrong_credentials_are_refused_and_not_shown(open_source: OpenSource) -> None:
    with pytest.raises(CollectionError) as refused:
        AzureCollector(open_source(secret="canary-wrong")).inventory()
    assert refused.value.kind == "auth"
    assert "canary" not in str(refused.value)


def test_one_customers_credentials_show_nothing_of_another(open_source: OpenSource, cloud: Cloud) -> None:
    theirs = open_source("globex").connection.accounts
    source = open_source("acme", accounts=theirs)
    findings = AzureCollector(source).inventory()
    assert findings.row_count == 0
    assert [error.kind for error in findings.failures] == ["auth"]
    wrong = httpx.get(f"{cloud.url}/management/subscriptions/{theirs[0]}/resources")
    assert wrong.status_code == 401


def test_a_subscription_that_may_not_be_read_is_a_failure_and_the_others_come(open_source: OpenSource) -> None:
    """Resource Graph leaves such a subscription out and says nothing."""
    own = open_source().connection.accounts
    findings = AzureCollector(open_source(accounts=[*own, "00000000-0000-0000-0000-000000000000"])).inventory()
    assert findings.row_count == len(shown_resources(FLEET, "acme"))
    assert "00000000-0000-0000-0000-000000000000" in str(findings.failures[0])


def test_no_named_account_means_all_that_may_be_read(open_source: OpenSource) -> None:
    findings = AzureCollector(open_source(accounts=[])).inventory()
    assert findings.row_count == len(shown_resources(FLEET, "acme"))


def test_the_connections_regions_bound_what_is_kept(open_source: OpenSource) -> None:
    assert AzureCollector(open_source(regions=["northeurope"])).inventory().row_count == 0


def test_windows_before_a_machine_was_there_have_no_rows(open_source: OpenSource) -> None:
    source = open_source()
    resources = rows_of(AzureCollector(source).inventory())
    young = next(row for row in resources if row["name"] == "trial-gpu")
    before = type(SPAN)(*(at - timedelta(days=10) for at in SPAN))
    assert AzureCollector(source).metrics([young], before).row_count == 0


def test_every_secret_of_the_sandbox_is_a_canary() -> None:
    secrets = {name: value for name, value in environment(FLEET.customers).items() if name.endswith("CLIENT_SECRET")}
    assert len(secrets) == 2
    assert all(value.startswith("canary-azure-") for value in secrets.values())
