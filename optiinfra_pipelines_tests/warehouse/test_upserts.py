"""Keyed facts and logs: the newest row of a key wins, in whichever order and however often rows arrive."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optiinfra_pipelines.tables.billing import FOCUS_BILLING
from optiinfra_pipelines.tables.contract import Table
from optiinfra_pipelines.tables.operations import COLLECTION_RUNS, CONNECTIONS
from optiinfra_pipelines.warehouse.protocol import Warehouse, WarehouseError

NOON = datetime(2026, 10, 1, 12)
LATER = count(step=10)  # minutes: each example of a property begins after the ones before it


def connection(customer: str, provider: str, minutes: int = 0) -> dict[str, Any]:
    return {
        "customer_id": customer,
        "connection_id": "main",
        "provider": provider,
        "collects": "billing",
        "active": True,
        "collected_at": NOON + timedelta(minutes=minutes),
    }


def upsert(warehouse: Warehouse, *rows: dict[str, Any]) -> int:
    return warehouse.upsert(CONNECTIONS, pa.Table.from_pylist(list(rows), schema=CONNECTIONS.arrow_schema))


def held(warehouse: Warehouse) -> dict[str, str]:
    rows = warehouse.query(f"SELECT customer_id, provider FROM {warehouse.current(CONNECTIONS)} c").to_pylist()
    assert len({row["customer_id"] for row in rows}) == len(rows)
    return {row["customer_id"]: row["provider"] for row in rows}


def test_the_same_rows_again_change_nothing(warehouse: Warehouse) -> None:
    rows = [connection("acme", "aws"), connection("o'neil", "gcp")]
    assert [upsert(warehouse, *rows) for _ in range(3)] == [2, 2, 2]
    assert held(warehouse) == {"acme": "aws", "o'neil": "gcp"}


def test_a_newer_row_replaces_an_older_one_and_leaves_other_keys_alone(warehouse: Warehouse) -> None:
    upsert(warehouse, connection("acme", "aws"), connection("other", "aws"))
    upsert(warehouse, connection("acme", "gcp", minutes=1))
    assert held(warehouse) == {"acme": "gcp", "other": "aws"}


def test_an_older_row_that_arrives_late_changes_nothing(warehouse: Warehouse) -> None:
    upsert(warehouse, connection("acme", "gcp", minutes=1))
    upsert(warehouse, connection("acme", "aws"))
    assert held(warehouse) == {"acme": "gcp"}


def test_of_several_rows_of_a_key_in_one_batch_the_newest_wins_and_of_equals_the_last(warehouse: Warehouse) -> None:
    upsert(warehouse, connection("a", "new", minutes=2), connection("a", "old"), connection("a", "older", minutes=-1))
    upsert(warehouse, connection("b", "first"), connection("b", "second"), connection("b", "third"))
    assert held(warehouse) == {"a": "new", "b": "third"}


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(
        st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 3)), max_size=6), max_size=4
    )
)
def test_any_order_of_batches_ends_with_the_newest_row_of_each_key(
    warehouse: Warehouse, batches: list[list[tuple[str, str, int]]]
) -> None:
    expected = held(warehouse)
    start = next(LATER)
    newest: dict[str, int] = {}
    for batch in batches:
        upsert(warehouse, *(connection(key, provider, start + minutes) for key, provider, minutes in batch))
        for key, provider, minutes in batch:
            if minutes >= newest.get(key, -1):
                newest[key], expected[key] = minutes, provider
    assert held(warehouse) == expected


def test_no_rows_are_no_error(warehouse: Warehouse) -> None:
    assert upsert(warehouse) == 0
    assert held(warehouse) == {}


def test_times_come_back_to_the_microsecond(warehouse: Warehouse) -> None:
    at = datetime(2026, 3, 29, 2, 30, 0, 123457)  # an hour that clocks in Europe pass over
    upsert(warehouse, connection("acme", "aws") | {"collected_at": at})
    found = warehouse.query(f"SELECT collected_at FROM {warehouse.current(CONNECTIONS)} c").to_pylist()
    assert found == [{"collected_at": at.replace(tzinfo=UTC)}]


def test_appended_rows_all_stay(warehouse: Warehouse) -> None:
    row = {
        "customer_id": "acme", "provider": "aws", "connection_id": "main", "kind": "billing", "window_start": NOON,
        "window_end": NOON, "status": "succeeded", "rows": 1, "rows_rejected": 0, "error_kind": None, "error": None,
        "duration_seconds": 0.5, "run_id": "r", "started_at": NOON,
    }  # fmt: skip
    rows = pa.Table.from_pylist([row], schema=COLLECTION_RUNS.arrow_schema)
    assert [warehouse.append(COLLECTION_RUNS, rows) for _ in range(2)] == [1, 1]
    found = warehouse.query(f"SELECT * FROM {warehouse.current(COLLECTION_RUNS)} r").to_pylist()
    moment = {name: NOON.replace(tzinfo=UTC) for name in ("window_start", "window_end", "started_at")}
    assert found == [row | moment] * 2


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"customer_id": "acme"}], "lack connection_id, provider, collects, active, collected_at"),
        ([connection("acme", "aws") | {"shoe_size": 44}], "have shoe_size, which the contract does not know"),
    ],
)
def test_rows_that_do_not_have_the_contracts_columns_are_refused_by_name(
    warehouse: Warehouse, rows: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(WarehouseError, match=said):
        warehouse.upsert(CONNECTIONS, pa.Table.from_pylist(rows))
    assert held(warehouse) == {}


def test_a_null_that_the_contract_forbids_is_refused_and_not_made_an_empty_text(warehouse: Warehouse) -> None:
    with pytest.raises(WarehouseError):
        warehouse.upsert(
            CONNECTIONS, pa.Table.from_pylist([connection("ok", "aws"), connection("acme", "aws") | {"provider": None}])
        )
    assert held(warehouse) == {}


@pytest.mark.parametrize("table", [FOCUS_BILLING, COLLECTION_RUNS], ids=lambda table: table.name)
def test_each_kind_of_table_has_one_way_in(warehouse: Warehouse, table: Table) -> None:
    with pytest.raises(WarehouseError, match="this write is for keyed ones"):
        warehouse.upsert(table, table.arrow_schema.empty_table())
    with pytest.raises(WarehouseError, match="this write is for appended ones"):
        warehouse.append(CONNECTIONS, CONNECTIONS.arrow_schema.empty_table())
    with (
        pytest.raises(WarehouseError, match="this write is for sliced ones"),
        warehouse.replace_slice(CONNECTIONS, "acme"),
    ):
        pass
