"""The one record that every source's parser makes of a request to a model and its answer, and how it becomes a row.

Parsers (`bedrock.py`, `vertex.py`, ...) are pure: decoded wire in, `Interaction`s out, texts as they were logged.
Redaction happens afterwards, in `collecting.py`, before anything is written.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal
from uuid import UUID, uuid5

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.windows import floor_window

ContentState = Literal["full", "redacted", "truncated", "missing"]
UNKNOWN = "unknown"  # application or model that nobody names
_NAMESPACE = UUID("6d6a1f0c-6a55-5c0e-9d0e-3f6f0a0b7e11")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: role (system, user, assistant, tool, ...) and its text. What is no text reads [image], [audio], ..."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Texts:
    """What was said, by the part it plays for a judge; empty where there is nothing of the kind."""

    system: str = ""
    context: str = ""
    input: str = ""
    output: str = ""


@dataclass(frozen=True, slots=True)
class Interaction:
    """One request and its answer as a source tells it, before redaction. Times have a zone; absent facts are None.

    `native_id` is unique within its source and the same each time it is read. `application` and `variant` are what
    the record itself says ("" for nothing); `truncated`: the source cut a text. Tokens of the input hold cached ones,
    tokens of the output hold reasoning. `details` must be JSON.
    """

    native_id: str
    timestamp: datetime
    model_name: str = UNKNOWN
    texts: Texts = field(default_factory=Texts)
    truncated: bool = False
    application: str = ""
    application_name: str = ""
    variant: str = ""
    conversation_id: str | None = None
    operation: str = "chat"
    account_id: str = ""
    region: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    latency_ms: float | None = None
    time_to_first_token_ms: float | None = None
    finish_reason: str | None = None
    error_type: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def content_state(self) -> ContentState:
        """missing where either side has no text, truncated where the source cut one, else full."""
        if not self.texts.input.strip() or not self.texts.output.strip():
            return "missing"
        return "truncated" if self.truncated else "full"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that is no interaction that this program can read: the record and the reason, for raw.rejected_rows.

    `at`: when it was, or where its source filed it; None where nothing tells.
    """

    record: Mapping[str, Any]
    reason: str
    at: datetime | None = None


Found = Interaction | Unreadable


def conversation(messages: Sequence[Message], output: str) -> Texts:
    """The parts of a conversation that was answered by `output`.

    The input is what the user said after the last turn of anyone else; before it, every turn and tool result is
    context, one a paragraph after its role. Where a tool spoke last (an agent's step), the input is the last thing
    the user said, and the tools' results are context.
    """
    system = "\n\n".join(each.text for each in messages if each.role in ("system", "developer") and each.text)
    turns = [each for each in messages if each.role not in ("system", "developer")]
    last = next((number for number in reversed(range(len(turns))) if turns[number].role == "user"), None)
    if last is None:
        return Texts(system, _paragraphs(turns), "", output)
    first = last
    while first and turns[first - 1].role == "user":
        first -= 1
    said = "\n\n".join(each.text for each in turns[first : last + 1] if each.text)
    return Texts(system, _paragraphs([*turns[:first], *turns[last + 1 :]]), said, output)


def _paragraphs(turns: Iterable[Message]) -> str:
    return "\n\n".join(f"{each.role}: {each.text}" for each in turns if each.text)


# How assistants decline, at the beginning of an answer: an apology or a plain "I", and what they do not do.
_BEGINNING = 300  # characters: an apology stands there, and a long answer is no work for an expression
_DECLINED = re.compile(
    r"\W{0,10}(?:(?:i['’]?m|i am) (?:very |so |really )?(?:sorry|afraid)|sorry|unfortunately|as an ai[^.,]{0,40}"
    r"|i apologi[sz]e)?\W{0,10}(?:but )?(?:i|we)(?: can['’]?t| cannot| can not| won['’]?t| will not"
    r"|(?: am|['’]m) (?:unable|not able) to| must decline| have to decline)\b[^.]{0,60}?"
    r"\b(?:help|assist|provide|answer|comply|fulfill?|do that|discuss|share|support|create|write|generate|engage)\b",
    re.IGNORECASE,
)


def refused(found: Interaction) -> bool | None:
    """Whether the model or a filter declined to answer, by its finish reason or its first words; None without text."""
    if found.finish_reason in ("content_filter", "refusal"):
        return True
    said = found.texts.output.lstrip()[:_BEGINNING]
    return bool(_DECLINED.match(said)) if said else None


def interaction_id(customer_id: str, source: str, native_id: str) -> str:
    """The stable id of an interaction: UUIDv5 of whose it is, where it was read and what it is called there."""
    return str(uuid5(_NAMESPACE, json.dumps([customer_id, source, native_id])))


def sampling_unit(identifier: str) -> float:
    """A number in [0, 1) by SHA-256 of the interaction's id: 53 bits, uniform, and nobody's to choose."""
    digest = sha256(b"optiinfra:sampling:v1\0" + identifier.encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def interaction_row(
    customer_id: str,
    source: str,
    found: Interaction,
    texts: Texts,
    redactions: int,
    redactor_version: str,
    *,
    application: str = "",
    application_name: str = "",
    variant: str = "",
) -> dict[str, Any]:
    """`found` as a row of raw.{p}_llm_interactions, with `texts` (redacted or not) in place of its own.

    `application`, `application_name` and `variant` stand in where the record tells none.
    """
    state = found.content_state
    identifier = interaction_id(customer_id, source, found.native_id)
    application_id = found.application or application or UNKNOWN
    return {
        "account_id": found.account_id,
        "region": found.region,
        "interaction_id": identifier,
        "native_id": found.native_id,
        "timestamp": naive_utc(found.timestamp),
        "window_start": naive_utc(floor_window(found.timestamp)),
        "application_id": application_id,
        "application_name": found.application_name or application_name or application_id,
        "model_name": found.model_name,
        "variant": found.variant or variant,
        "conversation_id": found.conversation_id,
        "operation": found.operation,
        "input": texts.input or None,
        "output": texts.output or None,
        "system": texts.system or None,
        "context": texts.context or None,
        "content_state": "redacted" if redactions and state == "full" else state,
        "redactions": redactions,
        "redactor_version": redactor_version,
        "input_tokens": found.input_tokens,
        "output_tokens": found.output_tokens,
        "cached_tokens": found.cached_tokens,
        "reasoning_tokens": found.reasoning_tokens,
        "latency_ms": found.latency_ms,
        "time_to_first_token_ms": found.time_to_first_token_ms,
        "finish_reason": found.finish_reason,
        "refused": refused(found),
        "error_type": found.error_type,
        "trace_id": found.trace_id,
        "span_id": found.span_id,
        "sampling_unit": sampling_unit(identifier),
        "details": json.dumps(found.details, sort_keys=True, ensure_ascii=False),
        "source": source,
    }
