"""What `make materialize` prints at its end: rows per table, cost per provider, scores, verdicts, findings."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table as Grid

from optiinfra_pipelines.tables import ALL_TABLES
from optiinfra_pipelines.tables.gate import COMPARISONS, VERDICTS
from optiinfra_pipelines.tables.operations import REJECTED_ROWS
from optiinfra_pipelines.warehouse.protocol import Warehouse

_COSTS = """
SELECT customer_id, provider, currency, sum(rows) AS rows,
       sum(billed_cost) AS billed_cost, sum(effective_cost) AS effective_cost
FROM {marts}.provider_costs_monthly t GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
_RECONCILED = "SELECT status, count(*) AS invoices FROM {marts}.invoice_reconciliation t GROUP BY 1 ORDER BY 1"
_JUDGED = """
SELECT customer_id, sum(collected) AS found, sum(scored) AS scored, sum(failed) AS failed,
       sum(skipped_no_text + skipped_truncated + skipped_request_failed + skipped_operation) AS unfit,
       sum(skipped_not_sampled) AS not_sampled, sum(waiting) AS waiting, sum(judge_cost) AS judge_cost_usd,
       max(explanation) AS why_waiting
FROM {marts}.llm_scoring_daily t GROUP BY 1 ORDER BY 1
"""
_QUALITY = """
SELECT customer_id, application_id, provider, model_name,
       round(sum(mean_score * interactions_estimated) / sum(interactions_estimated), 3) AS quality,
       sum(scores) AS judged
FROM {marts}.application_quality_hourly t WHERE metric_type = 'quality' AND scores > 0
GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
"""
_VERDICTS = """
SELECT application_id, provider, model_name, verdict, n, reason
FROM (SELECT v.*, row_number() OVER (PARTITION BY deployment_id
             ORDER BY final DESC, CASE WHEN final THEN look ELSE -look END) AS place FROM {verdicts} v) t
WHERE place = 1 ORDER BY 1, 2, 3
"""
_COMPARED = """
SELECT application_id, provider, variant_a, variant_b, sentence
FROM (SELECT c.*, row_number() OVER (PARTITION BY customer_id, provider, application_id, model_a, variant_a, model_b,
             variant_b ORDER BY day DESC) AS place FROM {comparisons} c WHERE metric_type = 'quality') t
WHERE place = 1 ORDER BY 1, 2, 3, 4
"""
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
    _print(console, "interactions before the judge", warehouse.query(_JUDGED.format(marts=marts)).to_pylist())
    _print(console, "quality per application and model", warehouse.query(_QUALITY.format(marts=marts)).to_pylist())
    verdicts = warehouse.query(_VERDICTS.format(verdicts=warehouse.current(VERDICTS))).to_pylist()
    _print(console, "verdicts on deployments", verdicts)
    compared = warehouse.query(_COMPARED.format(comparisons=warehouse.current(COMPARISONS))).to_pylist()
    _print(console, "variants side by side", compared)
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
    if value is None:
        return ""
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return str(value)
