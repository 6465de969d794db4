"""Traces for tests, written as the OpenTelemetry Collector writes them: requests of OTLP/JSON; and where they lie."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from optiinfra_pipelines.clouds.collecting import Source
from optiinfra_pipelines.customers import Connection
from optiinfra_pipelines.llm.genai import interaction
from optiinfra_pipelines.llm.interaction import Found, Interaction, Unreadable
from optiinfra_pipelines.llm.otlp import Event, Span, telemetry
from optiinfra_pipelines.llm.trace_files import trace_interactions
from optiinfra_pipelines.places import LlmSource
from optiinfra_pipelines.windows import Window

AT = datetime(2026, 8, 1, 10, 0, tzinfo=UTC)
DAY = Window(datetime(2026, 8, 1, tzinfo=UTC), datetime(2026, 8, 2, tzinfo=UTC))
ASKED = [{"role": "user", "parts": [{"type": "text", "content": "Capital of France?"}]}]
ANSWERED = [
    {"role": "assistant", "parts": [{"type": "text", "content": "Paris."}], "finish_reason": "stop"},
]
CHAT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.input.messages": json.dumps(ASKED),
    "gen_ai.output.messages": json.dumps(ANSWERED),
}


def trace_id(number: int) -> str:
    return f"{number:032x}"


def span_id(number: int) -> str:
    return f"{number:016x}"


def nanoseconds(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def any_value(value: Any) -> dict[str, Any]:
    """A value as OTLP/JSON types it."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value(each) for each in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": attributes(value)}}
    return {"stringValue": value}


def attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": any_value(value)} for name, value in values.items()]


def otlp_span(
    told: Mapping[str, Any],
    number: int = 1,
    *,
    at: datetime = AT,
    seconds: float = 1.2,
    events: Sequence[tuple[str, float, Mapping[str, Any]]] = (),
    **fields: Any,
) -> dict[str, Any]:
    """A span of that number with those attributes; events are name, seconds after its start, attributes."""
    return {
        "traceId": trace_id(number),
        "spanId": span_id(number),
        "name": "chat gpt-4o",
        "kind": 3,
        "startTimeUnixNano": str(nanoseconds(at)),
        "endTimeUnixNano": str(nanoseconds(at + timedelta(seconds=seconds))),
        "attributes": attributes(told),
        "events": [
            {
                "name": name,
                "timeUnixNano": str(nanoseconds(at + timedelta(seconds=after))),
                "attributes": attributes(values),
            }
            for name, after, values in events
        ],
        **fields,
    }


def spans(*each: dict[str, Any], **resource: str) -> dict[str, Any]:
    """A request with these spans; keywords are attributes of the resource, service__name for service.name."""
    of_resource = {name.replace("__", "."): value for name, value in resource.items()}
    scope = {"scope": {"name": "test"}, "spans": list(each)}
    return {"resourceSpans": [{"resource": {"attributes": attributes(of_resource)}, "scopeSpans": [scope]}]}


def otlp_event(
    name: str, told: Mapping[str, Any], number: int = 1, *, at: datetime = AT, body: Any = None, **fields: Any
) -> dict[str, Any]:
    """A log record that is an event of the span of that number."""
    record = {
        "traceId": trace_id(number),
        "spanId": span_id(number),
        "observedTimeUnixNano": str(nanoseconds(at)),
        "eventName": name,
        "attributes": attributes(told),
        **fields,
    }
    return record if body is None else record | {"body": any_value(body)}


def events(*each: dict[str, Any], **resource: str) -> dict[str, Any]:
    of_resource = {name.replace("__", "."): value for name, value in resource.items()}
    scope = {"scope": {"name": "test"}, "logRecords": list(each)}
    return {"resourceLogs": [{"resource": {"attributes": attributes(of_resource)}, "scopeLogs": [scope]}]}


def source(place: LlmSource, **credentials: str) -> Source:
    connection = Connection(id="llm", collect=("llm_interactions",), llm=(place,), provider="vultr")
    return Source("acme", connection, {name: SecretStr(value) for name, value in credentials.items()}, timeout=10)


def lines(*records: Any) -> str:
    return "".join(json.dumps(each) + "\n" for each in records)


def read_folder(folder: Path, span: Window = DAY, **fields: Any) -> list[Found]:
    place = LlmSource(location=str(folder), format="opentelemetry", **fields)
    return list(trace_interactions(source(place), place, span))


def interactions(found: Iterable[Found]) -> list[Interaction]:
    """All of them, by time; none may be Unreadable."""
    told = list(found)
    assert [each for each in told if not isinstance(each, Interaction)] == []
    return sorted((each for each in told if isinstance(each, Interaction)), key=lambda each: each.timestamp)


def found_in(*records: Any, application_label: str = "app", variant_label: str = "variant") -> list[Found]:
    """What a source makes of these records: spans and events with one span id are one."""
    calls: dict[str, tuple[list[Span], list[Event]]] = defaultdict(lambda: ([], []))
    found: list[Found] = []
    for number, told in enumerate(each for record in records for each in telemetry(record)):
        if isinstance(told, Unreadable):
            found.append(told)
        elif isinstance(told, Span):
            calls[told.span_id or str(number)][0].append(told)
        else:
            calls[told.span_id or str(number)][1].append(told)
    for of_call, its_events in calls.values():
        made = interaction(of_call[0] if of_call else None, its_events, application_label, variant_label)
        found += [made] if made else []
    return found


def only(*records: Any, **labels: str) -> Interaction:
    (found,) = found_in(*records, **labels)
    assert isinstance(found, Interaction)
    return found
