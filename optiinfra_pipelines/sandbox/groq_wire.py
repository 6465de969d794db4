"""What Groq's API says beside its answers: errors, durations, rate limits, and which requests and schemas it refuses.

From the Groq API reference, the recorded samples and error bodies that users have published; nothing here judges.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

ORGANIZATION = "org_sandbox"
STRICT, BEST_EFFORT, NO_SCHEMA = "strict", "best effort", "none"
MODELS: Mapping[str, str] = {  # how well each keeps to a JSON schema
    "openai/gpt-oss-20b": STRICT,
    "openai/gpt-oss-120b": STRICT,
    "openai/gpt-oss-safeguard-20b": BEST_EFFORT,
    "llama-3.3-70b-versatile": NO_SCHEMA,
}
CONTEXT_TOKENS = 131_072
LARGEST_BODY = 4 * 1024 * 1024  # bytes; some bound is there, the reference names none
_PROPERTIES = (
    *("citation_options", "compound_custom", "disable_tool_validation", "documents", "exclude_domains"),
    *("frequency_penalty", "function_call", "functions", "include_domains", "include_reasoning"),
    *("max_completion_tokens", "max_tokens", "messages", "model", "n"),
    *("parallel_tool_calls", "presence_penalty", "reasoning_effort", "reasoning_format", "response_format"),
    *("search_settings", "seed", "service_tier", "stop", "stream"),
    *("stream_options", "temperature", "tool_choice", "tools", "top_p"),
    "user",
)
_KEYWORDS = (
    *("type", "properties", "required", "additionalProperties", "items", "enum"),
    *("anyOf", "$ref", "$defs", "$schema", "title", "description"),
)
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_REASONING_EFFORTS = ("low", "medium", "high")


@dataclass(eq=False)
class Refusal(Exception):
    """An answer that is an error: HTTP status, what stands under `error` in its body, and its headers."""

    status: int
    message: str
    type: str = "invalid_request_error"
    more: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body."""
        return {"error": {"message": self.message, "type": self.type, **self.more}}


def invalid(message: str, **more: str) -> Refusal:
    """400: the request is not one that can be answered."""
    return Refusal(400, message, more=more)


def unknown_key() -> Refusal:
    """401."""
    return Refusal(401, "Invalid API Key", more={"code": "invalid_api_key"})


def unknown_model(model: object) -> Refusal:
    """404: no such model, or no more."""
    message = f"The model `{model}` does not exist or you do not have access to it."
    return Refusal(404, message, more={"code": "model_not_found"})


def no_capacity() -> Refusal:
    """498: the flex tier is full."""
    return Refusal(498, "Flex tier capacity exceeded", "flex", {"code": "capacity_exceeded"})


def not_paid(status: int) -> Refusal:
    """The spend limit is reached: documented as 400; 402 and 403 are what a proxy or a restricted account answers."""
    message = "API access is blocked: the organization has reached its spend limit."
    return Refusal(status if status in (402, 403) else 400, message, more={"code": "blocked_api_access"})


def invalid_generation(content: str) -> Refusal:
    """400: the model wrote something that is no JSON of that schema."""
    message = "Generated JSON does not match the expected schema."
    return invalid(message, code="json_validate_failed", failed_generation=content)


def throttled(model: object, kind: str, limit: int, used: int, requested: int, seconds: float) -> Refusal:
    """429 on `kind`, such as "tokens per minute (TPM)", that a request may pass in `seconds`."""
    message = (
        f"Rate limit reached for model `{model}` in organization `{ORGANIZATION}` service tier `on_demand` on {kind}: "
        f"Limit {limit}, Used {used}, Requested {requested}. Please try again in {duration(seconds)}."
    )
    headers = {"retry-after": f"{math.ceil(seconds)}"}
    return Refusal(429, message, kind.split()[0], {"code": "rate_limit_exceeded"}, headers)


def duration(seconds: float) -> str:
    """Seconds as Groq writes them, rounded up to a millisecond: 785ms, 6.375s, 1m26.4s, 2h0m0s."""
    milliseconds = math.ceil(round(seconds * 1000, 3))
    if milliseconds <= 0:
        return "0s"
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    said = f"{rest / 1000:g}s"
    if hours or minutes:
        said = f"{minutes}m{said}"
    return f"{hours}h{said}" if hours else said


@dataclass
class _Bucket:
    """What was used of a limit; it comes back evenly over `period` seconds, as the recorded resets show."""

    kind: str
    limit: int
    period: float
    used: float = 0.0
    at: float = 0.0

    def refill(self, now: float) -> None:
        self.used = max(0.0, self.used - (now - self.at) * self.limit / self.period)
        self.at = now

    @property
    def reset(self) -> float:
        return self.used * self.period / self.limit

    def wait(self, requested: int) -> float:
        return (self.used + requested - self.limit) * self.period / self.limit


class Limits:
    """An account's limits on requests and tokens per minute and day, of all models together. Safe for threads.

    Those of a day are told for requests only, those of a minute for tokens only; None means no limit, and so large a
    figure in the headers that none is met.
    """

    def __init__(
        self, rpm: int | None = None, tpm: int | None = None, rpd: int | None = None, tpd: int | None = None
    ) -> None:
        self._requests_day = _Bucket("requests per day (RPD)", rpd or 100_000_000, 86_400)
        self._tokens_minute = _Bucket("tokens per minute (TPM)", tpm or 1_000_000_000, 60)
        self._requests = [self._requests_day]
        self._tokens = [self._tokens_minute]
        if rpm:
            self._requests.append(_Bucket("requests per minute (RPM)", rpm, 60))
        if tpd:
            self._tokens.append(_Bucket("tokens per day (TPD)", tpd, 86_400))
        self._lock = Lock()

    def admit(self, model: str, tokens: int, now: float) -> None:
        """Take one request and `tokens`; Refusal (413, 429) where a limit does not allow it, and nothing is taken."""
        with self._lock:
            for bucket, requested in self._asked(tokens):
                bucket.refill(now)
                if requested > bucket.limit:
                    raise _too_large(model, bucket, requested)
            for bucket, requested in self._asked(tokens):
                if (wait := bucket.wait(requested)) > 0:
                    raise throttled(model, bucket.kind, bucket.limit, round(bucket.used), requested, wait)
            for bucket, requested in self._asked(tokens):
                bucket.used += requested

    def settle(self, tokens: int) -> None:
        """Correct what was taken by `tokens`: those used but not asked for, or, below zero, the other way round."""
        with self._lock:
            for bucket in self._tokens:
                bucket.used = max(0.0, bucket.used + tokens)

    def headers(self, now: float) -> dict[str, str]:
        """The headers of every answer."""
        said: dict[str, str] = {}
        with self._lock:
            for name, bucket in (("requests", self._requests_day), ("tokens", self._tokens_minute)):
                bucket.refill(now)
                said[f"x-ratelimit-limit-{name}"] = f"{bucket.limit}"
                said[f"x-ratelimit-remaining-{name}"] = f"{max(0, math.floor(bucket.limit - bucket.used))}"
                said[f"x-ratelimit-reset-{name}"] = duration(bucket.reset)
        return said

    def _asked(self, tokens: int) -> Iterator[tuple[_Bucket, int]]:
        yield from ((bucket, 1) for bucket in self._requests)
        yield from ((bucket, tokens) for bucket in self._tokens)


def _too_large(model: str, bucket: _Bucket, requested: int) -> Refusal:
    message = (
        f"Request too large for model `{model}` in organization `{ORGANIZATION}` service tier `on_demand` on "
        f"{bucket.kind}: Limit {bucket.limit}, Requested {requested}, please reduce your message size and try again."
    )
    return Refusal(413, message, "tokens", {"code": "rate_limit_exceeded"})


def check_request(request: Any) -> None:
    """Refuse, as Groq does, what is no request for a chat completion; the sandbox streams nothing and has no tools."""
    if not isinstance(request, dict):
        raise invalid("request body must be a JSON object")
    for name, value in request.items():
        if name not in _PROPERTIES and value not in (None, False):
            raise invalid(f"property '{name}' is unsupported")
    if request.get("n") not in (None, 1):
        raise invalid("'n' : number must be at most 1")
    if not isinstance(request.get("model"), str) or request["model"] not in MODELS:
        raise unknown_model(request.get("model"))
    _check_messages(request.get("messages"))
    effort = request.get("reasoning_effort") or "medium"
    if effort not in _REASONING_EFFORTS:
        raise invalid(f"`reasoning_effort` must be one of {', '.join(_REASONING_EFFORTS)}", param="reasoning_effort")
    most = completion_limit(request)
    if most is not None and (not isinstance(most, int) or most < 1):
        raise invalid("'max_completion_tokens' : number must be at least 1")
    if any(request.get(name) for name in ("stream", "tools", "functions")):
        raise invalid("streaming and tool use are not supported with structured outputs", param="response_format")
    _check_format(request)


def completion_limit(request: Mapping[str, Any]) -> Any:
    """The most tokens that the request wants written, by its new name or its old one; None without a limit."""
    return request.get("max_completion_tokens") or request.get("max_tokens")


def text_of(message: Mapping[str, Any]) -> str:
    """A message's text; of parts, all their texts."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def schema_of(request: Mapping[str, Any]) -> dict[str, Any] | None:
    """The JSON schema that the answer has to fit, if there is one."""
    wanted = request.get("response_format") or {}
    return wanted["json_schema"]["schema"] if wanted.get("type") == "json_schema" else None


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise invalid("'messages' : minimum number of items is 1")
    for at, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ("system", "developer", "user", "assistant"):
            raise invalid(f"'messages.{at}' : discriminator property 'role' has invalid value")
        for name in message:
            if name not in ("role", "content"):
                raise invalid(f"'messages.{at}' : property '{name}' is unsupported")
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts):
            raise invalid(f"'messages.{at}.content' : value must be a string")


def _check_format(request: Mapping[str, Any]) -> None:
    wanted = request.get("response_format") or {"type": "text"}
    model, kind = request["model"], wanted.get("type") if isinstance(wanted, dict) else None
    if kind not in ("text", "json_object", "json_schema"):
        raise invalid("'response_format.type' : value is not one of the allowed values", param="response_format")
    if kind == "json_object" and not any("json" in text_of(each).lower() for each in request["messages"]):
        raise invalid(
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
        )
    if kind != "json_schema":
        return
    asked = wanted.get("json_schema")
    if not isinstance(asked, dict) or not isinstance(asked.get("schema"), dict) or not asked.get("name"):
        raise invalid("response_format.json_schema needs a `name` and a `schema`", param="response_format")
    if MODELS[model] == NO_SCHEMA or (asked.get("strict") and MODELS[model] != STRICT):
        mode = "`json_schema` with `strict: true`" if asked.get("strict") else "`json_schema`"
        raise invalid(f"This model does not support response format {mode}.", param="response_format")
    found = next(malformations(asked["schema"]), None)
    if found is None and asked.get("strict"):
        found = next(strict_faults(asked["schema"]), None)
    if found is not None:
        message = f"invalid JSON schema for response_format: '{asked['name']}': {found}"
        raise invalid(message, param="response_format", code="")


def malformations(schema: Mapping[str, Any]) -> Iterator[str]:
    """Why a schema is no JSON schema, as far as an answer that fits it could not be written."""
    for path, node in _nodes(schema, ""):
        if not isinstance(node, dict):
            yield f"{path}: a schema must be an object"
            continue
        for name, kind in (("properties", dict), ("$defs", dict), ("enum", list), ("anyOf", list)):
            if not isinstance(node.get(name, kind()), kind):
                yield f"{path}/{name}: value has the wrong type"
            elif node.get(name) == []:
                yield f"{path}/{name}: minimum number of items is 1"
        if not all(kind in _TYPES for kind in _kinds(node)):
            yield f"{path}/type: value must name JSON types"
        if "$ref" in node and resolved(node, schema) is node:
            yield f"{path}/$ref: {node['$ref']} does not lead to a schema"


def strict_faults(schema: Mapping[str, Any]) -> Iterator[str]:
    """What of a well-formed schema the strict mode does not take, in Groq's words where they are known."""
    if schema.get("type") != "object":
        yield "/type: the root must be an object"
    for path, node in _nodes(schema, ""):
        yield from (f"{path}: {name} is not supported" for name in node if name not in _KEYWORDS)
        if not any(name in node for name in ("type", "enum", "anyOf", "$ref")):
            yield f"{path}/type: is required"
        if "object" in _kinds(node):
            yield from _object_faults(node, path)


def _object_faults(node: Mapping[str, Any], path: str) -> Iterator[str]:
    if node.get("additionalProperties") is not False:
        yield f"{path}: `additionalProperties:false` must be set on every object".removeprefix(": ")
    if not isinstance(node.get("required"), list):
        yield (
            f"{path}/required: `required` is required to be supplied and to be an array including every key in "
            "properties"
        )
    elif missing := [name for name in node.get("properties", {}) if name not in node["required"]]:
        yield f"{path}/required: The following properties must be listed in `required`: {', '.join(missing)}"


def _nodes(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """A schema and all those within it, with their paths."""
    yield path, node
    if not isinstance(node, dict):
        return
    for holder in ("properties", "$defs"):
        if isinstance(node.get(holder), dict):
            for name, below in node[holder].items():
                yield from _nodes(below, f"{path}/{holder}/{name}")
    if isinstance(node.get("anyOf"), list):
        for at, below in enumerate(node["anyOf"]):
            yield from _nodes(below, f"{path}/anyOf/{at}")
    if "items" in node:
        yield from _nodes(node["items"], f"{path}/items")


def _kinds(node: Mapping[str, Any]) -> list[Any]:
    kinds = node.get("type", [])
    return kinds if isinstance(kinds, list) else [kinds]


def resolved(node: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema that `node` refers to by `$ref`, a path within `root`; `node` itself where it refers to none."""
    path = node.get("$ref", "")
    if not path.startswith("#"):
        return node
    found: Any = root
    for name in path.removeprefix("#").strip("/").split("/"):
        found = found.get(name) if isinstance(found, dict) and name else found
    return found if isinstance(found, dict) else node
