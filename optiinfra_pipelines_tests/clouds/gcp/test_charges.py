"""Rows of Cloud Billing's exports as charges: exact digits, and the traps of this bill."""

import csv
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optiinfra_pipelines.clouds.gcp.charges import detailed_charges, focus_charges, resource_id
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.windows import BillingPeriod

NOVEMBER = BillingPeriod("2026-11")
USAGE = {
    "billing_account_id": "A-1",
    "invoice": {"month": "202611"},
    "cost_type": "regular",
    "service": {"id": "6F81-5844-456A", "description": "Compute Engine"},
    "sku": {"id": "CF4E", "description": "N2 Instance Core"},
    "usage_start_time": "2026-10-31T22:00:00Z",
    "usage_end_time": "2026-10-31T23:00:00Z",
    "project": {"id": "p", "number": "1", "name": "P"},
    "labels": [{"key": "env", "value": "ci"}],
    "location": {"region": "us-central1", "zone": "us-central1-a"},
    "currency": "EUR",
    "currency_conversion_rate": 0.8674,
    "usage": {"amount": 3600, "unit": "seconds", "amount_in_pricing_units": 1, "pricing_unit": "hour"},
    "export_time": "2026-11-01T09:30:00Z",
}


def _charges(*rows: dict[str, Any], cost: str = "1.5", period: BillingPeriod = NOVEMBER) -> list[dict[str, Any]]:
    texts = [json.dumps({**USAGE, **row, "cost": "<cost>"}).replace('"<cost>"', cost) for row in rows]
    return list(detailed_charges(texts, period).to_pylist())


def _nested(row: dict[str, str]) -> str:
    """A row of the CSV as BigQuery would write it as JSON: dotted columns nested, numbers in the file's digits."""
    nested: dict[str, Any] = {}
    marks = {}
    for name, value in row.items():
        place = nested
        *parents, last = name.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        if name in ("labels", "system_labels", "project.labels"):
            place[last] = json.loads(value) if value else []
        elif name == "credits":
            place[last] = json.loads(value.replace("'", '"'))
        elif value and name in ("cost", "currency_conversion_rate", "usage.amount", "usage.amount_in_pricing_units"):
            place[last] = f"<{name}>"
            marks[f'"<{name}>"'] = value
        else:
            place[last] = value or None
    text = json.dumps(nested)
    for mark, digits in marks.items():
        text = text.replace(mark, digits)
    return text


def test_1500_rows_of_an_export_add_up_to_the_last_digit(data: Path) -> None:
    path = data / "finops" / "synthetic_exports" / "gcp_billing_export_2026-10_1500rows.csv"
    if not path.exists():
        pytest.skip(f"the sample export is not at {path}; set OPTIINFRA_DATA to the shared data")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    charges = detailed_charges(map(_nested, rows), BillingPeriod("2026-10")).to_pylist()
    usage = [row for row in charges if row["ChargeCategory"] == "Usage"]
    credits = [row for row in charges if row["ChargeCategory"] == "Credit"]
    assert [row["BilledCost"] for row in usage] == [row["cost"] for row in rows]
    assert [row["ConsumedQuantity"] for row in usage] == [row["usage.amount"] for row in rows]
    assert sum(Decimal(row["BilledCost"]) for row in credits) == Decimal("-1.2") == 12 * Decimal("-0.1")
    assert {(row["x_CreditType"], row["BillingCurrency"]) for row in credits} == {("PROMOTION", "EUR")}
    assert json.loads(usage[0]["Tags"]) == {"environment": "ci", "project": "p1"}
    assert {row["ChargePeriodStart"][:7] for row in charges} == {"2026-10"}


def test_usage_of_october_may_lie_in_the_invoice_of_november_as_utc_and_pacific_differ() -> None:
    (charge,) = _charges({})
    assert charge["BillingPeriodStart"] == "2026-11-01T00:00:00Z"
    assert charge["BillingPeriodEnd"] == "2026-12-01T00:00:00Z"
    assert charge["ChargePeriodStart"] == "2026-10-31T22:00:00Z"
    assert (charge["x_InvoiceMonth"], charge["x_ExportTime"]) == ("202611", "2026-11-01T09:30:00Z")


def test_signs_of_tax_credit_refund() -> None:
    credit = {"name": "Free trial", "amount": -0.4, "full_name": "", "id": "F", "type": "FREE_TIER"}
    usage, taken = _charges({"credits": [credit]})
    assert (usage["BilledCost"], taken["BilledCost"]) == ("1.5", "-0.4")
    assert (taken["ChargeCategory"], taken["ChargeDescription"]) == ("Credit", "Free trial")
    assert taken["ConsumedQuantity"] is None
    (tax,) = _charges({"cost_type": "tax", "project": None}, cost="0.09")
    assert (tax["ChargeCategory"], tax["BilledCost"], tax["PricingQuantity"]) == ("Tax", "0.09", None)
    details = {"description": "Refund of October", "mode": "MANUAL_ADJUSTMENT", "type": "GENERAL_ADJUSTMENT"}
    (refund,) = _charges({"cost_type": "adjustment", "adjustment_info": details}, cost="-20")
    assert (refund["ChargeCategory"], refund["BilledCost"]) == ("Adjustment", "-20")
    assert (refund["ChargeDescription"], refund["x_AdjustmentMode"]) == ("Refund of October", "MANUAL_ADJUSTMENT")
    (rounding,) = _charges({"cost_type": "rounding_error"}, cost="-1e-06")
    assert (rounding["ChargeCategory"], rounding["x_CostType"]) == ("Adjustment", "rounding_error")
    assert Decimal(rounding["BilledCost"]) == Decimal("-0.000001")


def test_account_rows_without_resource_or_project_are_charges_all_the_same() -> None:
    (charge,) = _charges({"project": None, "location": None, "labels": [], "usage": None})
    assert charge["SubAccountId"] is None
    assert charge["SubAccountType"] is None
    assert (charge["BilledCost"], charge["Tags"]) == ("1.5", "{}")


def test_no_unit_price_is_made_up_where_the_price_is_for_many_units() -> None:
    one, many = (
        _charges({"price": {"effective_price": 0.5, "pricing_unit_quantity": quantity}})[0] for quantity in (1, 1000)
    )
    assert (one["ContractedUnitPrice"], many["ContractedUnitPrice"]) == ("0.5", None)


def test_a_list_cost_that_the_export_does_not_tell_is_not_made_up() -> None:
    assert _charges({})[0]["ListCost"] is None
    assert _charges({"cost_at_list": 2})[0]["ListCost"] == "2"


@given(st.decimals(allow_nan=False, allow_infinity=False, places=11, min_value=-(10**9), max_value=10**9))
def test_float_drift_does_not_happen(amount: Decimal) -> None:
    (charge,) = _charges({}, cost=f"{amount:f}")
    assert charge["BilledCost"] == f"{amount:f}"


def test_resources_have_the_ids_that_inventory_has() -> None:
    machine = "//compute.googleapis.com/projects/p/zones/us-central1-a/instances/1213322720751211293"
    database = "//cloudsql.googleapis.com/projects/p/instances/orders"
    assert resource_id(machine) == "1213322720751211293"
    assert resource_id(database) == "p:orders"
    assert resource_id("//storage.googleapis.com/bucket") == "//storage.googleapis.com/bucket"
    assert resource_id(None) is None


def test_rows_of_the_focus_export_keep_their_columns_and_digits() -> None:
    row = {
        "BilledCost": "0.0028165478379095776",
        "ListCost": 0.01,
        "Tags": [{"key": "env", "value": "ci"}],
        "ResourceId": "//compute.googleapis.com/projects/p/zones/z/instances/42",
        "x_ExportTime": "2026-11-01T09:30:00Z",
        "Unheard": 1,
    }
    (charge,) = focus_charges([json.dumps(row)]).to_pylist()
    assert (charge["BilledCost"], charge["ListCost"]) == ("0.0028165478379095776", "0.01")
    assert (charge["ResourceId"], charge["Tags"], charge["x_Unheard"]) == ("42", '{"env": "ci"}', "1")


def test_an_answer_that_is_no_row_is_malformed() -> None:
    with pytest.raises(CollectionError) as error:
        focus_charges(["[1, 2]"])
    assert error.value.kind == "malformed"
