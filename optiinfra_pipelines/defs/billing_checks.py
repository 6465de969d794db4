"""The checks of every billing table, per customer and month: contract, source, rejections, FOCUS, expectations."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg
from dagster_duckdb import DuckDBResource

from optiinfra_pipelines.clouds.focus.rule_model import load_model
from optiinfra_pipelines.clouds.focus.rules import excuse_newer, failures, run_rules, tally
from optiinfra_pipelines.defs.partitions import CUSTOMER_MONTHS, customer_and_period
from optiinfra_pipelines.defs.rendering import check_result
from optiinfra_pipelines.defs.warehouse_resource import WarehouseResource
from optiinfra_pipelines.expectations import judge_billing
from optiinfra_pipelines.tables.contract import Table
from optiinfra_pipelines.tables.focus_rules import FOCUS_RULES
from optiinfra_pipelines.tables.operations import LOADS, REJECTED_ROWS, SOURCE_TOTALS
from optiinfra_pipelines.verdicts import MOST_ROWS, Verdict, contract, contract_query, reconciliation, rejections
from optiinfra_pipelines.warehouse.ledger import rows_of_period
from optiinfra_pipelines.warehouse.protocol import Warehouse

_SAMPLE = 20_000  # rows that the expectations look at
_SAMPLED = (
    "BilledCost, ListCost, BillingCurrency, ChargeCategory, ChargePeriodStart, ChargePeriodEnd,"
    " BillingPeriodStart, BillingPeriodEnd"
)
_FRAME = """
SELECT CAST(BilledCost AS DOUBLE) AS BilledCost, BillingCurrency, ChargePeriodStart, ChargePeriodEnd,
       BillingPeriodStart, BillingPeriodEnd, date_diff('day', BillingPeriodStart, BillingPeriodEnd) AS billing_days,
       CASE WHEN ChargeCategory = 'Usage' THEN CAST(ListCost AS DOUBLE) END AS list_cost_of_usage,
       CASE WHEN ChargeCategory = 'Usage' AND ListCost IS NOT NULL THEN CAST(BilledCost AS DOUBLE) END
           AS billed_cost_of_usage
FROM sample
"""
_INVOICES = """
SELECT coalesce(s.invoice, w.invoice) AS invoice, s.n AS source_rows, w.n AS warehouse_rows,
       s.billed AS source_billed_cost, w.billed AS warehouse_billed_cost,
       s.effective AS source_effective_cost, w.effective AS warehouse_effective_cost
FROM (
    SELECT concat(connection_id, ' ', coalesce(provider_name, '-'), ' ', coalesce(invoice_id, '-'), ' ',
                  coalesce(currency, '-')) AS invoice,
           sum(rows) AS n, sum(billed_cost) AS billed, sum(effective_cost) AS effective
    FROM {totals} t GROUP BY 1
) s FULL OUTER JOIN (
    SELECT concat(x_connection_id, ' ', coalesce(ProviderName, '-'), ' ', coalesce(InvoiceId, '-'), ' ',
                  coalesce(BillingCurrency, '-')) AS invoice,
           count(*) AS n, sum(BilledCost) AS billed, sum(EffectiveCost) AS effective
    FROM {rows} b GROUP BY 1
) w ON s.invoice = w.invoice
ORDER BY 1
"""


def billing_checks(table: Table) -> Sequence[dg.AssetChecksDefinition]:
    """The five checks of `table`, each evaluated for the partition that was materialised."""
    return [
        _check(table, "billing_follows_contract", _follows_contract, blocking=True),
        _check(table, "billing_reconciles_with_source", _reconciles),
        _check(table, "no_row_was_rejected", _nothing_rejected),
        _check(table, "billing_follows_focus_rules", _follows_focus),
        _expectations_check(table),
    ]


Judge = Callable[[Warehouse, Table, str, str], dg.AssetCheckResult]


def _check(table: Table, name: str, judge: Judge, *, blocking: bool = False) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=[table.schema, table.name],
        name=name,
        description=judge.__doc__,
        blocking=blocking,
        partitions_def=CUSTOMER_MONTHS,
    )
    def check(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource) -> dg.AssetCheckResult:
        customer_id, period = customer_and_period(context.partition_key)
        return judge(warehouse.open(context.run.run_id), table, customer_id, str(period))

    return check


def _provider(table: Table) -> str:
    return table.name.removesuffix("_billing")


def _follows_contract(warehouse: Warehouse, table: Table, customer_id: str, period: str) -> dg.AssetCheckResult:
    """Every row has what its contract requires, and no row of a source stands twice."""
    relation = rows_of_period(warehouse, table, customer_id, period)
    counts = warehouse.query(contract_query(table, relation)).to_pylist()[0]
    return check_result(contract(table, counts), customer=customer_id, provider=_provider(table))


def _reconciles(warehouse: Warehouse, table: Table, customer_id: str, period: str) -> dg.AssetCheckResult:
    """What was loaded adds up, per invoice and to the last digit, to what the source's own digits add up to."""
    totals = rows_of_period(warehouse, table, customer_id, period, of=SOURCE_TOTALS)
    rows = rows_of_period(warehouse, table, customer_id, period)
    invoices = warehouse.query(_INVOICES.format(totals=totals, rows=rows)).to_pylist()
    rejected = sum(each["rows"] for each in _rejected(warehouse, table, customer_id, period))
    return check_result(reconciliation(invoices, rejected), customer=customer_id, provider=_provider(table))


def _nothing_rejected(warehouse: Warehouse, table: Table, customer_id: str, period: str) -> dg.AssetCheckResult:
    """No row of the source was refused; refused rows are in raw.rejected_rows with reason and payload."""
    accepted = warehouse.query(
        f"SELECT count(*) AS n FROM {rows_of_period(warehouse, table, customer_id, period)} t"
    ).to_pylist()
    found = _rejected(warehouse, table, customer_id, period)
    return check_result(rejections(found, accepted[0]["n"]), customer=customer_id, provider=_provider(table))


def _rejected(warehouse: Warehouse, table: Table, customer_id: str, period: str) -> list[dict[str, Any]]:
    relation = rows_of_period(warehouse, table, customer_id, period, of=REJECTED_ROWS)
    return warehouse.query(
        f"SELECT reason, count(*) AS rows, min(source) AS example_source, min(row_number) AS example_row_number"
        f" FROM {relation} t GROUP BY reason ORDER BY rows DESC, reason"
    ).to_pylist()


def _follows_focus(warehouse: Warehouse, table: Table, customer_id: str, period: str) -> dg.AssetCheckResult:
    """Every row obeys FOCUS 1.2 as far as data can tell: this project's rules, and OPTIINFRA_FOCUS_MODEL's when set."""
    from optiinfra_pipelines.settings import load_settings

    model = load_settings().focus_model
    rules = [*FOCUS_RULES, *(load_model(model) if model else ())]
    relation = rows_of_period(warehouse, table, customer_id, period)
    present = _columns_present(warehouse, table, relation)
    results = excuse_newer(
        run_rules(warehouse.query, relation, rules, warehouse.engine, present), _versions(warehouse, relation)
    )
    broken = failures(results)
    obligations = [each for each in broken if each["keyword"].startswith("MUST")]
    said = f"{len(obligations)} FOCUS obligations and {len(broken) - len(obligations)} recommendations are broken"
    verdict = Verdict(
        not obligations,
        "WARN",
        said if broken else "every FOCUS rule that applies holds",
        {f"rules_{status}": count for status, count in tally(results).items()},
        broken[:MOST_ROWS],
    )
    return check_result(verdict, customer=customer_id, provider=_provider(table))


def _columns_present(warehouse: Warehouse, table: Table, relation: str) -> dict[str, frozenset[str]]:
    """Per provider, the FOCUS columns that at least one of its files had: the table itself always has them all."""
    found = warehouse.query(
        f"SELECT DISTINCT r.x_provider AS provider, l.details AS details FROM {relation} r"
        f" JOIN {warehouse.name(LOADS)} l ON l.load_id = r.x_load_id AND l.state = 'committed'"
    ).to_pylist()
    present: dict[str, frozenset[str]] = {}
    for row in found:
        columns = frozenset(json.loads(row["details"])["columns_present"])
        present[row["provider"]] = present.get(row["provider"], frozenset()) | columns
    return present


def _versions(warehouse: Warehouse, relation: str) -> dict[str, str]:
    """Per provider, the oldest layout among its files."""
    found = warehouse.query(f"SELECT x_provider, min(x_focus_version) AS version FROM {relation} r GROUP BY x_provider")
    return {row["x_provider"]: row["version"] for row in found.to_pylist()}


def _expectations_check(table: Table) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=[table.schema, table.name],
        name="billing_meets_expectations",
        description="A Great Expectations suite over a sample of the month's rows: plausible dates, currencies, costs.",
        partitions_def=CUSTOMER_MONTHS,
    )
    def check(
        context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource, scratch: DuckDBResource
    ) -> dg.AssetCheckResult:
        customer_id, period = customer_and_period(context.partition_key)
        opened = warehouse.open(context.run.run_id)
        sample = opened.query(
            f"SELECT {_SAMPLED} FROM {rows_of_period(opened, table, customer_id, str(period))} t LIMIT {_SAMPLE}"
        )
        with scratch.get_connection() as con:
            con.register("sample", sample)
            frame = con.execute(_FRAME).df()
        return check_result(judge_billing(frame), customer=customer_id, provider=_provider(table))

    return check
