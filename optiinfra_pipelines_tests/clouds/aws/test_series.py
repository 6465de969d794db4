"""What CloudWatch is asked, and how its answers are read: limits, units, windows."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optiinfra_pipelines.clouds.aws.series import (
    POINTS_PER_REQUEST,
    QUERIES_PER_REQUEST,
    Query,
    batches,
    listed_queries,
    metric_rows,
    queries,
    still_listed,
)
from optiinfra_pipelines.clouds.aws.vocabulary import METRICS
from optiinfra_pipelines.windows import WINDOW, Window

START = datetime(2026, 11, 20, 10, tzinfo=UTC)


def _resource(kind: str, resource_id: str, state: str | None = "running", **details: Any) -> Mapping[str, Any]:
    return {
        "resource_type": kind,
        "resource_id": resource_id,
        "account_id": "111122223333",
        "state": state,
        "storage_gib": 100.0,
        "details": json.dumps(details),
    }


def _listed(name: str, **dimensions: str) -> Mapping[str, Any]:
    pairs = [{"Name": key, "Value": value} for key, value in dimensions.items()]
    return {"Namespace": "CWAgent", "MetricName": name, "Dimensions": pairs}


def _query(scale: float = 1.0, offset: float = 0.0) -> Query:
    return Query(METRICS[0], "111122223333", "i-1", (("InstanceId", "i-1"),), "average", scale=scale, offset=offset)


@given(st.integers(0, 3000), st.integers(1, 2000))
def test_requests_keep_both_limits_and_are_the_fewest(count: int, windows: int) -> None:
    span = Window(START, START + windows * WINDOW)
    found = [len(each) for each in batches([_query()] * count, span)]
    size = min(QUERIES_PER_REQUEST, POINTS_PER_REQUEST // windows)
    assert sum(found) == count
    assert all(each <= size for each in found)
    assert len(found) == -(-count // size)


def test_what_is_stopped_by_now_is_asked_for_and_what_is_gone_or_hangs_on_nothing_is_not() -> None:
    stopped = [
        _resource("machine", "i-1", "stopped"),
        _resource("database", "arn:aws:rds:us-east-1:1:db:x", "stopped"),
    ]
    others = [
        _resource("machine", "i-2", "terminated"),
        _resource("volume", "vol-1", "unattached"),
        _resource("snapshot", "snap-1", "available"),
    ]
    found = {each.resource_id for each in queries([*stopped, *others])}
    assert found == {each["resource_id"] for each in stopped}


def test_an_agents_metrics_are_listed_of_the_last_hours_for_a_tick_and_of_all_weeks_for_a_backfill() -> None:
    span = Window(START, START + WINDOW)
    assert still_listed(span, START + timedelta(hours=2)) == {"RecentlyActive": "PT3H"}
    assert still_listed(span, START + timedelta(days=3)) == {}


def test_a_xen_machine_is_not_asked_for_its_ebs_metrics() -> None:
    names = {each.mapping.metric for each in queries([_resource("machine", "i-1", hypervisor="xen")])}
    assert names == {"cpu_utilization", "network_in_bytes", "network_out_bytes"}


def test_the_most_that_was_used_is_what_was_left_at_least() -> None:
    found = [
        each
        for each in queries([_resource("database", "arn:aws:rds:us-east-1:1:db:orders")])
        if each.mapping.metric == "storage_used_bytes"
    ]
    assert [(each.statistic, each.asked(0)["MetricStat"]["Stat"]) for each in found] == [
        ("average", "Average"),
        ("maximum", "Minimum"),
    ]
    answer = {"Id": "q0", "Timestamps": [START], "Values": [40.0 * 2**30], "StatusCode": "Complete"}
    [row] = metric_rows(found, [answer], Window(START, START + WINDOW)).to_pylist()
    assert row["value"] == 60.0 * 2**30
    assert found[0].dimensions == (("DBInstanceIdentifier", "orders"),)


def test_percent_is_not_taken_for_a_fraction() -> None:
    answer = {"Id": "q0", "Timestamps": [START], "Values": [0.7], "StatusCode": "Complete"}
    [row] = metric_rows([_query()], [answer], Window(START, START + WINDOW)).to_pylist()
    assert (row["value"], row["unit"]) == (0.7, "percent")


def test_milliseconds_become_seconds() -> None:
    [duration, _] = [
        each
        for each in queries([_resource("function", "arn:aws:lambda:us-east-1:1:function:ingest", None)])
        if each.mapping.metric == "duration_seconds"
    ]
    answer = {"Id": "q0", "Timestamps": [START], "Values": [350.0], "StatusCode": "Complete"}
    [row] = metric_rows([duration], [answer], Window(START, START + WINDOW)).to_pylist()
    assert (row["value"], row["unit"]) == (pytest.approx(0.35, rel=1e-12), "seconds")


def test_pages_of_one_series_are_joined_by_id_in_any_datapoint_order() -> None:
    times = [START + number * WINDOW for number in range(4)]
    pages: list[Mapping[str, Any]] = [
        {"Id": "q1", "Timestamps": times[:1:-1], "Values": [4.0, 3.0], "StatusCode": "PartialData"},
        {"Id": "q0", "Timestamps": [], "Values": [], "StatusCode": "Complete"},
        {"Id": "q1", "Timestamps": times[:2], "Values": [1.0, 2.0], "StatusCode": "Complete"},
    ]
    rows = metric_rows([_query(), _query(2.0)], pages, Window(START, START + 4 * WINDOW)).to_pylist()
    assert {row["window_start"].replace(tzinfo=UTC): row["value"] for row in rows} == {
        at: 2.0 * number for number, at in enumerate(times, 1)
    }


def test_an_absent_metric_is_no_zero() -> None:
    nothing = {"Id": "q0", "Timestamps": [], "Values": [], "StatusCode": "Complete"}
    assert metric_rows([_query()], [nothing], Window(START, START + WINDOW)).num_rows == 0
    assert metric_rows([], [], Window(START, START + WINDOW)).num_rows == 0


def test_only_windows_of_the_span_are_returned_whatever_clock_wrote_the_points() -> None:
    times = [START - WINDOW, START, START + WINDOW, START + timedelta(days=3)]
    answer = {"Id": "q0", "Timestamps": times, "Values": [1.0, 2.0, 3.0, 4.0], "StatusCode": "Complete"}
    rows = metric_rows([_query()], [answer], Window(START, START + WINDOW)).to_pylist()
    assert [row["value"] for row in rows] == [2.0]


def test_a_metric_sent_in_coarser_groups_too_is_asked_for_once() -> None:
    disk = {"InstanceId": "i-1", "path": "/", "device": "nvme0n1p1", "fstype": "xfs"}
    listed = [_listed("disk_used_percent", InstanceId="i-1"), _listed("disk_used_percent", **disk)]
    found = list(listed_queries(listed, "111122223333", [_resource("machine", "i-1")]))
    assert {each.dimensions for each in found} == {tuple(disk.items())}
    assert [each.statistic for each in found] == ["average", "maximum"]


def test_memory_file_systems_are_no_disks_and_other_paths_are_components() -> None:
    listed = [
        _listed("disk_used_percent", InstanceId="i-1", path=path, fstype=kind)
        for path, kind in (("/", "xfs"), ("/data", "ext4"), ("/dev/shm", "tmpfs"))
    ]
    found = list(listed_queries(listed, "111122223333", [_resource("machine", "i-1")]))
    assert {each.component for each in found} == {"", "/data"}


def test_gpu_memory_is_a_share_of_the_cards_memory() -> None:
    machine = _resource("machine", "i-1", gpu_memory_mib=20000)
    found = list(listed_queries([_listed("nvidia_smi_memory_used", InstanceId="i-1", index="3")], "1", [machine]))
    answer = {"Id": "q0", "Timestamps": [START], "Values": [5000.0], "StatusCode": "Complete"}
    [row] = metric_rows(found, [answer], Window(START, START + WINDOW)).to_pylist()
    assert (row["metric_name"], row["component"], row["value"]) == ("gpu_memory_utilization", "gpu-3", 25.0)


def test_an_agent_on_a_machine_that_is_not_ours_is_left_out() -> None:
    assert list(listed_queries([_listed("mem_used_percent", InstanceId="i-9")], "1", [])) == []
