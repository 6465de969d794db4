"""The marts of the small bills on each engine, at each step of one history of loads and dbt builds.

One history per engine serves every test of this folder: a dbt command takes seconds to start.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from optiinfra_pipelines.tables import ALL_TABLES
from optiinfra_pipelines.tables.cloud import INVENTORY
from optiinfra_pipelines.tables.operations import API_CALLS, COLLECTION_RUNS, CONNECTIONS
from optiinfra_pipelines.warehouse.clickhouse import ClickHouseWarehouse
from optiinfra_pipelines.warehouse.duckdb import DuckDBWarehouse
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines_tests.conftest import address_of, connect
from optiinfra_pipelines_tests.dbt_project.bills import load_all, load_wrongly, write_first, write_restated
from optiinfra_pipelines_tests.dbt_project.dbt_runs import Dbt
from optiinfra_pipelines_tests.dbt_project.scores import write_scores

Rows = list[dict[str, Any]]
NOW = datetime.now(UTC).replace(tzinfo=None)
SNAPSHOTS = (
    "staging.billing",
    "staging.rejected_rows",
    "staging.source_totals",
    "staging.billing_totals",
    "marts.costs_daily",
    "marts.provider_costs_monthly",
    "marts.invoice_reconciliation",
    "marts.billing_restatements",
    "marts.collection_health",
    "marts.api_spend_daily",
    "staging.inventory",
    "marts.application_metrics",
    "marts.application_quality_hourly",
    "marts.llm_scoring_daily",
)


@dataclass
class Target:
    """A warehouse, and the dbt project set to build in it."""

    warehouse: Warehouse
    dbt: Dbt

    def read(self, table: str) -> Rows:
        """The rows of `schema.table`, in an order that depends on their content alone."""
        schema, name = table.split(".")
        rows = self.warehouse.query(f"SELECT * FROM {self.warehouse.database(schema)}.{name}").to_pylist()
        return sorted(rows, key=repr)

    def execute(self, statement: str) -> None:
        """Run a statement that no part of the project would run; {marts} and {raw} stand for those schemas."""
        named = statement.format(marts=self.warehouse.database("marts"), raw=self.warehouse.database("raw"))
        if isinstance(self.warehouse, DuckDBWarehouse):
            with duckdb.connect(str(self.warehouse.path)) as con:
                con.execute(named)
        else:
            variables = self.dbt.environment
            host, port = variables["OPTIINFRA_CLICKHOUSE_HOST"], variables["OPTIINFRA_CLICKHOUSE_PORT"]
            with connect(f"http://{host}:{port}") as client:
                client.command(named)


@dataclass
class History:
    """What readers saw after each step.

    first: built from nothing. killed: two months restated, and a dbt run killed while it built. restated: built after
    that, and after a row of a month that did not change was lost from the mart. refreshed: built with --full-refresh.
    """

    target: Target
    after: dict[str, dict[str, Rows]] = field(default_factory=dict)
    tests: dict[str, str] = field(default_factory=dict)  # of the first build: name -> pass, warn or fail

    def snapshot(self, step: str) -> None:
        """Keep what readers see now."""
        self.after[step] = {name: self.target.read(name) for name in SNAPSHOTS}


@pytest.fixture(scope="package")
def duckdb_target(duckdb_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Target:
    """An embedded warehouse with empty tables."""
    folder = tmp_path_factory.mktemp("dbt_duckdb")
    path = folder / "warehouse.duckdb"
    path.write_bytes(duckdb_template.read_bytes())
    environment = {"OPTIINFRA_DBT_TARGET": "duckdb", "OPTIINFRA_DUCKDB_PATH": str(path)}
    return Target(DuckDBWarehouse(path, run_id="run-1"), Dbt(environment, folder))


@pytest.fixture(scope="package")
def clickhouse_target(clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The test process's ClickHouse server with empty tables and, in the end, without dbt's databases."""
    address = address_of(clickhouse_url)
    warehouse = ClickHouseWarehouse(address, run_id="run-1")
    environment = {
        "OPTIINFRA_DBT_TARGET": "clickhouse",
        "OPTIINFRA_CLICKHOUSE_HOST": address.host,
        "OPTIINFRA_CLICKHOUSE_PORT": str(address.port),
        "OPTIINFRA_CLICKHOUSE_USER": address.user,
        "OPTIINFRA_CLICKHOUSE_PASSWORD": address.password.get_secret_value(),
        "OPTIINFRA_CLICKHOUSE_SECURE": str(address.secure).lower(),
        "OPTIINFRA_RUN_ID": "run-7",
    }
    with connect(clickhouse_url) as client:
        for table in ALL_TABLES:
            client.command(f"TRUNCATE TABLE {warehouse.name(table)}")
        yield Target(warehouse, Dbt(environment, tmp_path_factory.mktemp("dbt_clickhouse")))
        for schema in ("staging", "marts"):
            client.command(f"DROP DATABASE IF EXISTS {warehouse.database(schema)}")


@pytest.fixture(scope="package")
def duckdb_history(duckdb_target: Target, tmp_path_factory: pytest.TempPathFactory) -> History:
    """The history in DuckDB."""
    return _make_history(duckdb_target, tmp_path_factory.mktemp("bills_duckdb"))


@pytest.fixture(scope="package")
def clickhouse_history(clickhouse_target: Target, tmp_path_factory: pytest.TempPathFactory) -> History:
    """The history in ClickHouse."""
    return _make_history(clickhouse_target, tmp_path_factory.mktemp("bills_clickhouse"))


@pytest.fixture(scope="package", params=["duckdb", "clickhouse"])
def history(request: pytest.FixtureRequest) -> History:
    """The history on one engine and then on the other."""
    return request.getfixturevalue(f"{request.param}_history")


def _make_history(target: Target, folder: Path) -> History:
    history = History(target)
    write_first(folder)
    load_all(target.warehouse, folder)
    load_wrongly(target.warehouse)
    _collect(target.warehouse)
    write_scores(target.warehouse)
    target.dbt.run("build")
    history.tests = target.dbt.test_results()
    history.snapshot("first")
    write_restated(folder)
    load_all(target.warehouse, folder)
    _kill_while_building(target.dbt, "costs_daily")
    history.snapshot("killed")
    target.execute("DELETE FROM {marts}.costs_daily WHERE charge_category = 'Tax'")
    target.dbt.run("build")
    history.snapshot("restated")
    target.dbt.run("run", "--full-refresh")
    history.snapshot("refreshed")
    return history


def _kill_while_building(dbt: Dbt, model: str) -> None:
    process = dbt.start("run")
    assert process.stdout is not None
    with process.stdout:
        begun = any("START" in line and model in line for line in process.stdout)
        process.kill()
    process.wait()
    assert begun, f"dbt run ended before it began to build {model}"


def _collect(warehouse: Warehouse) -> None:
    connections = [
        {"customer_id": "acme", "connection_id": "aws-main", "provider": "aws", "collects": "billing,metrics"},
        {"customer_id": "acme", "connection_id": "saas", "provider": "focus", "collects": "billing"},
        {"customer_id": "acme", "connection_id": "gcp-api", "provider": "gcp", "collects": "inventory,metrics"},
    ]
    rows = [each | {"active": True, "collected_at": NOW} for each in connections]
    warehouse.upsert(CONNECTIONS, pa.Table.from_pylist(rows, schema=CONNECTIONS.arrow_schema))
    october, september = datetime(2026, 10, 1), datetime(2026, 9, 1)
    attempts = [
        _attempt("acme", "aws-main", october, hours_ago=50, status="succeeded", rows=13, rows_rejected=2),
        _attempt("acme", "aws-main", october, hours_ago=26, status="failed", error_kind="throttled", error="slow down"),
        _attempt("acme", "aws-main", september, hours_ago=25, status="unchanged"),
        _attempt("acme", "aws-main", october, hours_ago=2, status="failed", error_kind="auth", error="key expired"),
        _attempt("acme", "saas", september, hours_ago=2, status="failed", error_kind="malformed", error="no header"),
        _attempt("acme", "saas", october, hours_ago=1, status="failed", error_kind="malformed", error="no header"),
        _attempt("beta", "left", october, hours_ago=100, status="succeeded", rows=5),
    ]
    warehouse.append(COLLECTION_RUNS, pa.Table.from_pylist(attempts, schema=COLLECTION_RUNS.arrow_schema))
    _collect_inventory(warehouse)


EARLIER, LATER = datetime(2026, 11, 20, 10, 0), datetime(2026, 11, 20, 10, 15)


def _collect_inventory(warehouse: Warehouse) -> None:
    """A listing that came whole, and a later one of which the volumes and one zone did not come."""
    whole, partial = {"rows": 6}, {"rows": 1, "error_kind": "auth", "error": "volumes are denied"}
    attempts = [
        _attempt("acme", "gcp-api", EARLIER, hours_ago=2, status="succeeded", kind="inventory", **whole),
        _attempt("acme", "gcp-api", LATER, hours_ago=1, status="failed", kind="inventory", **partial),
    ]
    warehouse.append(COLLECTION_RUNS, pa.Table.from_pylist(attempts, schema=COLLECTION_RUNS.arrow_schema))
    resources = [
        _resource("still-there", "machine", "a", LATER),
        _resource("deleted-since", "machine", "a", EARLIER),
        _resource("in-a-zone-that-failed", "machine", "b", EARLIER),
        _resource("of-a-list-that-failed", "volume", "a", EARLIER),
        _resource("deleted-long-ago", "snapshot", "a", EARLIER - timedelta(minutes=15)),
        _resource("of-a-connection-that-left", "machine", "a", LATER) | {"connection_id": "left"},
    ]
    warehouse.upsert(INVENTORY["gcp"], pa.Table.from_pylist(resources, schema=INVENTORY["gcp"].arrow_schema))
    call = {"customer_id": "acme", "provider": "gcp", "connection_id": "gcp-api", "kind": "metrics", "run_id": "run-1"}
    call |= {"service": "monitoring", "operation": "timeSeries.list"}
    calls = [
        {**call, "calls": 25, "units": 10, "price": Decimal("0.000005"), "called_at": NOW},
        {**call, "calls": 2, "units": 4, "price": Decimal("0.000002"), "called_at": NOW},
        {**call, "calls": 9, "units": 9, "price": Decimal(1), "called_at": NOW - timedelta(days=1)},
    ]
    warehouse.append(API_CALLS, pa.Table.from_pylist(calls, schema=API_CALLS.arrow_schema))


def _resource(name: str, resource_type: str, zone: str, seen_at: datetime) -> dict[str, Any]:
    return {
        "customer_id": "acme",
        "provider": "gcp",
        "connection_id": "gcp-api",
        "account_id": "acme-prod",
        "snapshot_day": datetime(2026, 11, 20),
        "snapshot_at": seen_at,
        "resource_id": name,
        "resource_type": resource_type,
        "region": "europe-west1",
        "zone": zone,
        "tags": "{}",
        "details": "{}",
        "source": "test",
        "collected_at": seen_at,
    }


def _attempt(
    customer_id: str, connection_id: str, period: datetime, *, hours_ago: int, **result: Any
) -> dict[str, Any]:
    attempt = {
        "customer_id": customer_id,
        "connection_id": connection_id,
        "provider": "aws",
        "kind": "billing",
        "window_start": period,
        "window_end": period + timedelta(days=31),
        "rows": 0,
        "rows_rejected": 0,
        "duration_seconds": 1.0,
        "run_id": "run-1",
        "started_at": NOW - timedelta(hours=hours_ago),
    }
    return attempt | result
