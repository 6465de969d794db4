"""How sure a change for the worse is: likelihood ratios of bounded scores, and bounds that hold at every look.

Gate and comparisons share this; what follows from a bound is theirs. Everything is vectorised over rows, one row a
metric of a deployment, and over units, one unit a session.

The statistic is the empirical likelihood ratio, for scores of a known range the log wealth of the best bet against
"nothing got worse" [Owen 2001; Honda and Takemura 2010; Waudby-Smith and Ramdas 2024]: it needs no variance estimate
that luck makes small, the way in which a t-test approves of skewed scores. Its square root is close to normal, so
over a growing sample it moves like a Brownian motion in information (1 / variance), the error of a frozen baseline
included. Two boundaries that such a motion crosses once in 1/alpha times however often one looks:

- REJECT: a straight line, whose crossing probability is exactly alpha. It is lowest, at sqrt(2 log(1/alpha))
  = 3.03 standard errors, at the information that shows `DESIGN` margins, and so spends alpha where it decides.
- APPROVE: Robbins' normal mixture (the asymptotic confidence sequence), which never closes at any larger sample.

Both depend on the data alone and not on how often somebody looked: a re-run, a backfill and late scores change nothing.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optiinfra_pipelines.quality.sample import Floats

DESIGN = 1.4  # margins: the change for which REJECT is quickest; 1.25 to 1.5 differ by a point of power
TUNED = 3.5  # standard errors to the margin at which APPROVE's boundary is lowest
_STEPS = 30
_TINY = 1e-300


@dataclass(frozen=True)
class Assessment:
    """What the scores say about the change for the worse, each an array of one value a row.

    `estimate`; `lower`: one-sided lower bound at `alpha_reject`; `upper`: one-sided upper bound at
    `alpha_approve`; both hold over all looks. `p_value`: of "not worse", valid at any look. `spent`: the part of
    alpha_reject that looks up to this much information can use up; `from_none`, `from_margin`: variance of the estimate
    as it bears on "not worse at all" and on "worse by the margin".
    """

    estimate: Floats
    lower: Floats
    upper: Floats
    p_value: Floats
    spent: Floats
    from_none: Floats
    from_margin: Floats


@dataclass(frozen=True)
class Units:
    """Sums over sessions: (rows, units) of weight x excess in the bad direction, and of weight; padded with zeros.

    `best` and `worst`, one a row: the excess of the best and of the worst score that can be; infinite without range.
    """

    excess: Floats
    weight: Floats
    best: Floats
    worst: Floats


def assess(
    units: Units, baseline_variance: Floats, margin: Floats, alpha_reject: float, alpha_approve: float
) -> Assessment:
    """Assess rows against their margin; `baseline_variance` is that of what the excess is measured from."""
    total = units.weight.sum(axis=1)
    count = np.maximum((units.weight > 0).sum(axis=1), 2)
    estimate = units.excess.sum(axis=1) / total
    residuals = units.excess - estimate[:, None] * units.weight
    plain = (residuals**2).sum(axis=1) / total**2 * count / (count - 1)
    largest = units.weight.max(axis=1)
    worse = log_likelihood_ratio(units.excess, largest * units.best)
    within = log_likelihood_ratio(
        margin[:, None] * units.weight - units.excess, largest * np.minimum(margin - units.worst, 0.0)
    )
    against_none = _variance(estimate, worse, plain) + baseline_variance
    against_margin = _variance(margin - estimate, within, plain) + baseline_variance
    design = DESIGN * margin
    return Assessment(
        estimate,
        reject_bound(estimate, against_none, design, alpha_reject),
        estimate + mixture(against_margin, margin, alpha_approve),
        np.exp(np.minimum(0.0, -(design / against_none) * (estimate - design / 2))),
        alpha_spent(against_none, design, alpha_reject),
        against_none,
        against_margin,
    )


def log_likelihood_ratio(deviations: Floats, lowest: Floats) -> Floats:
    """Log likelihood ratio of each row against "the mean deviation is 0 or less": 0 where the mean is.

    `deviations`: (rows, units); `lowest`: the lowest deviation that can be, 0 or less, one a row; where it is -inf
    there is no bet that survives it, and the ratio is 0. Maximises sum(log(1 + bet x deviation)) over bets.
    """
    ratio = np.zeros(len(deviations))
    rows = np.flatnonzero((deviations.sum(axis=1) > 0) & np.isfinite(lowest))
    if not len(rows):
        return ratio
    chosen = deviations[rows]
    highest_bet = (1 - 1e-9) / np.maximum(-lowest[rows], 1e-9)[:, None]
    low, high = np.zeros_like(highest_bet), highest_bet
    bet = np.minimum(chosen.sum(axis=1) / np.maximum((chosen**2).sum(axis=1), _TINY), highest_bet[:, 0] / 2)[:, None]
    for _ in range(_STEPS):
        gains = chosen / (1 + bet * chosen)
        slope = gains.sum(axis=1, keepdims=True)
        low, high = np.where(slope > 0, bet, low), np.where(slope > 0, high, bet)
        newton = bet + slope / np.maximum((gains**2).sum(axis=1, keepdims=True), _TINY)
        following = np.where((newton > low) & (newton < high), newton, (low + high) / 2)
        settled = np.abs(following - bet) <= 1e-9 * highest_bet
        bet = following
        if settled.all():
            break
    ratio[rows] = np.maximum(np.log1p(bet * chosen).sum(axis=1), 0.0)
    return ratio


def reject_bound(estimate: Floats, variance: Floats, design: Floats, alpha: float) -> Floats:
    """Lower bound of the change: below it with probability alpha, over all looks."""
    return estimate - design / 2 - variance * math.log(1 / alpha) / design


def mixture(variance: Floats, margin: Floats, alpha: float) -> Floats:
    """Half-width of the normal mixture's one-sided bound [Robbins 1970; Howard et al. 2021, equation 14]."""
    two_sided = 2 * math.log(1 / (2 * alpha))
    tuning = (TUNED / margin) ** 2 / (two_sided + math.log(1 + two_sided))
    shrunk = 1 + tuning * variance
    return np.sqrt(variance * shrunk * 2 * np.log1p(np.sqrt(1 + 1 / (tuning * variance)) / (2 * alpha)))


def alpha_spent(variance: Floats, design: Floats, alpha: float) -> Floats:
    """Probability that a motion without drift crosses the line of `reject_bound` before this much information."""
    from scipy.special import ndtr

    start, slope, root = math.log(1 / alpha) / design, design / 2, np.sqrt(1 / variance)
    return ndtr(-(start / root + slope * root)) + alpha * ndtr(slope * root - start / root)


def holm(p_values: NDArray[np.float64], alpha: float) -> NDArray[np.bool_]:
    """Which hypotheses Holm's procedure rejects with a family-wise error of alpha."""
    order = np.argsort(p_values, kind="stable")
    passed = p_values[order] <= alpha / np.arange(len(p_values), 0, -1)
    rejected = np.zeros(len(p_values), dtype=bool)
    rejected[order[: len(passed) if passed.all() else int(np.argmin(passed))]] = True
    return rejected


def _variance(distance: Floats, ratio: Floats, plain: Floats) -> Floats:
    """Variance that makes the distance sqrt(2 x ratio) standard errors; the plain one where there is no ratio."""
    known = (ratio > 0) & (distance > 0)
    return np.maximum(np.where(known, distance**2 / np.maximum(2 * ratio, _TINY), plain), 1e-12)
