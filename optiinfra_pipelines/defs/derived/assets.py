"""Staging views and marts: the dbt project's models, with row counts, schemas and column lineage."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource, dbt_assets

from optiinfra_pipelines.defs.derived.project import DBT_PROJECT, TRANSLATOR, dbt_environment
from optiinfra_pipelines.defs.warehouse_resource import WarehouseResource


@dbt_assets(manifest=DBT_PROJECT.manifest_path, project=DBT_PROJECT, dagster_dbt_translator=TRANSLATOR, name="derived")
def derived(context: dg.AssetExecutionContext, dbt: DbtCliResource, warehouse: WarehouseResource) -> Iterator[Any]:
    """Every staging view and mart, in dbt's order; dbt's tests show as checks."""
    warehouse.open(context.run_id)  # the tables that dbt's sources name exist from here on
    with (
        dbt_environment(warehouse.settings(), context.run_id),
        TemporaryDirectory(prefix="optiinfra-dbt-") as target,  # else each build leaves a folder in the project
    ):
        built = dbt.cli(["build"], context=context, target_path=Path(target)).stream()
        yield from built.fetch_row_counts().fetch_column_metadata()
