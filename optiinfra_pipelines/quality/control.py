"""Is it the application or its judge? Frozen anchors, scored again each day, tell. Pure.

An anchor is an answer that never changes: when its score does, the judge changed. An alarm of the monitor is held
against what the anchors say since the change began.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np

from optiinfra_pipelines.quality.baseline import Baseline, freeze
from optiinfra_pipelines.quality.monitor import Monitor, ScoredWindow
from optiinfra_pipelines.quality.policy import Metric, Policy
from optiinfra_pipelines.quality.sample import Sample, cluster_mean

Cause = Literal["application", "judge", "both", "undetermined"]
Scores = Mapping[str, float]
ANCHOR_MARGIN = 0.03  # of [0, 1]: a judge that moves by so much moves an application more than half its margin
DAYS_PER_FALSE_ALARM = 365  # in each direction
SURE = 2.326  # errors: one-sided 99 %
_SURE_OF_FIVE = 2.878  # the same of quality and its four parts together: a judge that moves has all of them alarm


@dataclass(frozen=True, eq=False)
class Anchors:
    """The anchors' own scores of one metric, each the mean of its first scorings, and how much repeats scatter."""

    means: Mapping[str, float]
    repeats: Baseline

    @classmethod
    def frozen(cls, scorings: Sequence[Scores], fingerprint: str = "") -> "Anchors":
        """Anchors from two or more scorings of the same judge: anchor -> score. ValueError of fewer, and of scorings
        that share fewer than two anchors.

        Anchors that a scoring lacks are left out.
        """
        if len(scorings) < 2:
            raise ValueError(f"anchors need two scorings to show how they scatter, not {len(scorings)}")
        names = shared_anchors(scorings)
        if len(names) < 2:
            raise ValueError(f"scorings share {len(names)} anchors, and two are needed")
        table = np.asarray([[each[name] for name in names] for each in scorings])
        others = (table.sum(axis=0) - table) / (len(scorings) - 1)
        return cls(
            dict(zip(names, table.mean(axis=0).tolist(), strict=True)),
            freeze(Sample.of((table - others).ravel().tolist()), fingerprint),
        )

    def moved(self, scores: Scores) -> Sample:
        """How far each anchor of one later scoring is from its own mean; anchors that are not known are left out."""
        return Sample.of([scores[name] - self.means[name] for name in sorted(scores) if name in self.means])

    def monitors(self, policy: Policy) -> dict[str, Monitor]:
        """Monitors of daily scorings, by direction: `down` for a judge that became stricter, `up` for a milder one."""
        daily = Policy(metrics=policy.metrics, windows_per_false_alarm=DAYS_PER_FALSE_ALARM)
        return {bad: Monitor(self.repeats, _anchor_metric(bad), daily) for bad in ("down", "up")}

    def start(self, policy: Policy) -> dict[str, dict[str, Any]]:
        """The states of both monitors before the first day."""
        return {bad: monitor.start(len(self.means)) for bad, monitor in self.monitors(policy).items()}

    def step(
        self, states: Mapping[str, Mapping[str, Any]], days: Mapping[datetime, Scores], policy: Policy
    ) -> dict[str, dict[str, Any]]:
        """The states after these days' scorings; days that were seen change nothing."""
        windows = [ScoredWindow(day, self.moved(scores)) for day, scores in sorted(days.items())]
        return {bad: monitor.step(states[bad], windows) for bad, monitor in self.monitors(policy).items()}


def shared_anchors(scorings: Sequence[Scores]) -> list[str]:
    """Names of the anchors that every scoring has, sorted."""
    return sorted(set.intersection(*(set(each) for each in scorings))) if scorings else []


@dataclass(frozen=True)
class Shift:
    """A change in a metric's bad direction and its standard error, in units of the score, from `n` scores."""

    change: float
    error: float
    n: int


@dataclass(frozen=True)
class Attribution:
    """What caused an alarm, in one sentence, with the application's change and the judge's part of it."""

    cause: Cause
    sentence: str
    application: Shift
    judge: Shift | None


def application_shift(baseline: Baseline, metric: Metric, since: Sample) -> Shift:
    """The change of an application's scores since an alarm's change began, the baseline's error included."""
    excess = metric.sign * (since.scores - baseline.expected(since.strata))
    change, variance = cluster_mean(since.per_session(since.weights * excess), since.per_session(since.weights))
    return Shift(change, math.sqrt(variance + baseline.expectation_variance(since.strata, since.weights)), since.n)


def judge_shift(anchors: Anchors, metric: Metric, scorings: Sequence[Scores]) -> Shift | None:
    """The change of the judge in the same direction, from scorings of the anchors since then; None without any.

    Anchors stand for an application's answers, and do not move alike: scoring them again shows no others, so that the
    error is that of as many answers as there are anchors, and at least that of their repeats.
    """
    named = [(name, score) for each in scorings for name, score in each.items() if name in anchors.means]
    moved = Sample.of(
        [metric.sign * (score - anchors.means[name]) for name, score in named], sessions=[name for name, _ in named]
    )
    if not moved.n:
        return None
    change, variance = cluster_mean(moved.per_session(moved.scores), moved.per_session(moved.weights))
    spread = max(anchors.repeats.spread**2, 1 / (anchors.repeats.n + 2))  # repeats that agree do not show no scatter
    return Shift(change, math.sqrt(max(variance, spread * (1 / moved.n + 1 / anchors.repeats.n))), moved.n)


def attribute(metric: Metric, margin: float, application: Shift, judge: Shift | None) -> Attribution:
    """Attribute a monitor's alarm. `judge` None: the anchors were not scored since the change began.

    The judge is a cause where its anchors moved for sure; the application is where more than half its margin is left,
    for sure, once the judge's part is taken off.
    """
    said = f"scores are worse by {metric.amount(application.change)}"
    if judge is None:
        said += "; the anchors were not scored since: score them before you act"
        return Attribution("undetermined", said, application, None)
    left = application.change - judge.change
    of_judge = judge.change > SURE * judge.error
    of_application = left > max(_SURE_OF_FIVE * math.hypot(application.error, judge.error), margin / 2)
    causes: dict[tuple[bool, bool], Cause] = {
        (True, False): "application",
        (False, True): "judge",
        (True, True): "both",
        (False, False): "undetermined",
    }
    cause = causes[of_application, of_judge]
    said += f", the judge's anchors by {metric.amount(judge.change)} (n = {judge.n})"
    then = {
        "application": ": the application changed",
        "judge": ": the judge changed, not the application; freeze a new baseline",
        "both": ": the judge changed, and the application beyond it",
        "undetermined": ": too little to tell which; score the anchors again",
    }
    return Attribution(cause, said + then[cause], application, judge)


def _anchor_metric(bad: str) -> Metric:
    return Metric("anchors", "down" if bad == "down" else "up", ANCHOR_MARGIN, low=-1.0, high=1.0)
