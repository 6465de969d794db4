"""The resources of the collecting code location, by the names that assets, checks and sensors ask for.

Nothing is opened or read here: each does so when a run asks it.
"""

from dagster_duckdb import DuckDBResource

from optiinfra_pipelines.defs.alerts.notifier_resource import NotifierResource
from optiinfra_pipelines.defs.warehouse_resource import CustomersResource, WarehouseResource

RESOURCES = {
    "warehouse": WarehouseResource(),
    "customers": CustomersResource(),
    "notifier": NotifierResource(),
    "scratch": DuckDBResource(database=":memory:"),
}
