"""The bill of a Vultr account: invoices with their items, and the pending charges of the open month, as FOCUS rows.

What Vultr does not say stays null: resource ids (an item names its resource in free text: x_ResourceHint), regions,
tags, list and contracted prices apart from what is charged, the billing account. Charges are of a whole period and not
of days, and no currency is named: Vultr bills in US dollars (https://docs.vultr.com/support/platform/billing).
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from optiinfra_pipelines.clouds.collecting import Source
from optiinfra_pipelines.clouds.vultr.client import VultrApi
from optiinfra_pipelines.clouds.vultr.vocabulary import SERVICES
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.windows import BillingPeriod

Item = Mapping[str, Any]
Row = dict[str, str | None]
# An invoice is made in the first days of a month (recorded: the 1st at 00:30, the 2nd at 00:48) and is of the month
# before; one that is made later is of its own month.
MADE_WITHIN = timedelta(days=3)
_TAX = re.compile(r"\b(tax|vat|gst|hst|pst|consumption tax)\b", re.IGNORECASE)
_HINTS = (  # where an item's text names its resource, the surest first
    re.compile(r"\[([^\]]+)\]\s*$"),  # 1.1.1.1 (8192 MB) [my-instance]
    re.compile(r"^(\d+\.\d+\.\d+\.\d+)\b"),  # 1.1.1.1 (1024 MB)
    re.compile(r"\(([^()]+)\)\s*$"),  # Load Balancer (my-loadbalancer)
)
CURRENCY_NOTE = "the API names no currency; Vultr bills in USD"
COLUMNS = (
    *("BilledCost", "EffectiveCost", "BillingCurrency", "BillingPeriodStart", "BillingPeriodEnd", "ChargeCategory"),
    *("ChargeDescription", "ChargeFrequency", "ChargePeriodStart", "ChargePeriodEnd", "ConsumedQuantity"),
    *("ConsumedUnit", "InvoiceId", "InvoiceIssuerName", "PricingQuantity", "PricingUnit", "ProviderName"),
    *("PublisherName", "ResourceId", "ServiceCategory", "ServiceName", "ServiceSubcategory"),
    *("x_ResourceHint", "x_UnitPrice", "x_CurrencyNote", "x_Estimated", "x_InvoiceDate", "x_InvoiceAmount"),
)


class VultrBill:
    """The bill of one Vultr account; see collecting.BillSource."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.api = VultrApi(source)

    def periods(self) -> Iterable[BillingPeriod]:
        """The months of all invoices and of what is pending, oldest first."""
        found = {invoice_period(each) for each in self._invoices()}
        return sorted(found | {pending_period(each) for each in self._pending()})

    def rows(self, period: BillingPeriod) -> pa.Table:
        """The charges of `period`: items of its invoices, then what is pending of it.

        Once an invoice closes the period, what is still listed as pending of it is on that invoice, and left out.
        """
        # pending first: charges that an invoice takes over between the two answers are then in one of them or in both
        pending = [each for each in self._pending() if pending_period(each) == period]
        invoices = [each for each in self._invoices() if invoice_period(each) == period]
        rows: list[Row] = []
        for invoice in invoices:
            items = self.api.list(f"/billing/invoices/{invoice['id']}/items", "invoice_items")
            rows += [charge_row(item, period, invoice) for item in items]
        if not any(closes(invoice, period) for invoice in invoices):
            rows += [charge_row(item, period) for item in pending]
        return pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in COLUMNS})

    def _invoices(self) -> list[dict[str, Any]]:
        return self.api.list("/billing/invoices", "billing_invoices")

    def _pending(self) -> list[dict[str, Any]]:
        return self.api.list("/billing/pending-charges", "pending_charges")


def invoice_period(invoice: Item) -> BillingPeriod:
    """The month that an invoice is of, by its date; CollectionError (malformed) where that is no date."""
    try:
        return BillingPeriod.of(datetime.fromisoformat(invoice["date"]) - MADE_WITHIN)
    except ValueError as error:
        raise CollectionError("malformed", f"vultr: invoice {invoice.get('id')}: {error}") from error


def closes(invoice: Item, period: BillingPeriod) -> bool:
    """Whether an invoice of `period` is of the whole of it: one that is made when the month is over."""
    return datetime.fromisoformat(invoice["date"]) >= period.end


def pending_period(item: Item) -> BillingPeriod:
    """The month that a pending charge is of: that of its start, for until the invoice is made, shortly after midnight
    of the 1st, the month before is pending too. CollectionError (malformed) where that is no date."""
    try:
        return BillingPeriod.of(datetime.fromisoformat(item["start_date"]))
    except ValueError as error:
        raise CollectionError("malformed", f"vultr: pending charge {item.get('description')}: {error}") from error


def charge_row(item: Item, period: BillingPeriod, invoice: Item | None = None) -> Row:
    """An invoice item, or without `invoice` a pending charge, under FOCUS names; amounts in their printed digits."""
    total = _digits(item["total"])
    category = _category(item, total or "0")
    product = item.get("product") or None
    usage = category == "Usage"
    service = SERVICES.get(product or "", ("Other", "Other (Other)")) if usage else ("Other", "Other (Other)")
    units, unit = _digits(item.get("units")) if usage else None, (item.get("unit_type") or None) if usage else None
    values: dict[str, str | None] = {
        "BilledCost": total,
        "EffectiveCost": total,
        "BillingCurrency": "USD",
        "BillingPeriodStart": _time(period.start),
        "BillingPeriodEnd": _time(period.end),
        "ChargeCategory": category,
        "ChargeDescription": item.get("description") or None,
        "ChargeFrequency": "Usage-Based" if unit == "hours" else None,
        "ChargePeriodStart": item.get("start_date") or _time(period.start),
        "ChargePeriodEnd": item.get("end_date") or _time(period.end),
        "ConsumedQuantity": units,
        "ConsumedUnit": unit and unit.capitalize(),
        "InvoiceId": str(invoice["id"]) if invoice else None,
        "InvoiceIssuerName": "Vultr",
        "PricingQuantity": units,
        "PricingUnit": unit and unit.capitalize(),
        "ProviderName": "Vultr",
        "PublisherName": "Vultr",
        "ServiceCategory": service[0],
        "ServiceName": product,
        "ServiceSubcategory": service[1],
        "x_ResourceHint": _hint(item.get("description") or "") if usage else None,
        "x_UnitPrice": _digits(item.get("unit_price")),
        "x_CurrencyNote": CURRENCY_NOTE,
        "x_Estimated": None if invoice else "true",
        "x_InvoiceDate": invoice["date"] if invoice else None,
        "x_InvoiceAmount": _digits(invoice["amount"]) if invoice else None,
    }
    return dict.fromkeys(COLUMNS) | values


def _category(item: Item, total: str) -> str:
    words = f"{item.get('product') or ''} {item.get('description') or ''}"
    if _TAX.search(item.get("product") or "") or (not item.get("unit_type") and _TAX.search(words)):
        return "Tax"
    return "Credit" if total.startswith("-") else "Usage"


def _hint(description: str) -> str | None:
    found = (pattern.search(description) for pattern in _HINTS)
    return next((match[1] for match in found if match), None)


def _digits(number: Any) -> str | None:
    """A number of the API, an int or the Decimal of its digits, as text without an exponent."""
    return None if number is None else f"{Decimal(number):f}"


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()
