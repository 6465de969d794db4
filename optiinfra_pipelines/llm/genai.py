"""The interaction that a span of OpenTelemetry and its events tell: which spans are calls of a model, and what each
vocabulary of attributes calls its facts. Pure; texts are read in `genai_messages.py`, JSON in `otlp.py`."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from optiinfra_pipelines.llm.genai_messages import CHOICE, DETAILS, ROLES, said
from optiinfra_pipelines.llm.interaction import UNKNOWN, Found, Interaction, Unreadable, conversation
from optiinfra_pipelines.llm.openai_bodies import clean
from optiinfra_pipelines.llm.otlp import Event, Span

OPERATIONS = ("chat", "text_completion", "generate_content", "embeddings")
CALL_EVENTS = (DETAILS, CHOICE, *ROLES)
"""Names of events that tell of a call of a model, beside or instead of its span."""

_BY_KIND = {"LLM": "chat", "EMBEDDING": "embeddings"}  # openinference.span.kind
_BY_TYPE = {
    "chat": "chat",
    "completion": "text_completion",
    "embedding": "embeddings",
}  # OpenLLMetry, vocabulary of 2023
_INPUT_TOKENS = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.token_count.prompt",
    "llm.usage.prompt_tokens",
)
_OUTPUT_TOKENS = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.token_count.completion",
    "llm.usage.completion_tokens",
)
_TOTAL_TOKENS = ("gen_ai.usage.total_tokens", "llm.token_count.total", "llm.usage.total_tokens")
_CACHED_TOKENS = (
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "llm.token_count.prompt_details.cache_read",
)
_REASONING_TOKENS = (
    "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.usage.reasoning_tokens",
    "llm.usage.reasoning_tokens",
    "llm.token_count.completion_details.reasoning",
)
_MODELS = (
    "gen_ai.response.model",
    "gen_ai.request.model",
    "llm.response.model_name",
    "llm.model_name",
    "embedding.model_name",
    "llm.request.model_name",
)
_CONVERSATIONS = (
    "gen_ai.conversation.id",
    "session.id",
    "traceloop.association.properties.conversation_id",
    "traceloop.association.properties.session_id",
)
_FINISH_REASONS = ("gen_ai.response.finish_reasons", "gen_ai.response.finish_reason", "llm.finish_reason")
_FIRST_TOKENS = ("gen_ai.response.time_to_first_chunk", "gen_ai.latency.time_to_first_token")  # seconds
_FIRST_TOKEN_EVENTS = ("First Token Stream Event", "gen_ai.content.completion.chunk", "llm.content.completion.chunk")
_DETAILS = (
    "gen_ai.provider.name",
    "gen_ai.system",
    "llm.provider",
    "llm.system",
    "gen_ai.request.model",
    "gen_ai.request.id",
    "gen_ai.response.id",
    "gen_ai.request.temperature",
    "gen_ai.request.top_p",
    "gen_ai.request.max_tokens",
    "gen_ai.request.stream",
    "gen_ai.agent.name",
    "gen_ai.agent.id",
    "gen_ai.prompt.name",
    "gen_ai.workflow.name",
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.latency.time_in_queue",
    "llm.cost.total",
    "server.address",
    *_TOTAL_TOKENS,
)
MARKS = (
    "gen_ai.operation.name",
    "openinference.span.kind",
    "llm.request.type",
    "traceloop.span.kind",
    "gen_ai.latency.e2e",
    *_INPUT_TOKENS,
    *_OUTPUT_TOKENS,
)
"""Attributes of which every span that is about a model has one, be it a call of it or something around such calls."""


def operation(attributes: Mapping[str, Any]) -> str | None:
    """Which call of a model a span with these attributes is; None where it is none: an agent, a tool, a retrieval."""
    if named := _text(attributes, "gen_ai.operation.name").lower():
        return named if named in OPERATIONS else None
    if kind := _text(attributes, "openinference.span.kind").upper():
        return _BY_KIND.get(kind)
    if asked := _text(attributes, "llm.request.type").lower():
        return _BY_TYPE.get(asked)
    if "traceloop.span.kind" in attributes:
        return None
    return "chat" if any(mark in attributes for mark in MARKS) else None  # vLLM's own spans name no operation


def interaction(span: Span | None, events: Sequence[Event], application_label: str, variant_label: str) -> Found | None:
    """The call that a span tells, together with events of the same span id; without a span, what events tell.

    None where they are no call of a model. Where both tell a fact, the span's counts. Application and variant are the
    attributes of those names, of the call, its metadata or its resource; the application is else the service's name.
    """
    attributes = _merged(span, events)
    does = operation(attributes) or ("chat" if span is None and any(e.name == CHOICE for e in events) else None)
    if does is None:
        return None
    resource = span.resource if span else next((each.resource for each in events if each.resource), {})
    span_id, trace_id = _ids(span, events)
    native_id = f"{trace_id}:{span_id}" if trace_id and span_id else _text(attributes, "gen_ai.response.id")
    started = span.start if span else min((each.at for each in events if each.at), default=None)
    if not native_id or started is None:
        told = {"name": span.name if span else events[0].name, "trace_id": trace_id, "span_id": span_id}
        reason = "has neither trace and span id nor gen_ai.response.id" if started else "does not tell when it began"
        return Unreadable(told | {"attributes": dict(attributes)}, reason)
    within = [*(span.events if span else ()), *sorted(events, key=lambda each: each.at or started)]
    speech = said(attributes, within)
    failed = bool(span and span.failed)
    tokens = _tokens(attributes, does)
    return Interaction(
        native_id=native_id,
        timestamp=started,
        model_name=_text(attributes, *_MODELS) or _model_asked_for(attributes) or UNKNOWN,
        texts=conversation(speech.messages, speech.output),
        truncated=speech.cut or bool(span and span.dropped),
        application=_label(application_label, attributes, resource) or _service(resource),
        variant=_label(variant_label, attributes, resource),
        conversation_id=_text(attributes, *_CONVERSATIONS) or None,
        operation=does,
        account_id=_text(resource, "cloud.account.id"),
        region=_text(resource, "cloud.region") or None,
        input_tokens=tokens[0],
        output_tokens=tokens[1],
        cached_tokens=_count(attributes, *_CACHED_TOKENS),
        reasoning_tokens=_count(attributes, *_REASONING_TOKENS),
        latency_ms=_latency_ms(span, attributes),
        time_to_first_token_ms=_first_token_ms(attributes, within, span),
        finish_reason=_first_of(attributes, *_FINISH_REASONS) or speech.finish_reason,
        error_type=_text(attributes, "error.type") or (_exception(within) if failed else None),
        trace_id=trace_id or None,
        span_id=span_id or None,
        details=_details(attributes, span, speech.choices),
    )


def _merged(span: Span | None, events: Sequence[Event]) -> dict[str, Any]:
    """The attributes of a call: the span's, and where it lacks them those of events about the whole of the call."""
    merged: dict[str, Any] = {}
    for event in (*events, *(span.events if span else ())):
        if event.name == DETAILS or (span is None and event.name in CALL_EVENTS):
            merged |= {
                name: value for name, value in event.attributes.items() if name.startswith(("gen_ai.", "error."))
            }
    return merged | dict(span.attributes if span else {})


def _ids(span: Span | None, events: Sequence[Event]) -> tuple[str, str]:
    told: Iterable[Span | Event] = (span,) if span else events
    return next(((each.span_id, each.trace_id) for each in told if each.trace_id), ("", ""))


def _text(attributes: Mapping[str, Any], *names: str) -> str:
    for name in names:
        value = attributes.get(name)
        if isinstance(value, str | int | float) and str(value).strip():
            return clean(str(value)).strip()
    return ""


def _first_of(attributes: Mapping[str, Any], *names: str) -> str | None:
    """The first text of a list, be it a list, a list as JSON text (as ClickHouse has it) or one text."""
    for name in names:
        value = attributes.get(name)
        if isinstance(value, str) and value.startswith("["):
            value = _json(value)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, str) and each:
                return clean(each)
    return None


def _number(attributes: Mapping[str, Any], *names: str) -> float | None:
    for name in names:
        value = attributes.get(name)
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            try:
                number = float(value)
            except (ValueError, OverflowError):
                continue
            if math.isfinite(number) and number >= 0:
                return number
    return None


def _count(attributes: Mapping[str, Any], *names: str) -> int | None:
    number = _number(attributes, *names)
    return int(number) if number is not None and number < 2**31 else None


def _tokens(attributes: Mapping[str, Any], does: str) -> tuple[int | None, int | None]:
    """Tokens in and out; where one is not told, what the other leaves of the total."""
    given, made = _count(attributes, *_INPUT_TOKENS), _count(attributes, *_OUTPUT_TOKENS)
    total = _count(attributes, *_TOTAL_TOKENS)
    if total is not None and given is None and made is not None and made <= total:
        given = total - made
    elif total is not None and made is None and given is not None and given <= total and does != "embeddings":
        made = total - given
    return given, made


def _model_asked_for(attributes: Mapping[str, Any]) -> str:
    """The model in the parameters that OpenInference notes: where a call failed, it is named nowhere else."""
    asked = _json(attributes.get("llm.invocation_parameters", attributes.get("embedding.invocation_parameters")))
    return _text(asked, "model") if isinstance(asked, dict) else ""


def _latency_ms(span: Span | None, attributes: Mapping[str, Any]) -> float | None:
    if span and span.start and span.end and span.end >= span.start:
        return (span.end - span.start) / timedelta(milliseconds=1)
    seconds = _number(attributes, "gen_ai.latency.e2e")
    return None if seconds is None else seconds * 1000


def _first_token_ms(attributes: Mapping[str, Any], events: Sequence[Event], span: Span | None) -> float | None:
    seconds = _number(attributes, *_FIRST_TOKENS)
    if seconds is not None:
        return seconds * 1000
    first = min((each.at for each in events if each.name in _FIRST_TOKEN_EVENTS and each.at), default=None)
    if first is None or span is None or span.start is None or first < span.start:
        return None
    return (first - span.start) / timedelta(milliseconds=1)


def _label(label: str, attributes: Mapping[str, Any], resource: Mapping[str, Any]) -> str:
    metadata = _json(attributes.get("metadata"))  # OpenInference
    return (
        _text(attributes, label, f"traceloop.association.properties.{label}")
        or _text(metadata if isinstance(metadata, dict) else {}, label)
        or _text(resource, label)
    )


def _service(resource: Mapping[str, Any]) -> str:
    name = _text(resource, "service.name")
    return "" if name.split(":")[0] == "unknown_service" else name  # what SDKs write where nobody named it


def _exception(events: Sequence[Event]) -> str:
    named = (_text(each.attributes, "exception.type") for each in events if each.name == "exception")
    return next(filter(None, named), "ERROR")


def _details(attributes: Mapping[str, Any], span: Span | None, choices: int) -> dict[str, Any]:
    details: dict[str, Any] = {name: told for name in _DETAILS if (told := _fact(attributes.get(name))) is not None}
    if span:
        details["span"] = clean(span.name)
    if choices > 1:
        details["choices"] = choices
    return details


def _fact(value: Any) -> str | int | float | None:
    """The value as JSON can hold it; None for nothing and for what is no text, number or truth value."""
    if isinstance(value, str):
        return clean(value) or None
    return value if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)) else None


def _json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def happened(told: Span | Event) -> tuple[datetime | None, datetime | None]:
    """When a span or an event began and ended; both are None where it tells neither."""
    if isinstance(told, Event):
        return told.at, told.at
    return told.start or told.end, told.end or told.start
