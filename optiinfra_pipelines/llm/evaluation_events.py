"""Scores as OpenTelemetry's event gen_ai.evaluation.result: ours, for any backend of traces, and those of others.

Pure: rows in, OTLP/JSON out, and back. What a score means is told in `tables/llm.py`.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from optiinfra_pipelines.llm.openai_bodies import clean
from optiinfra_pipelines.llm.otlp import Event, Span, telemetry

RESULT = "gen_ai.evaluation.result"
_SCOPE = "optiinfra_pipelines.quality"
_AT_ONCE = 500  # log records in one request: about 300 KB
# Columns that say whose score it is; not part of the conventions, so under a name of our own.
_OWN = ("customer_id", "application_id", "model_name", "variant", "interaction_id", "score_id", "judge_fingerprint")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A verdict on a call of a model: a score, a label, or both. It names the call by span, by response, or both.

    `at` is when it was made, None where the event does not tell; ids are "" where there are none.
    """

    name: str
    score: float | None
    label: str
    explanation: str
    response_id: str
    trace_id: str
    span_id: str
    at: datetime | None
    error_type: str = ""


def evaluations(record: Any) -> list[Evaluation]:
    """Every evaluation in one decoded JSON value, as `otlp.telemetry` takes it: of log records, and of spans' events.

    An event without gen_ai.evaluation.name is none.
    """
    found = []
    for told in telemetry(record):
        events: list[tuple[Event, str, str]] = []
        if isinstance(told, Event):
            events = [(told, told.trace_id, told.span_id)]
        elif isinstance(told, Span):
            events = [(each, told.trace_id, told.span_id) for each in told.events]
        found += [_evaluation(event, *ids) for event, *ids in events if _names_one(event)]
    return found


def _names_one(event: Event) -> bool:
    return event.name == RESULT and bool(_str(event.attributes.get("gen_ai.evaluation.name")))


def _evaluation(event: Event, trace_id: str, span_id: str) -> Evaluation:
    told = event.attributes
    score = told.get("gen_ai.evaluation.score.value")
    number = isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)
    return Evaluation(
        name=_str(told["gen_ai.evaluation.name"]),
        score=float(score) if score is not None and number else None,
        label=_str(told.get("gen_ai.evaluation.score.label")),
        explanation=_str(told.get("gen_ai.evaluation.explanation")),
        response_id=_str(told.get("gen_ai.response.id")),
        trace_id=trace_id,
        span_id=span_id,
        at=event.at,
        error_type=_str(told.get("error.type")),
    )


def evaluation_events(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Judged scores as ExportLogsServiceRequests of OTLP/JSON, each to be one line or the body of one POST /v1/logs.

    `rows` are rows of quality.application_metrics with `trace_id`, `span_id` and, where there is one, `response_id` of
    their interactions; times are UTC. Measured ones (latency, tokens) evaluate nothing and are left out. An event is
    parented to the span that it evaluates.
    """
    records: list[dict[str, Any]] = []
    for row in rows:
        if row["judge_fingerprint"]:
            records.append(_log_record(row))
        if len(records) == _AT_ONCE:
            yield _request(records)
            records = []
    if records:
        yield _request(records)


def _request(records: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "resourceLogs": [
            {
                "resource": {"attributes": _attributes({"service.name": "optiinfra_pipelines"})},
                "scopeLogs": [{"scope": {"name": _SCOPE}, "logRecords": records}],
            }
        ]
    }


def _log_record(row: Mapping[str, Any]) -> dict[str, Any]:
    details = row["details"]
    details = json.loads(details) if isinstance(details, str) else details
    nanoseconds = str(_nanoseconds(row["collected_at"]))
    attributes = {
        "gen_ai.evaluation.name": row["metric_type"],
        "gen_ai.evaluation.score.value": float(row["score"]),
        "gen_ai.evaluation.score.label": details.get("level"),
        "gen_ai.evaluation.explanation": details.get("reason", details.get("reasoning")),
        "gen_ai.response.id": row.get("response_id"),
    }
    record = {
        "timeUnixNano": nanoseconds,
        "observedTimeUnixNano": nanoseconds,
        "severityNumber": 9,
        "eventName": RESULT,
        "attributes": _attributes(attributes | {f"optiinfra.{name}": row.get(name) for name in _OWN}),
    }
    if row.get("trace_id") and row.get("span_id"):
        record |= {"traceId": row["trace_id"], "spanId": row["span_id"]}
    return record


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Attributes as OTLP/JSON writes them; without those that have no value."""
    return [
        {"key": name, "value": {"doubleValue": value} if isinstance(value, float) else {"stringValue": str(value)}}
        for name, value in values.items()
        if value is not None and value != ""
    ]


def _nanoseconds(at: datetime) -> int:
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def _str(value: Any) -> str:
    return clean(value) if isinstance(value, str) else ""
