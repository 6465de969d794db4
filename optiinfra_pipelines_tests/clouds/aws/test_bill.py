"""The bill of Cost Explorer: sums to the last digit, signs, exclusive ends, what is estimated."""

from datetime import datetime, time, tzinfo
from decimal import Decimal

import pytest

from optiinfra_pipelines.clouds.aws.bill import CostExplorerBill, charge_rows
from optiinfra_pipelines.clouds.collecting import Calls
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.sandbox.fleet_bills import bill_periods, charges
from optiinfra_pipelines.windows import BillingPeriod
from optiinfra_pipelines_tests.clouds.aws.conftest import FLEET, TODAY, Open

PERIODS = bill_periods(TODAY)


@pytest.mark.parametrize("customer", ["acme", "globex"])
@pytest.mark.parametrize("period", PERIODS, ids=str)
def test_the_bill_adds_up_to_the_last_digit(open_source: Open, customer: str, period: BillingPeriod) -> None:
    rows = CostExplorerBill(open_source(customer)).rows(period).to_pylist()
    planted = list(charges(FLEET, customer, "aws", period))
    for category in ("Usage", "Credit", "Tax"):
        found = sum(Decimal(row["BilledCost"]) for row in rows if row["ChargeCategory"] == category)
        assert found == sum(each.cost for each in planted if each.category == category), category
    assert {row["BilledCost"] == row["EffectiveCost"] for row in rows} == {True}
    assert sum(Decimal(row["ConsumedQuantity"]) for row in rows if row["ChargeCategory"] == "Usage") == sum(
        each.quantity for each in planted if each.category == "Usage"
    )


def test_credits_are_negative_and_tax_is_not(open_source: Open) -> None:
    rows = CostExplorerBill(open_source()).rows(PERIODS[0]).to_pylist()
    signs = {row["ChargeCategory"]: Decimal(row["BilledCost"]) > 0 for row in rows}
    assert signs == {"Usage": True, "Credit": False, "Tax": True}


def test_the_exclusive_end_of_cost_explorer_stays_exclusive(open_source: Open) -> None:
    rows = CostExplorerBill(open_source()).rows(PERIODS[0]).to_pylist()
    assert min(row["ChargePeriodStart"] for row in rows) == "2026-10-01T00:00:00Z"
    assert max(row["ChargePeriodEnd"] for row in rows) == "2026-11-01T00:00:00Z"


def test_estimated_is_not_taken_as_final(open_source: Open) -> None:
    closed, current = (CostExplorerBill(open_source()).rows(each).to_pylist() for each in PERIODS)
    assert {row["x_Estimated"] for row in closed} == {"false"}
    assert {row["x_Estimated"] for row in current} == {"true"}


def test_each_request_is_priced_and_a_spent_budget_stops_it(open_source: Open) -> None:
    source = open_source()
    CostExplorerBill(source).rows(PERIODS[0])
    assert source.calls.made["ce", "GetCostAndUsage"] == (2, 0, Decimal("0.02"))
    poor = open_source(calls=Calls(Decimal("0.005"), Decimal(1)))
    with pytest.raises(CollectionError, match="GetCostAndUsage would cost"):
        CostExplorerBill(poor).rows(PERIODS[0])
    assert ("ce", "GetCostAndUsage") not in poor.calls.made


def test_one_account_that_cannot_be_read_makes_no_bill_of_the_others(open_source: Open) -> None:
    with pytest.raises(CollectionError, match="AssumeRole"):
        CostExplorerBill(open_source(accounts=["111122223333", "444455556666"])).rows(PERIODS[0])


def test_the_periods_are_the_months_that_cost_something(open_source: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    class Then(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.combine(TODAY, time(12), tz)

    monkeypatch.setattr("optiinfra_pipelines.clouds.aws.bill.datetime", Then)
    source = open_source()
    assert list(CostExplorerBill(source).periods()) == sorted(PERIODS)
    assert source.calls.made["ce", "GetCostAndUsage"][0] == 1


def test_digits_beyond_a_float_and_exponents_are_kept() -> None:
    amounts = {"UnblendedCost": "0.10000000000000000000", "AmortizedCost": "7.0E-10", "UsageQuantity": "3"}
    result = {
        "TimePeriod": {"Start": "2026-10-01", "End": "2026-10-02"},
        "Groups": [
            {
                "Keys": ["AWS Lambda", "Request"],
                "Metrics": {name: {"Amount": amount, "Unit": "N/A"} for name, amount in amounts.items()},
            }
        ],
        "Estimated": False,
    }
    [row] = charge_rows(result, ("SERVICE", "USAGE_TYPE"), BillingPeriod("2026-10"))
    assert (row["BilledCost"], row["EffectiveCost"]) == ("0.10000000000000000000", "0.00000000070")
    assert row["ConsumedQuantity"] is None, "a sum over several units is no quantity"
