"""The frozen anchors put before the judge once a UTC day: what they score tells a judge that drifts, and canaries among
them a judge that obeys the texts it judges."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from time import monotonic
from typing import Any
from uuid import UUID, uuid5

import pyarrow as pa

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.customers import Customer
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.llm.anchors import Anchor, anchors
from optiinfra_pipelines.llm.evaluation import RUN_SECONDS, hindrance, open_limits
from optiinfra_pipelines.llm.judge import Judge, Outcome, fingerprint_of
from optiinfra_pipelines.llm.redaction import open_redactor
from optiinfra_pipelines.llm.rubric import scores
from optiinfra_pipelines.llm.scoring import Evaluation, new_call, settled_call
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.tables.llm import ANCHOR_SCORES, JUDGE_CALLS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import floor_day

_NAMESPACE = UUID("0f5b5c0e-7a52-5b55-9f0b-51f6c0d5a7ce")


def judge_anchors(
    warehouse: Warehouse, settings: Settings, now: datetime, customers: Iterable[Customer] = ()
) -> Evaluation:
    """Have judged what anchors were not yet on this UTC day, by this judge; what keeps the judge is a result.

    Anchors hold no personal data. The redactor's version is part of the judge all the same: what one judge said stands
    for those of all `customers`, whose patterns differ and find nothing in an anchor.
    """
    kept = hindrance(warehouse, settings, now)
    if kept is None:
        try:
            version = open_redactor(settings).version
            versions = {version, *(open_redactor(settings, each.redact).version for each in customers)}
            fingerprints = sorted(fingerprint_of(settings, each) for each in versions)
            with Judge(settings, open_limits(warehouse, settings, now), version) as judge:
                return _judge_with(warehouse, settings, judge, fingerprints, now)
        except CollectionError as error:
            kept = (error.kind, str(error))
    return Evaluation(evaluated=False, reason=kept[0], explanation=kept[1])


def _judge_with(
    warehouse: Warehouse, settings: Settings, judge: Judge, fingerprints: Sequence[str], now: datetime
) -> Evaluation:
    day = floor_day(now)
    held = warehouse.query(
        f"SELECT DISTINCT anchor_id FROM {warehouse.current(ANCHOR_SCORES)} a"
        " WHERE day = $day AND judge_fingerprint = $fingerprint",
        {"day": naive_utc(day), "fingerprint": judge.fingerprint},
    )
    known = set(held.column("anchor_id").to_pylist())
    missing = [each for each in anchors() if each.id not in known]
    result = Evaluation(states={"scored": len(known)})
    deadline = monotonic() + RUN_SECONDS
    asked = [(each, judge.ask(each.texts, deadline)) for each in missing[:1]]  # alone: is there a judge at all?
    if asked and asked[0][1].status not in ("blocked", "deferred"):
        with ThreadPoolExecutor(min(settings.llm_concurrency, 8), "anchors") as pool:
            outcomes = pool.map(lambda each: judge.ask(each.texts, deadline), missing[1:])
            asked += list(zip(missing[1:], outcomes, strict=True))
    settled = naive_utc(datetime.now(UTC))
    calls, rows = [], []
    for anchor, outcome in asked:
        call_id = uuid5(_NAMESPACE, f"{anchor.id}/{judge.fingerprint}/{settled.isoformat()}")
        call = new_call(settings, judge, call_id, f"anchor:{anchor.id}", warehouse.run_id, settled)
        call |= {"interaction_timestamp": naive_utc(day), "flagged": anchor.canary}
        calls.append(settled_call(call, outcome, settled))
        for fingerprint in fingerprints:
            rows += _rows(judge, fingerprint, anchor, outcome, now)
        result.note(outcome)
        state = "scored" if outcome.judgement else "waiting"
        result.states[state] = result.states.get(state, 0) + 1
    with warehouse.session() as opened:
        if rows:
            opened.upsert(ANCHOR_SCORES, pa.Table.from_pylist(rows, schema=ANCHOR_SCORES.arrow_schema))
        if calls:
            opened.upsert(JUDGE_CALLS, pa.Table.from_pylist(calls, schema=JUDGE_CALLS.arrow_schema))
    return result


def _rows(judge: Judge, fingerprint: str, anchor: Anchor, outcome: Outcome, now: datetime) -> list[dict[str, Any]]:
    if outcome.judgement is None:
        return []
    expected = anchor.expected_scores
    return [
        {
            "day": naive_utc(floor_day(now)),
            "anchor_id": anchor.id,
            "judge_fingerprint": fingerprint,
            "judge_model": judge.model,
            "metric_type": metric,
            "score": score,
            "expected_score": expected[metric],
            "canary": anchor.canary,
            "system_fingerprint": outcome.system_fingerprint,
            "collected_at": naive_utc(now),
        }
        for metric, score in scores(outcome.judgement).items()
    ]
