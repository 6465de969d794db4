"""The bill of an Azure subscription by the Cost Management query API, as FOCUS rows: actual cost is what is billed,
amortised cost what is effective. Exports in Blob tell more (prices, tags): this is for where there are none."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from optiinfra_pipelines.clouds.azure.client import Access, open_azure
from optiinfra_pipelines.clouds.azure.vocabulary import CHARGE_CATEGORIES, PRICING_CATEGORIES, SERVICES
from optiinfra_pipelines.clouds.collecting import Source
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.windows import BillingPeriod

# What charges are grouped by: of the dimensions that the API names as valid for a subscription, those that tell one
# charge from another. The unit of a quantity is none of them.
GROUPING = (  # the resource first
    *("ResourceId", "ResourceType", "ResourceLocation", "ServiceName", "MeterCategory", "MeterSubcategory", "Meter"),
    *("ChargeType", "PricingModel", "PublisherType", "InvoiceNumber"),
)
_COST, _QUANTITY = "Cost", "UsageQuantity"  # answers name their columns so, whatever alias is asked for
_MONTHS = 12  # the API takes a year at once
Charge = dict[str, str | None]
Row = Mapping[str, Any]
Key = tuple[str | None, ...]


class CostManagementBill:
    """The bill at cost-management://subscription-id. Opening it contacts nobody."""

    def __init__(self, source: Source) -> None:
        location = source.connection.billing.location if source.connection.billing else ""
        subscription = location.removeprefix("cost-management://")
        if not subscription or subscription == location or "/" in subscription:
            raise CollectionError(
                "not_configured", f"{source.name}: {location or 'no location'} is not cost-management://subscription-id"
            )
        self._source = source
        self._subscription = subscription
        self._access = Access(source)

    def periods(self) -> list[BillingPeriod]:
        """The months of the last twelve that have any cost, oldest first."""
        newest = BillingPeriod.of(datetime.now(UTC))
        oldest = newest
        for _ in range(_MONTHS - 1):
            oldest = oldest.previous
        body = _body("ActualCost", oldest.start, newest.end, "Monthly", ())
        months = {str(row["BillingMonth"])[:7] for row in self._rows(body)}
        return sorted(BillingPeriod(each) for each in months)

    def rows(self, period: BillingPeriod) -> pa.Table:
        """The charges of `period`, one a day and group; no rows where there is no bill yet. CollectionError: what
        rest.Api raises, and malformed where the answer has columns that were not asked for."""
        answers = [
            list(self._rows(_body(kind, period.start, period.end, "Daily", GROUPING)))
            for kind in ("ActualCost", "AmortizedCost")
        ]
        charges = charge_rows(period, self._subscription, *answers)
        names = sorted({name for charge in charges for name in charge})
        return pa.table({name: pa.array([each.get(name) for each in charges], pa.string()) for name in names})

    def _rows(self, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        with open_azure(self._source, self._access) as azure:
            for page in azure.costs(self._subscription, body):
                yield from charges_of(page)


def charge_rows(
    period: BillingPeriod, subscription: str, actual: Sequence[Row], amortised: Sequence[Row]
) -> list[Charge]:
    """The charges that the answers of one month tell, by day, group and currency, under FOCUS names.

    CollectionError (malformed) where one answer has a charge twice.
    """
    billed, effective = _by_key(actual), _by_key(amortised)
    return [
        _charge(period, key, billed.get(key), effective.get(key), subscription)
        for key in sorted({*billed, *effective}, key=repr)
    ]


def _by_key(rows: Sequence[Row]) -> dict[Key, Row]:
    """Azure writes one resource's id in several cases: charges that differ in nothing else are one."""
    found: dict[Key, Row] = {}
    written: set[Key] = set()
    for row in rows:
        day, currency, (resource, *rest) = str(row["UsageDate"]), row["Currency"], _group(row)
        if (day, currency, resource, *rest) in written:
            raise CollectionError("malformed", f"Cost Management sent the charge {(day, currency, resource)} twice")
        written.add((day, currency, resource, *rest))
        key = (day, currency, resource and resource.lower(), *rest)
        found[key] = _added(found[key], row) if key in found else row
    return found


def _group(row: Row) -> list[str | None]:
    return [row.get(name) or None for name in GROUPING]


def _added(one: Row, other: Row) -> Row:
    sums = {name: (one.get(name) or 0) + (other.get(name) or 0) for name in (_COST, _QUANTITY) if name in one}
    return {**one, **sums}


def _body(kind: str, start: datetime, end: datetime, granularity: str, grouping: tuple[str, ...]) -> dict[str, Any]:
    last = end - timedelta(days=1)  # Azure's dates are inclusive
    return {
        "type": kind,
        "timeframe": "Custom",
        "timePeriod": {"from": f"{start:%Y-%m-%dT00:00:00Z}", "to": f"{last:%Y-%m-%dT00:00:00Z}"},
        "dataset": {
            "granularity": granularity,
            "aggregation": {
                _COST: {"name": _COST, "function": "Sum"},
                _QUANTITY: {"name": _QUANTITY, "function": "Sum"},
            },
            "grouping": [{"type": "Dimension", "name": name} for name in grouping],
        },
    }


def charges_of(page: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of one page's `properties`, by the names of its columns: their order is Azure's."""
    names = [column["name"] for column in page["columns"]]
    return (dict(zip(names, row, strict=True)) for row in page["rows"])


def _charge(period: BillingPeriod, key: Key, actual: Row | None, amortised: Row | None, subscription: str) -> Charge:
    """One charge under FOCUS names. A commitment's purchase is in actual cost alone, its use in amortised cost."""
    said: Charge = dict(zip(GROUPING, key[2:], strict=True))
    day = datetime.strptime(str(key[0]), "%Y%m%d").replace(tzinfo=UTC)
    category = CHARGE_CATEGORIES.get(said["ChargeType"] or "", said["ChargeType"])
    service = SERVICES.get(said["ServiceName"] or "", ("Other", "Other (Other)"))
    quantity = next((each.get(_QUANTITY) for each in (actual, amortised) if each is not None), None)
    pricing = said["PricingModel"]
    return {
        "BilledCost": _digits(actual[_COST] if actual else 0),
        "EffectiveCost": _digits(amortised[_COST] if amortised else 0),
        "BillingCurrency": key[1],
        "BillingPeriodStart": _time(period.start),
        "BillingPeriodEnd": _time(period.end),
        "ChargeCategory": category,
        "ChargeDescription": said["Meter"] or said["MeterCategory"] or said["ChargeType"],
        "ChargePeriodStart": _time(day),
        "ChargePeriodEnd": _time(day + timedelta(days=1)),
        "InvoiceId": said["InvoiceNumber"],
        "InvoiceIssuerName": "Microsoft",
        "PricingCategory": PRICING_CATEGORIES.get(pricing or "", pricing),
        "ProviderName": "Microsoft",
        "PublisherName": "Microsoft" if said["PublisherType"] in (None, "Azure", "Microsoft") else None,
        "RegionName": said["ResourceLocation"],  # as bills name it (EU West): not the id that inventory has
        "ResourceId": said["ResourceId"],
        "ResourceName": said["ResourceId"].rpartition("/")[2] if said["ResourceId"] else None,
        "ResourceType": said["ResourceType"],
        "ServiceCategory": service[0],
        "ServiceName": said["ServiceName"],
        "ServiceSubcategory": service[1],
        "SubAccountId": subscription,
        "x_ChargeType": said["ChargeType"],
        "x_MeterCategory": said["MeterCategory"],
        "x_MeterSubcategory": said["MeterSubcategory"],
        "x_PublisherType": said["PublisherType"],
        "x_UsageQuantity": _digits(quantity),  # of a unit that the API does not tell: no ConsumedQuantity
    }


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def _digits(number: Decimal | int | None) -> str | None:
    return None if number is None else f"{Decimal(number):f}"
