"""The code location as Dagster sees it: it loads, it is complete, it costs little to import."""

import json
import subprocess
import sys
from collections.abc import Iterator
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
def locations() -> Iterator[list[dg.Definitions]]:
    from optiinfra_pipelines.definitions import defs as collecting
    from optiinfra_pipelines.marts_definitions import defs as marts

    with dg.instance_for_test():  # Dagster asks the newest instance for state while it resolves; others' are gone
        yield [collecting, marts]


@pytest.fixture(scope="module")
def specs(locations: list[dg.Definitions]) -> list[dg.AssetSpec]:
    """Every asset of both locations; what a location only depends on stands in the other."""
    found = {}
    for location in locations:
        for spec in location.resolve_all_asset_specs():
            if spec.group_name != "default":
                found[spec.key] = spec
    return list(found.values())


def test_both_locations_load_and_validate(locations: list[dg.Definitions]) -> None:
    for location in locations:
        dg.Definitions.validate_loadable(location)


def test_each_folder_under_defs_is_the_group_of_its_assets(specs: list[dg.AssetSpec]) -> None:
    folders = {path.parent.name for path in PACKAGE.glob("defs/*/assets.py")}
    groups = {spec.group_name for spec in specs}
    assert groups == folders


def test_each_folder_under_defs_says_how_it_is_operated() -> None:
    folders = [path for path in (PACKAGE / "defs").iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert folders
    assert [folder.name for folder in folders if not (folder / "README.md").exists()] == []


def test_each_raw_table_is_an_asset_under_its_own_name_with_its_contract(specs: list[dg.AssetSpec]) -> None:
    by_key = {spec.key.to_user_string(): spec for spec in specs}
    for table in ALL_TABLES:
        spec = by_key[f"{table.schema}/{table.name}"]
        schema = spec.metadata["dagster/column_schema"]
        assert spec.metadata["dagster/table_name"] == table.full_name
        assert tuple(column.name for column in schema.columns) == table.column_names


def test_each_asset_says_what_a_row_is_and_who_owns_it(specs: list[dg.AssetSpec]) -> None:
    silent = [spec.key.to_user_string() for spec in specs if not (spec.description or "").strip()]
    orphans = [spec.key.to_user_string() for spec in specs if not spec.owners]
    assert (silent, orphans) == ([], [])


def test_each_raw_table_has_a_contract_check(locations: list[dg.Definitions]) -> None:
    checked = {
        key.asset_key.to_user_string()
        for key in locations[0].resolve_asset_graph().asset_check_keys
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


def test_the_workspace_names_the_locations_as_the_project_does() -> None:
    import tomllib

    import yaml

    workspace = yaml.safe_load((PACKAGE.parent / "workspace.yaml").read_text())["load_from"]
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    collecting = {
        "module_name": project["code_location_target_module"],
        "location_name": project["code_location_name"],
    }
    assert [each["python_module"] for each in workspace] == [
        collecting,
        {"module_name": "optiinfra_pipelines.marts_definitions", "location_name": "optiinfra_marts"},
    ]


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
