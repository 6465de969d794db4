"""A customer's day collected from the sandbox's clouds into a warehouse: what is due, once, whatever happens."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pyarrow as pa
import pytest

from optiinfra_pipelines.clouds.collecting import Findings, naive_utc
from optiinfra_pipelines.clouds.collection import Attempt, Kind, collect_day, days_with_gaps, judge
from optiinfra_pipelines.customers import Customers
from optiinfra_pipelines.sandbox.clouds import Clouds, serve_clouds
from optiinfra_pipelines.sandbox.fleet import Fleet
from optiinfra_pipelines.sandbox.gate import FAULTS_PATH
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.tables.cloud import INVENTORY, METRICS, PRICES
from optiinfra_pipelines.tables.operations import API_CALLS, COLLECTION_RUNS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import DAY, WINDOW, Window

NOW = datetime(2026, 11, 20, 0, 46, tzinfo=UTC)
TODAY = Window(NOW.replace(hour=0, minute=0), NOW.replace(hour=0, minute=0) + DAY)


@pytest.fixture(scope="module")
def clouds() -> Iterator[Clouds]:
    with serve_clouds(Fleet(NOW.date(), clouds=("vultr",))) as running:
        yield running


@pytest.fixture
def customers(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> Customers:
    for name, value in clouds.environment().items():
        monkeypatch.setenv(name, value)
    content = [{"id": each, "name": each, "connections": clouds.connections(each)} for each in clouds.fleet.customers]
    return Customers.model_validate({"customers": content})


@pytest.fixture(autouse=True)
def healed(clouds: Clouds) -> Iterator[None]:
    yield
    for url in clouds.urls.values():
        httpx.delete(url + FAULTS_PATH)


def collect(warehouse: Warehouse, customers: Customers, kind: Kind, now: datetime = NOW) -> list[Attempt]:
    found = []
    for customer in customers.customers:
        settings = Settings(api_attempts=1, api_timeout=5)
        found += collect_day(warehouse, settings, customer, "vultr", kind, TODAY, now)
    return found


def rows(warehouse: Warehouse, kind: Kind, condition: str = "1 = 1") -> list[dict[str, Any]]:
    table = {"metrics": METRICS, "inventory": INVENTORY}[kind]["vultr"]
    return warehouse.query(f"SELECT * FROM {warehouse.current(table)} t WHERE {condition}").to_pylist()


def runs(warehouse: Warehouse, kind: Kind) -> list[tuple[str, str, str]]:
    found = warehouse.query(
        f"SELECT customer_id, window_start, status FROM {warehouse.name(COLLECTION_RUNS)} r"
        " WHERE kind = $kind ORDER BY customer_id, started_at, window_start",
        {"kind": kind},
    ).to_pylist()
    return [(row["customer_id"], f"{row['window_start']:%H:%M}", row["status"]) for row in found]


def test_each_tick_collects_what_is_due_and_a_second_one_asks_for_nothing(
    warehouse: Warehouse, customers: Customers, clouds: Clouds
) -> None:
    assert all(attempt.error is None for attempt in collect(warehouse, customers, "inventory"))
    first = collect(warehouse, customers, "metrics")
    assert [(attempt.error, len(attempt.windows)) for attempt in first] == [(None, 3), (None, 3)]
    held = len(rows(warehouse, "metrics"))
    assert held == sum(attempt.rows for attempt in first) > 0
    second = collect(warehouse, customers, "metrics")
    assert [(attempt.windows, attempt.requests) for attempt in second] == [([], 0), ([], 0)]
    assert len(rows(warehouse, "metrics")) == held


def test_a_window_that_has_settled_is_read_again_and_no_row_doubles(warehouse: Warehouse, customers: Customers) -> None:
    collect(warehouse, customers, "inventory")
    collect(warehouse, customers, "metrics")
    before = rows(warehouse, "metrics", "window_start = TIMESTAMP '2026-11-20 00:00:00'")
    later = collect(warehouse, customers, "metrics", NOW + timedelta(minutes=30))
    assert [f"{window.start:%H:%M}" for window in later[0].windows] == ["00:00", "00:45", "01:00"]
    after = rows(warehouse, "metrics", "window_start = TIMESTAMP '2026-11-20 00:00:00'")
    assert len(after) == len(before)
    assert {row["collected_at"] for row in after} == {NOW + timedelta(minutes=30)}


def test_a_failed_tick_is_recorded_leaves_the_others_be_and_the_next_one_fills_the_gap_once(
    warehouse: Warehouse, customers: Customers, clouds: Clouds
) -> None:
    collect(warehouse, customers, "inventory")
    fault = {"kind": "status", "status": 503, "times": 1, "match": "/acme/"}
    httpx.post(clouds.urls["prometheus"] + FAULTS_PATH, json={**fault, "times": 3}).raise_for_status()
    acme, globex = collect(warehouse, customers, "metrics")
    assert acme.error is not None
    assert (acme.error.kind, globex.error) == ("transient", None)  # type: ignore[union-attr]
    assert runs(warehouse, "metrics")[:3] == [("acme", f"00:{minute}", "failed") for minute in ("00", "15", "30")]
    acme, globex = collect(warehouse, customers, "metrics", NOW + timedelta(minutes=1))
    assert (acme.error, len(acme.windows), globex.windows) == (None, 3, [])
    assert len(rows(warehouse, "metrics", "customer_id = 'acme'")) == len(
        rows(warehouse, "metrics", "customer_id = 'globex'")
    )
    assert collect(warehouse, customers, "metrics", NOW + timedelta(minutes=2))[0].windows == []


def test_a_service_that_is_denied_fails_alone_and_what_else_was_listed_is_kept(
    warehouse: Warehouse, customers: Customers, clouds: Clouds
) -> None:
    fault = {"kind": "status", "status": 403, "match": "/v2/databases"}
    httpx.post(clouds.urls["vultr"] + FAULTS_PATH, json=fault).raise_for_status()
    acme, _ = collect(warehouse, customers, "inventory")
    assert getattr(acme.error, "kind", None) == "auth"
    kinds = {row["resource_type"] for row in rows(warehouse, "inventory", "customer_id = 'acme'")}
    assert kinds == {"machine", "volume", "snapshot", "ip_address"}
    collect(warehouse, customers, "inventory", NOW + timedelta(minutes=1))
    assert rows(warehouse, "inventory", "customer_id = 'acme' AND resource_type = 'database'")


def test_a_customer_only_gets_rows_of_its_own(warehouse: Warehouse, customers: Customers, clouds: Clouds) -> None:
    collect(warehouse, customers, "inventory")
    own = {(each.customer_id, each.resource_id) for each in clouds.fleet.resources}
    assert {(row["customer_id"], row["resource_id"]) for row in rows(warehouse, "inventory")} <= own


def test_calls_are_counted_for_each_customer(warehouse: Warehouse, customers: Customers) -> None:
    attempts = collect(warehouse, customers, "inventory")
    counted = warehouse.query(
        f"SELECT customer_id, sum(calls) AS calls FROM {warehouse.name(API_CALLS)} c GROUP BY 1 ORDER BY 1"
    ).to_pylist()
    assert [int(row["calls"]) for row in counted] == [attempt.requests for attempt in attempts]


def test_every_connection_of_one_provider_is_written(
    warehouse: Warehouse, customers: Customers, clouds: Clouds
) -> None:
    entries = [{**clouds.connections("acme")[0], "id": f"vultr-{number}"} for number in range(3)]
    many = Customers.model_validate({"customers": [{"id": "acme", "name": "acme", "connections": entries}]})
    attempts = collect(warehouse, many, "inventory")
    assert [(attempt.error, attempt.rows > 0) for attempt in attempts] == [(None, True)] * 3
    assert {row["connection_id"] for row in rows(warehouse, "inventory")} == {"vultr-0", "vultr-1", "vultr-2"}


def test_a_mistake_in_one_reader_is_that_connections_failure_and_shows_no_value(
    warehouse: Warehouse, customers: Customers, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optiinfra_pipelines.clouds.vultr.collector import VultrCollector

    real, calls = VultrCollector.inventory, iter(range(9))

    def broken(self: VultrCollector) -> Any:
        if next(calls) == 0:
            raise KeyError("canary-value-of-an-answer")
        return real(self)

    monkeypatch.setattr(VultrCollector, "inventory", broken)
    acme, globex = collect(warehouse, customers, "inventory")
    assert globex.error is None
    assert "KeyError in test_collection.py" in str(acme.error)
    assert "canary" not in str(acme.error)
    assert ("acme", "00:45", "failed") in runs(warehouse, "inventory")


def test_metrics_wait_for_the_first_inventory_and_lose_nothing(warehouse: Warehouse, customers: Customers) -> None:
    acme, _ = collect(warehouse, customers, "metrics")
    assert "there is none yet" in str(acme.error)
    collect(warehouse, customers, "inventory")
    acme, _ = collect(warehouse, customers, "metrics", NOW + timedelta(minutes=1))
    assert (acme.error, len(acme.windows)) == (None, 3)


def test_a_gap_of_an_earlier_day_is_found_until_it_is_filled(warehouse: Warehouse, customers: Customers) -> None:
    collect(warehouse, customers, "inventory")
    collect(warehouse, customers, "metrics")
    tomorrow = NOW + DAY
    [acme, _] = customers.customers
    assert days_with_gaps(warehouse, acme, "metrics", tomorrow, 3) == [TODAY]
    collect_day(warehouse, Settings(api_timeout=5), acme, "vultr", "metrics", TODAY, tomorrow + timedelta(hours=2))
    assert days_with_gaps(warehouse, acme, "metrics", tomorrow + timedelta(hours=2), 3) == []


def test_a_price_that_no_column_holds_exactly_is_kept_aside_and_the_others_are_not() -> None:
    findings = Findings()
    good = {"sku": "a", "price": Decimal("0.1")}
    findings.add_rows(PRICES["aws"], [good, {"sku": "b", "price": Decimal("1e-22")}, good])
    assert [table.num_rows for table in findings.tables] == [1, 1]
    assert [(row["sku"], why) for row, why in findings.unfit] == [("b", "price: cannot be held exactly")]


def metric_rows(**changed: list[Any]) -> pa.Table:
    start = naive_utc(TODAY.start)
    columns: dict[str, list[Any]] = {
        "customer_id": ["acme"] * 2,
        "provider": ["vultr"] * 2,
        "connection_id": ["vultr-api"] * 2,
        "account_id": [""] * 2,
        "resource_id": ["a", "b"],
        "resource_type": ["machine"] * 2,
        "metric_name": ["cpu_utilization"] * 2,
        "component": [""] * 2,
        "unit": ["percent"] * 2,
        "statistic": ["average"] * 2,
        "window_start": [start] * 2,
        "window_seconds": [900] * 2,
        "value": [1.0] * 2,
        "sample_count": [None] * 2,
        "source": ["test"] * 2,
        "collected_at": [naive_utc(NOW)] * 2,
    }
    return pa.table({**columns, **changed}, schema=METRICS["vultr"].arrow_schema)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"resource_id": ["a", None]}, "resource_id: is missing"),
        ({"value": [1.0, float("nan")]}, "value: is no finite number"),
        ({"value": [1.0, float("inf")]}, "value: is no finite number"),
        (
            {"window_start": [naive_utc(TODAY.start), naive_utc(TODAY.start + 3 * WINDOW)]},
            "window_start: lies outside the windows that were asked for",
        ),
        (
            {"window_start": [naive_utc(TODAY.start), naive_utc(TODAY.start - WINDOW)]},
            "window_start: lies outside the windows that were asked for",
        ),
    ],
)
def test_a_row_that_breaks_the_contract_is_told_apart_with_its_reason(
    changed: dict[str, list[Any]], reason: str
) -> None:
    good, reasons = judge(METRICS["vultr"], metric_rows(**changed), [Window(TODAY.start, TODAY.start + 3 * WINDOW)])
    assert (good.to_pylist(), reasons) == ([True, False], [None, reason])
