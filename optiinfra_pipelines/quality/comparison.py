"""Two variants side by side, by user split or on the same prompts: quality and cost in one decision. Pure.

`a` is what runs today, `b` the candidate. Users, or sessions where users are unknown, are what was split and are
therefore the units; verdicts use the gate's bounds and hold however often a comparison is looked at.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from optiinfra_pipelines.quality.evidence import Units, assess
from optiinfra_pipelines.quality.policy import Metric, Policy
from optiinfra_pipelines.quality.sample import Floats, Sample, cluster_mean, effective_sessions, looks_stuck

_SEED = 20261121
_FLIPS = 9_999
_CONFIDENCE = 0.95  # of the intervals for people; verdicts have the policy's error rates
_DIGITS = 9  # costs of a request are small


@dataclass(frozen=True)
class Arm:
    """What one variant did, one entry a request: its score or None, its user or session or None, its cost or None.

    Scores lie in the metric's range; costs are in one currency. For `compare_shadow` the entries of both arms belong to
    the same prompts.
    """

    scores: Sequence[float | None]
    users: Sequence[str | None]
    costs: Sequence[float | None] = ()
    weights: Sequence[float | None] | None = None


@dataclass(frozen=True)
class Comparison:
    """Candidate b against a. `difference`: b - a in units of the score, up or down as it is, with a 95 % interval.

    `worse`, `lower`, `upper`: change in the bad direction and its bounds, as in a gate's verdict. `saving`: share of
    a's cost a request that b saves, with a 95 % interval; None without costs. `p_value`: of "no difference", two-sided.
    """

    verdict: Literal["APPROVE", "REJECT", "INCONCLUSIVE"]
    sentence: str
    paired: bool
    metric: str
    n_a: int
    n_b: int
    users_a: int
    users_b: int
    quality_a: float | None = None
    quality_b: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p_value: float | None = None
    margin: float | None = None
    worse: float | None = None
    lower: float | None = None
    upper: float | None = None
    cost_a: float | None = None
    cost_b: float | None = None
    saving: float | None = None
    saving_low: float | None = None
    saving_high: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the same data give the same bytes."""
        return asdict(self)


@dataclass(frozen=True)
class _Quality:
    """The difference in the bad direction: units for the verdict, and mean, variance and test for people."""

    units: Units
    expected_variance: float
    mean_a: float
    mean_b: float
    variance: float
    freedom: float
    p_value: float


def compare(a: Arm, b: Arm, metric: Metric, policy: Policy) -> Comparison:
    """Compare two variants of which each user saw one: Welch's test on users."""
    sample_a, sample_b = (Sample.of(arm.scores, arm.weights, arm.users) for arm in (a, b))
    thin = _thin((sample_a, sample_b), metric, policy)
    quality = None if thin else _split(sample_a, sample_b, metric)
    return _concluded((sample_a, sample_b), quality, thin, _saving(a, b, paired=False), metric, policy, paired=False)


def compare_shadow(a: Arm, b: Arm, metric: Metric, policy: Policy) -> Comparison:
    """Compare two variants that answered the same prompts: paired differences, signs flipped at random per user.

    Only prompts that both variants have a score for count; users and weights are those of `a`. ValueError where the
    arms differ in length.
    """
    pairs = list(zip(a.scores, b.scores, strict=True))
    both = [None not in pair and all(math.isfinite(each) for each in pair if each is not None) for pair in pairs]
    samples = [
        Sample.of([score if kept else None for score, kept in zip(arm.scores, both, strict=True)], a.weights, a.users)
        for arm in (a, b)
    ]
    differences = Sample.of(
        [metric.sign * (second - first) if kept else None for (first, second), kept in zip(pairs, both, strict=True)],  # type: ignore[operator]
        a.weights,
        a.users,
    )
    thin = _thin((samples[0], samples[1]), metric, policy)
    quality = None if thin else _paired(differences, samples[0].mean, samples[1].mean, metric)
    return _concluded((samples[0], samples[1]), quality, thin, _saving(a, b, paired=True), metric, policy, paired=True)


def _split(a: Sample, b: Sample, metric: Metric) -> _Quality:
    low, high = metric.low, metric.high
    apart = (high - low) / (a.n + 2) if math.isfinite(high) else 0.0
    expected = float(np.clip(a.mean, low + apart, high - apart))
    best, worst = sorted((metric.sign * (low - expected), metric.sign * (high - expected)))
    variances, units = zip(*(_variance(each) for each in (a, b)), strict=True)
    total = sum(variances)
    freedom = total**2 / max(sum(v**2 / (u - 1) for v, u in zip(variances, units, strict=True)), 1e-300)
    distance = abs(b.mean - a.mean) / math.sqrt(total) if total > 0 else math.inf if b.mean != a.mean else 0.0
    excess = b.per_session(b.weights * metric.sign * (b.scores - expected))
    return _Quality(
        _units(excess, b.per_session(b.weights), best, worst),
        max(variances[0], apart**2),
        a.mean,
        b.mean,
        total,
        freedom,
        float(2 * stats.t.sf(distance, max(freedom, 1.0))),
    )


def _paired(differences: Sample, mean_a: float, mean_b: float, metric: Metric) -> _Quality:
    width = metric.high - metric.low
    variance, units = _variance(differences)
    sums = differences.per_session(differences.weights * differences.scores)
    return _Quality(
        _units(sums, differences.per_session(differences.weights), -width, width),
        0.0,
        mean_a,
        mean_b,
        variance,
        units - 1,
        _sign_flip(sums),
    )


def _sign_flip(sums: Floats) -> float:
    """Two-sided p-value of "signs are a matter of chance", with a fixed seed."""
    draw, observed, reached = np.random.default_rng(_SEED), abs(float(sums.sum())), 0
    for first in range(0, _FLIPS, 1_000):
        signs = draw.integers(0, 2, (min(1_000, _FLIPS - first), len(sums)), dtype=np.int8) * 2.0 - 1.0
        reached += int((np.abs(signs @ sums) >= observed * (1 - 1e-12)).sum())
    return (reached + 1) / (_FLIPS + 1)


def _variance(sample: Sample) -> tuple[float, float]:
    """Variance of the mean with sessions as clusters, and how many sessions of equal weight say the same."""
    totals = sample.per_session(sample.weights)
    _, variance = cluster_mean(sample.per_session(sample.weights * sample.scores), totals)
    return variance, effective_sessions(totals)


def _units(excess: Floats, weight: Floats, best: float, worst: float) -> Units:
    return Units(excess[None], weight[None], np.asarray([best]), np.asarray([worst]))


def _thin(samples: Sequence[Sample], metric: Metric, policy: Policy) -> str:
    """Why there is nothing to compare, or too little; empty where there is enough."""
    outside = sum(int(((each.scores < metric.low) | (each.scores > metric.high)).sum()) for each in samples)
    if outside:
        return f"{outside} scores lie outside {metric.low:g} to {metric.high:g}"
    if min(each.n for each in samples) < policy.reject_min:
        return f"too few scores to compare: {' and '.join(str(each.n) for each in samples)}, {policy.reject_min} needed"
    if not metric.margin_at(samples[0].mean) > 0:
        return "the first variant's mean is 0: a share of it is no margin"
    users = min(effective_sessions(each.per_session(each.weights)) for each in samples)
    return (
        f"scores of {users:.1f} users do not compare, {policy.sessions_min} needed"
        if users < policy.sessions_min
        else ""
    )


def _concluded(
    samples: tuple[Sample, Sample],
    quality: _Quality | None,
    thin: str,
    saving: dict[str, float],
    metric: Metric,
    policy: Policy,
    paired: bool,
) -> Comparison:
    a, b = samples
    cost = {name: _rounded(value) for name, value in saving.items()}
    users = {"users_a": a.n_sessions, "users_b": b.n_sessions}
    about: dict[str, Any] = {"paired": paired, "metric": metric.name, "n_a": a.n, "n_b": b.n, **users, **cost}
    if quality is None:
        return Comparison("INCONCLUSIVE", f"{_spoken(saving)}{thin}, n = {b.n}", **about)
    margin = metric.margin_at(quality.mean_a)
    found = assess(
        quality.units,
        np.asarray([quality.expected_variance]),
        np.asarray([margin]),
        policy.alpha_reject,
        policy.alpha_approve,
    )
    estimate, lower, upper = (float(part[0]) for part in (found.estimate, found.lower, found.upper))
    stuck = looks_stuck(b, metric, a)
    verdict: Literal["APPROVE", "REJECT", "INCONCLUSIVE"] = "INCONCLUSIVE"
    if estimate >= margin and lower > 0:
        verdict, said = "REJECT", f"is worse by {metric.amount(estimate)}"
    elif upper < margin and min(a.n, b.n) >= policy.approve_min and not stuck:
        verdict, said = "APPROVE", f"is non-inferior within {metric.amount(margin)}"
    elif stuck:
        said = f"is not judged: {stuck.removesuffix('?')}"
    else:
        said = f"is not yet known to be non-inferior within {metric.amount(margin)}"
    half = float(stats.t.ppf(0.5 + _CONFIDENCE / 2, max(quality.freedom, 1.0))) * math.sqrt(quality.variance)
    difference = quality.mean_b - quality.mean_a
    figures: dict[str, float] = {
        "quality_a": quality.mean_a,
        "quality_b": quality.mean_b,
        "difference": difference,
        "difference_low": difference - half,
        "difference_high": difference + half,
        "p_value": quality.p_value,
        "margin": margin,
        "worse": estimate,
        "lower": lower,
        "upper": upper,
    }
    sentence = f"{_spoken(saving)}{'and ' if saving else ''}{said}, n = {b.n}"
    about |= {name: _rounded(value) for name, value in figures.items()}
    return Comparison(verdict, sentence, **about)


def _saving(a: Arm, b: Arm, paired: bool) -> dict[str, float]:
    """Cost a request of each arm and the share that b saves: delta method on the log ratio, users as clusters.

    Empty where an arm has no costs or where a's are 0.
    """
    sums: dict[str, list[float]] = {}  # user -> cost and requests of a, cost and requests of b
    for arm, each in enumerate((a, b)):
        for place, cost in enumerate(each.costs):
            if cost is not None and math.isfinite(cost):
                alone = f"#{place}" if paired else f"#{arm}#{place}"
                user = (a if paired else each).users[place]
                entry = sums.setdefault(alone if user is None else f"user {user}", [0.0, 0.0, 0.0, 0.0])
                entry[2 * arm] += cost
                entry[2 * arm + 1] += 1
    table = np.asarray([sums[user] for user in sorted(sums)]).reshape(-1, 4)
    cost_a, n_a, cost_b, n_b = table.sum(axis=0)
    if not (n_a and n_b and cost_a > 0 and cost_b > 0) or len(table) < 2:
        return {}
    mean_a, mean_b = cost_a / n_a, cost_b / n_b
    influence = (table[:, 2] / mean_b - table[:, 3]) / n_b - (table[:, 0] / mean_a - table[:, 1]) / n_a
    error = math.sqrt(float((influence**2).sum()) * len(table) / (len(table) - 1))
    half = float(stats.t.ppf(0.5 + _CONFIDENCE / 2, len(table) - 1)) * error
    ratio = float(mean_b / mean_a)
    low, high = 1 - ratio * math.exp(half), 1 - ratio * math.exp(-half)
    return {
        "cost_a": float(mean_a),
        "cost_b": float(mean_b),
        "saving": 1 - ratio,
        "saving_low": low,
        "saving_high": high,
    }


def _spoken(saving: dict[str, float]) -> str:
    if not saving:
        return ""
    share, low, high = (100 * saving[name] for name in ("saving", "saving_low", "saving_high"))
    if low <= 0 <= high:
        return f"costs about the same (saves {low:.0f} to {high:.0f} %) "
    if share > 0:
        return f"saves {share:.0f} % ({low:.0f} to {high:.0f} %) "
    return f"costs {-share:.0f} % more ({-high:.0f} to {-low:.0f} %) "


def _rounded(value: float) -> float:
    return round(value, _DIGITS) + 0.0
