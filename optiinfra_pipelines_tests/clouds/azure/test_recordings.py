"""The parsers over every recorded answer and documented example of the services that are collected."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from optiinfra_pipelines.clouds.azure.bill import charges_of
from optiinfra_pipelines.clouds.azure.parser import Known, inventory_rows, kind_of
from optiinfra_pipelines.clouds.azure.series import metric_table
from optiinfra_pipelines.tables.cloud import INVENTORY
from optiinfra_pipelines.windows import Window

_KEPT = {
    "microsoft.compute/virtualmachines": "machine",
    "microsoft.compute/disks": "volume",
    "microsoft.compute/snapshots": "snapshot",
    "microsoft.compute/images": "image",
    "microsoft.network/publicipaddresses": "ip_address",
    "microsoft.sql/servers/databases": "database",
}


def _bodies(folder: Path, number: Callable[[str], Any] = float) -> Iterator[tuple[str, Any]]:
    for path in sorted(folder.glob("*.json")):
        recorded = json.loads(path.read_text(), parse_float=number)
        for interaction in recorded.get("interactions", ()):
            body = interaction["response"]["body"]
            yield f"{path.stem} {interaction['request']['uri']}", body.get("data") if isinstance(body, dict) else body


@pytest.fixture(scope="module")
def recorded(data: Path) -> list[tuple[str, Any]]:
    return list(_bodies(data / "finops" / "c7n_recordings" / "azure"))


def _records(body: Any) -> list[dict[str, Any]]:
    """The records of a list, of one resource, or of a Resource Graph answer in either of its two formats."""
    if not isinstance(body, dict):
        return []
    found: Any = body.get("value", body.get("data", [body]))
    if isinstance(found, dict):
        names = [column["name"] for column in found["columns"]]
        found = [dict(zip(names, row, strict=True)) for row in found["rows"]]
    return [each for each in found if isinstance(each, dict) and each.get("id") and kind_of(each)]


def test_every_recorded_resource_becomes_its_row(recorded: list[tuple[str, Any]]) -> None:
    counted: dict[str, int] = {}
    for _, body in recorded:
        records = _records(body)
        known = Known()
        known.read(records)
        wanted = [each for each in records if kind_of(each) in _KEPT and "system" not in (each.get("kind") or "")]
        rows = list(inventory_rows(records, known))
        assert [(row["resource_id"], row["resource_type"]) for row in rows] == [
            (each["id"].lower(), _KEPT[kind_of(each)]) for each in wanted
        ]
        columns = {column.name for column in INVENTORY["azure"].columns}
        for row in rows:
            assert row.keys() <= columns
            assert row["account_id"] == row["account_id"].lower()
            counted[row["resource_type"]] = counted.get(row["resource_type"], 0) + 1
    assert counted.keys() == set(_KEPT.values()) - {"image"}


def test_recorded_fields_are_read(recorded: list[tuple[str, Any]]) -> None:
    rows: dict[str, dict[str, Any]] = {}
    for _, body in recorded:
        records = _records(body)
        known = Known()
        known.read(records)
        for row in inventory_rows(records, known):
            rows.setdefault(row["resource_id"].rpartition("/")[2], row)
    database = rows["cctestdb"]
    assert (database["native_type"], database["state"], database["vcpus"]) == ("P1", "running", None)
    assert json.loads(database["details"])["dtus"] == 125
    assert rows["cclongtermretentiondb"]["storage_gib"] == 250
    disk = rows["cctestvm_disk2_a9097edcfa664ff48c8e88e87d72003e"]
    assert (disk["state"], disk["attached_to"], disk["storage_gib"]) == ("unattached", None, 1023)
    assert disk["created_at"] == datetime(2019, 5, 1, 21, 50, 23, 627047)
    snapshot = rows["testsnapshot"]
    assert (snapshot["state"], snapshot["storage_gib"]) == ("available", 30)
    assert rows["k8s-master-ip-cctestacsdnsmgmt-c02b7042"]["state"] == "attached"
    assert rows["cctestvm"]["native_type"]


def test_trap_id_case(recorded: list[tuple[str, Any]]) -> None:
    """One machine is written TEST_VM in one answer and test_vm in another, and is one resource."""
    ids = {each["id"] for _, body in recorded for each in _records(body) if each["id"].lower().endswith("/cctestvm")}
    assert len(ids) > len({each.lower() for each in ids})


def test_every_recorded_metric_answer_is_read_and_a_days_point_is_no_window(recorded: list[tuple[str, Any]]) -> None:
    whole = Window(datetime(2019, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    read = 0
    for uri, body in recorded:
        if "insights/metrics" not in uri or "value" not in body:
            continue
        for metric in body["value"]:
            resource = metric["id"].partition("/providers/Microsoft.Insights")[0]
            metric["name"]["value"] = "Network In Total"
            points = [point for series in metric["timeseries"] for point in series["data"]]
            read += len(points)
            asked = [{"resourceid": resource, "value": [metric]}]
            if points and points[0]["timeStamp"].endswith(":59:00Z"):
                assert metric_table(asked, "machine", whole).num_rows == 0
            for point in points:  # the same points on a window's start, where they have a total
                point["timeStamp"] = point["timeStamp"].replace(":59:00Z", ":45:00Z")
            totals = [point["total"] for point in points if point.get("total") is not None]
            assert metric_table(asked, "machine", whole).column("value").to_pylist() == totals
    assert read > 10


def test_the_documented_batch_answer_is_read(data: Path) -> None:
    example = json.loads((data / "finops" / "azure_examples" / "Monitor_metrics_getBatch.json").read_text())
    values = example["response"]["values"]
    renamed = json.loads(json.dumps(values).replace('"value": "Ingress"', '"value": "Network In Total"'))
    for value in renamed:
        for point in value["value"][0]["timeseries"][0]["data"]:
            point["total"] = point.pop("average", None)
    span = Window(datetime(2023, 2, 1, 20, tzinfo=UTC), datetime(2023, 2, 1, 21, tzinfo=UTC))
    rows = metric_table(renamed, "machine", span).to_pylist()
    assert [row["window_start"].minute for row in rows] == [0, 15, 30, 45]
    assert rows[1]["value"] == 438.0735294117647
    assert rows[0]["component"] == "GetBlob"
    assert rows[0]["resource_id"].endswith(
        "/resourcegroups/testgroup/providers/microsoft.storage/storageaccounts/teststorage1"
    )


def test_recorded_costs_are_exact(data: Path) -> None:
    exact = _bodies(data / "finops" / "c7n_recordings" / "azure", Decimal)
    bodies = [body for uri, body in exact if "CostManagement/query" in uri]
    example = json.loads(
        (data / "finops/azure_examples/CostManagement_Query_grouping.json").read_text(), parse_float=Decimal
    )
    bodies.append(example["response"])
    assert len(bodies) == 3
    for body in bodies:
        rows = list(charges_of(body["properties"]))
        total = sum(Decimal(each["PreTaxCost"]) for each in rows)
        assert total == sum(Decimal(row[0]) for row in body["properties"]["rows"])
        assert {each["Currency"] for each in rows} == {"USD"}
    assert Decimal("19.545363672276512") in {
        each["PreTaxCost"] for each in charges_of(example["response"]["properties"])
    }
