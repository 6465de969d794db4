"""The rules behind the checks of the gate, pure: rows of its tables in, a Verdict out. Statistics are in `quality/`."""

from collections.abc import Mapping, Sequence
from typing import Any

from optiinfra_pipelines.verdicts import Verdict

Row = Mapping[str, Any]
_RANK = {"REJECT": 0, "INCONCLUSIVE": 1, "APPROVE": 2}
_FIGURES = ("observed", "baseline_mean", "margin", "n", "estimate", "lower", "upper", "baseline_n", "more_needed")
_SHOWN = ("provider", "application_id", "model_name", "variant", "metric_type")


def worst_verdict(rows: Sequence[Row]) -> Row | None:
    """The gravest of verdicts, of those alike the one that lost most of its margin."""
    return min(
        rows,
        key=lambda row: (_RANK[row["verdict"]], -(row["estimate"] or 0.0) / (row["margin"] or 1.0)),
        default=None,
    )


def not_inferior(rows: Sequence[Row]) -> Verdict:
    """No deployment is rejected, and none is undecided. `rows`: the newest verdict of each that answers."""
    worst = worst_verdict(rows)
    if worst is None:
        return Verdict(True, "ERROR", "nothing new answers: no model or variant was deployed", {"deployments": 0})
    counts = {name.lower(): sum(row["verdict"] == name for row in rows) for name in _RANK}
    figures = {_named(name): worst[name] for name in _FIGURES if worst[name] is not None}
    said = f"{worst['verdict']} of {_about(worst)} on look {worst['look']}: {worst['reason']}"
    if worst["verdict"] == "INCONCLUSIVE" and worst["more_needed"] is not None:
        said += f"; {worst['more_needed']} more scores are needed"
    shown = [{name: row[name] for name in (*_SHOWN, "verdict", "look", "n", "final", "reason")} for row in rows]
    return Verdict(
        worst["verdict"] == "APPROVE",
        "WARN" if worst["verdict"] == "INCONCLUSIVE" else "ERROR",
        said,
        {**figures, "deployments": len(rows), **counts},
        shown,
    )


def worst_alarm(rows: Sequence[Row]) -> Row | None:
    """The alarm that is furthest over its threshold, those that are not the judge's first; None without any."""
    alarms = [row for row in rows if row["alarm"]]
    return min(
        alarms,
        key=lambda row: (row["cause"] == "judge", row["metric_type"] != "quality", -_loss(row), row["state_id"]),
        default=None,
    )


def no_drop(rows: Sequence[Row]) -> Verdict:
    """No monitor of the day stands in alarm. `rows`: of quality.monitor_states."""
    if not rows:
        said = "nothing was scored on this day, so no monitor ran"
        return Verdict(True, "ERROR", said, {"monitors": 0, "without_baseline": 0})
    worst = worst_alarm(rows)
    watched = sum(row["baseline_key"] is not None for row in rows)
    counts = {"monitors": watched, "without_baseline": len(rows) - watched}
    if worst is None:
        blind = sum(row["baseline_key"] is not None and row["n"] == 0 for row in rows)
        said = f"{watched - blind} monitors see no change; {len(rows) - watched} have no baseline yet"
        if blind:
            return Verdict(False, "WARN", f"{said}; {blind} had no usable score: see quality/judge_calls", counts)
        return Verdict(True, "ERROR", said, counts)
    alarms = [row for row in rows if row["alarm"]]
    of_judge = all(row["cause"] == "judge" for row in alarms)
    figures = {
        "observed": worst["observed"],
        "baseline": worst["baseline_mean"],
        "margin": worst["margin"],
        "n": worst["n"],
        "height": round(worst["height"], 2),
        "threshold": round(worst["threshold"], 2),
    }
    said = f"{worst['metric_type']} of {_about(worst)} since {worst['change_start']:%Y-%m-%d %H:%M}"
    shown = [{name: row[name] for name in (*_SHOWN, "change_start", "cause", "explanation")} for row in alarms]
    return Verdict(
        False,
        "WARN" if of_judge else "ERROR",
        f"{said}: {worst['explanation']}",
        {**{name: value for name, value in figures.items() if value is not None}, "alarms": len(alarms), **counts},
        shown,
    )


def no_drift(rows: Sequence[Row]) -> Verdict:
    """No judge scores the anchors otherwise than at first. `rows`: judge, metric, scorings, alarm, direction, since,
    change and margin."""
    alarms = [row for row in rows if row["alarm"]]
    known = [row for row in rows if row["change"] is not None]
    largest = max((abs(row["change"]) for row in known), default=0.0)
    numbers = {
        "largest_change": round(largest, 4),
        "margin": rows[0]["margin"] if rows else 0.0,
        "scorings": max((row["scorings"] for row in rows), default=0),
        "alarms": len(alarms),
    }
    if not alarms:
        said = "the anchors score as at first" if known else "the anchors were scored too seldom to tell"
        return Verdict(True, "ERROR", said, numbers)
    worst = max(alarms, key=lambda row: (abs(row["change"]), row["metric"]))
    said = (
        f"judge {worst['judge']} scores {worst['metric']} of the anchors {100 * worst['change']:+.1f} points since"
        f" {worst['since']:%Y-%m-%d}: scores do not compare with their baselines; freeze new ones"
    )
    return Verdict(False, "ERROR", said, numbers, alarms)


def rollbacks_delivered(rows: Sequence[Row]) -> Verdict:
    """Every rollback that a rejected deployment asks for arrived. `rows`: application_id, deployment_id, status, error
    of each rejected deployment that answers and whose application names a webhook."""
    missing = [row for row in rows if row["status"] not in ("delivered", "logged")]
    counts = {"rejected": len(rows), "delivered": len(rows) - len(missing), "missing": len(missing)}
    if not missing:
        said = f"{len(rows)} rollbacks were asked for" if rows else "no rejected deployment asks for a rollback"
        return Verdict(True, "ERROR", said, counts)
    waits = ("in_flight", "held")  # somebody is at it, or the judge is to be looked at first
    worst = min(missing, key=lambda row: (row["status"] in waits, row["application_id"]))
    said = worst["error"] or f"the rollback of {worst['application_id']} is {worst['status'].replace('_', ' ')}"
    advice = "" if worst["error"] else "; see the log of the run, or roll back by hand"
    return Verdict(False, "WARN" if worst["status"] in waits else "ERROR", f"{said}{advice}", counts, missing)


def _loss(row: Row) -> float:
    """How many margins were lost, either way."""
    if row["observed"] is None or not row["margin"]:
        return 0.0
    return float(abs(row["observed"] - row["baseline_mean"]) / row["margin"])


def _about(row: Row) -> str:
    label = f"{row['model_name']} {row['variant']}".strip()
    return f"{row['application_id']} on {row['provider']} ({label})"


def _named(name: str) -> str:
    return {"baseline_mean": "baseline", "estimate": "change", "lower": "lower_bound", "upper": "upper_bound"}.get(
        name, name
    )
