"""The rules behind asset checks, pure: figures in, a Verdict out. Queries and rendering are the checks' own."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from optiinfra_pipelines.tables.contract import Kind, Table
from optiinfra_pipelines.tables.focus import FocusColumn

MOST_ROWS = 20  # of a table in a check's metadata


@dataclass(frozen=True)
class Verdict:
    """Whether a rule holds and how grave it is where not: one sentence, its numbers, and rows to look at."""

    passed: bool
    severity: Literal["ERROR", "WARN"]
    sentence: str
    numbers: Mapping[str, int | float] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()


def contract_query(table: Table, relation: str) -> str:
    """One row of counts over `relation`: all rows, and for each promise of the contract the rows that break it."""
    broken = [f'sum(CASE WHEN {condition} THEN 1 ELSE 0 END) AS "{name}"' for name, condition in _promises(table)]
    identity = _identity(table)
    if identity:
        keys = ", ".join(f'"{name}"' for name in identity)
        doubled = f"(SELECT count(*) FROM (SELECT {keys} FROM {relation} k GROUP BY {keys} HAVING count(*) > 1) d)"
        broken.append(f'{doubled} AS "{" + ".join(identity)} is not unique"')
    return f'SELECT count(*) AS "rows checked", {", ".join(broken)} FROM {relation} t'


def contract(table: Table, counts: Mapping[str, int | None]) -> Verdict:
    """Every row keeps the promises of its table's contract."""
    rows = counts["rows checked"] or 0
    broken = [{"promise": name, "rows": n} for name, n in counts.items() if name != "rows checked" and n]
    total = sum(n for name, n in counts.items() if name != "rows checked" and n)
    said = (
        "every row follows the contract" if not broken else f"{total} rows break {len(broken)} promises of the contract"
    )
    return Verdict(
        not broken, "ERROR", f"{table.full_name}: {said}", {"rows_checked": rows, "rows_failed": total}, broken
    )


def _promises(table: Table) -> Iterable[tuple[str, str]]:
    for column in table.columns:
        if not column.nullable:
            yield f"{column.name} is null", f'"{column.name}" IS NULL'
        if column.allowed and (column.name == "ChargeCategory" or not isinstance(column, FocusColumn)):
            known = ", ".join(f"'{each}'" for each in column.allowed)
            yield f"{column.name} is not an allowed value", f'"{column.name}" NOT IN ({known})'


def _identity(table: Table) -> tuple[str, ...]:
    """What identifies a row: a key, or its place in its source."""
    if table.kind is Kind.KEYED:
        return table.key
    return ("x_connection_id", "x_source", "x_row_number") if "x_row_number" in table.column_names else ()


def rejections(counts: Sequence[Mapping[str, Any]], rows: int) -> Verdict:
    """No row was rejected. `counts`: reason and rejected rows of it; `rows`: rows that were accepted."""
    rejected = sum(int(each["rows"]) for each in counts)
    said = "no row was rejected" if not rejected else f"{rejected} of {rows + rejected} rows were rejected"
    ordered = sorted(counts, key=lambda each: (-int(each["rows"]), str(each["reason"])))
    return Verdict(not rejected, "WARN", said, {"rows_rejected": rejected, "rows_accepted": rows}, ordered[:MOST_ROWS])


def reconciliation(invoices: Sequence[Mapping[str, Any]], rejected: int) -> Verdict:
    """What was loaded adds up to what the source printed, per invoice; rejected rows may explain a difference.

    `invoices`: one row each with source_rows, warehouse_rows, source_billed_cost, warehouse_billed_cost,
    source_effective_cost (None where the source prints none) and warehouse_effective_cost. Decimals, exact.
    """
    off = [each for each in invoices if _differs(each)]
    missing = sum(int(each["source_rows"] or 0) - int(each["warehouse_rows"] or 0) for each in off)
    explained = all(int(each["source_rows"] or 0) > int(each["warehouse_rows"] or 0) for each in off)
    explained = explained and 0 <= missing <= rejected
    difference = sum(float((each["source_billed_cost"] or 0) - (each["warehouse_billed_cost"] or 0)) for each in off)
    numbers = {"difference": difference, "invoices": len(invoices), "invoices_off": len(off), "rows_rejected": rejected}
    if not off:
        return Verdict(True, "ERROR", f"{len(invoices)} invoices add up to the last digit", numbers)
    why = "rejected rows explain it" if explained else "rejected rows do not explain it"
    sentence = f"{len(off)} of {len(invoices)} invoices differ from the source: {why}"
    return Verdict(False, "WARN" if explained else "ERROR", sentence, numbers, list(off)[:MOST_ROWS])


def _differs(invoice: Mapping[str, Any]) -> bool:
    effective = invoice["source_effective_cost"]
    return (
        (invoice["source_rows"] or 0) != (invoice["warehouse_rows"] or 0)
        or (invoice["source_billed_cost"] or 0) != (invoice["warehouse_billed_cost"] or 0)
        or (effective is not None and effective != (invoice["warehouse_effective_cost"] or 0))
    )


def freshness(connections: Sequence[Mapping[str, Any]], hours: int) -> Verdict:
    """Every active connection was collected within `hours`.

    `connections`: customer_id, connection_id, provider, hours_since_success (None: never), last_error.
    """
    stale = [c for c in connections if c["hours_since_success"] is None or c["hours_since_success"] > hours]
    stale.sort(key=lambda c: -(c["hours_since_success"] or float("inf")))
    oldest = max((float(c["hours_since_success"] or 0) for c in connections), default=0.0)
    said = "every connection was collected in time" if not stale else f"{len(stale)} of {len(connections)} are stale"
    numbers = {"observed": round(oldest, 2), "threshold": hours, "connections_stale": len(stale)}
    return Verdict(not stale, "ERROR", said, numbers, stale[:MOST_ROWS])
