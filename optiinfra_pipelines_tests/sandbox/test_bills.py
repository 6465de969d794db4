"""The simulated bills follow FOCUS, keep every digit and hold exactly the flaws that the truths name."""

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest

from optiinfra_pipelines.sandbox.bills import Charge, focus_charges
from optiinfra_pipelines.sandbox.flaws import VIOLATIONS
from optiinfra_pipelines.sandbox.line_items import LineItem, line_items
from optiinfra_pipelines.sandbox.scenario import Bill, Scenario

DATA = Path(os.environ.get("OPTIINFRA_DATA", Path(__file__).parents[3] / "shared" / "data"))
MODEL = DATA / "finops" / "focus_spec_1.2" / "model-1.2.json"

# Rules whose machine form contradicts their own words: a requirement turned round, a lost condition, other values.
DEFECTIVE_RULES = {
    "CommitmentDiscountCategory-C-005-M",
    "CommitmentDiscountStatus-C-003-C",
    "CommitmentDiscountStatus-C-004-C",
    "CommitmentDiscountStatus-C-005-M",
    "InvoiceId-C-004-C",
    "InvoiceId-C-005-C",
}


@pytest.fixture(scope="module", autouse=True)
def _exact_decimals() -> Iterator[None]:
    with localcontext(prec=60):
        yield


@pytest.fixture(scope="module")
def focus_bills() -> list[tuple[Bill, list[Charge]]]:
    """Every FOCUS bill of the default scenario with the charges of all its periods."""
    scenario = Scenario()
    return [
        (bill, [charge for period in scenario.periods for charge in focus_charges(scenario, bill, period, 1)])
        for bill in scenario.bills
        if bill.layout != "aws_cur"
    ]


@pytest.fixture(scope="module")
def report() -> list[LineItem]:
    """The line items of the bill that is delivered as a Cost and Usage Report."""
    scenario = Scenario()
    (bill,) = (bill for bill in scenario.bills if bill.layout == "aws_cur")
    return [item for period in scenario.periods for item in line_items(scenario, bill, period, 1)]


def _rows(focus_bills: list[tuple[Bill, list[Charge]]]) -> list[dict[str, Any]]:
    return [charge.values for _, charges in focus_bills for charge in charges if charge.flaw is None]


def test_a_demo_is_quick_and_covers_the_ninety_days(focus_bills: Any, report: list[LineItem]) -> None:
    scenario = Scenario()
    assert 6_000 <= sum(len(charges) for _, charges in focus_bills) + len(report) <= 12_500
    assert [(period.month, len(period.days)) for period in scenario.periods] == [
        ("2026-08", 29),
        ("2026-09", 30),
        ("2026-10", 31),
    ]


def test_costs_are_exactly_price_times_quantity(focus_bills: Any) -> None:
    priced = [row for row in _rows(focus_bills) if row["ListUnitPrice"] is not None]
    assert len(priced) > 6_000
    for row in priced:
        assert row["ListCost"] == row["ListUnitPrice"] * row["PricingQuantity"]
        assert row["ContractedCost"] == row["ContractedUnitPrice"] * row["PricingQuantity"]


def test_what_a_commitment_costs_is_what_its_used_and_unused_parts_amortise(focus_bills: Any) -> None:
    for bill, charges in focus_bills:
        paid, amortised = Decimal(0), Decimal(0)
        for charge in charges:
            if charge.values["CommitmentDiscountId"]:
                paid += charge.billed_cost
                right = charge.flaw is not None and charge.flaw.column == "EffectiveCost"
                amortised += charge.right_value if right else charge.effective_cost
        assert paid == amortised > 0, bill


def test_a_bill_has_every_kind_of_charge(focus_bills: Any) -> None:
    for _, charges in focus_bills:
        rows = [charge.values for charge in charges if charge.flaw is None]
        assert {row["ChargeCategory"] for row in rows} >= {"Usage", "Tax", "Credit"}
        assert {row["CommitmentDiscountStatus"] for row in rows} == {None, "Used", "Unused"}
        corrections = [row for row in rows if row["ChargeClass"] == "Correction"]
        assert len(corrections) == 2
        assert all(row["ChargePeriodStart"] < row["BillingPeriodStart"] for row in corrections)
        assert all(row["BilledCost"] < 0 for row in corrections)


def test_amounts_are_as_small_and_as_long_as_providers_print_them(focus_bills: Any) -> None:
    rows = _rows(focus_bills)
    assert Decimal("8E-10") in {row["BilledCost"] for row in rows}
    decimals = {-row["ConsumedQuantity"].as_tuple().exponent for row in rows if row["ConsumedQuantity"] is not None}
    assert max(decimals) >= 15
    costs = {-row["EffectiveCost"].as_tuple().exponent for row in rows}
    assert 12 <= max(costs) <= 21


def test_applications_and_environments_are_in_the_tags(focus_bills: Any) -> None:
    applications = defaultdict(set)
    for bill, charges in focus_bills:
        for charge in charges:
            if tags := charge.values["Tags"]:
                applications[bill.customer_id].add((tags["application"], tags["environment"]))
    assert {name for name, _ in applications["acme"]} == {"support-copilot", "document-search"}
    assert {environment for _, environment in applications["globex"]} == {"production", "staging"}


def test_what_a_savings_plan_covers_is_negated_on_the_same_invoice(report: list[LineItem]) -> None:
    billed: defaultdict[str, Decimal] = defaultdict(Decimal)
    for item in report:
        if item.flaw is None:
            billed[item.values["lineItem/LineItemType"]] += item.billed_cost
    assert billed["SavingsPlanCoveredUsage"] == -billed["SavingsPlanNegation"] > 0
    assert set(billed) == {
        "Usage", "Tax", "Credit", "Refund", "SavingsPlanCoveredUsage", "SavingsPlanNegation",
        "SavingsPlanRecurringFee", "DiscountedUsage", "RIFee",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("used", "fee"), [("SavingsPlanCoveredUsage", "SavingsPlanRecurringFee"), ("DiscountedUsage", "RIFee")]
)
def test_the_fee_of_a_commitment_is_its_used_plus_its_unused_effective_cost(
    report: list[LineItem], used: str, fee: str
) -> None:
    of_type = {kind: [item for item in report if item.values["lineItem/LineItemType"] == kind] for kind in (used, fee)}
    effective = sum(item.effective_cost for kind in (used, fee) for item in of_type[kind])
    assert effective == sum(item.billed_cost for item in of_type[fee])


def test_the_scale_multiplies_the_resources() -> None:
    one, three = Scenario(days=5), Scenario(days=5, scale=3)
    for bill in one.bills:
        assert len(three.resources(bill)) == 3 * len(one.resources(bill))


def test_another_seed_gives_another_bill() -> None:
    totals = []
    for seed in (7, 7, 8):
        scenario = Scenario(seed=seed, days=5)
        charges = focus_charges(scenario, scenario.bills[2], scenario.periods[0], 1)
        totals.append(sum(charge.billed_cost for charge in charges))
    assert totals[0] == totals[1] != totals[2]


@pytest.mark.skipif(not MODEL.exists(), reason="the FOCUS rule model is not in OPTIINFRA_DATA")
def test_the_must_rules_of_focus_are_broken_where_violations_are_planted_and_nowhere_else(focus_bills: Any) -> None:
    rules = json.loads(MODEL.read_text())["ModelRules"]
    leaves = list(_row_rules(rules, "CostAndUsage-D-000-M", []))
    assert len(leaves) > 80
    broken = []
    for bill, charges in focus_bills:
        for charge in charges:
            if charge.flaw is None or charge.flaw.outcome == "violation":
                for rule_id, conditions, requirement in leaves:
                    if all(_holds(condition, charge.values) for condition in conditions) and not _holds(
                        requirement, charge.values
                    ):
                        month = f"{charge.values['BillingPeriodStart']:%Y-%m}"
                        broken.append((bill.customer_id, bill.cloud, month, rule_id))
    planted = [(flaw.customer_id, flaw.cloud, flaw.month, rule_id) for flaw in VIOLATIONS for rule_id, _ in flaw.rules]
    assert sorted(broken) == sorted(planted)


def _row_rules(rules: dict[str, Any], rule_id: str, conditions: list[Any]) -> Iterator[tuple[str, list[Any], Any]]:
    """The rules under `rule_id` that speak of one row's values, with all conditions on the way to them."""
    criteria = rules[rule_id]["ValidationCriteria"]
    requirement = criteria["Requirement"]
    conditions = conditions + ([criteria["Condition"]] if criteria["Condition"] else [])
    nested = [item["ModelRuleId"] for item in requirement.get("Items", []) if "ModelRuleId" in item]
    for other in nested:
        yield from _row_rules(rules, other, conditions)
    if (
        not nested
        and rules[rule_id]["Type"] == "Static"
        and criteria["Keyword"] in ("MUST", "MUST NOT")
        and requirement["CheckFunction"] in _CHECKS
        and rule_id not in DEFECTIVE_RULES
    ):
        yield rule_id, conditions, requirement


def _equal(value: Any, other: Any) -> bool:
    return value == (Decimal(other) if isinstance(value, Decimal) and other is not None else other)


def _product_matches(check: Any, row: dict[str, Any]) -> bool:
    factors = row[check["ColumnAName"]], row[check["ColumnBName"]]
    return None in factors or factors[0] * factors[1] == row[check["ResultColumnName"]]


_CHECKS: dict[str, Any] = {
    "AND": lambda check, row: all(_holds(item, row) for item in check["Items"]),
    "OR": lambda check, row: any(_holds(item, row) for item in check["Items"]),
    "CheckValue": lambda check, row: _equal(row[_column(check)], check["Value"]),
    "CheckNotValue": lambda check, row: not _equal(row[_column(check)], check["Value"]),
    "CheckSameValue": lambda check, row: row[check["ColumnAName"]] == row[check["ColumnBName"]],
    "CheckNotSameValue": lambda check, row: row[check["ColumnAName"]] != row[check["ColumnBName"]],
    "CheckGreaterOrEqualThanValue": lambda check, row: row[_column(check)] is None or row[_column(check)] >= 0,
    "ColumnByColumnEqualsColumnValue": _product_matches,
}


def _column(check: Any) -> str:
    return check.get("ColumnName") or check["CheckCondition"]  # two rules of the model call it so


def _holds(check: Any, row: dict[str, Any]) -> bool:
    if "AND" in check:  # two conditions of the model are written so, one of them around a single check
        items = check["AND"] if isinstance(check["AND"], list) else [check["AND"]]
        return all(_holds(item, row) for item in items)
    return _CHECKS[check["CheckFunction"]](check, row)
