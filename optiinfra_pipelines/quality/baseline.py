"""Baselines: a frozen set of scores, what it expects of new ones, and how sure it is of that. Pure.

A baseline belongs to one judge fingerprint; where it is kept and when it is made is decided elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optiinfra_pipelines.quality.sample import Floats, Sample, cluster_mean, effective_sessions


@dataclass(frozen=True)
class Stratum:
    """Scores of one stratum: their share of the baseline's weight, mean, variance of that mean, and `trust` in it.

    Trust is 1 where the stratum's own mean is believed and 0 where only the mean of all is.
    """

    share: float
    mean: float
    variance: float
    trust: float


@dataclass(frozen=True, eq=False)
class Baseline:
    """A frozen set of scores: mean, spread (standard deviation of a score), and the error of the mean by sessions."""

    sample: Sample
    fingerprint: str
    mean: float
    spread: float
    error: float  # standard error of the mean; sessions are clusters
    icc: float  # how alike scores of one session are, 0 to 1
    strata: Mapping[str, Stratum]

    @property
    def n(self) -> int:
        return self.sample.n

    @property
    def n_sessions(self) -> int:
        return self.sample.n_sessions

    @cached_property
    def effective_sessions(self) -> float:
        """As many sessions of equal weight as say the same."""
        return effective_sessions(self.sample.per_session(self.sample.weights))

    @cached_property
    def key(self) -> str:
        """Hash of scores, weights, sessions, strata and fingerprint: equal for equal baselines."""
        sample = self.sample
        parts = (sample.scores, sample.weights, sample.sessions)
        said = "\n".join((self.fingerprint, *sample.strata.tolist()))
        return sha256(b"".join(each.tobytes() for each in parts) + said.encode()).hexdigest()[:16]

    @cached_property
    def trusts_strata(self) -> bool:
        """Whether means of strata differ by more than chance; without that, strata play no part."""
        return any(each.trust > 0 for each in self.strata.values())

    def expected(self, strata: NDArray[np.str_]) -> Floats:
        """The mean that the baseline expects of a score of each of these strata; of an unknown one the mean of all."""
        if not self.trusts_strata:
            return np.full(len(strata), self.mean)
        means = {label: self.mean + each.trust * (each.mean - self.mean) for label, each in self.strata.items()}
        labels, places = np.unique(strata, return_inverse=True)
        return np.asarray([means.get(str(label), self.mean) for label in labels])[places]

    def expectation_variance(self, strata: NDArray[np.str_], weights: Floats) -> float:
        """Variance of the baseline's expectation of a weighted mean over these strata."""
        if not self.trusts_strata:
            return self.error**2
        total = weights.sum()
        mix = {label: float(weights[strata == label].sum() / total) for label in np.unique(strata).tolist()}
        own = {label: mix.get(label, 0.0) * each.trust for label, each in self.strata.items()}
        pooled = 1.0 - sum(own.values())
        variance = sum((own[label] + pooled * each.share) ** 2 * each.variance for label, each in self.strata.items())
        drawn = sum(
            (mix.get(label, 0.0) * (1 - each.trust)) ** 2 * each.trust * each.variance
            for label, each in self.strata.items()
        )
        return float(max(variance + drawn, 0.0))

    @cached_property
    def typical_error(self) -> float:
        """Standard error of what is expected of one stratum, on average: what a monitor of short windows faces."""
        each = self.strata.values()
        return float(np.sqrt(sum(s.share * (s.trust * s.variance + (1 - s.trust) * self.error**2) for s in each)))

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON; `from_dict` gives the same baseline back."""
        sample = self.sample
        return {
            "fingerprint": self.fingerprint,
            "n": self.n,
            "n_sessions": self.n_sessions,
            "mean": self.mean,
            "spread": self.spread,
            "error": self.error,
            "scores": sample.scores.tolist(),
            "weights": sample.weights.tolist(),
            "sessions": sample.sessions.tolist(),
            "strata": sample.strata.tolist(),
            "missing": sample.missing,
            "flagged": sample.flagged,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Baseline":
        """The baseline that `to_dict` stored."""
        sample = Sample(
            np.asarray(stored["scores"], dtype=float),
            np.asarray(stored["weights"], dtype=float),
            np.asarray(stored["sessions"], dtype=np.int64),
            np.asarray(stored["strata"], dtype=str),
            stored["missing"],
            stored["flagged"],
        )
        return freeze(sample, stored["fingerprint"])


def freeze(sample: Sample, fingerprint: str = "") -> Baseline:
    """The baseline of these scores. ValueError of fewer than two sessions: they have no spread."""
    if sample.n_sessions < 2:
        raise ValueError(f"a baseline needs scores of two sessions at least, not of {sample.n_sessions}")
    mean = sample.mean
    variance = _variance_of_mean(sample, np.ones(sample.n, dtype=bool))
    residuals = sample.scores - mean
    spread = float(np.sqrt(sample.weights @ residuals**2 / sample.weights.sum()))
    return Baseline(
        sample, fingerprint, mean, spread, float(np.sqrt(variance)), _icc(sample, residuals), _strata(sample, variance)
    )


def _variance_of_mean(sample: Sample, chosen: NDArray[np.bool_]) -> float:
    """Variance of the weighted mean of the chosen scores, sessions as clusters; infinite of fewer than two."""
    weights = np.where(chosen, sample.weights, 0.0)
    return cluster_mean(sample.per_session(weights * sample.scores), sample.per_session(weights))[1]


def _icc(sample: Sample, residuals: Floats) -> float:
    """Mean product of two different scores' residuals in one session, by the variance of one."""
    sums, squares = sample.per_session(residuals), sample.per_session(residuals**2)
    sizes = sample.per_session(np.ones(sample.n))
    pairs = float((sizes * (sizes - 1)).sum())
    if pairs == 0 or squares.sum() == 0:
        return 0.0
    return float(np.clip((sums**2 - squares).sum() / pairs / (squares.sum() / sample.n), 0.0, 1.0))


def _strata(sample: Sample, variance: float) -> dict[str, Stratum]:
    """Each stratum with the trust in its mean (DerSimonian and Laird's variance between strata, empirical Bayes)."""
    labels = np.unique(sample.strata).tolist()
    total = sample.weights.sum()
    if len(labels) == 1:
        return {labels[0]: Stratum(1.0, sample.mean, variance, 0.0)}
    chosen = [sample.strata == label for label in labels]
    shares = np.asarray([sample.weights[each].sum() / total for each in chosen])
    means = np.asarray([sample.weights[each] @ sample.scores[each] / sample.weights[each].sum() for each in chosen])
    own = np.asarray([_variance_of_mean(sample, each) for each in chosen])
    # a stratum of few or equal scores cannot show its own spread: it has at least that of a share of all scores
    variances = np.where(np.isfinite(own), np.maximum(own, 0.5 * variance / shares), variance / shares)
    between = 0.0
    if variance > 0:
        precision = 1 / variances
        centre = precision @ means / precision.sum()
        excess = precision @ (means - centre) ** 2 - (len(labels) - 1)
        between = max(0.0, excess / (precision.sum() - (precision**2).sum() / precision.sum()))
    trust = between / (between + variances) if between > 0 else np.zeros(len(labels))
    found = zip(shares.tolist(), means.tolist(), variances.tolist(), trust.tolist(), strict=True)
    return {label: Stratum(*each) for label, each in zip(labels, found, strict=True)}
