"""The bill that is delivered as a Cost and Usage Report: AWS line items under their report column names.

The layout is the legacy report's (docs.aws.amazon.com/cur/latest/userguide/data-dictionary.html). What a line item
means in FOCUS, by which the truths are reckoned, is `LineItem.billed_cost` and `LineItem.effective_cost`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

from optiinfra_pipelines.sandbox.bills import CENT, TAX_RATE, Charge, planted, sku_id_of
from optiinfra_pipelines.sandbox.scenario import Bill, Commitment, Period, Resource, Scenario, Usage

COLUMNS = {
    "identity": "LineItemId TimeInterval",
    "bill": "InvoiceId InvoicingEntity BillingEntity BillType PayerAccountId BillingPeriodStartDate "
    "BillingPeriodEndDate",
    "lineItem": "UsageAccountId LineItemType UsageStartDate UsageEndDate ProductCode UsageType Operation "
    "AvailabilityZone ResourceId UsageAmount NormalizationFactor NormalizedUsageAmount CurrencyCode UnblendedRate "
    "UnblendedCost BlendedRate BlendedCost LineItemDescription TaxType LegalEntity",
    "product": "ProductName instanceType location locationType operation productFamily region regionCode servicecode "
    "servicename sku usagetype",
    "pricing": "RateCode RateId currency publicOnDemandCost publicOnDemandRate term unit",
    "reservation": "AmortizedUpfrontCostForUsage AmortizedUpfrontFeeForBillingPeriod EffectiveCost EndTime "
    "ModificationStatus NormalizedUnitsPerReservation NumberOfReservations RecurringFeeForUsage ReservationARN "
    "StartTime SubscriptionId TotalReservedNormalizedUnits TotalReservedUnits UnitsPerReservation "
    "UnusedAmortizedUpfrontFeeForBillingPeriod UnusedNormalizedUnitQuantity UnusedQuantity UnusedRecurringFee "
    "UpfrontValue",
    "savingsPlan": "TotalCommitmentToDate SavingsPlanARN SavingsPlanRate UsedCommitment SavingsPlanEffectiveCost "
    "AmortizedUpfrontCommitmentForBillingPeriod RecurringCommitmentForBillingPeriod",
    "resourceTags": "user:application user:environment",
}
COLUMN_NAMES = tuple(f"{category}/{name}" for category, names in COLUMNS.items() for name in names.split())
FOCUS_MAPPING = {
    "BilledCost": "lineItem/UnblendedCost of every line item, so that a sum over bill/InvoiceId is the invoice; what "
    "SavingsPlanCoveredUsage adds, SavingsPlanNegation takes away",
    "EffectiveCost": {
        "SavingsPlanCoveredUsage": "savingsPlan/SavingsPlanEffectiveCost",
        "SavingsPlanRecurringFee": "savingsPlan/TotalCommitmentToDate - savingsPlan/UsedCommitment",
        "SavingsPlanNegation": "0",
        "SavingsPlanUpfrontFee": "0",
        "DiscountedUsage": "reservation/EffectiveCost",
        "RIFee": "reservation/UnusedAmortizedUpfrontFeeForBillingPeriod + reservation/UnusedRecurringFee",
        "every other type": "lineItem/UnblendedCost",
    },
}


@dataclass
class LineItem(Charge):
    """One line of the report, and what it means in FOCUS by FOCUS_MAPPING."""

    @property
    def invoice_id(self) -> str | None:
        return self.values["bill/InvoiceId"]

    @property
    def currency(self) -> str:
        return self.values["lineItem/CurrencyCode"]

    @property
    def billed_cost(self) -> Decimal:
        return self.values["lineItem/UnblendedCost"]

    @property
    def effective_cost(self) -> Decimal:
        values = self.values
        match values["lineItem/LineItemType"]:
            case "SavingsPlanCoveredUsage":
                return values["savingsPlan/SavingsPlanEffectiveCost"]
            case "SavingsPlanRecurringFee":
                return values["savingsPlan/TotalCommitmentToDate"] - values["savingsPlan/UsedCommitment"]
            case "SavingsPlanNegation" | "SavingsPlanUpfrontFee":
                return Decimal(0)
            case "DiscountedUsage":
                return values["reservation/EffectiveCost"]
            case "RIFee":
                unused = "reservation/UnusedAmortizedUpfrontFeeForBillingPeriod"
                return values[unused] + values["reservation/UnusedRecurringFee"]
        return self.billed_cost


def line_items(scenario: Scenario, bill: Bill, period: Period, stage: int) -> list[LineItem]:
    """All line items of one bill and billing period, in the order of the report."""
    bill_columns = _bill_columns(scenario, bill, period, stage)
    covering = scenario.covering(bill)
    rows: list[dict[str, Any]] = []
    for resource in scenario.resources(bill):
        columns = bill_columns | _resource_columns(bill, resource)
        commitment = covering.get(resource.name)
        usages = list(scenario.usage(bill, resource, period, stage))
        rows += [columns | _usage_columns(resource, usage) for usage in usages if not commitment]
        if commitment and commitment.category == "Spend":
            for usage in usages:
                rows += [bill_columns | row for row in _savings_plan(columns, bill, resource, commitment, usage)]
        elif commitment:
            rows += [columns | _reserved_columns(bill, resource, commitment, usage) for usage in usages]
            rows.append(bill_columns | _reservation_fee(bill, resource, commitment, period, usages))
    rows += [bill_columns | row for row in _other_items(scenario, bill, period, stage, rows)]
    for number, row in enumerate(rows):
        row["identity/LineItemId"] = sha256(f"{bill.account}/{period.month}/{number}".encode()).hexdigest()[:52]
        days = (row["lineItem/UsageStartDate"], row["lineItem/UsageEndDate"])
        row["identity/TimeInterval"] = "/".join(f"{day:%Y-%m-%dT%H:%M:%SZ}" for day in days)
    return planted(bill, period, [LineItem(row) for row in rows])


def _bill_columns(scenario: Scenario, bill: Bill, period: Period, stage: int) -> dict[str, Any]:
    return dict.fromkeys(COLUMN_NAMES) | {
        "bill/BillingEntity": "AWS",
        "bill/BillingPeriodEndDate": period.end,
        "bill/BillingPeriodStartDate": period.start,
        "bill/BillType": "Anniversary",
        "bill/InvoiceId": scenario.invoice_id(bill, period, stage),
        "bill/InvoicingEntity": "Amazon Web Services, Inc.",
        "bill/PayerAccountId": bill.account,
        "lineItem/CurrencyCode": bill.currency,
        "lineItem/LegalEntity": "Amazon Web Services, Inc.",
        "lineItem/UsageAccountId": bill.account,
        "pricing/currency": bill.currency,
    }


def _resource_columns(bill: Bill, resource: Resource) -> dict[str, Any]:
    sku, (region_id, region_name) = resource.sku, bill.region
    code = sku.service.replace(" ", "")
    return {
        "lineItem/AvailabilityZone": f"{region_id}b" if sku.machine else None,
        "lineItem/LineItemDescription": f"${sku.list_price} per {sku.unit} of {sku.meter}",
        "lineItem/Operation": "RunInstances" if sku.machine else "Invoke",
        "lineItem/ProductCode": code,
        "lineItem/ResourceId": f"arn:aws:sandbox:{region_id}:{bill.account}:{resource.name}",
        "lineItem/UsageType": f"USE1-{sku.meter.replace(' ', '-')}",
        "pricing/RateCode": f"{sku_id_of(bill, sku)}.JRTCKXETXF.6YS6EN2CT7",
        "pricing/RateId": str(int(sha256(sku.meter.encode()).hexdigest()[:9], 16)),
        "pricing/term": "OnDemand",
        "pricing/unit": sku.unit,
        "product/ProductName": sku.service,
        "product/instanceType": sku.meter if sku.machine else None,
        "product/location": region_name,
        "product/locationType": "AWS Region",
        "product/productFamily": sku.resource_type,
        "product/region": region_id,
        "product/regionCode": region_id,
        "product/servicecode": code,
        "product/servicename": sku.service,
        "product/sku": sku_id_of(bill, sku),
        "product/usagetype": f"USE1-{sku.meter.replace(' ', '-')}",
        "resourceTags/user:application": resource.application,
        "resourceTags/user:environment": resource.environment,
    }


def _cost_columns(rate: Decimal | None, cost: Decimal) -> dict[str, Any]:
    rates = {"lineItem/UnblendedRate": rate, "lineItem/BlendedRate": rate}
    return rates | {"lineItem/UnblendedCost": cost, "lineItem/BlendedCost": cost}


def _usage_columns(resource: Resource, usage: Usage) -> dict[str, Any]:
    rate = resource.sku.list_price
    return {
        "lineItem/LineItemType": "Usage",
        "lineItem/UsageAmount": usage.quantity,
        "lineItem/UsageStartDate": usage.start,
        "lineItem/UsageEndDate": usage.end,
        "pricing/publicOnDemandCost": rate * usage.quantity,
        "pricing/publicOnDemandRate": rate,
    } | _cost_columns(rate, rate * usage.quantity)


def _savings_plan(
    columns: dict[str, Any], bill: Bill, resource: Resource, plan: Commitment, usage: Usage
) -> Iterator[dict[str, Any]]:
    """A day under a savings plan: what the plan covers, its negation, and the plan's fee for the day."""
    arn = plan.id.format(account=bill.account)
    covered = columns | _usage_columns(resource, usage)
    used = plan.price * usage.quantity
    yield covered | {
        "lineItem/LineItemType": "SavingsPlanCoveredUsage",
        "savingsPlan/SavingsPlanARN": arn,
        "savingsPlan/SavingsPlanEffectiveCost": used,
        "savingsPlan/SavingsPlanRate": plan.price,
    }
    yield {
        **covered,
        **_cost_columns(resource.sku.list_price, -covered["lineItem/UnblendedCost"]),
        "lineItem/LineItemDescription": f"SavingsPlanNegation used by AccountId : {bill.account}",
        "lineItem/LineItemType": "SavingsPlanNegation",
        "lineItem/ResourceId": None,
        "pricing/publicOnDemandCost": Decimal(0),
        "savingsPlan/SavingsPlanARN": arn,
    }
    yield {
        "lineItem/LineItemDescription": f"{plan.type}, no upfront",
        "lineItem/LineItemType": "SavingsPlanRecurringFee",
        "lineItem/ProductCode": "ComputeSavingsPlans",
        "lineItem/UsageAmount": Decimal(1),
        "lineItem/UsageEndDate": usage.end,
        "lineItem/UsageStartDate": usage.start,
        "lineItem/UsageType": "ComputeSP:1yrNoUpfront",
        "product/ProductName": "Savings Plans for AWS Compute usage",
        "savingsPlan/AmortizedUpfrontCommitmentForBillingPeriod": Decimal(0),
        "savingsPlan/RecurringCommitmentForBillingPeriod": plan.price * 24,
        "savingsPlan/SavingsPlanARN": arn,
        "savingsPlan/TotalCommitmentToDate": plan.price * 24,
        "savingsPlan/UsedCommitment": used,
    } | _cost_columns(None, plan.price * 24)


def _reserved_columns(bill: Bill, resource: Resource, reservation: Commitment, usage: Usage) -> dict[str, Any]:
    effective = reservation.price * usage.quantity
    return (
        _usage_columns(resource, usage)
        | _cost_columns(Decimal(0), Decimal(0))
        | {
            "lineItem/LineItemType": "DiscountedUsage",
            "pricing/term": "Reserved",
            "reservation/AmortizedUpfrontCostForUsage": Decimal(0),
            "reservation/EffectiveCost": effective,
            "reservation/RecurringFeeForUsage": effective,
            "reservation/ReservationARN": reservation.id.format(account=bill.account),
            "reservation/SubscriptionId": "7102455520",
        }
    )


def _reservation_fee(
    bill: Bill, resource: Resource, reservation: Commitment, period: Period, usages: list[Usage]
) -> dict[str, Any]:
    hours = Decimal(24 * len(period.days))
    unused = hours - sum(usage.quantity for usage in usages)
    return {
        "lineItem/LineItemDescription": f"USD {reservation.price} hourly fee per {reservation.meter}",
        "lineItem/LineItemType": "RIFee",
        "lineItem/ProductCode": resource.sku.service.replace(" ", ""),
        "lineItem/UsageAmount": hours,
        "lineItem/UsageEndDate": period.end,
        "lineItem/UsageStartDate": datetime.combine(period.days[0], time()),
        "lineItem/UsageType": f"USE1-HeavyUsage:{reservation.meter}",
        "pricing/term": "Reserved",
        "pricing/unit": "Hrs",
        "product/ProductName": resource.sku.service,
        "product/region": bill.region[0],
        "reservation/AmortizedUpfrontFeeForBillingPeriod": Decimal(0),
        "reservation/NumberOfReservations": Decimal(1),
        "reservation/ReservationARN": reservation.id.format(account=bill.account),
        "reservation/SubscriptionId": "7102455520",
        "reservation/UnusedAmortizedUpfrontFeeForBillingPeriod": Decimal(0),
        "reservation/UnusedQuantity": unused,
        "reservation/UnusedRecurringFee": reservation.price * unused,
        "reservation/UpfrontValue": Decimal(0),
    } | _cost_columns(reservation.price, reservation.price * hours)


def _other_items(
    scenario: Scenario, bill: Bill, period: Period, stage: int, rows: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """A credit, a refund from the second period on, one more when an invoice is final, and the tax on the rest."""
    whole = {"lineItem/UsageStartDate": datetime.combine(period.days[0], time()), "lineItem/UsageEndDate": period.end}
    random = scenario.random(bill.customer_id, bill.cloud, "credit", period.month)
    amounts = [("Credit", -random.randint(2000, 9000))]
    if period != scenario.periods[0]:
        amounts.append(("Refund", -random.randint(100, 900)))
    if stage == 2 and period == scenario.periods[-1]:
        amounts.append(("Refund", -random.randint(100, 900)))
    for kind, cents in amounts:
        yield {
            **whole,
            **_cost_columns(None, Decimal(cents).scaleb(-2)),
            "bill/BillType": "Refund" if kind == "Refund" else "Anniversary",
            "lineItem/LineItemDescription": f"{kind} for Amazon Bedrock",
            "lineItem/LineItemType": kind,
            "lineItem/ProductCode": "AmazonBedrock",
            "lineItem/UsageEndDate": whole["lineItem/UsageStartDate"] + timedelta(days=1),
            "product/ProductName": "Amazon Bedrock",
        }
    total = sum(row["lineItem/UnblendedCost"] for row in rows)
    yield {
        **whole,
        **_cost_columns(None, (total * TAX_RATE).quantize(CENT)),
        "lineItem/LineItemDescription": "Tax for product code AmazonBedrock",
        "lineItem/LineItemType": "Tax",
        "lineItem/ProductCode": "AmazonBedrock",
        "lineItem/TaxType": "US Sales Tax",
        "lineItem/UsageAmount": Decimal(1),
        "product/ProductName": "Amazon Bedrock",
    }
