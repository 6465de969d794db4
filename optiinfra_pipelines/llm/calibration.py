"""How often the judge errs, measured on answers that people labelled: asked as in production, figures with intervals.

Reading the labels is in `labelled.py`; the command, which also shows the figures in the UI, is
`python -m optiinfra_pipelines.defs.quality.calibrate FILE`.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from statistics import NormalDist
from threading import Event
from time import monotonic
from typing import Any, Literal
from uuid import UUID, uuid5

import pyarrow as pa

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.llm import rubric
from optiinfra_pipelines.llm.evaluation import open_limits
from optiinfra_pipelines.llm.injection import looks_like_instructions
from optiinfra_pipelines.llm.judge import Judge, Outcome
from optiinfra_pipelines.llm.labelled import Labelled
from optiinfra_pipelines.llm.redaction import Redactor
from optiinfra_pipelines.llm.scoring import Evaluation, new_call, settled_call
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.tables.llm import JUDGE_CALIBRATIONS, JUDGE_CALLS
from optiinfra_pipelines.warehouse.protocol import Warehouse

POSITIVE = 0.5  # a score of so much or more says that the fault is there
ANSWER_FIRST = ("answer", "question", "context", "system")  # the other order, for order sensitivity
SETTLED_AT_ONCE = 64  # calls whose money is written together: what a killed command leaves uncounted, beside those sent
_95_PERCENT = NormalDist().inv_cdf(0.975)
_NAMESPACE = UUID("a3b1f6de-3c57-5e0b-8f0e-0c1d5e7a9b42")

Round = Literal["first", "again", "reordered"]


@dataclass(frozen=True, slots=True)
class Asked:
    """One item put before the judge: the first time, again in the same words, or again in another order."""

    item: Labelled
    round: Round
    flagged: bool  # by its own texts
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Figure:
    """A share (or USD) of `n` items with its 95 % interval, None for a price."""

    metric_type: str
    figure: str
    value: float
    lower: float | None
    upper: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured: of `items`, `judged` have a judgement. `requests` and `cost` are those of all rounds.

    `stopped` says why not all were asked; "" where all were.
    """

    calibration_id: str
    dataset: str
    judge_fingerprint: str
    judge_model: str
    measured_at: datetime
    figures: tuple[Figure, ...]
    items: int
    judged: int
    requests: int
    cost: Decimal
    stopped: str


def chosen(items: Sequence[Labelled], limit: int | None, seed: int) -> list[Labelled]:
    """At most `limit` of the items, as many of each label while there are enough; order and choice by hash of `seed`
    and id, so that the first ones of them are a sample too."""
    ordered = sorted(items, key=lambda item: sha256(f"{seed}/{item.id}".encode()).digest())
    if limit is None or limit >= len(ordered):
        return ordered
    seen: Counter[tuple[tuple[str, bool], ...]] = Counter()
    ranked = []
    for place, item in enumerate(ordered):
        stratum = tuple(sorted(item.labels.items()))
        ranked.append((seen[stratum], place))
        seen[stratum] += 1
    return [ordered[place] for place in sorted(place for _, place in sorted(ranked)[:limit])]


def calibrate(
    warehouse: Warehouse,
    settings: Settings,
    items: Sequence[Labelled],
    *,
    dataset: str,
    redactor: Redactor,
    repeat: float,
    seconds: float,
    progress: Callable[[int, int], None] = lambda done, wanted: None,
) -> Calibration:
    """Have the items judged, the first `repeat` (a share) of them twice more: again, and in another order.

    Within the limits and budgets of `settings`, for `seconds` at most; the calls are written to quality.judge_calls
    as they end (customer "", interaction `calibration:<dataset>:<id>`), so that their money counts, the figures to
    quality.judge_calibrations. CollectionError where the judge may not or cannot be asked at all.
    """
    if not settings.llm_enabled:
        raise CollectionError("not_configured", "the judge is not asked, for LLM_ENABLED is false")
    began = datetime.now(UTC)
    calibration_id = str(uuid5(_NAMESPACE, f"{dataset}/{began.isoformat()}"))
    again = items[: math.ceil(repeat * len(items))]
    rounds: Mapping[Round, Sequence[Labelled]] = {"first": items, "again": again, "reordered": again}
    wanted, asked = sum(map(len, rounds.values())), list[Asked]()
    limits = open_limits(warehouse, settings, began)
    with Judge(settings, limits, redactor.version) as judge:

        def keep(ended: Sequence[Asked]) -> None:
            asked.extend(ended)
            calls = [_call(each, calibration_id, dataset, judge, settings) for each in ended]
            warehouse.upsert(JUDGE_CALLS, pa.Table.from_pylist(calls, schema=JUDGE_CALLS.arrow_schema))
            progress(len(asked), wanted)

        asking = _Asking(judge, redactor, monotonic() + seconds)
        asking.all(rounds, settings.llm_concurrency, keep)
        made = Calibration(
            calibration_id,
            dataset,
            judge.fingerprint,
            judge.model,
            began,
            figures(asked),
            items=len(items),
            judged=sum(each.round == "first" and each.outcome.judgement is not None for each in asked),
            requests=asking.result.requests,
            cost=asking.result.cost,
            stopped=asking.result.explanation or "",
        )
    if made.figures:
        rows = pa.Table.from_pylist(_figure_rows(made), schema=JUDGE_CALIBRATIONS.arrow_schema)
        warehouse.upsert(JUDGE_CALIBRATIONS, rows)
    return made


def figures(asked: Sequence[Asked]) -> tuple[Figure, ...]:
    """What the outcomes say of the judge; a figure without items behind it is left out, all where nothing was judged.

    Per labelled metric: sensitivity, specificity, self_agreement (the same call, positive or not), order_sensitivity
    (another call in another order; 1 - self_agreement of it would change anyway), price_per_1000 (USD for so many
    judgements) and failed (items without a fit answer). Of `quality`: how often its score is the same, or changes.
    """
    first, again, reordered = (
        {each.item.id: each.outcome.judgement for each in asked if each.round == name and each.outcome.judgement}
        for name in ("first", "again", "reordered")
    )
    if not first:
        return ()
    once = [each for each in asked if each.round == "first"]
    ended = [each for each in once if each.outcome.status in ("succeeded", "failed")]
    found: list[Figure | None] = []
    metrics = sorted({metric for each in once for metric in each.item.labels})
    for metric in metrics:
        calls = [
            (each.item.labels[metric], _call_of(metric, first[each.item.id]))
            for each in ended
            if metric in each.item.labels and each.item.id in first
        ]
        found.append(_share(metric, "sensitivity", [call for label, call in calls if label]))
        found.append(_share(metric, "specificity", [not call for label, call in calls if not label]))
    for metric in (*metrics, "quality"):
        read = _call_of if metric != "quality" else _score_of
        same = [read(metric, first[each]) == read(metric, again[each]) for each in again if each in first]
        other = [read(metric, first[each]) != read(metric, reordered[each]) for each in reordered if each in first]
        found += [_share(metric, "self_agreement", same), _share(metric, "order_sensitivity", other)]
    cost = sum((each.outcome.cost for each in ended), Decimal(0))
    for metric in metrics:
        found.append(Figure(metric, "price_per_1000", float(1000 * cost / len(first)), None, None, len(first)))
        found.append(_share(metric, "failed", [each.outcome.status == "failed" for each in ended]))
    return tuple(each for each in found if each is not None)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share by Wilson's score; `n` is not 0."""
    share, z2 = hits / n, _95_PERCENT**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    reach = _95_PERCENT * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return (middle - reach if hits else 0.0), (middle + reach if hits < n else 1.0)


class _Asking:
    """The items before the judge, side by side, until all are judged or the judge or its budget says stop."""

    def __init__(self, judge: Judge, redactor: Redactor, deadline: float) -> None:
        self._judge, self._redactor, self._deadline = judge, redactor, deadline
        self._stopped = Event()
        self.result = Evaluation()

    def all(
        self, rounds: Mapping[Round, Sequence[Labelled]], concurrency: int, keep: Callable[[Sequence[Asked]], None]
    ) -> None:
        """Ask, and have what ended kept, some at a time; a round begins when the one before has ended."""
        ended: list[Asked] = []
        with ThreadPoolExecutor(concurrency, "judge") as pool:
            try:
                for name, items in rounds.items():
                    for future in as_completed([pool.submit(self._ask, name, item) for item in items]):
                        each = future.result()
                        if each is not None:
                            self.result.note(each.outcome)
                            ended.append(each)
                        if self.result.reason is not None:
                            self._stopped.set()
                        if len(ended) == SETTLED_AT_ONCE:
                            settled, ended = ended, []
                            keep(settled)
            finally:
                self._stopped.set()  # else the pool would go on with what is waiting
                if ended:
                    keep(ended)

    def _ask(self, name: Round, item: Labelled) -> Asked | None:
        if self._stopped.is_set():
            return None
        texts, _ = self._redactor.redact(item.texts)
        order = ANSWER_FIRST if name == "reordered" else rubric.ORDER
        outcome = self._judge.ask(texts, self._deadline, order)
        if outcome.status in ("deferred", "blocked"):
            self._stopped.set()
        return Asked(item, name, bool(looks_like_instructions(texts)), outcome)


def _call_of(metric: str, judgement: rubric.Judgement) -> bool:
    return judgement.scores[metric] >= POSITIVE


def _score_of(metric: str, judgement: rubric.Judgement) -> float:
    return rubric.scores(judgement)[metric]


def _share(metric: str, figure: str, hits: Sequence[bool]) -> Figure | None:
    if not hits:
        return None
    lower, upper = wilson(sum(hits), len(hits))
    return Figure(metric, figure, sum(hits) / len(hits), lower, upper, len(hits))


def _call(asked: Asked, calibration_id: str, dataset: str, judge: Judge, settings: Settings) -> dict[str, Any]:
    """The row of quality.judge_calls, written when the call has ended."""
    now, about = naive_utc(datetime.now(UTC)), f"calibration:{dataset}:{asked.item.id}"
    call_id = uuid5(UUID(calibration_id), f"{asked.item.id}/{asked.round}")
    call = new_call(settings, judge, call_id, about, calibration_id, now) | {"flagged": asked.flagged}
    return settled_call(call, asked.outcome, now)


def _figure_rows(made: Calibration) -> list[dict[str, Any]]:
    return [
        {
            "calibration_id": made.calibration_id,
            "judge_fingerprint": made.judge_fingerprint,
            "judge_model": made.judge_model,
            "dataset": made.dataset,
            "metric_type": each.metric_type,
            "figure": each.figure,
            "value": each.value,
            "lower": each.lower,
            "upper": each.upper,
            "n": each.n,
            "collected_at": naive_utc(made.measured_at),
        }
        for each in made.figures
    ]
