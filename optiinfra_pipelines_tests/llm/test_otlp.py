"""How spans and events are written in JSON: ids, times, flat records, and what is none of them."""

import json
from typing import Any

import pytest

from optiinfra_pipelines.llm.interaction import Unreadable
from optiinfra_pipelines_tests.llm.traces import CHAT, events, found_in, only, otlp_event, otlp_span, spans, trace_id


def test_ids_may_be_written_in_base64_as_protobuf_does() -> None:
    span = otlp_span(CHAT, traceId="8niipeRF1ex1OuYjGper9w==", spanId="yMrw00nei48=")
    assert only(spans(span)).native_id == "f278a2a5e445d5ec753ae6231a97abf7:c8caf0d349de8b8f"


@pytest.mark.parametrize("nothing", ["", "0" * 16, "not an id", "AAAAAAAAAAA=", 7, None])
def test_an_id_of_zeros_or_that_is_none_is_no_id(nothing: Any) -> None:
    told = CHAT | {"gen_ai.response.id": "chatcmpl-1"}
    found = only(spans(otlp_span(told, spanId=nothing)))
    assert (found.native_id, found.span_id, found.trace_id) == ("chatcmpl-1", None, trace_id(1))


def test_a_span_as_the_sdk_for_python_prints_it_is_read() -> None:
    printed = {
        "name": "chat gpt-4o",
        "context": {"trace_id": "0x4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "0x00f067aa0ba902b7"},
        "start_time": "2026-08-01T10:00:00.000000Z",
        "end_time": "2026-08-01T10:00:01.500000Z",
        "status": {"status_code": "ERROR"},
        "attributes": CHAT,
        "events": [{"name": "exception", "timestamp": "2026-08-01T10:00:01Z", "attributes": {"exception.type": "E"}}],
        "resource": {"attributes": {"service.name": "shop"}},
    }
    found = only(printed)
    assert (found.trace_id, found.latency_ms) == ("4bf92f3577b34da6a3ce929d0e0e4736", 1500.0)
    assert (found.application, found.error_type, found.texts.output) == ("shop", "E", "Paris.")


def test_a_call_that_nothing_names_or_that_has_no_time_is_unreadable() -> None:
    nameless, timeless = (
        found_in(spans(otlp_span(CHAT, spanId="")))[0],
        found_in(spans(otlp_span(CHAT, startTimeUnixNano="0")))[0],
    )
    assert isinstance(nameless, Unreadable)
    assert nameless.reason == "has neither trace and span id nor gen_ai.response.id"
    assert isinstance(timeless, Unreadable)
    assert timeless.reason == "does not tell when it began"
    assert json.loads(json.dumps(timeless.record))["attributes"] == CHAT


def test_other_signals_and_ordinary_log_records_are_passed_over_and_other_json_is_unreadable() -> None:
    log = otlp_event("", {}, body="request served")
    assert found_in({"resourceMetrics": []}, events(log), spans()) == []
    assert [each.reason for each in found_in({"some": "thing"}, 7) if isinstance(each, Unreadable)] == [
        "is no OTLP/JSON request, span or event",
        "is no JSON object",
    ]
