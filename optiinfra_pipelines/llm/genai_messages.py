"""What was said in a call of a model, out of the attributes of its span and events, in each of the vocabularies that
instrumentations use: OpenTelemetry's GenAI conventions, present and past, OpenInference and OpenLLMetry. Pure."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from optiinfra_pipelines.llm.interaction import Message
from optiinfra_pipelines.llm.openai_bodies import clean, decoded, read_answer, read_request
from optiinfra_pipelines.llm.otlp import Event

DETAILS = "gen_ai.client.inference.operation.details"
CHOICE = "gen_ai.choice"
ROLES = {  # by the names of events, one a message, that conventions up to 1.36 had
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
_CONTENT_EVENTS = ("gen_ai.content.prompt", "gen_ai.content.completion")  # conventions up to 1.27
_REDACTED = "__REDACTED__"  # OpenInference, where it was told to hide a text
_UNSAID = ("reasoning", "thinking", "redacted_thinking", "encrypted_content")
_CALLS = ("tool_call", "tool_use", "function", "function_call", "server_tool_call")
_RESULTS = ("tool_call_response", "tool_result", "function_call_output", "server_tool_call_response")
_RESULT_FIELDS = ("response", "result", "content", "output", "server_tool_call_response")
_JSON = re.compile(r'\s*(\[\s*(["{]|\]\s*$)|\{\s*("|\}\s*$))')  # and not [INST] or {name}
_ROLE_NAMES = {"human": "user", "ai": "assistant", "model": "assistant"}
_ATTACHED = ("blob", "file", "uri")
_SHOWN: tuple[str, ...] = ("text", "image", "image_url", "audio", "video", "document", "refusal")
_SHOWN += tuple(f"{way}_{kind}" for way in ("input", "output") for kind in ("text", "image", "audio", "file"))
_PARTS = (*_SHOWN, *_ATTACHED, *_UNSAID, *_CALLS, *_RESULTS)
_MESSAGE_FIELDS = {"role", "content", "parts", "contents", "message", "tool_calls"}
_REQUEST_FIELDS = {"messages", "input", "prompt", "instructions"}  # of OpenAI's APIs
_ANSWER_FIELDS = {"choices", "output", "data", "error"}

Attributes = Mapping[str, Any]
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Said:
    """What went in, and the answer: the first that has a text, of `choices`. `cut`: a JSON text in it ends early."""

    messages: tuple[Message, ...] = ()
    output: str = ""
    finish_reason: str | None = None
    choices: int = 0
    cut: bool = False


@dataclass(frozen=True, slots=True)
class _Answer:
    text: str
    finish_reason: str | None


def said(attributes: Attributes, events: Sequence[Event]) -> Said:
    """What was said in a call with these attributes and, in this order, these events.

    Each side is read in the first vocabulary that has anything of it. Calls of tools read [tool call name(arguments)],
    images and files [image], [file], ...; reasoning is left out. Texts that an instrumentation hid are empty.
    """
    messages, input_cut = _first(_INPUTS, attributes, events)
    answers, output_cut = _first(_OUTPUTS, attributes, events)
    answer = next((each for each in answers if each.text), answers[0] if answers else _Answer("", None))
    return Said(tuple(messages), answer.text, answer.finish_reason, len(answers), input_cut or output_cut)


def _first(
    vocabularies: Mapping[Callable[[Attributes, Sequence[Event]], Iterator[Found]], tuple[str, ...]],
    attributes: Attributes,
    events: Sequence[Event],
) -> tuple[list[Found], bool]:
    """What the first vocabulary that tells anything tells, and whether a JSON text of it was cut."""
    for read, names in vocabularies.items():
        if found := list(read(attributes, events)):
            told = (attributes, *(event.attributes for event in events))
            return found, any(_is_cut(name, value, names) for each in told for name, value in each.items())
    return [], False


def _genai_input(attributes: Attributes, events: Sequence[Event]) -> Iterator[Message]:
    if instructions := _plain(_structured(attributes.get("gen_ai.system_instructions"))):
        yield Message("system", instructions)
    yield from _messages(_structured(attributes.get("gen_ai.input.messages")))


def _genai_output(attributes: Attributes, events: Sequence[Event]) -> Iterator[_Answer]:
    yield from _answers(_structured(attributes.get("gen_ai.output.messages")))


def _openinference_input(attributes: Attributes, events: Sequence[Event]) -> Iterator[Message]:
    yield from _messages(branches(attributes, "llm.input_messages"))
    for prompt in branches(attributes, "llm.prompts"):
        yield Message("user", _plain(_field(prompt, "prompt", "text")))
    for each in branches(attributes, "embedding.embeddings"):
        yield Message("user", _plain(_field(each, "embedding", "text")))


def _openinference_output(attributes: Attributes, events: Sequence[Event]) -> Iterator[_Answer]:
    items = _messages(branches(attributes, "llm.output_messages"))  # of one answer: text, calls of tools, ...
    if output := "\n".join(each.text for each in items if each.text):
        yield _Answer(output, None)
    for choice in branches(attributes, "llm.choices"):
        yield _Answer(_plain(_field(choice, "completion", "text")), None)


def _openinference_raw_input(attributes: Attributes, events: Sequence[Event]) -> Iterator[Message]:
    """The request as a whole: the body of an API, or a text."""
    raw = _structured(attributes.get("input.value"))
    if isinstance(raw, dict) and raw.keys() & _REQUEST_FIELDS:
        yield from read_request(raw).messages
    elif text := _plain(attributes.get("input.value")):
        yield Message("user", text)


def _openinference_raw_output(attributes: Attributes, events: Sequence[Event]) -> Iterator[_Answer]:
    raw = _structured(attributes.get("output.value"))
    if isinstance(raw, dict) and raw.keys() & _ANSWER_FIELDS:
        answer = read_answer(raw)
        if answer.output or answer.finish_reason:
            yield _Answer(answer.output, answer.finish_reason)
    elif text := _plain(attributes.get("output.value")):
        yield _Answer(text, None)


def _numbered_input(attributes: Attributes, events: Sequence[Event]) -> Iterator[Message]:
    """OpenLLMetry's gen_ai.prompt.0.role, gen_ai.prompt.0.content, ..."""
    yield from _messages(branches(attributes, "gen_ai.prompt"))


def _numbered_output(attributes: Attributes, events: Sequence[Event]) -> Iterator[_Answer]:
    yield from _answers(branches(attributes, "gen_ai.completion"))


def _whole_input(attributes: Attributes, events: Sequence[Event]) -> Iterator[Message]:
    """gen_ai.prompt as one attribute, of the span or of an event."""
    for each in (attributes, *(event.attributes for event in events if event.name in _CONTENT_EVENTS)):
        yield from _messages(_turns(each.get("gen_ai.prompt")))


def _whole_output(attributes: Attributes, events: Sequence[Event]) -> Iterator[_Answer]:
    for each in (attributes, *(event.attributes for event in events if event.name in _CONTENT_EVENTS)):
        yield from _answers(_turns(each.get("gen_ai.completion")))


def _event_input(attributes: Attributes, events: Sequence[Event]) -> Iterator[Message]:
    for event in events:
        if event.name in ROLES:
            yield _message(_body(event), ROLES[event.name])


def _event_output(attributes: Attributes, events: Sequence[Event]) -> Iterator[_Answer]:
    for event in events:
        if event.name == CHOICE:
            yield from _answers(_body(event))


# Who reads which attributes (names, and what they begin with), in the order in which they are asked.
_INPUTS: dict[Callable[[Attributes, Sequence[Event]], Iterator[Message]], tuple[str, ...]] = {
    _genai_input: ("gen_ai.input.messages", "gen_ai.system_instructions"),
    _openinference_input: ("llm.input_messages",),
    _numbered_input: ("gen_ai.prompt.",),
    _whole_input: ("gen_ai.prompt",),
    _event_input: ("content", "gen_ai.event.content"),
    _openinference_raw_input: ("input.value",),
}
_OUTPUTS: dict[Callable[[Attributes, Sequence[Event]], Iterator[_Answer]], tuple[str, ...]] = {
    _genai_output: ("gen_ai.output.messages",),
    _openinference_output: ("llm.output_messages",),
    _numbered_output: ("gen_ai.completion.",),
    _whole_output: ("gen_ai.completion",),
    _event_output: ("message", "content", "gen_ai.event.content"),
    _openinference_raw_output: ("output.value",),
}


def _body(event: Event) -> dict[str, Any]:
    """What an event of one message holds: in attributes, or as JSON in one of them."""
    inner = _structured(event.attributes.get("gen_ai.event.content"))
    return {**event.attributes, **(inner if isinstance(inner, dict) else {})}


def branches(attributes: Attributes, prefix: str) -> list[dict[str, Any]]:
    """The objects of a list that is written flat, such as llm.input_messages.0.message.role, in order.

    Lists below are lists, objects are dicts. A list that was not flattened is itself.
    """
    whole = attributes.get(prefix)
    if isinstance(whole, list):
        return [each for each in whole if isinstance(each, dict)]
    tree: dict[str, Any] = {}
    for name, value in attributes.items():
        if name.startswith(f"{prefix}."):
            *path, leaf = name[len(prefix) + 1 :].split(".")
            node = tree
            for step in path:
                below = node.setdefault(step, {})
                node = below if isinstance(below, dict) else {}
            node[leaf] = value
    listed = _listed(tree)
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


def _listed(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if node and all(key.isdecimal() for key in node):
        return [_listed(node[key]) for key in sorted(node, key=int)]
    return {key: _listed(value) for key, value in node.items()}


def _messages(items: Any) -> list[Message]:
    return [
        _message(each)
        for each in (items if isinstance(items, list) else [items])
        if isinstance(each, dict) or (isinstance(each, str) and each)
    ]


def _answers(items: Any) -> list[_Answer]:
    answers = []
    for item in items if isinstance(items, list) else [items]:
        finish = item.get("finish_reason") if isinstance(item, dict) else None
        message = _structured(item.get("message", item)) if isinstance(item, dict) else item
        text = _message(message).text if isinstance(message, dict) else _plain(message)
        if text or isinstance(item, dict):
            answers.append(_Answer(text, finish if isinstance(finish, str) and finish else None))
    return answers


def _message(item: dict[str, Any] | str, role: str = "user") -> Message:
    """One turn: its role and all that it holds, in any of the shapes that APIs and conventions give it."""
    if isinstance(item, str):
        return Message(role, _plain(item))
    inner = item.get("message")  # OpenInference
    item = inner if isinstance(inner, dict) else item
    told = [_plain(item.get(name)) for name in ("parts", "content", "contents", "refusal")]
    told += [_call(each) for each in _listed_dicts(_structured(item.get("tool_calls")))]
    if item.get("function_call_name"):
        told.append(f"[tool call {item['function_call_name']}({item.get('function_call_arguments_json', '')})]")
    named = str(item.get("role") or role).lower()
    return Message(_ROLE_NAMES.get(named, named), "\n".join(each for each in told if each))


def _plain(content: Any) -> str:
    """The text of a message's content: a text, parts, or parts as JSON text."""
    if isinstance(content, str):
        parts = _structured(content)
        if isinstance(parts, list) and parts and all(isinstance(each, dict) and _is_part(each) for each in parts):
            return _plain(parts)
        return "" if content == _REDACTED else clean(content)
    if isinstance(content, list):
        return "\n".join(each for each in map(_part, content) if each)
    return _part(content) if isinstance(content, dict) else ""


def _is_part(item: Mapping[str, Any]) -> bool:
    return item.get("type") in _PARTS or "message_content" in item or item.keys() == {"text"}


def _part(part: Any) -> str:
    if not isinstance(part, dict):
        return _plain(part)
    inner = part.get("message_content")
    part = inner if isinstance(inner, dict) else part
    kind = part.get("type") if isinstance(part.get("type"), str) else ""
    if kind in _UNSAID:
        return ""
    if kind in _CALLS or "tool_call" in part:
        return _call(part)
    if kind in _RESULTS:
        return _result(part)
    if "parts" in part:
        return _plain(part["parts"])
    text = part.get("text", part.get("content"))
    if isinstance(text, str) and kind not in _ATTACHED:
        return _plain(text)
    modality = part.get("modality") or str(part.get("mime_type") or "").partition("/")[0]
    return clean(f"[{modality or kind.removeprefix('input_').removesuffix('_url') or 'part'}]")


def _call(item: Mapping[str, Any]) -> str:
    item = _dict_or(item.get("tool_call"), item)
    function = _dict_or(item.get("function"), item)
    arguments = next(
        (function[name] for name in ("arguments", "input", "server_tool_call") if function.get(name) is not None), ""
    )
    given = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return clean(f"[tool call {function.get('name') or ''}({given})]")


def _result(part: Mapping[str, Any]) -> str:
    given = next((part[name] for name in _RESULT_FIELDS if part.get(name) is not None), "")
    if isinstance(given, str) or (isinstance(given, list) and all(isinstance(each, dict) for each in given)):
        return _plain(given)
    return clean(json.dumps(given, ensure_ascii=False))


def _structured(value: Any) -> Any:
    """The JSON value that a text holds, as far as it goes where it was cut; the text itself where it is no JSON."""
    if isinstance(value, str) and _JSON.match(value):
        found, cut = decoded(value)
        return value if found is None and cut else found
    return value


def _turns(value: Any) -> Any:
    """The messages that a text holds as JSON; the text itself where it holds something else."""
    found = _structured(value)
    items = found if isinstance(found, list) else [found]
    return found if all(isinstance(each, dict) and each.keys() & _MESSAGE_FIELDS for each in items) else value


def _is_cut(name: str, value: Any, names: tuple[str, ...]) -> bool:
    """Whether JSON that stands in this attribute ends early. A text that only begins like an object is a text."""
    if not (isinstance(value, str) and name.startswith(names) and _JSON.match(value)):
        return False
    return (name in names or value.lstrip().startswith("[{")) and decoded(value)[1]


def _field(item: Mapping[str, Any], outer: str, name: str) -> Any:
    """`outer.name` of an object, nested or, as a list in one attribute has it, with a dot in its key."""
    return _dict_or(item.get(outer), {}).get(name, item.get(f"{outer}.{name}"))


def _dict_or(value: Any, other: Mapping[str, Any]) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else other


def _listed_dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
