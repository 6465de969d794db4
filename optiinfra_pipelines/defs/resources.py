"""The resources of the code location, by the names that assets, checks and sensors ask for."""

import dagster as dg
from dagster_dbt import DbtCliResource
from dagster_duckdb import DuckDBResource

from optiinfra_pipelines.defs.alerts.notifier_resource import NotifierResource
from optiinfra_pipelines.defs.derived.project import DBT_PROJECT
from optiinfra_pipelines.defs.warehouse_resource import CustomersResource, WarehouseResource


@dg.definitions
def resources() -> dg.Definitions:
    """Nothing is opened or read here: each resource does so when a run asks it."""
    return dg.Definitions(
        resources={
            "warehouse": WarehouseResource(),
            "customers": CustomersResource(),
            "notifier": NotifierResource(),
            "scratch": DuckDBResource(database=":memory:"),
            "dbt": DbtCliResource(project_dir=DBT_PROJECT),
        }
    )
