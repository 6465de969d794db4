"""What a rejected deployment that answers leads to, as Dagster runs it: one signed rollback request, one explanation, a
check that says whether the request arrived, and an alert."""

import hmac
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from optiinfra_pipelines.gate.scores import Label
from optiinfra_pipelines.settings import load_settings
from optiinfra_pipelines.tables import ALL_TABLES
from optiinfra_pipelines.tables.explanations import EXPLANATIONS
from optiinfra_pipelines.tables.rollbacks import ROLLBACK_REQUESTS
from optiinfra_pipelines.warehouse import open_warehouse
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import DAY, floor_day, floor_window
from optiinfra_pipelines_tests.defs.conftest import Judged
from optiinfra_pipelines_tests.gate.replay import made_rows, write_anchors, write_scores
from optiinfra_pipelines_tests.gate.server import Server, served, status

NOW = floor_window(datetime.now(UTC))
START = NOW - 9 * DAY
DEPLOYED = NOW - DAY
OLD = Label("vultr", "support-copilot", "model-1", "")
NEW = Label("vultr", "support-copilot", "model-2", "")
SECRET = "canary-rollback-secret"


@pytest.fixture
def receiver() -> Iterator[Server]:
    with served(status(200)) as running:
        yield running


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receiver: Server) -> Warehouse:
    """A home with one customer whose newest model is 12 points worse since yesterday."""
    webhook = {"url": f"{receiver.url}/rollback", "secret": "SUPPORT_ROLLBACK_SECRET"}
    connection = {"id": "vultr-main", "provider": "vultr", "collect": ["inventory"]}
    acme = {"id": "acme", "name": "Acme", "connections": [connection]}
    acme["applications"] = [{"id": "support-copilot", "rollback_webhook": webhook}]
    (tmp_path / "customers.yaml").write_text(yaml.safe_dump({"customers": [acme]}))
    monkeypatch.chdir(tmp_path)
    given = {"OPTIINFRA_HOME": str(tmp_path / "home"), "OPTIINFRA_CUSTOMERS": str(tmp_path / "customers.yaml")}
    for name, value in (given | {"SUPPORT_ROLLBACK_SECRET": SECRET}).items():
        monkeypatch.setenv(name, value)
    opened = open_warehouse(load_settings())
    opened.create_tables(ALL_TABLES)
    write_scores(opened, made_rows(OLD, START, 8 * 24, seed=1))
    write_scores(opened, made_rows(NEW, DEPLOYED, 24, drop=0.12, seed=2))
    return opened


def rows(warehouse: Warehouse, name: str) -> list[dict[str, Any]]:
    table = {"requests": ROLLBACK_REQUESTS, "explanations": EXPLANATIONS}[name]
    return warehouse.query(f"SELECT * FROM {warehouse.current(table)} t").to_pylist()


def test_a_rejected_deployment_asks_once_for_its_rollback_and_says_why(
    warehouse: Warehouse, judged: Judged, receiver: Server
) -> None:
    days = (DEPLOYED, NOW, NOW)
    checks = [judged(day) for day in days][-1]
    [received] = receiver.received
    signed = received.headers["X-Optiinfra-Timestamp"].encode() + b"." + received.body
    digest = hmac.new(SECRET.encode(), signed, sha256).hexdigest()
    assert received.headers["X-Optiinfra-Signature"] == f"sha256={digest}"
    body = json.loads(received.body)
    assert (body["model"], body["verdict"]) == ({"before": "model-1", "after": "model-2"}, "REJECT")
    assert body["run"].startswith("http://127.0.0.1:3000/runs/")
    [request] = rows(warehouse, "requests")
    assert (request["status"], request["attempts"]) == ("delivered", 1)
    assert checks["rollbacks_are_delivered"].passed
    [explanation] = rows(warehouse, "explanations")
    assert explanation["written_by"] == "template"
    assert "model-1 to model-2, is rejected" in explanation["text"]
    rejected = checks["quality_is_not_inferior_to_baseline"]
    assert (rejected.passed, rejected.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert rejected.metadata["explanation"].value == explanation["text"]


def test_a_receiver_that_refuses_is_a_failed_check_that_names_it(
    warehouse: Warehouse, judged: Judged, receiver: Server
) -> None:
    receiver.otherwise = status(403)
    judged(DEPLOYED)
    check = judged(NOW)["rollbacks_are_delivered"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "127.0.0.1 answered 403 Forbidden" in (check.description or "")
    assert len(receiver.received) == 1


def test_a_secret_that_is_not_set_is_a_failed_check_and_keeps_no_verdict(
    warehouse: Warehouse, judged: Judged, receiver: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SUPPORT_ROLLBACK_SECRET")
    judged(DEPLOYED)
    checks = judged(NOW)
    assert not checks["quality_is_not_inferior_to_baseline"].passed
    assert (checks["rollbacks_are_delivered"].passed, receiver.received) == (False, [])
    assert "roll back by hand" in (checks["rollbacks_are_delivered"].description or "")


def test_in_demo_mode_the_request_is_a_line_and_leaves_nobody(
    warehouse: Warehouse,
    judged: Judged,
    receiver: Server,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OPTIINFRA_DEMO", "true")
    judged(DEPLOYED)
    assert judged(NOW)["rollbacks_are_delivered"].passed
    assert [row["status"] for row in rows(warehouse, "requests")] == ["logged"]
    assert '"event": "rollback_requested"' in capfd.readouterr().err
    assert receiver.received == []


def test_a_rejected_deployment_that_answers_no_more_asks_for_nothing(
    warehouse: Warehouse, judged: Judged, receiver: Server
) -> None:
    from optiinfra_pipelines.customers import load_customers
    from optiinfra_pipelines.gate.rejections import follow_up

    judged(DEPLOYED)
    settings = load_settings()
    acme = load_customers(settings.customers).customer("acme")
    before = len(receiver.received)
    assert follow_up(warehouse, settings, acme, NOW + DAY, "") == []
    assert (len(receiver.received), len(rows(warehouse, "requests"))) == (before, before)


def test_where_the_judge_moved_the_rollback_is_held_for_a_person(
    warehouse: Warehouse, judged: Judged, receiver: Server
) -> None:
    first = floor_day(DEPLOYED) - 5 * DAY
    write_anchors(warehouse, first, 7, lambda at, metric: -0.12 * (metric == "quality" and at >= DEPLOYED))
    judged(DEPLOYED)
    check = judged(NOW)["rollbacks_are_delivered"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "the judge's anchors are worse by 12 points" in (check.description or "")
    assert receiver.received == []
