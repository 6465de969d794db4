"""One customer's day put before the judge: claimed, asked side by side, written; and what is measured without a judge.

Each call is written before it is sent and settled after, a batch at a time, so that a killed run pays twice for a batch
at most. Who is judged is in `sampling.py`, what is asked in `rubric.py`, how in `judge.py`.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from hashlib import sha1, sha256
from itertools import islice
from queue import Empty, SimpleQueue
from threading import Event
from time import monotonic
from typing import Any
from uuid import UUID, uuid5

import pyarrow as pa

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.customers import Customer
from optiinfra_pipelines.llm.injection import INJECTION_VERSION, looks_like_instructions
from optiinfra_pipelines.llm.interaction import Texts
from optiinfra_pipelines.llm.judge import Judge, Outcome
from optiinfra_pipelines.llm.redaction import open_redactor
from optiinfra_pipelines.llm.rubric import METRIC_SET_VERSION, Judgement, scores
from optiinfra_pipelines.llm.sampling import SKIPPED, parts, settle_leftovers, standing, waiting
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.tables.llm import APPLICATION_METRICS, JUDGE_CALLS, LLM_INTERACTIONS, SCORING_RUNS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import Window

CLAIMED_AT_ONCE = 256  # interactions written ahead and settled in one session: opening DuckDB takes 30 ms of CPU
BATCH = 512  # calls that are written ahead and not settled at most: what a killed run may pay twice
_SETTLED_WITHIN = 5.0  # seconds, where answers come so slowly that there are not soon as many as are claimed at once
_BREAKS = 8  # interactions in a row that failed on the way to the judge: it is the way, and not them
_NAMESPACE = UUID("3c0c8c36-02a5-5c0b-9b63-6c1c0a3f6b52")
RECORD = (
    *("interaction_id", "timestamp", "provider", "connection_id", "application_id", "application_name"),
    *("model_name", "variant", "conversation_id"),
)
"""What a score takes over from its interaction, under the same names."""
_TEXTS = ("system", "context", "input", "output")
_TOLD = (
    *("error_kind", "error", "requests", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens"),
    *("cost", "latency_ms", "system_fingerprint", "request_id"),
)
"""What a call takes over from its outcome, under the same names."""


@dataclass
class Evaluation:
    """How a day stands after a run: interactions by state, and what the run itself sent and spent.

    `reason` is why some are waiting (None: none are), `explanation` the same for people: once there is one, the run is
    to ask no more. Not `evaluated`: no call could be made at all.
    """

    evaluated: bool = True
    reason: str | None = None
    explanation: str | None = None
    states: dict[str, int] = field(default_factory=dict)
    flagged: int = 0
    requests: int = 0
    cost: Decimal = Decimal(0)
    judged: int = 0
    _breaks: int = 0

    @property
    def collected(self) -> int:
        return sum(self.states.values())

    def note(self, outcome: Outcome) -> None:
        """Account for a call, in the order in which they end."""
        self.requests += outcome.requests
        self.cost += outcome.cost
        self.judged += outcome.status == "succeeded"
        broke = outcome.status == "failed" and outcome.error_kind == "transient"
        self._breaks = self._breaks + 1 if broke else 0
        if self.reason is None and (self._breaks == _BREAKS or outcome.status in ("deferred", "blocked")):
            self.reason, self.explanation = outcome.error_kind, outcome.error


@dataclass(frozen=True)
class _Claim:
    """One interaction about to be judged: its row of quality.judge_calls, its record and its redacted texts."""

    call: dict[str, Any]
    record: dict[str, Any]
    texts: Texts


def evaluate_day(
    warehouse: Warehouse,
    settings: Settings,
    customer: Customer,
    judge: Judge,
    day: Window,
    now: datetime,
    seconds: float,
) -> Evaluation:
    """Have judged what is waiting of one UTC day, for `seconds` at most, and say how the day stands."""
    result = Evaluation()
    with warehouse.session() as held:
        settle_leftovers(held, customer, judge.fingerprint, day, now)
    run = _Run(warehouse, settings, customer, judge, now, monotonic() + seconds, result)
    run.judge_all(_planned(warehouse, settings, customer, judge.fingerprint, day, now))
    record_standing(warehouse, settings, customer, judge.fingerprint, judge.model, day, result)
    return result


def _planned(
    warehouse: Warehouse, settings: Settings, customer: Customer, fingerprint: str, day: Window, now: datetime
) -> Iterator[dict[str, Any]]:
    """What is waiting, each with its record and texts, part by part: a day of a million would not be flat."""
    for part in reversed(parts(warehouse, customer, day)):
        rows = waiting(warehouse, settings, customer, fingerprint, part, now).to_pylist()
        for first in range(0, len(rows), BATCH):
            wanted = rows[first : first + BATCH]
            records = _records(warehouse, customer, wanted)
            yield from (each | records[each["interaction_id"]] for each in wanted if each["interaction_id"] in records)


class _Run:
    """The calls of one run: claimed in the order of the plan, in flight, and settled as they end."""

    def __init__(
        self,
        warehouse: Warehouse,
        settings: Settings,
        customer: Customer,
        judge: Judge,
        now: datetime,
        deadline: float,
        result: Evaluation,
    ) -> None:
        self._warehouse, self._judge, self._now, self._deadline = warehouse, judge, now, deadline
        self._customer, self._result, self._settings = customer, result, settings
        self._redactor = open_redactor(settings, customer.redact)
        self._stopped = Event()
        self._planned_out = False

    def judge_all(self, planned: Iterator[dict[str, Any]]) -> None:
        """Judge what is planned until there is no more, or until the judge or its budget says stop."""
        ended: SimpleQueue[Future[tuple[_Claim, Outcome | None]]] = SimpleQueue()
        in_flight, done = 0, list[tuple[_Claim, Outcome | None]]()
        with ThreadPoolExecutor(self._settings.llm_concurrency, "judge") as pool:
            done = [self._ask(claim) for claim in self._turn((), planned, 1)]  # alone: is there a judge at all?
            while True:
                while in_flight + CLAIMED_AT_ONCE <= BATCH and not self._planned_out:
                    claims, done = self._turn(done, planned, CLAIMED_AT_ONCE), []
                    for claim in claims:
                        pool.submit(self._ask, claim).add_done_callback(ended.put)
                    in_flight += len(claims)
                if done:
                    self._turn(done, iter(()), CLAIMED_AT_ONCE)
                if not in_flight:
                    return
                done = _ended(ended, in_flight)
                in_flight -= len(done)

    def _turn(
        self, done: Sequence[tuple[_Claim, Outcome | None]], planned: Iterator[dict[str, Any]], most: int
    ) -> list[_Claim]:
        """Settle what ended and claim at most `most` of what is next, in one session of the warehouse.

        Scores are written before their calls: a run that is killed between the two is told by its scores.
        """
        for _, outcome in done:
            if outcome is not None:
                self._result.note(outcome)
        if self._result.reason is not None:
            self._stopped.set()
        # the plan asks the warehouse for itself: not from within the session, and not once the judge has had enough
        wanted = [] if self._stopped.is_set() else list(islice(planned, most))
        self._planned_out = self._planned_out or len(wanted) < most
        if not done and not wanted:
            return []
        settled = naive_utc(datetime.now(UTC))
        scored = [row for claim, outcome in done for row in _score_rows(self._customer, claim, outcome, settled)]
        with self._warehouse.session() as held:
            if scored:
                held.upsert(APPLICATION_METRICS, pa.Table.from_pylist(scored, schema=APPLICATION_METRICS.arrow_schema))
            claims = self._claims(held, wanted) if wanted else []
            calls = [settled_call(claim.call, outcome, settled) for claim, outcome in done]
            calls += [claim.call for claim in claims]
            if calls:
                held.upsert(JUDGE_CALLS, pa.Table.from_pylist(calls, schema=JUDGE_CALLS.arrow_schema))
        return claims

    def _ask(self, claim: _Claim) -> tuple[_Claim, Outcome | None]:
        if self._stopped.is_set():
            return claim, None
        outcome = self._judge.ask(claim.texts, self._deadline)
        if outcome.status in ("deferred", "blocked"):
            self._stopped.set()
        return claim, outcome

    def _claims(self, held: Warehouse, wanted: Sequence[dict[str, Any]]) -> list[_Claim]:
        """The calls to be written ahead; what another run claimed since it was planned is left to that run."""
        claims = []
        taken = _taken(held, self._customer, self._judge.fingerprint, wanted, self._now)
        for each in wanted:
            if each["interaction_id"] in taken:
                continue
            texts, _ = self._redactor.redact(Texts(*(each[part] or "" for part in _TEXTS)))
            claims.append(_Claim(self._call(each, texts), {name: each[name] for name in RECORD}, texts))
        return claims

    def _call(self, planned: dict[str, Any], texts: Texts) -> dict[str, Any]:
        about, written = planned["interaction_id"], naive_utc(datetime.now(UTC))
        call_id = uuid5(_NAMESPACE, f"{about}/{self._judge.fingerprint}/{planned['calls'] + 1}")
        return new_call(self._settings, self._judge, call_id, about, self._warehouse.run_id, written) | {
            "customer_id": self._customer.id,
            "interaction_timestamp": planned["timestamp"],
            "status": "in_flight",
            "requests": 1,
            "cost": self._judge.reserved(texts)[1],
            "sampling_probability": planned["sampling_probability"],
            "flagged": bool(looks_like_instructions(texts)),
            "collected_at": written,
        }


def _ended(
    ended: "SimpleQueue[Future[tuple[_Claim, Outcome | None]]]", in_flight: int
) -> list[tuple[_Claim, Outcome | None]]:
    """What ended of the calls in flight: as many as are claimed at once, or fewer where they take long."""
    done = [ended.get().result()]
    until = monotonic() + _SETTLED_WITHIN
    while len(done) < min(in_flight, CLAIMED_AT_ONCE):
        try:
            done.append(ended.get(timeout=max(until - monotonic(), 0)).result())
        except Empty:
            break
    return done


def judge_account(settings: Settings) -> str:
    """Whose limits, money and blocks count: the address and the key, which this does not give away."""
    known = f"{settings.groq_base_url}\0{settings.groq_api_key.get_secret_value()}"
    return sha256(known.encode()).hexdigest()[:12]


def _records(warehouse: Warehouse, customer: Customer, wanted: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The interactions with their texts, by id."""
    found: dict[str, dict[str, Any]] = {}
    for provider in {each["provider"] for each in wanted}:
        of_provider = [each for each in wanted if each["provider"] == provider]
        windows = [naive_utc(each["window_start"]) for each in of_provider]  # a zone would keep DuckDB from skipping
        rows = warehouse.query(
            f"SELECT {', '.join((*RECORD, *_TEXTS))}"
            f" FROM {warehouse.current(LLM_INTERACTIONS[provider])} i WHERE customer_id = $customer"
            f" AND window_start >= $first AND window_start <= $last AND position(interaction_id IN $ids) > 0",
            {"customer": customer.id, "first": min(windows), "last": max(windows), "ids": _joined(of_provider)},
        )
        found |= {row["interaction_id"]: row for row in rows.to_pylist()}
    return found


def _taken(
    held: Warehouse, customer: Customer, fingerprint: str, wanted: Sequence[dict[str, Any]], now: datetime
) -> set[str]:
    """Those that another run claimed or settled since this run began."""
    times = [naive_utc(each["timestamp"]) for each in wanted]
    rows = held.query(
        f"SELECT DISTINCT interaction_id FROM {held.current(JUDGE_CALLS)} c WHERE customer_id = $customer"
        " AND judge_fingerprint = $fingerprint AND interaction_timestamp >= $first AND interaction_timestamp <= $last"
        " AND collected_at > $now AND run_id <> $run AND position(interaction_id IN $ids) > 0",
        {
            "customer": customer.id,
            "fingerprint": fingerprint,
            "first": min(times),
            "last": max(times),
            "now": naive_utc(now),
            "run": held.run_id,
            "ids": _joined(wanted),
        },
    )
    return set(rows.column("interaction_id").to_pylist())


def _joined(wanted: Sequence[dict[str, Any]]) -> str:
    """Their ids as one parameter: hundreds of parameters take longer than what they are for."""
    return " ".join(each["interaction_id"] for each in wanted)


def _score_rows(
    customer: Customer, claim: _Claim, outcome: Outcome | None, settled: datetime
) -> Iterator[dict[str, Any]]:
    if outcome is None or outcome.judgement is None:
        return
    flagged = claim.call["flagged"] or outcome.judgement.instructions_to_judge
    for metric, score in scores(outcome.judgement).items():
        yield {
            **claim.record,
            "score_id": score_id(claim.record["interaction_id"], metric, claim.call["judge_fingerprint"]),
            "customer_id": customer.id,
            "metric_type": metric,
            "score": score,
            "details": _details(outcome.judgement, metric),
            "metadata": _metadata(claim.call["judge_model"]),
            "collected_at": settled,
            "judge_fingerprint": claim.call["judge_fingerprint"],
            "judge_call_id": claim.call["call_id"],
            "sampling_probability": claim.call["sampling_probability"],
            "flagged": flagged,
        }


@cache
def _metadata(model: str) -> str:
    return json.dumps({"judge_model": model, "metric_set": METRIC_SET_VERSION, "injection": INJECTION_VERSION})


def _details(judgement: Judgement, metric: str) -> str:
    """What the judge said of one metric; its reasons stand with the score that sums quality up."""
    if metric == "quality":
        said = {"reasoning": judgement.reasoning, "evidence": judgement.evidence}
        return json.dumps(said | ({"evidence_dropped": True} if judgement.evidence_dropped else {}), ensure_ascii=False)
    return _level(judgement.levels[metric])


@cache
def _level(level: str) -> str:
    return json.dumps({"level": level})


def score_id(interaction_id: str, metric: str, fingerprint: str) -> str:
    """The one id that a score of this interaction, metric and judge can have."""
    name = f"{interaction_id}/{metric}/{METRIC_SET_VERSION}/{fingerprint}"
    digest = sha1(_NAMESPACE.bytes + name.encode(), usedforsecurity=False).hexdigest()  # uuid5, four times as fast
    variant = "89ab"[int(digest[16], 16) % 4]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"


def new_call(
    settings: Settings, judge: Judge, call_id: UUID, interaction_id: str, run_id: str, now: datetime
) -> dict[str, Any]:
    """The row of quality.judge_calls of a call that is to be made, for no customer and out of no sample."""
    return {
        "call_id": str(call_id),
        "customer_id": "",
        "interaction_id": interaction_id,
        "interaction_timestamp": now,
        "judge_fingerprint": judge.fingerprint,
        "judge_model": judge.model,
        "judge_account": judge_account(settings),
        "sampling_probability": 1.0,
        "flagged": False,
        "run_id": run_id,
        "called_at": now,
    }


def settled_call(call: dict[str, Any], outcome: Outcome | None, settled: datetime) -> dict[str, Any]:
    """The row of quality.judge_calls `call` as it ended; `outcome` None: it was never sent."""
    if outcome is None:
        return call | {
            "status": "abandoned",
            "error_kind": "not_sent",
            "error": "the judge or its budget had said stop before it was sent",
            "requests": 0,
            "cost": Decimal(0),
            "collected_at": settled,
        }
    return call | {
        **{name: getattr(outcome, name) for name in _TOLD},
        "status": "abandoned" if outcome.status == "deferred" or outcome.error_kind == "budget" else outcome.status,
        "flagged": call["flagged"] or bool(outcome.judgement and outcome.judgement.instructions_to_judge),
        "retry_at": naive_utc(outcome.retry_at) if outcome.retry_at else None,
        "collected_at": settled,
    }


def record_standing(
    warehouse: Warehouse,
    settings: Settings,
    customer: Customer,
    fingerprint: str,
    model: str,
    day: Window,
    result: Evaluation,
) -> None:
    """Count how the day stands into `result`, and write it to quality.scoring_runs."""
    ended = datetime.now(UTC)
    with warehouse.session() as held:
        for part in parts(held, customer, day):
            for row in standing(held, settings, customer, fingerprint, part, ended).to_pylist():
                result.states[row["state"]] = result.states.get(row["state"], 0) + row["interactions"]
                result.flagged += int(row["flagged"])
        left = result.states.get("waiting", 0) + result.states.get("held", 0)
        result.evaluated = result.evaluated and (result.judged > 0 or result.reason is None or not left)
        row = {
            "customer_id": customer.id,
            "day": naive_utc(day.start),
            "judge_fingerprint": fingerprint,
            "judge_model": model,
            "evaluated": result.evaluated,
            "reason": result.reason,
            "explanation": result.explanation,
            "collected": result.collected,
            "scored": result.states.get("scored", 0),
            "failed": result.states.get("failed", 0),
            **{f"skipped_{each}": result.states.get(f"skipped_{each}", 0) for each in SKIPPED},
            "waiting": left,
            "flagged": result.flagged,
            "requests": result.requests,
            "cost": result.cost,
            "run_id": held.run_id,
            "collected_at": naive_utc(ended),
        }
        held.upsert(SCORING_RUNS, pa.Table.from_pylist([row], schema=SCORING_RUNS.arrow_schema))
