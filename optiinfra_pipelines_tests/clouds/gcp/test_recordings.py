"""Parsers over every recorded answer of Compute Engine, Cloud SQL and Cloud Monitoring."""

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from optiinfra_pipelines.clouds.collecting import Findings
from optiinfra_pipelines.clouds.gcp import parser
from optiinfra_pipelines.clouds.gcp.series import Points, metric_tables
from optiinfra_pipelines.clouds.gcp.vocabulary import QUERIES, MetricQuery
from optiinfra_pipelines.clouds.vocabulary import STATES, MetricMapping
from optiinfra_pipelines.tables.cloud import INVENTORY
from optiinfra_pipelines.windows import Window
from optiinfra_pipelines_tests.clouds.sandbox_cloud import rows_of

NO_LINKS = parser.Links({}, {})
READERS: dict[str, tuple[str, Callable[[Any], Iterable[dict[str, Any]]]]] = {
    "aggregated-instances_1": ("instances", lambda items: parser.machine_rows("p", items, {})),
    "aggregated-disks_1": ("disks", lambda items: parser.volume_rows("p", items, NO_LINKS)),
    "aggregated-addresses_1": ("addresses", lambda items: parser.address_rows("p", items, NO_LINKS)),
    "us-central1-addresses_1": ("addresses", lambda items: parser.address_rows("p", items, NO_LINKS)),
    "global-snapshots_1": ("snapshots", lambda items: parser.snapshot_rows("p", items, ())),
    "global-images_1": ("images", lambda items: parser.image_rows("p", items)),
    "sql-v1beta4-projects-cloud-custodian-instances_1": ("sql", parser.database_rows),
}
COUNTS = {
    "instance-query": 4, "instance-asset-query": 1, "filter-metrics": 1, "filter-no-metrics": 1,
    "filter-metrics-with-metric-key-as-instance-id": 1, "disk-query": 6, "disk-recommend": 2,
    "disk-snapshots-filter/disks": 3, "disk-snapshots-filter/snapshots": 3, "lb-addresses-query": 1,
    "lb-addresses-global-addresses/aggregated": 2, "lb-addresses-global-addresses/regional": 0, "image-query": 1,
    "snapshot-query": 1, "sqlinstance-query": 1, "sqlbackuprun-query": 1,
}  # fmt: skip


def _recordings(data: Path, part: str) -> list[Path]:
    folder = data / "finops" / "c7n_recordings" / "gcp"
    if not folder.is_dir():
        pytest.skip(f"the recorded answers are not at {folder}; set OPTIINFRA_DATA to the shared data")
    return sorted(path for path in folder.glob("*/get-*.json") if part in path.stem)


def _body(path: Path) -> Any:
    return json.loads(path.read_text())["body"]


def _one(data: Path, folder: str, part: str) -> Any:
    return _body(next(path for path in _recordings(data, part) if path.parent.name == folder))


@pytest.mark.parametrize("part", READERS)
def test_every_recorded_list_becomes_rows_of_the_contract_in_known_words(data: Path, part: str) -> None:
    kind, read = READERS[part]
    for path in _recordings(data, part):
        listing = parser.Listing()
        listing.add(_body(path), kind)
        rows = list(read(listing.items))
        found = Findings()
        found.add_rows(INVENTORY["gcp"], rows)
        name = path.parent.name
        suffix = {"aggregated-disks_1": "disks", "global-snapshots_1": "snapshots"}.get(part)
        regional = "regional" if part.startswith("us-central1") else "aggregated"
        key = next(k for k in (name, f"{name}/{suffix}", f"{name}/{regional}") if k in COUNTS)
        assert found.row_count == COUNTS[key]
        assert not listing.missing
        for row in rows_of(found):
            assert row["resource_id"]
            assert row["created_at"] or row["resource_type"] == "database"  # recorded before Cloud SQL gave createTime
            assert row["state"] in STATES[row["resource_type"]]


def test_a_recorded_machine_has_its_zone_state_and_addresses(data: Path) -> None:
    listing = parser.Listing()
    listing.add(_one(data, "instance-query", "aggregated-instances"), "instances")
    rows = {row["name"]: row for row in parser.machine_rows("p", listing.items, {})}
    jenkins = rows["c7n-jenkins"]
    assert (jenkins["resource_id"], jenkins["region"], jenkins["zone"]) == (
        "2966820606951926687",
        "us-central1",
        "us-central1-b",
    )
    assert jenkins["state"] == "running"
    assert jenkins["created_at"] == datetime(2018, 5, 19, 12, 15, 46, 24000)  # 05:15:46.024-07:00
    assert json.loads(jenkins["details"])["public_ips"] == ["104.154.233.11"]
    assert rows["drone"]["state"] == "stopped"  # TERMINATED is Compute Engine's stopped
    assert json.loads(rows["custodian"]["tags"])["ci"] == ""


def test_zones_that_hold_only_a_warning_of_no_results_are_no_failure(data: Path) -> None:
    answer = _one(data, "disk-recommend", "aggregated-disks")
    assert sum("warning" in scope for scope in answer["items"].values()) == 148
    listing = parser.Listing()
    listing.add(answer, "disks")
    assert len(listing.items) == 2
    assert listing.missing == {}
    assert {row["state"] for row in parser.volume_rows("p", listing.items, NO_LINKS)} == {"unattached"}


def test_a_recorded_disk_names_the_machine_that_uses_it(data: Path) -> None:
    machines, disks = parser.Listing(), parser.Listing()
    machines.add(_one(data, "instance-query", "aggregated-instances"), "instances")
    disks.add(_one(data, "disk-query", "aggregated-disks"), "disks")
    rows = {row["name"]: row for row in parser.volume_rows("p", disks.items, parser.Links.of(machines.items))}
    assert rows["c7n-jenkins"]["attached_to"] == "2966820606951926687"
    assert rows["c7n-jenkins"]["state"] == "attached"
    assert json.loads(rows["c7n-jenkins"]["details"])["device_name"] == "c7n-jenkins"
    assert rows["drone-upgrade"]["attached_to"] is None
    assert rows["drone-upgrade"]["state"] == "unattached"


def test_an_address_with_a_user_is_attached_though_its_status_says_reserved(data: Path) -> None:
    listing = parser.Listing()
    listing.add(_one(data, "lb-addresses-global-addresses", "aggregated-addresses"), "addresses")
    rows = {row["name"]: row for row in parser.address_rows("p", listing.items, NO_LINKS)}
    used = rows["a5a3fzbrafckaoaf03ac394"]
    assert used["state"] == "attached"
    assert used["attached_to"].endswith("forwardingRules/a5a3fzbrafckaoaf03ac394")
    peering = rows["google-managed-services-default"]
    assert (peering["region"], peering["native_type"], peering["state"]) == ("global", "INTERNAL", "unattached")


def test_a_snapshot_that_is_still_written_is_creating(data: Path) -> None:
    listing = parser.Listing()
    listing.add(_one(data, "snapshot-query", "global-snapshots"), "snapshots")
    assert [row["state"] for row in parser.snapshot_rows("p", listing.items, ())] == ["creating"]


def test_recorded_databases_have_the_shape_that_their_tier_names(data: Path) -> None:
    part = "sql-v1beta4-projects-cloud-custodian-instances_1"
    small = next(iter(parser.database_rows(_one(data, "sqlinstance-query", part)["items"])))
    custom = next(iter(parser.database_rows(_one(data, "sqlbackuprun-query", part)["items"])))
    assert (small["resource_id"], small["vcpus"], small["memory_gib"]) == ("cloud-custodian:brenttest-6", 1, 0.6)
    assert (custom["native_type"], custom["vcpus"], custom["memory_gib"]) == ("db-custom-1-3840", 1, 3.75)
    assert small["storage_gib"] == 10


def _measured(body: Any, query: MetricQuery, end: datetime) -> list[dict[str, Any]]:
    points = Points()
    points.add(body, "p", query, frozenset())
    span = Window(end - timedelta(days=30), end + timedelta(days=1))
    statistic = query.mapping.wanted[0]
    return [row for table in metric_tables(query, statistic, points, span, {}) for row in table.to_pylist()]


def test_a_recorded_fraction_of_cpu_time_becomes_percent(data: Path) -> None:
    body = _one(data, "filter-metrics-with-metric-key-as-instance-id", "timeSeries")
    rows = _measured(body, QUERIES[0], datetime(2025, 9, 10, tzinfo=UTC))
    assert len(rows) == 1
    assert rows[0]["resource_id"] == "127589370984384384"
    assert rows[0]["value"] == pytest.approx(1.145088399757294, rel=1e-12)
    assert (rows[0]["unit"], rows[0]["window_start"]) == ("percent", datetime(2025, 9, 10, 8, 41))


def test_recorded_counts_of_an_endpoint_are_text_on_the_wire_and_numbers_here(data: Path) -> None:
    query = next(each for each in QUERIES if each.mapping.native.endswith("prediction_count"))
    rows = _measured(_one(data, "vertexai_endpoint_metrics", "timeSeries"), query, datetime(2026, 7, 8, tzinfo=UTC))
    assert [(row["resource_id"], row["metric_name"], row["value"]) for row in rows] == [
        ("endpoints/c7n-endpoint-default-7509", "invocations", 2.0)
    ]


def test_every_recorded_time_series_answer_is_read_and_an_empty_one_has_no_rows(data: Path) -> None:
    spanner = MetricQuery(MetricMapping("spanner.googleapis.com/instance/cpu/utilization", "cpu_utilization", "database", 100, ""), {})  # fmt: skip  # noqa: E501
    counts = {}
    for path in _recordings(data, "timeSeries"):
        query = spanner if "resource-name" in path.parent.name else QUERIES[0]
        rows = _measured(_body(path), query, datetime(2025, 9, 10, tzinfo=UTC))
        counts[path.parent.name] = len(rows)
    # series without the label that says which machine or database they are of cannot be told whose they are
    assert counts == {
        "filter-metrics": 0, "filter-metrics-resource-name": 0, "filter-no-metrics": 0,
        "filter-metrics-with-metric-key-as-instance-id": 1, "vertexai_endpoint_metrics": 0,
    }  # fmt: skip
