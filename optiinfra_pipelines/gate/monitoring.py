"""The monitors of a customer's streams over one UTC day: each metric of each label that answered on it, against the
baseline in force, going on from the state that an earlier tick of the day left, or a day before.

Where scores came late below that state, or a day before was never judged, the monitor starts anew from its baseline:
the state of a day depends on the scores before its end and on nothing else.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.gate.baselines import Baselines, Frozen
from optiinfra_pipelines.gate.judges import Scoring, shift_since
from optiinfra_pipelines.gate.scores import Label, Scores, Series, Tally, is_measured, read_scores, read_tallies
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
    """A stored state of a monitor after all scores before `until`, and what had been seen by then."""

    until: datetime
    baseline_key: str
    scores_seen: int
    newest_at: datetime | None
    state: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Task:
    """What there is to do for a series: its day so far, its baseline, the state to go on from, and the time from which
    on scores are wanted; without a baseline and its margin, no time."""

    series: Series
    today: Tally
    against: Watched | None
    margin: float = 0.0
    before: Held | None = None
    start: datetime | None = None


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
    held, customer_id, activity = of.baselines.held, of.baselines.customer_id, of.baselines.activity
    _references(of)
    metrics = {name for policy in of.policies.values() for name in policy.metrics}
    known = _held(held, customer_id, of.day.start, of.until)
    mark = max((each.until for states in known.values() for each in states), default=of.day.start)
    tallies = read_tallies(held, customer_id, of.day.start, of.until, mark, metrics)
    tasks = []
    for label in activity.labels(of.day.start):
        for name in sorted(of.policies[label.application_id].metrics):
            for judge in activity.judges(label, name)[-1:]:
                series = Series(label, name, judge)
                tasks.append(_task(of, series, tallies.get(series, Tally()), known.get(series, []), mark))
    first = min((task.start for task in tasks if task.start is not None), default=of.until)
    first = max(first, of.day.start)
    scores = read_scores(held, customer_id, first, of.until, metrics)
    return [_row(of, task, first, scores.get(task.series, Scores())) for task in tasks]


def _references(of: Day) -> None:
    """Have the baselines made that deployed labels are held against, also by metrics that are not gated: which ones
    there are must not depend on the order in which days are judged."""
    for label, (previous, since) in of.deployed.items():
        for name in of.policies[label.application_id].metrics if label.application_id in of.policies else ():
            for judge in of.baselines.activity.judges(label, name)[-1:]:
                of.baselines.at_deployment(Series(previous, name, judge), since)


def _held(held: Warehouse, customer_id: str, day: datetime, until: datetime) -> dict[Series, list[Held]]:
    """States of each series, the newest first: that of the day as far as it went by `until`, and the newest before."""
    rows = held.query(
        "SELECT * FROM (SELECT s.*, row_number() OVER (PARTITION BY provider, application_id, model_name, variant,"
        " metric_type, judge_fingerprint, day = $day ORDER BY day DESC) AS place"
        f" FROM {held.current(MONITOR_STATES)} s WHERE customer_id = $customer AND day <= $day"
        " AND seen_until <= $until) t WHERE place = 1 ORDER BY day DESC",
        {"customer": customer_id, "day": naive_utc(day), "until": naive_utc(until)},
    ).to_pylist()
    found: dict[Series, list[Held]] = {}
    for row in rows:
        found.setdefault(Series.of(row), []).append(
            Held(
                row["seen_until"],
                row["baseline_key"] or "",
                row["scores_seen"],
                row["newest_at"],
                json.loads(row["state"]),
            )
        )
    return found


def _task(of: Day, series: Series, today: Tally, known: list[Held], mark: datetime) -> Task:
    """Go on from the newest state below which nothing changed: of the day itself, at `mark`, or of a day before; else
    anew from where the baseline is in force."""
    against = watched(of, series)
    if against is None:
        return Task(series, today, None)
    margin = of.policies[series.label.application_id].metrics[series.metric].margin_at(against.frozen.baseline.mean)
    if margin <= 0:
        return Task(series, today, against)
    count, newest = of.baselines.activity.seen(series, of.day.start)
    for each in known:
        seen, start = (count, newest), of.day.start
        if each.until > of.day.start:
            times = [at for at in (newest, today.newest_at) if at is not None]
            seen, start = (count + today.seen, max(times, default=None)), mark
            if each.until != mark:
                continue
        of_state = each.baseline_key, each.state.get("since"), each.state.get("margin")
        same = of_state == (against.frozen.baseline.key, against.start.isoformat(), round(margin, _DIGITS))
        if same and (each.scores_seen, each.newest_at) == seen:
            return Task(series, today, against, margin, each, start)
    return Task(series, today, against, margin, None, against.start)


def watched(of: Day, series: Series) -> Watched | None:
    """The baseline that a series is held against at the end of the day, its own or that of the label before it."""
    found = of.baselines.in_force(series, of.until - timedelta.resolution)  # one of this moment has seen no score
    own = Watched(series, found, found.frozen_at) if found is not None else None
    previous, since = of.deployed.get(series.label, (None, None))
    if previous is None or since is None or (own is not None and own.start >= since):
        return own
    theirs = of.baselines.at_deployment(Series(previous, series.metric, series.judge), since)
    if theirs is None or theirs.baseline.n < of.baselines.policy.baseline_min:
        return own
    return Watched(series, theirs, since)


def _row(of: Day, task: Task, first: datetime, read: Scores) -> Row:
    """The row of one series; `read`: its scores of the day from `first` on."""
    series, against, mean = task.series, task.against, task.today.mean
    policy = of.policies[series.label.application_id]
    metric = policy.metrics[series.metric]
    seen, newest = of.baselines.activity.seen(series)
    row: Row = {
        "state_id": row_id(of.baselines.customer_id, *series.parts, of.day.start),
        **label_columns(of.baselines.customer_id, series.label, of.baselines.activity.names),
        "metric_type": series.metric,
        "judge_fingerprint": series.judge,
        "day": of.day.start,
        "seen_until": of.until,
        "scores_seen": seen,
        "newest_at": newest,
        "n": task.today.n,
        "observed": round(mean, _DIGITS) if mean is not None else None,
    }
    if against is None or task.start is None:
        none: Row = {"baseline_key": None, "alarm": False, "betting_alarm": False, "alarm_since": None}
        none |= {"change_start": None, "alarms": 0, "height": 0.0, "threshold": None, "baseline_mean": None}
        said = "the baseline's mean is 0: a share of it is no margin" if against else of.baselines.progress(series)
        return row | none | {"margin": None, "cause": None, "explanation": said, "state": as_json({})}
    state = _stepped(of, task, against, task.start, policy, read if task.start >= first else None)
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
        "margin": round(task.margin, _DIGITS),
        "cause": found.cause if found else None,
        "explanation": found.sentence if found else _calm(task.today),
        "state": as_json(state),
    }


def _calm(today: Tally) -> str:
    return "no change is seen" if today.n else "none of the day's scores is usable: flagged, missing, or not a number"


def _stepped(
    of: Day, task: Task, against: Watched, start: datetime, policy: Policy, scores: Scores | None
) -> dict[str, Any]:
    """The monitor's state at the end, from the task's or anew; without `scores`, they are read from `start` on."""
    series = task.series
    monitor = Monitor(against.frozen.baseline, policy.metrics[series.metric], policy)
    if scores is None:
        read = read_scores(of.baselines.held, of.baselines.customer_id, start, of.until, [series.metric], series.label)
        scores = read.get(series, Scores())
    if task.before is not None:
        return monitor.step(task.before.state, scores.windows(start, of.until))
    state = monitor.start(against.frozen.window_size)
    state |= {"since": against.start.isoformat(), "margin": round(task.margin, _DIGITS)}
    return monitor.step(state, scores.windows(start, of.until))


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
    scorings = of.scorings.get((series.judge, series.metric), [])
    judge = shift_since(scorings, metric, since, against.frozen.first_at, against.frozen.frozen_at)
    return attribute(metric, margin, moved, judge)


def _time(at: str | None) -> datetime | None:
    return datetime.fromisoformat(at) if at else None
