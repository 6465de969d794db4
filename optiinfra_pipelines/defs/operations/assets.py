"""The tables by which the project accounts for itself. The collecting assets write them; here they are named."""

import dagster as dg

from optiinfra_pipelines.defs.rendering import table_metadata
from optiinfra_pipelines.tables import OPERATION_TABLES

operation_tables = [
    dg.AssetSpec(
        key=[table.schema, table.name],
        group_name="operations",
        description=table.description,
        metadata=table_metadata(table),
        kinds={"table"},
        owners=["team:finops"],
    )
    for table in OPERATION_TABLES
]
