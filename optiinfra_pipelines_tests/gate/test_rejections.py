"""From a rejecting row of quality.verdicts to its rollback request and to the facts of its explanation."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from optiinfra_pipelines.customers import Customer, load_customers
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.gate.rejections import facts_of, rollback_of, webhook_of
from optiinfra_pipelines.gate.rollback import request_rollback
from optiinfra_pipelines.llm.interaction import Texts
from optiinfra_pipelines.llm.scoring import score_id
from optiinfra_pipelines.tables.llm import APPLICATION_METRICS
from optiinfra_pipelines.tables.rollbacks import ROLLBACK_REQUESTS
from optiinfra_pipelines.warehouse.duckdb import DuckDBWarehouse
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines_tests.gate.server import Server, served, status
from optiinfra_pipelines_tests.gate.test_rollback import REJECT
from optiinfra_pipelines_tests.llm.interactions import NOON, interaction, write

APPLICATION = "support-copilot"
ROW: dict[str, Any] = {
    "verdict_id": "verdict-7",
    "deployment_id": "deployment-3",
    "customer_id": "acme",
    "provider": "vultr",
    "application_id": APPLICATION,
    "model_name": "llama-3.1-70b-instruct",
    "variant": "",
    "previous_model": "llama-3.1-405b",
    "previous_variant": None,
    "deployed_at": NOON + timedelta(seconds=10),
    "looked_at": NOON + timedelta(minutes=15),
    "judge_fingerprint": "judge-1",
    "metric_type": "quality",
    "metrics": json.dumps(REJECT.to_dict()),
}


@pytest.fixture
def server() -> Iterator[Server]:
    with served(status(200)) as running:
        yield running


def score(warehouse: Warehouse, number: int, value: float, **given: Any) -> str:
    """An interaction and its scores of quality and accuracy; its id."""
    said = interaction(number, texts=Texts(input=f"Question {number}", output=f"Answer {number}"))
    [found] = write(warehouse, [said])
    row = {
        "timestamp": said.timestamp.replace(tzinfo=None),
        "customer_id": "acme",
        "provider": "vultr",
        "connection_id": "vultr-main",
        "application_id": APPLICATION,
        "application_name": APPLICATION,
        "details": "{}",
        "model_name": said.model_name,
        "metadata": "{}",
        "collected_at": NOON.replace(tzinfo=None),
        "interaction_id": found,
        "variant": "",
        "judge_fingerprint": "judge-1",
        "sampling_probability": 1.0,
        "flagged": False,
        **given,
    }
    rows = [
        row | {"score_id": score_id(found, metric, row["judge_fingerprint"]), "metric_type": metric, "score": value}
        for metric in ("quality", "accuracy")
    ]
    warehouse.upsert(APPLICATION_METRICS, pa.Table.from_pylist(rows, schema=APPLICATION_METRICS.arrow_schema))
    return found


def customer(folder: Path, webhook: dict[str, str] | None) -> Customer:
    application = {"id": APPLICATION} | ({"rollback_webhook": webhook} if webhook else {})
    connection = {"id": "files", "provider": "focus", "collect": ["billing"], "billing": {"location": "/bills"}}
    told = {"customers": [{"id": "acme", "name": "Acme", "applications": [application], "connections": [connection]}]}
    (folder / "customers.yaml").write_text(json.dumps(told))
    return load_customers(folder / "customers.yaml").customer("acme")


def test_an_explanation_rests_on_the_interactions_since_the_deployment_that_score_worst(warehouse: Warehouse):
    ids = [score(warehouse, number, value) for number, value in ((20, 0.5), (30, 0.25), (40, 1.0), (50, 0.25))]
    score(warehouse, 5, 0.0)  # before the deployment
    score(warehouse, 2_000, 0.0)  # after the look
    score(warehouse, 60, 0.0, flagged=True)
    score(warehouse, 61, 0.0, judge_fingerprint="judge-2")
    score(warehouse, 62, 0.0, variant="b")
    score(warehouse, 63, 0.0, application_id="other")
    facts = facts_of(warehouse, ROW)
    assert [each.interaction_id for each in facts.examples] == [ids[3], ids[1], ids[0], ids[2]]
    worst = facts.examples[0]
    assert (worst.texts.input, worst.texts.output) == ("Question 50", "Answer 50")
    assert worst.scores == {"quality": 0.25}  # accuracy is not gated
    assert facts.verdict == REJECT
    assert (facts.model_before, facts.model_after) == ("llama-3.1-405b", "llama-3.1-70b-instruct")


def test_a_rejection_is_told_to_the_webhook_of_its_application(
    duckdb_warehouse: DuckDBWarehouse, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    duckdb_warehouse.create_tables([ROLLBACK_REQUESTS])
    monkeypatch.setenv("SUPPORT_ROLLBACK_SECRET", "canary-secret")
    acme = customer(tmp_path, {"url": f"{server.url}/rollback", "secret": "SUPPORT_ROLLBACK_SECRET"})
    asked = request_rollback(duckdb_warehouse, rollback_of(ROW, "http://ui/runs/1"), webhook_of(acme, APPLICATION))
    assert asked.status == "delivered"
    [received] = server.received
    body = json.loads(received.body)
    assert received.target == "/rollback"
    assert body["model"] == {"before": "llama-3.1-405b", "after": "llama-3.1-70b-instruct"}
    assert (body["deployment"], body["run"], body["verdict"]) == ("deployment-3", "http://ui/runs/1", "REJECT")


def test_an_application_without_a_webhook_has_none_and_one_without_its_secret_is_for_a_person(tmp_path: Path):
    assert webhook_of(customer(tmp_path, None), APPLICATION) is None
    assert webhook_of(customer(tmp_path, None), "another") is None
    acme = customer(tmp_path, {"url": "https://hooks.example.com/x", "secret": "ABSENT_ROLLBACK_SECRET"})
    with pytest.raises(CollectionError, match="ABSENT_ROLLBACK_SECRET"):
        webhook_of(acme, APPLICATION)
