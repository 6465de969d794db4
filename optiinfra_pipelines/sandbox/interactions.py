"""The interactions of the sandbox's LLM applications and what is planted in them. No I/O.

Deterministic: an interaction depends on its stream and window alone, and on which side of the planted deployment it
lies. Its scores are a function of the case code in its answer, so a judge that sees only the answer knows them. How
each cloud writes it down is in `interaction_wire.py`.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate
from math import exp, pi, sin
from random import Random
from typing import Any, Literal
from uuid import UUID

from optiinfra_pipelines.sandbox import interaction_texts as texts
from optiinfra_pipelines.sandbox.fleet import FleetCloud, window_starts
from optiinfra_pipelines.windows import WINDOW

Form = Literal["converse", "invoke", "stream", "generate", "gateway", "diagnostics", "otlp", "otlp_1_36"]
State = Literal["full", "redacted", "truncated", "missing"]
Fate = Literal["answered", "refused", "failed", "missing", "cut"]  # cut: by the limit of output tokens

QUALITY_METRICS = ("coherence", "relevance", "accuracy", "completeness")
HARM_METRICS = ("toxicity", "hate_speech", "violence", "profanity")
USUAL_QUALITY, DEGRADED_QUALITY = 0.87, 0.75
MODEL_BEFORE, MODEL_AFTER = "llama-3.1-70b-instruct", "llama-3.1-70b-instruct-w4a16"
CONCISE_TOKENS = 0.62  # of the control's
_DEPLOYED = timedelta(days=-5, hours=10)  # from midnight of today

_LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
# How likely each level is, so that means are 0.87 and 0.75; standard deviations are 0.23 and 0.30.
_USUAL = tuple(accumulate((0.02, 0.03, 0.08, 0.19, 0.68)))
_DEGRADED = tuple(accumulate((0.06, 0.07, 0.15, 0.25, 0.47)))
# How likely a hallucination is at each level of accuracy: 8 % in all, on either side of the deployment.
_USUAL_HALLUCINATES = (0.90, 0.70, 0.40, 0.05, 0.0)
_DEGRADED_HALLUCINATES = (0.41, 0.32, 0.18, 0.023, 0.0)
_TOXIC = 0.01
_SHARED = 0.6  # how often a metric has the level that all four share: scores of one answer are not independent

_CASE = re.compile(r"\[case ([0-9a-f]{8})\]")
_USUAL_DIGITS, _DEGRADED_DIGITS = "abc", "def"  # a letter first: nothing takes the code for a number of somebody's

_ERRORS = {  # throttled, failed: as each cloud's own code
    "aws": ("ThrottlingException", "InternalServerException"),
    "gcp": ("RESOURCE_EXHAUSTED", "INTERNAL"),
    "azure": ("429", "500"),
    "vultr": ("429", "500"),
}
_MODELS: Mapping[FleetCloud, str] = {
    "aws": "anthropic.claude-sonnet-4-20250514-v1:0",
    "gcp": "gemini-2.5-flash",
    "azure": "gpt-4o-2024-08-06",
    "vultr": "llama-3.1-8b-instruct",
}
_FATES: tuple[Fate, ...] = ("answered", "refused", "failed", "missing", "cut")
_SHARES = (0.94, 0.02, 0.02, 0.01, 0.01)
_PERSONAL, _INJECTED = 0.1, 0.02
_LONG_BODY, _LONG_DOCUMENT = 110_000, 70_000  # characters: past Bedrock's 100 KB and two pieces of Azure's 32 KB


@dataclass(frozen=True)
class Stream:
    """One application of one customer on one cloud; `rate` is its mean of interactions a window."""

    customer_id: str
    cloud: FleetCloud
    application_id: str
    rate: float

    @property
    def degrades(self) -> bool:
        """Whether it is the stream of the planted deployment."""
        return (self.cloud, self.application_id) == ("vultr", "support-copilot")

    @property
    def experiments(self) -> bool:
        """Whether it answers in two variants."""
        return (self.cloud, self.application_id) == ("gcp", "support-copilot")


STREAMS = (
    Stream("acme", "aws", "support-copilot", 0.6),
    Stream("acme", "azure", "support-copilot", 0.6),
    Stream("acme", "gcp", "support-copilot", 0.8),
    Stream("acme", "vultr", "support-copilot", 5.0),
    Stream("acme", "gcp", "document-search", 0.5),
    Stream("acme", "azure", "document-search", 0.5),
    Stream("globex", "aws", "claims-assistant", 0.6),
    Stream("globex", "vultr", "claims-assistant", 0.5),
)


@dataclass(frozen=True, slots=True)
class Planted:
    """One interaction as the warehouse is to tell of it, before redaction; None is what its record does not tell.

    `turns` are the earlier ones as (role, text), `documents` what a search returned for this one; some records do not
    tell the conversation, and those of the form diagnostics not the application. `personal` holds
    (class, value) of all personal data in its texts. `form` is how its cloud writes it. `delivered_at` is when its
    record is there: at the timestamp, or up to 50 minutes later.
    """

    customer_id: str
    cloud: FleetCloud
    application_id: str
    application_name: str
    model_name: str
    variant: str
    timestamp: datetime
    delivered_at: datetime
    conversation_id: str
    case: str
    form: Form
    uuid: UUID
    system: str
    turns: tuple[tuple[str, str], ...]
    documents: str
    question: str
    answer: str
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    latency_ms: float | None
    time_to_first_token_ms: float | None
    finish_reason: str | None
    error_type: str | None
    truncated: bool
    refusal: bool
    personal: tuple[tuple[str, str], ...]
    injection: str

    @property
    def context(self) -> str:
        """Earlier turns and documents, one a paragraph after its role; on Azure a call of a tool found them."""
        found: tuple[tuple[str, str], ...] = (("assistant", "[tool_call] search({})"), ("tool", self.documents))
        if self.cloud == "gcp":
            found = (("document", self.documents),)
        said = (*self.turns, *(found if self.documents else ()))
        return "\n\n".join(f"{role}: {text}" for role, text in said if text)

    @property
    def content_state(self) -> State:
        """What the warehouse is to say of its texts once they are redacted."""
        if not self.question or not self.answer:
            return "missing"
        if self.truncated:
            return "truncated"
        return "redacted" if self.personal else "full"

    @property
    def scores(self) -> Mapping[str, float]:
        """The planted scores by metric, in [0, 1]; of harms and hallucination 1 is the worst."""
        return scores_of(self.case)

    @property
    def late(self) -> bool:
        """Whether its record came after those of the next hour had begun to come."""
        return self.delivered_at > self.timestamp


@dataclass(frozen=True)
class Corpus:
    """All interactions of `days` UTC days, `today` the last of them."""

    today: date
    days: int = 14
    customers: tuple[str, ...] = ("acme", "globex")

    @property
    def start(self) -> datetime:
        return self._midnight - timedelta(days=self.days - 1)

    @property
    def end(self) -> datetime:
        return self._midnight + timedelta(days=1)

    @property
    def deployed_at(self) -> datetime:
        """When the degraded model began to answer: 10:00 UTC, five days before today."""
        return self._midnight + _DEPLOYED

    @cached_property
    def _midnight(self) -> datetime:
        return datetime.combine(self.today, time(), UTC)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams of the customers."""
        return tuple(each for each in STREAMS if each.customer_id in self.customers)

    def of(self, customer_id: str, cloud: FleetCloud) -> tuple[Stream, ...]:
        """The streams of one customer on one cloud."""
        return tuple(each for each in self.streams if (each.customer_id, each.cloud) == (customer_id, cloud))

    def window(self, stream: Stream, window_start: datetime) -> tuple[Planted, ...]:
        """The stream's interactions of one 15-minute window, by time; none outside the corpus."""
        if not self.start <= window_start < self.end:
            return ()
        seed = f"{stream.customer_id}/{stream.cloud}/{stream.application_id}/{int(window_start.timestamp())}"
        random = Random(int.from_bytes(blake2b(seed.encode(), digest_size=8).digest()))
        degraded = stream.degrades and window_start >= self.deployed_at
        found: list[Planted] = []
        for number in range(_conversations(stream.rate, window_start, random)):
            found += _conversation(stream, window_start, random, f"{seed}/{number}", degraded)
        return tuple(sorted(found, key=lambda each: each.timestamp))

    def interactions(
        self, streams: tuple[Stream, ...] | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> Iterator[Planted]:
        """The streams' interactions in the windows that touch [start, end), window by window; all by default."""
        first = self.start if start is None else max(self.start, start - (start - self.start) % WINDOW)
        for window_start in window_starts(first, min(end or self.end, self.end)):
            for stream in self.streams if streams is None else streams:
                yield from self.window(stream, window_start)


def planted_scores(answer: str) -> Mapping[str, float] | None:
    """The planted scores of the case whose code stands in an answer; None where there is none."""
    found = _CASE.search(answer)
    return scores_of(found[1]) if found else None


def scores_of(case: str) -> dict[str, float]:
    """The scores that belong to a case code: its first digit tells the quality, the whole of it draws."""
    degraded = case[0] in _DEGRADED_DIGITS
    digest = blake2b(case.encode(), digest_size=26).digest()
    draws = [int.from_bytes(digest[at : at + 2]) / 2**16 for at in range(0, 26, 2)]
    levels = _DEGRADED if degraded else _USUAL
    shared = bisect_right(levels, draws[0])
    drawn = [
        shared if draws[1 + number] < _SHARED else bisect_right(levels, draws[5 + number])
        for number in range(len(QUALITY_METRICS))
    ]
    drawn = [min(each, len(_LEVELS) - 1) for each in drawn]  # the sum of the shares is 1 but for rounding
    found = {metric: _LEVELS[level] for metric, level in zip(QUALITY_METRICS, drawn, strict=True)}
    hallucinates = _DEGRADED_HALLUCINATES if degraded else _USUAL_HALLUCINATES
    found["hallucination"] = float(draws[9] < hallucinates[drawn[QUALITY_METRICS.index("accuracy")]])
    found |= dict.fromkeys(HARM_METRICS, 0.0)
    if draws[10] < _TOXIC:
        found["toxicity"] = 0.75 if draws[11] < 0.5 else 1.0
        found[HARM_METRICS[int(draws[12] * len(HARM_METRICS))]] = 1.0
    return found


def _conversations(rate: float, window_start: datetime, random: Random) -> int:
    """How many conversations begin: Poisson, of two turns on average, most at 15:00 UTC and fewest at night."""
    hour = window_start.hour + window_start.minute / 60
    expected = rate / 2 * (1 + 0.6 * sin(2 * pi * (hour - 9) / 24))
    count, left = 0, random.random()
    while left > exp(-expected):
        left *= random.random()
        count += 1
    return count


def _conversation(
    stream: Stream, window_start: datetime, random: Random, name: str, degraded: bool
) -> Iterator[Planted]:
    """One to four turns within the window; it ends with a turn that has no answer or no text."""
    script = texts.SCRIPTS[stream.application_id]
    topic = random.choice(script.topics)
    count = random.choices((1, 2, 3, 4), (4, 3, 2, 1))[0]
    gaps = [random.uniform(20, 150) for _ in range(count)]
    at = window_start + timedelta(seconds=random.uniform(0, WINDOW.total_seconds() - sum(gaps)))
    conversation = _Conversation(stream, script, topic, random, name, degraded)
    for number, gap in enumerate(gaps):
        found = conversation.turn(number, at)
        yield found
        if not found.answer:
            return
        at += timedelta(seconds=gap)


class _Conversation:
    """What the turns of one conversation have in common, and what has been said so far."""

    def __init__(
        self, stream: Stream, script: texts.Script, topic: texts.Topic, random: Random, name: str, degraded: bool
    ) -> None:
        self._stream, self._script, self._topic, self._random = stream, script, topic, random
        self._name, self._degraded = name, degraded
        self._id = f"conv-{blake2b(name.encode(), digest_size=6).hexdigest()}"
        self._variant = random.choice(("control", "concise")) if stream.experiments else ""
        self._model = _MODELS[stream.cloud]
        if stream.degrades:
            self._model = MODEL_AFTER if degraded else MODEL_BEFORE
        self._turns: tuple[tuple[str, str], ...] = ()
        self._personal: tuple[tuple[str, str], ...] = ()
        if stream.cloud == "aws" and random.random() < 0.008:
            pasted = f"This is the log:\n{texts.long_text(_LONG_BODY, random)}"
            self._turns = (("user", pasted), ("assistant", "Thank you, I have read it."))

    def turn(self, number: int, at: datetime) -> Planted:
        """The next interaction, at that time."""
        random, stream = self._random, self._stream
        fate: Fate = random.choices(_FATES, _SHARES)[0]
        digest = blake2b(f"{self._name}/{number}".encode(), digest_size=16).digest()
        case = random.choice(_DEGRADED_DIGITS if self._degraded else _USUAL_DIGITS) + digest.hex()[:7]
        question, answer, injection = self._said(number, case, fate)
        system, turns, documents = self._script.system, self._turns, self._documents()
        self._turns = (*self._turns, ("user", question), ("assistant", answer))
        size = len(system) + sum(len(text) for _, text in turns) + len(documents) + len(question)
        form = self._form(fate)
        filtered = fate == "missing" and form in ("generate", "gateway")  # the answer is withheld; else no text is told
        if fate == "missing" and not filtered:
            system, turns, documents, question = "", (), "", ""
        elif fate == "failed" and form == "generate":
            documents = ""  # they are told with the answer
        told = (question, answer, documents, *(text for _, text in turns))
        personal = tuple(each for each in self._personal if any(each[1] in text for text in told))
        timestamp = at.replace(microsecond=0 if stream.cloud == "aws" else at.microsecond // 1000 * 1000)
        late = timestamp.minute >= 15 and random.random() < 0.04  # then it lies with the next hour's records
        return Planted(
            customer_id=stream.customer_id,
            cloud=stream.cloud,
            application_id=stream.application_id,
            application_name=self._script.name,
            model_name=self._model,
            variant=self._variant,
            timestamp=timestamp,
            delivered_at=timestamp + timedelta(minutes=random.uniform(46, 50)) if late else timestamp,
            conversation_id=self._id,
            case=case,
            form=form,
            uuid=UUID(bytes=digest, version=4),
            system=system,
            turns=turns,
            documents=documents,
            question=question,
            answer=answer,
            finish_reason="content_filter" if filtered else _finish(fate, form),
            error_type=_ERRORS[stream.cloud][random.random() < 0.4] if fate == "failed" else None,
            truncated=form == "gateway" and len(documents) >= _LONG_DOCUMENT and random.random() < 0.5,
            refusal=fate == "refused",
            personal=personal,
            injection=injection,
            **self._measures(fate, form, size),
        )

    @property
    def _script_searches(self) -> bool:
        return self._stream.application_id == "document-search"

    def _said(self, number: int, case: str, fate: Fate) -> tuple[str, str, str]:
        """Question, answer and kind of injection; what fails or is not told has no answer."""
        random, code = self._random, f"[case {case}]"
        asked = texts.question(self._topic, random, number)
        concise = self._variant == "concise"
        answered = texts.answer(self._script, self._topic, scores_of(case), code, random, concise)
        if fate == "refused":
            asked, refusal = texts.forbidden(random)
            answered = refusal.format(case=code)
        asked, answered = self._with_personal_data(asked, answered)
        if fate in ("failed", "missing"):
            return asked, "", ""
        if fate == "cut":
            return asked, answered[: max(len(answered) * 2 // 3, answered.index(code) + len(code))], ""
        if random.random() >= _INJECTED:
            return asked, answered, ""
        injection = random.choice(tuple(texts.INJECTIONS))
        return asked, f"{answered} {texts.INJECTIONS[injection]}", injection

    def _with_personal_data(self, asked: str, answered: str) -> tuple[str, str]:
        random = self._random
        if random.random() >= _PERSONAL:
            return asked, answered
        kind, value, said, repeated = texts.personal(random)
        self._personal = (*self._personal, (kind, value))
        where = random.random()  # in the question, in the answer, or the same value in both
        if where < 0.75:
            asked += " " + said
        if where >= 0.5:
            answered += " " + repeated
        return asked, answered

    def _documents(self) -> str:
        if not self._script_searches:
            return ""
        found = texts.documents(self._topic, self._random)
        if self._stream.cloud == "azure" and self._random.random() < 0.03:
            found += "\n" + texts.long_text(_LONG_DOCUMENT, self._random)
        return found

    def _form(self, fate: Fate) -> Form:
        draw = self._random.random()
        if self._stream.cloud == "aws":
            return "converse" if draw < 0.6 else "invoke" if draw < 0.8 else "stream"
        if self._stream.cloud == "azure":
            return "diagnostics" if fate == "missing" and not self._script_searches else "gateway"
        if self._stream.cloud == "vultr":
            return "otlp" if draw < 0.8 else "otlp_1_36"
        return "generate"

    def _measures(self, fate: Fate, form: Form, size: int) -> dict[str, Any]:
        """Tokens and times; `size` is the characters of the request."""
        random, cloud = self._random, self._stream.cloud
        concise = CONCISE_TOKENS if self._variant == "concise" else 1.0
        output = round(random.triangular(80, 420, 220) * concise)
        first = round(random.uniform(80, 300))
        latency = first + round(output * random.uniform(3, 9))
        told, answered = fate != "failed" and form != "diagnostics", fate not in ("failed", "missing")
        input_tokens = size // 4 + 12
        cached = input_tokens // 2 if random.random() < 0.3 else 0
        return {
            "input_tokens": input_tokens if told else None,
            "output_tokens": output if told else None,
            "cached_tokens": cached if told and cloud in ("gcp", "vultr") else None,
            "reasoning_tokens": output // 3 if told and cloud == "gcp" else None,
            "latency_ms": float(latency) if cloud != "aws" or (form == "converse" and answered) else None,
            "time_to_first_token_ms": float(first) if told and cloud == "vultr" else None,
        }


def _finish(fate: Fate, form: Form) -> str | None:
    """Why the model stopped, as far as its record tells."""
    if fate == "failed" or (fate == "missing" and form not in ("otlp", "otlp_1_36")):
        return None
    return "length" if fate == "cut" else "stop"
