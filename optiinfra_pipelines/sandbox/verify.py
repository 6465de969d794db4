"""Holds the bills of the warehouse against the sandbox's manifest of truths, to the last digit and to the row.

Bills of the fleet, which come from APIs over connections named ...-api, are `fleet_truths.py`'s.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from optiinfra_pipelines.sandbox.scenario import RESTATED_BILL
from optiinfra_pipelines.sandbox.truths import Truths
from optiinfra_pipelines.tables.operations import REJECTED_ROWS
from optiinfra_pipelines.warehouse.protocol import Warehouse

_INVOICES = """
SELECT x_customer_id AS customer, x_connection_id AS connection, x_provider AS provider, BillingPeriodStart AS start,
       InvoiceId AS invoice, BillingCurrency AS currency, count(*) AS rows,
       sum(BilledCost) AS billed, sum(EffectiveCost) AS effective
FROM {staging}.billing b WHERE x_connection_id NOT LIKE '%-api' GROUP BY 1, 2, 3, 4, 5, 6
"""
_PROVIDERS = """
SELECT customer_id AS customer, provider, currency, sum(rows) AS rows,
       sum(billed_cost) AS billed, sum(effective_cost) AS effective
FROM {marts}.costs_daily t WHERE connection_id NOT LIKE '%-api' GROUP BY 1, 2, 3
"""
_RESTATED = """
SELECT count(*) AS n FROM {marts}.billing_restatements t
WHERE slice = $slice AND load_id <> previous_load_id AND billed_cost_difference <> 0
"""


def differences(warehouse: Warehouse, truths: Truths) -> Iterator[str]:
    """One sentence for each thing that the warehouse holds otherwise than planted; none where all is true."""
    names = {"staging": warehouse.database("staging"), "marts": warehouse.database("marts")}
    invoices = {
        (
            row["customer"],
            row["connection"],
            row["provider"],
            f"{row['start']:%Y-%m}",
            row["invoice"],
            row["currency"],
        ): (
            row["rows"],
            row["billed"],
            row["effective"],
        )
        for row in warehouse.query(_INVOICES.format(**names)).to_pylist()
    }
    planted = {
        (t.customer_id, t.connection_id, t.provider, t.billing_period, t.invoice_id, t.currency): (
            t.rows,
            Decimal(t.billed_cost),
            Decimal(t.effective_cost),
        )
        for t in truths.invoices
    }
    yield from _compared("invoice", planted, invoices)
    providers = {
        (row["customer"], row["provider"], row["currency"]): (row["rows"], row["billed"], row["effective"])
        for row in warehouse.query(_PROVIDERS.format(**names)).to_pylist()
    }
    totals = {
        (t.customer_id, t.provider, t.currency): (t.rows, Decimal(t.billed_cost), Decimal(t.effective_cost))
        for t in truths.providers
    }
    yield from _compared("provider", totals, providers)
    yield from _rejected(warehouse, truths)
    if truths.stage > 1:
        customer, provider, period = RESTATED_BILL
        params = {"slice": f"{customer}/{provider}-main/{period}"}
        if warehouse.query(_RESTATED.format(**names), params)["n"][0].as_py() != 1:
            yield f"the restatement of {customer} {provider} {period} is not in the history with both its figures"


def _rejected(warehouse: Warehouse, truths: Truths) -> Iterator[str]:
    found = Counter(
        (row["source"], row["row_number"])
        for row in warehouse.query(f"SELECT source, row_number FROM {warehouse.current(REJECTED_ROWS)} t").to_pylist()
    )
    planted = Counter((row.uri, row.row_number) for row in truths.rejected)
    for place in sorted((planted - found) + (found - planted)):
        yield f"rejected row {place}: planted {planted[place]} times, found {found[place]} times"


def _compared(what: str, planted: Mapping[Any, object], found: Mapping[Any, object]) -> Iterator[str]:
    for key in sorted({*planted, *found}, key=str):
        if planted.get(key) != found.get(key):
            yield f"{what} {key}: planted {planted.get(key)}, found {found.get(key)}"
