"""The contract's own rules: what keeps them, what breaks them, on both engines. Mechanics of running: test_rules.py."""

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from optiinfra_pipelines.tables.focus import FOCUS_1_2
from optiinfra_pipelines.tables.focus_rules import FOCUS_RULES
from optiinfra_pipelines.tables.rule import columns_of
from optiinfra_pipelines.warehouse.protocol import Engine
from optiinfra_pipelines_tests.clouds.focus.rule_tables import ALL_COLUMNS, ALL_CRITERIA, ENGINES, bill

UNPRICED = dict.fromkeys(
    (
        *("ContractedUnitPrice", "ListUnitPrice", "PricingCategory", "PricingCurrencyContractedUnitPrice"),
        *("PricingCurrencyListUnitPrice", "PricingQuantity", "PricingUnit", "SkuId", "SkuMeter", "SkuPriceId"),
        *("SkuPriceDetails", "ConsumedQuantity", "ConsumedUnit"),
    )
)
TAX = {**UNPRICED, "ChargeCategory": "Tax", "ChargeFrequency": "Recurring"}
CREDIT = {
    **TAX,
    "ChargeCategory": "Credit",
    **dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), Decimal(-5)),
}
COMMITTED = {
    "CommitmentDiscountId": "ri-1",
    "CommitmentDiscountName": "three machines",
    "CommitmentDiscountCategory": "Usage",
    "CommitmentDiscountType": "Reserved Instance",
    "CommitmentDiscountUnit": "Hours",
    "CommitmentDiscountQuantity": Decimal(1),
}
PURCHASE = {
    **COMMITTED,
    "ChargeCategory": "Purchase",
    "ChargeFrequency": "Recurring",
    "BilledCost": Decimal("0.1"),
    "EffectiveCost": Decimal(0),
    "PricingCurrencyEffectiveCost": Decimal(0),
    "ConsumedQuantity": None,
    "ConsumedUnit": None,
}
COVERED = {
    **COMMITTED,
    "CommitmentDiscountStatus": "Used",
    "PricingCategory": "Committed",
    "BilledCost": Decimal(0),
    "EffectiveCost": Decimal("0.1"),
    "PricingCurrencyEffectiveCost": Decimal("0.1"),
}
IDLE = {**COVERED, "CommitmentDiscountStatus": "Unused", "ConsumedQuantity": None, "ConsumedUnit": None}
RESERVED = {"CapacityReservationId": "cr-1", "CapacityReservationStatus": "Used"}
CORRECTION = {**UNPRICED, "ChargeClass": "Correction", "ContractedCost": Decimal(9)}


def broken(engine: Engine, *bills: list[dict[str, Any]]) -> list[set[str]]:
    """Ids of the contract's rules that each bill breaks; the bills are judged at once, each as a provider's own."""
    names = [f"provider {number}" for number in range(len(bills))]
    rows = [{**row, "x_provider": name} for name, bill in zip(names, bills, strict=True) for row in bill]
    table = bill(engine, *rows)
    results = table.judge(FOCUS_RULES, dict.fromkeys(names, ALL_COLUMNS), dict.fromkeys(names, ALL_CRITERIA))
    return [{r.rule.id for r in results if r.provider == name and r.status == "fail"} for name in names]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_bill_that_conforms_to_focus_breaks_no_rule(engine: Engine) -> None:
    results = bill(engine, {}, TAX, CREDIT, PURCHASE, COVERED, RESERVED, CORRECTION).judge(FOCUS_RULES)
    assert [result.rule.id for result in results if result.status != "pass"] == []


BREACHES: list[tuple[dict[str, Any], set[str]]] = [
    # never null
    ({"BilledCost": Decimal(-1)}, set()),
    ({"ServiceSubcategory": None}, {"ServiceSubcategory.not_null", "ServiceName.one_ServiceSubcategory"}),
    ({"InvoiceIssuerName": None}, {"InvoiceIssuerName.not_null"}),
    ({"BillingAccountName": None}, {"BillingAccountName.not_null"}),
    ({"ChargeDescription": None}, {"ChargeDescription.not_null"}),
    ({"PricingCurrency": None}, {"PricingCurrency.not_null"}),
    # null together
    ({"SubAccountName": None}, {"SubAccountName.not_null_with_SubAccountId"}),
    ({"ConsumedUnit": None}, {"ConsumedUnit.not_null_with_ConsumedQuantity"}),
    ({"PricingUnit": None}, {"PricingUnit.not_null_with_PricingQuantity"}),
    ({"RegionId": None}, {"RegionName.null_without_RegionId"}),
    ({"ResourceId": None}, {"ResourceName.null_without_ResourceId", "ResourceType.null_without_ResourceId"}),
    ({"SkuMeter": None}, {"SkuMeter.not_null_with_SkuId"}),
    # prices
    ({"SkuPriceId": None, "SkuPriceDetails": None}, {"SkuPriceId.not_null_when_priced"}),
    ({"PricingQuantity": None, "PricingUnit": None}, {"PricingQuantity.not_null_when_priced"}),
    ({**TAX, "PricingCategory": "Standard"}, {"PricingCategory.null_for_tax"}),
    ({"ListUnitPrice": Decimal(-1), "ListCost": Decimal(-1)}, {"ListUnitPrice.non_negative"}),
    ({"ListCost": Decimal("0.21")}, {"ListCost.product"}),
    ({"ListUnitPrice": Decimal("0.008"), "PricingQuantity": Decimal("0.00200749"), "ListCost": Decimal("0.0000160599"),
      "ContractedCost": Decimal("0.0003814231")}, set()),
    ({**CORRECTION, "ContractedUnitPrice": Decimal(1), "PricingQuantity": Decimal(1), "PricingUnit": "Hours"}, set()),
    ({**CREDIT, "ListCost": Decimal(-4)}, {"ListCost.billed_for_credit"}),
    ({**CREDIT, "EffectiveCost": Decimal(-4)}, {"EffectiveCost.billed_for_credit"}),
    # quantities
    ({"ConsumedQuantity": None, "ConsumedUnit": None}, {"ConsumedQuantity.not_null_when_consumed"}),
    ({**TAX, "ConsumedQuantity": Decimal(1), "ConsumedUnit": "Hours"}, {"ConsumedQuantity.null_unless_consumed"}),
    ({**IDLE, "ConsumedQuantity": Decimal(1), "ConsumedUnit": "Hours"}, {"ConsumedQuantity.null_unless_consumed"}),
    (IDLE, set()),
    # commitments and reservations
    ({**COVERED, "CommitmentDiscountType": None}, {"CommitmentDiscountType.not_null_with_CommitmentDiscountId"}),
    ({**COVERED, "CommitmentDiscountName": None}, set()),
    ({**COVERED, "PricingCategory": "Standard"}, {"PricingCategory.committed"}),
    ({**COVERED, "CommitmentDiscountStatus": None},
     {"CommitmentDiscountStatus.not_null_for_usage", "EffectiveCost.sum_over_status"}),
    ({**COVERED, "CommitmentDiscountQuantity": None, "CommitmentDiscountUnit": None},
     {"CommitmentDiscountQuantity.not_null_when_committed"}),
    ({"CommitmentDiscountQuantity": Decimal(1), "CommitmentDiscountUnit": "Hours"},
     {"CommitmentDiscountQuantity.null_unless_committed"}),
    ({"CommitmentDiscountStatus": "Used"}, {"CommitmentDiscountStatus.null_without_CommitmentDiscountId"}),
    ({**PURCHASE, "EffectiveCost": Decimal("0.1")}, {"EffectiveCost.zero_for_commitment"}),
    ({**PURCHASE, "ChargeFrequency": "Usage-Based"}, {"ChargeFrequency.not_usage_based_for_purchase"}),
    ({"CapacityReservationStatus": "Unused"},
     {"CapacityReservationId.not_null_when_unused", "CapacityReservationStatus.null_without_CapacityReservationId"}),
    ({"CapacityReservationId": "cr-1"}, {"CapacityReservationStatus.not_null_for_usage"}),
    # values and formats
    ({"ChargeFrequency": "Usage-based"}, {"ChargeFrequency.allowed"}),
    ({"ChargeClass": "Refund"}, {"ChargeClass.allowed"}),
    ({"ServiceCategory": "Storage"}, {"ServiceSubcategory.category"}),
    ({"BillingCurrency": "usd"}, {"BillingCurrency.currency", "BillingCurrency.national"}),
    ({"BillingCurrency": "Token"}, {"BillingCurrency.national"}),
    ({"PricingCurrency": "Token"}, set()),
    ({"PricingUnit": "1/Month"}, {"PricingUnit.unit"}),
    ({"PricingUnit": "1000 API Requests"}, set()),
    ({"RegionId": "Unassigned"}, {"RegionId.filled"}),
    ({"InvoiceId": "  "}, {"InvoiceId.filled"}),
    ({"ResourceName": "caf\ufffd"}, {"ResourceName.format"}),
    ({"ResourceName": "café"}, set()),
    ({"Tags": '{"team": {"name": "shop"}}'}, {"Tags.format"}),
    ({"Tags": '{"team": 1, "te\\u0061m": 2}'}, {"Tags.format"}),
    ({"Tags": None}, set()),
    ({"SkuPriceDetails": '{"coreCount": 2}'},
     {"SkuPriceDetails.keys", "SkuPriceDetails.value_types", "SkuPriceDetails.pascal_case"}),
    ({"SkuPriceDetails": '{"x_tier": 2}'}, {"SkuPriceDetails.pascal_case"}),
    ({"SkuPriceDetails": '{"CoreCount": "2"}'}, {"SkuPriceDetails.value_types"}),
    ({"SkuPriceDetails": "[]"}, {"SkuPriceDetails.format"}),
    ({"ChargePeriodEnd": datetime(2026, 10, 1)}, {"ChargePeriodStart.before_end"}),
    ({"BillingPeriodEnd": datetime(2026, 9, 1)}, {"BillingPeriodStart.before_end"}),
]  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
def test_each_breach_breaks_the_rules_about_it_and_no_other(engine: Engine) -> None:
    found = broken(engine, *([changes] for changes, _ in BREACHES))
    for (changes, expected), rules in zip(BREACHES, found, strict=True):
        assert rules == expected, changes


@pytest.mark.parametrize("engine", ENGINES)
def test_what_has_to_go_together_is_compared_over_all_rows(engine: Engine) -> None:
    pairs: dict[str, list[dict[str, Any]]] = {
        "ServiceName.one_ServiceCategory": [{}, {"ServiceCategory": "Storage", "ServiceSubcategory": "Block Storage"}],
        "ServiceName.one_ServiceSubcategory": [{}, {"ServiceSubcategory": "Containers"}],
        "SkuPriceId.one_SkuId": [{}, {"SkuId": "SKU2"}],
        "SkuId.one_SkuMeter": [{}, {"SkuMeter": "Machine hours"}],
        "InvoiceId.one_BillingCurrency": [{}, {"BillingCurrency": "EUR"}],
        "CommitmentDiscountId.one_CommitmentDiscountUnit": [COVERED, {**COVERED, "CommitmentDiscountUnit": "USD"}],
    }
    for rule, rules in zip(pairs, broken(engine, *pairs.values()), strict=True):
        assert rules >= {rule}


@pytest.mark.parametrize("engine", ENGINES)
def test_the_usage_of_a_commitment_costs_what_its_purchases_were_billed(engine: Engine) -> None:
    cheap = {**COVERED, "EffectiveCost": Decimal("0.09")}
    half = {**COVERED, "CommitmentDiscountQuantity": Decimal("0.5")}
    assert broken(engine, [PURCHASE, COVERED], [PURCHASE, cheap], [PURCHASE, half]) == [
        set(),
        {"EffectiveCost.sum_of_usage"},
        {"CommitmentDiscountQuantity.sum_of_usage"},
    ]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_sum_that_does_not_match_shows_both_sides(engine: Engine) -> None:
    table = bill(engine, PURCHASE, COVERED, {**IDLE, "EffectiveCost": Decimal("0.4")})
    (result,) = (r for r in table.judge(FOCUS_RULES) if r.rule.id == "EffectiveCost.sum_of_usage")
    assert (result.rows_checked, result.rows_failed) == (3, 3)
    assert result.example == {
        "CommitmentDiscountId": "ri-1",
        "sum of EffectiveCost": "0.5",
        "sum of BilledCost to match": "0.1",
    }


@pytest.mark.parametrize("engine", ENGINES)
def test_a_commitment_that_is_still_running_is_not_summed_up(engine: Engine) -> None:
    year = {
        **PURCHASE,
        "ChargeFrequency": "One-Time",
        "ChargePeriodEnd": datetime(2027, 10, 1),
        "BilledCost": Decimal(876),
        "CommitmentDiscountQuantity": Decimal(8760),
    }
    assert broken(engine, [year, COVERED]) == [set()]


def test_every_rule_has_an_id_of_its_own_and_reads_columns_of_focus_1_2() -> None:
    names = {column.name for column in FOCUS_1_2}
    assert len({rule.id for rule in FOCUS_RULES}) == len(FOCUS_RULES)
    for rule in FOCUS_RULES:
        read = {*columns_of(rule.requirement), *(columns_of(rule.condition) if rule.condition else ())}
        assert read <= names, rule.id
        assert rule.text.startswith(f"{rule.column} "), rule.id


def test_every_column_of_focus_1_2_has_rules_on_its_presence_and_on_its_type_or_format() -> None:
    statements = {(rule.column, rule.id.split(".")[1].split("_")[0]) for rule in FOCUS_RULES}
    for column in FOCUS_1_2:
        assert (column.name, "present") in statements
        assert {(column.name, "type"), (column.name, "format")} & statements
