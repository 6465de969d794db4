"""Small FOCUS files for tests: rows as a provider prints them, the files they stand in, the bill they make up."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from optiinfra_pipelines.clouds.focus.loader import Bill, LoadedPeriod, load_period
from optiinfra_pipelines.clouds.focus.locations import open_location
from optiinfra_pipelines.customers import BillingSource
from optiinfra_pipelines.tables.billing import FOCUS_BILLING
from optiinfra_pipelines.tables.operations import REJECTED_ROWS, SOURCE_TOTALS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import BillingPeriod

OCTOBER = BillingPeriod("2026-10")
ROW = {
    "BilledCost": "1.5",
    "EffectiveCost": "1.25",
    "BillingCurrency": "USD",
    "BillingPeriodStart": "2026-10-01T00:00:00Z",
    "BillingPeriodEnd": "2026-11-01T00:00:00Z",
    "ChargePeriodStart": "2026-10-01T00:00:00Z",
    "ChargePeriodEnd": "2026-10-02T00:00:00Z",
    "ChargeCategory": "Usage",
    "ProviderName": "Acme Cloud",
}


def focus_row(**changes: str) -> dict[str, str]:
    """One charge of October 2026 as a FOCUS file prints it, with `changes` (which may add columns)."""
    return ROW | changes


def write_csv(path: Path, rows: Iterable[Mapping[str, str]], extra: str = "") -> Path:
    """Write rows of equal columns as CSV, and `extra` text behind them."""
    rows = list(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        file.write(extra)
    return path


def write_parquet(path: Path, rows: Iterable[Mapping[str, str]], **columns: pa.Array) -> Path:
    """Write rows as Parquet columns of text, and `columns` in their own types over or beside them."""
    table = pa.Table.from_pylist([dict(row) for row in rows])
    for name, values in columns.items():
        table = table.drop_columns([name]) if name in table.column_names else table
        table = table.append_column(name, values)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def bill_of(location: Path | str, *, connection_id: str = "main", provider: str = "focus", **source: Any) -> Bill:
    """The bill of customer acme at `location`; `source` are further fields of its billing section."""
    described = BillingSource(location=str(location), **source)
    return Bill("acme", connection_id, provider, described, open_location(described, {}))


def load(warehouse: Warehouse, location: Path | str, period: BillingPeriod = OCTOBER, **bill: Any) -> LoadedPeriod:
    """Load a period of the bill at `location` into raw.focus_billing."""
    return load_period(warehouse, FOCUS_BILLING, bill_of(location, **bill), period)


def billing(warehouse: Warehouse, *columns: str) -> list[dict[str, Any]]:
    """The current billing rows in the order of their files."""
    chosen = ", ".join(f"{name} AS {name}" for name in columns)
    return warehouse.query(
        f"SELECT {chosen} FROM {warehouse.current(FOCUS_BILLING)} b ORDER BY x_source, x_row_number"
    ).to_pylist()


def values(warehouse: Warehouse, column: str) -> list[Any]:
    """One column of the current billing rows in the order of their files."""
    return [row[column] for row in billing(warehouse, column)]


def rejected(warehouse: Warehouse) -> list[dict[str, Any]]:
    """The currently rejected rows in the order of their files, payloads read."""
    rows = warehouse.query(
        f"SELECT * FROM {warehouse.current(REJECTED_ROWS)} r ORDER BY source, row_number"
    ).to_pylist()
    return [row | {"payload": json.loads(row["payload"])} for row in rows]


def reasons(warehouse: Warehouse) -> list[str]:
    """The reasons of the currently rejected rows in the order of their files."""
    return [row["reason"] for row in rejected(warehouse)]


def source_totals(warehouse: Warehouse, *columns: str) -> list[tuple[Any, ...]]:
    """Columns of the current source totals, sorted."""
    found = warehouse.query(f"SELECT * FROM {warehouse.current(SOURCE_TOTALS)} t").to_pylist()
    return sorted((tuple(row[name] for name in columns) for row in found), key=repr)


def by_row(rows: Sequence[Mapping[str, Any]], column: str) -> dict[int, Any]:
    """Row number -> value of `column`."""
    return {row["x_row_number"]: row[column] for row in rows}
