"""When billing runs: which months of which customers each tick asks for, and what it leaves out."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
import yaml

from optiinfra_pipelines.defs.partitions import partition_key
from optiinfra_pipelines.defs.schedules import billing_schedule, customers_sensor, restated_bills_sensor
from optiinfra_pipelines.defs.warehouse_resource import CustomersResource, WarehouseResource
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.windows import BillingPeriod

HEADER = (
    "BilledCost,BillingCurrency,BillingPeriodStart,BillingPeriodEnd,ChargePeriodStart,ChargePeriodEnd,ChargeCategory"
)
ROW = "1.50,USD,2026-09-01,2026-10-01,2026-09-02,2026-09-03,Usage"
CUSTOMERS = """
customers:
  - id: acme
    name: Acme
    connections:
      - {id: files, provider: focus, collect: [billing], billing: {location: bills}}
  - id: globex
    name: Globex
    connections:
      - {id: export, provider: aws, collect: [billing], billing: {location: export, layout: aws_cur}}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "customers.yaml").write_text(CUSTOMERS)
    month = tmp_path / "bills" / "2026-09"
    month.mkdir(parents=True)
    (month / "part.csv").write_text(f"{HEADER}\n{ROW}\n")
    (tmp_path / "export").mkdir()
    monkeypatch.setenv("OPTIINFRA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPTIINFRA_CUSTOMERS", str(tmp_path / "customers.yaml"))
    return tmp_path


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


def asked(instance: dg.DagsterInstance, tick: datetime) -> list[tuple[str, list[str]]]:
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=tick)
    requests = list(billing_schedule(context, customers=CustomersResource()))
    return [(str(each.partition_key), [key.to_user_string() for key in each.asset_selection]) for each in requests]


def test_early_in_a_month_the_previous_one_is_collected_again(home: Path, instance: dg.DagsterInstance) -> None:
    assert asked(instance, datetime(2026, 11, 10, 23, 5, tzinfo=UTC)) == [
        ("acme|2026-11-01", ["raw/focus_billing"]),
        ("acme|2026-10-01", ["raw/focus_billing"]),
        ("globex|2026-11-01", ["raw/aws_billing"]),
        ("globex|2026-10-01", ["raw/aws_billing"]),
    ]


def test_later_in_a_month_only_the_current_one_is(home: Path, instance: dg.DagsterInstance) -> None:
    months = [key for key, _ in asked(instance, datetime(2026, 11, 11, 0, 5, tzinfo=UTC))]
    assert months == ["acme|2026-11-01", "globex|2026-11-01"]


def test_a_month_whose_run_is_still_going_is_left_out(home: Path, instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("customer", ["acme"])
    going = {"customer": "acme", "dagster/partition": str(partition_key("acme", BillingPeriod("2026-11")))}
    instance.add_run(
        dg.DagsterRun(job_name="billing_job", run_id=dg.DagsterRun(job_name="x").run_id, tags=going).with_status(
            dg.DagsterRunStatus.STARTED
        )
    )
    months = [key for key, _ in asked(instance, datetime(2026, 11, 21, 0, 5, tzinfo=UTC))]
    assert months == ["globex|2026-11-01"]


def test_the_same_tick_asks_under_the_same_key_and_the_next_one_under_another(
    home: Path, instance: dg.DagsterInstance
) -> None:
    def keys(minute: int) -> list[str | None]:
        tick = datetime(2026, 11, 21, 0, minute, tzinfo=UTC)
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=tick)
        return [each.run_key for each in billing_schedule(context, customers=CustomersResource())]

    assert keys(5) == keys(5)
    assert set(keys(5)).isdisjoint(keys(6))


def restated(instance: dg.DagsterInstance) -> list[str]:
    context = dg.build_sensor_context(instance=instance)
    requests = restated_bills_sensor(context, customers=CustomersResource(), warehouse=WarehouseResource())
    return [str(each.partition_key) for each in requests if isinstance(each, dg.RunRequest)]


def test_a_bill_that_was_never_loaded_is_asked_for_until_it_is_and_again_when_its_file_changes(
    home: Path, instance: dg.DagsterInstance
) -> None:
    from optiinfra_pipelines.clouds.billing import collect_billing
    from optiinfra_pipelines.customers import load_customers
    from optiinfra_pipelines.tables.billing import FOCUS_BILLING

    assert restated(instance) == ["acme|2026-09-01"]
    acme = load_customers(home / "customers.yaml").customer("acme")
    collect_billing(WarehouseResource().open(), Settings(), FOCUS_BILLING, acme, BillingPeriod("2026-09"))
    assert restated(instance) == []
    (home / "bills" / "2026-09" / "part.csv").write_text(f"{HEADER}\n{ROW}\n{ROW}\n")
    assert restated(instance) == ["acme|2026-09-01"]


def test_a_customer_whose_bills_cannot_be_listed_does_not_hide_the_others(
    home: Path, instance: dg.DagsterInstance
) -> None:
    manifest = home / "export" / "20260901-20261001"
    manifest.mkdir()
    (manifest / "report-Manifest.json").write_text("{ not JSON")
    broken_first = {"customers": yaml.safe_load(CUSTOMERS)["customers"][::-1]}
    (home / "customers.yaml").write_text(yaml.safe_dump(broken_first))
    assert restated(instance) == ["acme|2026-09-01"]


def test_new_customers_become_partitions_and_gone_ones_keep_theirs(home: Path, instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("customer", ["gone", "acme"])
    context = dg.build_sensor_context(instance=instance)
    result = customers_sensor(context, customers=CustomersResource())
    (request,) = result.dynamic_partitions_requests
    assert list(request.partition_keys) == ["globex"]
