"""The bills as FOCUS 1.2 charges: plain values (Decimal, naive UTC datetime, str, dict or None) under FOCUS names.

A charge follows the MUST rules of FOCUS unless a flaw is planted in it. The bill that is delivered as a Cost and
Usage Report arises in `line_items.py`; files and formats are the business of `exports.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any, TypeVar

from optiinfra_pipelines.sandbox.flaws import FLAWS, Flaw
from optiinfra_pipelines.sandbox.scenario import Bill, Commitment, Period, Resource, Scenario, Sku, Usage
from optiinfra_pipelines.tables.focus import FOCUS_1_2

TAX_RATE = Decimal("0.0825")
CENT = Decimal("0.01")
_COSTS = ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost")
_ISSUERS = {"aws": "AWS", "azure": "Microsoft", "gcp": "Google Cloud"}
_PUBLISHERS = {"aws": "Amazon Web Services, Inc.", "azure": "Microsoft", "gcp": "Google"}
_ACCOUNT_TYPES = {
    "aws": ("Billing Account", "Account"),
    "azure": ("Billing Profile", "Subscription"),
    "gcp": ("Billing Account", "Project"),
}
_ZONES = {"aws": "us-east-1b", "azure": "westeurope-2", "gcp": "us-central1-a"}


@dataclass
class Charge:
    """One row of a FOCUS bill and the flaw planted in it, if any; `right_value` is what the flaw displaced."""

    values: dict[str, Any]
    flaw: Flaw | None = None
    right_value: Any = None

    @property
    def accepted(self) -> bool:
        return self.flaw is None or self.flaw.outcome != "rejected"

    @property
    def invoice_id(self) -> str | None:
        return self.values["InvoiceId"]

    @property
    def currency(self) -> str:
        return self.values["BillingCurrency"]

    @property
    def billed_cost(self) -> Decimal:
        return self.values["BilledCost"]

    @property
    def effective_cost(self) -> Decimal:
        return self.values["EffectiveCost"]


ChargeT = TypeVar("ChargeT", bound=Charge)


def focus_charges(scenario: Scenario, bill: Bill, period: Period, stage: int) -> list[Charge]:
    """All charges of one bill and billing period, in the order in which the export lists them."""
    bill_columns = _bill_columns(scenario, bill, period, stage)
    covering = scenario.covering(bill)
    rows: list[dict[str, Any]] = []
    for resource in scenario.resources(bill):
        columns = bill_columns | _resource_columns(bill, resource)
        commitment = covering.get(resource.name)
        for usage in scenario.usage(bill, resource, period, stage):
            row = columns | _usage_columns(bill, resource.sku, usage)
            rows.append(row)
            if commitment:
                row |= _used_columns(bill, commitment, usage.quantity)
                if usage.quantity < 24:
                    rows.append(bill_columns | _unused_columns(bill, resource.sku, commitment, usage))
        if commitment and not (commitment.upfront and period != scenario.periods[0]):
            days = scenario.days if commitment.upfront else len(period.days)
            rows.append(bill_columns | _purchase_columns(bill, resource.sku, commitment, period, days))
    if period != scenario.periods[0]:
        rows.append(_correction(rows[0]))
    tax = bill_columns | _tax_columns(rows, period)
    rows += [bill_columns | _credit_columns(scenario, bill, period), tax]
    return planted(bill, period, [Charge(row | _pricing_currency_columns(row)) for row in rows])


def late_charges(scenario: Scenario, bill: Bill, period: Period) -> list[Charge]:
    """Usage of the period's last two days that the provider had not metered in time: stage 2 delivers it."""
    resource = scenario.resources(bill)[0]
    columns = _bill_columns(scenario, bill, period, stage=2) | _resource_columns(bill, resource)
    random = scenario.random(bill.customer_id, bill.cloud, "late", period.month)
    charges = []
    for day in period.days[-2:]:
        start = datetime.combine(day, time())
        usage = Usage(start, start + timedelta(days=1), Decimal(random.randint(10**5, 10**6)))
        row = columns | _usage_columns(bill, resource.sku, usage)
        charges.append(Charge(row | _pricing_currency_columns(row)))
    return charges


def planted(bill: Bill, period: Period, charges: list[ChargeT]) -> list[ChargeT]:
    """The same charges, with the flaws that are planted in this bill and period put into them."""
    for flaw in FLAWS:
        if (flaw.customer_id, flaw.cloud, flaw.month) == (bill.customer_id, bill.cloud, period.month):
            column, value = flaw.where
            candidates = (charge for charge in charges if charge.values[column] == value and not charge.flaw)
            for charge in islice(candidates, flaw.nth, flaw.nth + 1):
                charge.flaw = flaw
                if flaw.column:
                    charge.right_value = charge.values[flaw.column]
                    charge.values[flaw.column] = flaw.change(charge.right_value)
    return charges


def _bill_columns(scenario: Scenario, bill: Bill, period: Period, stage: int) -> dict[str, Any]:
    issuer = _ISSUERS[bill.cloud]
    account_type, sub_account_type = _ACCOUNT_TYPES[bill.cloud]
    return dict.fromkeys(column.name for column in FOCUS_1_2) | {
        "BillingAccountId": bill.account if bill.cloud == "aws" else f"{bill.cloud}-billing-{bill.account[-4:]}",
        "BillingAccountName": f"{bill.customer_id} {bill.cloud}",
        "BillingAccountType": account_type,
        "BillingCurrency": bill.currency,
        "BillingPeriodStart": period.start,
        "BillingPeriodEnd": period.end,
        "InvoiceId": scenario.invoice_id(bill, period, stage),
        "InvoiceIssuerName": issuer,
        "ProviderName": issuer,
        "PublisherName": _PUBLISHERS[bill.cloud],
        "PricingCurrency": bill.currency,
        "SubAccountId": bill.account,
        "SubAccountName": f"{bill.customer_id}-production",
        "SubAccountType": sub_account_type,
    }


def _pricing_currency_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    columns = ("EffectiveCost", "ListUnitPrice", "ContractedUnitPrice")
    return {f"PricingCurrency{column}": row[column] for column in columns}


def _resource_columns(bill: Bill, resource: Resource) -> dict[str, Any]:
    account, sku, name = bill.account, resource.sku, resource.name
    region_id, region_name = bill.region
    group = f"{resource.application}-{resource.environment}"
    return {
        "AvailabilityZone": _ZONES[bill.cloud] if sku.machine else None,
        "ChargeDescription": f"{sku.meter}, {sku.list_price} per {sku.unit}, {region_name}",
        "RegionId": region_id,
        "RegionName": region_name,
        "ResourceId": {
            "aws": f"arn:aws:sandbox:{region_id}:{account}:{name}",
            "azure": f"/subscriptions/{account}/resourcegroups/{group}/providers/microsoft.sandbox/items/{name}",
            "gcp": f"//sandbox.googleapis.com/projects/{account}/regions/{region_id}/items/{name}",
        }[bill.cloud],
        "ResourceName": name,
        "ResourceType": sku.resource_type,
        "Tags": resource.tags,
    } | _sku_columns(bill, sku, "on-demand")


def _sku_columns(bill: Bill, sku: Sku, terms: str) -> dict[str, Any]:
    sku_id = sku_id_of(bill, sku)
    return {
        "ServiceCategory": sku.category,
        "ServiceName": sku.service,
        "ServiceSubcategory": sku.subcategory,
        "SkuId": sku_id,
        "SkuMeter": sku.meter,
        "SkuPriceDetails": {"InstanceType": sku.meter} if sku.machine else None,
        "SkuPriceId": f"{sku_id}/{terms}",
    }


def sku_id_of(bill: Bill, sku: Sku) -> str:
    """The provider's identifier of a SKU: its meter in capitals."""
    return f"{bill.cloud}-{sku.meter}".replace(" ", "-").upper()


def _usage_columns(bill: Bill, sku: Sku, usage: Usage) -> dict[str, Any]:
    priced = _price_columns(sku.list_price, sku.list_price * bill.contracted_factor, usage.quantity, sku.unit)
    stored = sku.unit == "GB-Months"
    return priced | {
        "BilledCost": priced["ContractedCost"],
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": usage.start,
        "ChargePeriodEnd": usage.end,
        "ConsumedQuantity": usage.quantity * _hours_of_month(bill) if stored else usage.quantity,
        "ConsumedUnit": "GB-Hours" if stored else sku.unit,
        "EffectiveCost": priced["ContractedCost"],
        "PricingCategory": "Standard",
    }


def _price_columns(list_price: Decimal, price: Decimal, quantity: Decimal, unit: str) -> dict[str, Any]:
    return {
        "ContractedCost": price * quantity,
        "ContractedUnitPrice": price,
        "ListCost": list_price * quantity,
        "ListUnitPrice": list_price,
        "PricingQuantity": quantity,
        "PricingUnit": unit,
    }


def _hours_of_month(bill: Bill) -> Decimal:
    return Decimal(730) if bill.layout == "aws_data_export" else Decimal("730.485")


def _commitment_columns(bill: Bill, commitment: Commitment, hours: Decimal) -> dict[str, Any]:
    spend = commitment.category == "Spend"
    return {
        "CommitmentDiscountCategory": commitment.category,
        "CommitmentDiscountId": commitment.id.format(account=bill.account),
        "CommitmentDiscountName": commitment.name,
        "CommitmentDiscountQuantity": commitment.price * hours if spend else hours,
        "CommitmentDiscountType": commitment.type,
        "CommitmentDiscountUnit": bill.currency if spend else "Hours",
    }


def _used_columns(bill: Bill, commitment: Commitment, hours: Decimal) -> dict[str, Any]:
    return _commitment_columns(bill, commitment, hours) | {
        "BilledCost": Decimal(0),
        "CommitmentDiscountStatus": "Used",
        "EffectiveCost": commitment.price * hours,
        "PricingCategory": "Committed",
    }


def _unused_columns(bill: Bill, sku: Sku, commitment: Commitment, usage: Usage) -> dict[str, Any]:
    hours = 24 - usage.quantity
    rest = usage._replace(quantity=hours)
    return (
        _sku_columns(bill, sku, "committed")
        | _usage_columns(bill, sku, rest)
        | _used_columns(bill, commitment, hours)
        | _commitment_resource_columns(bill, commitment)
        | {
            "ChargeDescription": f"Unused part of {commitment.name}",
            "CommitmentDiscountStatus": "Unused",
            "ConsumedQuantity": None,
            "ConsumedUnit": None,
        }
    )


def _commitment_resource_columns(bill: Bill, commitment: Commitment) -> dict[str, Any]:
    return {
        "RegionId": bill.region[0],
        "RegionName": bill.region[1],
        "ResourceId": commitment.id.format(account=bill.account),
        "ResourceName": commitment.name,
        "ResourceType": commitment.type,
    }


def _purchase_columns(bill: Bill, sku: Sku, commitment: Commitment, period: Period, days: int) -> dict[str, Any]:
    hours = Decimal(24 * days)
    return (
        _sku_columns(bill, sku, "commitment")
        | _commitment_columns(bill, commitment, hours)
        | _commitment_resource_columns(bill, commitment)
        | _price_columns(commitment.price, commitment.price, hours, sku.unit)
        | {
            "BilledCost": commitment.price * hours,
            "ChargeCategory": "Purchase",
            "ChargeDescription": f"{'Upfront' if commitment.upfront else 'Monthly'} fee of {commitment.name}",
            "ChargeFrequency": "One-Time" if commitment.upfront else "Recurring",
            "ChargePeriodStart": datetime.combine(period.days[0], time()),
            "ChargePeriodEnd": period.end,
            "EffectiveCost": Decimal(0),
            "PricingCategory": "Standard",
        }
    )


def _correction(row: Mapping[str, Any]) -> dict[str, Any]:
    """Takes back the like of `row`, the period's first charge, for the day before: an earlier, invoiced period."""
    amounts = (*_COSTS, "PricingQuantity", "ConsumedQuantity")
    return {
        **row,
        **{column: -row[column] for column in amounts},
        "ChargeClass": "Correction",
        "ChargeDescription": f"Correction: {row['ChargeDescription']}",
        "ChargePeriodStart": row["ChargePeriodStart"] - timedelta(days=1),
        "ChargePeriodEnd": row["ChargePeriodEnd"] - timedelta(days=1),
    }


def _credit_columns(scenario: Scenario, bill: Bill, period: Period) -> dict[str, Any]:
    cents = scenario.random(bill.customer_id, bill.cloud, "credit", period.month).randint(2000, 9000)
    return dict.fromkeys(_COSTS, Decimal(-cents).scaleb(-2)) | {
        "ChargeCategory": "Credit",
        "ChargeDescription": "Promotional credit",
        "ChargeFrequency": "One-Time",
        "ChargePeriodStart": datetime.combine(period.days[0], time()),
        "ChargePeriodEnd": period.end,
        "ServiceCategory": "Other",
        "ServiceName": "Credits",
        "ServiceSubcategory": "Other (Other)",
    }


def _tax_columns(rows: Sequence[Mapping[str, Any]], period: Period) -> dict[str, Any]:
    totals = {column: sum(row[column] for row in rows) for column in _COSTS}
    return {column: (total * TAX_RATE).quantize(CENT) for column, total in totals.items()} | {
        "ChargeCategory": "Tax",
        "ChargeDescription": f"Sales tax of {TAX_RATE:%}",
        "ChargeFrequency": "Recurring",
        "ChargePeriodStart": datetime.combine(period.days[0], time()),
        "ChargePeriodEnd": period.end,
        "ServiceCategory": "Other",
        "ServiceName": "Tax",
        "ServiceSubcategory": "Other (Other)",
    }
