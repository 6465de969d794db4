"""The marts of scores: weighted means, flagged texts left out, judges apart, texts beside scores, what judging cost."""

import io
from decimal import Decimal

import pytest
from rich.console import Console

from optiinfra_pipelines.summary import print_summary
from optiinfra_pipelines_tests.dbt_project.conftest import History

pytestmark = pytest.mark.xdist_group("dbt")


def test_an_hours_mean_is_weighted_leaves_flagged_texts_out_and_never_mixes_judges(history: History) -> None:
    rows = {
        (row["metric_type"], row["judge_fingerprint"]): row
        for row in history.after["first"]["marts.application_quality_hourly"]
    }
    assert set(rows) == {("quality", "a"), ("quality", "b"), ("latency_ms", "")}
    first = rows["quality", "a"]
    assert (first["scores"], first["scores_flagged"], first["conversations"]) == (2, 1, 1)
    assert first["interactions_estimated"] == 1 + 4
    assert first["mean_score"] == pytest.approx((0.5 * 1 + 1.0 * 4) / 5)
    assert (first["lowest_score"], first["p50_score"]) == (0.5, 0.75)
    assert rows["quality", "b"]["mean_score"] == 0.75
    assert rows["quality", "b"]["score_deviation"] is None
    measured = rows["latency_ms", ""]
    assert (measured["p50_score"], measured["p95_score"]) == (200, pytest.approx(290))
    assert measured["score_deviation"] == pytest.approx(100)


def test_each_score_stands_beside_what_was_asked_and_answered(history: History) -> None:
    rows = history.after["first"]["marts.application_metrics"]
    assert len(rows) == 4 + 3
    assert {row["prompt_text"] for row in rows} == {f"What is item {number}?" for number in range(3)}
    assert all(row["response_text"].startswith("Item ") for row in rows)


def test_a_days_judging_has_its_states_and_its_price(history: History) -> None:
    [row] = history.after["first"]["marts.llm_scoring_daily"]
    assert (row["collected"], row["scored"], row["flagged"], row["reason"]) == (3, 3, 1, None)
    assert (row["judge_calls"], row["judge_requests"], row["judge_tokens"]) == (2, 5, 1_200)
    assert row["judge_cost"] == Decimal("0.0004")


def test_the_summary_tells_costs_and_scores_on_every_engine(history: History) -> None:
    printed = io.StringIO()
    print_summary(history.target.warehouse, [], Console(file=printed, width=200))
    said = printed.getvalue()
    for expected in ("cost per customer and provider", "interactions before the judge", "support-copilot"):
        assert expected in said
    assert "failed checks: none" in said
