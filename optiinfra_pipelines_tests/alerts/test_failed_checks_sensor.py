from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pytest

from optiinfra_pipelines.alerts.notifier import DeliveryError
from optiinfra_pipelines.defs.alerts.sensors import failed_checks_sensor, failed_runs_sensor
from optiinfra_pipelines_tests.alerts.conftest import Ticks, Webhook

ACME = dg.MultiPartitionKey({"customer": "acme", "month": "2026-10-01"})
GLOBEX = dg.MultiPartitionKey({"customer": "globex", "month": "2026-10-01"})
BILLS = dg.MultiPartitionsDefinition(
    {
        "customer": dg.DynamicPartitionsDefinition(name="customer"),
        "month": dg.MonthlyPartitionsDefinition("2026-08-01", end_offset=12),
    }
)
KEY = ["raw", "aws_billing"]


@dataclass
class Verdict:
    """What the checks of the next run will say."""

    passed: bool = False
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
    metadata: dict[str, Any] = field(default_factory=dict)

    def result(self, name: str) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(
            check_name=name, passed=self.passed, severity=self.severity, metadata=self.metadata, description="two off"
        )


def bill(verdict: Verdict, *, blocking: bool = False, partitions: dg.PartitionsDefinition | None = None):
    """The asset raw.aws_billing with a check that speaks `verdict`, evaluated in the asset's own step."""
    spec = dg.AssetCheckSpec("bill_equals_its_invoice", asset=dg.AssetKey(KEY), blocking=blocking)

    @dg.asset(key=KEY, partitions_def=partitions, check_specs=[spec])
    def aws_billing() -> dg.MaterializeResult:
        return dg.MaterializeResult(check_results=[verdict.result("bill_equals_its_invoice")])

    return aws_billing


def materialize(instance: dg.DagsterInstance, *assets: Any, partition: str | None = None) -> str:
    return dg.materialize(list(assets), instance=instance, partition_key=partition, raise_on_error=False).run_id


@pytest.fixture
def ticks(instance: dg.DagsterInstance, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> Ticks:
    monkeypatch.setenv("OPTIINFRA_ALERT_URLS", webhook.url())
    instance.add_dynamic_partitions("customer", ["acme", "globex"])
    return Ticks(failed_checks_sensor, instance)


def test_a_failed_check_is_told_once_and_its_recovery_once(ticks: Ticks, webhook: Webhook):
    verdict = Verdict(metadata={"observed": 12.5, "expected": 10, "rows": 3, "provider": "aws", "customer": "acme"})
    run_id = materialize(ticks.instance, bill(verdict))
    assert ticks.tick() == "1 alerts sent"
    (message,) = webhook.accepted
    assert message["title"] == "ERROR: bill_equals_its_invoice failed on raw.aws_billing (acme, aws)"
    assert "observed = 12.5, expected = 10, rows = 3" in message["message"]
    assert "two off" in message["message"]
    assert f"https://dagster.example/runs/{run_id}" in message["message"]

    materialize(ticks.instance, bill(verdict))
    assert ticks.tick() == "0 alerts sent"
    verdict.passed = True
    materialize(ticks.instance, bill(verdict))
    materialize(ticks.instance, bill(verdict))
    assert ticks.tick() == "1 alerts sent"
    assert ticks.tick() == "0 alerts sent"
    assert webhook.titles[1:] == ["OK: bill_equals_its_invoice recovered on raw.aws_billing (acme, aws)"]


def test_what_fails_and_recovers_between_two_ticks_is_told_too(ticks: Ticks, webhook: Webhook):
    ticks.tick()
    verdict = Verdict()
    materialize(ticks.instance, bill(verdict))
    verdict.passed = True
    materialize(ticks.instance, bill(verdict))
    assert ticks.tick() == "2 alerts sent"
    assert webhook.titles == ["OptiInfra: 1 new failure, 1 recovered"]


def test_partitions_fail_and_recover_each_for_itself_and_name_their_customer(ticks: Ticks, webhook: Webhook):
    verdict = Verdict()
    materialize(ticks.instance, bill(verdict, partitions=BILLS), partition=ACME)
    ticks.tick()
    materialize(ticks.instance, bill(verdict, partitions=BILLS), partition=GLOBEX)
    ticks.tick()
    assert webhook.titles == [
        "ERROR: bill_equals_its_invoice failed on raw.aws_billing (acme, aws)",
        "ERROR: bill_equals_its_invoice failed on raw.aws_billing (globex, aws)",
    ]
    assert "partition: acme|2026-10-01" in webhook.accepted[0]["message"]
    verdict.passed = True
    materialize(ticks.instance, bill(verdict, partitions=BILLS), partition=GLOBEX)
    ticks.tick()
    assert webhook.titles[2:] == ["OK: bill_equals_its_invoice recovered on raw.aws_billing (globex, aws)"]


def test_a_partitioned_check_in_a_step_of_its_own_keeps_its_partition(ticks: Ticks, webhook: Webhook):
    asset = bill(Verdict(passed=True), partitions=BILLS)

    @dg.asset_check(asset=asset, partitions_def=BILLS)
    def costs_are_usual() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN)

    materialize(ticks.instance, asset, costs_are_usual, partition=ACME)
    ticks.tick()
    assert webhook.titles == ["WARN: costs_are_usual failed on raw.aws_billing (acme, aws)"]


def test_a_standing_check_over_the_whole_table_concerns_all_customers_whoever_ran_it(ticks: Ticks, webhook: Webhook):
    asset = bill(Verdict(passed=True), partitions=BILLS)

    @dg.asset_check(asset=asset)
    def collections_are_fresh() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False)

    materialize(ticks.instance, asset, collections_are_fresh, partition=ACME)
    materialize(ticks.instance, asset, collections_are_fresh, partition=GLOBEX)
    ticks.tick()
    assert webhook.titles == ["ERROR: collections_are_fresh failed on raw.aws_billing (all customers, aws)"]


def test_a_blocking_check_is_told_by_the_check_and_not_by_its_run(ticks: Ticks, webhook: Webhook):
    runs = Ticks(failed_runs_sensor, ticks.instance)
    materialize(ticks.instance, bill(Verdict(), blocking=True))
    assert ticks.tick() == "1 alerts sent"
    assert runs.tick() == "0 alerts sent"
    assert webhook.titles == ["ERROR: bill_equals_its_invoice failed on raw.aws_billing (all customers, aws)"]


def test_a_server_error_loses_nothing_and_doubles_nothing(ticks: Ticks, webhook: Webhook):
    verdict = Verdict()
    materialize(ticks.instance, bill(verdict))
    ticks.tick()
    verdict.passed = True
    materialize(ticks.instance, bill(verdict))
    webhook.status = 500
    for _ in range(2):
        with pytest.raises(DeliveryError, match="kept and sent again"):
            ticks.tick()
    verdict.passed = False
    materialize(ticks.instance, bill(verdict))
    webhook.status = 200
    assert ticks.tick() == "2 alerts sent"
    assert ticks.tick() == "0 alerts sent"
    assert webhook.refused == 2
    assert len(webhook.accepted) == 2
    recovered, failed_again = webhook.accepted[1]["message"].split("\n\n")
    assert recovered.startswith("OK: ")
    assert failed_again.startswith("ERROR: ")


def test_a_dead_channel_holds_up_only_itself(
    ticks: Ticks, webhook: Webhook, second_webhook: Webhook, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPTIINFRA_ALERT_URLS", f"{webhook.url()},{second_webhook.url()}")
    ticks.tick()
    webhook.status = 500
    verdict = Verdict()
    materialize(ticks.instance, bill(verdict))
    assert "did not reach JSON (entry 1 of OPTIINFRA_ALERT_URLS)" in ticks.tick()
    verdict.passed = True
    materialize(ticks.instance, bill(verdict))
    ticks.tick()
    assert [title[:2] for title in second_webhook.titles] == ["ER", "OK"]
    webhook.status = 200
    ticks.tick()
    assert webhook.titles == ["OptiInfra: 1 new failure, 1 recovered"]
    assert len(second_webhook.accepted) == 2


def test_the_cursor_that_the_web_ui_shows_holds_no_token(ticks: Ticks, webhook: Webhook):
    materialize(ticks.instance, bill(Verdict()))
    ticks.tick()
    assert ticks.cursor is not None
    assert "raw.aws_billing|bill_equals_its_invoice" in ticks.cursor
    assert "s3cr3t" not in ticks.cursor


def test_failures_of_many_runs_are_told_in_order_over_several_ticks(
    ticks: Ticks, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("optiinfra_pipelines.defs.alerts.event_log.RUNS_A_TICK", 2)
    verdict = Verdict()
    ticks.tick()
    for customer in range(5):
        verdict.metadata = {"customer": f"customer-{customer}"}
        materialize(ticks.instance, bill(verdict, blocking=customer % 2 == 0))
    sent = [ticks.tick() for _ in range(4)]
    assert sum(int(message.split()[0]) for message in sent) == 5
    told = "\n".join(message["message"] for message in webhook.accepted)
    assert [told.count(f"customer: customer-{customer}") for customer in range(5)] == [1] * 5
    assert told.index("customer-0") < told.index("customer-2") < told.index("customer-4")
