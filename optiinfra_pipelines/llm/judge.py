"""The judge over HTTP: one interaction in, one outcome out, with what it cost. What is asked is in `rubric.py`, how
often and for how much in `limits.py`; which interactions are judged, and what is kept, is the caller's.
"""

import json
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

import httpx
import tenacity

from optiinfra_pipelines.clouds.rest import retry_after, trusted
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.llm import rubric
from optiinfra_pipelines.llm.interaction import Texts
from optiinfra_pipelines.llm.limits import Exhausted, Limits, Reservation
from optiinfra_pipelines.settings import Settings

if TYPE_CHECKING:
    import groq

Read = TypeVar("Read")
Messages = list[dict[str, str]]
OutcomeStatus = Literal["succeeded", "failed", "deferred", "blocked"]
JudgeErrorKind = Literal[
    "throttled",
    "transient",
    "truncated",
    "invalid_json",
    "refused",
    "auth",
    "billing",
    "model_gone",
    "too_large",
    "budget",
    "limit",
    "deadline",
]

TEMPERATURE = 0.0
SEED = 7  # any number, always the same: best effort towards the same answer twice
ANSWER_TOKENS = 1_024  # reasoning at low effort and the answer take about 250; doubled once where cut
BYTES_PER_TOKEN = 3  # English has about 4, Chinese 3: a reservation should rather be too large
FIXED_TOKENS = 32 + len(json.dumps(rubric.SCHEMA)) // BYTES_PER_TOKEN  # what chat format and schema add

_RESPONSE_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "judgement", "strict": True, "schema": rubric.SCHEMA},
}
_BLOCKING: frozenset[JudgeErrorKind] = frozenset({"auth", "billing", "model_gone", "budget"})
_REPEATED: frozenset[JudgeErrorKind] = frozenset({"throttled", "transient", "invalid_json"})
_STATUSES: Mapping[int, JudgeErrorKind] = {
    401: "auth",
    402: "billing",
    403: "auth",
    404: "model_gone",
    408: "transient",
    409: "transient",
    413: "too_large",
    429: "throttled",
    498: "throttled",  # Groq's flex tier is full
    499: "transient",
}
# Codes that say more than their status, mostly 400: https://console.groq.com/docs/spend-limits, NVIDIA-NeMo/
# Guardrails#563, atiilla/sqlmap-ai#3 (model_decommissioned); context_length_exceeded, insufficient_quota: OpenAI's.
_CODES: Mapping[str, JudgeErrorKind] = {
    "blocked_api_access": "billing",
    "organization_restricted": "auth",
    "model_decommissioned": "model_gone",
    "model_not_found": "model_gone",
    "context_length_exceeded": "too_large",
    "insufficient_quota": "billing",
    "json_validate_failed": "invalid_json",
}
_NAMED_LIMIT = re.compile(r"\((RPM|RPD|TPM|TPD|ITPM|OTPM)\)")
_ADVICE: Mapping[JudgeErrorKind, str] = {
    "throttled": "it is asked again later; LLM_REQUESTS_PER_MINUTE and LLM_TOKENS_PER_MINUTE keep below the limit",
    "transient": "it is asked again later",
    "truncated": "the answer was cut twice; look at the texts of this interaction",
    "invalid_json": "check that GROQ_MODEL supports strict JSON schemas",
    "refused": "this interaction is left out; where all of them are, check GROQ_MODEL and GROQ_BASE_URL",
    "auth": "check GROQ_API_KEY, and that its organisation may use the model",
    "billing": "check billing and spend limits of the judge's account",
    "model_gone": "set GROQ_MODEL to a model that GROQ_BASE_URL serves",
    "too_large": "this interaction is left out: the model or the account takes no request of its size",
}
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens: sent, sent but cached by the provider, answered (reasoning among them)."""

    input: Decimal
    cached: Decimal
    output: Decimal

    def cost(self, sent: int, cached: int, answered: int) -> Decimal:
        """USD for `sent` tokens, `cached` of them from the cache, and `answered` ones."""
        return ((sent - cached) * self.input + cached * self.cached + answered * self.output) / 1_000_000


# Groq's list as of 2026 (its pages as braintrustdata/braintrust-proxy#925 quotes them); cached input is half price.
PRICES: Mapping[str, Price] = {
    "openai/gpt-oss-20b": Price(Decimal("0.075"), Decimal("0.0375"), Decimal("0.30")),
    "openai/gpt-oss-120b": Price(Decimal("0.15"), Decimal("0.075"), Decimal("0.60")),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one interaction put before the judge, or of one text asked of it, over all its requests.

    succeeded: there is a judgement, or a text. failed: not this one. deferred: not now, ask again from `retry_at` on.
    blocked: nobody else either, until a person acts or, where there is a `retry_at`, until then. Tokens are sums of the
    requests that told them, None where none did; `cost` counts the others at what was reserved. `latency_ms`,
    `system_fingerprint` and `request_id` are the last request's. `error` holds neither key nor judged text.
    """

    status: OutcomeStatus
    judgement: rubric.Judgement | None = None
    error_kind: JudgeErrorKind | None = None
    error: str = ""
    requests: int = 0
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: Decimal = Decimal(0)
    latency_ms: float | None = None
    system_fingerprint: str | None = None
    request_id: str | None = None
    retry_at: datetime | None = None
    text: str | None = None


class _Refused(Exception):
    """A request without a judgement, which is not to be repeated."""

    def __init__(self, kind: JudgeErrorKind, what: str) -> None:
        super().__init__(what)
        self.kind: JudgeErrorKind = kind


class _Again(_Refused):
    """A request without a judgement that may be repeated, after `seconds` where the provider says how long.

    `suspect`: it may be this interaction that the provider cannot cope with.
    """

    def __init__(self, kind: JudgeErrorKind, what: str, seconds: float | None = None, *, suspect: bool = False) -> None:
        super().__init__(kind, what)
        self.seconds, self.suspect = seconds, suspect


class Judge:
    """The judge of `settings` (groq_*, llm_*), safe for many threads. Its constructor contacts nobody.

    CollectionError (not_configured) without a usable key or without a price of the model. `sleep` passes the time
    between two tries; `limits` has the clock. Close it, or use it as a context manager.
    """

    def __init__(
        self, settings: Settings, limits: Limits, redactor_version: str, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._price = _price(settings)
        self._client = _client(settings)
        self._limits, self._sleep = limits, sleep
        self._timeout, self._attempts = settings.llm_timeout, settings.llm_max_retries + 1
        self._model = settings.groq_model
        self._effort = _effort(self._model)
        self._fingerprint = fingerprint_of(settings, redactor_version)
        self._name = f"judge {self._model} at {httpx.URL(settings.groq_base_url).host}"

    @property
    def model(self) -> str:
        """The model that judges."""
        return self._model

    @property
    def fingerprint(self) -> str:
        """What tells this judge's scores from another's; see `rubric.fingerprint`."""
        return self._fingerprint

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def reserved(self, texts: Texts) -> tuple[int, Decimal]:
        """Tokens and USD that one request about `texts` is expected to take at most."""
        return self._reserved(rubric.messages(texts, _nonce()), ANSWER_TOKENS)

    def ask(self, texts: Texts, deadline: float, order: Sequence[str] = rubric.ORDER) -> Outcome:
        """Have `texts`, sent in `order`, judged before `deadline` (of the limits' clock). Raises nothing that a
        provider can cause."""
        judging = _Asking(
            self, lambda: rubric.messages(texts, _nonce(), order), lambda said: rubric.read(said, texts), deadline
        )
        return self._asked(judging, "judgement", _RESPONSE_FORMAT)

    def complete(self, messages: Messages, deadline: float) -> Outcome:
        """Have the judge's model write a text in answer to `messages`, within the same limits; nothing reads it here.

        Raises nothing that a provider can cause. A text of blanks is an answer off the schema.
        """
        return self._asked(_Asking(self, lambda: messages, _written, deadline), "text", None)

    def _asked(self, asking: "_Asking[Any]", name: str, response_format: Mapping[str, Any] | None) -> Outcome:
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Again),
            stop=asking.over,
            wait=asking.wait,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return asking.outcome("succeeded", **{name: again(asking.once, response_format)})
        except Exhausted as error:
            status: OutcomeStatus = "blocked" if error.kind in _BLOCKING else "deferred"
            return asking.failure(status, error.kind, str(error), error.retry_at)
        except _Again as error:
            return asking.given_up(error)
        except _Refused as error:
            return asking.failure("blocked" if error.kind in _BLOCKING else "failed", error.kind, str(error))

    def _reserved(self, messages: Messages, answer_tokens: int) -> tuple[int, Decimal]:
        sent = sum(len(message["content"].encode()) for message in messages) // BYTES_PER_TOKEN + FIXED_TOKENS
        return sent + answer_tokens, self._price.cost(sent, 0, answer_tokens)

    def _body(
        self, messages: Messages, answer_tokens: int, response_format: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        body = {
            "model": self._model,
            "messages": messages,
            "response_format": response_format,
            "temperature": TEMPERATURE,
            "seed": SEED,
            "max_completion_tokens": answer_tokens,
            "reasoning_effort": self._effort,
        }
        return {name: value for name, value in body.items() if value is not None}


class _Asking(Generic[Read]):
    """One question to the judge: its tries, and what they took. `read` raises rubric.InvalidJudgement."""

    def __init__(
        self, judge: Judge, messages: Callable[[], Messages], read: Callable[[str], Read], deadline: float
    ) -> None:
        self._judge, self._limits = judge, judge._limits
        self._messages, self._read, self._deadline = messages, read, deadline
        self._answer_tokens = ANSWER_TOKENS
        self._tokens: dict[str, int] = {}
        self._tried_out = False
        self._requests, self._cost = 0, Decimal(0)
        self._latency_ms: float | None = None
        self._system_fingerprint: str | None = None
        self._request_id: str | None = None

    def once(self, response_format: Mapping[str, Any] | None) -> Read:
        """One request; raises Exhausted where it may not be sent, and _Again or _Refused where it brought nothing."""
        messages = self._messages()
        reservation = self._limits.reserve(*self._judge._reserved(messages, self._answer_tokens), self._deadline)
        answer = self._send(reservation, self._judge._body(messages, self._answer_tokens, response_format))
        try:
            said = json.loads(answer.content)
            choice = said["choices"][0]
            content, finish_reason = choice["message"].get("content"), choice.get("finish_reason")
            refusal = choice["message"].get("refusal")
            self._request_id = _text((said.get("x_groq") or said).get("id"))
            self._system_fingerprint = _text(said.get("system_fingerprint"))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            self._settle(reservation, reservation.tokens, reservation.usd, answer)
            raise _Again("invalid_json", "the answer is no chat completion") from None
        self._settle(reservation, *self._used(reservation, said.get("usage")), answer)
        if finish_reason == "length":
            raise self._truncation()
        if finish_reason == "content_filter" or refusal:
            raise _Refused("refused", "the model refused to judge")
        try:
            return self._read(_text(content) or "")
        except rubric.InvalidJudgement as error:
            raise _Again("invalid_json", f"the judgement is off the schema: {error}") from None

    def over(self, state: tenacity.RetryCallState) -> bool:
        """Whether this was the last try: by number, or because the wait for the next ends after the deadline."""
        self._tried_out = state.attempt_number >= self._judge._attempts
        return self._tried_out or self._limits.clock() + state.upcoming_sleep >= self._deadline

    def wait(self, state: tenacity.RetryCallState) -> float:
        """Seconds to the next try: as the provider says, else exponentially longer with jitter."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _Again) and error.seconds is not None:
            return error.seconds
        return float(tenacity.wait_random_exponential(multiplier=0.5, max=20)(state))

    def given_up(self, error: _Again) -> Outcome:
        """The last try may be repeated, but not by this call: later where the provider is the reason, else failed.

        An interaction that cannot be answered in any try must not keep all others waiting for ever.
        """
        if error.kind in ("invalid_json", "truncated") or (error.suspect and self._tried_out):
            return self.failure("failed", error.kind, str(error))
        retry_at = self._limits.now() + timedelta(seconds=error.seconds or 0.0)
        return self.failure("deferred", error.kind, str(error), retry_at)

    def failure(
        self, status: OutcomeStatus, kind: JudgeErrorKind, what: str, retry_at: datetime | None = None
    ) -> Outcome:
        """The outcome without a judgement, with a message of what happened, to what, and what to do."""
        advice = f"; {_ADVICE[kind]}" if kind in _ADVICE else ""
        return self.outcome(status, error_kind=kind, error=f"{self._judge._name}: {what}{advice}", retry_at=retry_at)

    def outcome(self, status: OutcomeStatus, **facts: Any) -> Outcome:
        """The outcome with what all requests took."""
        return Outcome(
            status,
            requests=self._requests,
            input_tokens=self._tokens.get("input"),
            cached_tokens=self._tokens.get("cached"),
            output_tokens=self._tokens.get("output"),
            reasoning_tokens=self._tokens.get("reasoning"),
            cost=self._cost,
            latency_ms=self._latency_ms,
            system_fingerprint=self._system_fingerprint,
            request_id=self._request_id,
            **facts,
        )

    def _send(self, reservation: Reservation, body: dict[str, Any]) -> httpx.Response:
        import groq

        timeout = max(min(self._judge._timeout, self._deadline - self._limits.clock()), 0.001)
        began = time.perf_counter()
        try:
            # `chat.completions.create` posts to /openai/v1 below any base URL, and builds models of the answer that
            # nobody reads; `post` is the client's own way to any path.
            return self._judge._client.post(
                "/chat/completions", cast_to=httpx.Response, body=body, options={"timeout": timeout}
            )
        except groq.APIStatusError as error:
            raise self._refusal(reservation, error.response) from None
        except groq.APIConnectionError as error:
            if isinstance(error.__cause__, _NEVER_SENT):
                self._limits.give_back(reservation)
                raise _Again("transient", "it cannot be reached") from None
            self._settle(reservation, reservation.tokens, reservation.usd)
            late = isinstance(error, groq.APITimeoutError)
            broke = f"the connection broke ({type(error.__cause__).__name__})"
            raise _Again("transient", f"no answer within {timeout:g} s" if late else broke, suspect=True) from None
        finally:
            self._latency_ms = (time.perf_counter() - began) * 1000

    def _refusal(self, reservation: Reservation, answer: httpx.Response) -> _Refused:
        """What an answer that is no success means; it is settled."""
        status = answer.status_code
        code, limit = _code_and_limit(answer.content)
        kind = _CODES.get(code) or _STATUSES.get(status) or ("transient" if status >= 500 else "refused")
        if kind in ("transient", "invalid_json"):  # it may have been worked on and billed
            self._settle(reservation, reservation.tokens, reservation.usd, answer)
        else:
            self._settle(reservation, 0, Decimal(0), answer)
        what = " ".join(part for part in (str(status), code, limit) if part)
        if kind not in _REPEATED:
            return _Refused(kind, what)
        seconds = retry_after(answer.headers)
        if seconds is not None:
            what = f"{what}, it asks to wait {seconds:g} s"
            if status == 429:
                self._limits.pause(self._limits.clock() + seconds)
        return _Again(kind, what, seconds, suspect=status == 500)

    def _truncation(self) -> _Refused:
        """A cut answer: once more with room for twice as much, and then no more."""
        what = f"the answer was cut after {self._answer_tokens} tokens"
        if self._answer_tokens > ANSWER_TOKENS:
            return _Refused("truncated", what)
        self._answer_tokens *= 2
        return _Again("truncated", what, 0.0)

    def _used(self, reservation: Reservation, usage: Any) -> tuple[int, Decimal]:
        """Tokens that count towards limits, and USD, of an answer: by its usage, else what was reserved."""
        sent, answered = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
        if sent is None or answered is None:
            return reservation.tokens, reservation.usd
        cached = min(_count(usage.get("prompt_tokens_details"), "cached_tokens") or 0, sent)
        reasoning = _count(usage.get("completion_tokens_details"), "reasoning_tokens") or 0
        for name, tokens in (("input", sent), ("cached", cached), ("output", answered), ("reasoning", reasoning)):
            self._tokens[name] = self._tokens.get(name, 0) + tokens
        return sent - cached + answered, self._judge._price.cost(sent, cached, answered)

    def _settle(
        self, reservation: Reservation, tokens: int, usd: Decimal, answer: httpx.Response | None = None
    ) -> None:
        self._requests += 1
        self._cost += usd
        self._limits.settle(reservation, tokens, usd)
        if answer is not None:
            self._limits.learn(answer.headers)


def _written(content: str) -> str:
    if not content.strip():
        raise rubric.InvalidJudgement("an empty text")
    return content.strip()


def fingerprint_of(settings: Settings, redactor_version: str) -> str:
    """The fingerprint that a judge of these settings has, also where there cannot be one."""
    return rubric.fingerprint(settings.groq_model, redactor_version, _effort(settings.groq_model), TEMPERATURE)


def _effort(model: str) -> str | None:
    """Reasoning effort, for the models that know one: reasoning is paid as output."""
    return "low" if model.startswith("openai/gpt-oss") else None


def _client(settings: Settings) -> "groq.Groq":
    """Groq's client for any OpenAI-compatible server: `groq_base_url` with or without its /v1 or /openai/v1."""
    import groq

    key = settings.groq_api_key.get_secret_value().strip()
    if not key or not key.isascii() or not key.isprintable():
        raise CollectionError(
            "not_configured", "the judge needs a key that fits a header: set GROQ_API_KEY, or LLM_ENABLED=false"
        )
    address = settings.groq_base_url
    most = settings.llm_concurrency
    return groq.Groq(
        api_key=key,
        base_url=address if address.endswith("/v1") else f"{address}/openai/v1",
        max_retries=0,
        timeout=settings.llm_timeout,
        http_client=httpx.Client(
            verify=trusted(), limits=httpx.Limits(max_connections=most, max_keepalive_connections=most)
        ),
    )


def _price(settings: Settings) -> Price:
    known = PRICES.get(settings.groq_model)
    sent, cached, answered = settings.llm_price_input, settings.llm_price_cached, settings.llm_price_output
    if known:
        sent = known.input if sent is None else sent
        cached = known.cached if cached is None else cached
        answered = known.output if answered is None else answered
    if sent is None or cached is None or answered is None:
        raise CollectionError(
            "not_configured",
            f"the price of the judge's model {settings.groq_model} is not known; set LLM_PRICE_INPUT, "
            "LLM_PRICE_CACHED and LLM_PRICE_OUTPUT to its USD per million tokens (0 where it costs nothing)",
        )
    return Price(sent, cached, answered)


def _nonce() -> str:
    return secrets.token_hex(8)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _count(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) else None


def _code_and_limit(body: bytes) -> tuple[str, str]:
    """An error's code, and the limit its message names; nothing else of it, for servers quote what they were sent."""
    try:
        error = json.loads(body)["error"]
        code, message = str(error.get("code") or error.get("type") or ""), str(error.get("message"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "", ""
    named = _NAMED_LIMIT.search(message)
    return code if re.fullmatch(r"[\w.-]{1,64}", code) else "", named[0] if named else ""
