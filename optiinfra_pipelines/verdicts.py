"""The rules behind asset checks, pure: figures in, a Verdict out. Queries and rendering are the checks' own."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from optiinfra_pipelines.tables.contract import Kind, Table
from optiinfra_pipelines.tables.focus import FocusColumn

MOST_ROWS = 20  # of a table in a check's metadata
# An inventory that holds less than this share of the one before is taken for a broken listing, not for a big clean-up;
# of fewer than FEW things, any share can be a clean-up.
COLLAPSE = 0.5
FEW = 5


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
    """Everything was collected in time: each within its own threshold_hours, or within `hours` where it has none.

    `connections`: customer_id, connection_id, provider, kind, hours_since_success (None: never), last_error.
    """
    stale = [c for c in connections if _overdue(c, hours) > 0]
    stale.sort(key=lambda c: -_overdue(c, hours))
    oldest = max((float(c["hours_since_success"] or 0) for c in connections), default=0.0)
    said = "everything was collected in time" if not stale else f"{len(stale)} of {len(connections)} are stale"
    numbers = {"observed": round(oldest, 2), "threshold": hours, "connections_stale": len(stale)}
    return Verdict(not stale, "ERROR", said, numbers, stale[:MOST_ROWS])


def _overdue(connection: Mapping[str, Any], hours: int) -> float:
    since = connection["hours_since_success"]
    return float("inf") if since is None else float(since) - float(connection.get("threshold_hours", hours))


def gaps(missing: Mapping[str, Sequence[datetime]]) -> Verdict:
    """No window is missing. `missing`: connection id -> starts of the windows that are over and were not collected."""
    rows = [
        {"connection_id": connection, "windows_missing": len(starts), "first": min(starts), "last": max(starts)}
        for connection, starts in missing.items()
        if starts
    ]
    total = sum(len(starts) for starts in missing.values())
    said = "no window is missing" if not rows else f"{total} windows of {len(rows)} connections are missing"
    numbers = {"windows_missing": total, "connections": len(missing)}
    return Verdict(not rows, "WARN", said, numbers, rows[:MOST_ROWS])


def plausible_metrics(metrics: Sequence[Mapping[str, Any]]) -> Verdict:
    """No value is impossible. `metrics`: one row a metric with negative, too_high, in_future (rows) and measured."""
    off = [each for each in metrics if each["negative"] or each["too_high"] or each["in_future"]]
    total = sum(int(each[reason]) for each in off for reason in ("negative", "too_high", "in_future"))
    measured = sum(int(each["measured"]) for each in metrics)
    said = "every value is possible" if not off else f"{total} values of {len(off)} metrics are impossible"
    # shared-core machines burst beyond 100 %: worth a look, and no reason to wake anybody
    wrong = any(each["negative"] or each["in_future"] for each in off)
    return Verdict(
        not off, "ERROR" if wrong else "WARN", said, {"rows_off": total, "rows_checked": measured}, off[:MOST_ROWS]
    )


def vocabulary(unknown: Sequence[tuple[str, str, int]], rows: int) -> Verdict:
    """Every word is known. `unknown`: (column, word as the cloud wrote it, rows with it); `rows`: all of them."""
    counted: dict[tuple[str, str], int] = {}
    for column, word, n in unknown:
        counted[column, word] = counted.get((column, word), 0) + n
    found = [{"column": column, "word": word, "rows": n} for (column, word), n in sorted(counted.items())]
    said = "every word is in the vocabulary" if not found else f"{len(found)} words are not in the vocabulary"
    numbers = {"words_unknown": len(found), "rows_with_unknown_words": sum(counted.values()), "rows_checked": rows}
    return Verdict(not found, "WARN", said, numbers, found[:MOST_ROWS])


def collapse(listings: Sequence[Mapping[str, Any]]) -> Verdict:
    """No listing shrank to less than half between two inventories that succeeded.

    `listings`: connection_id, resource_type, and how many resources stood there `before` and stand there `now`.
    """
    off = [each for each in listings if each["before"] >= FEW and each["now"] < COLLAPSE * each["before"]]
    said = "no inventory collapsed" if not off else f"{len(off)} listings have less than half of what they had"
    numbers = {
        "observed": sum(int(each["now"]) for each in listings),
        "baseline": sum(int(each["before"]) for each in listings),
        "listings_collapsed": len(off),
    }
    return Verdict(not off, "ERROR", said, numbers, off[:MOST_ROWS])
