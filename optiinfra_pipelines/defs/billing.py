"""What the billing assets of every provider share: collecting one customer's month into a result."""

from collections.abc import Sequence

import dagster as dg

from optiinfra_pipelines.clouds.billing import Collected, collect_billing
from optiinfra_pipelines.defs.partitions import customer_and_period
from optiinfra_pipelines.defs.warehouse_resource import CustomersResource, WarehouseResource
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.tables import OPERATION_TABLES
from optiinfra_pipelines.tables.contract import Table
from optiinfra_pipelines.tables.operations import CONNECTIONS

RETRY = dg.RetryPolicy(max_retries=3, delay=10, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
_WORTH_RETRYING = ("transient", "throttled")


def collect_month(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, customers: CustomersResource, table: Table
) -> dg.MaterializeResult:
    """Load the partition's month of the partition's customer; Failure after all connections were tried."""
    customer_id, period = customer_and_period(context.partition_key)
    open_warehouse = warehouse.open(context.run_id)
    collected = collect_billing(open_warehouse, table, customers.load().customer(customer_id), period)
    for each in collected:
        context.log.info(f"{customer_id}/{each.connection_id} {period}: {each.error or each.loaded}")
    for each in OPERATION_TABLES:
        if each is not CONNECTIONS:
            context.log_event(dg.AssetMaterialization([each.schema, each.name], description=f"by {table.full_name}"))
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
