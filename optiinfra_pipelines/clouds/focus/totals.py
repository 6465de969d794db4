"""What a bill's own digits add up to, per invoice and currency: summed from the text by Arrow and Python alone.

This is the other half of the reconciliation, so it shares no cast of money with `sql.py`. The month of a row is read
by `sql.py`'s rule: it decides which rows a load takes, so both halves have to mean the same month.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Context, Decimal, InvalidOperation, localcontext

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from optiinfra_pipelines.clouds.focus.cur import is_cur, snake
from optiinfra_pipelines.clouds.focus.normaliser import focus_columns
from optiinfra_pipelines.clouds.focus.sql import timestamp, within_bills
from optiinfra_pipelines.tables.contract import MONEY_PRECISION, MONEY_SCALE

_EXACT = pa.decimal128(MONEY_PRECISION, MONEY_SCALE)  # what the contract can hold: a number with more adds nothing
_SUM = pa.decimal256(76, MONEY_SCALE)
_CONTEXT = Context(prec=76)
# $1,234 and 1,234.56 can be read in one way only; 1,234 alone could be a decimal comma.
_DRESSED = re.compile(r"-?\$\d{1,3}(,\d{3})*(\.\d+)?|-?\d{1,3}(,\d{3})+\.\d+")
# What the totals are grouped by and summed over: FOCUS name -> name in a Cost and Usage Report.
_CUR_NAMES = {
    "InvoiceId": "bill_invoice_id",
    "BillingCurrency": "line_item_currency_code",
    "BillingPeriodStart": "bill_billing_period_start_date",
    "BilledCost": "line_item_unblended_cost",
}
_GROUPS = ("ProviderName", "BillingPeriodStart", "InvoiceId", "BillingCurrency")
_SUMS = ("BilledCost", "EffectiveCost")


@dataclass(frozen=True)
class Invoice:
    """What a total is of: names as printed, the period as 'YYYY-MM' (None where it cannot be read)."""

    provider_name: str | None
    billing_period: str | None
    invoice_id: str | None
    currency: str | None


@dataclass
class Total:
    """Rows counted and the two sums; `effective_cost` stays None where the layout prints none."""

    rows: int = 0
    billed_cost: Decimal = Decimal(0)
    effective_cost: Decimal | None = None

    def add(self, other: "Total") -> None:
        """Count `other` in, exactly."""
        with localcontext(_CONTEXT):
            self.rows += other.rows
            self.billed_cost += other.billed_cost
            if other.effective_cost is not None:
                self.effective_cost = (self.effective_cost or Decimal(0)) + other.effective_cost


def total_columns(names: Iterable[str]) -> dict[str, str]:
    """FOCUS name -> the file's own name, for the columns that totals need and the file has."""
    names = list(names)
    if is_cur(names):
        by_snake = {snake(name): name for name in reversed(names)}
        return {focus: by_snake[own] for focus, own in _CUR_NAMES.items() if own in by_snake}
    return {focus: own for focus, own in focus_columns(names).items() if focus in (*_GROUPS, *_SUMS)}


class Totals:
    """Totals by invoice, grown batch by batch. Unreadable numbers add nothing."""

    def __init__(self, names: Iterable[str], defaults: Mapping[str, str]) -> None:
        names = list(names)
        self.columns = total_columns(names)
        self._defaults = {"ProviderName": "AWS", **defaults} if is_cur(names) else defaults
        self._months: dict[object, str | None] = {None: None}
        self.by_invoice: dict[Invoice, Total] = {}

    def add(self, batch: pa.RecordBatch) -> None:
        """Add the rows of `batch`, which has at least the `columns` that the file has."""
        with localcontext(_CONTEXT):
            found = list(_of_batch(batch, self.columns, self._defaults))
        self._months |= _months({start for _, start, _ in found} - self._months.keys())
        for invoice, start, total in found:
            self.by_invoice.setdefault(replace(invoice, billing_period=self._months[start]), Total()).add(total)

    def rows_of(self, billing_period: str | None) -> int:
        """How many rows were of `billing_period`, 'YYYY-MM'; None: of none that can be read."""
        return sum(total.rows for invoice, total in self.by_invoice.items() if invoice.billing_period == billing_period)

    def add_all(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Add the rows of every one of `batches`."""
        for batch in batches:
            self.add(batch)


def _of_batch(
    batch: pa.RecordBatch, columns: Mapping[str, str], defaults: Mapping[str, str]
) -> Iterator[tuple[Invoice, object, Total]]:
    """(invoice without its period, the period's start as the file has it, total), several of them equal perhaps."""
    groups = [name for name in _GROUPS if name in columns]
    sums = [name for name in _SUMS if name in columns]
    table = pa.table(
        {"": pa.nulls(batch.num_rows)}  # a file that has none of the columns still has rows
        | {name: _plain(batch.column(columns[name])) for name in groups}
        | {name: _exact(batch.column(columns[name])) for name in sums}
    )
    grouped = table.group_by(["", *groups]).aggregate([*((name, "sum") for name in sums), ([], "count_all")])
    for row in grouped.to_pylist():
        keys = {name: row.get(name) if row.get(name) not in (None, "") else defaults.get(name) for name in _GROUPS}
        effective = (row["EffectiveCost_sum"] or Decimal(0)) if "EffectiveCost" in sums else None
        invoice = Invoice(_text(keys["ProviderName"]), None, _text(keys["InvoiceId"]), _text(keys["BillingCurrency"]))
        yield (
            invoice,
            keys["BillingPeriodStart"],
            Total(row["count_all"], row.get("BilledCost_sum") or Decimal(0), effective),
        )


def _plain(column: pa.Array) -> pa.Array:
    """The column in a type that Python has a value for: text without a dictionary, times of microseconds."""
    if pa.types.is_dictionary(column.type):
        return pc.cast(column, column.type.value_type)
    if pa.types.is_timestamp(column.type):
        return pc.cast(column, pa.timestamp("us", tz=column.type.tz), safe=False)
    return column


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _exact(column: pa.Array) -> pa.Array:
    """The column's printed digits as exact decimals; doubles by their shortest text."""
    number = pa.types.is_decimal(column.type) or pa.types.is_integer(column.type)
    printed = column if number or pa.types.is_string(column.type) else pc.cast(column, pa.string())
    try:
        exact = pc.cast(printed, _EXACT)
    except pa.ArrowInvalid:
        exact = pa.array([_number(text) for text in pc.cast(printed, pa.string()).to_pylist()], _EXACT)
    return pc.cast(exact, _SUM)


def _number(text: str | None) -> Decimal | None:
    if text is None:
        return None
    plain = text.strip()
    if _DRESSED.fullmatch(plain):
        plain = plain.replace("$", "").replace(",", "")
    try:
        number = Decimal(plain)
    except InvalidOperation:
        return None
    if "_" in plain or not plain.isascii() or not number.is_finite():
        return None
    if number.adjusted() >= MONEY_PRECISION - MONEY_SCALE:
        return None
    exact = round(number, MONEY_SCALE)
    return exact if exact == number else None


def _months(starts: Iterable[object]) -> dict[object, str | None]:
    """The month, 'YYYY-MM' in UTC, of each period's start as a file has it: a time, or a text to be read as one."""
    printed = {start: _in_utc(start) for start in starts}
    if not printed:
        return {}
    value = timestamp("printed", pa.string())
    with duckdb.connect(config={"threads": 1}) as con:
        con.execute("SET TimeZone = 'UTC'")
        found = con.execute(
            "SELECT printed, strftime(moment, '%Y-%m') FROM"
            f" (SELECT printed, {value.sql} AS moment FROM (SELECT unnest($printed) AS printed))"
            f" WHERE {within_bills('moment')}",
            {"printed": list(printed.values())},
        )
        month_of = dict(found.fetchall())
    return {start: month_of.get(text) for start, text in printed.items()}


def _in_utc(start: object) -> str:
    if isinstance(start, datetime) and start.tzinfo is not None:
        start = start.astimezone(UTC).replace(tzinfo=None)
    return start.isoformat(sep=" ") if isinstance(start, datetime) else str(start)
