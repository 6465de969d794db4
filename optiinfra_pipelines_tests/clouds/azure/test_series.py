"""Reading metric values: what is a row and what is none."""

from datetime import UTC, datetime, timedelta
from time import process_time
from typing import Any

import pytest

from optiinfra_pipelines.clouds.azure.series import guest_table, metric_table
from optiinfra_pipelines.clouds.azure.vocabulary import MAPPINGS, READINGS, STATES, size_gpu
from optiinfra_pipelines.clouds.vocabulary import METRICS
from optiinfra_pipelines.clouds.vocabulary import STATES as KNOWN_STATES
from optiinfra_pipelines.windows import Window

START = datetime(2026, 11, 19, 10, tzinfo=UTC)
SPAN = Window(START, START + timedelta(hours=1))
ID = "/subscriptions/S/resourceGroups/RG/providers/Microsoft.Compute/virtualMachines/VM"


def _value(name: str, points: list[dict[str, Any]]) -> dict[str, Any]:
    series = [{"metadatavalues": [], "data": points}]
    return {"resourceid": ID, "value": [{"name": {"value": name}, "timeseries": series}]}


def _at(minutes: int, **values: float | None) -> dict[str, Any]:
    return {"timeStamp": f"{START + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}", **values}


def _read(name: str, *points: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = metric_table([_value(name, list(points))], "machine", SPAN).to_pylist()
    return rows


def test_trap_absent_metric_is_not_zero() -> None:
    rows = _read("Network In Total", _at(0), _at(15, total=None), _at(30, total=0.0))
    assert [(row["window_start"].minute, row["value"]) for row in rows] == [(30, 0.0)]


def test_trap_datapoint_order_does_not_matter() -> None:
    points = [_at(30, total=3.0), _at(0, total=1.0), _at(15, total=2.0)]
    rows = _read("Network In Total", *points)
    assert {row["window_start"].minute: row["value"] for row in rows} == {0: 1.0, 15: 2.0, 30: 3.0}


def test_trap_percent_stays_percent() -> None:
    [row] = _read("Percentage CPU", _at(0, average=52.5))
    assert (row["value"], row["unit"]) == (52.5, "percent")


def test_windows_outside_the_span_are_left_out() -> None:
    rows = _read("Network In Total", _at(-15, total=1.0), _at(0, total=1.0), _at(45, total=1.0), _at(60, total=1.0))
    assert [row["window_start"].minute for row in rows] == [0, 45]


def test_the_most_memory_used_is_where_the_least_was_available() -> None:
    rows = _read("Available Memory Percentage", _at(0, average=40.0, minimum=25.0))
    assert {row["statistic"]: row["value"] for row in rows} == {"average": 60.0, "maximum": 75.0}


def test_a_rate_becomes_the_windows_sum() -> None:
    [row] = _read("Disk Read Operations/Sec", _at(0, average=2.0))
    assert (row["metric_name"], row["statistic"], row["value"]) == ("disk_read_operations", "sum", 1800.0)


def test_ids_are_lower_case_and_name_the_subscription() -> None:
    [row] = _read("Network In Total", _at(0, total=1.0))
    assert (row["resource_id"], row["account_id"]) == (ID.lower(), "s")


def test_log_rows_are_read_by_the_names_of_their_columns() -> None:
    columns = ["Window", "Samples", "Maximum", "Average", "Component", "Metric", "Id"]
    row = [f"{START:%Y-%m-%dT%H:%M:%SZ}", 15, 80.0, 70.0, "gpu-0", "gpu_utilization", ID.lower()]
    table = {"name": "PrimaryResult", "columns": [{"name": each} for each in columns], "rows": [row]}
    rows = guest_table({"tables": [table]}, SPAN, {ID.lower()}).to_pylist()
    assert [(each["statistic"], each["value"], each["sample_count"]) for each in rows] == [
        ("average", 70.0, 15),
        ("maximum", 80.0, 15),
    ]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("Standard_NC24ads_A100_v4", "NVIDIA A100 80GB"),
        ("Standard_ND96asr_v4", "NVIDIA A100 40GB"),
        ("Standard_ND96amsr_A100_v4", "NVIDIA A100 80GB"),
        ("Standard_NC64as_T4_v3", "NVIDIA T4 16GB"),
        ("Standard_NC6s_v3", "NVIDIA V100 16GB"),
        ("Standard_ND96isr_H100_v5", "NVIDIA H100 80GB"),
        ("Standard_ND96isr_H200_v5", "NVIDIA H200 141GB"),
        ("Standard_NV36ads_A10_v5", "NVIDIA A10 24GB"),
        ("Standard_ND96isr_MI300X_v5", "AMD MI300X 192GB"),
    ],
)
def test_a_size_names_its_gpu(size: str, expected: str) -> None:
    assert size_gpu(size, 1)[0] == expected


def test_a_part_of_a_gpu_is_a_fraction() -> None:
    assert size_gpu("Standard_NV6ads_A10_v5", 1) == ("NVIDIA A10 24GB", 1 / 6)
    assert size_gpu("Standard_D2s_v5", 0) == (None, None)


def test_every_mapping_speaks_the_vocabulary() -> None:
    for mapping in MAPPINGS:
        assert set(mapping.wanted) <= set(METRICS[mapping.metric].statistics)
        assert mapping.source.startswith("https://learn.microsoft.com/")
    for resource_type, states in STATES.items():
        assert set(states.words.values()) <= set(KNOWN_STATES[resource_type])
    assert all(len(each) <= 20 for each in READINGS.values())  # the most metrics that one getBatch takes


def test_a_state_that_is_not_known_is_kept_as_it_was_written() -> None:
    assert STATES["volume"].state("BrandNew") == "brandnew"


def test_points_are_parsed_fast_enough() -> None:
    points = [_at(15 * number, average=1.0, minimum=1.0, maximum=2.0, total=3.0) for number in range(96)]
    day = Window(START, START + timedelta(days=1))
    names = list(READINGS["machine"])
    values = [
        _value(names[0], points) | {"value": [_value(name, points)["value"][0] for name in names]} for _ in range(50)
    ]
    began = process_time()
    count = metric_table(values, "machine", day).num_rows
    assert count / (process_time() - began) > 200_000
