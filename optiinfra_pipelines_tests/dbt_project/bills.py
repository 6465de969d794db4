"""The small bills that the dbt project is tested on: what is printed in them at first, and what once restated.

Rows are dictionaries of printed FOCUS columns. What has to become of them is for the tests to say.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from optiinfra_pipelines.clouds.focus.loader import Bill, load_period
from optiinfra_pipelines.clouds.focus.locations import open_location
from optiinfra_pipelines.customers import BillingSource
from optiinfra_pipelines.tables.billing import AWS_BILLING, FOCUS_BILLING
from optiinfra_pipelines.tables.contract import Table
from optiinfra_pipelines.tables.operations import REJECTED_ROWS, SOURCE_TOTALS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import BillingPeriod
from optiinfra_pipelines_tests.focus_files import write_csv

Row = dict[str, str]

_CHARGE = {
    "BilledCost": "1",
    "EffectiveCost": "1",
    "ContractedCost": "1",
    "ListCost": "1",
    "BillingCurrency": "USD",
    "BillingPeriodStart": "2026-10-01T00:00:00Z",
    "BillingPeriodEnd": "2026-11-01T00:00:00Z",
    "ChargePeriodStart": "2026-10-01T00:00:00Z",
    "ChargePeriodEnd": "2026-10-01T01:00:00Z",
    "ChargeCategory": "Usage",
    "ProviderName": "AWS",
    "BillingAccountId": "111122223333",
    "SubAccountId": "444455556666",
    "ServiceCategory": "Compute",
    "ServiceName": "Amazon Elastic Compute Cloud",
    "RegionId": "us-east-1",
    "InvoiceId": "INV-10",
    "CommitmentDiscountId": "",
    "CommitmentDiscountStatus": "",
    "Tags": "",
}
_SEPTEMBER = {
    "BillingPeriodStart": "2026-09-01T00:00:00Z",
    "BillingPeriodEnd": "2026-10-01T00:00:00Z",
    "ChargePeriodStart": "2026-09-30T23:00:00Z",
    "ChargePeriodEnd": "2026-10-01T00:00:00Z",
    "InvoiceId": "INV-9",
}
_EUROPE = {"BillingCurrency": "EUR", "RegionId": "eu-central-1", "InvoiceId": "INV-EU"}
_COMMITMENT = {"CommitmentDiscountId": "sp-1"}
_OPENAI = {"ProviderName": "OpenAI", "BillingAccountId": "org-1", "ServiceName": "API", "InvoiceId": "S-1"}
_AZURE = {"ProviderName": "Microsoft Azure", "BillingAccountId": "sub-1", "InvoiceId": "S-2"}


def charge(*changes: Mapping[str, str]) -> Row:
    """One hour of one machine in October 2026 at 1 USD, with `changes`."""
    row = dict(_CHARGE)
    for change in changes:
        row |= change
    return row


def costs(billed: str, effective: str, contracted: str, listed: str) -> Row:
    """The four cost columns as printed."""
    return {"BilledCost": billed, "EffectiveCost": effective, "ContractedCost": contracted, "ListCost": listed}


AWS_SEPTEMBER = [
    charge(
        _SEPTEMBER,
        costs("10.000000000000000000001", "9", "10", "12"),
        {"Tags": '{"application": "chat", "environment": "prod"}'},
    ),
    charge(_SEPTEMBER, {"ChargeCategory": "Tax", "ServiceName": "", "ServiceCategory": "", "RegionId": ""}),
]
AWS_OCTOBER = [
    charge(costs("1.1", "1.1", "1.2", "1.3"), {"Tags": '{"application": "chat"}'}),
    charge(costs("2.2", "2.2", "2.3", "2.4"), {"Tags": '{"App": "chat", "team": "a \\"b\\""}'}),
    charge({"ChargePeriodStart": "2026-10-01T23:00:00Z", "Tags": '{"app": "chat", "Environment": "prod"}'}),
    charge({"ChargePeriodStart": "2026-10-02T00:00:00Z", "Tags": '{"application": "", "App": "batch", "env": 5}'}),
    charge({"Tags": "not json"}),
    charge({"Tags": '{"application": null, "owner": "x"}'}),
    charge({"ChargePeriodEnd": "2026-11-01T00:00:00Z", "ChargeCategory": "Purchase", "InvoiceId": ""}),
    charge(costs("100", "0", "100", "100"), _COMMITMENT, {"ChargeCategory": "Purchase"}),
    charge(costs("0", "7", "10", "12"), _COMMITMENT, {"CommitmentDiscountStatus": "Used", "SubAccountId": ""}),
    charge(costs("0", "3", "0", "0"), _COMMITMENT, {"CommitmentDiscountStatus": "Unused"}),
    charge(costs("-2", "-2", "-2", "-2"), {"ChargeCategory": "Credit"}),
    charge(_EUROPE, costs("5.5", "5.5", "5.5", "6")),
    charge(_EUROPE, costs("0.000000000000000000007", "0", "", "8")),
]
# A cheaper first hour, no credit any more, and every charge is on an invoice.
AWS_OCTOBER_RESTATED = [
    AWS_OCTOBER[0] | {"BilledCost": "1.05", "EffectiveCost": "1.05"},
    *(
        row | {"InvoiceId": row["InvoiceId"] or "INV-10"}
        for row in AWS_OCTOBER[1:]
        if row["ChargeCategory"] != "Credit"
    ),
]
GCP_OCTOBER = [
    charge({"ProviderName": "Google Cloud"}),
    charge({"ProviderName": "Google Cloud"}, costs("2", "2", "2", "2")),
]
SAAS_SEPTEMBER = [charge(_SEPTEMBER, _OPENAI)]
SAAS_OCTOBER = [charge(_OPENAI), charge(_AZURE)]
SAAS_REJECTED = [
    charge(_OPENAI, {"ChargeCategory": "Rebate", "BilledCost": "$1,234.50"}),
    charge(_AZURE, {"BilledCost": "n/a"}),
    charge(_OPENAI, {"BillingPeriodStart": "soon", "BilledCost": "4"}),
]
SAAS_RAGGED = "too,few,fields\n"


def write_first(folder: Path) -> None:
    """Write the bills as they are first published."""
    _write(folder / "aws/2026-09/bill.csv", AWS_SEPTEMBER)
    _write(folder / "aws/2026-10/bill.csv", AWS_OCTOBER)
    _write(folder / "gcp/2026-10/bill.csv", GCP_OCTOBER)
    write_csv(folder / "saas/all.csv", [*SAAS_SEPTEMBER, *SAAS_OCTOBER, *SAAS_REJECTED], extra=SAAS_RAGGED)


def write_restated(folder: Path) -> None:
    """Restate two months: one changes, of the other nothing is left."""
    _write(folder / "aws/2026-10/bill.csv", AWS_OCTOBER_RESTATED)
    _write(folder / "gcp/2026-10/bill.csv", [])


def _write(path: Path, rows: Iterable[Row]) -> None:
    rows = list(rows)
    write_csv(path, rows or [_CHARGE])
    if not rows:
        path.write_text(path.read_text().splitlines()[0] + "\n")


def load_all(warehouse: Warehouse, folder: Path) -> None:
    """Load every period of every bill below `folder`."""
    for table, customer_id, connection_id, provider, periods in (
        (AWS_BILLING, "acme", "aws-main", "aws", ("2026-09", "2026-10")),
        (FOCUS_BILLING, "acme", "saas", "focus", ("2026-09", "2026-10")),
        (FOCUS_BILLING, "beta", "gcp-main", "gcp", ("2026-10",)),
    ):
        bill = _bill(customer_id, connection_id, provider, folder / connection_id.removesuffix("-main"))
        for period in periods:
            load_period(warehouse, table, bill, BillingPeriod(period))


def load_wrongly(warehouse: Warehouse) -> None:
    """Load two months of customer gamma: both met one bad row, and one has totals that its rows do not add up to."""
    totals = [
        _total("S-1", 1, "2.000000000000000000001"),  # a digit too much
        _total("S-2", 1, "1"),  # nothing of it in the warehouse
        _total(None, 1, "1"),  # right, and on no invoice
    ]
    charges = [_loaded_charge("S-1", "2"), _loaded_charge(None, "1"), _loaded_charge("S-3", "1")]
    met_twice = _without_load(REJECTED_ROWS, [_rejected_row()])
    with warehouse.replace_slice(FOCUS_BILLING, "gamma/main/2026-09") as load:
        load.insert(met_twice, into=REJECTED_ROWS)
    with warehouse.replace_slice(FOCUS_BILLING, "gamma/main/2026-10") as load:
        load.insert(met_twice, into=REJECTED_ROWS)
        load.insert(_without_load(FOCUS_BILLING, charges))
        load.insert(_without_load(SOURCE_TOTALS, totals), into=SOURCE_TOTALS)


def _total(invoice_id: str | None, rows: int, billed_cost: str) -> dict[str, Any]:
    return {
        "customer_id": "gamma",
        "connection_id": "main",
        "table_name": FOCUS_BILLING.full_name,
        "provider_name": None,
        "billing_period": "2026-10",
        "invoice_id": invoice_id,
        "currency": "USD",
        "rows": rows,
        "billed_cost": Decimal(billed_cost),
        "effective_cost": None,
    }


def _rejected_row() -> dict[str, Any]:
    return {
        "customer_id": "gamma",
        "connection_id": "main",
        "table_name": FOCUS_BILLING.full_name,
        "source": "file:///mixed.csv",
        "row_number": 7,
        "reason": "BillingPeriodStart: is not a date of a bill",
        "payload": '{"BilledCost":"4","BillingPeriodStart":"soon"}',
    }


def _loaded_charge(invoice_id: str | None, billed_cost: str) -> dict[str, Any]:
    times = ("BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd")
    return {name: datetime.fromisoformat(_CHARGE[name].removesuffix("Z")) for name in times} | {
        "BilledCost": Decimal(billed_cost),
        "EffectiveCost": Decimal(billed_cost),
        "BillingCurrency": "USD",
        "ChargeCategory": "Usage",
        "InvoiceId": invoice_id,
        "x_customer_id": "gamma",
        "x_provider": "unknown",
        "x_connection_id": "main",
        "x_source": "file:///none",
        "x_row_number": 1,
        "x_focus_version": "1.0",
    }


def _without_load(table: Table, rows: list[dict[str, Any]]) -> pa.Table:
    names = {"x_load_id", "x_collected_at", "load_id", "collected_at"}
    return pa.Table.from_pylist(rows, pa.schema([each.arrow for each in table.columns if each.name not in names]))


def load_file(warehouse: Warehouse, table: Table, connection_id: str, path: Path, period: str) -> None:
    """Load one period of a folder of files as a bill of customer delta."""
    load_period(warehouse, table, _bill("delta", connection_id, "focus", path), BillingPeriod(period))


def _bill(customer_id: str, connection_id: str, provider: str, path: Path) -> Bill:
    source = BillingSource(location=str(path))
    return Bill(customer_id, connection_id, provider, source, open_location(source, {}))
