"""The code location `optiinfra_marts`: the dbt project's staging views and marts. No logic here."""

import dagster as dg
from dagster_dbt import DbtCliResource

from optiinfra_pipelines.defs import derived
from optiinfra_pipelines.defs.derived.project import DBT_EXECUTABLE, DBT_PROJECT
from optiinfra_pipelines.defs.warehouse_resource import WarehouseResource

defs = dg.Definitions.merge(
    dg.load_definitions_from_package_module(derived),
    dg.Definitions(
        resources={
            "warehouse": WarehouseResource(),
            "dbt": DbtCliResource(project_dir=DBT_PROJECT, dbt_executable=DBT_EXECUTABLE),
        },
        executor=dg.in_process_executor,
    ),
)
