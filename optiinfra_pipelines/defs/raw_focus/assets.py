"""Raw tables from FOCUS files of any provider, wherever they lie."""

import dagster as dg

from optiinfra_pipelines.defs.billing import FRESHNESS, RETRY, collect_month
from optiinfra_pipelines.defs.partitions import CUSTOMER_MONTHS
from optiinfra_pipelines.defs.rendering import table_metadata
from optiinfra_pipelines.defs.warehouse_resource import CustomersResource, WarehouseResource
from optiinfra_pipelines.tables.billing import FOCUS_BILLING


@dg.asset(
    key=["raw", "focus_billing"],
    group_name="raw_focus",
    partitions_def=CUSTOMER_MONTHS,
    metadata=table_metadata(FOCUS_BILLING),
    kinds={"focus"},
    owners=["team:finops"],
    tags={"provider": "focus"},
    retry_policy=RETRY,
    freshness_policy=FRESHNESS,
)
def focus_billing(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, customers: CustomersResource
) -> dg.MaterializeResult:
    """One row is one charge of any provider's bill, from FOCUS files in a bucket, container or folder.

    Grain: the files' own rows. Read by staging.billing. A restated month replaces the old one at once.
    """
    return collect_month(context, warehouse, customers, FOCUS_BILLING)
