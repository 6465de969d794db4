"""Scores as OpenTelemetry's evaluation events: as others read ours, and as we read others'."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from optiinfra_pipelines.llm.evaluation_events import Evaluation, evaluation_events, evaluations
from optiinfra_pipelines_tests.llm.traces import AT, CHAT, otlp_span, span_id, spans, trace_id

SCORED_AT = datetime(2026, 8, 1, 10, 20, 0, 250_000, tzinfo=UTC)


def row(metric: str = "hallucination", **columns: Any) -> dict[str, Any]:
    """A row of quality.application_metrics with the ids of its interaction's span."""
    return {
        "score_id": "score-1",
        "timestamp": AT.replace(tzinfo=None),
        "customer_id": "acme",
        "provider": "azure",
        "application_id": "helpdesk",
        "application_name": "Help desk",
        "metric_type": metric,
        "score": 0.25,
        "details": json.dumps({"level": "minor", "evidence": "Lyon", "reason": "Unsupported: “Lyon”."}),
        "model_name": "gpt-4o",
        "metadata": "{}",
        "collected_at": SCORED_AT.replace(tzinfo=None),
        "interaction_id": "interaction-1",
        "variant": "",
        "judge_fingerprint": "0123456789abcdef",
        "trace_id": trace_id(7),
        "span_id": span_id(7),
        **columns,
    }


def records(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        record
        for request in evaluation_events(rows)
        for record in request["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    ]


def test_a_score_is_an_event_on_the_span_that_it_is_about() -> None:
    (request,) = evaluation_events([row(response_id="chatcmpl-1")])
    assert evaluations(json.loads(json.dumps(request))) == [
        Evaluation(
            name="hallucination",
            score=0.25,
            label="minor",
            explanation="Unsupported: “Lyon”.",
            response_id="chatcmpl-1",
            trace_id=trace_id(7),
            span_id=span_id(7),
            at=SCORED_AT,
        )
    ]


def test_events_keep_to_the_published_conventions(data: Path) -> None:
    groups = yaml.safe_load((data / "llm" / "otel_genai_v1.41.1" / "events.yaml").read_text())["groups"]
    (event,) = (each for each in groups if each.get("name") == "gen_ai.evaluation.result")
    defined = {each["ref"] for each in event["attributes"]}
    required = {each["ref"] for each in event["attributes"] if each["requirement_level"] == "required"}
    for record in records(row(response_id="chatcmpl-1"), row(trace_id=None, span_id=None, details="{}")):
        names = {each["key"] for each in record["attributes"]}
        assert record["eventName"] == event["name"]
        assert required <= names
        assert {name for name in names if not name.startswith("optiinfra.")} <= defined


def test_requests_are_what_an_otlp_receiver_parses() -> None:
    (request,) = evaluation_events([row(), row("toxicity", score=0, trace_id=None)])
    line = json.dumps(request)
    of_ids = line.replace(trace_id(7), "AAAAAAAAAAAAAAAAAAAABw==").replace(span_id(7), "AAAAAAAAAAc=")
    parsed = Parse(of_ids, ExportLogsServiceRequest())  # Protobuf's JSON has ids in base64 where OTLP's has digits
    first, second = parsed.resource_logs[0].scope_logs[0].log_records
    assert (first.trace_id.hex(), first.span_id.hex()) == (trace_id(7), span_id(7))
    assert (first.event_name, second.trace_id) == ("gen_ai.evaluation.result", b"")
    values = {each.key: each.value for each in second.attributes}
    assert values["gen_ai.evaluation.score.value"].double_value == 0.0
    assert values["gen_ai.evaluation.score.value"].WhichOneof("value") == "double_value"
    assert values["optiinfra.application_id"].string_value == "helpdesk"
    assert "optiinfra.variant" not in values


def test_measured_scores_are_no_evaluations() -> None:
    assert records(row("latency_ms", score=1200.0, judge_fingerprint="")) == []
    assert list(evaluation_events([])) == []


def test_many_scores_are_many_requests() -> None:
    sizes = [
        len(each["resourceLogs"][0]["scopeLogs"][0]["logRecords"])
        for each in evaluation_events(row(score_id=str(number)) for number in range(1_001))
    ]
    assert sizes == [500, 500, 1]


def test_evaluations_of_others_are_read_from_events_and_from_within_spans(data: Path) -> None:
    sample = (data / "llm" / "wire" / "otel_genai_span.jsonl").read_text().splitlines()
    read = [found for line in sample for found in evaluations(json.loads(line))]
    assert [(each.name, each.score, each.label, each.response_id) for each in read] == [
        ("hallucination", 0.0, "grounded", "chatcmpl-1")
    ]
    assert read[0].span_id == "00f067aa0ba902b7"
    within = ("gen_ai.evaluation.result", 5.0, {"gen_ai.evaluation.name": "relevance", "error.type": "timeout"})
    (found,) = evaluations(spans(otlp_span(CHAT, events=[within])))
    assert (found.name, found.score, found.span_id, found.error_type) == ("relevance", None, span_id(1), "timeout")


@pytest.mark.parametrize("score", ["high", True, None, [1]])
def test_a_score_that_is_no_number_is_none(score: Any) -> None:
    told = {"gen_ai.evaluation.name": "relevance", "gen_ai.evaluation.score.value": score}
    (found,) = evaluations({"event_name": "gen_ai.evaluation.result", "attributes": told})
    assert (found.name, found.score, found.at) == ("relevance", None, None)
    assert evaluations({"event_name": "gen_ai.evaluation.result", "attributes": {}}) == []
