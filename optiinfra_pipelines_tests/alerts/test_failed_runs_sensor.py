import os
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_dbt import DbtCliResource, dbt_assets

from optiinfra_pipelines.alerts.notifier import DeliveryError
from optiinfra_pipelines.defs.alerts.sensors import failed_checks_sensor, failed_runs_sensor
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines_tests.alerts.conftest import Ticks, Webhook

REASON = "billing export s3://acme-bills/focus has no manifest for 2026-10; check the export's overwrite setting"


@pytest.fixture
def ticks(instance: dg.DagsterInstance, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> Ticks:
    monkeypatch.setenv("OPTIINFRA_ALERT_URLS", webhook.url())
    return Ticks(failed_runs_sensor, instance)


def collect(instance: dg.DagsterInstance, *failing: str, customer: str = "acme") -> str:
    """One run over two raw tables for a customer; the tables named in `failing` raise."""

    def table(name: str) -> dg.AssetsDefinition:
        @dg.asset(key=["raw", name])
        def collected() -> None:
            if name in failing:
                raise CollectionError("malformed", REASON)

        return collected

    return dg.materialize(
        [table("aws_billing"), table("gcp_billing")],
        instance=instance,
        tags={"customer": customer},
        raise_on_error=False,
    ).run_id


def test_a_failed_run_names_customer_provider_asset_reason_and_link(ticks: Ticks, webhook: Webhook):
    run_id = collect(ticks.instance, "aws_billing")
    assert ticks.tick() == "1 alerts sent"
    (message,) = webhook.accepted
    assert message["title"] == "ERROR: raw.aws_billing run failed (acme, aws)"
    assert f"CollectionError: {REASON}" in message["message"]
    assert "optiinfra_pipelines.errors" not in message["message"]
    assert f"https://dagster.example/runs/{run_id}" in message["message"]


def test_the_same_failure_of_a_job_is_told_once_and_the_first_success_after_it_once(ticks: Ticks, webhook: Webhook):
    for _ in range(3):
        collect(ticks.instance, "aws_billing")
    ticks.tick()
    collect(ticks.instance)
    collect(ticks.instance)
    ticks.tick()
    ticks.tick()
    assert [title.split()[0] for title in webhook.titles] == ["ERROR:", "OK:"]


def test_another_step_that_fails_is_another_failure(ticks: Ticks, webhook: Webhook):
    collect(ticks.instance, "aws_billing")
    ticks.tick()
    collect(ticks.instance, "aws_billing", "gcp_billing")
    ticks.tick()
    assert webhook.titles == [
        "ERROR: raw.aws_billing run failed (acme, aws)",
        "ERROR: raw.aws_billing, raw.gcp_billing run failed (acme, all providers)",
    ]


def test_one_customers_success_is_not_another_ones_recovery(ticks: Ticks, webhook: Webhook):
    collect(ticks.instance, "aws_billing", customer="acme")
    collect(ticks.instance, customer="globex")
    assert ticks.tick() == "1 alerts sent"
    assert webhook.titles == ["ERROR: raw.aws_billing run failed (acme, aws)"]


def test_an_exception_inside_a_check_is_a_failed_run(ticks: Ticks, webhook: Webhook):
    @dg.asset(key=["raw", "aws_billing"])
    def aws_billing() -> None: ...

    @dg.asset_check(asset=aws_billing)
    def costs_are_usual() -> dg.AssetCheckResult:
        raise ZeroDivisionError("no baseline")

    dg.materialize([aws_billing, costs_are_usual], instance=ticks.instance, raise_on_error=False)
    ticks.tick()
    assert webhook.titles == ["ERROR: raw__aws_billing_costs_are_usual run failed (all customers, all providers)"]
    assert "ZeroDivisionError: no baseline" in webhook.accepted[0]["message"]


def test_a_run_that_fails_by_a_blocking_check_and_by_an_error_is_told_for_the_error(ticks: Ticks, webhook: Webhook):
    spec = dg.AssetCheckSpec("rows_conform", asset=dg.AssetKey(["raw", "aws_billing"]), blocking=True)

    @dg.asset(key=["raw", "aws_billing"], check_specs=[spec])
    def aws_billing() -> dg.MaterializeResult:
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(check_name="rows_conform", passed=False)])

    @dg.asset(key=["raw", "gcp_billing"])
    def gcp_billing() -> None:
        raise CollectionError("auth", "the key was refused")

    dg.materialize([aws_billing, gcp_billing], instance=ticks.instance, raise_on_error=False)
    ticks.tick()
    Ticks(failed_checks_sensor, ticks.instance).tick()
    assert webhook.titles == [
        "ERROR: raw.gcp_billing run failed (all customers, gcp)",
        "ERROR: rows_conform failed on raw.aws_billing (all customers, aws)",
    ]


def test_a_blocking_dbt_test_is_told_by_its_run_and_not_by_the_check(ticks: Ticks, webhook: Webhook):
    spec = dg.AssetCheckSpec("unique_id", asset=dg.AssetKey(["marts", "costs_daily"]), blocking=True)

    @dg.asset(key=["marts", "costs_daily"], check_specs=[spec])
    def costs_daily() -> dg.MaterializeResult:
        by_dbt = dg.AssetCheckResult(check_name="unique_id", passed=False, metadata={"unique_id": "test.p.unique_id"})
        return dg.MaterializeResult(check_results=[by_dbt])

    dg.materialize([costs_daily], instance=ticks.instance, raise_on_error=False)
    assert ticks.tick() == "1 alerts sent"
    assert Ticks(failed_checks_sensor, ticks.instance).tick() == "0 alerts sent"
    assert webhook.titles == ["ERROR: marts.costs_daily run failed (all customers, all providers)"]


def unstarted(instance: dg.DagsterInstance) -> dg.DagsterRun:
    @dg.job
    def billing_job() -> None: ...

    return instance.create_run_for_job(billing_job, tags={"customer": "acme"})


def test_a_run_that_never_started_is_told_with_the_daemons_reason(ticks: Ticks, webhook: Webhook):
    ticks.instance.report_run_failed(unstarted(ticks.instance), "code location cannot be reached")
    ticks.tick()
    assert webhook.titles == ["ERROR: job billing_job run failed (acme, all providers)"]
    assert "code location cannot be reached" in webhook.accepted[0]["message"]


def test_a_cancelled_run_is_nobodys_failure(ticks: Ticks, webhook: Webhook):
    ticks.instance.report_run_canceled(unstarted(ticks.instance))
    assert ticks.tick() == "0 alerts sent"
    assert not webhook.accepted


def test_a_failed_run_is_told_after_a_server_error_all_the_same(ticks: Ticks, webhook: Webhook):
    ticks.tick()
    webhook.status = 503
    collect(ticks.instance, "aws_billing")
    with pytest.raises(DeliveryError):
        ticks.tick()
    collect(ticks.instance, "aws_billing")
    webhook.status = 200
    assert ticks.tick() == "1 alerts sent"
    assert ticks.tick() == "0 alerts sent"
    assert webhook.titles == ["ERROR: raw.aws_billing run failed (acme, aws)"]


def test_a_success_that_follows_no_failure_is_silent(ticks: Ticks, webhook: Webhook):
    collect(ticks.instance)
    assert ticks.tick() == "0 alerts sent"


MODEL = "select 1 as id union all select 1 as id"
TESTS = """
models:
  - name: costs_daily
    columns:
      - name: id
        data_tests:
          - unique
          - accepted_values: {arguments: {values: [2]}, config: {severity: warn}}
"""


@pytest.fixture
def dbt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DbtCliResource:
    """A dbt project of one model, one error-severity test and one warn-severity test, on DuckDB in memory."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DBT_SEND_ANONYMOUS_USAGE_STATS", "false")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/costs_daily.sql").write_text(MODEL)
    (tmp_path / "models/costs_daily.yml").write_text(TESTS)
    (tmp_path / "dbt_project.yml").write_text("{name: p, version: '1.0', profile: p, models: {p: {+schema: marts}}}")
    (tmp_path / "profiles.yml").write_text("p: {target: d, outputs: {d: {type: duckdb, path: ':memory:'}}}")
    resource = DbtCliResource(project_dir=os.fspath(tmp_path))
    resource.cli(["parse"], target_path=tmp_path / "target").wait()
    return resource


def test_a_failed_dbt_test_is_told_by_the_run_if_it_is_an_error_and_by_the_check_if_it_is_a_warning(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch, dbt: DbtCliResource, tmp_path: Path
):
    monkeypatch.setenv("OPTIINFRA_ALERT_URLS", webhook.url())

    @dbt_assets(manifest=tmp_path / "target/manifest.json")
    def marts(context: dg.AssetExecutionContext, dbt: DbtCliResource) -> Any:
        yield from dbt.cli(["build"], context=context).stream()

    with dg.instance_for_test() as instance:
        dg.materialize([marts], instance=instance, resources={"dbt": dbt}, raise_on_error=False)
        Ticks(failed_runs_sensor, instance).tick()
        Ticks(failed_checks_sensor, instance).tick()
    assert webhook.titles == [
        "ERROR: marts.costs_daily run failed (all customers, all providers)",
        "WARN: accepted_values_costs_daily_id__2 failed on marts.costs_daily (all customers, all providers)",
    ]
    assert "FAIL 1 unique_costs_daily_id" in webhook.accepted[0]["message"]
    assert "failed_row_count = 1" in webhook.accepted[1]["message"]
