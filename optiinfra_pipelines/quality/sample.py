"""Scores of one metric as statistics need them: weighted, grouped by session, in one order whatever came first.

What the scores are held against is `baseline.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from optiinfra_pipelines.quality.policy import Metric

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


_PLAUSIBLE = 1e-3  # chance of so many equal scores under which they look stuck
_NEARLY_ALL = 0.99
_LARGEST = 1e12  # of a score or weight: what is larger is an error, and its square would be one


@dataclass(frozen=True, eq=False)
class Sample:
    """Scores of one metric, sorted by session; `sessions` numbers them from 0, `strata` are labels or "".

    `weights` are 1 / sampling probability. `missing` scores were None, NaN or beyond 1e12 or had no usable weight,
    `flagged` ones were left out because their text addresses the judge.
    """

    scores: Floats
    weights: Floats
    sessions: Ints
    strata: NDArray[np.str_]
    missing: int = 0
    flagged: int = 0

    @classmethod
    def of(
        cls,
        scores: Sequence[float | None],
        weights: Sequence[float | None] | None = None,
        sessions: Sequence[str | None] | None = None,
        strata: Sequence[str] | None = None,
        flagged: Sequence[bool] | None = None,
    ) -> "Sample":
        """The sample of scores, one entry of each sequence a score; a session of None is a session of its own.

        ValueError where the sequences differ in length.
        """
        n = len(scores)
        for given in (weights, sessions, strata, flagged):
            if given is not None and len(given) != n:
                raise ValueError(f"{n} scores came with {len(given)} weights, sessions, strata or flags")
        values = np.asarray([math.nan if each is None else each for each in scores], dtype=float)
        weighed = np.ones(n) if weights is None else _numbers(weights)
        left_out = np.zeros(n, dtype=bool) if flagged is None else np.asarray(flagged, dtype=bool)
        usable = (np.abs(values) <= _LARGEST) & (weighed <= _LARGEST) & (weighed > 0)
        kept = usable & ~left_out
        labels = np.asarray([""] * n if strata is None else strata, dtype=str)[kept]
        values, weighed = values[kept], weighed[kept]
        numbers, alone = _numbered([None] * n if sessions is None else sessions, kept)
        order = np.lexsort((weighed, values, labels, numbers))
        numbers = numbers[order]
        first_alone = len(numbers) - alone
        named = int(numbers[first_alone - 1]) + 1 if first_alone else 0
        numbers[first_alone:] = named + np.arange(alone)
        return cls(
            values[order], weighed[order], numbers, labels[order], int((~usable & ~left_out).sum()), int(left_out.sum())
        )

    @property
    def n(self) -> int:
        return len(self.scores)

    @property
    def n_sessions(self) -> int:
        return int(self.sessions[-1]) + 1 if self.n else 0

    @property
    def mean(self) -> float:
        """Weighted mean; NaN of no scores."""
        return float(self.weights @ self.scores / self.weights.sum()) if self.n else math.nan

    def per_session(self, values: Floats) -> Floats:
        """Sums of `values`, one a score, over each session."""
        return np.asarray(np.bincount(self.sessions, weights=values, minlength=self.n_sessions), dtype=float)


def cluster_mean(sums: Floats, totals: Floats) -> tuple[float, float]:
    """Weighted mean from sums over sessions of weight x value and of weight, and its variance with sessions as
    clusters; the variance is infinite of a single session."""
    total, count = float(totals.sum()), int((totals > 0).sum())
    mean = float(sums.sum()) / total
    squares = float(((sums - mean * totals) ** 2).sum())
    return mean, squares / total**2 * count / (count - 1) if count > 1 else math.inf


def effective_sessions(weights: Floats) -> float:
    """As many sessions of equal weight as say the same: one giant session among small ones counts for little."""
    return float(weights.sum() ** 2 / (weights**2).sum()) if len(weights) else 0.0


def looks_stuck(new: Sample, metric: Metric, before: Sample) -> str:
    """Why scores that are all but equal are no sign of health, or "" where they differ or are the usual thing.

    All scores equal are the usual thing only of a harm that is as good as absent `before` also.
    """
    values, counts = np.unique(new.scores, return_counts=True)
    place = int(counts.argmax())
    value, count = float(values[place]), int(counts[place])
    if count < _NEARLY_ALL * new.n:
        return ""
    said = f"{'all' if count == new.n else f'{count} of'} {new.n} scores are {value:g}"
    why = f"{said}: is the judge or the application stuck?"
    if count == new.n and (metric.bad == "down" or value != metric.low):
        return why
    share = float(before.weights[before.scores == value].sum() / before.weights.sum())
    units = new.n_sessions  # scores of one conversation are alike
    return why if stats.binom.sf(count * units // new.n - 1, units, share) < _PLAUSIBLE else ""


def _numbers(given: Sequence[float | None]) -> Floats:
    return np.asarray([math.nan if each is None else float(each) for each in given], dtype=float)


def _numbered(sessions: Sequence[str | None], kept: NDArray[np.bool_]) -> tuple[Ints, int]:
    """Numbers of the sessions of kept scores in the order of their names, and how many scores stand alone: those come
    last, under one number that the caller spreads."""
    labels = [label for label, keep in zip(sessions, kept.tolist(), strict=True) if keep]
    numbers = {label: number for number, label in enumerate(sorted({each for each in labels if each is not None}))}
    alone = len(numbers)
    codes = np.asarray([alone if label is None else numbers[label] for label in labels], dtype=np.int64)
    return codes, int((codes == alone).sum())
