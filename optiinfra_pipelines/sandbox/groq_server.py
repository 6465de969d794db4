"""Groq's chat completions on loopback for the sandbox: the recorded wire, answers by the rule of `judge_rule`.

Run as `python -m optiinfra_pipelines.sandbox.groq_server --port 0`; `--help` lists limits and errors of the judge. It
proves transport, budget and statistics, and nothing about the real model's judgement.
"""

import argparse
import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import fields
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

from optiinfra_pipelines.llm.anchors import anchors
from optiinfra_pipelines.sandbox import groq_wire as wire
from optiinfra_pipelines.sandbox.gate import FAULT_IN_ENVIRON, Fault, Gate, answer, read_body, serve, serve_apart
from optiinfra_pipelines.sandbox.groq_wire import Limits, Refusal
from optiinfra_pipelines.sandbox.interactions import planted_scores
from optiinfra_pipelines.sandbox.judge_rule import DEFAULT_SCORES, Judged, Judgement, Rule, answer_digest

JUDGED_PATH = "/sandbox/judged"
API_KEY = "canary-groq-api-key"
THROTTLED, CAPACITY, BILLING, MODEL_GONE = "throttled", "capacity", "billing", "model_gone"
INVALID_JSON, BROKEN_JSON, TRUNCATED = "invalid_json", "broken_json", "truncated"
KINDS = (THROTTLED, CAPACITY, BILLING, MODEL_GONE, INVALID_JSON, BROKEN_JSON, TRUNCATED)
_CHAT = "/chat/completions"
FAULTS: Mapping[str, Fault] = {
    THROTTLED: Fault(kind=THROTTLED, match=_CHAT, headers={"retry-after": "1"}, times=2),
    CAPACITY: Fault(kind=CAPACITY, match=_CHAT, times=2),
    "server_error_500": Fault(status=500, match=_CHAT, times=2),
    "server_error_503": Fault(status=503, match=_CHAT, times=2),
    "connection_reset": Fault(kind="reset", match=_CHAT, times=2),
    "hang": Fault(kind="hang", match=_CHAT, seconds=2, times=1),
    "truncated_json": Fault(kind="cut", match=_CHAT, times=2),  # of the HTTP body: it was judged, and is paid
    INVALID_JSON: Fault(kind=INVALID_JSON, match=_CHAT, times=2),
    BROKEN_JSON: Fault(kind=BROKEN_JSON, match=_CHAT, times=2),
    TRUNCATED: Fault(kind=TRUNCATED, match=_CHAT, times=2),
    "key_revoked": Fault(status=401, match=_CHAT, times=1_000_000),
    BILLING: Fault(kind=BILLING, match=_CHAT, status=400, times=1_000_000),  # 402 and 403 are answered too
    MODEL_GONE: Fault(kind=MODEL_GONE, match=_CHAT, times=1_000_000),
}
_REASONING_TOKENS = {"low": 120, "medium": 770, "high": 2400}  # 120 of 250 in the sample; medium: 900 tokens in all
_TOKENS_PER_SECOND = 1000.0  # of the answer, as in the sample
_PROMPT_TOKENS_PER_SECOND = 120_000.0
_SMALLEST_PREFIX = 128  # tokens that are cached
_CACHED_SECONDS = 7200.0
_FACTS = re.compile(r"<facts-([\w-]+)>(.*?)</facts-\1>", re.DOTALL)
_REASONING = "The rubric is applied to the answer, metric by metric."

Planted = Callable[[str], Mapping[str, float] | None]


class GroqServer:
    """The WSGI application: two routes of Groq's API, and `/sandbox/judged`.

    `planted` gives the scores planted for an answer, or None. `/sandbox/judged` (GET) tells what was judged, the
    requests by SHA-256 of the answer, and what of them was used and billed; DELETE begins anew.
    """

    def __init__(self, rule: Rule, planted: Planted, limits: Limits) -> None:
        self._rule = rule
        self._planted = planted
        self._limits = limits
        self._lock = Lock()
        self._answers: Counter[str] = Counter()
        self._usage: Counter[str] = Counter()
        self._repeats: Counter[bytes] = Counter()
        self._prefixes: dict[bytes, float] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        fault = environ.get(FAULT_IN_ENVIRON)
        body = read_body(environ)
        try:
            if environ.get("HTTP_AUTHORIZATION") != f"Bearer {API_KEY}":
                raise wire.unknown_key()
            if (environ["REQUEST_METHOD"], environ["PATH_INFO"]) == ("GET", "/openai/v1/models"):
                return _answer(start_response, 200, _models())
            if (environ["REQUEST_METHOD"], environ["PATH_INFO"]) != ("POST", "/openai/v1/chat/completions"):
                message = f"Unknown request URL: {environ['REQUEST_METHOD']} {environ['PATH_INFO']}."
                raise Refusal(404, message, more={"code": "unknown_url"})
            completion = self._complete(body, fault)
        except Refusal as refusal:
            limits = self._limits.headers(time.monotonic())
            return _answer(start_response, refusal.status, refusal.body, {**limits, **refusal.headers})
        return _answer(start_response, 200, completion, self._limits.headers(time.monotonic()))

    def judged(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """The WSGI application at JUDGED_PATH."""
        with self._lock:
            if environ["REQUEST_METHOD"] == "DELETE":
                self._answers.clear()
                self._usage.clear()
            told = {"total": self._answers.total(), "answers": dict(self._answers), "usage": dict(self._usage)}
        return _answer(start_response, 200, told)

    def _complete(self, body: bytes, fault: Fault | None) -> dict[str, Any]:
        if len(body) > wire.LARGEST_BODY:
            raise Refusal(413, "Request Entity Too Large", more={"code": "request_too_large"})
        try:
            request = json.loads(body)
        except ValueError as error:
            raise wire.invalid("request body is not valid JSON") from error
        wire.check_request(request)
        kind = fault.kind if fault else ""
        if fault:
            _refuse(fault, request["model"])
        prompt = sum(_tokens(wire.text_of(message)) for message in request["messages"])
        most = wire.completion_limit(request)
        if prompt + (most or 0) > wire.CONTEXT_TOKENS:
            message = "Please reduce the length of the messages or completion."
            raise wire.invalid(message, param="messages", code="context_length_exceeded")
        self._limits.admit(request["model"], prompt + (most or 0), time.monotonic())
        content = self._judge(request)
        if kind == INVALID_JSON:
            raise wire.invalid_generation(content[: len(content) // 2])
        if kind == BROKEN_JSON:
            content = f"The scores are as follows.\n{content[1:]}"
        reasoning = _REASONING_TOKENS[request.get("reasoning_effort") or "medium"]
        room = (reasoning + _tokens(content)) if most is None else most
        if kind == TRUNCATED:
            room = reasoning + _tokens(content) // 2
        reasoning = min(reasoning, room)
        whole = _tokens(content) <= room - reasoning
        written = content if whole else content[: 4 * (room - reasoning)]
        usage = _usage(prompt, self._cached(request), reasoning, _tokens(written))
        self._bill(usage, prompt + (most or 0))
        return self._completion(request, written, "stop" if whole else "length", usage)

    def _judge(self, request: Mapping[str, Any]) -> str:
        """The answer's JSON; without a schema, the planted scores, and of facts to explain a text of their figures."""
        users = [wire.text_of(message) for message in request["messages"] if message["role"] == "user"]
        facts = _FACTS.search(users[-1] if users else "")
        if facts:
            return _explained(json.loads(facts[2]))
        judged = Judged.read(users[-1] if users else "")
        name = judged.digest
        schema = wire.schema_of(request)
        seen = json.dumps([_system(request), judged.inside, judged.outside if not judged.inside else "", schema])
        key = sha256(seen.encode()).digest()
        with self._lock:
            self._answers[name] += 1
            repeat = self._repeats[key]
            self._repeats[key] += 1
        planted = self._planted(judged.answer) or DEFAULT_SCORES
        if schema is None:
            return json.dumps(dict(planted))
        try:
            content = Judgement(self._rule, judged, planted, schema, repeat).content()
        except ValueError as error:
            raise wire.invalid(f"{error}", param="response_format") from error
        return json.dumps(content, ensure_ascii=False, separators=(",", ":"))

    def _cached(self, request: Mapping[str, Any]) -> int:
        """How many tokens of the request's system message were read from the cache; from now on they are."""
        system = _system(request)
        tokens = _tokens(system)
        if tokens < _SMALLEST_PREFIX or wire.MODELS[request["model"]] == wire.NO_SCHEMA:
            return 0
        key = sha256(f"{request['model']}\0{system}".encode("utf-8", "surrogatepass")).digest()
        now = time.monotonic()
        with self._lock:
            before = self._prefixes.get(key, -math.inf)
            self._prefixes[key] = now
        return tokens if now - before < _CACHED_SECONDS else 0

    def _bill(self, usage: Mapping[str, Any], taken: int) -> None:
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        self._limits.settle(usage["total_tokens"] - cached - taken)  # cached tokens do not count, once it is over
        with self._lock:
            self._usage.update(
                completions=1,
                prompt_tokens=usage["prompt_tokens"],
                cached_tokens=cached,
                completion_tokens=usage["completion_tokens"],
            )

    def _completion(
        self, request: Mapping[str, Any], content: str, finish_reason: str, usage: Mapping[str, Any]
    ) -> dict[str, Any]:
        number = uuid4().hex
        message = {"role": "assistant", "content": content}
        if request.get("include_reasoning") is not False:
            message["reasoning"] = _REASONING
        return {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": request["model"],
            "system_fingerprint": self._rule.fingerprint,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}],
            "usage": usage,
            "x_groq": {"id": f"req_{number[:26]}"},
            "service_tier": "on_demand",
        }


def _explained(facts: Mapping[str, Any]) -> str:
    """A sentence of what a rejected deployment changed, in the figures given, and which examples show it."""
    changed = facts["deployment"]
    sentences = [
        f"The mean of {metric} was {of['mean before']} before and is {of['mean after']} now."
        for metric, of in facts["figures"].items()
        if of["verdict"] == "REJECT"
    ]
    shown = " and ".join(f"example {each['example']}" for each in facts["examples"][:2])
    sentences += [f"Among the answers, {shown} show it."] if shown else []
    return f"{changed['application']} answers worse with {changed['after']}. {' '.join(sentences)}"


def _refuse(fault: Fault, model: str) -> None:
    """Raise the refusal that a fault stands for; one that spoils an answer stands for none."""
    if fault.kind == THROTTLED:
        headers = {name.lower(): value for name, value in fault.headers.items()}
        seconds = float(headers.get("retry-after", "1"))
        refusal = wire.throttled(model, "tokens per minute (TPM)", 8000, 7500, 1450, seconds)
        raise Refusal(429, refusal.message, refusal.type, refusal.more, {**refusal.headers, **headers})
    if fault.kind == CAPACITY:
        raise wire.no_capacity()
    if fault.kind == BILLING:
        raise wire.not_paid(fault.status)
    if fault.kind == MODEL_GONE:
        raise wire.unknown_model(model)


def _usage(prompt: int, cached: int, reasoning: int, written: int) -> dict[str, Any]:
    prompt_time = round((prompt - cached) / _PROMPT_TOKENS_PER_SECOND, 6)
    completion_time = round((reasoning + written) / _TOKENS_PER_SECOND, 6)
    return {
        "queue_time": 0.027,
        "prompt_tokens": prompt,
        "prompt_time": prompt_time,
        "completion_tokens": reasoning + written,
        "completion_time": completion_time,
        "total_tokens": prompt + reasoning + written,
        "total_time": round(prompt_time + completion_time, 6),
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def _tokens(text: str) -> int:
    return math.ceil(len(text) / 4)


def _system(request: Mapping[str, Any]) -> str:
    first = request["messages"][0]
    return wire.text_of(first) if first["role"] == "system" else ""


def _models() -> dict[str, Any]:
    listed = [
        {
            "id": name,
            "object": "model",
            "created": 1754408224,
            "owned_by": name.split("/")[0] if "/" in name else "Meta",
            "active": True,
            "context_window": wire.CONTEXT_TOKENS,
            "public_apps": None,
            "max_completion_tokens": 65_536,
        }
        for name in wire.MODELS
    ]
    return {"object": "list", "data": listed}


def _answer(
    start_response: Any, status: int, content: Any, headers: Mapping[str, str] | None = None
) -> Iterable[bytes]:
    body = json.dumps(content).encode()
    said = {"x-request-id": f"req_{uuid4().hex[:26]}", **(headers or {})}
    if status != 498:
        return answer(start_response, status, body, headers=said)
    said |= {"Content-Type": "application/json", "Content-Length": f"{len(body)}"}
    start_response("498 Flex Tier Capacity Exceeded", list(said.items()))  # a status of Groq's own
    return [body]


def _error_body(status: int, environ: Mapping[str, Any]) -> tuple[str, bytes]:
    if status == 401:
        refusal = wire.unknown_key()
    elif status == 429:
        refusal = wire.throttled("openai/gpt-oss-20b", "requests per minute (RPM)", 30, 30, 1, 2.0)
    elif status < 500:
        refusal = wire.invalid(HTTPStatus(status).phrase)
    else:
        refusal = Refusal(status, HTTPStatus(status).phrase, "internal_server_error")
    return "application/json", json.dumps(refusal.body).encode()


def read_labels(path: Path) -> dict[str, dict[str, float]]:
    """Planted scores by the answer's SHA-256, of a file of JSON lines {"answer_sha256": ..., "scores": {metric: 0..1}}.

    Raises ValueError that names the line that is none.
    """
    labels: dict[str, dict[str, float]] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                label = json.loads(line)
                labels[label["answer_sha256"]] = {name: float(score) for name, score in label["scores"].items()}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{path}:{number} is no label of answer_sha256 and scores") from error
    return labels


def _planted_by(labels: Mapping[str, Mapping[str, float]]) -> Planted:
    known = {each.texts.output: each.expected_scores for each in anchors()}

    def planted(answer: str) -> Mapping[str, float] | None:
        return labels.get(answer_digest(answer)) or planted_scores(answer) or known.get(answer)

    return planted


def serve_groq(
    *, labels: Path | None = None, latency: float = 0.0, **options: float | None
) -> AbstractContextManager[str]:
    """The server in a process of its own; yields its URL, to be GROQ_BASE_URL as it stands.

    `options` are those of the command line: rpm, tpm, rpd, tpd, and the fields of Rule.
    """
    given = {"labels": labels, "latency": latency, **options}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]
    return serve_apart("optiinfra_pipelines.sandbox.groq_server", *arguments)


def environment(url: str) -> dict[str, str]:
    """The environment variables by which the product finds this judge."""
    return {"GROQ_API_KEY": API_KEY, "GROQ_BASE_URL": url, "GROQ_MODEL": "openai/gpt-oss-20b"}


def main(arguments: list[str] | None = None) -> None:
    """Command line of the server."""
    parser = argparse.ArgumentParser(prog="python -m optiinfra_pipelines.sandbox.groq_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0, the default, takes a free one")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds to wait before each answer")
    parser.add_argument("--labels", type=Path, help="JSON lines of answer_sha256 and scores; they win")
    for name, unit in (("r", "requests"), ("t", "tokens")):
        for period in ("minute", "day"):
            text = f"{unit} per {period}; without it there is no limit"
            parser.add_argument(f"--{name}p{period[0]}", type=int, help=text)
    for each in fields(Rule):
        kind, text = type(each.default), f"see judge_rule.Rule; default {each.default}"
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=kind, default=each.default, help=text)
    options = parser.parse_args(arguments)
    rule = Rule(**{each.name: getattr(options, each.name) for each in fields(Rule)})
    limits = Limits(options.rpm, options.tpm, options.rpd, options.tpd)
    server = GroqServer(rule, _planted_by(read_labels(options.labels) if options.labels else {}), limits)
    gate = Gate(server, _error_body, KINDS, options.latency)

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        apart = environ["PATH_INFO"] == JUDGED_PATH
        return server.judged(environ, start_response) if apart else gate(environ, start_response)

    serve(application, options.port)


if __name__ == "__main__":
    main()
