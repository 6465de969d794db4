"""What `make materialize` prints at its end: rows per table, cost per provider, restatements, findings."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table as Grid

from optiinfra_pipelines.tables import ALL_TABLES
from optiinfra_pipelines.tables.operations import REJECTED_ROWS
from optiinfra_pipelines.warehouse.protocol import Warehouse

_COSTS = """
SELECT customer_id, provider, currency, sum(rows) AS rows,
       sum(billed_cost) AS billed_cost, sum(effective_cost) AS effective_cost
FROM {marts}.provider_costs_monthly t GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
_RECONCILED = "SELECT status, count(*) AS invoices FROM {marts}.invoice_reconciliation t GROUP BY 1 ORDER BY 1"
_REJECTED = "SELECT table_name, reason, count(*) AS rows FROM {rejected} t GROUP BY 1, 2 ORDER BY 1, 3 DESC, 2"


def print_summary(warehouse: Warehouse, failed_checks: Sequence[tuple[str, str, str]], console: Console) -> None:
    """Print what the warehouse's readers see now, money to its last digit, and the checks that fail."""
    marts = warehouse.database("marts")
    rows = [
        {"table": table.full_name, "rows": _one(warehouse, f"SELECT count(*) AS n FROM {warehouse.current(table)} t")}
        for table in ALL_TABLES
    ]
    _print(console, "current rows", rows)
    _print(console, "cost per customer and provider", warehouse.query(_COSTS.format(marts=marts)).to_pylist())
    _print(console, "invoices against their sources", warehouse.query(_RECONCILED.format(marts=marts)).to_pylist())
    rejected = warehouse.query(_REJECTED.format(rejected=warehouse.current(REJECTED_ROWS))).to_pylist()
    _print(console, "rejected rows", rejected)
    findings = [dict(zip(("asset", "check", "finding"), each, strict=True)) for each in failed_checks]
    _print(console, "failed checks", findings)


def _one(warehouse: Warehouse, sql: str) -> int:
    return int(warehouse.query(sql)["n"][0].as_py())


def _print(console: Console, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        console.print(f"{title}: none")
        return
    grid = Grid(title=title, title_justify="left", title_style="bold")
    for name, value in rows[0].items():
        grid.add_column(name, justify="right" if isinstance(value, int | float | Decimal) else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(_shown(value) for value in row.values()))
    console.print(grid)


def _shown(value: Any) -> str:
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return str(value)
