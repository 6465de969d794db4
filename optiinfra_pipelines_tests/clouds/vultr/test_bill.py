"""The bill that the API tells is the fleet's bill, to the last digit, and is taken by the bills' normaliser whole."""

from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest

from optiinfra_pipelines.clouds.focus.normaliser import Origin, normalise
from optiinfra_pipelines.clouds.vultr.bill import VultrBill, closes
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.sandbox.fleet_bills import bill_periods, charges
from optiinfra_pipelines.sandbox.gate import Fault
from optiinfra_pipelines.sandbox.vultr_server import LINGERING, invoice_number
from optiinfra_pipelines.windows import BillingPeriod
from optiinfra_pipelines_tests.clouds.vultr.sandbox import FLEET, TODAY, open_source, switched_on

CLOSED, OPEN = bill_periods(TODAY)


@pytest.mark.parametrize("customer", ["acme", "globex"])
@pytest.mark.parametrize("period", [CLOSED, OPEN])
def test_charges_add_up_to_the_fleets_bill(vultr_url: str, customer: str, period: BillingPeriod) -> None:
    rows = VultrBill(open_source(vultr_url, customer)).rows(period).to_pylist()
    planted = list(charges(FLEET, customer, "vultr", period))
    assert sorted(Decimal(row["BilledCost"]) for row in rows) == sorted(charge.cost for charge in planted)
    assert sum(Decimal(row["BilledCost"]) for row in rows) == sum(charge.cost for charge in planted)
    assert sorted(row["ChargeCategory"] for row in rows) == sorted(charge.category for charge in planted)


def test_a_closed_month_is_on_its_invoice_and_an_open_one_is_estimated(vultr_url: str) -> None:
    bill = VultrBill(open_source(vultr_url))
    assert list(bill.periods()) == [CLOSED, OPEN]
    closed, pending = bill.rows(CLOSED), bill.rows(OPEN)
    invoice_id = next(charges(FLEET, "acme", "vultr", CLOSED)).invoice_id or ""
    assert set(closed["InvoiceId"].to_pylist()) == {str(invoice_number(invoice_id))}
    assert set(closed["x_Estimated"].to_pylist()) == {None}
    assert set(pending["InvoiceId"].to_pylist()) == {None}
    assert set(pending["x_Estimated"].to_pylist()) == {"true"}


def test_pending_charges_that_an_invoice_has_taken_over_are_not_counted_twice(vultr_url: str) -> None:
    bill = VultrBill(open_source(vultr_url))
    usual = {period: bill.rows(period) for period in (CLOSED, OPEN)}
    for period in (CLOSED, OPEN):
        with switched_on(vultr_url, Fault(kind=LINGERING, match="/billing/pending-charges", times=1)):
            assert bill.rows(period) == usual[period]


def test_an_invoice_that_is_made_within_a_month_does_not_close_it() -> None:
    dates = ("2026-10-15T00:00:00+00:00", "2026-10-31T23:59:59+00:00", "2026-11-01T00:30:05+00:00")
    assert [closes({"date": date}, BillingPeriod("2026-10")) for date in dates] == [False, False, True]


def test_what_cannot_be_known_is_null(vultr_url: str) -> None:
    rows = VultrBill(open_source(vultr_url)).rows(CLOSED).to_pylist()
    assert {row["ResourceId"] for row in rows} == {None}
    names = {each.name for each in FLEET.of("acme", "vultr", "machine", "database")}
    assert {row["x_ResourceHint"] for row in rows if row["ChargeCategory"] == "Usage"} <= names
    assert "ListCost" not in rows[0]


def test_a_stopped_machine_is_still_billed(vultr_url: str) -> None:
    rows = VultrBill(open_source(vultr_url)).rows(CLOSED).to_pylist()
    assert any(row["x_ResourceHint"] == "batch-old" and Decimal(row["BilledCost"]) > 0 for row in rows)


def test_a_month_without_a_bill_has_no_rows(vultr_url: str) -> None:
    table = VultrBill(open_source(vultr_url)).rows(BillingPeriod("2020-01"))
    assert table.num_rows == 0
    assert set(table.schema.types) == {pa.string()}


def test_the_normaliser_takes_every_row_and_keeps_every_digit(vultr_url: str) -> None:
    table = VultrBill(open_source(vultr_url)).rows(CLOSED)
    plan = normalise(table.schema, Origin("acme", "vultr-api", "vultr", CLOSED))
    source = table.rename_columns([f"c{index}" for index in range(table.num_columns)])
    source = source.append_column("x_source", pa.array(["api"] * len(table), pa.string()))
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.register("source", source.append_column("x_row_number", pa.array(range(1, len(table) + 1), pa.int64())))
        accepted = con.sql(plan.accepted).to_arrow_table()
        assert con.sql(plan.rejected).to_arrow_table().num_rows == 0
    assert accepted.num_rows == table.num_rows
    assert sum(accepted["BilledCost"].to_pylist()) == sum(map(Decimal, table["BilledCost"].to_pylist()))


def test_an_invoice_whose_items_come_in_part_is_no_bill(vultr_url: str) -> None:
    with (
        switched_on(vultr_url, Fault(kind="partial", match="/items", times=1)),
        pytest.raises(CollectionError, match="items came"),
    ):
        VultrBill(open_source(vultr_url)).rows(CLOSED)
    assert VultrBill(open_source(vultr_url)).rows(CLOSED).num_rows == len(list(charges(FLEET, "acme", "vultr", CLOSED)))
