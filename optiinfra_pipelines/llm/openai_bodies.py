"""Bodies of OpenAI's APIs (chat completions, completions, responses, embeddings) as gateways log them: whole, as a
stream of events, or cut short. Pure; who logged them, and when, is told by the parsers that call this."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optiinfra_pipelines.llm.interaction import Message

_STREAM = re.compile(r"\s*(data|event|id|retry)?:")
_ENDS = ("response.completed", "response.incomplete", "response.failed")
_FILTER_FACTS = ("filtered", "severity", "detected")  # and no more: lists of blocked words hold text


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked. `metadata` holds texts by key; `model` and `conversation_id` are "" and None where unsaid."""

    messages: tuple[Message, ...] = ()
    model: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    conversation_id: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered: the first of `choices` answers, and why it ended; an error has an `error_type`.

    `content_filter` tells categories of the `prompt` and of the `answer`, each with filtered, severity, detected.
    """

    output: str = ""
    model: str = ""
    finish_reason: str | None = None
    error_type: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    choices: int = 1
    content_filter: Mapping[str, Any] = field(default_factory=dict)


def decoded(text: str) -> tuple[Any, bool]:
    """The JSON value in `text`, and whether it was cut short; (None, True) where nothing can be made of it.

    Of a text that was cut, what came before the cut is kept: an unfinished string as far as it goes.
    """
    try:
        return json.loads(text), False
    except (ValueError, RecursionError):
        return _mended(text), True


def _mended(text: str) -> Any:
    """`text` with the strings and brackets closed that a cut left open, or else without its last, unfinished member."""
    open_: list[str] = []
    in_string = escaped = False
    whole, whole_open = 0, ""  # up to here every member is whole, and these brackets are open
    for at, char in enumerate(text):
        if in_string:
            in_string = escaped or char != '"'
            escaped = not escaped and char == "\\"
        elif char == '"':
            in_string = True
        elif char in "[{":
            open_.append("]" if char == "[" else "}")
            whole, whole_open = at + 1, "".join(reversed(open_))
        elif char in "]}" and open_:
            open_.pop()
        elif char == "," and open_:
            whole, whole_open = at, "".join(reversed(open_))
    closing = "".join(reversed(open_))
    tries = [text[:whole] + whole_open]
    if in_string:  # an escape such as \u00e9 may be cut as well: it has six characters
        tries = [*(text[: len(text) - less] + '"' + closing for less in range(6)), *tries]
    elif text.rstrip()[-1:] in ('"', "]", "}"):  # a number may lack its last digits
        tries = [text + closing, *tries]
    for each in tries:
        try:
            return json.loads(each)
        except (ValueError, RecursionError):
            continue
    return None


def body(value: Any) -> tuple[dict[str, Any], bool]:
    """A logged body as an object, and whether it was cut short. Streams are joined; what is no object is empty."""
    if isinstance(value, Mapping):
        return dict(value), False
    if not isinstance(value, str) or not value.strip():
        return {}, False
    if _STREAM.match(value):
        return _streamed(value)
    found, cut = decoded(value)
    return (found, cut) if isinstance(found, dict) else ({}, cut)


def _streamed(text: str) -> tuple[dict[str, Any], bool]:
    """One answer out of `data: {...}` events. It is cut where no event says why the answer ended."""
    events = []
    for line in text.splitlines():
        payload = line.removeprefix("data:").strip()
        if line.startswith("data:") and payload != "[DONE]":
            found, _ = decoded(payload)
            if isinstance(found, dict):
                events.append(found)
    for event in reversed(events):
        if event.get("type") in _ENDS and isinstance(event.get("response"), dict):
            return event["response"], False
    answer = _joined(events)
    return answer, answer["choices"][0]["finish_reason"] is None and not answer.get("error")


def _joined(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    text: list[str] = []
    finish: Any = None
    filters: dict[str, Any] = {}
    calls: dict[Any, dict[str, str]] = {}
    for event in events:
        inner = _dict(event.get("response"))
        for name in ("model", "usage", "error", "prompt_filter_results"):
            if found := event.get(name) or inner.get(name):
                answer[name] = found
        if event.get("type") == "response.output_text.delta":
            text.append(_str(event.get("delta")))
        for choice in _dicts(event.get("choices")):
            if choice.get("index", 0) != 0:
                continue
            delta = _dict(choice.get("delta"))
            text.append(_str(delta.get("content")) or _str(delta.get("refusal")) or _str(choice.get("text")))
            finish = choice.get("finish_reason") or finish
            filters |= _dict(choice.get("content_filter_results"))
            for call in _dicts(delta.get("tool_calls")):
                function = _dict(call.get("function"))
                known = calls.setdefault(call.get("index", 0), {"name": "", "arguments": ""})
                known["name"] += _str(function.get("name"))
                known["arguments"] += _str(function.get("arguments"))
    message = {"role": "assistant", "content": "".join(text), "tool_calls": [{"function": c} for c in calls.values()]}
    choice = {"index": 0, "message": message, "finish_reason": finish, "content_filter_results": filters}
    return answer | {"choices": [choice]}


def read_request(asked: Mapping[str, Any]) -> Request:
    """The request in a body of any of the four APIs."""
    messages = messages_of(asked.get("messages"))
    if instructions := _str(asked.get("instructions")):
        messages.append(Message("system", instructions))
    given = asked.get("input", asked.get("prompt"))
    if isinstance(given, list) and any(isinstance(each, dict) for each in given):
        messages += messages_of(given)
    elif given:
        messages.append(Message("user", _plain(given)))
    metadata = {key: clean(value) for key, value in _dict(asked.get("metadata")).items() if isinstance(value, str)}
    named = asked.get("conversation")
    conversation = _str(named) or _str(_dict(named).get("id")) or metadata.get("conversation_id")
    return Request(tuple(messages), _str(asked.get("model")), metadata, conversation or None)


def read_answer(answered: Mapping[str, Any]) -> Answer:
    """The answer, or the error, in a body of any of the four APIs."""
    if error := _dict(answered.get("error")):
        return _failure(error)
    choices = _dicts(answered.get("choices"))
    if "output" in answered and not choices:
        return _response(answered)
    choice = next((each for each in choices if each.get("index", 0) == 0), {})
    output = "".join(each.text for each in messages_of([choice.get("message")])) or _str(choice.get("text"))
    prompts = _dicts(answered.get("prompt_filter_results") or answered.get("prompt_annotations"))
    prompt = next((each.get("content_filter_results") for each in prompts), None)
    return Answer(
        output=clean(output),
        model=_str(answered.get("model")),
        finish_reason=_str(choice.get("finish_reason")) or None,
        choices=max(len(choices), 1),
        content_filter=_filters(prompt, choice.get("content_filter_results")),
        **_usage(answered),
    )


def _response(answered: Mapping[str, Any]) -> Answer:
    """An answer of the responses API."""
    items = _dicts(answered.get("output"))
    output = "\n\n".join(each.text for each in messages_of(items) if each.text)
    incomplete = _str(_dict(answered.get("incomplete_details")).get("reason"))
    finish = {"max_output_tokens": "length"}.get(incomplete, incomplete) or None
    if finish is None and answered.get("status", "completed") == "completed":
        finish = "tool_calls" if items and items[-1].get("type") == "function_call" else "stop"
    return Answer(output=output, model=_str(answered.get("model")), finish_reason=finish, **_usage(answered))


def _failure(error: Mapping[str, Any]) -> Answer:
    code = _str(error.get("code")) or _str(error.get("type")) or "error"
    if code != "content_filter":
        return Answer(error_type=code)
    inner = _dict(error.get("innererror"))
    results = inner.get("content_filter_result") or inner.get("content_filter_results")
    found = _filters(results, None) if error.get("param") == "prompt" else _filters(None, results)
    return Answer(finish_reason="content_filter", error_type=code, content_filter=found)


def _filters(prompt: Any, answer: Any) -> dict[str, Any]:
    found = {}
    for part, results in (("prompt", prompt), ("answer", answer)):
        told = {
            category: {name: result[name] for name in _FILTER_FACTS if isinstance(result.get(name), bool | str)}
            for category, result in _dict(results).items()
            if isinstance(result, dict)
        }
        if told:
            found[part] = told
    return found


def _usage(answered: Mapping[str, Any]) -> dict[str, Any]:
    usage = _dict(answered.get("usage"))
    asked = _dict(usage.get("prompt_tokens_details")) or _dict(usage.get("input_tokens_details"))
    given = _dict(usage.get("completion_tokens_details")) or _dict(usage.get("output_tokens_details"))
    return {
        "input_tokens": count(usage.get("prompt_tokens", usage.get("input_tokens"))),
        "output_tokens": count(usage.get("completion_tokens", usage.get("output_tokens"))),
        "cached_tokens": count(asked.get("cached_tokens")),
        "reasoning_tokens": count(given.get("reasoning_tokens")),
    }


def messages_of(items: Any) -> list[Message]:
    """Messages of the chat API or items of the responses API, in order. Reasoning is left out; what is no text
    reads [image], [audio] and the like, and a call of a tool [tool_call] name(arguments)."""
    messages = []
    for item in _dicts(items):
        kind = item.get("type")
        if kind == "function_call":
            messages.append(Message("assistant", _call(item)))
        elif kind == "function_call_output":
            messages.append(Message("tool", _plain(item.get("output"))))
        elif kind != "reasoning":
            role = _str(item.get("role")) or "user"
            told = [_plain(item.get("content")) or _str(item.get("refusal"))]
            told += [_call(_dict(call.get("function"))) for call in _dicts(item.get("tool_calls"))]
            messages.append(Message(role, "\n".join(each for each in told if each)))
    return messages


def _call(function: Mapping[str, Any]) -> str:
    return clean(f"[tool_call] {_str(function.get('name'))}({_str(function.get('arguments'))})")


def _plain(content: Any) -> str:
    """The text of a message's content: a string, or a list of strings and parts."""
    if isinstance(content, str):
        return clean(content)
    if not isinstance(content, list):
        return ""
    if any(isinstance(each, int) for each in content):
        return "[tokens]"
    return "\n".join(each for each in map(_part, content) if each)


def _part(part: Any) -> str:
    if isinstance(part, list | str):
        return _plain(part)
    if not isinstance(part, dict):
        return ""
    said = part.get("text", part.get("refusal"))
    if isinstance(said, str):
        return clean(said)
    kind = _str(part.get("type")).removeprefix("input_").removeprefix("output_").removesuffix("_url")
    return f"[{kind or 'part'}]"


def clean(text: str) -> str:
    """`text` without halves of surrogate pairs, which JSON may hold and no warehouse takes."""
    return text.encode("utf-8", "replace").decode()


def count(value: Any) -> int | None:
    """A number of tokens; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    items: Iterable[Any] = value if isinstance(value, list) else ()
    return [each for each in items if isinstance(each, dict)]


def _str(value: Any) -> str:
    return value if isinstance(value, str) else ""
