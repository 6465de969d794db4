"""The judge's anchors as the warehouse holds them: its drift day by day, and its part of an application's alarm."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.quality.control import Anchors, Scores, Shift, judge_shift, shared_anchors
from optiinfra_pipelines.quality.policy import Metric, Policy
from optiinfra_pipelines.tables.llm import ANCHOR_SCORES
from optiinfra_pipelines.warehouse.protocol import Warehouse

FIRST = 3  # scorings that the anchors' own scores are the means of


@dataclass(frozen=True)
class Scoring:
    """One day's scoring of the anchors by one metric: anchor -> score; `day` is a UTC day, `at` when it was written."""

    day: datetime
    at: datetime
    scores: Scores


def read_scorings(held: Warehouse, until: datetime) -> dict[tuple[str, str], list[Scoring]]:
    """All scorings written before `until`, by judge and metric, the first one first. Canaries are left out: what they
    score tells whom the judge obeys."""
    rows = held.query(
        "SELECT judge_fingerprint, metric_type, day, anchor_id, score, collected_at"
        f" FROM {held.current(ANCHOR_SCORES)} a WHERE NOT canary AND collected_at < $until"
        " ORDER BY judge_fingerprint, metric_type, day, anchor_id",
        {"until": naive_utc(until)},
    ).to_pylist()
    found: dict[tuple[str, str], dict[datetime, list[dict[str, Any]]]] = {}
    for row in rows:
        days = found.setdefault((row["judge_fingerprint"], row["metric_type"]), {})
        days.setdefault(row["day"], []).append(row)
    return {
        key: [
            Scoring(day, max(row["collected_at"] for row in each), {row["anchor_id"]: row["score"] for row in each})
            for day, each in days.items()
        ]
        for key, days in found.items()
    }


def shift_since(
    scorings: list[Scoring], metric: Metric, since: datetime, first_at: datetime, frozen_at: datetime
) -> Shift | None:
    """How far the judge moved in a metric's bad direction since a moment, from where it stood when it scored a
    baseline's scores, of [first_at, frozen_at); None where its anchors were not scored since, or not twice before.

    Of the scorings before that moment those of the baseline's time count first, then later ones, then earlier ones.
    """

    def distance(each: Scoring) -> tuple[bool, bool, timedelta]:
        return each.at < first_at, each.at >= frozen_at, abs(each.at - frozen_at)

    before = sorted((each for each in scorings if each.at < since), key=distance)[:FIRST]
    after = [each.scores for each in scorings if each.at >= since]
    if len(before) < 2 or not after or len(shared_anchors([each.scores for each in before])) < 2:
        return None
    return judge_shift(Anchors.frozen([each.scores for each in before]), metric, after)


@dataclass(frozen=True)
class Drift:
    """How the monitors of one judge and metric stand: `change` of the newest scoring, in units of the score."""

    judge: str
    metric: str
    scorings: int
    alarm: bool
    direction: str
    since: datetime | None
    change: float | None


def drifts(
    scorings: Mapping[tuple[str, str], list[Scoring]], judge: str, in_use: Mapping[tuple[str, str], datetime]
) -> list[Drift]:
    """The drift of a judge by each metric, from its first scorings on; of fewer scorings nothing is known.

    `in_use`: of judge and metric, the first score of any baseline that monitors use. What the judge did before that
    no longer matters to anybody.
    """
    policy, found = Policy(), []
    for (fingerprint, metric), every in sorted(scorings.items()):
        if fingerprint != judge:
            continue
        since = in_use.get((fingerprint, metric))
        days = [each for each in every if since is None or each.at >= since]
        if len(days) <= FIRST or len(shared_anchors([each.scores for each in days[:FIRST]])) < 2:
            found.append(Drift(judge, metric, len(days), False, "", None, None))
            continue
        anchors = Anchors.frozen([each.scores for each in days[:FIRST]], judge)
        later = {each.day: each.scores for each in days[FIRST:]}
        states = anchors.step(anchors.start(policy), later, policy)
        raised = [(bad, state) for bad, state in states.items() if state["alarm"]]
        since = datetime.fromisoformat(raised[0][1]["change_start"]) if raised else None
        change = anchors.moved(days[-1].scores).mean
        found.append(Drift(judge, metric, len(days), bool(raised), raised[0][0] if raised else "", since, change))
    return found
