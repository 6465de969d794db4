"""How a customer's day stands, read from the gate's tables: what checks judge, and the points that pictures show."""

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.gate.judges import drifts, read_scorings
from optiinfra_pipelines.gate.picture import Point, control_chart
from optiinfra_pipelines.gate.scores import Label, Scores, Series, is_measured, read_activity, read_scores
from optiinfra_pipelines.quality.control import ANCHOR_MARGIN
from optiinfra_pipelines.quality.policy import METRICS
from optiinfra_pipelines.tables.gate import BASELINES, MONITOR_STATES, VERDICTS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import DAY, Window

_STRETCHES = 48  # points of a picture at most
_LONGEST = 14 * DAY  # that a picture shows


def verdicts_in_force(warehouse: Warehouse, customer_id: str, day: Window) -> list[dict[str, Any]]:
    """The verdict of each deployment whose model and variant answered on the day: the final one, the earliest where
    late scores made another, or else the newest; of those of one model and variant the newest deployment's. Rows of
    quality.verdicts."""
    live = read_activity(warehouse, customer_id, day.end).labels(day.start)
    rows = warehouse.query(
        "SELECT * FROM (SELECT v.*, row_number() OVER (PARTITION BY provider, application_id, model_name, variant"
        " ORDER BY deployed_at DESC, final DESC, CASE WHEN final THEN look ELSE -look END) AS place"
        f" FROM {warehouse.current(VERDICTS)} v"
        " WHERE customer_id = $customer AND looked_at <= $end) t WHERE place = 1"
        " ORDER BY provider, application_id, model_name, variant",
        {"customer": customer_id, "end": naive_utc(day.end)},
    ).to_pylist()
    return [row for row in rows if Label.of(row) in live]


def states_of(warehouse: Warehouse, customer_id: str, day: Window) -> list[dict[str, Any]]:
    """The day's rows of quality.monitor_states."""
    return warehouse.query(
        f"SELECT * FROM {warehouse.current(MONITOR_STATES)} s WHERE customer_id = $customer AND day = $day"
        " ORDER BY provider, application_id, model_name, variant, metric_type",
        {"customer": customer_id, "day": naive_utc(day.start)},
    ).to_pylist()


def judge_drift(warehouse: Warehouse, now: datetime) -> list[dict[str, Any]]:
    """How far each judge that scored the anchors in the week before `now` moved, one row a metric."""
    scorings = read_scorings(warehouse, now)
    used = warehouse.query(
        f"SELECT s.judge_fingerprint AS judge, s.metric_type AS metric, min(b.first_at) AS since"
        f" FROM {warehouse.current(MONITOR_STATES)} s INNER JOIN {warehouse.current(BASELINES)} b"
        " ON b.customer_id = s.customer_id AND b.baseline_key = s.baseline_key WHERE s.day >= $since"
        " GROUP BY s.judge_fingerprint, s.metric_type",
        {"since": naive_utc(now - 2 * DAY)},
    ).to_pylist()
    in_use = {(row["judge"], row["metric"]): row["since"] for row in used}
    judges = sorted({judge for (judge, _), days in scorings.items() if days[-1].day >= now - 7 * DAY})
    return [vars(drift) | {"margin": ANCHOR_MARGIN} for judge in judges for drift in drifts(scorings, judge, in_use)]


def picture(warehouse: Warehouse, row: Mapping[str, Any], end: datetime, since: datetime | None) -> str:
    """The scores of a row's series over two days before `end`, or from a day before `since` on, beside its baseline, as
    Markdown; empty without a baseline. Before `since` they are those of the label that it is held against.

    `row`: of quality.verdicts or quality.monitor_states.
    """
    metric, known = METRICS.get(row["metric_type"] or ""), baseline_of(warehouse, row)
    if metric is None or known is None:
        return ""
    label, begin = Label.of(row), end - 2 * DAY
    if since is not None:
        begin = max(min(begin, since - DAY), end - _LONGEST)
    before = replace(label, model_name=known["model_name"], variant=known["variant"])
    judge = "" if is_measured(metric.name) else row["judge_fingerprint"]
    scores = {
        each: read_scores(warehouse, row["customer_id"], begin, end, [metric.name], each).get(
            Series(each, metric.name, judge), Scores()
        )
        for each in {label, before}
    }
    mean, spread = known["mean"], known["spread"]
    step = (end - begin) / _STRETCHES
    points = []
    for start in (begin + number * step for number in range(_STRETCHES)):
        told = before if since is not None and start + step <= since else label
        sample = scores[told].sample(start, start + step)
        if sample.n:
            limit = 3 * spread / math.sqrt(sample.n)
            points.append(Point(start + step / 2, sample.mean, mean - limit, mean + limit))
    lost = mean + metric.sign * (row["margin"] or metric.margin_at(mean))
    return control_chart(f"{metric.name} of {label.application_id}, {label}", points, mean, lost, since)


def baseline_of(warehouse: Warehouse, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is stored of the baseline that a row of quality.verdicts or quality.monitor_states names, but its scores;
    None where it names none."""
    if row["baseline_key"] is None:
        return None
    known = warehouse.query(
        "SELECT model_name, variant, mean, spread, first_at, frozen_at"
        f" FROM {warehouse.current(BASELINES)} b WHERE customer_id = $customer AND baseline_key = $key"
        " ORDER BY frozen_at LIMIT 1",
        {"customer": row["customer_id"], "key": row["baseline_key"]},
    ).to_pylist()
    return known[0] if known else None
