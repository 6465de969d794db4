"""Loads of a slice: swapped whole or not at all, told in the ledger, kept as history, and cleared away after that."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from optiinfra_pipelines.tables.contract import Kind
from optiinfra_pipelines.tables.operations import LOADS, REJECTED_ROWS, SOURCE_TOTALS
from optiinfra_pipelines.warehouse.clickhouse import ClickHouseWarehouse
from optiinfra_pipelines.warehouse.duckdb import DuckDBWarehouse
from optiinfra_pipelines.warehouse.protocol import Load, LoadConflict, Warehouse, WarehouseBusy, WarehouseError
from optiinfra_pipelines_tests.conftest import connect

SLICE = "acme/main/2026-10"
# Any SLICED table will do: what is loaded here are rows numbered from 1, told apart by their reason.
TABLE = REJECTED_ROWS


def rows(reason: str, count: int) -> pa.Table:
    columns = ("customer_id", "connection_id", "table_name", "source", "reason", "payload")
    fixed = dict.fromkeys(columns, "x") | {"reason": reason}
    schema = pa.schema([TABLE.column(name).arrow for name in (*columns, "row_number")])
    return pa.Table.from_pylist([fixed | {"row_number": number + 1} for number in range(count)], schema=schema)


def replace(warehouse: Warehouse, reason: str, count: int, slice: str = SLICE) -> Load:
    with warehouse.replace_slice(TABLE, slice) as load:
        assert load.insert(rows(reason, count)) == count
    return load


def insert(warehouse: Warehouse, *inserts: pa.Table, meanwhile: Callable[[], object] = lambda: None) -> None:
    """One load of several inserts, and what happens before it commits."""
    with warehouse.replace_slice(TABLE, SLICE) as load:
        for each in inserts:
            load.insert(each)
        meanwhile()


def fail() -> None:
    raise ZeroDivisionError


def seen(warehouse: Warehouse) -> dict[str, int]:
    """reason -> number of current rows."""
    found = warehouse.query(f"SELECT reason, count(*) AS n FROM {warehouse.current(TABLE)} r GROUP BY reason")
    return {row["reason"]: row["n"] for row in found.to_pylist()}


def ledger(warehouse: Warehouse, *columns: str) -> list[tuple[Any, ...]]:
    found = warehouse.query(f"SELECT * FROM {warehouse.current(LOADS)} l ORDER BY recorded_at").to_pylist()
    return [tuple(row[name] for name in columns) for row in found]


def held(warehouse: Warehouse) -> set[str]:
    """Reasons of the rows that the table holds, seen or not, once what was to be removed is."""
    if warehouse.engine == "clickhouse":
        unfinished = "SELECT count() AS n FROM system.mutations WHERE NOT is_done"
        while warehouse.query(unfinished)["n"][0].as_py():
            pass
    return set(warehouse.query(f"SELECT DISTINCT reason FROM {warehouse.name(TABLE)}")["reason"].to_pylist())


def test_a_restated_slice_replaces_the_old_one_and_leaves_other_slices_alone(warehouse: Warehouse) -> None:
    replace(warehouse, "other", 2, slice="acme/main/2026-09")
    replace(warehouse, "old", 3)
    replace(warehouse, "new", 1)
    assert seen(warehouse) == {"other": 2, "new": 1}


def test_a_slice_restated_to_nothing_is_empty(warehouse: Warehouse) -> None:
    replace(warehouse, "old", 3)
    replace(warehouse, "new", 0)
    assert seen(warehouse) == {}


def test_a_load_that_fails_leaves_the_old_rows_and_no_trace_of_its_own(warehouse: Warehouse) -> None:
    replace(warehouse, "old", 3)
    with pytest.raises(ZeroDivisionError):
        insert(warehouse, rows("broken", 5), meanwhile=fail)
    assert seen(warehouse) == {"old": 3}
    replace(warehouse, "new", 1)
    assert seen(warehouse) == {"new": 1}
    assert held(warehouse) == {"old", "new"}


def test_rows_that_break_the_contract_fail_the_whole_load(warehouse: Warehouse) -> None:
    replace(warehouse, "old", 3)
    forbidden = pa.Table.from_pylist([rows("null", 1).to_pylist()[0] | {"payload": None}])
    unknown = rows("unknown", 1).append_column("shoe_size", pa.array([44]))
    for wrong in (forbidden, unknown, rows("lacking", 1).drop_columns(["source"])):
        with pytest.raises(WarehouseError):
            insert(warehouse, rows("fine", 5), wrong)
    assert seen(warehouse) == {"old": 3}


def test_every_row_carries_its_load_and_when_that_began(warehouse: Warehouse) -> None:
    before = datetime.now(UTC)
    load = replace(warehouse, "new", 2)
    sql = f"SELECT DISTINCT load_id, collected_at FROM {warehouse.current(TABLE)} r"
    assert warehouse.query(sql).to_pylist() == [{"load_id": load.load_id, "collected_at": load.started_at}]
    assert before <= load.started_at <= datetime.now(UTC)


def test_the_ledger_traces_a_load_to_its_run_and_says_what_it_read(warehouse: Warehouse) -> None:
    with warehouse.replace_slice(TABLE, SLICE) as load:
        load.insert(rows("new", 2))
        load.insert(rows("new", 3))
        load.summary.rows_read, load.summary.rows_rejected = 7, 2
        load.summary.fingerprint, load.summary.details = "f00", {"objects": ["o'neil\\n.csv"]}
    columns = (
        "load_id",
        "table_name",
        "slice",
        "rows",
        "rows_read",
        "rows_rejected",
        "fingerprint",
        "details",
        "run_id",
    )
    [committed] = [row[1:] for row in ledger(warehouse, "state", *columns) if row[0] == "committed"]
    details = '{"objects": ["o\'neil\\\\n.csv"]}'
    assert committed == (load.load_id, TABLE.full_name, SLICE, 5, 7, 2, "f00", details, "run-1")


def test_one_load_shows_its_rows_in_several_tables_at_once(warehouse: Warehouse) -> None:
    totals = {"customer_id": "x", "connection_id": "x", "table_name": "x", "billing_period": "2026-10", "rows": 1}
    with warehouse.replace_slice(TABLE, SLICE) as load:
        load.insert(rows("new", 1))
        load.insert(
            pa.Table.from_pylist([totals]), into=SOURCE_TOTALS, select="SELECT *, 1.5 AS billed_cost FROM source"
        )
    sql = f"SELECT load_id, rows FROM {warehouse.current(SOURCE_TOTALS)} t"
    assert warehouse.query(sql).to_pylist() == [{"load_id": load.load_id, "rows": 1}]
    assert [row for row in ledger(warehouse, "state", "rows") if row[0] == "committed"] == [("committed", 1)]


def test_a_select_shapes_rows_the_same_way_on_both_engines(warehouse: Warehouse) -> None:
    columns = "customer_id, connection_id, table_name, source, payload, row_number * 10 AS row_number"
    with warehouse.replace_slice(TABLE, SLICE) as load:
        shaped = load.insert(
            rows("a'b\\c", 9).to_reader(max_chunksize=2),
            select=f"SELECT {columns}, upper(reason) AS reason FROM source WHERE row_number % 2 = 1",
        )
    assert shaped == 5
    found = warehouse.query(f"SELECT row_number, reason FROM {warehouse.current(TABLE)} r ORDER BY row_number")
    assert found.to_pylist() == [{"row_number": 10 * number, "reason": "A'B\\C"} for number in (1, 3, 5, 7, 9)]


@pytest.fixture
def forgetful(warehouse: Warehouse) -> Warehouse:
    """A warehouse that keeps two superseded loads of a slice."""
    assert isinstance(warehouse, DuckDBWarehouse | ClickHouseWarehouse)
    warehouse.keep_loads = 2
    return warehouse


def test_superseded_loads_stay_as_history_until_there_are_too_many(forgetful: Warehouse) -> None:
    replace(forgetful, "other", 1, slice="acme/main/2026-09")
    loads = [replace(forgetful, f"load {number}", number) for number in range(1, 6)]
    assert seen(forgetful) == {"other": 1, "load 5": 5}
    assert held(forgetful) == {"other", "load 5", "load 4", "load 3"}
    committed = [load_id for state, load_id in ledger(forgetful, "state", "load_id") if state == "committed"]
    discarded = {load_id for state, load_id in ledger(forgetful, "state", "load_id") if state == "discarded"}
    assert committed[1:] == [load.load_id for load in loads]
    assert discarded == {load.load_id for load in loads[:2]}


@pytest.fixture
def unmerged(clickhouse_warehouse: ClickHouseWarehouse, clickhouse_url: str) -> Iterator[None]:
    """Rows that were deleted stay for a while, as on a busy server."""
    with connect(clickhouse_url) as client:
        client.command(f"SYSTEM STOP MERGES {clickhouse_warehouse.name(TABLE)}")
        yield
        client.command(f"SYSTEM START MERGES {clickhouse_warehouse.name(TABLE)}")


def test_two_writers_of_one_slice_end_with_the_rows_of_the_one_that_began_last(
    clickhouse_warehouse: ClickHouseWarehouse,
) -> None:
    replace(clickhouse_warehouse, "old", 1)
    with pytest.raises(LoadConflict, match="another run loaded the same slice"):
        insert(clickhouse_warehouse, rows("slow", 4), meanwhile=lambda: replace(clickhouse_warehouse, "fast", 2))
    assert seen(clickhouse_warehouse) == {"fast": 2}
    replace(clickhouse_warehouse, "next", 3)
    assert seen(clickhouse_warehouse) == {"next": 3}


def test_a_load_that_was_declared_dead_cannot_become_visible_by_committing_late(
    clickhouse_warehouse: ClickHouseWarehouse, unmerged: None
) -> None:
    replace(clickhouse_warehouse, "old", 1)

    def clear_the_slow_load_away_and_fail() -> None:
        with pytest.raises(ZeroDivisionError):
            insert(clickhouse_warehouse, meanwhile=fail)

    with pytest.raises(LoadConflict):
        insert(clickhouse_warehouse, rows("slow", 4), meanwhile=clear_the_slow_load_away_and_fail)
    assert seen(clickhouse_warehouse) == {"old": 1}


def test_while_one_part_of_a_process_loads_another_is_told_so(duckdb_warehouse: DuckDBWarehouse) -> None:
    other = DuckDBWarehouse(duckdb_warehouse.path, lock_timeout=0)
    with duckdb_warehouse.replace_slice(TABLE, SLICE) as load:
        load.insert(rows("new", 1))
        with pytest.raises(WarehouseBusy, match=r"in use by another part of this process"):
            other.query("SELECT 1")
    assert seen(other) == {"new": 1}


def test_only_sliced_tables_are_loaded(warehouse: Warehouse) -> None:
    assert LOADS.kind is Kind.APPENDED
    with pytest.raises(WarehouseError), warehouse.replace_slice(LOADS, SLICE):
        pass
