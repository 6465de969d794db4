"""What the billing assets of every provider share: one customer's month, collected into a result."""

from collections.abc import Sequence
from datetime import timedelta

import dagster as dg

from optiinfra_pipelines.clouds.billing import TABLE_OF, Collected, collect_billing
from optiinfra_pipelines.clouds.bookkeeping import record_connections
from optiinfra_pipelines.defs.partitions import CUSTOMER_MONTHS, customer_and_period
from optiinfra_pipelines.defs.rendering import table_metadata
from optiinfra_pipelines.defs.warehouse_resource import CustomersResource, WarehouseResource
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.tables import OPERATION_TABLES
from optiinfra_pipelines.tables.contract import Table

RETRY = dg.RetryPolicy(max_retries=3, delay=10, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
# Bills are asked for hourly; a day of silence over all customers is a stopped schedule. Per customer: see operations.
FRESHNESS = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=36), warn_window=timedelta(hours=6))
_WORTH_RETRYING = ("transient", "throttled")


def billing_asset(provider: str) -> dg.AssetsDefinition:
    """The asset raw/{provider}_billing, by customer and month. A restated month replaces the old one at once."""
    table = TABLE_OF[provider]

    @dg.asset(
        key=[table.schema, table.name],
        description=table.description,
        group_name=f"raw_{provider}",
        partitions_def=CUSTOMER_MONTHS,
        metadata=table_metadata(table),
        kinds={provider, "focus"},
        owners=["team:finops"],
        tags={"provider": provider, "kind": "billing"},
        retry_policy=RETRY,
        freshness_policy=FRESHNESS,
    )
    def billing(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, customers: CustomersResource
    ) -> dg.MaterializeResult:
        return _collect_month(context, warehouse, customers, table)

    return billing


def _collect_month(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, customers: CustomersResource, table: Table
) -> dg.MaterializeResult:
    customer_id, period = customer_and_period(context.partition_key)
    opened, customer = warehouse.open(context.run_id), customers.load().customer(customer_id)
    record_connections(opened, customer)
    collected = collect_billing(opened, warehouse.settings(), table, customer, period)
    for each in collected:
        context.log.info(f"{customer_id}/{each.connection_id} {period}: {each.error or each.loaded}")
    for written in OPERATION_TABLES:
        context.log_event(dg.AssetMaterialization([written.schema, written.name], description=f"by {table.full_name}"))
    raise_failures([(each.connection_id, each.error) for each in collected])
    return dg.MaterializeResult(metadata=_metadata(collected))


def raise_failures(outcomes: Sequence[tuple[str, Exception | None]]) -> None:
    """Failure where a connection failed, after all were tried; retried by Dagster where that may help.

    `outcomes`: connection id, and the error it ended with or None.
    """
    failed = [(connection_id, error) for connection_id, error in outcomes if error is not None]
    if not failed:
        return
    kinds = {error.kind if isinstance(error, CollectionError) else "transient" for _, error in failed}
    raise dg.Failure(
        description="; ".join(f"{connection_id}: {error}" for connection_id, error in failed),
        metadata={"connections_failed": len(failed), "connections_collected": len(outcomes) - len(failed)},
        allow_retries=bool(kinds & set(_WORTH_RETRYING)),
    )


def _metadata(collected: Sequence[Collected]) -> dict[str, int]:
    loaded = [each.loaded for each in collected]
    return {
        "dagster/partition_row_count": sum(each.rows for each in loaded),
        "rows_read": sum(each.rows_read for each in loaded),
        "rows_rejected": sum(each.rows_rejected for each in loaded),
        "files": sum(each.files for each in loaded),
        "connections": len(loaded),
        "connections_unchanged": sum(each.status == "unchanged" for each in loaded),
    }
