"""The load ledger's rules, the same for every engine: ids, events, which loads readers see and which are history."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol
from uuid import uuid4

import pyarrow as pa

from optiinfra_pipelines.tables.contract import Table
from optiinfra_pipelines.tables.operations import LOADS
from optiinfra_pipelines.warehouse.protocol import LoadSummary, Warehouse
from optiinfra_pipelines.warehouse.schema import load_column

_VALID = "state = 'committed' AND load_id NOT IN (SELECT load_id FROM {loads} WHERE state = 'discarded')"
# The newest committed load of each slice; argMax is spelt alike in DuckDB and ClickHouse.
VISIBLE_LOADS = f"SELECT argMax(load_id, recorded_at) FROM {{loads}} WHERE {_VALID} GROUP BY table_name, slice"
# Committed loads of one slice, the newest first.
COMMITTED = (
    f"SELECT load_id, rows, fingerprint FROM {{loads}} WHERE table_name = $table_name AND slice = $slice AND {_VALID}"
    " ORDER BY recorded_at DESC"
)
# Those of them past the `keep` newest ones.
SUPERSEDED = f"SELECT load_id FROM ({COMMITTED} LIMIT 1000000 OFFSET {{keep}}) s"


def new_load_id(now: datetime) -> str:
    """An id that sorts by time and is unique: `20261101T120000.123456Z-1a2b3c4d`."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%S.%f}Z-{uuid4().hex[:8]}"


class Recorded(Protocol):
    """What the ledger notes of a load."""

    load_id: str
    summary: LoadSummary


def ledger_event(
    load: Recorded,
    table: Table,
    slice: str,
    state: Literal["started", "committed", "discarded"],
    rows: int,
    run_id: str,
) -> pa.Table:
    """One row of raw.loads for `load`."""
    row = {
        "load_id": load.load_id,
        "table_name": table.full_name,
        "slice": slice,
        "state": state,
        "rows": rows,
        "rows_read": load.summary.rows_read,
        "rows_rejected": load.summary.rows_rejected,
        "fingerprint": load.summary.fingerprint,
        "details": json.dumps(load.summary.details, sort_keys=True),
        "run_id": run_id,
        "recorded_at": datetime.now(UTC).replace(tzinfo=None),
    }
    return pa.Table.from_pylist([row], schema=LOADS.arrow_schema)


@dataclass
class _Discarded:
    load_id: str
    summary: LoadSummary


def discarded_event(load_id: str, table: Table, slice: str, run_id: str) -> pa.Table:
    """One row of raw.loads that says that readers see `load_id` no more, and that its rows go."""
    return ledger_event(_Discarded(load_id, LoadSummary()), table, slice, "discarded", 0, run_id)


def rows_of_period(
    warehouse: Warehouse, table: Table, customer_id: str, period: str, *, of: Table | None = None
) -> str:
    """A parenthesised SELECT of `of`'s (default: `table`'s) current rows from one customer's loads of one period.

    Slices are named customer/connection/period; both parts are checked where they enter, so they stand as literals.
    """
    shown = of or table
    customer, suffix = f"{customer_id}/", f"/{period}"
    visible = VISIBLE_LOADS.format(loads=warehouse.name(LOADS)).replace(
        " GROUP BY",
        f" AND table_name = '{table.full_name}' AND left(slice, {len(customer)}) = '{customer}'"
        f" AND right(slice, {len(suffix)}) = '{suffix}' GROUP BY",
    )
    return f"(SELECT * FROM {warehouse.name(shown)} WHERE {load_column(shown)} IN ({visible}))"
