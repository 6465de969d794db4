"""The gate: new scores against a frozen baseline, metric by metric, and one verdict over all. Pure.

REJECT: some gated metric is worse by its margin at least, and surely worse. APPROVE: every gated metric is surely
within its margin. Else INCONCLUSIVE, with the scores that are missing. The bounds are those of `evidence.py`.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from optiinfra_pipelines.quality.baseline import Baseline
from optiinfra_pipelines.quality.evidence import DESIGN, Assessment, Units, assess, holm, mixture, reject_bound
from optiinfra_pipelines.quality.policy import Metric, Policy
from optiinfra_pipelines.quality.sample import Sample, effective_sessions, looks_stuck

Outcome = Literal["APPROVE", "REJECT", "INCONCLUSIVE"]
_DIGITS = 6  # verdicts are rounded, so that the same data give the same bytes
_MOST_MORE = 1_000_000


@dataclass(frozen=True)
class MetricVerdict:
    """The verdict on one metric; figures are None where there was nothing to compute them from.

    `estimate`: change in the bad direction, `lower` and `upper` its one-sided bounds at `alpha_reject` and
    `alpha_approve`, all in units of the score. `more_needed`: scores until a verdict if the estimate stays as it is;
    None where more scores cannot bring one. `alpha_spent`: the part of alpha_reject that looks so far can have used.
    """

    metric: str
    verdict: Outcome
    reason: str
    n: int = 0
    n_sessions: int = 0
    missing: int = 0
    flagged: int = 0
    baseline_n: int = 0
    baseline_sessions: int = 0
    baseline_mean: float | None = None
    observed: float | None = None
    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None
    p_value: float | None = None
    alpha_spent: float | None = None
    margin: float | None = None
    more_needed: int | None = None


@dataclass(frozen=True)
class Verdict:
    """The verdict on a deployment and those on its gated metrics, sorted by name; `final`: no look follows."""

    verdict: Outcome
    reason: str
    final: bool
    look: int
    n: int
    more_needed: int | None
    alpha_reject: float
    alpha_family: float
    alpha_approve: float
    fingerprints: tuple[str, ...]
    metrics: tuple[MetricVerdict, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the same data give the same bytes."""
        return vars(self) | {
            "fingerprints": list(self.fingerprints),
            "metrics": [dict(vars(each)) for each in self.metrics],
        }


@dataclass(frozen=True)
class _Comparable:
    """A metric whose scores can be held against its baseline."""

    metric: Metric
    baseline: Baseline
    sample: Sample
    expected: float
    variance: float  # of what is expected
    excess: np.ndarray  # a session
    weight: np.ndarray  # a session
    best: float
    worst: float
    margin: float


def judge_gate(
    baselines: Mapping[str, Baseline],
    samples: Mapping[str, Sample],
    policy: Policy,
    look: int = 1,
    fingerprints: Collection[str] = (),
) -> Verdict:
    """Judge a deployment by its gated metrics, from all scores since it began.

    `look`: how many windows the deployment has been looked at, this one included; it decides only whether the deadline
    has come, for the bounds hold however often anyone looks. `fingerprints`: the judges that gave the samples' scores.
    """
    judged: list[MetricVerdict] = []
    comparable: list[_Comparable] = []
    for name in policy.gated:
        found = _compared(policy.metrics[name], baselines.get(name), samples.get(name), policy, fingerprints)
        if isinstance(found, _Comparable):
            comparable.append(found)
        else:
            judged.append(found)
    if comparable:
        judged += _judged(comparable, policy, len(policy.gated))
    return _overall(sorted(judged, key=lambda each: each.metric), policy, look, fingerprints)


def _compared(
    metric: Metric, baseline: Baseline | None, sample: Sample | None, policy: Policy, fingerprints: Collection[str]
) -> MetricVerdict | _Comparable:
    """The scores beside their baseline, or the verdict that they cannot be compared."""
    n, sessions = (sample.n, sample.n_sessions) if sample else (0, 0)
    without = MetricVerdict(metric.name, "INCONCLUSIVE", "", n, sessions)
    if sample:
        without = replace(without, missing=sample.missing, flagged=sample.flagged)
    if baseline:
        without = replace(without, baseline_n=baseline.n, baseline_sessions=baseline.n_sessions)
    judges = {*fingerprints, *([baseline.fingerprint] if baseline else [])} - {""}
    if baseline is None:
        return replace(without, reason="there is no baseline of this judge yet")
    if len(judges) > 1:
        named = ", ".join(sorted(judges))
        return replace(
            without, reason=f"scores of {len(judges)} judges do not compare ({named}): freeze a new baseline"
        )
    if sample is None or not sample.n:
        return replace(without, reason=_nothing(sample), more_needed=policy.reject_min)
    outside = _outside(metric, sample) + _outside(metric, baseline.sample)
    if outside:
        said = f"{outside} scores lie outside {metric.low:g} to {metric.high:g}: they are not of this metric"
        return replace(without, reason=said)
    constant = baseline.sample.scores.min() == baseline.sample.scores.max()
    if constant and (metric.bad == "down" or baseline.sample.scores[0] != metric.low):
        said = f"all {baseline.n} scores of the baseline are {baseline.sample.scores[0]:g}: freeze another one"
        return replace(without, reason=said)
    if not metric.margin_at(baseline.mean) > 0:
        return replace(without, reason="the baseline's mean is 0: a share of it is no margin")
    if baseline.n < policy.baseline_min:
        return replace(without, reason=f"the baseline has {baseline.n} scores and needs {policy.baseline_min}")
    if baseline.effective_sessions < policy.sessions_min:
        said = f"the baseline counts like {baseline.effective_sessions:.1f} sessions and needs {policy.sessions_min}"
        return replace(without, reason=said)
    return _beside(metric, baseline, sample)


def _outside(metric: Metric, sample: Sample) -> int:
    return int(((sample.scores < metric.low) | (sample.scores > metric.high)).sum())


def _nothing(sample: Sample | None) -> str:
    if sample is None or not (sample.flagged or sample.missing):
        return "nothing was scored yet"
    return (
        f"no score is usable: {sample.flagged} are flagged as text that addresses the judge, {sample.missing} missing"
    )


def _beside(metric: Metric, baseline: Baseline, sample: Sample) -> _Comparable:
    low, high = metric.low, metric.high
    # n scores that never met a value do not show that it cannot be: expectations keep off the ends by one score's share
    apart = (high - low) / (baseline.n + 2) if math.isfinite(high) else 0.0
    each = np.clip(baseline.expected(sample.strata), low + apart, high - apart)
    total = sample.weights.sum()
    best, worst = (
        (each.max() - high, each.max() - low) if metric.bad == "down" else (low - each.min(), high - each.min())
    )
    return _Comparable(
        metric,
        baseline,
        sample,
        float(sample.weights @ each / total),
        max(baseline.expectation_variance(sample.strata, sample.weights), apart**2),
        sample.per_session(sample.weights * metric.sign * (sample.scores - each)),
        sample.per_session(sample.weights),
        float(best),
        float(worst),
        metric.margin_at(baseline.mean),
    )


def _judged(comparable: Sequence[_Comparable], policy: Policy, gated: int) -> list[MetricVerdict]:
    units = max(len(each.weight) for each in comparable)
    margins = np.asarray([each.margin for each in comparable])
    found = assess(
        Units(
            np.stack([np.pad(each.excess, (0, units - len(each.excess))) for each in comparable]),
            np.stack([np.pad(each.weight, (0, units - len(each.weight))) for each in comparable]),
            np.asarray([each.best for each in comparable]),
            np.asarray([each.worst for each in comparable]),
        ),
        np.asarray([each.variance for each in comparable]),
        margins,
        policy.alpha_reject,
        policy.alpha_approve,
    )
    p_values = np.ones(gated)  # a metric that cannot be compared counts among the gated ones
    p_values[: len(comparable)] = found.p_value
    worse = (found.p_value <= policy.alpha_reject) & holm(p_values, policy.alpha_family)[: len(comparable)]
    return [_verdict(each, found, row, bool(worse[row]), policy) for row, each in enumerate(comparable)]


def _verdict(each: _Comparable, found: Assessment, row: int, worse: bool, policy: Policy) -> MetricVerdict:
    estimate, lower, upper = (float(part[row]) for part in (found.estimate, found.lower, found.upper))
    outcome, reason = _outcome(each, estimate, lower, upper, worse, policy)
    more = None if outcome != "INCONCLUSIVE" else _more_needed(each, estimate, found, row, policy)
    return MetricVerdict(
        each.metric.name,
        outcome,
        reason,
        each.sample.n,
        each.sample.n_sessions,
        each.sample.missing,
        each.sample.flagged,
        each.baseline.n,
        each.baseline.n_sessions,
        baseline_mean=_rounded(each.expected),
        observed=_rounded(each.sample.mean),
        estimate=_rounded(estimate),
        lower=_rounded(lower),
        upper=_rounded(upper),
        p_value=_rounded(float(found.p_value[row])),
        alpha_spent=_rounded(float(found.spent[row])),
        margin=_rounded(each.margin),
        more_needed=more,
    )


def _outcome(
    each: _Comparable, estimate: float, lower: float, upper: float, worse: bool, policy: Policy
) -> tuple[Outcome, str]:
    metric, sample = each.metric, each.sample
    sessions = effective_sessions(each.weight)
    margin = metric.amount(each.margin)
    change = f"worse by {metric.amount(estimate)}" if estimate >= 0 else f"better by {metric.amount(-estimate)}"
    about = f"{change} than the baseline, {metric.amount(sample.mean)} instead of {metric.amount(each.expected)}"
    if sample.n < policy.reject_min:
        return "INCONCLUSIVE", f"{sample.n} scores; a verdict needs {policy.reject_min} at least"
    if sessions < policy.sessions_min:
        return (
            "INCONCLUSIVE",
            f"{sample.n} scores count like {sessions:.1f} sessions; a verdict needs {policy.sessions_min}",
        )
    if worse and estimate >= each.margin:
        return "REJECT", f"{about}; by {metric.amount(max(lower, 0.0))} at least, the margin is {margin}"
    stuck = looks_stuck(sample, metric, each.baseline.sample)
    if stuck:
        return "INCONCLUSIVE", stuck
    if upper < each.margin:
        if sample.n >= policy.approve_min:
            return "APPROVE", f"{about}; at most {metric.amount(upper)} worse, the margin is {margin}"
        return "INCONCLUSIVE", f"{about}; APPROVE needs {policy.approve_min} scores, there are {sample.n}"
    return "INCONCLUSIVE", f"{about}; between {metric.amount(lower)} and {metric.amount(upper)}, the margin is {margin}"


def _more_needed(each: _Comparable, estimate: float, found: Assessment, row: int, policy: Policy) -> int | None:
    """Scores missing until a verdict, should the estimate and the spread of scores stay what they are."""
    n, sessions = each.sample.n, effective_sessions(each.weight)
    if looks_stuck(each.sample, each.metric, each.baseline.sample):
        return None
    if sessions < policy.sessions_min:
        return math.ceil(n * (policy.sessions_min / sessions - 1))
    rejects = estimate >= each.margin
    variance = float((found.from_none if rejects else found.from_margin)[row])
    least = max(policy.reject_min if rejects else policy.approve_min, n + 1)
    sizes = np.unique(np.ceil(np.geomspace(least, max(_MOST_MORE, 2 * least), 400)))
    variances = max(variance - each.variance, 1e-12) * n / sizes + each.variance
    margins = np.full_like(sizes, each.margin)
    if rejects:
        enough = reject_bound(np.full_like(sizes, estimate), variances, DESIGN * margins, policy.alpha_reject) > 0
    else:
        enough = estimate + mixture(variances, margins, policy.alpha_approve) < margins
    return int(sizes[int(np.argmax(enough))]) - n if enough.any() else None


def _overall(judged: Sequence[MetricVerdict], policy: Policy, look: int, fingerprints: Collection[str]) -> Verdict:
    rejected = [each for each in judged if each.verdict == "REJECT"]
    open_ones = [each for each in judged if each.verdict == "INCONCLUSIVE"]
    needed = [each.more_needed for each in open_ones]
    more = max((each for each in needed if each is not None), default=None) if None not in needed else None
    outcome: Outcome = "REJECT" if rejected else "INCONCLUSIVE" if open_ones or not judged else "APPROVE"
    telling = rejected or open_ones or list(judged)
    reason = "; ".join(f"{each.metric}: {each.reason}" for each in telling) or "no metric is gated"
    if outcome == "INCONCLUSIVE" and look >= policy.deadline_looks:
        rejects = policy.at_deadline == "reject" and any(each.estimate is not None for each in judged)
        outcome = "REJECT" if rejects else "INCONCLUSIVE"
        then = "and the policy rejects what is undecided" if rejects else "held for a person to decide"
        reason = f"undecided after {look} looks, {then} ({reason})"
    return Verdict(
        outcome,
        reason,
        outcome != "INCONCLUSIVE" or look >= policy.deadline_looks,
        look,
        max((each.n for each in judged), default=0),
        more if outcome == "INCONCLUSIVE" else None,
        policy.alpha_reject,
        policy.alpha_family,
        policy.alpha_approve,
        tuple(sorted(set(fingerprints))),
        tuple(judged),
    )


def _rounded(value: float) -> float:
    return round(value, _DIGITS) + 0.0
