"""The whole way, as `make materialize` goes it: sandbox clouds, runs, marts, checks, truths, alerts. Both engines."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import copy

import dagster as dg
import pytest

import optiinfra_pipelines
from optiinfra_pipelines.defs.alerts.notifier_resource import NotifierResource
from optiinfra_pipelines.defs.alerts.sensors import failed_checks_sensor
from optiinfra_pipelines.sandbox.clickhouse_server import serve_clickhouse

INSTANCE = Path(optiinfra_pipelines.__file__).parent / "instance" / "dagster.yaml"


ENGINES = [pytest.param(each, marks=pytest.mark.xdist_group(f"end to end {each}")) for each in ("duckdb", "clickhouse")]


@pytest.fixture(scope="module", params=ENGINES)
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The home folder after `sandbox.run`, and what it said."""
    home = tmp_path_factory.mktemp(request.param)
    (home / "dagster").mkdir()
    copy(INSTANCE, home / "dagster" / "dagster.yaml")
    env = {**os.environ, "OPTIINFRA_HOME": str(home), "DAGSTER_HOME": str(home / "dagster"), "COLUMNS": "200"}
    env = {name: value for name, value in env.items() if name not in ("OPTIINFRA_WAREHOUSE", "OPTIINFRA_CUSTOMERS")}
    if request.param == "duckdb":
        yield home, _run(env)
    else:
        with serve_clickhouse(home / "clickhouse") as url:
            yield home, _run({**env, "OPTIINFRA_WAREHOUSE": url.replace("http://", "clickhouse://default@")})


def _run(env: dict[str, str]) -> str:
    command = [sys.executable, "-m", "optiinfra_pipelines.sandbox.run", "--days", "2"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout + done.stderr


def test_every_total_equals_the_planted_one_to_the_last_digit(ran: tuple[Path, str]) -> None:
    _, said = ran
    assert "as planted: 18 invoices, 6 provider totals and 15 rejected rows, to the last digit" in said
    assert "not as planted" not in said


def test_every_resource_metric_and_bill_of_four_clouds_is_as_planted(ran: tuple[Path, str]) -> None:
    _, said = ran
    assert "as planted: 152 resources of 4 clouds, each of their metrics in each window, and their bills" in said


def test_every_interaction_of_four_clouds_is_as_planted_redacted_and_judged(ran: tuple[Path, str]) -> None:
    _, said = ran
    assert "as planted: the interactions of 3 applications on 4 clouds, redacted and judged" in said


def test_the_checks_that_were_planted_to_fail_do_and_alert_once(
    ran: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    home, _ = ran
    told: list[dict[str, str]] = []
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        cursor = None
        for _tick in range(20):  # a tick sends one page of alerts
            context = dg.build_sensor_context(
                instance=instance, cursor=cursor, resources={"notifier": NotifierResource()}
            )
            cursor = failed_checks_sensor.evaluate_tick(context).cursor
            told += [alert for alert in _alerts(capsys) if alert["kind"] == "failed_check"]
    failed = [(each["asset"], each["check"], each["partition"]) for each in told]
    assert len(failed) == len(set(failed))
    assert ("raw.aws_billing", "no_row_was_rejected", "acme|2026-08-01") in failed
    assert ("raw.focus_billing", "billing_follows_focus_rules", "acme|2026-09-01") in failed
    assert not [each for each in failed if each[1].endswith("follows_contract")]
    assert {each["severity"] for each in told} == {"WARN"}


def _alerts(capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    lines = capsys.readouterr().err.splitlines()
    return [json.loads(line) for line in lines if line.startswith('{"event": "alert"')]
