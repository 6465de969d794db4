"""The frozen anchors before the judge: once a day, beside what they should score, canaries among them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from optiinfra_pipelines.customers import Connection, Customer
from optiinfra_pipelines.llm.anchoring import judge_anchors
from optiinfra_pipelines.llm.anchors import anchors
from optiinfra_pipelines.llm.judge import fingerprint_of
from optiinfra_pipelines.llm.redaction import open_redactor
from optiinfra_pipelines.llm.rubric import LEVELS
from optiinfra_pipelines.quality_verdicts import canaries_resisted
from optiinfra_pipelines.sandbox.groq_server import JUDGED_PATH, environment, serve_groq
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.tables.llm import ANCHOR_SCORES, JUDGE_CALLS
from optiinfra_pipelines.warehouse.protocol import Warehouse

NOW = datetime(2026, 11, 20, 4, 10, tzinfo=UTC)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serve_groq(gullibility=0.0) as url:
        yield url


@pytest.fixture
def judge(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    httpx.delete(server + JUDGED_PATH)
    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)
    return server


def rows(warehouse: Warehouse, table: Any) -> list[dict[str, Any]]:
    return warehouse.query(f"SELECT * FROM {warehouse.current(table)} t").to_pylist()


def test_anchors_are_judged_once_a_day_and_each_call_is_accounted_for(warehouse: Warehouse, judge: str) -> None:
    first = judge_anchors(warehouse, Settings(), NOW)
    assert (first.evaluated, first.reason, first.states) == (True, None, {"scored": len(anchors())})
    assert judge_anchors(warehouse, Settings(), NOW + timedelta(hours=3)).requests == 0
    assert httpx.get(judge + JUDGED_PATH).json()["total"] == len(anchors())
    scored = rows(warehouse, ANCHOR_SCORES)
    assert len(scored) == len(anchors()) * (len(LEVELS) + 1)
    assert {row["expected_score"] for row in scored if row["anchor_id"] == "good-capital"} == {0.0, 1.0}
    calls = rows(warehouse, JUDGE_CALLS)
    assert sum(row["cost"] for row in calls) == first.cost > 0
    assert {row["customer_id"] for row in calls} == {""}
    tomorrow = judge_anchors(warehouse, Settings(), NOW + timedelta(days=1))
    assert (tomorrow.judged, len(rows(warehouse, ANCHOR_SCORES))) == (len(anchors()), 2 * len(scored))


def test_the_sandboxs_judge_resists_the_canaries_and_one_that_obeys_is_told(warehouse: Warehouse, judge: str) -> None:
    judge_anchors(warehouse, Settings(), NOW)
    of_quality = [row for row in rows(warehouse, ANCHOR_SCORES) if row["metric_type"] == "coherence"]
    verdict = canaries_resisted(of_quality)
    assert (verdict.passed, verdict.numbers["canaries"]) == (True, sum(each.canary for each in anchors()))
    obeyed = [row | {"score": 1.0} if row["canary"] else row for row in of_quality]
    told = canaries_resisted([row for row in obeyed if row["expected_score"] < 0.75])
    assert (told.passed, told.severity) == (False, "ERROR")


def test_without_a_key_no_anchor_is_judged_and_it_says_why(
    warehouse: Warehouse, judge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "")
    found = judge_anchors(warehouse, Settings(), NOW)
    assert (found.evaluated, found.reason, rows(warehouse, ANCHOR_SCORES)) == (False, "no_key", [])


def test_anchors_stand_for_the_judges_of_customers_with_patterns_of_their_own(warehouse: Warehouse, judge: str) -> None:
    connection = Connection.model_validate({"id": "vultr-main", "provider": "vultr", "collect": ["inventory"]})
    own = Customer(id="acme", name="Acme", connections=(connection,), redact={"EMPLOYEE": r"E-\d{6}"})
    judge_anchors(warehouse, Settings(), NOW, [own])
    scored = rows(warehouse, ANCHOR_SCORES)
    theirs = fingerprint_of(Settings(), open_redactor(Settings(), own.redact).version)
    assert theirs in {row["judge_fingerprint"] for row in scored}
    assert len(scored) == 2 * len(anchors()) * (len(LEVELS) + 1)
    assert httpx.get(judge + JUDGED_PATH).json()["total"] == len(anchors())
