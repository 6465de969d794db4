"""Days judged on both engines: the planted deployment is found, nothing else is, the judge's part is told apart, and
neither order nor repetition changes a byte."""

import json
import random
import shutil
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from optiinfra_pipelines.applications import Application
from optiinfra_pipelines.customers import Connection, Customer
from optiinfra_pipelines.gate.baselines import freeze_now
from optiinfra_pipelines.gate.deployments import tell
from optiinfra_pipelines.gate.judging import Judged, judge_customer, judge_streams
from optiinfra_pipelines.gate.scores import Label
from optiinfra_pipelines.sandbox.interactions import MODEL_AFTER, MODEL_BEFORE, Corpus
from optiinfra_pipelines.tables.contract import Table
from optiinfra_pipelines.tables.gate import BASELINES, COMPARISONS, DEPLOYMENTS, GATE_TABLES, MONITOR_STATES, VERDICTS
from optiinfra_pipelines.warehouse.duckdb import DuckDBWarehouse
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import DAY, WINDOW, Window, floor_day
from optiinfra_pipelines_tests.gate.replay import made_rows, planted_rows, score_row, write_anchors, write_scores

START = datetime(2026, 10, 1, tzinfo=UTC)
OLD = Label("vultr", "support-copilot", "model-1", "")
NEW = replace(OLD, model_name="model-2")
CONNECTION = Connection.model_validate({"id": "vultr-main", "provider": "vultr", "collect": ["inventory"]})


def acme(**application: Any) -> Customer:
    """The customer, with what customers.yaml says of its application."""
    given = (Application.model_validate({"id": "support-copilot", **application}),)
    return Customer(id="acme", name="Acme", connections=(CONNECTION,), applications=given)


def day(number: int) -> Window:
    """The UTC day so many days after START."""
    return Window(START + number * DAY, START + (number + 1) * DAY)


def judge(warehouse: Warehouse, *numbers: int, customer: Customer | None = None) -> Judged:
    """Judge those days, each once it is over; what the last one gave."""
    found = Judged()
    for number in numbers:
        found = judge_customer(warehouse, customer or acme(), day(number), START + 60 * DAY)
    return found


def rows_of(warehouse: Warehouse, table: Table) -> list[dict[str, Any]]:
    return warehouse.query(
        f"SELECT * FROM {warehouse.current(table)} t ORDER BY {', '.join(table.order_by)}"
    ).to_pylist()


def content(warehouse: Warehouse) -> dict[str, list[dict[str, Any]]]:
    """All rows of the gate's tables but for when they were written."""
    return {
        table.name: [{name: row[name] for name in row if name != "collected_at"} for row in rows_of(warehouse, table)]
        for table in GATE_TABLES
    }


def quality_state(judged: Judged, label: Label) -> dict[str, Any]:
    [found] = [row for row in judged.states if (row["metric_type"], row["model_name"]) == ("quality", label.model_name)]
    return found


def test_the_planted_deployment_is_rejected_in_time_and_no_other_stream_is(warehouse: Warehouse) -> None:
    corpus = Corpus(date(2026, 11, 20))
    streams = tuple(each for each in corpus.of("acme", "vultr") + corpus.of("acme", "aws"))
    write_scores(warehouse, planted_rows(corpus, streams))
    deployed = Window(floor_day(corpus.deployed_at), floor_day(corpus.deployed_at) + DAY)
    judged = judge_streams(warehouse, [acme()], deployed, corpus.end)["acme"]
    last = judged.verdicts[-1]
    assert (last["verdict"], last["final"], last["metric_type"]) == ("REJECT", True, "quality")
    assert (last["previous_model"], last["model_name"]) == (MODEL_BEFORE, MODEL_AFTER)
    assert {row["model_name"] for row in rows_of(warehouse, VERDICTS)} == {MODEL_AFTER}
    # at 5 scores a window the reference's median delay for 12 points is 11 to 15 windows, and 25 in 9 cases of 10
    assert last["looked_at"] - corpus.deployed_at <= 25 * WINDOW
    assert last["n"] >= 30
    alarms = {(row["provider"], row["model_name"]) for row in judged.states if row["alarm"]}
    assert alarms == {("vultr", MODEL_AFTER)}
    state = quality_state(judged, Label("vultr", "support-copilot", MODEL_AFTER, ""))
    assert abs(state["change_start"] - corpus.deployed_at) <= 4 * WINDOW


def test_a_swap_of_the_judge_is_called_the_judges_and_a_drop_of_the_application_the_applications(
    warehouse: Warehouse,
) -> None:
    swapped = START + 12 * DAY
    write_scores(warehouse, made_rows(OLD, START, 12 * 24, seed=1))
    write_scores(warehouse, made_rows(OLD, swapped, 3 * 24, drop=0.12, seed=2))
    write_anchors(warehouse, START, 15, lambda at, metric: -0.12 * (metric == "quality" and at >= swapped))
    state = quality_state(judge(warehouse, 13), OLD)
    assert (state["alarm"], state["cause"]) == (True, "judge")
    assert "the judge changed, not the application" in state["explanation"]
    write_anchors(warehouse, START, 15, lambda at, metric: 0.0)
    judged = judge_customer(warehouse, acme(), day(14), START + 60 * DAY)
    assert quality_state(judged, OLD)["cause"] == "application"


def test_an_alarm_before_the_anchors_are_scored_again_blames_nobody(warehouse: Warehouse) -> None:
    write_scores(warehouse, made_rows(OLD, START, 12 * 24, seed=1))
    write_scores(warehouse, made_rows(OLD, START + 12 * DAY, 24, drop=0.12, seed=2))
    write_anchors(warehouse, START, 12, lambda at, metric: 0.0)
    state = quality_state(judge(warehouse, 12), OLD)
    assert (state["alarm"], state["cause"]) == (True, "undetermined")
    assert "score them before you act" in state["explanation"]


def month(warehouse: Warehouse) -> None:
    """Thirty days of a stream with two deployments, an experiment beside it, and a thin stream whose older variant goes
    on beside the one that was deployed; not in the order of time."""
    others = [Label("gcp", "support-copilot", "gemini", variant) for variant in ("control", "concise")]
    thin = [Label("aws", "document-search", "claude", variant) for variant in ("", "short")]
    rows = [
        *made_rows(thin[0], START, 30 * 24, per_hour=3, seed=7),
        *made_rows(thin[1], START + 4 * DAY + timedelta(hours=5), 25 * 24, per_hour=3, seed=8),
        *made_rows(OLD, START, 12 * 24, per_hour=8, seed=1),
        *made_rows(NEW, START + 12 * DAY + timedelta(hours=9), 200, per_hour=8, drop=0.15, seed=2),
        *made_rows(replace(OLD, model_name="model-3"), START + 21 * DAY, 9 * 24, per_hour=8, seed=3),
        *(row for place, each in enumerate(others) for row in made_rows(each, START, 24 * 30, per_hour=2, seed=place)),
    ]
    random.Random(1).shuffle(rows)
    write_scores(warehouse, rows)


def test_thirty_days_in_any_order_and_thirty_daily_runs_write_the_same_bytes(
    duckdb_warehouse: DuckDBWarehouse, duckdb_template: Path, tmp_path: Path
) -> None:
    month(duckdb_warehouse)
    shutil.copyfile(duckdb_warehouse.path, tmp_path / "backfilled.duckdb")
    backfilled = DuckDBWarehouse(tmp_path / "backfilled.duckdb")
    patient = acme(deadline_hours="96")
    for number in range(30):  # each day as it ends
        judge_customer(duckdb_warehouse, patient, day(number), day(number).end)
    shuffled = list(range(30))
    random.Random(3).shuffle(shuffled)
    judge(backfilled, *shuffled, customer=patient)
    daily = content(duckdb_warehouse)
    assert content(backfilled) == daily
    assert {row["verdict"] for row in daily["verdicts"] if row["final"]} == {"REJECT", "APPROVE", "INCONCLUSIVE"}
    assert {name for name, rows in daily.items() if not rows} == {"rollback_requests", "explanations"}


def test_judging_a_day_again_writes_nothing(warehouse: Warehouse) -> None:
    write_scores(warehouse, made_rows(OLD, START, 9 * 24, seed=1))
    write_scores(warehouse, made_rows(NEW, START + 9 * DAY, 24, drop=0.12, seed=2))
    first = judge(warehouse, 9)
    assert first.written["verdicts"] > 0
    before = {table.name: rows_of(warehouse, table) for table in GATE_TABLES}
    again = judge(warehouse, 9)
    assert set(again.written.values()) == {0}
    assert {table.name: rows_of(warehouse, table) for table in GATE_TABLES} == before


def test_scores_that_come_late_are_taken_into_the_monitor_and_not_into_a_frozen_baseline(warehouse: Warehouse) -> None:
    write_scores(warehouse, made_rows(OLD, START, 10 * 24, seed=1))
    judge(warehouse, *range(6, 10))
    frozen = rows_of(warehouse, BASELINES)
    write_scores(warehouse, made_rows(OLD, START + timedelta(minutes=1), 24, seed=5))
    write_scores(warehouse, made_rows(OLD, START + 8 * DAY + timedelta(minutes=1), 24, drop=0.3, seed=6))
    state = quality_state(judge(warehouse, 9), OLD)
    assert rows_of(warehouse, BASELINES) == frozen
    assert state["scores_seen"] == 12 * 480  # ten days of scores, and two that came late
    assert state["alarms"] == 1


def test_a_rejected_model_makes_no_baseline_and_the_next_one_is_held_against_the_one_before_it(
    warehouse: Warehouse,
) -> None:
    third = replace(OLD, model_name="model-3")
    write_scores(warehouse, made_rows(OLD, START, 9 * 24, seed=1))
    write_scores(warehouse, made_rows(NEW, START + 9 * DAY, 8 * 24, drop=0.12, seed=2))
    write_scores(warehouse, made_rows(third, START + 17 * DAY, 24, drop=0.12, seed=3))
    judged = judge(warehouse, 17)
    assert {row["model_name"] for row in rows_of(warehouse, BASELINES)} == {"model-1"}
    assert judged.verdicts[-1]["verdict"] == "REJECT"
    assert judged.verdicts[-1]["previous_model"] == "model-1"


def test_an_equal_model_is_approved_and_gets_a_baseline_of_its_own(warehouse: Warehouse) -> None:
    write_scores(warehouse, made_rows(OLD, START, 9 * 24, seed=1))
    write_scores(warehouse, made_rows(NEW, START + 9 * DAY, 6 * 24, seed=2))
    judge(warehouse, 9, 14)
    assert [row["verdict"] for row in rows_of(warehouse, VERDICTS) if row["final"]] == ["APPROVE"]
    assert {row["model_name"] for row in rows_of(warehouse, BASELINES)} == {"model-1", "model-2"}


def test_a_new_judge_starts_a_new_baseline_and_says_so(warehouse: Warehouse) -> None:
    write_scores(warehouse, made_rows(OLD, START, 6 * 24, seed=1))
    write_scores(warehouse, made_rows(OLD, START + 6 * DAY, 7 * 24, seed=2, judge_fingerprint="judge-2"))
    waiting = quality_state(judge(warehouse, 5, 6), OLD)
    assert waiting["baseline_key"] is None
    said = "no baseline yet: 480 of 2000 scores are in; judge judge-2 replaced judge-1, whose scores do not compare"
    assert waiting["explanation"] == said
    judge(warehouse, 12)
    reasons = {row["judge_fingerprint"]: row["reason"] for row in rows_of(warehouse, BASELINES)}
    assert "replaced" not in reasons["judge-1"]
    assert reasons["judge-2"].endswith("judge judge-2 replaced judge-1, whose scores do not compare")


THIN = {
    "no baseline": (made_rows(OLD, START, 8, seed=1), made_rows(NEW, START + 9 * DAY, 20, seed=2), "needs 200"),
    "no scores before": (
        [score_row(OLD, START, "a", "error", 0.0)],
        made_rows(NEW, START + 9 * DAY, 20, seed=2),
        "there is no baseline of this judge yet",
    ),
    "all flagged": (
        made_rows(OLD, START, 9 * 24, seed=1),
        made_rows(NEW, START + 9 * DAY, 20, seed=2, flagged=True),
        "flagged as text that addresses the judge",
    ),
    "one session": (
        made_rows(OLD, START, 9 * 24, seed=1),
        made_rows(NEW, START + 9 * DAY, 20, seed=2, conversation_id="the only one"),
        "sessions; a verdict needs 20",
    ),
    "thin": (made_rows(OLD, START, 9 * 24, seed=1), made_rows(NEW, START + 9 * DAY, 1, seed=2), "a verdict needs 30"),
    "another judge": (
        made_rows(OLD, START, 9 * 24, seed=1),
        made_rows(NEW, START + 9 * DAY, 20, seed=2, judge_fingerprint="judge-2"),
        "there is no baseline of this judge yet",
    ),
}


@pytest.mark.parametrize(("before", "after", "said"), [pytest.param(*each, id=name) for name, each in THIN.items()])
def test_what_cannot_be_judged_is_inconclusive_with_its_reason_and_held_at_the_deadline(
    duckdb_warehouse: DuckDBWarehouse, before: Any, after: Any, said: str
) -> None:
    write_scores(duckdb_warehouse, before)
    write_scores(duckdb_warehouse, after)
    judge(duckdb_warehouse, 9)
    rows = rows_of(duckdb_warehouse, VERDICTS)
    assert {row["verdict"] for row in rows} == {"INCONCLUSIVE"}
    assert said in rows[-1]["reason"]
    assert (rows[-1]["final"], rows[-1]["look"]) == (True, 96)
    assert "held for a person to decide" in rows[-1]["reason"]


def test_an_application_sets_its_own_margin_and_what_follows_at_its_deadline(warehouse: Warehouse) -> None:
    write_scores(warehouse, made_rows(OLD, START, 9 * 24, seed=1))
    write_scores(warehouse, made_rows(NEW, START + 9 * DAY, 24, per_hour=2, seed=2))
    judge(warehouse, 9, customer=acme(margins={"quality": "0.4"}, deadline_hours="3", at_deadline="reject"))
    last = rows_of(warehouse, VERDICTS)[-1]
    assert (last["look"], last["verdict"], last["final"]) == (12, "REJECT", True)
    assert "the policy rejects what is undecided" in last["reason"]
    quality = next(each for each in json.loads(last["metrics"])["metrics"] if each["metric"] == "quality")
    assert quality["margin"] == 0.4


def test_a_deployment_that_was_told_is_judged_against_the_scores_before_it(warehouse: Warehouse) -> None:
    write_scores(warehouse, made_rows(OLD, START, 10 * 24, seed=1))
    write_scores(warehouse, made_rows(OLD, START + 10 * DAY, 24, drop=0.12, seed=2))
    for _ in range(2):
        tell(warehouse, "acme", OLD, START + 10 * DAY, "prompt v2", START + 11 * DAY)
    judged = judge(warehouse, 10)
    [told] = rows_of(warehouse, DEPLOYMENTS)
    assert (told["told"], told["note"], told["previous_model"]) == (True, "prompt v2", "model-1")
    assert judged.verdicts[-1]["verdict"] == "REJECT"


def test_a_baseline_frozen_by_hand_is_in_force_from_then_on_and_the_old_one_stays(warehouse: Warehouse) -> None:
    write_scores(warehouse, made_rows(OLD, START, 10 * 24, seed=1))
    write_scores(warehouse, made_rows(OLD, START + 10 * DAY, 6 * 24, drop=0.12, seed=2))
    assert quality_state(judge(warehouse, 11), OLD)["alarm"]
    at = START + 13 * DAY
    made = freeze_now(warehouse, "acme", at, "the drop is accepted", at, since=START + 10 * DAY)
    assert {each.series.metric for each in made} == {"quality", "hallucination", "toxicity"}
    state = quality_state(judge(warehouse, 14), OLD)
    assert (state["alarm"], state["baseline_key"]) == (
        False,
        next(each.baseline.key for each in made if each.series.metric == "quality"),
    )
    assert [row["told"] for row in rows_of(warehouse, BASELINES) if row["metric_type"] == "quality"] == [False, True]


def test_two_variants_are_compared_by_quality_and_cost_in_one_sentence(warehouse: Warehouse) -> None:
    control, concise = (Label("gcp", "support-copilot", "gemini", name) for name in ("control", "concise"))
    for label, seed, tokens in ((control, 1, 200.0), (concise, 2, 100.0)):
        rows = list(made_rows(label, START, 48, seed=seed))
        each = {row["interaction_id"]: row["timestamp"].replace(tzinfo=UTC) for row in rows}
        rows += [score_row(label, at, id, "input_tokens", 100.0) for id, at in each.items()]
        rows += [
            score_row(label, at, id, "output_tokens", tokens + place % 7) for place, (id, at) in enumerate(each.items())
        ]
        write_scores(warehouse, rows)
    judged = judge(warehouse, 1)
    [row] = [row for row in judged.comparisons if row["metric_type"] == "quality"]
    assert (row["variant_a"], row["variant_b"], row["verdict"], row["paired"]) == (
        "control",
        "concise",
        "APPROVE",
        False,
    )
    assert (row["cost_unit"], round(row["saving"], 2)) == ("tokens", 0.33)
    assert row["sentence"].startswith("saves 33 %")
    assert "non-inferior within 5 points, n = 960" in row["sentence"]
    priced = acme(prices={"gemini": {"input": "0.3", "output": "2.5"}})
    judge(warehouse, 1, customer=priced)
    [row] = [row for row in rows_of(warehouse, COMPARISONS) if row["metric_type"] == "quality"]
    assert (row["cost_unit"], round(row["saving"], 2)) == ("USD", 0.47)


def test_the_same_prompts_through_both_variants_are_compared_in_pairs(warehouse: Warehouse) -> None:
    ours, theirs = (Label("gcp", "support-copilot", model, variant) for model, variant in (("m", ""), ("n", "shadow")))
    for label, seed in ((ours, 1), (theirs, 2)):
        rows = list(made_rows(label, START, 24, seed=seed))
        for place, row in enumerate(rows):
            row["conversation_id"] = f"prompt {place // 3}"
        write_scores(warehouse, rows)
    judged = judge(warehouse, 0)
    assert {row["paired"] for row in judged.comparisons} == {True}
    assert {(row["model_a"], row["model_b"], row["n_a"], row["n_b"]) for row in judged.comparisons} == {
        ("m", "n", 480, 480)
    }


def test_a_day_that_has_not_begun_is_not_judged(warehouse: Warehouse) -> None:
    write_scores(warehouse, made_rows(OLD, START, 24, seed=1))
    assert judge_customer(warehouse, acme(), day(0), START) == Judged()
    assert rows_of(warehouse, MONITOR_STATES) == []
