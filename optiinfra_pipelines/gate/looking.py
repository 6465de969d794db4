"""Looks at one deployment: after each 15 minutes with new scores the gate judges all scores since it began, until its
verdict is final. What was looked at before is not looked at again."""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.gate.baselines import Baselines, Frozen
from optiinfra_pipelines.gate.deployments import Deployment
from optiinfra_pipelines.gate.scores import Activity, Label, Scores, Series, is_measured, read_scores
from optiinfra_pipelines.gate.writing import Row, as_json, label_columns, row_id
from optiinfra_pipelines.quality.gate import MetricVerdict, Verdict, judge_gate
from optiinfra_pipelines.quality.policy import Policy
from optiinfra_pipelines.tables.gate import VERDICTS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import WINDOW, floor_window

_RANK = {"REJECT": 0, "INCONCLUSIVE": 1, "APPROVE": 2}
_FIGURES = ("n", "n_sessions", "baseline_n", "observed", "baseline_mean", "estimate", "lower", "upper", "margin")
_COPIED = (*_FIGURES, "alpha_spent")


@dataclass(frozen=True)
class Look:
    """The verdict of one look, at the end of a window, and the judge whose scores it used."""

    at: datetime
    judge: str
    verdict: Verdict
    baselines: Mapping[str, str]  # metric -> key


@dataclass(frozen=True)
class Stored:
    """What is stored of the looks at a deployment: the newest before the day, and the final one by then."""

    newest: datetime | None = None
    final: datetime | None = None
    verdict: str = ""


def stored_looks(held: Warehouse, customer_id: str, day: datetime, until: datetime) -> dict[str, Stored]:
    """By deployment, what is stored of looks up to `until`; those of the UTC day that begins at `day` are open, unless
    one of them was final."""
    rows = held.query(
        "SELECT * FROM (SELECT deployment_id, looked_at, verdict, final, row_number() OVER (PARTITION BY deployment_id,"
        " final ORDER BY CASE WHEN final THEN look ELSE -look END) AS place"
        f" FROM {held.current(VERDICTS)} v WHERE customer_id = $customer AND looked_at <= $until"
        " AND (final OR looked_at <= $day)) t WHERE place = 1 ORDER BY final",
        {"customer": customer_id, "day": naive_utc(day), "until": naive_utc(until)},
    ).to_pylist()
    found: dict[str, Stored] = {}
    for row in rows:
        newest = found.get(row["deployment_id"], Stored()).newest
        at, verdict = row["looked_at"], row["verdict"]
        found[row["deployment_id"]] = Stored(newest, at, verdict) if row["final"] else Stored(at)
    return found


def look_on(
    baselines: Baselines, deployment: Deployment, previous: Label | None, policy: Policy, known: Stored, until: datetime
) -> list[Look]:
    """The looks at a deployment that follow the newest one known, up to `until` or to the final one."""
    if known.final is not None:
        return []
    began = floor_window(deployment.deployed_at)
    last = min(until, began + policy.deadline_looks * WINDOW)
    found = read_scores(
        baselines.held, baselines.customer_id, deployment.deployed_at, last, policy.gated, deployment.label
    )
    looks: list[Look] = []
    for at in _moments(found, began, last, policy):
        if known.newest is not None and at <= known.newest:
            continue
        looks.append(_look(baselines, deployment, previous, policy, found, at, (at - began) // WINDOW))
        if looks[-1].verdict.final:
            break
    return looks


def _moments(found: Mapping[Series, Scores], began: datetime, last: datetime, policy: Policy) -> list[datetime]:
    """Ends of the first window and of those that hold scores, and the deadline once it has come."""
    times = {at for scores in found.values() for at in scores.at}
    ends = {floor_window(at) + WINDOW for at in times}
    deadline = began + policy.deadline_looks * WINDOW
    if last == deadline:
        ends.add(deadline)
    return sorted(each for each in {began + WINDOW, *ends} if each <= last)


def _look(
    baselines: Baselines,
    deployment: Deployment,
    previous: Label | None,
    policy: Policy,
    found: Mapping[Series, Scores],
    at: datetime,
    number: int,
) -> Look:
    judges = _judges(found, at)
    judge = judges[-1] if judges else ""
    frozen: dict[str, Frozen] = {}
    for metric in policy.gated:
        by = "" if is_measured(metric) else judge or _judge_before(baselines.activity, previous, metric)
        made = baselines.at_deployment(Series(previous, metric, by), deployment.deployed_at) if previous else None
        if made is not None:
            frozen[metric] = made
    samples = {
        series.metric: scores.sample(end=at)
        for series, scores in found.items()
        if series.judge == ("" if is_measured(series.metric) else judge)
    }
    comparable = all(metric in frozen for metric in policy.gated)
    verdict = judge_gate(
        {metric: each.baseline for metric, each in frozen.items()},
        samples,
        policy,
        number,
        judges[-1:] if comparable else judges,
    )
    return Look(at, judge, verdict, {metric: each.baseline.key for metric, each in frozen.items()})


def _judges(found: Mapping[Series, Scores], before: datetime) -> list[str]:
    """Judges that scored what came before a moment; the one of the newest score last."""
    newest: dict[str, datetime] = {}
    for series, scores in found.items():
        count = bisect_left(scores.at, before)
        if count and not is_measured(series.metric):
            last = scores.at[count - 1]
            newest[series.judge] = max(last, newest.get(series.judge, last))
    return sorted(newest, key=lambda judge: (newest[judge], judge))


def _judge_before(activity: Activity, previous: Label | None, metric: str) -> str:
    """The judge of the label before, for a deployment of which nothing is judged yet."""
    return (activity.judges(previous, metric) or [""])[-1] if previous else ""


def verdict_row(
    customer_id: str, names: Mapping[str, str], deployment: Deployment, previous: Label | None, look: Look
) -> Row:
    """The row of quality.verdicts of one look."""
    verdict = look.verdict
    telling = deciding(verdict.metrics)
    figures = {name: _finite(getattr(telling, name)) if telling else None for name in _COPIED}
    counts = {name: figures[name] or 0 for name in ("n", "n_sessions", "baseline_n")}
    return {
        "verdict_id": row_id(deployment.id, look.at),
        "deployment_id": deployment.id,
        **label_columns(customer_id, deployment.label, names),
        "previous_model": previous.model_name if previous else None,
        "previous_variant": previous.variant if previous else None,
        "deployed_at": deployment.deployed_at,
        "look": verdict.look,
        "looked_at": look.at,
        "judge_fingerprint": look.judge,
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "final": verdict.final,
        "metric_type": telling.metric if telling else None,
        "baseline_key": look.baselines.get(telling.metric) if telling else None,
        **figures,
        **counts,
        "alpha_reject": verdict.alpha_reject,
        "alpha_approve": verdict.alpha_approve,
        "more_needed": verdict.more_needed,
        "metrics": as_json(_plain(verdict)),
    }


def deciding(metrics: Sequence[MetricVerdict]) -> MetricVerdict | None:
    """The metric that decides a verdict: the gravest, and of those alike the one that lost most of its margin."""
    return min(
        metrics,
        key=lambda each: (_RANK[each.verdict], -(each.estimate or 0.0) / (each.margin or 1.0), each.metric),
        default=None,
    )


def stored_verdict(metrics: Mapping[str, Any]) -> Verdict:
    """The verdict that the column `metrics` of quality.verdicts holds, read from its JSON."""
    of_metric = [MetricVerdict(**each) for each in metrics["metrics"]]
    rest = {each.name: metrics[each.name] for each in fields(Verdict) if each.name not in ("fingerprints", "metrics")}
    return Verdict(**rest, fingerprints=tuple(metrics["fingerprints"]), metrics=tuple(of_metric))


def _plain(verdict: Verdict) -> dict[str, Any]:
    told = verdict.to_dict()
    told["metrics"] = [{name: _finite(value) for name, value in each.items()} for each in told["metrics"]]
    return told


def _finite(value: Any) -> Any:
    """The value as JSON has it: an infinite bound is none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
