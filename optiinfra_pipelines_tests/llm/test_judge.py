"""The judge over real HTTP: a server on loopback that speaks Groq's wire and answers as each test scripts it.

It proves transport, retries, money and what is sent; it says nothing about a model's judgement.
"""

import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.llm import rubric
from optiinfra_pipelines.llm.interaction import Texts
from optiinfra_pipelines.llm.judge import ANSWER_TOKENS, PRICES, Judge, Outcome, fingerprint_of
from optiinfra_pipelines.llm.limits import Limits, Spent
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines_tests.llm.test_limits import NOON, Clock

KEY = "gsk_canary_key"
TEXTS = Texts("Be short.", "", "Capital of Australia?", "It is canary-answer Sydney.")
JUDGED = {
    "reasoning": "Canberra is the capital.",
    "coherence": "flawless",
    "relevance": "fully_relevant",
    "accuracy": "wrong",
    "completeness": "complete",
    "evidence": "canary-answer Sydney",
    "hallucination": "fabricated",
    "toxicity": "none",
    "hate_speech": "none",
    "violence": "none",
    "profanity": "none",
    "instructions_to_judge": "no",
}
GOOD = json.dumps(JUDGED)
USAGE = {
    "prompt_tokens": 1200,
    "completion_tokens": 250,
    "prompt_tokens_details": {"cached_tokens": 512},
    "completion_tokens_details": {"reasoning_tokens": 120},
}
COST = Decimal("0.0001458")  # 688 x 0.075 + 512 x 0.0375 + 250 x 0.30 USD per million
Scripted = Callable[[Request], Response]

# Shapes as Groq sends them: a success, too often, no capacity, JSON that does not fit.
RECORDED: list[dict[str, Any]] = [
    {
        "status": 200,
        "headers": {
            "x-ratelimit-limit-requests": "1000",
            "x-ratelimit-remaining-requests": "999",
            "x-ratelimit-reset-requests": "1m26.4s",
            "x-ratelimit-limit-tokens": "8000",
            "x-ratelimit-remaining-tokens": "7150",
            "x-ratelimit-reset-tokens": "6.375s",
        },
        "body": {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1785578402,
            "model": "openai/gpt-oss-20b",
            "system_fingerprint": "fp_0",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "", "reasoning": "."}, "finish_reason": "stop"}
            ],
            "usage": USAGE,
            "x_groq": {"id": "req_1"},
            "service_tier": "on_demand",
        },
    },
    {
        "status": 429,
        "headers": {"retry-after": "6"},
        "body": {
            "error": {
                "message": "Rate limit reached for model on tokens per minute (TPM): Limit 8000, Used 7500.",
                "type": "tokens",
                "code": "rate_limit_exceeded",
            }
        },
    },
    {"status": 498, "headers": {}, "body": {"error": {"message": "Full", "type": "flex", "code": "capacity_exceeded"}}},
    {
        "status": 400,
        "headers": {},
        "body": {"error": {"message": "No.", "code": "json_validate_failed", "failed_generation": "canary-answer"}},
    },
]


@dataclass
class Server:
    """Groq on loopback: `script` is answered first, then every request with a judgement."""

    url: str = ""
    script: deque[Scripted] = field(default_factory=deque)
    asked: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)

    def __call__(self, request: Request) -> Response:
        self.asked.append((request.path, dict(request.headers), request.get_json()))
        return self.script.popleft()(request) if self.script else said()(request)

    def answers(self, *script: Scripted) -> None:
        self.script.extend(script)

    def bodies(self) -> list[dict[str, Any]]:
        return [body for _, _, body in self.asked]


def answer(status: int, body: Any, headers: dict[str, str] | None = None) -> Scripted:
    return lambda _: Response(json.dumps(body), status, headers, content_type="application/json")


def said(
    content: Any = GOOD,
    finish_reason: str = "stop",
    headers: dict[str, str] | None = None,
    **more: Any,
) -> Scripted:
    body = {**RECORDED[0]["body"], **more}
    body["choices"] = [
        {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish_reason}
    ]
    return answer(200, body, headers)


def error(status: int, code: str = "", headers: dict[str, str] | None = None) -> Scripted:
    body = {"error": {"message": f"canary-answer for {KEY}", "type": "invalid_request_error", "code": code}}
    return answer(status, body, headers)


@pytest.fixture
def server() -> Iterator[Server]:
    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, *_: Any) -> None:
            """Silence."""

    running = Server()
    http = make_server("127.0.0.1", 0, Request.application(running), threaded=True, request_handler=Quiet)
    http.daemon_threads = True  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever, args=[0.01])
    thread.start()
    running.url = f"http://127.0.0.1:{http.port}"
    yield running
    http.shutdown()
    thread.join()


@pytest.fixture(params=["recorded", "shared"])
def wire(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """The four shapes: as written above, and as they stand in the shared data where that is at hand."""
    if request.param == "recorded":
        return deepcopy(RECORDED)
    folder: Path = request.getfixturevalue("data")
    return [json.loads(line) for line in (folder / "llm/wire/groq_chat_completion.jsonl").read_text().splitlines()]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def settings(server: Server, **more: Any) -> Settings:
    return Settings.model_validate({"GROQ_API_KEY": KEY, "GROQ_BASE_URL": server.url, **more})


def judge(server: Server, clock: Clock, limits: Limits | None = None, **more: Any) -> Judge:
    limits = limits or Limits(clock=clock, now=clock.now, wait=clock.wait)
    return Judge(settings(server, **more), limits, "1", sleep=clock.sleep)


def ask(server: Server, clock: Clock, deadline: float = 600, **more: Any) -> Outcome:
    with judge(server, clock, **more) as one:
        outcome = one.ask(TEXTS, deadline)
    assert "canary" not in outcome.error
    return outcome


def test_a_judgement_comes_with_what_it_cost(server: Server, clock: Clock, wire: list[dict[str, Any]]):
    body = wire[0]["body"]
    body["choices"][0]["message"]["content"] = json.dumps(JUDGED)
    server.answers(answer(200, body, wire[0]["headers"]))
    outcome = ask(server, clock)
    assert outcome.status == "succeeded"
    assert outcome.judgement == rubric.read(json.dumps(JUDGED), TEXTS)
    assert outcome.judgement.evidence == "canary-answer Sydney"
    assert (outcome.input_tokens, outcome.cached_tokens) == (1200, 512)
    assert (outcome.output_tokens, outcome.reasoning_tokens) == (250, 120)
    assert (outcome.requests, outcome.cost, outcome.error_kind, outcome.error) == (1, COST, None, "")
    assert (outcome.request_id, outcome.system_fingerprint) == ("req_1", "fp_0")
    assert outcome.latency_ms is not None
    assert outcome.latency_ms > 0


def test_refusals_as_groq_sends_them_are_repeated_until_a_judgement_comes(
    server: Server, clock: Clock, wire: list[dict[str, Any]]
):
    server.answers(*(answer(each["status"], each["body"], each["headers"]) for each in wire[1:]))
    with judge(server, clock) as one:
        reserved = one.reserved(TEXTS)[1]
        outcome = one.ask(TEXTS, 600)
    assert (outcome.status, outcome.requests, outcome.input_tokens) == ("succeeded", 4, 1200)
    assert clock.waits[0] == 6
    assert len(clock.waits) == 3
    assert outcome.cost == reserved + COST  # of JSON that did not fit nobody tells the usage


def test_the_request_is_exactly_this_and_its_beginning_never_changes(server: Server, clock: Clock):
    with judge(server, clock) as one:
        one.ask(TEXTS, 600)
        one.ask(Texts(output="Something else."), 600)
    path, headers, body = server.asked[0]
    user = body["messages"][1]["content"]
    nonce = re.search("<judged-([0-9a-f]{16})>", user)
    assert nonce
    assert path == "/openai/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body == {
        "model": "openai/gpt-oss-20b",
        "messages": rubric.messages(TEXTS, nonce[1]),
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "judgement", "strict": True, "schema": rubric.SCHEMA},
        },
        "temperature": 0,
        "seed": 7,
        "max_completion_tokens": 1024,
        "reasoning_effort": "low",
    }
    first, second = server.bodies()
    assert next(iter(first["response_format"]["json_schema"]["schema"]["properties"])) == "reasoning"
    assert first["messages"][0]["content"].encode() == second["messages"][0]["content"].encode()
    assert nonce[1] not in second["messages"][1]["content"]


@pytest.mark.parametrize(
    ("suffix", "path"),
    [
        ("", "/openai/v1/chat/completions"),
        ("/openai/v1", "/openai/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/gateway", "/gateway/openai/v1/chat/completions"),
    ],
)
def test_any_openai_compatible_address_is_asked_at_its_own_path(server: Server, clock: Clock, suffix: str, path: str):
    assert ask(server, clock, GROQ_BASE_URL=server.url + suffix).status == "succeeded"
    assert server.asked[0][0] == path


def test_another_model_is_asked_without_effort_at_the_price_of_the_settings(server: Server, clock: Clock):
    prices = {"LLM_PRICE_INPUT": "1", "LLM_PRICE_CACHED": "0", "LLM_PRICE_OUTPUT": "2"}
    outcome = ask(server, clock, GROQ_MODEL="qwen/qwen3", **prices)
    assert outcome.cost == Decimal("0.001188")
    assert "reasoning_effort" not in server.bodies()[0]
    with judge(server, clock) as other, judge(server, clock, GROQ_MODEL="qwen/qwen3", **prices) as one:
        assert one.model == "qwen/qwen3"
        assert one.fingerprint != other.fingerprint
        assert other.fingerprint == fingerprint_of(settings(server, GROQ_API_KEY=""), "1")


def test_a_judge_without_key_or_price_says_what_to_set(server: Server, clock: Clock):
    with pytest.raises(CollectionError, match="LLM_PRICE_INPUT, LLM_PRICE_CACHED and LLM_PRICE_OUTPUT") as raised:
        judge(server, clock, GROQ_MODEL="qwen/qwen3", LLM_PRICE_INPUT="1")
    assert raised.value.kind == "not_configured"
    for key in ("", "gsk\nx", "ключ"):
        with pytest.raises(CollectionError, match="GROQ_API_KEY"):
            judge(server, clock, GROQ_API_KEY=key)
    assert set(PRICES) == {"openai/gpt-oss-20b", "openai/gpt-oss-120b"}


def test_a_wait_beyond_the_deadline_defers_this_call_and_all_others(server: Server, clock: Clock):
    server.answers(error(429, "rate_limit_exceeded", {"retry-after": "3600"}))
    with judge(server, clock) as one:
        first, second = one.ask(TEXTS, 600), one.ask(TEXTS, 600)
    for outcome, requests in ((first, 1), (second, 0)):
        assert (outcome.status, outcome.error_kind, outcome.requests) == ("deferred", "throttled", requests)
        assert outcome.retry_at == NOON + timedelta(hours=1)
        assert outcome.cost == 0
    assert "429 rate_limit_exceeded, it asks to wait 3600 s" in first.error
    assert (clock.waits, len(server.asked)) == ([], 1)


def test_a_long_wait_that_fits_is_waited(server: Server, clock: Clock):
    server.answers(error(429, "rate_limit_exceeded", {"retry-after": "420"}))
    assert ask(server, clock, deadline=600).status == "succeeded"
    assert clock.waits == [420]


def test_too_many_refusals_defer_and_name_the_limit(server: Server, clock: Clock):
    server.answers(*[answer(429, RECORDED[1]["body"], {"retry-after": "6"})] * 4)
    outcome = ask(server, clock)
    assert (outcome.status, outcome.error_kind, outcome.requests) == ("deferred", "throttled", 4)
    assert outcome.retry_at == NOON + timedelta(seconds=24)
    assert "(TPM)" in outcome.error


@pytest.mark.parametrize("status", [502, 503, 408])
def test_a_server_that_stays_broken_defers_and_its_answers_count_as_reserved(server: Server, clock: Clock, status: int):
    server.answers(*[error(status)] * 3)
    with judge(server, clock, LLM_MAX_RETRIES=2) as one:
        tokens, usd = one.reserved(TEXTS)
        outcome = one.ask(TEXTS, 600)
    assert (outcome.status, outcome.error_kind, outcome.requests) == ("deferred", "transient", 3)
    assert (outcome.cost, outcome.input_tokens) == (3 * usd, None)
    assert tokens > ANSWER_TOKENS
    assert len(clock.waits) == 2


def test_an_interaction_that_breaks_the_server_each_time_fails_alone(server: Server, clock: Clock):
    server.answers(*[error(500)] * 2)
    with judge(server, clock, LLM_MAX_RETRIES=1) as one:
        outcome, following = one.ask(TEXTS, 600), one.ask(TEXTS, 600)
    assert (outcome.status, outcome.error_kind, outcome.requests) == ("failed", "transient", 2)
    assert following.status == "succeeded"


def test_a_retry_that_the_deadline_leaves_no_time_for_is_deferred(server: Server, clock: Clock):
    server.answers(error(500, headers={"retry-after": "30"}))
    outcome = ask(server, clock, deadline=20)
    assert (outcome.status, outcome.error_kind, outcome.requests) == ("deferred", "transient", 1)
    assert outcome.retry_at == NOON + timedelta(seconds=30)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "invalid_api_key", "auth"),
        (403, "model_permission_blocked_org", "auth"),
        (400, "organization_restricted", "auth"),
        (402, "", "billing"),
        (400, "blocked_api_access", "billing"),
        (429, "insufficient_quota", "billing"),
        (404, "model_not_found", "model_gone"),
        (400, "model_decommissioned", "model_gone"),
    ],
)
def test_what_only_a_person_can_mend_blocks_at_once(server: Server, clock: Clock, status: int, code: str, kind: str):
    server.answers(error(status, code))
    outcome = ask(server, clock)
    assert (outcome.status, outcome.error_kind, outcome.requests, outcome.cost) == ("blocked", kind, 1, 0)
    assert outcome.error.startswith(f"judge openai/gpt-oss-20b at 127.0.0.1: {status}")
    assert re.search(r"; (check|set) ", outcome.error)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (413, "request_too_large", "too_large"),
        (400, "context_length_exceeded", "too_large"),
        (400, "", "refused"),
        (422, "unprocessable", "refused"),
    ],
)
def test_what_is_wrong_with_one_interaction_fails_it_alone(
    server: Server, clock: Clock, status: int, code: str, kind: str
):
    server.answers(error(status, code))
    with judge(server, clock) as one:
        outcome, following = one.ask(TEXTS, 600), one.ask(TEXTS, 600)
    assert (outcome.status, outcome.error_kind, outcome.requests, outcome.cost) == ("failed", kind, 1, 0)
    assert following.status == "succeeded"


def test_an_answer_that_does_not_come_is_asked_for_again(server: Server, clock: Clock):
    over = threading.Event()

    def hang(request: Request) -> Response:
        over.wait(30)
        return error(500)(request)

    server.answers(hang)
    with judge(server, clock, LLM_TIMEOUT=1.5) as one:
        outcome = one.ask(TEXTS, 600)
        reserved = one.reserved(TEXTS)[1]
    over.set()
    assert (outcome.status, outcome.requests, outcome.cost) == ("succeeded", 2, reserved + COST)


def test_a_connection_that_breaks_before_the_answer_is_whole_is_asked_again(server: Server, clock: Clock):
    server.answers(lambda _: Response("{", headers={"Content-Length": "900", "Connection": "close"}))
    with judge(server, clock) as one:
        outcome = one.ask(TEXTS, 600)
        reserved = one.reserved(TEXTS)[1]
    assert (outcome.status, outcome.requests, outcome.cost) == ("succeeded", 2, reserved + COST)


def test_a_server_that_cannot_be_reached_costs_nothing(server: Server, clock: Clock):
    outcome = ask(server, clock, GROQ_BASE_URL="http://127.0.0.1:9", LLM_MAX_RETRIES=1)
    assert (outcome.status, outcome.error_kind) == ("deferred", "transient")
    assert (outcome.requests, outcome.cost, len(clock.waits)) == (0, 0, 1)


def test_a_cut_answer_is_asked_for_once_more_with_twice_the_room(server: Server, clock: Clock):
    server.answers(said('{"reasoning": "', "length"))
    outcome = ask(server, clock)
    assert (outcome.status, outcome.requests, outcome.cost) == ("succeeded", 2, 2 * COST)
    assert [body["max_completion_tokens"] for body in server.bodies()] == [1024, 2048]
    assert outcome.input_tokens == 2400


def test_an_answer_cut_twice_fails(server: Server, clock: Clock):
    server.answers(*[said('{"reasoning": "', "length")] * 3)
    outcome = ask(server, clock)
    assert (outcome.status, outcome.error_kind, outcome.requests) == ("failed", "truncated", 2)
    assert outcome.cost == 2 * COST


@pytest.mark.parametrize(
    "content", ['{"coherence":4}', "canary-answer", "", None, [1], json.dumps({**JUDGED, "accuracy": "canary-answer"})]
)
def test_judgements_off_the_schema_are_repeated_and_then_fail(server: Server, clock: Clock, content: Any):
    server.answers(*[said(content)] * 3)
    outcome = ask(server, clock, LLM_MAX_RETRIES=2)
    assert (outcome.status, outcome.error_kind, outcome.requests) == ("failed", "invalid_json", 3)
    assert (outcome.cost, outcome.output_tokens) == (3 * COST, 750)
    assert server.bodies()[0]["messages"][1] != server.bodies()[1]["messages"][1]  # another nonce


@pytest.mark.parametrize("body", ["[]", "{}", '{"choices": []}', '{"choices": [{"message": null}]}', '{"choices": [{'])
def test_an_answer_that_is_no_chat_completion_counts_as_reserved(server: Server, clock: Clock, body: str):
    server.answers(lambda _: Response(body, content_type="application/json"))
    with judge(server, clock, LLM_MAX_RETRIES=0) as one:
        outcome = one.ask(TEXTS, 600)
        reserved = one.reserved(TEXTS)[1]
    assert (outcome.status, outcome.error_kind, outcome.cost) == ("failed", "invalid_json", reserved)


def test_a_judgement_without_usage_counts_as_reserved(server: Server, clock: Clock):
    server.answers(said(usage=None, x_groq=None, system_fingerprint=1))
    with judge(server, clock) as one:
        outcome = one.ask(TEXTS, 600)
        reserved = one.reserved(TEXTS)[1]
    assert (outcome.status, outcome.cost, outcome.input_tokens) == ("succeeded", reserved, None)
    assert (outcome.request_id, outcome.system_fingerprint) == ("chatcmpl-1", None)


def test_a_model_that_refuses_to_judge_fails_the_interaction(server: Server, clock: Clock):
    server.answers(said("", "content_filter"))
    outcome = ask(server, clock)
    assert (outcome.status, outcome.error_kind, outcome.requests) == ("failed", "refused", 1)


def test_a_spent_budget_blocks_before_anything_is_sent(server: Server, clock: Clock):
    limits = Limits(usd_per_day=Decimal("0.001"), spent=Spent(usd=Decimal("0.0008")), clock=clock, now=clock.now)
    outcome = ask(server, clock, limits=limits)
    assert (outcome.status, outcome.error_kind, outcome.requests) == ("blocked", "budget", 0)
    assert outcome.retry_at == NOON + timedelta(hours=12)
    assert "LLM_BUDGET_USD_PER_DAY" in outcome.error
    assert server.asked == []


def test_limits_that_an_answer_tells_are_kept_by_the_next_call(server: Server, clock: Clock):
    left = {
        "x-ratelimit-limit-tokens": "8000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1m0s",
    }
    server.answers(said(headers=left))
    with judge(server, clock) as one:
        tokens, _ = one.reserved(TEXTS)
        one.ask(TEXTS, 600)
        assert one.ask(TEXTS, 5).status == "deferred"
        one.ask(TEXTS, 600)
    assert clock.waits == [pytest.approx(tokens / 8000 * 60)]


def test_thirty_two_threads_share_one_judge_and_one_budget(server: Server):
    budget = Decimal("0.03")
    limits = Limits(usd_per_run=budget)
    server.answers(*[said("{}")] * 20)
    with Judge(settings(server), limits, "1") as one, ThreadPoolExecutor(32) as pool:
        reserved = one.reserved(TEXTS)[1]
        outcomes = list(pool.map(lambda _: one.ask(TEXTS, limits.clock() + 60), range(240)))
    spent = sum(outcome.cost for outcome in outcomes)
    assert {outcome.status for outcome in outcomes} == {"succeeded", "blocked"}
    assert budget - reserved <= spent <= budget
    assert sum(outcome.requests for outcome in outcomes) == len(server.asked) == spent / COST
    assert spent == limits.usd_in_run
