"""What the assets of metrics, inventory, prices and LLM interactions share: one customer's day of one provider."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from optiinfra_pipelines.clouds.collection import TABLES, Attempt, Kind, collect_day
from optiinfra_pipelines.defs.billing import RETRY, raise_failures
from optiinfra_pipelines.defs.partitions import CUSTOMER_DAYS, customer_and_day
from optiinfra_pipelines.defs.rendering import table_metadata
from optiinfra_pipelines.defs.warehouse_resource import CustomersResource, WarehouseResource
from optiinfra_pipelines.tables.cloud import CloudProvider

# Over all customers; per customer see raw/collection_runs: every_connection_is_collected.
_FRESHNESS = {
    "metrics": dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=2), warn_window=timedelta(minutes=45)),
    "inventory": dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=2), warn_window=timedelta(minutes=45)),
    "llm_interactions": dg.FreshnessPolicy.time_window(
        fail_window=timedelta(hours=2), warn_window=timedelta(minutes=45)
    ),
    "prices": dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=72), warn_window=timedelta(hours=30)),
}


def cloud_asset(provider: CloudProvider, kind: Kind) -> dg.AssetsDefinition:
    """The asset raw/{provider}_{kind}, partitioned by customer and UTC day."""
    table = TABLES[kind][provider]

    @dg.asset(
        key=[table.schema, table.name],
        description=table.description,
        group_name=f"raw_{provider}",
        partitions_def=CUSTOMER_DAYS,
        metadata=table_metadata(table),
        kinds={provider},
        owners=["team:finops"],
        tags={"provider": provider, "kind": kind},
        retry_policy=RETRY,
        freshness_policy=_FRESHNESS[kind],
    )
    def collected(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, customers: CustomersResource
    ) -> dg.MaterializeResult:
        customer_id, day = customer_and_day(context.partition_key)
        opened, customer = warehouse.open(context.run_id), customers.load().customer(customer_id)
        now = datetime.now(UTC)
        attempts = collect_day(opened, warehouse.settings(), customer, provider, kind, day, now)
        for each in attempts:
            context.log.info(f"{customer_id}/{each.connection_id} {kind} of {day.start:%Y-%m-%d}: {_said(each)}")
        raise_failures([(each.connection_id, each.error) for each in attempts])
        return dg.MaterializeResult(metadata=_metadata(attempts))

    return collected


def _said(attempt: Attempt) -> str:
    if attempt.error is not None:
        return str(attempt.error)
    if not attempt.windows:
        return "nothing was due"
    return f"{attempt.rows} rows of {len(attempt.windows)} windows in {attempt.requests} requests"


def _metadata(attempts: list[Attempt]) -> dict[str, int | float]:
    return {
        "rows_written": sum(each.rows for each in attempts),
        "rows_rejected": sum(each.rows_rejected for each in attempts),
        "windows": sum(len(each.windows) for each in attempts),
        "requests": sum(each.requests for each in attempts),
        "api_price_usd": float(sum(each.price for each in attempts)),
        "connections": len(attempts),
    }
