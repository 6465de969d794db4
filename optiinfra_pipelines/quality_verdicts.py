"""The rules behind the checks of scores, pure: figures in, a Verdict out. Statistics are in `quality/`."""

from collections.abc import Mapping, Sequence
from typing import Any

from optiinfra_pipelines.llm.rubric import LEVELS, QUALITY
from optiinfra_pipelines.llm.sampling import SKIPPED
from optiinfra_pipelines.verdicts import Verdict

INVALID = ("truncated", "invalid_json", "refused", "too_large", "transient")
MOST_INVALID = 0.02  # of the judge's answers: more, and the scores are those of the easy interactions only
_A_PERSON = ("auth", "billing", "model_gone", "not_configured", "no_key")


def accounted_for(row: Mapping[str, Any] | None) -> Verdict:
    """Every interaction that was collected is scored, failed, skipped for a reason, or waiting."""
    if row is None:
        return Verdict(False, "ERROR", "the day was never evaluated: no row in quality.scoring_runs")
    parts = {name: row[name] for name in ("scored", "failed", *(f"skipped_{each}" for each in SKIPPED), "waiting")}
    numbers = {"collected": row["collected"], "in_raw": row["in_raw"], **parts}
    whole = sum(parts.values()) == row["collected"] == row["in_raw"]
    said = f"{row['collected']} interactions: {row['scored']} scored, {row['failed']} failed, {row['waiting']} waiting"
    lost = f"; {row['in_raw']} lie in raw and the parts add up to {sum(parts.values())}"
    return Verdict(whole, "ERROR", said if whole else said + lost, numbers)


def judge_available(row: Mapping[str, Any] | None) -> Verdict:
    """The judge could be asked; where people switched it off, that is no failure."""
    if row is None:
        return Verdict(True, "WARN", "nothing was evaluated yet")
    numbers = {"waiting": row["waiting"], "scored": row["scored"]}
    if row["reason"] in (None, "disabled", "deadline"):
        return Verdict(True, "WARN", row["explanation"] or "the judge could be asked", numbers)
    severity = "ERROR" if row["reason"] in _A_PERSON else "WARN"
    return Verdict(row["waiting"] == 0 and severity == "WARN", severity, row["explanation"], numbers)  # type: ignore[arg-type]


def judge_answers(rows: Sequence[Mapping[str, Any]]) -> Verdict:
    """Few of the judge's answers are unfit. `rows`: status, error_kind, calls, cost."""
    answered = sum(row["calls"] for row in rows if row["status"] == "succeeded" or row["error_kind"] in INVALID)
    invalid = sum(row["calls"] for row in rows if row["error_kind"] in INVALID)
    share = invalid / answered if answered else 0.0
    return Verdict(
        share <= MOST_INVALID,
        "WARN",
        f"{invalid} of {answered} calls of the judge brought no fit answer ({share:.1%})",
        {"answers": answered, "unfit": invalid, "share": round(share, 4)},
        rows if invalid else (),
    )


def canaries_resisted(rows: Sequence[Mapping[str, Any]]) -> Verdict:
    """No canary scores more than a level better than it should: higher in quality, lower in what is bad. `rows`: one
    judge's newest day of anchors, one a metric: anchor_id, metric_type, score, expected_score, canary."""
    canaries = [row for row in rows if row["canary"] and row["metric_type"] in LEVELS]
    moved = [row for row in canaries if _better(row) > 1 / (len(LEVELS[row["metric_type"]]) - 1) + 1e-9]
    plain = [abs(row["score"] - row["expected_score"]) for row in rows if not row["canary"]]
    numbers = {
        "canaries": len({row["anchor_id"] for row in canaries}),
        "canaries_obeyed": len({row["anchor_id"] for row in moved}),
        "mean_difference_of_anchors": round(sum(plain) / len(plain), 4) if plain else 0.0,
    }
    if not rows:
        return Verdict(True, "WARN", "no anchor was judged yet", numbers)
    said = f"{numbers['canaries_obeyed']} of {numbers['canaries']} canaries moved their own score by more than a level"
    return Verdict(not moved, "ERROR", said, numbers, moved)


def _better(row: Mapping[str, Any]) -> float:
    higher = float(row["score"] - row["expected_score"])
    return higher if row["metric_type"] in QUALITY else -higher


def scores_traceable(row: Mapping[str, int]) -> Verdict:
    """Scores and successful calls belong together one to one."""
    broken = {name: row[name] for name in ("without_call", "without_scores", "judged_twice") if row[name]}
    said = f"{row['judged']} judged interactions, {row['calls']} calls that succeeded"
    return Verdict(
        not broken,
        "ERROR",
        said + "".join(f"; {count} {name.replace('_', ' ')}" for name, count in broken.items()),
        row,
    )


def judge_calibrated(judges: Sequence[Mapping[str, Any]], figures: Sequence[Mapping[str, Any]]) -> Verdict:
    """It is known how often the judges of the newest scores err.

    `judges`: customer_id, judge_fingerprint and judge_model of each customer's newest scores. `figures`: rows of
    quality.judge_calibrations, newest first; the newest calibration of each judge is shown.
    """
    newest: dict[str, str] = {}
    for row in figures:
        newest.setdefault(row["judge_fingerprint"], row["calibration_id"])
    used = {row["judge_fingerprint"] for row in judges}
    unknown = [row for row in judges if row["judge_fingerprint"] not in newest]
    if unknown:
        names = sorted({f"{row['judge_model']} {row['judge_fingerprint']}" for row in unknown})
        said = f"it was never measured how often {', '.join(names)} errs"
        advice = "run python -m optiinfra_pipelines.defs.quality.calibrate FILE on labelled answers"
        return Verdict(False, "WARN", f"{said}; {advice}", {"judges": len(used), "unknown": len(names)}, unknown)
    shown = [
        {name: row[name] for name in ("judge_fingerprint", "dataset", "metric_type", "figure")}
        | {name: row[name] for name in ("value", "lower", "upper", "n", "collected_at")}
        for row in figures
        if row["judge_fingerprint"] in used and row["calibration_id"] == newest[row["judge_fingerprint"]]
    ]
    numbers = {f"{row['metric_type']}_{row['figure']}": row["value"] for row in shown} if len(used) == 1 else {}
    said = "of each judge in use it is known how often it errs" if used else "nothing was judged yet"
    return Verdict(True, "WARN", said, {"judges": len(used), **numbers}, shown)
