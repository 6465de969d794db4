"""Variants of one application side by side: users split between them, or the same prompts through both (shadow).

Two labels of different variants that were seen on the same day are compared from the time on at which both had begun.
It is a shadow where nearly all conversations of b are also a's. A request costs its tokens at the prices of
customers.yaml, or just its tokens where one of the two models has no price there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from optiinfra_pipelines.applications import Application
from optiinfra_pipelines.gate.scores import Activity, Label, Scores, Series, is_measured, read_scores
from optiinfra_pipelines.gate.writing import Row, row_id
from optiinfra_pipelines.quality.comparison import Arm, Comparison, compare, compare_shadow
from optiinfra_pipelines.quality.policy import Metric, Policy
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import DAY, Window

REACH = 28 * DAY  # that a comparison goes back
CONTROLS = ("control", "baseline", "champion", "")  # variants that are a, whichever ran first
_SHADOW = 0.9  # of b's conversations
_TOKENS = ("input_tokens", "output_tokens")


@dataclass
class _Request:
    """One interaction: when, its conversation, tokens by kind, and score, weight and flag by metric."""

    at: datetime
    session: str | None
    tokens: dict[str, float] = field(default_factory=dict)
    scored: dict[str, tuple[float | None, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """Two labels to compare, from `since` on."""

    a: Label
    b: Label
    since: datetime


def pairs(activity: Activity, day: Window) -> list[Pair]:
    """The labels of each stream that were seen on the day in different variants, each beside the one that is a."""
    every = activity.labels()
    streams: dict[tuple[str, str], list[Label]] = {}
    for label in activity.labels(day.start):
        streams.setdefault(label.stream, []).append(label)
    found = []
    for labels in streams.values():
        first, *others = sorted(labels, key=lambda each: (_place(each), every[each][0], each))
        for each in others:
            if each.variant != first.variant:
                since = max(every[first][0], every[each][0], activity.until - REACH)
                found.append(Pair(first, each, since))
    return found


def _place(label: Label) -> int:
    return CONTROLS.index(label.variant) if label.variant in CONTROLS else len(CONTROLS)


def comparison_rows(
    held: Warehouse, customer_id: str, activity: Activity, day: Window, applications: Mapping[str, Application]
) -> Iterator[Row]:
    """The rows of quality.comparisons of one day, one a gated metric of each pair."""
    for pair in pairs(activity, day):
        application = applications[pair.a.application_id]
        policy = application.policy
        read = [
            read_scores(held, customer_id, pair.since, activity.until, {*policy.gated, *_TOKENS}, label)
            for label in (pair.a, pair.b)
        ]
        judge = _judge(read, policy)
        sides = [_requests(each, judge) for each in read]
        paired = _is_shadow(*sides)
        if paired:
            sides = list(_matched(*sides))
        unit, costs = _costs(sides, (pair.a, pair.b), application)
        for name in policy.gated:
            metric = policy.metrics[name]
            found = _compared(sides, costs, metric, policy, paired)
            by = "" if is_measured(name) else judge
            yield _row(customer_id, activity, day, pair, by, found, unit)


def _judge(read: Sequence[Mapping[Series, Scores]], policy: Policy) -> str:
    """The judge of the newest score on either side; empty where nothing was judged."""
    newest = [
        (scores.at[-1], series.judge)
        for side in read
        for series, scores in side.items()
        if series.metric in policy.gated and not is_measured(series.metric)
    ]
    return max(newest, default=(None, ""))[1]


def _requests(read: Mapping[Series, Scores], judge: str) -> list[_Request]:
    """The interactions of one side, by time; those of another judge count as not scored."""
    found: dict[str, _Request] = {}
    for series, scores in sorted(read.items()):
        for place, interaction in enumerate(scores.interaction):
            request = found.setdefault(interaction, _Request(scores.at[place], scores.session[place]))
            if series.metric in _TOKENS:
                request.tokens[series.metric] = scores.score[place]
            elif series.judge == ("" if is_measured(series.metric) else judge):
                score = None if scores.flagged[place] else scores.score[place]
                request.scored[series.metric] = (score, scores.weight[place])
    return [request for _, request in sorted(found.items(), key=lambda each: (each[1].at, each[0]))]


def _is_shadow(a: Sequence[_Request], b: Sequence[_Request]) -> bool:
    ours, theirs = ({each.session for each in side if each.session} for side in (a, b))
    return bool(theirs) and len(ours & theirs) >= _SHADOW * len(theirs)


def _matched(a: Sequence[_Request], b: Sequence[_Request]) -> tuple[list[_Request], list[_Request]]:
    """The requests that both sides have: the same place in the same conversation."""
    placed: list[dict[tuple[str, int], _Request]] = []
    for side in (a, b):
        counts: dict[str, int] = {}
        places: dict[tuple[str, int], _Request] = {}
        for each in side:
            if each.session:
                places[each.session, counts.get(each.session, 0)] = each
                counts[each.session] = counts.get(each.session, 0) + 1
        placed.append(places)
    both = sorted(placed[0].keys() & placed[1].keys())
    return [placed[0][key] for key in both], [placed[1][key] for key in both]


def _costs(
    sides: Sequence[Sequence[_Request]], labels: Sequence[Label], application: Application
) -> tuple[str, list[list[float | None]]]:
    """Unit, and the cost of each request of both sides; None for one whose tokens are not known."""
    prices = [application.prices.get(label.model_name) for label in labels]
    priced = None not in prices
    costs: list[list[float | None]] = []
    for side, price in zip(sides, prices, strict=True):
        rate = (float(price.input) / 1e6, float(price.output) / 1e6) if priced and price else (1.0, 1.0)
        costs.append(
            [
                sum(per * each.tokens[kind] for per, kind in zip(rate, _TOKENS, strict=True))
                if all(kind in each.tokens for kind in _TOKENS)
                else None
                for each in side
            ]
        )
    return ("USD" if priced else "tokens"), costs


def _compared(
    sides: Sequence[Sequence[_Request]],
    costs: Sequence[Sequence[float | None]],
    metric: Metric,
    policy: Policy,
    paired: bool,
) -> Comparison:
    a, b = (
        Arm(
            [each.scored.get(metric.name, (None, 1.0))[0] for each in side],
            [each.session for each in side],
            spent,
            [each.scored.get(metric.name, (None, 1.0))[1] for each in side],
        )
        for side, spent in zip(sides, costs, strict=True)
    )
    return compare_shadow(a, b, metric, policy) if paired else compare(a, b, metric, policy)


def _row(
    customer_id: str, activity: Activity, day: Window, pair: Pair, judge: str, found: Comparison, unit: str
) -> Row:
    a, b = pair.a, pair.b
    about = (a.provider, a.application_id, a.model_name, a.variant, b.model_name, b.variant, found.metric, judge)
    figures = {name: value for name, value in found.to_dict().items() if name != "metric"}
    return {
        "comparison_id": row_id(customer_id, *about, day.start),
        "customer_id": customer_id,
        "provider": a.provider,
        "application_id": a.application_id,
        "application_name": activity.names.get(a.application_id, a.application_id),
        "model_a": a.model_name,
        "variant_a": a.variant,
        "model_b": b.model_name,
        "variant_b": b.variant,
        "metric_type": found.metric,
        "judge_fingerprint": judge,
        "day": day.start,
        "since": pair.since,
        "seen_until": activity.until,
        "cost_unit": unit,
        **figures,
    }
