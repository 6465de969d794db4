from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange

from optiinfra_pipelines.alerts.notifier import DeliveryError
from optiinfra_pipelines.defs.alerts.sensors import stale_assets_sensor
from optiinfra_pipelines_tests.alerts.conftest import Ticks, Webhook

KEY = dg.AssetKey(["raw", "aws_billing"])


@dg.asset(key=KEY)
def aws_billing() -> None: ...


@pytest.fixture
def ticks(instance: dg.DagsterInstance, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> Ticks:
    monkeypatch.setenv("OPTIINFRA_ALERT_URLS", webhook.url())
    dg.materialize([aws_billing], instance=instance)
    return Ticks(stale_assets_sensor, instance)


def freshness(ticks: Ticks, state: FreshnessState, *, after_hours: float = 0) -> None:
    """The event that Dagster's freshness daemon writes when the state of an asset changes."""
    at = datetime.now(UTC) + timedelta(hours=after_hours)
    change = FreshnessStateChange(
        key=KEY, new_state=state, previous_state=FreshnessState.UNKNOWN, state_change_timestamp=at.timestamp()
    )
    ticks.instance._report_runless_asset_event(change)


def test_a_stale_asset_is_told_once_with_its_age_and_once_when_it_is_fresh_again(ticks: Ticks, webhook: Webhook):
    freshness(ticks, FreshnessState.PASS)
    assert ticks.tick() == "0 alerts sent"
    freshness(ticks, FreshnessState.FAIL, after_hours=40)
    assert ticks.tick() == "1 alerts sent"
    assert ticks.tick() == "0 alerts sent"
    freshness(ticks, FreshnessState.PASS)
    assert ticks.tick() == "1 alerts sent"
    assert webhook.titles == [
        "ERROR: raw.aws_billing is stale (all customers, aws)",
        "OK: raw.aws_billing is fresh again (all customers, aws)",
    ]
    assert "hours_since_last_update = 40" in webhook.accepted[0]["message"]
    assert "https://dagster.example/assets/raw/aws_billing" in webhook.accepted[0]["message"]


def test_what_is_stale_when_the_sensor_first_looks_is_told_however_long_it_has_been(ticks: Ticks, webhook: Webhook):
    freshness(ticks, FreshnessState.PASS, after_hours=-200)
    freshness(ticks, FreshnessState.FAIL, after_hours=-100)
    assert ticks.tick() == "1 alerts sent"
    assert ticks.tick() == "0 alerts sent"


def test_an_asset_that_is_nearly_stale_is_a_warning_and_then_an_error(ticks: Ticks, webhook: Webhook):
    freshness(ticks, FreshnessState.WARN)
    ticks.tick()
    freshness(ticks, FreshnessState.FAIL)
    ticks.tick()
    assert [title.split(":")[0] for title in webhook.titles] == ["WARN", "ERROR"]


def test_an_asset_that_lost_its_policy_is_forgotten_in_silence(ticks: Ticks, webhook: Webhook):
    freshness(ticks, FreshnessState.FAIL)
    ticks.tick()
    freshness(ticks, FreshnessState.NOT_APPLICABLE)
    assert ticks.tick() == "0 alerts sent"
    freshness(ticks, FreshnessState.FAIL)
    assert ticks.tick() == "1 alerts sent"


def test_a_server_error_loses_nothing_and_doubles_nothing(ticks: Ticks, webhook: Webhook):
    ticks.tick()
    freshness(ticks, FreshnessState.FAIL)
    webhook.status = 500
    with pytest.raises(DeliveryError):
        ticks.tick()
    webhook.status = 200
    assert ticks.tick() == "1 alerts sent"
    assert ticks.tick() == "0 alerts sent"
    assert len(webhook.accepted) == 1


def test_all_three_sensors_run_from_the_first_deployment_on():
    from optiinfra_pipelines.defs.alerts import sensors

    found = [value for value in vars(sensors).values() if isinstance(value, dg.SensorDefinition)]
    assert [sensor.name for sensor in found] == ["failed_checks_sensor", "failed_runs_sensor", "stale_assets_sensor"]
    assert {sensor.default_status for sensor in found} == {dg.DefaultSensorStatus.RUNNING}
