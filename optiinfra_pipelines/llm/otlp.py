"""Spans and events as OpenTelemetry writes them in JSON: OTLP/JSON export requests, and flat records of one span or
event. Pure: decoded JSON in, `Span`s and `Event`s out. What their attributes mean is told by `genai.py`."""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from optiinfra_pipelines.llm.interaction import Unreadable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OTHER_SIGNALS = ("resourceMetrics", "resourceProfiles")
TRACE_BYTES, SPAN_BYTES = 16, 8


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at a moment, by itself (a log record with an event name) or within a span.

    A body that is an object stands among the attributes. Ids are "" where there are none.
    """

    name: str
    at: datetime | None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    trace_id: str = ""
    span_id: str = ""
    resource: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    """One operation. Ids are hexadecimal, "" where there are none; times are None where unknown.

    `failed`: its status is ERROR; `dropped`: its SDK left attributes or events out, because there were too many.
    """

    name: str
    trace_id: str
    span_id: str
    start: datetime | None
    end: datetime | None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    resource: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    failed: bool = False
    dropped: bool = False


def telemetry(record: Any) -> Iterator[Span | Event | Unreadable]:
    """Every span and event in one decoded JSON value.

    An OTLP/JSON request of traces or logs (log records without an event name are none), a flat span (`name`,
    `trace_id`, `span_id`, `start`, `end`, `attributes`, ..., or as OpenTelemetry's SDK for Python prints it), a flat
    event (`event_name`, ...), or a list of these. Requests of other signals hold none; all else is Unreadable.
    """
    if isinstance(record, list):
        for each in record:
            yield from telemetry(each)
    elif not isinstance(record, dict):
        yield Unreadable({"record": record}, "is no JSON object")
    elif "resourceSpans" in record or "resourceLogs" in record:
        yield from _spans(record)
        yield from _logs(record)
    elif isinstance(record.get("event_name"), str):
        yield _flat_event(record)
    elif "attributes" in record and ("trace_id" in record or "context" in record):
        yield _flat_span(record)
    elif not any(signal in record for signal in _OTHER_SIGNALS):
        yield Unreadable(record, "is no OTLP/JSON request, span or event")


def _spans(request: Mapping[str, Any]) -> Iterator[Span]:
    for of_resource in _dicts(request.get("resourceSpans")):
        resource = _attributes(_dict(of_resource.get("resource")).get("attributes"))
        for of_scope in _dicts(of_resource.get("scopeSpans")):
            for span in _dicts(of_scope.get("spans")):
                yield _span(span, resource)


def _span(span: Mapping[str, Any], resource: Mapping[str, Any]) -> Span:
    return Span(
        name=str(span.get("name", "")),
        trace_id=hex_id(span.get("traceId"), TRACE_BYTES),
        span_id=hex_id(span.get("spanId"), SPAN_BYTES),
        start=moment(span.get("startTimeUnixNano")),
        end=moment(span.get("endTimeUnixNano")),
        attributes=_attributes(span.get("attributes")),
        resource=resource,
        events=tuple(
            Event(str(each.get("name", "")), moment(each.get("timeUnixNano")), _attributes(each.get("attributes")))
            for each in _dicts(span.get("events"))
        ),
        failed=is_error(_dict(span.get("status")).get("code")),
        dropped=bool(span.get("droppedAttributesCount") or span.get("droppedEventsCount")),
    )


def _logs(request: Mapping[str, Any]) -> Iterator[Event]:
    for of_resource in _dicts(request.get("resourceLogs")):
        resource = _attributes(_dict(of_resource.get("resource")).get("attributes"))
        for of_scope in _dicts(of_resource.get("scopeLogs")):
            for log in _dicts(of_scope.get("logRecords")):
                attributes, body = _attributes(log.get("attributes")), _value(log.get("body"))
                name = log.get("eventName") or attributes.get("event.name")
                if isinstance(name, str) and name:
                    yield Event(
                        name,
                        moment(log.get("timeUnixNano")) or moment(log.get("observedTimeUnixNano")),
                        attributes | (body if isinstance(body, dict) else {}),
                        hex_id(log.get("traceId"), TRACE_BYTES),
                        hex_id(log.get("spanId"), SPAN_BYTES),
                        resource,
                    )


def _flat_span(record: Mapping[str, Any]) -> Span:
    context = {**record, **_dict(record.get("context"))}
    status = record.get("status")
    return Span(
        name=str(record.get("name", "")),
        trace_id=hex_id(context.get("trace_id"), TRACE_BYTES),
        span_id=hex_id(context.get("span_id"), SPAN_BYTES),
        start=moment(record.get("start", record.get("start_time"))),
        end=moment(record.get("end", record.get("end_time"))),
        attributes=_dict(record.get("attributes")),
        resource=_flat_resource(record),
        events=tuple(
            Event(
                str(each.get("name", "")),
                moment(each.get("time", each.get("timestamp"))),
                _dict(each.get("attributes")),
            )
            for each in _dicts(record.get("events"))
        ),
        failed=is_error(status.get("code", status.get("status_code")) if isinstance(status, dict) else status),
    )


def _flat_event(record: Mapping[str, Any]) -> Event:
    return Event(
        record["event_name"],
        moment(record.get("time", record.get("timestamp"))),
        _dict(record.get("attributes")) | _dict(record.get("body")),
        hex_id(record.get("trace_id"), TRACE_BYTES),
        hex_id(record.get("span_id"), SPAN_BYTES),
        _flat_resource(record),
    )


def _flat_resource(record: Mapping[str, Any]) -> dict[str, Any]:
    resource = _dict(record.get("resource"))
    return _dict(resource.get("attributes")) or resource


def hex_id(value: Any, size: int) -> str:
    """An id of `size` bytes as lower-case hexadecimal digits; "" where there is none, or it is no such id.

    OTLP/JSON has hexadecimal digits; Protobuf's own JSON has base64, and Python's SDK writes 0x before digits.
    """
    if not isinstance(value, str):
        return ""
    digits = value.lower().removeprefix("0x")
    if not re.fullmatch(f"[0-9a-f]{{{2 * size}}}", digits):
        try:
            decoded = b64decode(value, validate=True)
        except (Base64Error, ValueError):
            return ""
        if len(decoded) != size:
            return ""
        digits = decoded.hex()
    return digits if digits.strip("0") else ""


def moment(value: Any) -> datetime | None:
    """A time in nanoseconds since 1970, as a number or digits, or in ISO 8601 (UTC where it names no zone); else None.

    Nanoseconds are cut to microseconds.
    """
    if isinstance(value, str) and not value.isdecimal():
        try:
            at = datetime.fromisoformat(value)
            return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            return None
    nanoseconds = _integer(value)
    try:
        return _EPOCH + timedelta(microseconds=nanoseconds // 1000) if nanoseconds else None
    except OverflowError:
        return None


def is_error(status: Any) -> bool:
    """Whether a span's status code is ERROR, by its number or any of its names."""
    return str(status).upper() in ("2", "ERROR", "STATUS_CODE_ERROR", "STATUSCODE.ERROR")


def _attributes(pairs: Any) -> dict[str, Any]:
    return {each["key"]: _value(each.get("value")) for each in _dicts(pairs) if isinstance(each.get("key"), str)}


def _value(value: Any) -> Any:
    """What an AnyValue of OTLP holds; None for nothing."""
    if not isinstance(value, dict):
        return None
    if "intValue" in value:
        return _integer(value["intValue"])
    if "doubleValue" in value:
        return _number(value["doubleValue"])
    if "arrayValue" in value:
        return [_value(each) for each in _dicts(_dict(value["arrayValue"]).get("values"))]
    if "kvlistValue" in value:
        return _attributes(_dict(value["kvlistValue"]).get("values"))
    return value.get("stringValue", value.get("boolValue", value.get("bytesValue")))


def _integer(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
