"""The monitor's threshold for a stated rate of false alarms, from the baseline's own sessions. Pure, deterministic.

Windows are drawn from the baseline's sessions with replacement; the chance of an alarm follows from their distribution
by a Markov chain over the CUSUM's height [Brook and Evans 1972], not from long simulated streams: milliseconds where
streams take minutes. The baseline's mean is itself off by its error: the rate is averaged over that error, so that it
holds for a stream with one frozen baseline and not only for one whose true mean is known.
"""

import math
from dataclasses import dataclass

import numpy as np

from optiinfra_pipelines.quality.baseline import Baseline
from optiinfra_pipelines.quality.policy import Metric
from optiinfra_pipelines.quality.sample import Floats

_SEED = 20261121
_DRAWS, _FEWEST, _MOST = 400_000, 8_000, 50_000  # sessions drawn, and the windows they may make
_ERRORS = 9  # points of the Gauss-Hermite rule over the baseline's error
_STEPS_PER_DEVIATION = 5  # of the chain's grid: adds 0.7 % to the variance of an increment
_MOST_STEPS = 600
# A baseline that is too good by luck looks too even, so that its error is understated just when it matters. With this
# much caution 0.7 to 1.0 alarms come where 1 was asked for: n of 5 to 50, three shapes, baselines of 2,000.
_CAUTION = 1.15


@dataclass(frozen=True)
class Scale:
    """What turns a window's mean excess into evidence for a change by the margin, in log likelihood ratio.

    `margin` and `variance` of one score, in units of the score; `icc`: how alike scores of a session are.
    """

    margin: float
    variance: float
    icc: float

    def effective_size(self, squares: Floats, session_squares: Floats, total: Floats) -> Floats:
        """As many independent scores of equal weight as say the same about the mean, from the sums of squared weights,
        of squared weights of sessions, and of weights."""
        return total**2 / ((1 - self.icc) * squares + self.icc * session_squares)

    def evidence(self, excess: Floats, size: Floats) -> Floats:
        """The CUSUM's increment for windows of this mean excess and effective size: half a margin is the allowance."""
        return self.margin / self.variance * size * (excess - self.margin / 2)


def scale(baseline: Baseline, metric: Metric) -> Scale:
    """The scale of a metric against its baseline. One score that was not met yet, the worst, counts as met: a baseline
    of equal scores has a spread, too."""
    variance = baseline.spread**2 + _unmet(baseline, metric) ** 2 / (baseline.n + 2)
    return Scale(metric.margin_at(baseline.mean), max(variance, 1e-12), baseline.icc)


def threshold(baseline: Baseline, metric: Metric, window_size: float, windows_per_alarm: int) -> float:
    """The height at which the CUSUM raises an alarm: one false alarm in so many windows of about `window_size` scores.

    Sessions are taken to lie within a window.
    """
    by = scale(baseline, metric)
    excess, size = _drawn(baseline, metric, by, window_size)
    increments = by.evidence(excess, size)
    step = max(float(increments.std()), 1e-6) / _STEPS_PER_DEVIATION
    nodes, weights = np.polynomial.hermite_e.hermegauss(_ERRORS)
    shift = by.margin / by.variance * size * baseline.typical_error
    chains = [_lattice(increments + node * shift, step) for node in nodes]
    shares = weights / weights.sum()

    wanted = windows_per_alarm * _CAUTION

    def rate(height: int) -> float:
        return float(sum(share / _run_length(*chain, height) for share, chain in zip(shares, chains, strict=True)))

    low, high = 1, 2
    while high < _MOST_STEPS and rate(high) > 1 / wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if rate(middle) > 1 / wanted else (low, middle)
    above, below = math.log(rate(low) * wanted), math.log(max(rate(high) * wanted, 1e-300))
    between = above / (above - below) if above > 0 > below else 1.0
    return step * (low + between * (high - low))


def _unmet(baseline: Baseline, metric: Metric) -> float:
    """Excess of the worst score that can be; 0 where there is no worst."""
    end = metric.low if metric.bad == "down" else metric.high
    return abs(end - baseline.mean) if math.isfinite(end) else 0.0


def _drawn(baseline: Baseline, metric: Metric, by: Scale, window_size: float) -> tuple[Floats, Floats]:
    """Mean excess and effective size of windows drawn from the baseline's sessions and the one unmet score."""
    sample = baseline.sample
    excess = metric.sign * (sample.scores - baseline.expected(sample.strata))
    weight = sample.weights.mean()
    sums = np.append(sample.per_session(sample.weights * excess), weight * _unmet(baseline, metric))
    totals = np.append(sample.per_session(sample.weights), weight)
    squares = np.append(sample.per_session(sample.weights**2), weight**2)
    sessions = max(1, round(window_size * sample.n_sessions / sample.n))
    windows = min(max(_DRAWS // sessions, _FEWEST), _MOST)
    drawn = np.random.default_rng(_SEED).integers(0, len(sums), (windows, sessions), dtype=np.int32)
    total = totals[drawn].sum(axis=1)
    size = by.effective_size(squares[drawn].sum(axis=1), (totals**2)[drawn].sum(axis=1), total)
    excess_drawn = sums[drawn].sum(axis=1) / total
    # the draw's luck with the mean would move the run length by a quarter: it is taken off
    return excess_drawn - excess_drawn.mean() + sums.sum() / totals.sum(), size


def _lattice(increments: Floats, step: float) -> tuple[Floats, int]:
    """The increments' distribution on multiples of `step`, and the number of its first one; means are kept."""
    places = np.clip(increments / step, -_MOST_STEPS, _MOST_STEPS)
    floors = np.floor(places).astype(np.int64)
    first = int(floors.min())
    upper = places - floors
    masses = np.bincount(floors - first, weights=1 - upper, minlength=int(floors.max()) - first + 2)
    masses[1:] += np.bincount(floors - first, weights=upper, minlength=len(masses) - 1)
    return masses / len(increments), first


def _run_length(masses: Floats, first: int, height: int) -> float:
    """Mean windows from 0 to the alarm, at `height` steps: the chain's moves depend on the distance alone but for those
    to 0, which are a correction of rank one [Sherman and Morrison 1950]; seconds become tenths."""
    from scipy.linalg import solve_toeplitz

    below = np.concatenate([[0.0], np.cumsum(masses)])  # below[k]: chance of an increment under (first + k) steps
    density = np.concatenate([masses, [0.0]])  # index -1 and len(masses): no mass
    here = np.arange(height)
    up, down = (density[np.clip(moves - first, -1, len(masses))] for moves in (here, -here))
    to_zero = below[np.clip(1 - here - first, 0, len(masses))] - down
    start = (here == 0).astype(float)
    sides = np.stack([np.ones(height), to_zero], axis=1)
    length, returns = solve_toeplitz((start - down, start - up), sides, check_finite=False)[0]
    return float(length / max(1 - returns, 1e-16))  # rounded off where no alarm ever comes
