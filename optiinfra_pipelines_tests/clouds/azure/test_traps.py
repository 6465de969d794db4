"""The traps of Azure's APIs that a naive collector falls into, over the real wire."""

from datetime import timedelta
from decimal import Decimal

from optiinfra_pipelines.clouds.azure.bill import CostManagementBill, charge_rows
from optiinfra_pipelines.clouds.azure.collector import AzureCollector
from optiinfra_pipelines.clouds.azure.price_list import price_rows
from optiinfra_pipelines.sandbox.azure_wire import price_items
from optiinfra_pipelines.sandbox.fleet_bills import bill_periods
from optiinfra_pipelines.sandbox.gate import Fault
from optiinfra_pipelines.windows import BillingPeriod
from optiinfra_pipelines_tests.clouds.azure.conftest import FLEET, SPAN, TODAY, OpenSource
from optiinfra_pipelines_tests.clouds.sandbox_cloud import Cloud, rows_of

PERIOD = BillingPeriod("2026-10")


def test_trap_inclusive_end_date(open_source: OpenSource) -> None:
    """Azure's `to` belongs to the period: the first of the next month must not come with this one."""
    previous = bill_periods(TODAY)[0]
    days = {row["ChargePeriodStart"] for row in CostManagementBill(open_source()).rows(previous).to_pylist()}
    assert max(days) == f"{previous.end - timedelta(days=1):%Y-%m-%dT00:00:00Z}"


def test_trap_token_expiry_mid_page(open_source: OpenSource, cloud: Cloud) -> None:
    period = bill_periods(TODAY)[0]
    whole = CostManagementBill(open_source()).rows(period)
    cloud.break_with(Fault("status", 401, match="skiptoken"))
    assert CostManagementBill(open_source()).rows(period).equals(whole)


def test_trap_429_without_retry_after(open_source: OpenSource, cloud: Cloud) -> None:
    resources = rows_of(AzureCollector(open_source()).inventory())
    cloud.break_with(Fault("status", 429, match="getBatch"))
    assert not AzureCollector(open_source()).metrics(resources, SPAN).failures


def test_trap_commitment_purchase_and_amortised_use_are_not_summed() -> None:
    """A purchase is in actual cost alone, the use it covers in amortised cost alone: each in its own column."""
    shared = {"UsageDate": 20261001, "Currency": "USD", "ServiceName": "Virtual Machines"}
    purchase = shared | {"ChargeType": "Purchase", "Cost": Decimal("730"), "PricingModel": "Reservation"}
    use = shared | {"ChargeType": "Usage", "Cost": Decimal("1.5"), "PricingModel": "Reservation"}
    rows = charge_rows(PERIOD, "s", [purchase, use | {"Cost": Decimal(0)}], [use])
    costs = {row["ChargeCategory"]: (row["BilledCost"], row["EffectiveCost"]) for row in rows}
    assert costs == {"Purchase": ("730", "0"), "Usage": ("0", "1.5")}


def test_trap_account_rows_without_a_resource() -> None:
    tax = {"UsageDate": 20261031, "Currency": "EUR", "ChargeType": "Tax", "Cost": Decimal("7.0E-10"), "ResourceId": ""}
    [row] = charge_rows(PERIOD, "s", [tax], [tax])
    assert (row["ResourceId"], row["ChargeCategory"], row["BilledCost"]) == (None, "Tax", "0.00000000070")


def test_trap_mixed_currencies_stay_apart() -> None:
    shared = {"UsageDate": 20261001, "ChargeType": "Usage", "Cost": Decimal(1)}
    given = [shared | {"Currency": "USD"}, shared | {"Currency": "EUR"}]
    assert sorted(str(row["BillingCurrency"]) for row in charge_rows(PERIOD, "s", given, given)) == ["EUR", "USD"]


def test_trap_one_missing_size_does_not_abort_all_prices() -> None:
    rows = price_rows(price_items(FLEET, "westeurope"), {})
    assert len([row for row in rows if row["kind"] == "machine"]) == 4
    assert all(row["vcpus"] is None for row in rows if row["kind"] == "machine")


def test_trap_an_unknown_charge_type_is_kept() -> None:
    odd = {"UsageDate": 20261001, "Currency": "USD", "ChargeType": "Surprise", "Cost": Decimal(1)}
    [row] = charge_rows(PERIOD, "s", [odd], [])
    assert (row["ChargeCategory"], row["x_ChargeType"]) == ("Surprise", "Surprise")
