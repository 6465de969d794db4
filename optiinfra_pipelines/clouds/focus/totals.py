"""What a bill's own digits add up to, per invoice and currency: summed from the text by Arrow and Python alone.

This is the other half of the reconciliation, so it shares no cast with `sql.py`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Context, Decimal, InvalidOperation, localcontext

import pyarrow as pa
import pyarrow.compute as pc

from optiinfra_pipelines.clouds.focus.cur import is_cur, snake
from optiinfra_pipelines.clouds.focus.normaliser import focus_columns
from optiinfra_pipelines.tables.contract import MONEY_PRECISION, MONEY_SCALE

_EXACT = pa.decimal256(76, MONEY_SCALE)  # what the contract can hold; a value with more digits adds nothing
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
        """Count `other` in; exact under a decimal context that is wide enough."""
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
        self.by_invoice: dict[Invoice, Total] = {}

    def add(self, batch: pa.RecordBatch) -> None:
        """Add the rows of `batch`, which has at least the `columns` that the file has."""
        with localcontext(_CONTEXT):
            for invoice, total in _of_batch(batch, self.columns, self._defaults):
                self.by_invoice.setdefault(invoice, Total()).add(total)

    def add_all(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Add the rows of every one of `batches`."""
        for batch in batches:
            self.add(batch)


def _of_batch(
    batch: pa.RecordBatch, columns: Mapping[str, str], defaults: Mapping[str, str]
) -> Iterator[tuple[Invoice, Total]]:
    groups = [name for name in _GROUPS if name in columns]
    sums = [name for name in _SUMS if name in columns]
    table = pa.table(
        {name: batch.column(columns[name]) for name in groups}
        | {name: _exact(batch.column(columns[name])) for name in sums}
    )
    grouped = table.group_by(groups).aggregate([*((name, "sum") for name in sums), ([], "count_all")])
    for row in grouped.to_pylist():
        keys = {name: row.get(name) if row.get(name) not in (None, "") else defaults.get(name) for name in _GROUPS}
        effective = (row["EffectiveCost_sum"] or Decimal(0)) if "EffectiveCost" in sums else None
        yield (
            Invoice(
                _text(keys["ProviderName"]),
                _month(keys["BillingPeriodStart"]),
                _text(keys["InvoiceId"]),
                _text(keys["BillingCurrency"]),
            ),
            Total(row["count_all"], row.get("BilledCost_sum") or Decimal(0), effective),
        )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _exact(column: pa.Array) -> pa.Array:
    """The column's printed digits as exact decimals; doubles by their shortest text."""
    if pa.types.is_decimal(column.type) or pa.types.is_integer(column.type):
        return pc.cast(column, _EXACT)
    printed = column if pa.types.is_string(column.type) else pc.cast(column, pa.string())
    try:
        return pc.cast(printed, _EXACT)
    except pa.ArrowInvalid:
        return pa.array([_number(text) for text in printed.to_pylist()], _EXACT)


def _number(text: str | None) -> Decimal | None:
    if text is None:
        return None
    plain = text.strip()
    if _DRESSED.fullmatch(plain):
        plain = plain.replace("$", "").replace(",", "")
    try:
        number = Decimal(plain) if "_" not in plain else Decimal("NaN")
    except InvalidOperation:
        return None
    if not number.is_finite() or number.adjusted() >= MONEY_PRECISION - MONEY_SCALE:
        return None
    return number if number == round(number, MONEY_SCALE) else None


def _month(value: object) -> str | None:
    if isinstance(value, date | datetime):
        return f"{value:%Y-%m}"
    text = str(value or "").strip()
    for form in ("%m/%d/%y", "%m/%d/%Y", "%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S"):
        try:
            return f"{datetime.strptime(text, form):%Y-%m}"
        except ValueError:
            continue
    try:
        return f"{datetime.fromisoformat(text):%Y-%m}"
    except ValueError:
        return None
