"""From the columns of an AWS Cost and Usage Report (legacy CSV or Parquet, and CUR 2.0) to FOCUS values.

The mapping follows AWS's own account of how its FOCUS export relates to the report: BilledCost is the unblended
cost of every line item, so an invoice's sum is kept row by row; EffectiveCost amortises commitments.
"""

import re
from collections.abc import Callable, Iterable, Mapping

import pyarrow as pa

from optiinfra_pipelines.clouds.focus.sql import NULL, Value, column, literal, money, text, timestamp

# lineItem/LineItemType -> ChargeCategory, per AWS's FOCUS mapping; everything else is Usage.
CHARGE_CATEGORY = {
    "SavingsPlanNegation": "Adjustment",  # takes the covered usage's price off the invoice again; nothing was used
    "Tax": "Tax",
    "Credit": "Credit",
    "Refund": "Credit",
    "Fee": "Purchase",
    "RIFee": "Purchase",
    "SavingsPlanUpfrontFee": "Purchase",
    "SavingsPlanRecurringFee": "Purchase",
    "BundledDiscount": "Credit",
    "EdpDiscount": "Credit",
    "PrivateRateDiscount": "Credit",
    "RiVolumeDiscount": "Credit",
    "SppDiscount": "Credit",
}
# product/productFamily or product code -> ServiceCategory; the report has no column for it.
SERVICE_CATEGORY = {
    "AmazonEC2": "Compute",
    "AWSLambda": "Compute",
    "AmazonECS": "Compute",
    "AmazonEKS": "Compute",
    "AmazonS3": "Storage",
    "AmazonEFS": "Storage",
    "AmazonGlacier": "Storage",
    "AmazonRDS": "Databases",
    "AmazonDynamoDB": "Databases",
    "AmazonElastiCache": "Databases",
    "AmazonRedshift": "Analytics",
    "AmazonAthena": "Analytics",
    "AWSGlue": "Analytics",
    "AmazonBedrock": "AI and Machine Learning",
    "AmazonSageMaker": "AI and Machine Learning",
    "AWSDataTransfer": "Networking",
    "AmazonCloudFront": "Networking",
    "AmazonVPC": "Networking",
    "AmazonRoute53": "Networking",
    "AWSELB": "Networking",
    "awskms": "Security",
    "AWSCloudTrail": "Management and Governance",
    "AmazonCloudWatch": "Management and Governance",
    "AWSConfig": "Management and Governance",
    "AmazonSNS": "Integration",
    "AWSQueueService": "Integration",
    "AWSEvents": "Integration",
}


def is_cur(names: Iterable[str]) -> bool:
    """Whether a file with these columns is a Cost and Usage Report."""
    return {"line_item_unblended_cost", "line_item_line_item_type"} <= {snake(name) for name in names}


def snake(name: str) -> str:
    """`lineItem/UnblendedCost` and `line_item_unblended_cost` are one column: the latter."""
    apart = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name))
    return re.sub(r"[^a-z0-9]+", "_", apart.lower()).strip("_")


def map_columns(schema: pa.Schema) -> dict[str, Value]:
    """FOCUS column -> value, for every FOCUS column that the report can tell."""
    report = _Report(schema)
    kind = report.text("line_item_line_item_type").sql
    return {**_accounts(report), **_charges(report, kind), **_costs(report, kind), **_things(report, kind)}


def columns_used(names: Iterable[str]) -> set[str]:
    """The report's columns that `map_columns` reads; the rest goes to x_extra."""
    return {name for name in names if snake(name) in _USED or snake(name).startswith("resource_tags_")}


_USED = {
    "bill_billing_entity", "bill_billing_period_end_date", "bill_billing_period_start_date", "bill_invoice_id",
    "bill_invoicing_entity", "bill_payer_account_id", "line_item_availability_zone", "line_item_currency_code",
    "line_item_legal_entity", "line_item_line_item_description", "line_item_line_item_type", "line_item_operation",
    "line_item_product_code", "line_item_resource_id", "line_item_unblended_cost", "line_item_unblended_rate",
    "line_item_usage_account_id", "line_item_usage_account_name", "line_item_usage_amount",
    "line_item_usage_end_date", "line_item_usage_start_date", "bill_payer_account_name",
    "pricing_public_on_demand_cost", "pricing_public_on_demand_rate", "pricing_unit", "product_product_name",
    "product_region", "product_region_code", "product_location", "product_sku", "product_product_family",
    "pricing_rate_id", "pricing_rate_code", "resource_tags", "reservation_effective_cost",
    "reservation_reservation_a_r_n", "reservation_reservation_arn", "reservation_subscription_id",
    "reservation_unused_amortized_upfront_fee_for_billing_period", "reservation_unused_recurring_fee",
    "savings_plan_savings_plan_a_r_n", "savings_plan_savings_plan_arn", "savings_plan_savings_plan_effective_cost",
    "savings_plan_total_commitment_to_date", "savings_plan_used_commitment",
}  # fmt: skip


Reading = Callable[[str, pa.DataType], Value]  # text, money or timestamp


class _Report:
    """The report's columns by snake-case name; a column it lacks reads as null."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._names: Mapping[str, str] = {snake(name): name for name in reversed(schema.names)}
        self.tags = [name for name in schema.names if snake(name).startswith("resource_tags_")]

    def text(self, *names: str) -> Value:
        return self._first(names, text)

    def money(self, *names: str) -> Value:
        return self._first(names, money)

    def timestamp(self, *names: str) -> Value:
        return self._first(names, timestamp)

    def tag(self, name: str) -> Value:
        return self._read(name, text)

    def _first(self, names: Iterable[str], read: Reading) -> Value:
        return next((self._read(self._names[name], read) for name in names if name in self._names), NULL)

    def _read(self, name: str, read: Reading) -> Value:
        kind = self._schema.field(name).type
        return NULL if pa.types.is_null(kind) else read(column(self._schema, name), kind)


def _accounts(report: _Report) -> dict[str, Value]:
    return {
        "BillingAccountId": report.text("bill_payer_account_id"),
        "BillingAccountName": report.text("bill_payer_account_name"),
        "BillingCurrency": report.text("line_item_currency_code"),
        "BillingPeriodStart": report.timestamp("bill_billing_period_start_date"),
        "BillingPeriodEnd": report.timestamp("bill_billing_period_end_date"),
        "InvoiceId": report.text("bill_invoice_id"),
        "InvoiceIssuerName": report.text("bill_invoicing_entity"),
        "SubAccountId": report.text("line_item_usage_account_id"),
        "SubAccountName": report.text("line_item_usage_account_name"),
        "ProviderName": Value(literal("AWS")),
        "PublisherName": Value(f"coalesce({report.text('line_item_legal_entity').sql}, 'AWS')"),
    }


def _charges(report: _Report, kind: str) -> dict[str, Value]:
    cases = " ".join(f"WHEN {literal(name)} THEN {literal(category)}" for name, category in CHARGE_CATEGORY.items())
    missing = (f"{kind} IS NULL", "is missing")
    recurring = "'RIFee', 'SavingsPlanRecurringFee'"
    return {
        "ChargeCategory": Value(f"CASE {kind} {cases} ELSE 'Usage' END", (missing,)),
        "ChargeClass": Value(f"CASE WHEN {kind} = 'Refund' THEN 'Correction' END"),
        "ChargeDescription": report.text("line_item_line_item_description"),
        "ChargeFrequency": Value(
            f"CASE WHEN {kind} IN ({recurring}) THEN 'Recurring'"
            f" WHEN {kind} IN ('Fee', 'SavingsPlanUpfrontFee', 'Tax', 'Credit', 'Refund') THEN 'One-Time'"
            f" ELSE 'Usage-Based' END"
        ),
        "ChargePeriodStart": report.timestamp("line_item_usage_start_date"),
        "ChargePeriodEnd": report.timestamp("line_item_usage_end_date"),
    }


def _costs(report: _Report, kind: str) -> dict[str, Value]:
    billed = report.money("line_item_unblended_cost")
    covered = report.money("savings_plan_savings_plan_effective_cost")
    reserved = report.money("reservation_effective_cost")
    committed = report.money("savings_plan_total_commitment_to_date")
    used = report.money("savings_plan_used_commitment")
    upfront = report.money("reservation_unused_amortized_upfront_fee_for_billing_period")
    recurring = report.money("reservation_unused_recurring_fee")
    amortised: dict[str, tuple[str, tuple[Value, ...]]] = {
        "SavingsPlanCoveredUsage": (covered.sql, (covered,)),
        "SavingsPlanRecurringFee": (f"coalesce({committed.sql}, 0) - coalesce({used.sql}, 0)", (committed, used)),
        "SavingsPlanNegation": ("0", ()),
        "SavingsPlanUpfrontFee": ("0", ()),
        "DiscountedUsage": (reserved.sql, (reserved,)),
        "RIFee": (f"coalesce({upfront.sql}, 0) + coalesce({recurring.sql}, 0)", (upfront, recurring)),
        # a reservation paid up front: the usage that it covers has it, month by month
        "Fee": (f"CASE WHEN {_reservation(report)} IS NULL THEN {billed.sql} ELSE 0 END", ()),
    }
    cases = " ".join(f"WHEN {literal(name)} THEN {sql}" for name, (sql, _) in amortised.items())
    unreadable = tuple(  # where it is used; some tools print None into columns of other types of line items
        (f"{kind} = {literal(name)} AND {condition}", what)
        for name, (_, values) in amortised.items()
        for value in values
        for condition, what in value.part().refuse
    )
    rate, listed = report.money("pricing_public_on_demand_rate"), report.money("pricing_public_on_demand_cost")
    own_rate, amount = report.money("line_item_unblended_rate"), report.money("line_item_usage_amount")
    priced = f"{kind} NOT IN ('Tax', 'Credit', 'Refund', 'SavingsPlanNegation')"
    return {
        "BilledCost": billed,
        "EffectiveCost": Value(f"CAST(CASE {kind} {cases} ELSE {billed.sql} END AS DECIMAL(38,21))", unreadable),
        "ListCost": Value(f"coalesce({listed.sql}, {billed.sql})", listed.part().refuse),
        "ListUnitPrice": Value(f"CASE WHEN {priced} THEN {rate.sql} END", rate.part().refuse),
        "ContractedCost": billed,
        "ContractedUnitPrice": Value(f"CASE WHEN {priced} THEN {own_rate.sql} END", own_rate.part().refuse),
        "PricingQuantity": Value(f"CASE WHEN {priced} THEN {amount.sql} END", amount.part().refuse),
        "PricingUnit": Value(f"CASE WHEN {priced} THEN {report.text('pricing_unit').sql} END"),
        "ConsumedQuantity": Value(f"CASE WHEN {kind} LIKE '%Usage' THEN {amount.sql} END", amount.part().refuse),
        "ConsumedUnit": Value(f"CASE WHEN {kind} LIKE '%Usage' THEN {report.text('pricing_unit').sql} END"),
    }


def _things(report: _Report, kind: str) -> dict[str, Value]:
    code = report.text("line_item_product_code").sql
    categories = " ".join(f"WHEN {literal(name)} THEN {literal(to)}" for name, to in SERVICE_CATEGORY.items())
    plan = report.text("savings_plan_savings_plan_a_r_n", "savings_plan_savings_plan_arn").sql
    reservation = _reservation(report)
    plan_kind = f"{kind} LIKE 'SavingsPlan%'"
    reserved_kind = f"({kind} IN ('DiscountedUsage', 'RIFee') OR ({kind} = 'Fee' AND {reservation} IS NOT NULL))"
    return {
        "AvailabilityZone": report.text("line_item_availability_zone"),
        "RegionId": report.text("product_region_code", "product_region"),
        "RegionName": report.text("product_location"),
        "ResourceId": report.text("line_item_resource_id"),
        "ResourceType": Value(
            f"CASE WHEN {report.text('line_item_resource_id').sql} IS NOT NULL"
            f" THEN {report.text('product_product_family').sql} END"
        ),
        "ServiceName": Value(f"coalesce({report.text('product_product_name').sql}, {code})"),
        "ServiceCategory": Value(f"CASE {code} {categories} ELSE 'Other' END"),
        "SkuId": Value(f"CASE WHEN {kind} <> 'Tax' THEN {report.text('product_sku').sql} END"),
        "SkuPriceId": Value(
            f"CASE WHEN {kind} <> 'Tax' THEN {report.text('pricing_rate_code', 'pricing_rate_id').sql} END"
        ),
        "SkuMeter": report.text("line_item_operation"),
        "PricingCategory": Value(
            f"CASE WHEN {kind} IN ('DiscountedUsage', 'SavingsPlanCoveredUsage') THEN 'Committed'"
            f" WHEN {kind} IN ('Usage', 'RIFee', 'SavingsPlanRecurringFee', 'SavingsPlanUpfrontFee', 'Fee')"
            f" THEN 'Standard' END"
        ),
        "CommitmentDiscountId": Value(f"CASE WHEN {plan_kind} THEN {plan} WHEN {reserved_kind} THEN {reservation} END"),
        "CommitmentDiscountCategory": Value(
            f"CASE WHEN {plan_kind} THEN 'Spend' WHEN {reserved_kind} THEN 'Usage' END"
        ),
        "CommitmentDiscountType": Value(
            f"CASE WHEN {plan_kind} THEN 'Savings Plan' WHEN {reserved_kind} THEN 'Reserved Instance' END"
        ),
        "CommitmentDiscountStatus": Value(
            f"CASE WHEN {kind} IN ('DiscountedUsage', 'SavingsPlanCoveredUsage') THEN 'Used' END"
        ),
        "Tags": _tags(report),
    }


def _reservation(report: _Report) -> str:
    return report.text(
        "reservation_reservation_a_r_n", "reservation_reservation_arn", "reservation_subscription_id"
    ).sql


def _tags(report: _Report) -> Value:
    """CUR 2.0 has one map; the older report one column a tag, `resourceTags/user:team`."""
    if not report.tags:
        return report.text("resource_tags")
    pairs = ", ".join(f"{literal(name.split('/', 1)[-1])}, {report.tag(name).sql}" for name in report.tags)
    return Value(f"nullif(CAST(json_merge_patch('{{}}', json_object({pairs})) AS VARCHAR), '{{}}')")
