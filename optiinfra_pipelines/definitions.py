"""The code location `optiinfra_pipelines`: everything that collects, accounts, checks and alerts. No logic here.

The marts are a location of their own, `marts_definitions.py`: dagster-dbt imports all of dbt-core, and every run of a
collector would pay for it. Modules are named in the order data flows; `load_from_defs_folder` would import every
installed Dagster library's components, boto3 and pandas with them.
"""

import dagster as dg

from optiinfra_pipelines.defs import (
    alerts,
    operations,
    quality,
    raw_aws,
    raw_azure,
    raw_focus,
    raw_gcp,
    raw_vultr,
    schedules,
)
from optiinfra_pipelines.defs.resources import RESOURCES

_IN_ORDER = (raw_aws, raw_gcp, raw_azure, raw_vultr, raw_focus, quality, operations, alerts)

defs = dg.Definitions.merge(
    *map(dg.load_definitions_from_package_module, _IN_ORDER),
    dg.load_definitions_from_modules([schedules]),
    dg.Definitions(resources=RESOURCES, executor=dg.in_process_executor),
)
