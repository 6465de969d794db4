"""The collecting jobs as Dagster runs them on the sandbox's clouds: what they bring, judge and hide."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import httpx
import pytest
import yaml

from optiinfra_pipelines.defs.partitions import day_key, partition_key
from optiinfra_pipelines.defs.schedules import collection_schedule, prices_schedule
from optiinfra_pipelines.defs.warehouse_resource import CustomersResource, WarehouseResource
from optiinfra_pipelines.sandbox.clouds import Clouds, serve_clouds
from optiinfra_pipelines.sandbox.fleet import FLEET_CLOUDS, Fleet
from optiinfra_pipelines.sandbox.gate import FAULTS_PATH
from optiinfra_pipelines.settings import load_settings
from optiinfra_pipelines.tables import ALL_TABLES
from optiinfra_pipelines.warehouse import open_warehouse
from optiinfra_pipelines.windows import DAY, BillingPeriod

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def clouds() -> Iterator[Clouds]:
    with serve_clouds(Fleet(NOW.date(), clouds=FLEET_CLOUDS)) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clouds: Clouds) -> Path:
    for name, value in clouds.environment().items():
        monkeypatch.setenv(name, value)
    content = [{"id": each, "name": each, "connections": clouds.connections(each)} for each in clouds.fleet.customers]
    (tmp_path / "customers.yaml").write_text(yaml.safe_dump({"customers": content}))
    monkeypatch.setenv("OPTIINFRA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPTIINFRA_CUSTOMERS", str(tmp_path / "customers.yaml"))
    monkeypatch.setenv("OPTIINFRA_API_ATTEMPTS", "1")
    monkeypatch.setenv("OPTIINFRA_API_TIMEOUT", "5")
    yield tmp_path
    for url in clouds.urls.values():
        httpx.delete(url + FAULTS_PATH)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("customer", ["acme", "globex"])
        yield instance


def run(instance: dg.DagsterInstance, job_name: str, key: dg.MultiPartitionKey) -> dg.ExecuteInProcessResult:
    from optiinfra_pipelines.definitions import defs

    job = defs.resolve_job_def(job_name)
    return job.execute_in_process(instance=instance, partition_key=key, raise_on_error=False)


def test_a_tick_brings_every_cloud_and_every_check_passes(home: Path, instance: dg.DagsterInstance) -> None:
    result = run(instance, "collection_job", day_key("acme", NOW))
    assert result.success
    assert [each.check_name for each in result.get_asset_check_evaluations() if not each.passed] == []
    counted = {
        event.asset_key.path[-1]: event.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }
    assert {name for name, metadata in counted.items() if metadata["rows_written"].value} >= {
        f"{cloud}_inventory" for cloud in FLEET_CLOUDS
    }
    again = run(instance, "collection_job", day_key("acme", NOW))
    assert again.success


def test_no_secret_stands_in_a_log_an_event_an_error_or_the_warehouse(
    home: Path,
    instance: dg.DagsterInstance,
    clouds: Clouds,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Runs that succeed, runs that are refused and runs that break, at every level of logging."""
    caplog.set_level(logging.DEBUG)
    run(instance, "collection_job", day_key("acme", NOW))
    run(instance, "prices_job", day_key("acme", NOW))
    run(instance, "billing_job", partition_key("acme", BillingPeriod.of(NOW)))
    for fault, customer in (({"status": 403}, "globex"), ({"kind": "cut"}, "acme")):
        for url in clouds.urls.values():
            httpx.post(url + FAULTS_PATH, json={**fault, "times": 25}).raise_for_status()
        run(instance, "backfill_job", day_key(customer, NOW - DAY))
        run(instance, "billing_job", partition_key(customer, BillingPeriod.of(NOW)))
    said = capfd.readouterr()
    events = [
        str(entry)
        for record in instance.get_run_records(limit=100)
        for entry in instance.all_logs(record.dagster_run.run_id)
    ]
    warehouse = open_warehouse(load_settings())
    held = [str(warehouse.query(f"SELECT * FROM {warehouse.name(table)} t").to_pylist()) for table in ALL_TABLES]
    secrets = [value for value in clouds.environment().values() if "canary" in value]
    assert len(secrets) >= len(FLEET_CLOUDS)
    searched = [said.out, said.err, caplog.text, *events, *held]
    assert sum(map(len, held)) > 100_000
    assert len(events) > 100
    assert [secret[:20] for secret in secrets for text in searched if secret in text] == []


def test_each_quarter_of_an_hour_a_customer_gets_one_run_of_what_its_connections_deliver(
    home: Path, instance: dg.DagsterInstance
) -> None:
    def asked(tick: datetime) -> list[tuple[str, int]]:
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=tick)
        requests = list(collection_schedule(context, customers=CustomersResource(), warehouse=WarehouseResource()))
        return [(str(each.partition_key), len(each.asset_selection)) for each in requests]

    noon, early = datetime(2026, 11, 20, 12, 15, tzinfo=UTC), datetime(2026, 11, 20, 0, 15, tzinfo=UTC)
    assert asked(noon) == [("acme|2026-11-20", 8), ("globex|2026-11-20", 8)]
    assert asked(early) == [
        ("acme|2026-11-20", 8),
        ("acme|2026-11-19", 4),
        ("globex|2026-11-20", 8),
        ("globex|2026-11-19", 4),
    ]


def test_prices_are_asked_for_once_a_day(home: Path, instance: dg.DagsterInstance) -> None:
    context = dg.build_schedule_context(
        instance=instance, scheduled_execution_time=datetime(2026, 11, 20, 3, 20, tzinfo=UTC)
    )
    requests = list(prices_schedule(context, customers=CustomersResource()))
    assert [str(each.partition_key) for each in requests] == ["acme|2026-11-20", "globex|2026-11-20"]
    assert {len(each.asset_selection) for each in requests} == {4}
