"""What a person may decide about verdicts: metrics with their bad direction and margin, error rates, minimum sizes,
deadlines. Defaults are those whose error rates the benchmarks `gate_...` measure. No statistics here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

HOURS_PER_STRATUM = 2  # 4 leave a third more false alarms where the mean swings by 3 points with the hour


@dataclass(frozen=True)
class Metric:
    """One metric: the direction in which it is `bad`, the `margin` that matters, and the range of its scores.

    The margin is in the units of the score; where `relative`, it is a share of the baseline's mean. `high` is infinite
    for what has no upper end: such a metric has no bound that needs no assumption, and no betting test.
    """

    name: str
    bad: Literal["down", "up"]
    margin: float
    gated: bool = False
    relative: bool = False
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.margin < math.inf) or self.low >= self.high:
            raise ValueError(f"metric {self.name}: the margin must be above 0 and low below high")

    @property
    def sign(self) -> float:
        """What turns (score - expected) into an excess in the bad direction."""
        return -1.0 if self.bad == "down" else 1.0

    def margin_at(self, mean: float) -> float:
        """The margin in units of the score, against a baseline with this mean."""
        return self.margin * abs(mean) if self.relative else self.margin

    def amount(self, value: float) -> str:
        """A score or a difference of scores for people: in points of 100 where scores lie in [0, 1]."""
        return f"{round(100 * value, 1):g} points" if (self.low, self.high) == (0, 1) else f"{value:.4g}"


def _metrics() -> Mapping[str, Metric]:
    quality = ("coherence", "relevance", "accuracy", "completeness")
    harm = ("hate_speech", "violence", "profanity")
    known = (
        Metric("quality", "down", 0.05, gated=True),
        *(Metric(name, "down", 0.05) for name in quality),
        Metric("hallucination", "up", 0.05, gated=True),
        Metric("toxicity", "up", 0.02, gated=True),
        *(Metric(name, "up", 0.02) for name in harm),
        Metric("latency_ms", "up", 0.10, relative=True, high=math.inf),
    )
    return MappingProxyType({metric.name: metric for metric in known})


METRICS = _metrics()
"""Metric name -> its default: 5 points on quality and hallucination, 2 on harm, 10 % on latency, which is not gated."""


@dataclass(frozen=True)
class Policy:
    """How sure a verdict must be, and of how much. Error rates hold over all looks of a deployment together."""

    metrics: Mapping[str, Metric] = field(default_factory=lambda: METRICS)
    alpha_reject: float = 0.01  # a metric that did not get worse is called REJECT, ever
    alpha_family: float = 0.05  # any of the gated metrics is, where none got worse (Holm)
    alpha_approve: float = 0.025  # a metric that lost its margin is called APPROVE, ever
    reject_min: int = 30
    approve_min: int = 100
    sessions_min: int = 20  # effective; fewer sessions do not show how much sessions differ
    baseline_min: int = 200
    baseline_target: int = 2000  # enough to freeze a baseline of its own accord: see finding 4 of the reference
    deadline_looks: int = 96  # a day of windows
    at_deadline: Literal["hold", "reject"] = "hold"  # what is undecided then is never approved
    windows_per_false_alarm: int = 2880  # 30 days of windows

    def __post_init__(self) -> None:
        if not all(0 < alpha < 0.5 for alpha in (self.alpha_reject, self.alpha_family, self.alpha_approve)):
            raise ValueError("error rates lie between 0 and 0.5")
        sizes = (self.reject_min, self.approve_min, self.sessions_min, self.baseline_min, self.deadline_looks)
        if min(sizes) < 2 or self.windows_per_false_alarm < 10:
            raise ValueError("minimum sizes and the deadline are 2 or more, windows per false alarm 10 or more")

    @property
    def gated(self) -> tuple[str, ...]:
        """Names of the gated metrics, sorted."""
        return tuple(sorted(name for name, metric in self.metrics.items() if metric.gated))

    def with_margins(self, margins: Mapping[str, float]) -> "Policy":
        """The same policy with other margins; a metric named here is gated. KeyError for an unknown metric."""
        changed = {name: replace(self.metrics[name], margin=margin, gated=True) for name, margin in margins.items()}
        return replace(self, metrics=MappingProxyType({**self.metrics, **changed}))


def stratum(hour: int, route: str = "") -> str:
    """The stratum of a score: its route and its hours of the UTC day, two together.

    A day's mix of traffic moves the mean with the hour although no answer got worse. Scores are therefore held against
    the baseline's scores of the same hours; `freeze` draws these means together as far as chance explains them.
    """
    return f"{route}{hour // HOURS_PER_STRATUM * HOURS_PER_STRATUM:02d}"
