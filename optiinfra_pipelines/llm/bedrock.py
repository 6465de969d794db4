"""Records of Bedrock's model invocation log as interactions: Converse, and the bodies of the families of models. Pure.

A body is told by its keys and not by the model's name, so that a new model of a known shape is read as well. Where
the log lies and how it is fetched is in `clouds/aws/interactions.py`.
https://docs.aws.amazon.com/bedrock/latest/userguide/model-invocation-logging.html
"""

import gzip
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from optiinfra_pipelines.llm.interaction import UNKNOWN, Found, Interaction, Message, Texts, Unreadable, conversation
from optiinfra_pipelines.llm.openai_bodies import clean, count
from optiinfra_pipelines.places import LlmSource
from optiinfra_pipelines.windows import as_utc

_CONVERSATION = "conversation_id"  # a key of the request's metadata, which is the application's own
Bodies = Callable[[str], bytes | None]
"""The object at an s3:// address, gzipped or not; None where it cannot be had."""

_GZIP = b"\x1f\x8b"
_ROLE = re.compile(r":assumed-role/([^/]+)/|:role/(?:.*/)?([^/]+)$")
_ROLES = {"human": "user", "chatbot": "assistant", "bot": "assistant", "ipython": "tool", "function": "tool"}
_MEDIA = {"image_url": "image", "input_audio": "audio", "video_url": "video"}
_FINISH = {
    **dict.fromkeys(("end_turn", "stop", "stop_sequence", "eos", "complete", "finish", "stop_criteria_met"), "stop"),
    **dict.fromkeys(("max_tokens", "length", "model_context_window_exceeded", "error_limit"), "length"),
    **dict.fromkeys(("tool_use", "tool_call", "tool_calls"), "tool_calls"),
    **dict.fromkeys(("content_filtered", "guardrail_intervened", "error_toxic", "refusal"), "content_filter"),
}
# What counts of tokens are called by Converse, Nova, Anthropic, OpenAI's shape, Llama, Titan and Bedrock itself.
_TOKENS = {
    **dict.fromkeys(("inputTokens", "input_tokens", "prompt_tokens", "inputTokenCount"), "input"),
    **dict.fromkeys(("prompt_token_count", "inputTextTokenCount"), "input"),
    **dict.fromkeys(("outputTokens", "output_tokens", "completion_tokens", "outputTokenCount"), "output"),
    **dict.fromkeys(("generation_token_count", "totalOutputTextTokenCount"), "output"),
    **dict.fromkeys(("cacheReadInputTokens", "cacheReadInputTokenCount", "cache_read_input_tokens"), "read"),
    **dict.fromkeys(("cacheWriteInputTokens", "cacheWriteInputTokenCount", "cache_creation_input_tokens"), "written"),
    "reasoning_tokens": "reasoning",
}
# Where a turn begins in the templates of Anthropic's text completions, Llama 3 and 4, DeepSeek, Mistral and Llama 2.
_TURN = re.compile(
    r"<\|start_header_id\|>(\w+)<\|end_header_id\|>|<\|header_start\|>(\w+)<\|header_end\|>"
    r"|(?:\A\s*|\n\n)(Human|Assistant):|<｜(User|Assistant)｜>|(\[/?INST\]|<</?SYS>>)"
)
_MARKS = {"[INST]": "user", "[/INST]": "assistant", "<<SYS>>": "system", "<</SYS>>": "user"}
_TOKEN = re.compile(r"<\|(?:begin_of_text|end_of_text|eot_id|eom_id|eot|eom)\|>|<｜(?:begin|end)▁of▁sentence｜>|</?s>")
_REASONING = re.compile(r"\A\s*<(think|reasoning)>.*?(?:</\1>\s*|\Z)", re.DOTALL)


def logged_at(record: Mapping[str, Any]) -> datetime | None:
    """When the record says that the request was, in UTC; None where it does not say."""
    try:
        return as_utc(datetime.fromisoformat(_str(record.get("timestamp"))))
    except (ValueError, OverflowError):
        return None


def parse(record: Mapping[str, Any], place: LlmSource, bodies: Bodies) -> Found:
    """The interaction of one ModelInvocationLog record, or why it is none.

    A body over 100 KB lies in an object of its own, which `bodies` gives; without it that side has no text. Counts of
    the record go before those of the body. Input tokens are those that Bedrock counts, plus those read from and
    written to a cache, which it counts apart. Reasoning is left out of the output; a call of a tool reads
    [tool_call] name(arguments), and of several candidates the first one counts. Embeddings have no output.
    """
    native_id, timestamp = _str(record.get("requestId")), logged_at(record)
    if record.get("schemaType") != "ModelInvocationLog":
        return Unreadable(record, "schemaType is not ModelInvocationLog")
    if not native_id:
        return Unreadable(record, "requestId is missing")
    if timestamp is None:
        return Unreadable(record, "timestamp is no time with a zone")
    asked, answered = _dict(record.get("input")), _dict(record.get("output"))
    body = _dict(_body(asked, "input", bodies))
    answer = _Answer()
    answered_body = _body(answered, "output", bodies)
    for event in answered_body if isinstance(answered_body, list) else [answered_body]:
        _take(answer, _dict(event))
    counted = dict(answer.counts)
    for side in (asked, answered):
        _count(counted, side)
    model_id, metadata = _str(record.get("modelId")), _dict(record.get("requestMetadata"))
    operation, texts = _texts(body, answer, model_id)
    labels = (place.application_label, place.variant_label, _CONVERSATION)
    details = {
        "modelId": model_id,
        "operation": _str(record.get("operation")),
        "inferenceRegion": _str(record.get("inferenceRegion")),
        "role": _role(_str(_dict(record.get("identity")).get("arn"))),
        "requestMetadata": {clean(key): _str(value) for key, value in metadata.items() if key not in labels},
        "cacheWriteInputTokens": counted.get("written"),
    }
    return Interaction(
        native_id=native_id,
        timestamp=timestamp,
        model_name=_model(model_id),
        texts=texts,
        application=_str(metadata.get(place.application_label)),
        variant=_str(metadata.get(place.variant_label)),
        conversation_id=_str(metadata.get(_CONVERSATION)) or None,
        operation=operation,
        account_id=_str(record.get("accountId")),
        region=_str(record.get("region")) or None,
        input_tokens=_input_tokens(counted),
        output_tokens=counted.get("output"),
        cached_tokens=counted.get("read"),
        reasoning_tokens=counted.get("reasoning"),
        latency_ms=answer.latency_ms,
        time_to_first_token_ms=answer.first_token_ms,
        finish_reason=_FINISH.get(answer.stop.lower(), answer.stop) or None,
        error_type=_str(record.get("errorCode")) or answer.error or None,
        details={name: value for name, value in details.items() if value},
    )


def _body(side: Mapping[str, Any], name: str, bodies: Bodies) -> Any:
    if (here := side.get(f"{name}BodyJson")) is not None:
        return here
    path = _str(side.get(f"{name}BodyS3Path"))
    content = bodies(path) if path else None
    if content is None:
        return None
    try:
        return json.loads(gzip.decompress(content) if content.startswith(_GZIP) else content)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError):  # an image, or an object that is not whole
        return None


def _texts(body: Mapping[str, Any], answer: "_Answer", model_id: str) -> tuple[str, Texts]:
    operation, messages = _request(body)
    if operation == "embeddings" or answer.embeds or "embed" in model_id:
        return "embeddings", conversation(messages, "")
    output = answer.output
    if _str(body.get("prompt")).rstrip().endswith("<think>") and ("</think>" in output or answer.stop == "length"):
        output = f"<think>{output}"  # DeepSeek's template: the answer begins within its reasoning
    return operation, conversation(messages, _REASONING.sub("", output))


def _input_tokens(counted: Mapping[str, int]) -> int | None:
    if "input" not in counted:
        return None
    return counted["input"] + counted.get("read", 0) + counted.get("written", 0)


def _model(model_id: str) -> str:
    """The model's id, or that of an inference profile or a provisioned model where its ARN was called."""
    return (model_id.rpartition("/")[2] if model_id.startswith("arn:") else model_id) or UNKNOWN


def _role(arn: str) -> str:
    """The role's name without its session, which may be a person's; empty for what is no role."""
    found = _ROLE.search(arn)
    return found[1] or found[2] if found else ""


# What was asked


def _request(body: Mapping[str, Any]) -> tuple[str, list[Message]]:
    """The operation in OpenTelemetry's words, and the turns."""
    if isinstance(turns := body.get("messages"), list):  # Converse, Anthropic, Nova, Jamba, Mistral, DeepSeek
        return "chat", [*_turns("system", body.get("system")), *(said for turn in turns for said in _message(turn))]
    if "message" in body:
        return "chat", list(_command_r(body))
    if "prompt" in body:
        return "text_completion", _prompt(body)
    for name in ("texts", "inputs"):
        if isinstance(body.get(name), list):
            return "embeddings", [
                said for each in body[name] for said in _turns("user", _dict(each).get("content", each))
            ]
    return "text_completion" if "inputText" in body else "chat", _turns("user", body.get("inputText"))


def _message(turn: Any) -> list[Message]:
    role = _str(_dict(turn).get("role")).lower() or "user"
    said = _turns(_ROLES.get(role, role), _dict(turn).get("content"))
    calls = [_call(each) for each in _dicts(_dict(turn).get("tool_calls"))]
    return [*said, *([Message("assistant", "\n".join(calls))] if calls else [])]


def _turns(role: str, content: Any) -> list[Message]:
    """What `role` says in `content`, after the tools' results and documents that came with it."""
    apart, own = [], []
    for block in content if isinstance(content, list) else [content]:
        speaker, text = _block(block)
        if text and speaker:
            apart.append(Message(speaker, text))
        elif text:
            own.append(text)
    return [*apart, *([Message(role, "\n".join(own))] if own else [])]


def _block(block: Any) -> tuple[str, str]:
    """Who but the turn's own role says this block ("" for none), and its text; "" for reasoning and cache points.

    Blocks of Anthropic and OpenAI name their type; those of Converse and Nova are named by their only key.
    """
    if isinstance(block, str):
        return "", clean(block)
    if not isinstance(block, dict):
        return "", ""
    name, told = (block["type"], block) if "type" in block else next(iter(block.items()), ("", None))
    value = _dict(told)
    match name:
        case "text":
            return "", _str(told) or _str(value.get("text"))
        case "guardContent" | "guard_content":
            return "", _block(told)[1] or _str(_dict(value.get("text")).get("text"))
        case "citationsContent":
            return "", _joined(value.get("content"), "")
        case "toolUse" | "tool_use" | "server_tool_use":
            return "", _call(value)
        case "toolResult" | "tool_result":
            return "tool", _joined(value.get("content"))
        case "document" | "searchResult" | "search_result":
            return "document", _document(value)
        case "json":
            return "", _written(told)
        case "image" | "audio" | "video" | "image_url" | "input_audio" | "video_url":
            return "", f"[{_MEDIA.get(name, name)}]"
    return "", ""


def _joined(content: Any, between: str = "\n") -> str:
    blocks = content if isinstance(content, list) else [content]
    return between.join(filter(None, (_block(block)[1] for block in blocks)))


def _document(value: Mapping[str, Any]) -> str:
    """A document's own text where it is plain text; [document] with its name otherwise."""
    title = _str(value.get("title")) or _str(value.get("name"))
    source = _dict(value.get("source"))
    plain = _str(source.get("data")) if source.get("type") == "text" else ""
    text = plain or _str(source.get("text")) or _joined(source.get("content")) or _joined(value.get("content"))
    return "\n".join(filter(None, (title, text))) if text else f"[document] {title}".rstrip()


def _command_r(body: Mapping[str, Any]) -> Iterator[Message]:
    """https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-cohere-command-r-plus.html"""
    yield from _turns("system", body.get("preamble"))
    for turn in _dicts(body.get("chat_history")):
        yield from _message(turn | {"content": turn.get("message")})
        yield from _tool_results(turn)
    for document in _dicts(body.get("documents")):
        yield Message("document", "\n".join(filter(None, map(_str, document.values()))))
    yield from _turns("user", body.get("message"))
    yield from _tool_results(body)


def _tool_results(turn: Mapping[str, Any]) -> Iterator[Message]:
    for result in _dicts(turn.get("tool_results")):
        yield Message("tool", _written(result.get("outputs")))


def _prompt(body: Mapping[str, Any]) -> list[Message]:
    """The turns of a prompt that is written in a model's own template; one turn of the user's where it is in none."""
    prompt = _str(body.get("prompt"))
    images = [Message("user", "[image]") for _ in _list(body.get("images"))]
    starts = list(_TURN.finditer(prompt))
    if not starts:
        return [*images, Message("user", prompt)]
    turns = [Message("system", _plain(prompt[: starts[0].start()]))]
    for number, start in enumerate(starts):
        name = next(filter(None, start.groups()))
        role = _MARKS.get(name) or _ROLES.get(name.lower(), name.lower())
        end = starts[number + 1].start() if number + 1 < len(starts) else len(prompt)
        turns.append(Message(role, _plain(prompt[start.end() : end])))
    told = [turn for turn in turns if turn.text and turn.text != "<think>"]
    at = next((number for number in reversed(range(len(told))) if told[number].role == "user"), len(told))
    return [*told[:at], *images, *told[at:]]


def _plain(text: str) -> str:
    return _TOKEN.sub("", text).strip()


# What was answered


@dataclass
class _Answer:
    """What the body, or the events of a stream, have told so far."""

    blocks: list["_Said"] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    stop: str = ""
    error: str = ""
    latency_ms: float | None = None
    first_token_ms: float | None = None
    embeds: bool = False

    def say(self, text: Any) -> None:
        """Text that goes on where text was said last."""
        if not text:
            return
        if not self.blocks or self.blocks[-1].call is not None:
            self.blocks.append(_Said())
        self.blocks[-1].pieces.append(_str(text))

    def call(self, name: Any, arguments: Any = None) -> None:
        """A call of a tool; of a stream, its arguments follow."""
        self.blocks.append(_Said(_str(name), [_written(arguments)] if arguments is not None else []))

    def argue(self, written: Any) -> None:
        """More of the arguments of the call that was begun last."""
        if self.blocks and self.blocks[-1].call is not None:
            self.blocks[-1].pieces.append(_str(written))

    @property
    def output(self) -> str:
        return "\n".join(each.text for each in self.blocks)


@dataclass
class _Said:
    call: str | None = None
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        said = "".join(self.pieces)
        return said if self.call is None else f"[tool_call] {self.call}({said})"


def _take(answer: _Answer, event: Mapping[str, Any]) -> None:
    """Add a whole body, or one event of a stream. What is told again, such as a stop reason, replaces."""
    for name, read in _READERS.items():
        if event.get(name) is not None:
            read(answer, event[name])
    if event.get("event_type", "text-generation") == "text-generation":  # other events of Command R repeat the text
        answer.say(event.get("text"))
    _count(answer.counts, event)
    for name in ("stopReason", "stop_reason", "completionReason", "finish_reason"):
        answer.stop = _str(event.get(name)) or answer.stop
    if event.get("amazon-bedrock-guardrailAction") == "INTERVENED":
        answer.stop = "guardrail_intervened"
    answer.error = next((clean(name) for name in event if name.endswith("Exception")), answer.error)
    answer.embeds = answer.embeds or any(name in event for name in ("embedding", "embeddings", "embeddingsByType"))


def _converse(answer: _Answer, output: Any) -> None:
    _content(answer, _dict(_dict(output).get("message")).get("content"))


def _content(answer: _Answer, content: Any) -> None:
    for block in content if isinstance(content, list) else [content]:
        if (tool := _tool(block)) is not None:
            answer.call(tool.get("name"), tool.get("input") or {})
        else:
            answer.say(_block(block)[1])


def _block_start(answer: _Answer, block: Any) -> None:
    """content_block of Anthropic, `start` of Converse."""
    if (tool := _tool(block)) is not None:
        answer.call(tool.get("name"), tool.get("input") or None)
    else:
        _content(answer, block)


def _tool(block: Any) -> dict[str, Any] | None:
    named = _dict(block)
    tool = named if named.get("type") in ("tool_use", "server_tool_use") else named.get("toolUse")
    return tool if isinstance(tool, dict) else None


def _delta(answer: _Answer, delta: Any) -> None:
    """`delta` of Anthropic's and of Converse's events."""
    told = _dict(delta)
    answer.argue(told.get("partial_json") or _dict(told.get("toolUse")).get("input"))
    answer.stop = _str(told.get("stop_reason")) or answer.stop
    answer.say(told.get("text"))


def _choices(answer: _Answer, choices: Any) -> None:
    """Candidates of OpenAI's shape (Jamba, Mistral, DeepSeek) and of text completions (Mistral, Titan, Command)."""
    choice = next((each for each in _dicts(choices) if each.get("index", 0) == 0), {})
    message = _dict(choice.get("message")) or _dict(choice.get("delta"))
    _content(answer, message.get("content") or choice.get("text") or choice.get("outputText"))
    for call in _dicts(message.get("tool_calls")):
        function = _dict(call.get("function"))
        if _str(function.get("name")):
            answer.call(function["name"], function.get("arguments"))
        else:
            answer.argue(function.get("arguments"))
    for name in ("finish_reason", "stop_reason", "completionReason"):
        answer.stop = _str(choice.get(name)) or answer.stop
    if (tokens := count(choice.get("tokenCount"))) is not None:
        answer.counts["output"] = tokens


def _command_calls(answer: _Answer, calls: Any) -> None:
    for call in _dicts(calls):
        answer.call(call.get("name"), call.get("parameters"))


def _command_end(answer: _Answer, response: Any) -> None:
    """The whole answer, repeated in the last event of Command R's stream."""
    told = _dict(response)
    if not answer.blocks:
        answer.say(told.get("text"))
        _command_calls(answer, told.get("tool_calls"))
    _meta(answer, told.get("meta"))


def _meta(answer: _Answer, meta: Any) -> None:
    for name in ("billed_units", "tokens"):
        _count(answer.counts, _dict(_dict(meta).get(name)))


def _usage(answer: _Answer, usage: Any) -> None:
    _count(answer.counts, _dict(usage))
    _count(answer.counts, _dict(_dict(usage).get("completion_tokens_details")))


def _metrics(answer: _Answer, metrics: Any) -> None:
    """metrics of Converse, amazon-bedrock-invocationMetrics of InvokeModel."""
    told = _dict(metrics)
    _count(answer.counts, told)
    answer.latency_ms = _milliseconds(told.get("latencyMs", told.get("invocationLatency")), answer.latency_ms)
    answer.first_token_ms = _milliseconds(told.get("firstByteLatency"), answer.first_token_ms)


def _error(answer: _Answer, error: Any) -> None:
    answer.error = _str(_dict(error).get("type")) or _str(_dict(error).get("code")) or "error"


_READERS: dict[str, Callable[[_Answer, Any], None]] = {
    "output": _converse,
    "contentBlockStart": lambda answer, told: _block_start(answer, _dict(told).get("start")),
    "contentBlockDelta": lambda answer, told: _delta(answer, _dict(told).get("delta")),
    "messageStop": lambda answer, told: _take(answer, _dict(told)),
    "metadata": lambda answer, told: _take(answer, _dict(told)),
    "metrics": _metrics,
    "message": lambda answer, told: _usage(answer, _dict(told).get("usage")),
    "content": _content,
    "content_block": _block_start,
    "delta": _delta,
    "completion": _Answer.say,
    "outputText": _Answer.say,
    "generation": _Answer.say,
    "results": _choices,
    "outputs": _choices,
    "generations": _choices,
    "choices": _choices,
    "tool_calls": _command_calls,
    "response": _command_end,
    "meta": _meta,
    "usage": _usage,
    "error": _error,
    "amazon-bedrock-invocationMetrics": _metrics,
}


def _count(counts: dict[str, int], told: Mapping[str, Any]) -> None:
    for name, meaning in _TOKENS.items():
        if (tokens := count(told.get(name))) is not None:
            counts[meaning] = tokens


def _milliseconds(value: Any, otherwise: float | None) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        return otherwise
    return float(value)


def _call(call: Mapping[str, Any]) -> str:
    """A call in an earlier turn: arguments are called input, arguments (OpenAI's shape) or parameters (Command R)."""
    tool = _dict(call.get("function")) or call
    written = _written(tool.get("input", tool.get("arguments", tool.get("parameters"))))
    return f"[tool_call] {_str(tool.get('name'))}({written})"


def _written(value: Any) -> str:
    return _str(value) if isinstance(value, str) else clean(json.dumps(value, ensure_ascii=False))


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in _list(value) if isinstance(each, dict)]


def _str(value: Any) -> str:
    return clean(value) if isinstance(value, str) else ""
