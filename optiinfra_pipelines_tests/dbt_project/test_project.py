"""The dbt project as dbt and Dagster read it, and as it describes itself in the warehouse."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetKey, AssetsDefinition
from dagster_dbt import dbt_assets

from optiinfra_pipelines.tables import ALL_TABLES, BILLING_TABLES
from optiinfra_pipelines.tables.focus import FOCUS_1_2
from optiinfra_pipelines.warehouse.duckdb import DuckDBWarehouse
from optiinfra_pipelines_tests.dbt_project.conftest import History
from optiinfra_pipelines_tests.dbt_project.dbt_runs import PROJECT, Dbt

pytestmark = pytest.mark.xdist_group("dbt")

MODELS = {
    "staging": [
        "billing",
        "billing_totals",
        "inventory",
        "llm_interactions",
        "loads",
        "metrics",
        "prices",
        "rejected_rows",
        "source_totals",
    ],
    "marts": [
        "api_spend_daily",
        "application_metrics",
        "application_quality_hourly",
        "billing_restatements",
        "collection_health",
        "costs_daily",
        "focus_1_2",
        "invoice_reconciliation",
        "llm_scoring_daily",
        "provider_costs_monthly",
    ],
}


@pytest.fixture
def manifest(history: History) -> dict[str, Any]:
    """What dbt made of the project when it built the engine's marts."""
    content: dict[str, Any] = json.loads((history.target.dbt.folder / "target" / "manifest.json").read_text())
    return content


def assets_of(manifest: dict[str, Any]) -> AssetsDefinition:
    """The project as Dagster's own defaults name it."""

    @dbt_assets(manifest=manifest)
    def derived() -> Iterator[Any]:
        yield from ()

    return derived


def test_the_project_parses_without_a_warning_when_nothing_is_set(tmp_path: Path) -> None:
    Dbt({}, tmp_path).run("--warn-error", "parse")
    manifest = json.loads((tmp_path / "target" / "manifest.json").read_text())
    assert manifest["metadata"]["adapter_type"] == "duckdb"


def test_asset_keys_are_schema_and_table_on_every_engine(manifest: dict[str, Any]) -> None:
    derived = assets_of(manifest)
    assert derived.keys == {AssetKey([schema, name]) for schema, names in MODELS.items() for name in names}
    sources = {key for key in derived.dependency_keys if key.path[0] == "raw"}
    assert {AssetKey(["raw", table.name]) for table in ALL_TABLES if table.schema == "raw"} == sources


def test_every_dbt_test_is_a_check_of_an_asset(manifest: dict[str, Any]) -> None:
    tests = {node["name"] for node in manifest["nodes"].values() if node["resource_type"] == "test"}
    assert {key.name for key in assets_of(manifest).check_keys} == tests
    assert "costs_daily_conserves_billing" in tests


def test_schemas_are_prefixed_on_clickhouse_only(manifest: dict[str, Any]) -> None:
    prefix = "optiinfra_" if manifest["metadata"]["adapter_type"] == "clickhouse" else ""
    nodes = [*manifest["nodes"].values(), *manifest["sources"].values()]
    schemas = {node["schema"] for node in nodes if node["resource_type"] in ("model", "source")}
    assert schemas == {f"{prefix}{name}" for name in ("raw", "quality", "staging", "marts")}


def test_every_model_and_column_is_described(manifest: dict[str, Any]) -> None:
    for node in manifest["nodes"].values():
        if node["resource_type"] == "model":
            assert node["description"].startswith("One row"), node["name"]
            assert node["raw_code"].startswith("-- one row"), node["name"]
            assert node["columns"], node["name"]
            assert all(column["description"] for column in node["columns"].values()), node["name"]


def test_the_files_made_from_contracts_are_up_to_date() -> None:
    path = PROJECT / "contracts_to_yaml.py"
    spec = importlib.util.spec_from_file_location("contracts_to_yaml", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    stale = [name for name, content in module.files().items() if (PROJECT / name).read_text() != content]
    assert not stale, f"run python dbt_project/contracts_to_yaml.py: {stale}"


def test_every_billing_table_is_in_staging_billing() -> None:
    macro = (PROJECT / "macros" / "loads.sql").read_text()
    listed = [line.strip(" ',") for line in macro.splitlines() if line.startswith("        '")]
    assert listed == [table.name for table in BILLING_TABLES]


def test_models_have_the_columns_that_they_describe(history: History, manifest: dict[str, Any]) -> None:
    target = history.target
    for node in manifest["nodes"].values():
        if node["resource_type"] == "model":
            schema = target.warehouse.database(node["config"]["schema"])
            empty = target.warehouse.query(f"SELECT * FROM {schema}.{node['name']} LIMIT 0")
            assert empty.schema.names == list(node["columns"]), node["name"]


def test_focus_1_2_has_the_columns_of_focus_1_2(history: History) -> None:
    marts = history.target.warehouse.database("marts")
    names = history.target.warehouse.query(f"SELECT * FROM {marts}.focus_1_2 LIMIT 0").schema.names
    assert names == [*(column.name for column in FOCUS_1_2), "x_customer_id", "x_provider", "x_connection_id"]


def test_descriptions_are_kept_in_the_embedded_warehouse(duckdb_history: History) -> None:
    found = duckdb_history.target.warehouse.query(
        "SELECT comment FROM duckdb_columns() WHERE schema_name = 'marts' AND column_name = 'charge_day'"
    ).to_pylist()
    assert [row["comment"] for row in found] == [
        "UTC day of ChargePeriodStart. A charge that spans more than a day stays on its first."
    ]


def test_a_copy_of_the_embedded_warehouse_works_under_another_name(duckdb_history: History, tmp_path: Path) -> None:
    count = "SELECT count(*) AS n FROM marts.focus_1_2"
    warehouse = duckdb_history.target.warehouse
    copy = tmp_path / "copy.duckdb"
    copy.write_bytes(Path(duckdb_history.target.dbt.environment["OPTIINFRA_DUCKDB_PATH"]).read_bytes())
    assert DuckDBWarehouse(copy).query(count) == warehouse.query(count)


def test_clickhouse_knows_which_run_sent_a_statement(clickhouse_history: History) -> None:
    found = clickhouse_history.target.warehouse.query(
        "SELECT DISTINCT log_comment FROM system.query_log"
        " WHERE query LIKE '%costs_daily%' AND log_comment LIKE '%dbt%'"
    )
    assert [json.loads(text) for text in found["log_comment"].to_pylist()] == [
        {"app": "optiinfra_dbt", "run_id": "run-7"}
    ]
