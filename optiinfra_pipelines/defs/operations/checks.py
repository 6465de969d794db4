"""Checks of the accounting tables: their contracts, plausible attempts, and whether every customer is collected."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster_duckdb import DuckDBResource

from optiinfra_pipelines.defs.rendering import check_result
from optiinfra_pipelines.defs.warehouse_resource import CustomersResource, WarehouseResource
from optiinfra_pipelines.expectations import judge_collection_runs
from optiinfra_pipelines.tables import OPERATION_TABLES
from optiinfra_pipelines.tables.contract import Table
from optiinfra_pipelines.tables.operations import COLLECTION_RUNS
from optiinfra_pipelines.verdicts import contract, contract_query, freshness

_NEWEST_ATTEMPTS = 5_000
_OFTEN = {"metrics": 2, "inventory": 2, "llm_interactions": 2}  # hours: eight ticks without success
_FRAME = """
SELECT status, window_start, window_end, duration_seconds,
       CASE WHEN status = 'failed' THEN error ELSE 'none needed' END AS error_of_failed
FROM sample
"""


def _contract_check(table: Table) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=[table.schema, table.name],
        name=f"{table.name}_follows_contract",
        description="Every row has what the table's contract requires.",
    )
    def check(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource) -> dg.AssetCheckResult:
        opened = warehouse.open(context.run.run_id)
        counts = opened.query(contract_query(table, opened.current(table))).to_pylist()[0]
        return check_result(contract(table, counts))

    return check


contract_checks: Sequence[dg.AssetChecksDefinition] = [_contract_check(table) for table in OPERATION_TABLES]


@dg.asset_check(asset=["raw", "collection_runs"])
def collection_runs_meet_expectations(
    context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource, scratch: DuckDBResource
) -> dg.AssetCheckResult:
    """A Great Expectations suite over the newest attempts: states, windows, durations, errors."""
    opened = warehouse.open(context.run.run_id)
    sample = opened.query(
        f"SELECT * FROM {opened.name(COLLECTION_RUNS)} t ORDER BY started_at DESC LIMIT {_NEWEST_ATTEMPTS}"
    )
    with scratch.get_connection() as con:
        con.register("sample", sample)
        frame = con.execute(_FRAME).df()
    return check_result(judge_collection_runs(frame))


@dg.asset_check(asset=["raw", "collection_runs"])
def every_connection_is_collected(
    context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource, customers: CustomersResource
) -> dg.AssetCheckResult:
    """Each kind of each connection of customers.yaml had a successful attempt in time: bills and prices within
    OPTIINFRA_FRESHNESS_HOURS, all else within two hours.

    Dagster's own freshness is per asset: one customer's success would hide another's silence.
    """
    opened = warehouse.open(context.run.run_id)
    last = {
        (row["customer_id"], row["connection_id"], row["kind"]): row
        for row in opened.query(
            "SELECT customer_id, connection_id, kind,"
            " max(CASE WHEN status <> 'failed' THEN started_at END) AS succeeded_at,"
            " argMax(coalesce(error, ''), started_at) AS last_error"
            f" FROM {opened.name(COLLECTION_RUNS)} t GROUP BY customer_id, connection_id, kind"
        ).to_pylist()
    }
    now, hours = datetime.now(UTC), warehouse.settings().freshness_hours
    expected = [
        {
            "customer_id": customer.id,
            "connection_id": connection.id,
            "provider": connection.provider,
            "kind": kind,
            "threshold_hours": _OFTEN.get(kind, hours),
            "hours_since_success": _hours_since(last.get((customer.id, connection.id, kind)), now),
            "last_error": (last.get((customer.id, connection.id, kind)) or {}).get("last_error"),
        }
        for customer in customers.load().customers
        for connection in customer.connections
        for kind in connection.collect
    ]
    return check_result(freshness(expected, hours))


def _hours_since(last: Mapping[str, Any] | None, now: datetime) -> float | None:
    succeeded = last["succeeded_at"] if last else None
    return round((now - succeeded).total_seconds() / 3600, 2) if succeeded else None
