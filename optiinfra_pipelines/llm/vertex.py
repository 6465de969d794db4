"""Rows of Vertex AI's request-response log in BigQuery as interactions: bodies of Gemini, Anthropic and OpenAI. Pure.

How rows are asked for is in `clouds/gcp/interactions.py`.
https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/request-response-logging
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, replace
from datetime import datetime, timedelta
from functools import cache
from itertools import groupby
from typing import Any

from optiinfra_pipelines.llm.interaction import UNKNOWN, Found, Interaction, Message, Texts, Unreadable, conversation
from optiinfra_pipelines.llm.openai_bodies import body, clean, count, read_answer, read_request
from optiinfra_pipelines.places import LlmSource
from optiinfra_pipelines.windows import as_utc

LATENESS = timedelta(hours=1)
"""How long before it is logged a request may have been made: a createTime further off is not believed."""

Body = Mapping[str, Any]
Said = dict[str, Any]  # fields of an Interaction that bodies tell

# https://cloud.google.com/vertex-ai/docs/reference/rest/v1/GenerateContentResponse#FinishReason, and its BlockedReason
_GEMINI_REASONS = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"), "content_filter"),
    **dict.fromkeys(("MODEL_ARMOR", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT"), "content_filter"),
    "FINISH_REASON_UNSPECIFIED": None,
}
# https://docs.anthropic.com/en/api/messages (stop_reason)
_ANTHROPIC_REASONS = {
    **dict.fromkeys(("end_turn", "stop_sequence"), "stop"),
    **dict.fromkeys(("max_tokens", "model_context_window_exceeded"), "length"),
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_LONGEST = 2**53  # milliseconds that a float tells apart
_OWNER = re.compile(r"(?:^|/)projects/([^/]+)/locations/([^/]+)")


def parse(row: Mapping[str, Any], place: LlmSource) -> Found:
    """The interaction of one row, or why it is none: no request_id, no logging_time, no body that can be read.

    `row` has the log table's columns: logging_time a datetime or RFC 3339 text, bodies and metadata JSON or text of it.
    The timestamp is the answer's createTime, by Google's reference when the request was made to the server, which only
    Gemini tells; else, or where that is not within LATENESS before it, logging_time: when the answer was whole. Labels,
    or a chat's metadata, name application and variant as `place` says, and the conversation as conversation_id. Where
    a Gemini answer stops after calling functions, its finish reason is tool_calls. Of several candidates the first one
    counts; thoughts are left out. otel_log repeats what the bodies say and is not read.
    """
    native_id, logged = _native_id(row.get("request_id")), logged_at(row)
    if not native_id:
        return Unreadable(row, "request_id is missing")
    if logged is None:
        return Unreadable(row, "logging_time is no time with a zone")
    try:
        requests = _objects(row.get("full_request")) or _unwrapped(_objects(row.get("request_payload")), "instances")
        chunks = _objects(row.get("full_response")) or _unwrapped(_objects(row.get("response_payload")), "predictions")
        request: Body = requests[0] if requests else {}
        wire = _wire(request, chunks)
        if wire is None:
            return Unreadable(row, "the request holds neither contents nor messages")
        said, metadata = wire(request, chunks), _objects(row.get("metadata"))
    except (ValueError, RecursionError):
        return Unreadable(row, "a body is no JSON that can be read")
    paths = [
        value for value in (row.get("endpoint"), _at(request, "model"), row.get("model")) if isinstance(value, str)
    ]
    owner = next(filter(None, map(_OWNER.search, paths)), None)
    labels = _at(request, "labels") or _at(request, "metadata")
    created = _moment(_last_at(chunks[:1], "create_time"))
    texts, details = said.pop("texts"), said.pop("details")
    told = {"response_id": _last_at(chunks, "response_id")}
    told |= {name: row.get(name) for name in ("api_method", "deployed_model_id")}
    return Interaction(
        native_id=native_id,
        timestamp=created if created and timedelta(0) <= logged - created <= LATENESS else logged,
        model_name=_model(chunks, paths),
        application=_label(labels, place.application_label),
        variant=_label(labels, place.variant_label),
        conversation_id=_label(labels, "conversation_id") or None,
        account_id=owner[1] if owner else "",
        region=owner[2] if owner else None,
        latency_ms=_duration(_at(metadata[0], "request_latency") if metadata else None),
        error_type=_error(chunks),
        texts=Texts(*map(clean, astuple(texts))),
        details=_present(told | details),
        **said,
    )


def logged_at(row: Mapping[str, Any]) -> datetime | None:
    """When Vertex AI logged the row, in UTC; None where the row does not tell."""
    return _moment(row.get("logging_time"))


def _wire(request: Body, chunks: list[Body]) -> Callable[[Body, list[Body]], Said] | None:
    if _at(request, "contents") is not None:
        return _gemini
    if not isinstance(request.get("messages"), list):
        return None
    answered = any(chunk.get("type") in ("message", "message_start") for chunk in chunks)
    return _anthropic if answered or _at(request, "anthropic_version") else _openai


def _gemini(request: Body, chunks: list[Body]) -> Said:
    system = _text(map(_gemini_part, _list(_at(request, "system_instruction", "parts"))))
    turns = [turn for content in _list(_at(request, "contents")) for turn in _gemini_turns(content)]
    candidates = [
        candidate
        for chunk in chunks
        for number, candidate in enumerate(_list(_at(chunk, "candidates")))
        if (number if _at(candidate, "index") is None else _at(candidate, "index")) == 0
    ]
    parts = _joined([part for each in candidates for part in _list(_at(each, "content", "parts"))])
    texts = conversation([Message("system", system), *turns], _text(map(_gemini_part, parts)))
    found = [
        _at(each, "retrieved_context", "text")
        for each in _list(_last_at(candidates, "grounding_metadata", "grounding_chunks"))
    ]
    documents = [f"document: {text}" for text in found if isinstance(text, str) and text]
    blocked = _last_at(chunks, "prompt_feedback", "block_reason")
    finish = _reason(_last_at(candidates, "finish_reason"), _GEMINI_REASONS, str.upper)
    called = any(_at(part, "function_call") is not None for part in parts)
    usage = _last_at(chunks, "usage_metadata")
    return {
        "texts": replace(texts, context="\n\n".join(filter(None, (texts.context, *documents)))),
        "operation": "generate_content",
        "finish_reason": "content_filter" if blocked else "tool_calls" if called and finish == "stop" else finish,
        # https://cloud.google.com/vertex-ai/docs/reference/rest/v1/GenerateContentResponse#UsageMetadata: what tools
        # put into the prompt is counted apart from it, and thoughts apart from the candidates
        "input_tokens": _sum(usage, "prompt_token_count", "tool_use_prompt_token_count"),
        "output_tokens": _sum(usage, "candidates_token_count", "thoughts_token_count"),
        "cached_tokens": _sum(usage, "cached_content_token_count"),
        "reasoning_tokens": _sum(usage, "thoughts_token_count"),
        "details": {
            "safety_ratings": _last_at(candidates, "safety_ratings"),
            "prompt_safety_ratings": _last_at(chunks, "prompt_feedback", "safety_ratings"),
            "block_reason": blocked,
            "traffic_type": _at(usage, "traffic_type"),
        },
    }


def _gemini_turns(content: Any) -> list[Message]:
    role = {"model": "assistant", "function": "tool"}.get(str(_at(content, "role")), "user")
    return _turns(
        ("tool" if _at(part, "function_response") is not None else role, _gemini_part(part))
        for part in _list(_at(content, "parts"))
    )


def _gemini_part(part: Any) -> str:
    if _at(part, "thought") is True:
        return ""
    for name in ("inline_data", "file_data"):
        if _at(part, name) is not None:
            return _media(_at(part, name, "mime_type"))
    if _at(part, "function_call") is not None:
        return _call(_at(part, "function_call", "name"), _at(part, "function_call", "args"))
    if _at(part, "function_response") is not None:
        return _written(_at(part, "function_response", "response"))
    said = (_at(part, "text"), _at(part, "executable_code", "code"), _at(part, "code_execution_result", "output"))
    return next((text for text in said if isinstance(text, str)), "")


def _joined(parts: list[Any]) -> list[Any]:
    """The parts of an answer without its thoughts; texts that follow each other, as a stream's do, are one."""
    joined: list[Any] = []
    for part in (each for each in parts if _at(each, "thought") is not True):
        before, text = _at(joined[-1], "text") if joined else None, _at(part, "text")
        if isinstance(before, str) and isinstance(text, str):
            joined[-1] = {"text": before + text}
        else:
            joined.append(part)
    return joined


def _anthropic(request: Body, chunks: list[Body]) -> Said:
    turns = [turn for message in _list(request.get("messages")) for turn in _anthropic_turns(message)]
    answer = _anthropic_answer(chunks)
    blocks = _blocks(answer.get("content"))
    usage = answer.get("usage")
    system = Message("system", _text(map(_anthropic_block, _blocks(request.get("system")))))
    return {
        "texts": conversation([system, *turns], _text(map(_anthropic_block, blocks))),
        "operation": "chat",
        "finish_reason": _reason(answer.get("stop_reason"), _ANTHROPIC_REASONS, str.lower),
        # https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching: input_tokens leave cached ones out
        "input_tokens": _sum(usage, "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"),
        "output_tokens": _sum(usage, "output_tokens"),
        "cached_tokens": _sum(usage, "cache_read_input_tokens"),
        "details": {"response_id": answer.get("id")},
    }


def _anthropic_answer(chunks: list[Body]) -> Body:
    """The message that was answered; of a stream, its events put together."""
    message: dict[str, Any] = {}
    blocks: dict[Any, dict[str, Any]] = {}
    for chunk in chunks:
        kind, delta = chunk.get("type"), chunk.get("delta")
        if kind == "content_block_start":
            blocks[str(chunk.get("index"))] = _mapping(chunk.get("content_block"))
        elif kind == "content_block_delta" and isinstance(delta, Mapping):
            block = blocks.setdefault(str(chunk.get("index")), {"type": "text"})
            for name, target in (("text", "text"), ("partial_json", "written")):
                if isinstance(delta.get(name), str):
                    block[target] = str(block.get(target) or "") + delta[name]
        elif kind in ("message", "message_start", "message_delta"):
            told = chunk.get("message") if kind == "message_start" else delta if kind == "message_delta" else chunk
            told = _mapping(told)
            usage = _mapping(message.get("usage")) | _present(_mapping(told.get("usage") or chunk.get("usage")))
            message = message | told | {"usage": usage}
    return message | {"content": list(blocks.values())} if blocks else message


def _anthropic_turns(message: Any) -> list[Message]:
    role = str(_at(message, "role") or "user")
    return _turns(
        ("tool" if _at(block, "type") == "tool_result" else role, _anthropic_block(block))
        for block in _blocks(_at(message, "content"))
    )


def _anthropic_block(block: Any) -> str:
    kind = _at(block, "type")
    if kind == "text":
        return _written(_at(block, "text"))
    if kind in ("thinking", "redacted_thinking"):
        return ""
    if kind in ("tool_use", "server_tool_use"):
        return _call(_at(block, "name"), _at(block, "written") or _at(block, "input"))
    if kind == "tool_result":
        return _text(_anthropic_block(each) for each in _blocks(_at(block, "content")) if _at(each, "type") != kind)
    if kind == "document" and _at(block, "source", "type") == "text":
        return _written(_at(block, "source", "data"))
    return "[file]" if kind == "document" else f"[{kind}]" if isinstance(kind, str) else ""


def _openai(request: Body, chunks: list[Body]) -> Said:
    streamed = any(_at(choice, "delta") is not None for chunk in chunks for choice in _list(chunk.get("choices")))
    events = "\n".join(f"data: {json.dumps(chunk)}" for chunk in chunks) if streamed else ""
    asked, answered = read_request(request), read_answer(body(events or (chunks[0] if chunks else None))[0])
    return {
        "texts": conversation(asked.messages, answered.output),
        "operation": "chat",
        "finish_reason": answered.finish_reason,
        "input_tokens": answered.input_tokens,
        "output_tokens": answered.output_tokens,
        "cached_tokens": answered.cached_tokens,
        "reasoning_tokens": answered.reasoning_tokens,
        "details": {"response_id": _last_at(chunks, "id")},
    }


def _objects(value: Any) -> list[Body]:
    """The JSON objects of a body: one, or the chunks of a stream; ValueError for text that is no JSON.

    A body may be JSON or text of it, and a stream an array or server-sent events.
    """
    if isinstance(value, str) and value.strip():
        events = [line[5:].strip() for line in value.splitlines() if line.startswith("data:")]
        return _objects(events or json.loads(value, parse_constant=lambda _: None))
    if isinstance(value, list):
        chunks = [each for each in value if isinstance(each, Mapping | str) and each != "[DONE]"]
        return [found for chunk in chunks for found in _objects(chunk)]
    return [value] if isinstance(value, Mapping) else []


def _unwrapped(bodies: list[Body], name: str) -> list[Body]:
    """What a prediction endpoint wraps into instances, and its answer into predictions."""
    return [found for body in bodies for found in (_objects(body[name]) if name in body else [body])]


def _at(value: Any, *path: str) -> Any:
    """The value at `path`, whose names stand in snake_case or in camelCase; None where there is none."""
    for name in path:
        if not isinstance(value, Mapping):
            return None
        value = value[name] if value.get(name) is not None else value.get(_camel(name))
    return value


@cache
def _camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda match: match[1].upper(), name)


def _last(values: Iterable[Any]) -> Any:
    """The last value that is there; None for none."""
    return next(iter([value for value in values if value is not None][-1:]), None)


def _last_at(values: Iterable[Any], *path: str) -> Any:
    return _last(_at(value, *path) for value in values)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if isinstance(value, Mapping) else []


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _blocks(content: Any) -> list[Any]:
    """Content as Anthropic has it: blocks, or a text that stands for one."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else _list(content)


def _turns(said: Iterable[tuple[str, str]]) -> list[Message]:
    """Turns out of the parts of one, each with who says it: what tools tell stands in a user's turn."""
    return [Message(role, _text(text for _, text in turn)) for role, turn in groupby(said, lambda part: part[0])]


def _text(texts: Iterable[str]) -> str:
    return "\n\n".join(text for text in texts if text)


def _written(value: Any) -> str:
    """A text as it is, nothing as nothing, and all else as JSON."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def _call(name: Any, arguments: Any) -> str:
    return f"[tool_call] {_written(name)}({_written(arguments)})"


def _media(mime_type: Any) -> str:
    kind = str(mime_type).partition("/")[0]
    return f"[{kind}]" if kind in ("image", "audio", "video") else "[file]"


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, "", [], {})}


def _reason(reason: Any, words: Mapping[str, str | None], case: Callable[[str], str]) -> str | None:
    """The reason in OpenTelemetry's words; one that they have no word for as it is, in lower case."""
    if not isinstance(reason, str) or not reason:
        return None
    return words.get(case(reason), reason.lower())


def _error(chunks: list[Body]) -> str | None:
    """The code of what went wrong, as the answer has it: an error, or a google.rpc.Status in its place."""
    errors = [_at(chunk, "error") or (chunk if isinstance(chunk.get("code"), int) else None) for chunk in chunks]
    codes = [_at(error, name) for error in errors for name in ("status", "type", "code")]
    return next((str(code) for code in codes if isinstance(code, str | int) and code), None)


def _model(chunks: list[Body], paths: list[str]) -> str:
    told = [_at(chunk, *path) for chunk in chunks for path in (("model_version",), ("message", "model"), ("model",))]
    named = [path.rstrip("/").rpartition("/")[2] for path in reversed(paths) if "/models/" in f"/{path}"]
    asked = [path for path in reversed(paths) if "/" not in path]
    return next((clean(name) for name in (*told, *named, *asked) if isinstance(name, str) and name), UNKNOWN)


def _label(labels: Any, name: str) -> str:
    value = labels.get(name) if isinstance(labels, Mapping) else None
    return clean(value) if isinstance(value, str) else ""


def _native_id(value: Any) -> str:
    """NUMERIC as text, without a fraction of zeros."""
    text = "" if value is None else str(value)
    return re.sub(r"\.0+$", "", text)


def _moment(value: Any) -> datetime | None:
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else value
        return as_utc(at) if isinstance(at, datetime) else None
    except (ValueError, OverflowError):
        return None


def _sum(usage: Any, *names: str) -> int | None:
    """The sum of those counts that are told; None where none is."""
    counts = [_count(_at(usage, name)) for name in names]
    told = [each for each in counts if each is not None]
    return sum(told) if told else None


def _count(value: Any) -> int | None:
    return count(int(value) if isinstance(value, str) and value.isdecimal() else value)


def _duration(value: Any) -> float | None:
    """Milliseconds; None where there are none, or fewer than none."""
    told = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if told and 0 <= value < _LONGEST else None
