"""What the billing assets of every provider share: collecting one customer's month into a result."""

from collections.abc import Sequence
from datetime import timedelta

import dagster as dg

from optiinfra_pipelines.clouds.billing import Collected, collect_billing, record_connections
from optiinfra_pipelines.defs.partitions import customer_and_period
from optiinfra_pipelines.defs.warehouse_resource import CustomersResource, WarehouseResource
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.tables import OPERATION_TABLES
from optiinfra_pipelines.tables.contract import Table

RETRY = dg.RetryPolicy(max_retries=3, delay=10, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
# Bills are asked for hourly; a day of silence over all customers is a stopped schedule. Per customer: see operations.
FRESHNESS = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=36), warn_window=timedelta(hours=6))
_WORTH_RETRYING = ("transient", "throttled")


def collect_month(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, customers: CustomersResource, table: Table
) -> dg.MaterializeResult:
    """Load the partition's month of the partition's customer; Failure after all connections were tried."""
    customer_id, period = customer_and_period(context.partition_key)
    opened, customer = warehouse.open(context.run_id), customers.load().customer(customer_id)
    record_connections(opened, customer)
    collected = collect_billing(opened, table, customer, period)
    for each in collected:
        context.log.info(f"{customer_id}/{each.connection_id} {period}: {each.error or each.loaded}")
    for written in OPERATION_TABLES:
        context.log_event(dg.AssetMaterialization([written.schema, written.name], description=f"by {table.full_name}"))
    _raise_failures(collected)
    return dg.MaterializeResult(metadata=_metadata(collected))


def _raise_failures(collected: Sequence[Collected]) -> None:
    failed = [each for each in collected if each.error is not None]
    if not failed:
        return
    kinds = {each.error.kind if isinstance(each.error, CollectionError) else "transient" for each in failed}
    raise dg.Failure(
        description="; ".join(f"{each.connection_id}: {each.error}" for each in failed),
        metadata={"connections_failed": len(failed), "connections_collected": len(collected) - len(failed)},
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
