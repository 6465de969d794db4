"""Where the dbt project is and how its models look in Dagster. `make setup` makes its manifest, never a run."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtProject

from optiinfra_pipelines.settings import ClickHouseAddress, Settings

DBT_EXECUTABLE = str(Path(sys.executable).with_name("dbt"))  # beside this Python, whatever PATH says
DBT_PROJECT = DbtProject(project_dir=Path(__file__).parents[3] / "dbt_project")
# Not eager(): that one never fires over a parent with months that nobody loaded.
_REFRESH = (
    dg.AutomationCondition.any_deps_updated().since(
        dg.AutomationCondition.newly_requested() | dg.AutomationCondition.initial_evaluation()
    )
    & ~dg.AutomationCondition.in_progress()
    & ~dg.AutomationCondition.any_deps_in_progress()
)


class Translator(DagsterDbtTranslator):
    """Models keep dbt's keys, [schema, name]; all stand in the group `derived` and follow their sources."""

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None) -> dg.AssetSpec:
        spec = super().get_asset_spec(manifest, unique_id, project)
        if unique_id.startswith("source"):
            return spec
        return spec.replace_attributes(group_name="derived", owners=["team:finops"], automation_condition=_REFRESH)


TRANSLATOR = Translator(settings=DagsterDbtTranslatorSettings(enable_source_tests_as_checks=True))


@contextmanager
def dbt_environment(settings: Settings, run_id: str) -> Iterator[None]:
    """The variables that dbt_project/profiles.yml reads, set for dbt's process while the block lasts."""
    address = settings.warehouse_address
    if isinstance(address, ClickHouseAddress):
        given = {
            "OPTIINFRA_DBT_TARGET": "clickhouse",
            "OPTIINFRA_CLICKHOUSE_HOST": address.host,
            "OPTIINFRA_CLICKHOUSE_PORT": str(address.port),
            "OPTIINFRA_CLICKHOUSE_USER": address.user,
            "OPTIINFRA_CLICKHOUSE_PASSWORD": address.password.get_secret_value(),
            "OPTIINFRA_CLICKHOUSE_SECURE": str(address.secure).lower(),
            "OPTIINFRA_CLICKHOUSE_CLUSTER": address.cluster or "",
        }
    else:
        given = {"OPTIINFRA_DBT_TARGET": "duckdb", "OPTIINFRA_DUCKDB_PATH": str(address.path)}
    given["OPTIINFRA_RUN_ID"] = run_id
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
