"""The monitors of a customer's streams over one UTC day: each metric of each label that answered on it, against the
baseline in force, going on from the state of the day before.

Where scores of earlier days came late, or a day before was never judged, the monitor starts anew from its baseline:
the state of a day depends on the scores before its end and on nothing else.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.gate.baselines import Baselines, Frozen
from optiinfra_pipelines.gate.judges import Scoring, shift_since
from optiinfra_pipelines.gate.scores import Label, Scores, Series, is_measured, read_scores
from optiinfra_pipelines.gate.writing import Row, as_json, label_columns, row_id
from optiinfra_pipelines.quality.control import Attribution, application_shift, attribute
from optiinfra_pipelines.quality.monitor import Monitor
from optiinfra_pipelines.quality.policy import Metric, Policy
from optiinfra_pipelines.tables.gate import MONITOR_STATES
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import Window

_DIGITS = 6


@dataclass(frozen=True, eq=False)
class Watched:
    """A series beside its baseline, in force for it from `start` on."""

    series: Series
    frozen: Frozen
    start: datetime


@dataclass(frozen=True)
class Held:
    """The state in which an earlier day left a monitor, and what it had seen."""

    day: datetime
    baseline_key: str
    scores_seen: int
    newest_at: datetime | None
    state: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Day:
    """What the monitors of one customer's day share. `deployed`: labels that are held against another one's baseline
    until they have their own: that label, and since when."""

    baselines: Baselines
    day: Window
    until: datetime
    policies: Mapping[str, Policy]
    deployed: Mapping[Label, tuple[Label, datetime]]
    scorings: Mapping[tuple[str, str], list[Scoring]]


def monitor_rows(of: Day) -> list[Row]:
    """The rows of quality.monitor_states of the day, one a metric of each label that was seen on it."""
    baselines, activity = of.baselines, of.baselines.activity
    labels = list(activity.labels(of.day.start))
    metrics = {name for policy in of.policies.values() for name in policy.metrics}
    scores = read_scores(baselines.held, baselines.customer_id, of.day.start, of.until, metrics)
    before = _held(baselines.held, baselines.customer_id, of.day.start)
    rows = []
    for label in labels:
        for name in sorted(of.policies[label.application_id].metrics):
            judges = activity.judges(label, name)
            for judge in judges[-1:]:
                series = Series(label, name, judge)
                rows.append(_row(of, series, scores.get(series, Scores()), before.get(series)))
    return rows


def _held(held: Warehouse, customer_id: str, day: datetime) -> dict[Series, Held]:
    """The newest state of each series of the days before."""
    rows = held.query(
        "SELECT * FROM (SELECT s.*, row_number() OVER (PARTITION BY provider, application_id, model_name, variant,"
        " metric_type, judge_fingerprint ORDER BY day DESC) AS place"
        f" FROM {held.current(MONITOR_STATES)} s WHERE customer_id = $customer AND day < $day) t WHERE place = 1",
        {"customer": customer_id, "day": naive_utc(day)},
    ).to_pylist()
    return {
        Series(
            Label(row["provider"], row["application_id"], row["model_name"], row["variant"]),
            row["metric_type"],
            row["judge_fingerprint"],
        ): Held(row["day"], row["baseline_key"] or "", row["scores_seen"], row["newest_at"], json.loads(row["state"]))
        for row in rows
    }


def watched(of: Day, series: Series) -> Watched | None:
    """The baseline that a series is held against at the end of the day, its own or that of the label before it."""
    found = of.baselines.in_force(series, of.until)
    own = Watched(series, found, found.frozen_at) if found is not None else None
    previous, since = of.deployed.get(series.label, (None, None))
    if previous is None or since is None or (own is not None and own.start >= since):
        return own
    theirs = of.baselines.at_deployment(Series(previous, series.metric, series.judge), since)
    if theirs is None or theirs.baseline.n < of.baselines.policy.baseline_min:
        return own
    return Watched(series, theirs, since)


def _row(of: Day, series: Series, today: Scores, before: Held | None) -> Row:
    policy = of.policies[series.label.application_id]
    metric = policy.metrics[series.metric]
    against = watched(of, series)
    seen, newest = of.baselines.activity.seen(series)
    sample = today.sample()
    row: Row = {
        "state_id": row_id(of.baselines.customer_id, *_parts(series), of.day.start),
        **label_columns(of.baselines.customer_id, series.label, of.baselines.activity.names),
        "metric_type": series.metric,
        "judge_fingerprint": series.judge,
        "day": of.day.start,
        "seen_until": of.until,
        "scores_seen": seen,
        "newest_at": newest,
        "n": sample.n,
        "observed": round(sample.mean, _DIGITS) if sample.n else None,
    }
    margin = metric.margin_at(against.frozen.baseline.mean) if against else 0.0
    if against is None or margin <= 0:
        none: Row = {"baseline_key": None, "alarm": False, "betting_alarm": False, "alarm_since": None}
        none |= {"change_start": None, "alarms": 0, "height": 0.0, "threshold": None, "baseline_mean": None}
        said = "the baseline's mean is 0: a share of it is no margin" if against else of.baselines.progress(series)
        return row | none | {"margin": None, "cause": None, "explanation": said, "state": as_json({})}
    state = _stepped(of, against, policy, metric, today, before)
    found = _attributed(of, against, metric, state) if state["alarm"] else None
    return row | {
        "baseline_key": against.frozen.baseline.key,
        "alarm": state["alarm"],
        "betting_alarm": state["betting_alarm"],
        "alarm_since": _time(state["alarm_since"]),
        "change_start": _time(state["change_start"]),
        "alarms": state["alarms"],
        "height": state["score"],
        "threshold": state["threshold"],
        "baseline_mean": round(against.frozen.baseline.mean, _DIGITS),
        "margin": round(margin, _DIGITS),
        "cause": found.cause if found else None,
        "explanation": found.sentence if found else "no change is seen",
        "state": as_json(state),
    }


def _stepped(
    of: Day, against: Watched, policy: Policy, metric: Metric, today: Scores, before: Held | None
) -> dict[str, Any]:
    """The monitor's state after the day: from that of the days before, where nothing changed below it, or anew."""
    monitor = Monitor(against.frozen.baseline, metric, policy)
    earlier = of.baselines.activity.seen(against.series, of.day.start)
    if (
        before is not None
        and before.baseline_key == against.frozen.baseline.key
        and (before.scores_seen, before.newest_at) == earlier
        and against.start <= of.day.start
    ):
        return monitor.step(before.state, today.windows(of.day.start, of.until))
    state = monitor.start(against.frozen.window_size)
    scores = today
    if against.start < of.day.start:
        scores = read_scores(
            of.baselines.held,
            of.baselines.customer_id,
            against.start,
            of.until,
            [against.series.metric],
            against.series.label,
        ).get(against.series, Scores())
    return monitor.step(state, scores.windows(against.start, of.until))


def _attributed(of: Day, against: Watched, metric: Metric, state: Mapping[str, Any]) -> Attribution:
    """What caused an alarm: the application, or the judge as its anchors tell."""
    series, since = against.series, datetime.fromisoformat(state["change_start"])
    found = read_scores(
        of.baselines.held, of.baselines.customer_id, since, of.until, [series.metric], series.label
    ).get(series, Scores())
    baseline = against.frozen.baseline
    moved = application_shift(baseline, metric, found.sample())
    margin = metric.margin_at(baseline.mean)
    if is_measured(series.metric):
        said = f"{series.metric} is worse by {metric.amount(moved.change)}: the application changed, no judge is asked"
        return Attribution("application", said, moved, None)
    judge = shift_since(of.scorings.get((series.judge, series.metric), []), metric, since)
    return attribute(metric, margin, moved, judge)


def _time(at: str | None) -> datetime | None:
    return datetime.fromisoformat(at) if at else None


def _parts(series: Series) -> tuple[str, ...]:
    label = series.label
    return label.provider, label.application_id, label.model_name, label.variant, series.metric, series.judge
