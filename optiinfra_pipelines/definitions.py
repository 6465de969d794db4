"""The code location `optiinfra_pipelines`: everything that collects, accounts, checks and alerts. No logic here.

The marts are a location of their own, `marts_definitions.py`: dagster-dbt imports all of dbt-core, and every run of a
collector would pay for it. Modules are named in the order data flows; `load_from_defs_folder` would import every
installed Dagster library's components, boto3 and pandas with them.
"""

import dagster as dg

from optiinfra_pipelines.defs import alerts, operations, raw_aws, raw_focus, schedules
from optiinfra_pipelines.defs.resources import RESOURCES

defs = dg.Definitions.merge(
    dg.load_definitions_from_package_module(raw_aws),
    dg.load_definitions_from_package_module(raw_focus),
    dg.load_definitions_from_package_module(operations),
    dg.load_definitions_from_package_module(alerts),
    dg.load_definitions_from_modules([schedules]),
    dg.Definitions(resources=RESOURCES, executor=dg.in_process_executor),
)
