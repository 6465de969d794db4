"""Time series of Cloud Monitoring as rows: what the wire does that a reader may get wrong."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optiinfra_pipelines.clouds.gcp.series import Points, gpu_memory_tables, metric_tables
from optiinfra_pipelines.clouds.gcp.vocabulary import GPU_MEMORY, QUERIES, MetricQuery
from optiinfra_pipelines.windows import Window

START = datetime(2026, 11, 20, 10, tzinfo=UTC)
SPAN = Window(START, START + timedelta(hours=1))
CPU = QUERIES[0]
ANYWHERE: frozenset[str] = frozenset()


def _query(ending: str) -> MetricQuery:
    return next(each for each in QUERIES if each.mapping.native.endswith(ending))


def _point(minutes: int, **value: Any) -> dict[str, Any]:
    end = f"{START + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}"
    return {"interval": {"startTime": end, "endTime": end}, "value": value}


def _series(points: list[dict[str, Any]], machine: str = "1", zone: str = "us-central1-a", **labels: str) -> Any:
    resource = {"type": "gce_instance", "labels": {"instance_id": machine, "zone": zone, "project_id": "p"}}
    return {"metric": {"labels": labels, "type": ""}, "resource": resource, "points": points}


def _rows(query: MetricQuery, *pages: Any, regions: frozenset[str] = ANYWHERE, devices: Any = None) -> list[Any]:
    points = Points()
    for page in pages:
        points.add(page, "p", query, regions)
    tables = metric_tables(query, query.mapping.wanted[0], points, SPAN, devices or {})
    return [row for table in tables for row in table.to_pylist()]


def _values(rows: list[Any]) -> list[tuple[int, float]]:
    begin = START.replace(tzinfo=None)
    return sorted((int((row["window_start"] - begin).total_seconds() // 60), row["value"]) for row in rows)


def test_a_fraction_becomes_percent_and_a_percentage_stays_as_it_is() -> None:
    series = [_series([_point(15, doubleValue=0.5)])]
    assert _values(_rows(CPU, {"timeSeries": series, "unit": "10^2.%"})) == [(0, 50.0)]
    memory = _query("memory/percent_used")
    assert _values(_rows(memory, {"timeSeries": series, "unit": "%"})) == [(0, 0.5)]


def test_the_end_of_a_window_on_the_wire_is_its_start_here_and_windows_outside_the_span_are_left_out() -> None:
    ends = [75, 60, 45, 15, 0]  # newest first; the first and the last are of windows that start outside
    page = {"timeSeries": [_series([_point(end, doubleValue=1.0) for end in ends])], "unit": "10^2.%"}
    assert _values(_rows(CPU, page)) == [(0, 100.0), (30, 100.0), (45, 100.0)]


def test_a_series_goes_on_in_the_next_page() -> None:
    first = {"timeSeries": [_series([_point(60, doubleValue=0.4), _point(45, doubleValue=0.3)])], "unit": "10^2.%"}
    second = {"timeSeries": [_series([_point(30, doubleValue=0.2)])], "unit": "10^2.%"}
    assert _values(_rows(CPU, first, second)) == [(15, 20.0), (30, 30.0), (45, 40.0)]


def test_absent_metric_is_no_row_and_a_true_zero_is_one() -> None:
    page = {"timeSeries": [_series([_point(30), _point(15, int64Value="0")])], "unit": "By"}
    assert _values(_rows(_query("received_bytes_count"), page)) == [(0, 0.0)]
    assert _rows(CPU, {"unit": "10^2.%"}) == []
    assert _rows(CPU, {"timeSeries": [_series([_point(15, doubleValue="NaN")])], "unit": "10^2.%"}) == []


def test_a_machines_disk_counter_is_the_sum_of_its_devices_and_a_disks_is_its_own() -> None:
    page = {
        "timeSeries": [
            _series([_point(15, int64Value="100")], device_name="persistent-disk-0"),
            _series([_point(15, int64Value="7")], device_name="data"),
        ],
        "unit": "By",
    }
    rows = _rows(_query("disk/read_bytes_count"), page, devices={("1", "data"): "900"})
    assert {(row["resource_type"], row["resource_id"], row["value"]) for row in rows} == {
        ("machine", "1", 107.0),
        ("volume", "900", 7.0),
    }
    assert {row["component"] for row in rows} == {""}


def test_file_systems_are_told_apart_and_what_is_no_disk_is_left_out() -> None:
    devices = ("/dev/sda1", "sdb", "loop3", "/dev/loop12", "tmpfs")
    page = {"timeSeries": [_series([_point(15, doubleValue=50.0)], device=each) for each in devices], "unit": "%"}
    assert sorted(row["component"] for row in _rows(_query("disk/percent_used"), page)) == ["/dev/sda1", "sdb"]


def test_gpu_memory_in_percent_takes_the_whole_from_the_averages() -> None:
    def answered(used: float, free: float) -> Points:
        points = Points()
        parts = {"used": used, "free": free}
        page = {
            "timeSeries": [
                _series([_point(15, doubleValue=each)], gpu_number="0", memory_state=state)
                for state, each in parts.items()
            ],
            "unit": "By",
        }
        points.add(page, "p", _query(GPU_MEMORY), ANYWHERE)
        return points

    # at most 60 of 100 were used and at most 90 free, at different moments
    tables = gpu_memory_tables(answered(30, 70), answered(60, 90), SPAN)
    rows = [row for table in tables for row in table.to_pylist()]
    assert [(row["statistic"], row["component"], row["value"]) for row in rows] == [
        ("average", "gpu-0", 30.0),
        ("maximum", "gpu-0", 60.0),
    ]


def test_series_of_regions_that_are_not_collected_are_left_out() -> None:
    series = [
        _series([_point(15, doubleValue=0.1)], "1"),
        _series([_point(15, doubleValue=0.1)], "2", "europe-west4-a"),
    ]
    rows = _rows(CPU, {"timeSeries": series, "unit": "10^2.%"}, regions=frozenset({"us-central1"}))
    assert [row["resource_id"] for row in rows] == ["1"]


@given(order=st.permutations(range(1, 5)))
def test_datapoint_order_does_not_matter(order: list[int]) -> None:
    page = {"timeSeries": [_series([_point(15 * each, doubleValue=each / 100) for each in order])], "unit": "10^2.%"}
    assert _values(_rows(CPU, page)) == [(15 * (each - 1), pytest.approx(float(each))) for each in range(1, 5)]


def test_points_are_parsed_at_200_000_a_second_and_core() -> None:
    end = START + timedelta(hours=1)
    ends = [f"{end - timedelta(minutes=15 * number):%Y-%m-%dT%H:%M:%SZ}" for number in range(4)]
    points = [{"interval": {"startTime": each, "endTime": each}, "value": {"doubleValue": 0.5}} for each in ends]
    page = {"timeSeries": [_series(points, str(number)) for number in range(20_000)], "unit": "10^2.%"}
    began = time.process_time()
    rows = Points()
    rows.add(page, "p", CPU, ANYWHERE)
    (table,) = metric_tables(CPU, "average", rows, SPAN, {})
    rate = table.num_rows / (time.process_time() - began)
    assert table.num_rows == 80_000
    assert rate > 200_000
