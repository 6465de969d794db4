"""Raw tables of AWS: the bill from Data Exports or Cost and Usage Reports in S3. API collection comes beside it."""

import dagster as dg

from optiinfra_pipelines.defs.billing import FRESHNESS, RETRY, collect_month
from optiinfra_pipelines.defs.partitions import CUSTOMER_MONTHS
from optiinfra_pipelines.defs.rendering import table_metadata
from optiinfra_pipelines.defs.warehouse_resource import CustomersResource, WarehouseResource
from optiinfra_pipelines.tables.billing import AWS_BILLING


@dg.asset(
    key=["raw", "aws_billing"],
    group_name="raw_aws",
    partitions_def=CUSTOMER_MONTHS,
    metadata=table_metadata(AWS_BILLING),
    kinds={"aws", "focus"},
    owners=["team:finops"],
    tags={"provider": "aws"},
    retry_policy=RETRY,
    freshness_policy=FRESHNESS,
)
def aws_billing(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, customers: CustomersResource
) -> dg.MaterializeResult:
    """One row is one charge of an AWS bill, from FOCUS or Cost and Usage exports in S3.

    Grain: the export's own rows. Read by staging.billing. A restated month replaces the old one at once.
    """
    return collect_month(context, warehouse, customers, AWS_BILLING)
