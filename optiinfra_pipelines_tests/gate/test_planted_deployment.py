"""The sandbox's planted deployment as the product meets it: collected from its log, judged over HTTP, rejected soon,
its owner asked once to roll back, people alerted; and nothing else is rejected."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
import yaml

from optiinfra_pipelines.customers import load_customers
from optiinfra_pipelines.defs.alerts.notifier_resource import NotifierResource
from optiinfra_pipelines.defs.alerts.sensors import failed_checks_sensor
from optiinfra_pipelines.defs.partitions import day_key
from optiinfra_pipelines.defs.schedules import SCORING, day_assets
from optiinfra_pipelines.sandbox import groq_server, scenario, webhook_server
from optiinfra_pipelines.sandbox.gate_truths import MOST_SCORES, gate_differences
from optiinfra_pipelines.sandbox.groq_server import serve_groq
from optiinfra_pipelines.sandbox.interaction_logs import llm_credentials, llm_places, publish_interactions
from optiinfra_pipelines.sandbox.interactions import MODEL_AFTER, Corpus
from optiinfra_pipelines.sandbox.s3_server import serve_s3
from optiinfra_pipelines.sandbox.webhook_server import serve_webhook
from optiinfra_pipelines.settings import load_settings
from optiinfra_pipelines.tables.explanations import EXPLANATIONS
from optiinfra_pipelines.tables.gate import GATE_TABLES, MONITOR_STATES, VERDICTS
from optiinfra_pipelines.warehouse import open_warehouse
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import DAY, floor_day

DAYS_BACK = (7, 6, 5, 1, 0)  # two before the deployment, its own, and those on which it answers still
INTERACTIONS = ("llm_interactions",)


@dataclass
class Ran:
    """The warehouse after the runs, what they evaluated last, what the webhook got, and the alerts that were sent."""

    warehouse: Warehouse
    corpus: Corpus
    checks: dict[tuple[int, str], dg.AssetCheckEvaluation]
    received: list[dict[str, Any]]
    alerts: str


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    home = tmp_path_factory.mktemp("deployment")
    corpus = Corpus(datetime.now(UTC).date(), days=8, customers=("acme",))
    with ExitStack() as running, pytest.MonkeyPatch.context() as patch:
        s3 = running.enter_context(serve_s3(scenario.ACCESS_KEY_ID))
        judge, webhook = running.enter_context(serve_groq()), running.enter_context(serve_webhook())
        publish_interactions(s3, corpus)
        connection = {
            "id": "vultr-main",
            "provider": "vultr",
            "collect": ["llm_interactions"],
            "llm": llm_places("acme", "vultr", s3),
            "credentials": llm_credentials("vultr"),
        }
        acme = {"id": "acme", "name": "Acme Robotics", "connections": [connection]}
        acme["applications"] = webhook_server.applications("acme", webhook)
        (home / "customers.yaml").write_text(yaml.safe_dump({"customers": [acme]}))
        given = {"OPTIINFRA_HOME": str(home), "OPTIINFRA_CUSTOMERS": str(home / "customers.yaml")}
        given |= scenario.environment() | groq_server.environment(judge) | webhook_server.environment()
        for name, value in given.items():
            patch.setenv(name, value)
        patch.chdir(home)
        instance = running.enter_context(dg.instance_for_test())
        checks = _materialised(instance)
        received = httpx.get(webhook + webhook_server.RECEIVED_PATH).json()
        yield Ran(open_warehouse(load_settings()), corpus, checks, received, _alerted(instance, patch, home))


def _materialised(instance: dg.DagsterInstance) -> dict[tuple[int, str], dg.AssetCheckEvaluation]:
    """Collect the days and judge them, the earliest first; checks by how many days back and name."""
    from optiinfra_pipelines.definitions import defs

    customer = load_customers(load_settings().customers).customer("acme")
    instance.add_dynamic_partitions("customer", ["acme"])
    today, checks = floor_day(datetime.now(UTC)), {}
    for back in DAYS_BACK:
        for job, assets in (("backfill_job", day_assets(customer, INTERACTIONS)), ("scoring_job", SCORING)):
            result = defs.resolve_job_def(job).execute_in_process(
                instance=instance,
                partition_key=day_key("acme", today - back * DAY),
                asset_selection=assets,
                tags={"customer": "acme"},
            )
            checks |= {(back, each.check_name): each for each in result.get_asset_check_evaluations()}
    return checks


def _alerted(instance: dg.DagsterInstance, patch: pytest.MonkeyPatch, home: Path) -> str:
    """What the sensor of failed checks sends, as apprise writes it into a file."""
    patch.setenv("OPTIINFRA_ALERT_URLS", "")
    cursor = None
    with pytest.MonkeyPatch.context() as said, (home / "alerts").open("w+") as lines:
        said.setattr("sys.stderr", lines)
        for _tick in range(4):
            context = dg.build_sensor_context(
                instance=instance, cursor=cursor, resources={"notifier": NotifierResource()}
            )
            cursor = failed_checks_sensor.evaluate_tick(context).cursor
        lines.seek(0)
        return lines.read()


def rows(ran: Ran, name: str) -> list[dict[str, Any]]:
    [table] = [each for each in (*GATE_TABLES, EXPLANATIONS) if each.name == name][:1]
    return ran.warehouse.query(f"SELECT * FROM {ran.warehouse.current(table)} t").to_pylist()


def test_the_degraded_model_alone_is_rejected_within_the_delay_and_one_rollback_arrives(ran: Ran) -> None:
    assert list(gate_differences(ran.warehouse, ran.corpus, ran.received)) == []
    [rejected] = [row for row in rows(ran, VERDICTS.name) if row["verdict"] == "REJECT"]
    assert rejected["n"] <= MOST_SCORES
    assert rejected["looked_at"] - ran.corpus.deployed_at <= timedelta(hours=12)
    assert rejected["estimate"] >= rejected["margin"]


def test_the_verdict_is_an_error_with_figures_and_its_explanation_until_the_model_is_gone(ran: Ran) -> None:
    for back in (5, 1, 0):
        check = ran.checks[back, "quality_is_not_inferior_to_baseline"]
        assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert ran.checks[6, "quality_is_not_inferior_to_baseline"].passed
    assert ran.checks[0, "rollbacks_are_delivered"].passed
    [explanation] = rows(ran, EXPLANATIONS.name)
    assert explanation["written_by"] == "openai/gpt-oss-20b", explanation["objections"]
    assert f"answers worse with {MODEL_AFTER}" in explanation["text"]
    newest = ran.checks[0, "quality_is_not_inferior_to_baseline"]
    assert newest.metadata["explanation"].value == explanation["text"]


def test_people_are_alerted_with_the_figures(ran: Ran) -> None:
    lines = [line for line in ran.alerts.splitlines() if "quality_is_not_inferior_to_baseline" in line]
    assert lines
    assert all('"severity": "ERROR"' in line and "REJECT of support-copilot on vultr" in line for line in lines)


def test_the_monitor_dates_the_change_and_asks_for_the_anchors_before_it_blames_anybody(ran: Ran) -> None:
    states = [row for row in rows(ran, MONITOR_STATES.name) if row["metric_type"] == "quality"]
    newest = max(states, key=lambda row: row["day"])
    assert (newest["alarm"], newest["cause"]) == (True, "undetermined")
    assert "the anchors were not scored since: score them before you act" in newest["explanation"]
    assert abs(newest["change_start"] - ran.corpus.deployed_at) <= timedelta(hours=6)
    assert not [row for row in states if row["alarm"] and row["day"] < floor_day(ran.corpus.deployed_at)]
