"""What a naive collector gets wrong: the list of traps, the tests that prove each, and those that no other file has.

Traps of bills in files are in `test_bill_traps.py`, those of one cloud beside its other tests. What a rule later makes
of a young, guarded or used resource is the rule's business: here is proved that collection tells what it needs.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from optiinfra_pipelines.clouds.aws import parser as aws
from optiinfra_pipelines.clouds.azure import parser as azure
from optiinfra_pipelines.clouds.azure.bill import charge_rows
from optiinfra_pipelines.clouds.azure.series import metric_table
from optiinfra_pipelines.clouds.billing import collect_billing
from optiinfra_pipelines.clouds.collection import Kind, collect_day
from optiinfra_pipelines.clouds.gcp import parser as gcp
from optiinfra_pipelines.clouds.vultr import inventory as vultr
from optiinfra_pipelines.customers import Customer, Customers
from optiinfra_pipelines.sandbox.clouds import Clouds, serve_clouds
from optiinfra_pipelines.sandbox.fleet import FLEET_CLOUDS, Fleet, FleetCloud
from optiinfra_pipelines.sandbox.fleet_bills import bill_periods, charges
from optiinfra_pipelines.sandbox.gate import FAULTS_PATH
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.tables.billing import GCP_BILLING
from optiinfra_pipelines.tables.cloud import INVENTORY, METRICS, PRICES
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import DAY, WINDOW, BillingPeriod, Window, floor_day, floor_window

TRAPS: Mapping[str, tuple[str, ...]] = {  # in the words of the FinOps reference -> file::test, below this folder
    "listings > 1,000 objects": (
        "test_bill_traps.py::test_a_listing_of_more_than_1000_objects_is_read_to_its_end",
        "focus/test_locations.py::test_a_listing_goes_on_after_its_first_page",
    ),
    "manifest vs left-over files of an older assembly (double count)": (
        "test_bill_traps.py::test_left_over_files_of_an_older_assembly_are_not_counted_beside_those_of_the_manifest",
        "focus/test_layouts.py::test_a_report_is_read_from_the_assembly_that_its_manifest_points_at",
        "focus/test_loader.py::test_an_export_in_a_bucket_is_loaded_restated_and_never_mixed_with_leftovers",
    ),
    "multi-member gzip": (
        "test_bill_traps.py::test_a_gzip_file_of_several_members_is_not_read_after_its_first_one_only",
        "focus/test_reader.py::test_every_member_of_a_gzip_file_is_read",
    ),
    "new columns mid-month": ("focus/test_loader.py::test_a_new_column_may_appear_in_the_middle_of_a_month",),
    '`NULL`/"-2"/"Unassigned"': ("test_bill_traps.py::test_null_minus_2_and_unassigned_are_no_values",),
    "BOM, d/m/yy": (
        "test_bill_traps.py::test_after_a_bom_m_d_yy_is_read_and_d_m_yy_is_refused_instead_of_misread",
        "focus/test_reader.py::test_line_endings_and_a_byte_order_mark_do_not_matter",
    ),
    "mixed currencies summed": (
        "focus/test_loader.py::test_source_totals_keep_invoices_and_currencies_apart_and_count_rejected_rows",
        "azure/test_traps.py::test_trap_mixed_currencies_stay_apart",
        "../dbt_project/test_costs.py::test_currencies_never_share_a_row",
    ),
    "signs of tax, credit, refund": (
        "test_bill_traps.py::test_signs_of_tax_credit_and_refund_are_those_of_the_bill",
        "aws/test_bill.py::test_credits_are_negative_and_tax_is_not",
        "gcp/test_charges.py::test_signs_of_tax_credit_refund",
        "vultr/test_recordings.py::test_signs_of_tax_credit_and_refund_are_kept",
    ),
    "commitment purchase + amortised usage summed": (
        "test_bill_traps.py::test_a_commitments_purchase_and_the_amortised_usage_it_covers_are_not_summed",
        "azure/test_traps.py::test_trap_commitment_purchase_and_amortised_use_are_not_summed",
    ),
    "EffectiveCost 0 on covered usage while UnblendedCost is read": (
        "test_bill_traps.py::test_covered_usage_whose_unblended_cost_is_0_has_its_effective_cost",
    ),
    "account rows without resource or subscription": (
        "test_bill_traps.py::test_account_rows_without_a_resource_or_subscription_are_loaded_like_any_other",
        "azure/test_traps.py::test_trap_account_rows_without_a_resource",
        "gcp/test_charges.py::test_account_rows_without_resource_or_project_are_charges_all_the_same",
    ),
    "one missing price aborts all": (
        "test_traps.py::test_one_missing_price_aborts_none_of_the_others",
        "gcp/test_catalog.py::test_one_missing_price_aborts_nothing_but_the_type_that_it_belongs_to",
        "azure/test_traps.py::test_trap_one_missing_size_does_not_abort_all_prices",
    ),
    "`Estimated` taken as final": (
        "aws/test_bill.py::test_estimated_is_not_taken_as_final",
        "test_bill_traps.py::test_estimated_costs_say_so_and_give_way_to_the_final_ones",
        "vultr/test_bill.py::test_a_closed_month_is_on_its_invoice_and_an_open_one_is_estimated",
        "../test_windows.py::test_the_previous_period_is_refreshed_through_the_whole_tenth_of_the_month",
    ),
    "exclusive ends (FOCUS, CE) vs inclusive (Azure EndDate + 1 d)": (
        "test_bill_traps.py::test_exclusive_ends_of_focus_stay_exclusive",
        "aws/test_bill.py::test_the_exclusive_end_of_cost_explorer_stays_exclusive",
        "azure/test_traps.py::test_trap_inclusive_end_date",
    ),
    "UTC vs Pacific": (
        "gcp/test_charges.py::test_usage_of_october_may_lie_in_the_invoice_of_november_as_utc_and_pacific_differ",
        "focus/test_sql.py::test_any_offset_is_the_same_moment_in_utc",
    ),
    "23/25-hour days": ("test_bill_traps.py::test_days_of_23_and_25_hours_keep_every_hour_once",),
    "percent vs fraction": (
        "aws/test_series.py::test_percent_is_not_taken_for_a_fraction",
        "gcp/test_series.py::test_a_fraction_becomes_percent_and_a_percentage_stays_as_it_is",
        "azure/test_series.py::test_trap_percent_stays_percent",
        "prometheus/test_queries.py::test_percent_and_not_a_fraction_is_asked_for",
    ),
    "datapoint order": (
        "aws/test_series.py::test_pages_of_one_series_are_joined_by_id_in_any_datapoint_order",
        "gcp/test_series.py::test_datapoint_order_does_not_matter",
        "azure/test_series.py::test_trap_datapoint_order_does_not_matter",
        "prometheus/test_parser.py::test_the_order_of_points_and_series_does_not_matter",
    ),
    "absent metric = zero": (
        "aws/test_series.py::test_an_absent_metric_is_no_zero",
        "gcp/test_series.py::test_absent_metric_is_no_row_and_a_true_zero_is_one",
        "azure/test_series.py::test_trap_absent_metric_is_not_zero",
        "vultr/test_recordings.py::test_bandwidth_is_a_figure_of_a_utc_day_and_an_absent_day_is_no_row",
        "prometheus/test_parser.py::test_an_absent_metric_is_not_zero_and_nan_and_infinities_are_no_rows",
    ),
    "resource younger than the window judged idle": (
        "test_traps.py::test_a_resource_younger_than_the_window_has_its_age_and_no_zeros_before_it",
        "aws/test_parser.py::test_a_machine_started_again_is_as_old_as_its_first_interface",
        "vultr/test_collector.py::test_a_resource_younger_than_the_day_has_no_row",
    ),
    "ASG/K8s/spot/backup/DR-replica flagged": (
        "test_traps.py::test_autoscaled_kubernetes_spot_backup_and_replica_resources_say_so",
        "test_traps.py::test_what_is_autoscaled_or_a_replica_says_so_on_every_cloud_that_knows",
    ),
    "snapshot used by an AMI": (
        "test_traps.py::test_a_snapshot_used_by_an_image_names_it",
        "test_traps.py::test_where_images_cannot_be_listed_a_snapshots_users_are_unknown_and_not_none",
        "aws/test_recordings.py::test_a_snapshot_used_by_an_image_or_a_template_says_so",
    ),
    "float drift": (
        "gcp/test_charges.py::test_float_drift_does_not_happen",
        "vultr/test_recordings.py::test_float_drift_has_no_way_in",
        "aws/test_bill.py::test_digits_beyond_a_float_and_exponents_are_kept",
        "azure/test_recordings.py::test_recorded_costs_are_exact",
        "focus/test_loader.py::test_every_printed_digit_arrives",
    ),
    "id case": (
        "test_traps.py::test_id_case_does_not_make_two_resources_of_one",
        "azure/test_recordings.py::test_trap_id_case",
    ),
    "deleted resources still billing": (
        "test_traps.py::test_a_deleted_resource_that_is_still_billed_keeps_its_charges",
    ),
    "partial page failure": (
        "gcp/test_faults.py::test_partial_page_failure_keeps_what_came_and_says_what_did_not",
        "aws/test_collector.py::test_partial_data_is_kept_and_recorded_so_that_it_is_asked_again",
        "azure/test_faults.py::test_wrong_pages_end_as_a_failure_and_the_next_collection_is_whole",
        "vultr/test_bill.py::test_an_invoice_whose_items_come_in_part_is_no_bill",
    ),
    "429 without Retry-After": (
        "azure/test_traps.py::test_trap_429_without_retry_after",
        "gcp/test_faults.py::test_429_without_retry_after_that_goes_on_is_throttled_and_others_come",
        "vultr/test_collector.py::test_a_429_without_retry_after_is_waited_out",
        "aws/test_collector.py::test_a_passing_fault_leaves_no_trace",
    ),
    "token expiry mid-page": (
        "gcp/test_faults.py::test_token_expiry_mid_page",
        "azure/test_traps.py::test_trap_token_expiry_mid_page",
        "aws/test_collector.py::test_a_passing_fault_leaves_no_trace",
        "test_rest.py::test_a_token_that_ended_between_two_pages_is_renewed_once",
    ),
}

NOW = datetime(2026, 11, 20, 0, 46, tzinfo=UTC)
TODAY = floor_day(NOW)


@pytest.mark.parametrize("trap", TRAPS)
def test_every_trap_has_a_test_that_is_there(trap: str) -> None:
    assert len(TRAPS) == 28, "as many as the list has"
    for node in TRAPS[trap]:
        path, _, name = node.partition("::")
        tree = ast.parse((Path(__file__).parent / path).read_text())
        assert name in {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}, node


# What inventory tells of resources that no rule may flag, on all four clouds over the wire


@dataclass(frozen=True)
class Collected:
    """The sandbox's clouds, and a warehouse that holds what acme has there today."""

    clouds: Clouds
    customer: Customer
    warehouse: Warehouse

    def collect(self, cloud: FleetCloud, kind: Kind, day: datetime) -> None:
        """Collect what is due of a day, all of it."""
        span, settings = Window(day, day + DAY), Settings(api_attempts=2, api_timeout=10)
        for attempt in collect_day(self.warehouse, settings, self.customer, cloud, kind, span, NOW):
            assert attempt.error is None

    def inventory(self, cloud: FleetCloud) -> dict[str, dict[str, Any]]:
        """The inventory's rows by name, tags and details read."""
        rows = self.warehouse.query(f"SELECT * FROM {self.warehouse.current(INVENTORY[cloud])} i").to_pylist()
        read = (row | {name: json.loads(row[name]) for name in ("tags", "details")} for row in rows)
        return {row["name"]: row for row in read}


def customer_of(clouds: Clouds) -> Customer:
    entry = {"id": "acme", "name": "acme", "connections": clouds.connections("acme")}
    return Customers.model_validate({"customers": [entry]}).customers[0]


@pytest.fixture(scope="module")
def clouds() -> Iterator[Clouds]:
    with serve_clouds(Fleet(NOW.date(), clouds=FLEET_CLOUDS)) as running:
        yield running


@pytest.fixture
def collected(clouds: Clouds, duckdb_warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collected]:
    for name, value in clouds.environment().items():
        monkeypatch.setenv(name, value)
    yield Collected(clouds, customer_of(clouds), duckdb_warehouse)
    for url in clouds.urls.values():
        httpx.delete(url + FAULTS_PATH)


@pytest.mark.parametrize("cloud", FLEET_CLOUDS)
def test_a_resource_younger_than_the_window_has_its_age_and_no_zeros_before_it(
    collected: Collected, cloud: FleetCloud
) -> None:
    planted = {each.name: each for each in collected.clouds.fleet.of("acme", cloud, "machine")}
    young, old = planted["trial-gpu"], planted["llm-gpu-2"]
    collected.collect(cloud, "inventory", TODAY)
    rows = collected.inventory(cloud)
    assert {name: abs(rows[name]["created_at"] - planted[name].created_at) < timedelta(seconds=1) for name in planted}
    assert all(rows[name]["created_at"].replace(microsecond=0) == planted[name].created_at for name in planted)
    collected.collect(cloud, "metrics", floor_day(young.created_at))
    windows = collected.warehouse.query(
        "SELECT resource_id, min(window_start) AS first, count(*) AS n"
        f" FROM {collected.warehouse.current(METRICS[cloud])} m WHERE metric_name = 'cpu_utilization'"
        " AND statistic = 'average' AND window_seconds = 900 GROUP BY resource_id"
    ).to_pylist()
    found = {row["resource_id"]: (row["first"], row["n"]) for row in windows}
    assert found[old.resource_id] == (floor_day(young.created_at), 96)
    first = floor_window(young.created_at) + WINDOW
    assert found[young.resource_id] == (first, (floor_day(young.created_at) + DAY - first) / WINDOW)


@pytest.mark.parametrize("cloud", FLEET_CLOUDS)
def test_what_is_autoscaled_or_a_replica_says_so_on_every_cloud_that_knows(
    collected: Collected, cloud: FleetCloud
) -> None:
    collected.collect(cloud, "inventory", TODAY)
    rows = collected.inventory(cloud)
    said = {name: row["tags"] | row["details"] for name, row in rows.items()}
    assert str(said["api-2"]["autoscaling-group" if cloud == "vultr" else "autoscaling_group"]).endswith("api")
    assert "autoscaling_group" not in said["api-1"]
    if cloud != "vultr":  # which has no tags on volumes
        assert said["replica-disk"]["asr-replicadisk"] == "true"
    assert "asr-replicadisk" not in said["forgotten-disk"]


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])  # Vultr has no images made of snapshots
def test_a_snapshot_used_by_an_image_names_it(collected: Collected, cloud: FleetCloud) -> None:
    collected.collect(cloud, "inventory", TODAY)
    rows = collected.inventory(cloud)
    assert rows["golden-base"]["details"]["used_by_images"] == [rows["golden"]["resource_id"]]
    assert not {"used_by_images", "users_unknown"} & rows["nightly-2025"]["details"].keys()


def test_where_images_cannot_be_listed_a_snapshots_users_are_unknown_and_not_none(collected: Collected) -> None:
    fault = {"kind": "status", "status": 403, "match": "/global/images"}
    httpx.post(collected.clouds.urls["gcp"] + FAULTS_PATH, json=fault).raise_for_status()
    span, settings = Window(TODAY, TODAY + DAY), Settings(api_attempts=1, api_timeout=10)
    [attempt] = collect_day(collected.warehouse, settings, collected.customer, "gcp", "inventory", span, NOW)
    assert getattr(attempt.error, "kind", None) == "auth"
    snapshots = [row for row in collected.inventory("gcp").values() if row["resource_type"] == "snapshot"]
    assert snapshots
    assert all(row["details"]["users_unknown"] for row in snapshots)
    snapshot = {"SnapshotId": "snap-1", "State": "completed"}
    for missing, unknown in (("images", True), ("template_versions", True), ("databases", None)):
        listing = aws.Listing("1", "us-east-1", snapshots=[snapshot], unlisted=frozenset({missing}))
        assert [details(row).get("users_unknown") for row in aws.rows(listing)] == [unknown]


def details(row: Mapping[str, Any]) -> dict[str, Any]:
    found = row["details"]
    return dict(json.loads(found) if isinstance(found, str) else found)


def _aws_details() -> Iterator[tuple[str, Any]]:
    def tags(**named: str) -> list[dict[str, str]]:
        return [{"Key": name.replace("__", ":").replace("_", "-"), "Value": value} for name, value in named.items()]

    cluster = [{"Key": "kubernetes.io/cluster/prod", "Value": "owned"}, *tags(aws__autoscaling__groupName="nodes")]
    node = {"InstanceId": "node", "InstanceType": "m5.large", "InstanceLifecycle": "spot", "Tags": cluster}
    claim = {"VolumeId": "claim", "Tags": [{"Key": "ebs.csi.aws.com/cluster", "Value": "true"}]}
    replica = {"VolumeId": "replica", "Tags": [{"Key": "AWSElasticDisasterRecoveryManaged", "Value": "x"}]}
    backup = {"SnapshotId": "backup", "Tags": tags(aws__backup__source_resource="arn:volume")}
    listing = aws.Listing(
        *("1", "us-east-1"), reservations=[{"Instances": [node]}], volumes=[claim, replica], snapshots=[backup]
    )
    yield from ((row["resource_id"], details(row)) for row in aws.rows(listing))


def _gcp_details() -> Iterator[tuple[str, Any]]:
    manager = "projects/1/zones/z/instanceGroupManagers/nodes"
    metadata = {"items": [{"key": "created-by", "value": manager}, {"key": "cluster-name", "value": "prod"}]}
    spot = {"provisioningModel": "SPOT"}
    node = {"id": "node", "name": "node", "zone": "z/us-central1-a", "metadata": metadata, "scheduling": spot}
    claim = {"id": "claim", "name": "claim", "labels": {"goog-k8s-cluster-name": "prod"}}
    replica = {"id": "replica", "name": "r", "asyncPrimaryDisk": {"disk": "https://x/projects/p/zones/z/disks/d"}}
    backup = {"id": "backup", "name": "backup", "autoCreated": True}
    rows = [*gcp.machine_rows("p", [node], {}), *gcp.volume_rows("p", [claim, replica], gcp.Links({}, {}))]
    yield from ((row["resource_id"], details(row)) for row in [*rows, *gcp.snapshot_rows("p", [backup], ())])


def _azure_details() -> Iterator[tuple[str, Any]]:
    group = "/subscriptions/S/resourceGroups/MC_prod_k8s_westeurope/providers/Microsoft.Compute"
    scale_set = {"id": f"{group}/virtualMachineScaleSets/nodes"}
    records: list[dict[str, Any]] = [
        {
            "id": f"{group}/virtualMachines/node",
            "properties": {"priority": "Spot", "virtualMachineScaleSet": scale_set},
        },
        {"id": f"{group}/disks/claim"},
        {"id": "/subscriptions/S/resourceGroups/dr/providers/Microsoft.Compute/disks/replica"},
    ]
    kinds = ("virtualMachines", "disks", "disks")
    for record, kind in zip(records, kinds, strict=True):
        record |= {"type": f"Microsoft.Compute/{kind}", "name": str(record["id"]).rpartition("/")[2]}
    records[2]["tags"] = {"ASR-ReplicaDisk": "x"}
    yield from ((row["name"], details(row)) for row in azure.inventory_rows(records, azure.Known()))


def _vultr_details() -> Iterator[tuple[str, Any]]:
    database = {"id": "db", "plan": "p", "plan_vcpus": 1, "plan_ram": 1024, "plan_disk": 10, "status": "Running"}
    rows = vultr.databases(database | {"read_replicas": [database | {"id": "replica"}]})
    yield from ((row["resource_id"], details(row)) for row in rows)


def test_autoscaled_kubernetes_spot_backup_and_replica_resources_say_so() -> None:
    clouds = {"aws": _aws_details, "gcp": _gcp_details, "azure": _azure_details, "vultr": _vultr_details}
    found = {cloud: dict(said()) for cloud, said in clouds.items()}
    for cloud in ("aws", "gcp", "azure"):
        assert str(found[cloud]["node"]["autoscaling_group"]).endswith("nodes")
        assert found[cloud]["node"]["price_type"] == "spot"
        assert found[cloud]["node"]["kubernetes_cluster"]
        assert found[cloud]["claim"]["kubernetes_cluster"]
        assert "kubernetes_cluster" not in found[cloud]["replica"]
    assert found["aws"]["backup"]["backup"] == "arn:volume"
    assert found["gcp"]["backup"]["auto_created"] is True
    assert found["aws"]["replica"]["replica"] is found["azure"]["replica"]["replica"] is True
    assert found["gcp"]["replica"]["replica_of"] == "p/zones/z/disks/d"
    assert found["vultr"]["replica"]["replica_of"] == "db"


# Bills, prices and ids


def test_a_deleted_resource_that_is_still_billed_keeps_its_charges(
    duckdb_warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = (Fleet(NOW.date(), machines=count, clouds=("gcp",)) for count in (1, 0))
    worker = next(each for each in before.of("acme", "gcp", "machine") if each.name == "worker-0")
    closed = bill_periods(NOW.date())[0]
    settings = Settings(api_attempts=2, api_timeout=10)
    with serve_clouds(before) as earlier, serve_clouds(after) as later:
        for name, value in earlier.environment().items():
            monkeypatch.setenv(name, value)
        for clouds, now in ((earlier, NOW), (later, NOW + WINDOW)):
            span = Window(TODAY, TODAY + DAY)
            collect_day(duckdb_warehouse, settings, customer_of(clouds), "gcp", "inventory", span, now)
        [loaded] = collect_billing(duckdb_warehouse, settings, GCP_BILLING, customer_of(earlier), closed)
    assert loaded.error is None
    rows = duckdb_warehouse.query(
        f"SELECT resource_id, snapshot_at FROM {duckdb_warehouse.current(INVENTORY['gcp'])} i"
    ).to_pylist()
    gone = {row["resource_id"] for row in rows if row["snapshot_at"] < floor_window(NOW + WINDOW)}
    assert gone == {worker.resource_id}, "its last row stays and says when it was last there"
    [billed] = duckdb_warehouse.query(
        f"SELECT sum(BilledCost) AS cost FROM {duckdb_warehouse.current(GCP_BILLING)} b WHERE ResourceId = $id"
        " AND ChargeCategory = 'Usage'",
        {"id": worker.resource_id},
    ).to_pylist()
    planted = [each.cost for each in charges(before, "acme", "gcp", closed) if each.resource == worker]
    assert billed["cost"] == sum(planted) > 0


# Cloud -> its price list's endpoint, the machine type whose price is missing, and what takes it out of an answer.
UNPRICED: Mapping[str, tuple[str, str, Callable[[Any], None]]] = {
    "aws": ("pricing", "m7i.large", lambda answer: _unprice_products(answer["PriceList"])),
    "gcp": ("cloudbilling", "n2-standard-2", lambda answer: _unprice_skus(answer["skus"])),
    "azure": ("prices", "Standard_D2s_v5", lambda answer: _unprice_items(answer["Items"])),
}


def _unprice_products(products: list[str]) -> None:
    for number, text in enumerate(products):
        if "m7i.large" in text:
            products[number] = re.sub(r'"USD": ?"[^"]*"', '"USD": null', text)


def _unprice_skus(skus: list[Any]) -> None:
    for sku in skus:
        if sku["description"].startswith("N2 Instance Core"):
            for rate in sku["pricingInfo"][-1]["pricingExpression"]["tieredRates"]:
                del rate["unitPrice"]


def _unprice_items(items: list[Any]) -> None:
    for item in items:
        if item["armSkuName"] == "Standard_D2s_v5":
            item["retailPrice"] = None


@contextmanager
def answers_changed(url: str, change: Callable[[Any], None]) -> Iterator[str]:
    """A server that hands requests on to the one at `url`, and its answers back with `change` made to them."""

    class Between(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = httpx.request(self.command, url + self.path, headers=dict(self.headers), content=body)
            content = answer.json()
            change(content)
            self.send_response(answer.status_code)
            written = json.dumps(content).encode()
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.send_header("Content-Length", str(len(written)))
            self.end_headers()
            self.wfile.write(written)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Between)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_one_missing_price_aborts_none_of_the_others(collected: Collected, cloud: FleetCloud) -> None:
    service, unpriced, change = UNPRICED[cloud]
    collected.collect(cloud, "prices", TODAY)
    with answers_changed(collected.clouds.urls[cloud], change) as url:
        entry = next(each for each in collected.clouds.connections("acme") if each["provider"] == cloud)
        address = entry["endpoints"][service].replace(collected.clouds.urls[cloud], url)
        lacking = entry | {"id": "lacking", "endpoints": entry["endpoints"] | {service: address}}
        content = [{"id": "acme", "name": "acme", "connections": [lacking]}]
        customer = Customers.model_validate({"customers": content}).customers[0]
        span, settings = Window(TODAY, TODAY + DAY), Settings(api_attempts=2, api_timeout=10)
        [attempt] = collect_day(collected.warehouse, settings, customer, cloud, "prices", span, NOW)
    assert getattr(attempt.error, "kind", None) == "malformed"
    rows = collected.warehouse.query(f"SELECT * FROM {collected.warehouse.current(PRICES[cloud])} p").to_pylist()
    machines = {row["native_type"] for row in rows if row["connection_id"] == "lacking" and row["kind"] == "machine"}
    everything = {row["native_type"] for row in rows if row["connection_id"] != "lacking" and row["kind"] == "machine"}
    assert everything - machines == {unpriced}
    others = ("volume", "database", "ip_address", "memory", "gpu")
    kept = Counter((row["connection_id"] == "lacking", row["sku"]) for row in rows if row["kind"] in others)
    assert {sku for lacking, sku in kept if lacking} == {sku for lacking, sku in kept if not lacking} != set()


def test_id_case_does_not_make_two_resources_of_one() -> None:
    """One machine is TEST_VM in Resource Graph, test_vm in Azure Monitor, Test_VM and test_vm in one bill."""
    path = "/subscriptions/S/resourceGroups/Production/providers/Microsoft.Compute/virtualMachines/"
    record = {"id": f"{path.upper()}TEST_VM", "type": "Microsoft.Compute/virtualMachines", "name": "TEST_VM"}
    [listed] = azure.inventory_rows([record], azure.Known())
    point = {"timeStamp": f"{TODAY:%Y-%m-%dT%H:%M:%SZ}", "average": 1.0, "maximum": 2.0}
    metric = {"name": {"value": "Percentage CPU"}, "timeseries": [{"data": [point]}]}
    value = {"resourceid": f"{path.lower()}test_vm", "value": [metric]}
    measured = metric_table([value], "machine", Window(TODAY, TODAY + WINDOW)).to_pylist()
    assert {row["resource_id"] for row in measured} == {listed["resource_id"]}

    shared = {"UsageDate": 20261001, "Currency": "USD", "ChargeType": "Usage", "ServiceName": "Virtual Machines"}
    actual = [shared | {"ResourceId": path + "Test_VM", "Cost": Decimal("1.5"), "UsageQuantity": 1}]
    actual += [shared | {"ResourceId": path + "test_vm", "Cost": Decimal("0.25"), "UsageQuantity": 2}]
    amortised = [shared | {"ResourceId": path.lower() + "test_vm", "Cost": Decimal("1.75"), "UsageQuantity": 3}]
    [charge] = charge_rows(BillingPeriod("2026-10"), "S", actual, amortised)
    assert charge["ResourceId"] == listed["resource_id"]
    assert (charge["BilledCost"], charge["EffectiveCost"]) == ("1.75", "1.75")
    assert charge["x_UsageQuantity"] == "3"
