"""The bill read from BigQuery of the sandbox by Google's own client, held against the fleet's charges."""

from dataclasses import replace
from decimal import Decimal

import pytest
from requests.exceptions import InvalidHeader

from optiinfra_pipelines.clouds.collecting import Calls
from optiinfra_pipelines.clouds.gcp.bill import BigQueryBill
from optiinfra_pipelines.clouds.gcp.client import told
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.sandbox.fleet_bills import bill_periods, charges
from optiinfra_pipelines.sandbox.gcp_server import DATASET, FOCUS_TABLE, TABLE
from optiinfra_pipelines.windows import BillingPeriod
from optiinfra_pipelines_tests.clouds.gcp.conftest import FLEET, TODAY, OpenSource

PERIODS = bill_periods(TODAY)


def _at(table: str, project: str = "acme-llm-prod-4471") -> dict[str, object]:
    return {"billing": {"location": f"bigquery://{project}/{DATASET}/{table}"}}


@pytest.mark.parametrize("table", [TABLE, FOCUS_TABLE])
@pytest.mark.parametrize("period", PERIODS)
def test_a_bill_adds_up_to_the_last_digit(open_source: OpenSource, table: str, period: BillingPeriod) -> None:
    rows = BigQueryBill(open_source(**_at(table))).rows(period).to_pylist()
    true = list(charges(FLEET, "acme", "gcp", period))
    for category in ("Usage", "Credit", "Tax"):
        billed = [Decimal(row["BilledCost"]) for row in rows if row["ChargeCategory"] == category]
        assert sum(billed) == sum(charge.cost for charge in true if charge.category == category)
    assert len(rows) == len(true)
    assert {row["ResourceId"] for row in rows} >= {each.resource.resource_id for each in true if each.resource}
    assert {row["x_InvoiceMonth"] for row in rows} == {period.key.replace("-", "")}


@pytest.mark.parametrize("table", [TABLE, FOCUS_TABLE])
def test_periods_are_the_invoice_months_of_the_table(open_source: OpenSource, table: str) -> None:
    assert tuple(BigQueryBill(open_source(**_at(table))).periods()) == PERIODS


def test_a_month_without_a_bill_has_no_rows_and_the_same_bill_reads_the_same(open_source: OpenSource) -> None:
    bill = BigQueryBill(open_source())
    assert bill.rows(BillingPeriod("2025-01")).num_rows == 0
    assert bill.rows(PERIODS[0]).equals(bill.rows(PERIODS[0]))


@pytest.mark.parametrize("table", [TABLE, FOCUS_TABLE])
def test_a_bill_of_many_pages_is_the_bill_of_one(
    open_source: OpenSource, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    source = open_source(**_at(table))
    whole = BigQueryBill(source).rows(PERIODS[0])
    assert ("bigquery", "jobs.getQueryResults") not in source.calls.made
    monkeypatch.setattr("optiinfra_pipelines.clouds.gcp.bill._PAGE", 31)
    assert BigQueryBill(source).rows(PERIODS[0]).equals(whole)
    assert source.calls.made["bigquery", "jobs.getQueryResults"][0] > 1


def test_a_query_is_paid_by_the_bytes_that_a_dry_run_tells(open_source: OpenSource) -> None:
    source = open_source()
    BigQueryBill(source).rows(PERIODS[0])
    calls, size, price = source.calls.made["bigquery", "jobs.query"]
    assert (calls, size) == (1, 31_457_280)
    assert price == Decimal(size) * Decimal("6.25") / 2**40
    spent = replace(source, calls=Calls(left=Decimal(0), budget=Decimal(1)))
    with pytest.raises(CollectionError) as error:
        BigQueryBill(spent).rows(PERIODS[0])
    assert error.value.kind == "budget"


def test_a_table_that_is_not_there_or_not_ours_is_told(open_source: OpenSource) -> None:
    with pytest.raises(CollectionError, match="nosuch"):
        BigQueryBill(open_source(**_at("gcp_billing_export_v1_nosuch"))).rows(PERIODS[0])
    with pytest.raises(CollectionError) as error:
        BigQueryBill(open_source(**_at(TABLE, "globex-ml-8852"))).rows(PERIODS[0])
    assert error.value.kind == "auth"
    with pytest.raises(CollectionError, match="bigquery://project/dataset/table"):
        BigQueryBill(open_source(billing={"location": "bigquery://project/dataset"}))


def test_an_error_that_quotes_a_header_is_told_by_its_name_alone() -> None:
    assert told(InvalidHeader("Invalid return character(s) in header value: 'Bearer canary'")) == "InvalidHeader"
    assert told(ConnectionError("refused by 127.0.0.1")) == "refused by 127.0.0.1"
