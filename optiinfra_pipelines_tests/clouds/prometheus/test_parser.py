"""A matrix becomes rows: windows by their start, machines by what their label says, and nothing that is no number."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from optiinfra_pipelines.clouds.collecting import collected_schema
from optiinfra_pipelines.clouds.prometheus.parser import (
    Machine,
    machines_by_label,
    parse_matrix,
    unknown_hosts,
    window_ends,
)
from optiinfra_pipelines.tables.cloud import METRICS
from optiinfra_pipelines.windows import WINDOW, Window

START = datetime(2026, 11, 19, 12, tzinfo=UTC)
SPAN = Window(START, START + 4 * WINDOW)
SECONDS = int(START.timestamp())
TABLE = METRICS["vultr"]
KNOWN = {each: Machine("", each, "machine") for each in ("a", "b")}


def machine_row(resource_id: str, name: str | None = None, **details: Any) -> dict[str, Any]:
    return {
        "account_id": "",
        "resource_id": resource_id,
        "resource_type": "machine",
        "name": name,
        "details": json.dumps(details),
    }


def series(machine: str, *points: tuple[int, str], metric: str = "cpu_utilization/average", **labels: str) -> Any:
    return {"metric": {"machine": machine, "metric": metric, **labels}, "values": [list(point) for point in points]}


def parsed(*result: Any, machines: dict[str, Machine] | None = None) -> list[dict[str, Any]]:
    table = parse_matrix(result, KNOWN if machines is None else machines, SPAN, TABLE, "test")
    assert table.schema == collected_schema(TABLE)
    return table.to_pylist()


def test_a_point_at_the_end_of_a_window_is_of_that_window() -> None:
    rows = parsed(series("a", (SECONDS + 900, "12.5"), (SECONDS + 3600, "13")))
    assert [(row["window_start"], row["window_seconds"], row["value"]) for row in rows] == [
        (datetime(2026, 11, 19, 12, 0), 900, 12.5),
        (datetime(2026, 11, 19, 12, 45), 900, 13.0),
    ]


def test_points_outside_the_span_are_no_rows() -> None:
    assert parsed(series("a", (SECONDS, "1"), (SECONDS + 4500, "2"))) == []


def test_an_absent_metric_is_not_zero_and_nan_and_infinities_are_no_rows() -> None:
    assert parsed() == []
    assert parsed(series("a")) == []
    written = [(SECONDS + 900, "NaN"), (SECONDS + 1800, "+Inf"), (SECONDS + 2700, "-Inf"), (SECONDS + 3600, "0")]
    assert [row["value"] for row in parsed(series("a", *written))] == [0.0]


def test_the_order_of_points_and_series_does_not_matter() -> None:
    forth = parsed(series("a", (SECONDS + 900, "1"), (SECONDS + 1800, "2")), series("b", (SECONDS + 900, "3")))
    back = parsed(series("b", (SECONDS + 900, "3")), series("a", (SECONDS + 1800, "2"), (SECONDS + 900, "1")))
    assert sorted(map(str, forth)) == sorted(map(str, back))


def test_gpus_are_components_by_number_and_models_by_name() -> None:
    rows = parsed(
        series("a", (SECONDS + 900, "1"), metric="gpu_utilization/maximum", gpu="3"),
        series("a", (SECONDS + 900, "2"), metric="kv_cache_utilization/average", model_name="llama"),
    )
    assert [(row["metric_name"], row["statistic"], row["component"], row["unit"]) for row in rows] == [
        ("gpu_utilization", "maximum", "gpu-3", "percent"),
        ("kv_cache_utilization", "average", "llama", "percent"),
    ]


def test_a_label_finds_its_machine_by_id_name_or_address_in_any_case() -> None:
    machines = machines_by_label(
        [
            machine_row("i-1", "API-1", private_ips=["10.0.0.1"], public_ips=["192.0.2.1", "2001:DB8::1"]),
            machine_row("i-2", None),
        ]
    )
    for label in ("I-1", "api-1", "10.0.0.1", "192.0.2.1", "[2001:db8::1]"):
        [row] = parsed(series(label, (SECONDS + 900, "1")), machines=machines)
        assert row["resource_id"] == "i-1"


def test_a_host_that_no_known_machine_has_is_no_row_and_is_told_once() -> None:
    result = [
        series("Other-Customers-Box", (SECONDS + 900, "1")),
        series("other-customers-box", (SECONDS + 900, "1"), metric="memory_utilization/average"),
        series("a", (SECONDS + 900, "1")),
        series("", (SECONDS + 900, "1")),
    ]
    assert [row["resource_id"] for row in parsed(*result)] == ["a"]
    assert unknown_hosts(result, KNOWN) == {"other-customers-box"}


def test_a_word_that_names_two_machines_names_none_and_an_id_comes_before_a_name() -> None:
    machines = machines_by_label(
        [
            machine_row("i-1", "twin", private_ips=["10.0.0.1"]),
            machine_row("i-2", "twin", private_ips=["10.0.0.1"]),
            machine_row("i-3", "i-1"),
        ]
    )
    assert "twin" not in machines
    assert "10.0.0.1" not in machines
    assert machines["i-1"].resource_id == "i-1"


def test_what_is_no_machine_lends_no_name() -> None:
    database = machine_row("db-1", "orders") | {"resource_type": "database"}
    assert machines_by_label([database]) == {}


def test_a_series_without_a_machine_or_of_no_query_is_left_out() -> None:
    assert parsed(series("", (SECONDS + 900, "1")), series("a", (SECONDS + 900, "1"), metric="up/average")) == []


@given(st.lists(st.tuples(st.integers(1, 4), st.floats()), max_size=8))
def test_rows_are_exactly_the_finite_points(points: list[tuple[int, float]]) -> None:
    rows = parsed(series("a", *((SECONDS + 900 * place, repr(value)) for place, value in points)))
    kept = [(START + (place - 1) * WINDOW, value) for place, value in points if value - value == 0]
    assert [(row["window_start"].replace(tzinfo=UTC), row["value"]) for row in rows] == kept


@given(st.integers(1, 2000))
def test_a_span_of_windows_is_asked_for_by_as_many_points(count: int) -> None:
    start, end = window_ends(Window(START, START + count * WINDOW))
    assert (end - start) // timedelta(seconds=900) + 1 == count
    assert start - WINDOW == START
