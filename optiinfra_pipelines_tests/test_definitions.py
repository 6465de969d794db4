"""The code location as Dagster sees it: it loads, it is complete, it costs little to import."""

import json
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from optiinfra_pipelines.defs.partitions import CUSTOMER_MONTHS, MONTHS, customer_and_period, partition_key
from optiinfra_pipelines.tables import ALL_TABLES
from optiinfra_pipelines.windows import BillingPeriod

PACKAGE = Path(__file__).parent.parent / "optiinfra_pipelines"
HEAVY = ("pandas", "boto3", "google.cloud", "azure", "great_expectations", "groq", "scipy")
RETENTION_MONTHS = 60
CUSTOMERS = 200


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    from optiinfra_pipelines.definitions import defs

    return defs


def specs(defs: dg.Definitions) -> list[dg.AssetSpec]:
    return list(defs.resolve_all_asset_specs())


def test_the_location_loads_and_validates(defs: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(defs)


def test_each_folder_under_defs_is_the_group_of_its_assets(defs: dg.Definitions) -> None:
    folders = {path.parent.name for path in PACKAGE.glob("defs/*/assets.py")}
    groups = {spec.group_name for spec in specs(defs)}
    assert groups == folders


def test_each_folder_under_defs_says_how_it_is_operated() -> None:
    folders = [path for path in (PACKAGE / "defs").iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert folders
    assert [folder.name for folder in folders if not (folder / "README.md").exists()] == []


def test_each_raw_table_is_an_asset_under_its_own_name_with_its_contract(defs: dg.Definitions) -> None:
    by_key = {spec.key.to_user_string(): spec for spec in specs(defs)}
    for table in ALL_TABLES:
        spec = by_key[f"{table.schema}/{table.name}"]
        schema = spec.metadata["dagster/column_schema"]
        assert spec.metadata["dagster/table_name"] == table.full_name
        assert tuple(column.name for column in schema.columns) == table.column_names


def test_each_asset_says_what_a_row_is_and_who_owns_it(defs: dg.Definitions) -> None:
    silent = [spec.key.to_user_string() for spec in specs(defs) if not (spec.description or "").strip()]
    orphans = [spec.key.to_user_string() for spec in specs(defs) if not spec.owners]
    assert (silent, orphans) == ([], [])


def test_each_raw_table_has_a_contract_check(defs: dg.Definitions) -> None:
    checked = {
        key.asset_key.to_user_string()
        for key in defs.resolve_asset_graph().asset_check_keys
        if key.name.endswith("follows_contract")
    }
    assert checked == {f"{table.schema}/{table.name}" for table in ALL_TABLES}


def test_partitions_stay_within_their_budget() -> None:
    assert CUSTOMERS * RETENTION_MONTHS <= 50_000
    assert len(MONTHS.get_partition_keys()) <= RETENTION_MONTHS
    assert CUSTOMER_MONTHS.partition_dimension_names == ["customer", "month"]


def test_a_partition_key_names_the_customer_and_the_period() -> None:
    key = partition_key("acme_1", BillingPeriod("2026-10"))
    assert customer_and_period(str(key)) == ("acme_1", BillingPeriod("2026-10"))


def test_the_workspace_names_the_location_as_the_project_does() -> None:
    import tomllib

    import yaml

    workspace = yaml.safe_load((PACKAGE.parent / "workspace.yaml").read_text())
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    module = workspace["load_from"][0]["python_module"]
    assert module == {
        "module_name": project["code_location_target_module"],
        "location_name": project["code_location_name"],
    }


IMPORT = """
import json, resource, sys
cpu = lambda: (lambda r: r.ru_utime + r.ru_stime)(resource.getrusage(resource.RUSAGE_SELF))
start = cpu()
import {module}
print(json.dumps([cpu() - start, sorted(sys.modules)]))
"""


def imported(module: str, environment: dict[str, str] | None = None) -> tuple[float, list[str]]:
    ran = subprocess.run(
        [sys.executable, "-c", IMPORT.format(module=module)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    cpu, modules = json.loads(ran.stdout.splitlines()[-1])
    return cpu, modules


def test_importing_the_location_imports_no_heavy_library_and_reads_no_environment() -> None:
    _, modules = imported("optiinfra_pipelines.definitions", {"PATH": "/usr/bin:/bin"})
    assert [name for name in HEAVY if name in modules] == []


def test_importing_the_location_costs_at_most_three_times_the_import_of_dagster() -> None:
    location = min(imported("optiinfra_pipelines.definitions")[0] for _ in range(3))
    dagster = min(imported("dagster")[0] for _ in range(3))
    assert location <= 3 * dagster, f"{location:.2f} s of CPU against {dagster:.2f} s"
