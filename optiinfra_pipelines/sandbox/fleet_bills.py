"""What the fleet costs: the charges of one customer's bill on one cloud, as exact as clouds print them. No I/O.

The servers write them as their cloud's billing API has it; the truths are sums of the same charges.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Literal

from optiinfra_pipelines.sandbox.fleet import Fleet, FleetCloud, Resource, account_of
from optiinfra_pipelines.windows import BillingPeriod

_ON: dict[FleetCloud, tuple[str, ...]] = {  # states in which a machine is charged for
    "aws": ("running",),
    "gcp": ("running",),
    "azure": ("running", "stopped"),
    "vultr": ("running", "stopped"),
}
_TAX = Decimal("0.0625")


@dataclass(frozen=True)
class FleetCharge:
    """One charge. `resource` is None for tax and credit; `cost` = quantity x price, exact; credits are negative.

    `start` and the exclusive `end` are UTC; `invoice_id` is None while the month is open.
    """

    category: Literal["Usage", "Tax", "Credit"]
    resource: Resource | None
    description: str
    start: datetime
    end: datetime
    quantity: Decimal
    price: Decimal
    invoice_id: str | None

    @property
    def cost(self) -> Decimal:
        return self.quantity * self.price


def bill_periods(today: date) -> tuple[BillingPeriod, BillingPeriod]:
    """The months that bills are of: the one before today's, closed, and today's, open."""
    current = BillingPeriod.of(datetime.combine(today, time(), UTC))
    return current.previous, current


def charges(fleet: Fleet, customer_id: str, cloud: FleetCloud, period: BillingPeriod) -> Iterator[FleetCharge]:
    """The charges of one month: one a day and machine or database that was on, then the month's credit and tax.

    On Vultr one charge a resource and month. Days up to yesterday; none of a month that is neither of bill_periods().
    """
    previous, current = bill_periods(fleet.today)
    if period not in (previous, current):
        return
    end = min(period.end, datetime.combine(fleet.today, time(), UTC))
    closed = period == previous
    invoice = f"{cloud.upper()}-{account_of(customer_id, cloud)[-4:] or customer_id}-{period}" if closed else None
    total = Decimal(0)
    for resource in fleet.of(customer_id, cloud, "machine", "database"):
        for start, stop in _spans(cloud, max(period.start, resource.created_at), end):
            if resource.state in _ON[cloud] and resource.shape is not None:
                hours = Decimal(int((stop - start).total_seconds() // 60)) / 60
                quantity = hours.quantize(Decimal("0.0001"))
                text = f"{resource.shape.native_type} {resource.name}"
                found = FleetCharge("Usage", resource, text, start, stop, quantity, resource.shape.hourly, invoice)
                total += found.cost
                yield found
    if total:
        last = end - timedelta(days=1)
        credit = -(total / 50).quantize(Decimal("0.0000001"))
        yield FleetCharge("Credit", None, "Promotional credit", last, end, Decimal(1), credit, invoice)
        tax = ((total + credit) * _TAX).quantize(Decimal("0.01"))
        yield FleetCharge("Tax", None, "Sales tax", last, end, Decimal(1), tax, invoice)


def _spans(cloud: FleetCloud, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    if cloud == "vultr":
        if start < end:
            yield start, end
        return
    while start < end:
        midnight = datetime.combine(start.date(), time(), UTC) + timedelta(days=1)
        yield start, min(midnight, end)
        start = midnight
