"""The monitor between deployments: does a stream of windows still score like its baseline? Pure.

A CUSUM of log likelihood ratios for a loss of the margin, whose threshold comes from `calibration.py`, and beside it a
betting test that assumes nothing but the range of scores. The state is a plain dictionary: whoever stores it can stop
and go on anywhere, and windows that were seen change nothing, so that one go equals any number of steps exactly.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np

from optiinfra_pipelines.quality.baseline import Baseline
from optiinfra_pipelines.quality.calibration import Scale, scale, threshold
from optiinfra_pipelines.quality.policy import Metric, Policy
from optiinfra_pipelines.quality.sample import Floats, Sample

State = Mapping[str, Any]
_SURE = 2.326  # the betting test doubts the baseline's mean by this many errors: a one-sided 99 % bound
_BETS = tuple(2.0**-power for power in range(1, 7))  # shares of the highest bet that no score can ruin


@dataclass(frozen=True)
class ScoredWindow:
    """The scores of one window of one metric; `start` in UTC."""

    start: datetime
    sample: Sample


@dataclass(frozen=True, eq=False)
class Monitor:
    """The monitor of one metric of a stream against its baseline."""

    baseline: Baseline
    metric: Metric
    policy: Policy

    @cached_property
    def scale(self) -> Scale:
        return scale(self.baseline, self.metric)

    def start(self, window_size: float) -> dict[str, Any]:
        """The state before the first window; calibrates the threshold for windows of about `window_size` scores.

        Keys: baseline, window_size, threshold; score (the CUSUM), betting (log evidence of each bet); windows seen and
        empty_windows skipped; last_window; rising_since (first window since the CUSUM was last 0); alarm, alarm_since,
        change_start (estimated start of the change), alarms (how many were raised); betting_alarm.
        """
        return {
            "baseline": self.baseline.key,
            "window_size": window_size,
            "threshold": threshold(self.baseline, self.metric, window_size, self.policy.windows_per_false_alarm),
            "score": 0.0,
            "betting": [0.0] * len(_BETS) if math.isfinite(self.metric.high) else [],
            "windows": 0,
            "empty_windows": 0,
            "last_window": None,
            "rising_since": None,
            "alarm": False,
            "alarm_since": None,
            "change_start": None,
            "alarms": 0,
            "betting_alarm": False,
        }

    def step(self, state: State, windows: Iterable[ScoredWindow]) -> dict[str, Any]:
        """The state after these windows; those that begin at or before its last one were seen and change nothing.

        An alarm lasts until the CUSUM is back at 0. ValueError where the state belongs to another baseline.
        """
        if state["baseline"] != self.baseline.key:
            raise ValueError(
                f"the state is of baseline {state['baseline']} and not of {self.baseline.key}: start a new one"
            )
        after = dict(state)
        for window in sorted(windows, key=lambda each: each.start):
            at = window.start.isoformat()
            if after["last_window"] is not None and window.start <= datetime.fromisoformat(after["last_window"]):
                continue
            after["last_window"] = at
            after["windows"] += 1
            if window.sample.n:
                self._take(after, window.sample, at)
            else:
                after["empty_windows"] += 1
        return after

    def _take(self, state: dict[str, Any], sample: Sample, at: str) -> None:
        excess = self.metric.sign * (sample.scores - self.baseline.expected(sample.strata))
        sums, totals = sample.per_session(sample.weights * excess), sample.per_session(sample.weights)
        total = totals.sum()
        size = self.scale.effective_size((sample.weights**2).sum(), (totals**2).sum(), total)
        evidence = self.scale.evidence(sums.sum() / total, size)
        state["score"] = float(advance(state["score"], evidence, state["threshold"]))
        if state["score"] == 0:
            state |= {"rising_since": None, "alarm": False, "alarm_since": None, "change_start": None}
        elif state["rising_since"] is None:
            state["rising_since"] = at
        if state["score"] >= state["threshold"] and not state["alarm"]:
            raised = {"alarm": True, "alarm_since": at, "change_start": state["rising_since"]}
            state |= {**raised, "alarms": state["alarms"] + 1}
        if state["betting"]:
            state["betting"] = self._bet(state["betting"], sample, sums, totals)
            mean = float(np.mean(np.exp(state["betting"])))
            state["betting_alarm"] = mean >= self.policy.windows_per_false_alarm

    def _bet(self, logs: list[float], sample: Sample, sums: Floats, totals: Floats) -> list[float]:
        """The log evidence after betting on each session's mean, or once on the window's where weights differ."""
        width = self.metric.high - self.metric.low
        means = sums / totals if sample.weights.min() == sample.weights.max() else [sums.sum() / totals.sum()]
        expected = self.baseline.expected(sample.strata)
        good = expected - self.metric.low if self.metric.bad == "down" else self.metric.high - expected
        doubt = _SURE * self.baseline.typical_error
        room = min(max(width - float(good.min()) + doubt, 1e-3 * width), width)
        deviations = np.maximum(np.asarray(means) - doubt, -room)
        grown = np.log1p(np.outer(_BETS, deviations / room)).sum(axis=1)
        most = math.log(len(_BETS) * self.policy.windows_per_false_alarm)  # keeps recovery in reach
        return np.minimum(np.maximum(logs, 0.0) + grown, most).tolist()


def advance(score: float | Floats, evidence: float | Floats, height: float | Floats) -> Any:
    """The CUSUM after one more window: never below 0, nor above the threshold, so that it comes back from an alarm."""
    return np.minimum(np.maximum(score + evidence, 0.0), height)
