"""Scores as applications give them, simulated: distributions, changes, conversations, days. No statistics of the
product here: `gate.py` measures what it makes of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
TURNS, ICC = 5, 0.3  # of a conversation, where there are conversations
WINDOWS = 2_880  # of 15 minutes in 30 days
SWING = 0.03  # of a mean with the hour of the day, up and down, where traffic has a day and a night


@dataclass(frozen=True)
class Kind:
    """A distribution of scores: its levels and their probabilities."""

    name: str
    levels: Floats
    chances: Floats

    @property
    def mean(self) -> float:
        return float(self.levels @ self.chances)

    def worse(self, drop: float) -> "Kind":
        """The same kind with its mean lower by `drop`, by exponential tilting."""
        low, high = -60.0, 60.0
        for _ in range(100):
            tilt = (low + high) / 2
            weights = self.chances * np.exp(tilt * (self.levels - 0.5))
            chances = weights / weights.sum()
            low, high = (tilt, high) if chances @ self.levels < self.mean - drop else (low, tilt)
        return Kind(self.name, self.levels, chances) if drop else self

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        """Independent scores."""
        return self.levels[np.searchsorted(np.cumsum(self.chances)[:-1], rng.random(shape), side="right")]

    def conversations(self, rng: np.random.Generator, rows: int, count: int, icc: float = ICC) -> Floats:
        """Scores (rows, count, TURNS) of conversations: two of one have the correlation `icc`."""
        shared = self.draw(rng, (rows, count, 1))
        alike = rng.random((rows, count, TURNS)) < np.sqrt(icc)
        return np.where(alike, shared, self.draw(rng, (rows, count, TURNS)))

    def window_means(self, rng: np.random.Generator, shape: tuple[int, ...], n: int) -> Floats:
        """Means of windows of n independent scores."""
        return rng.multinomial(n, self.chances, shape) @ self.levels / n


FIVE_LEVELS = Kind("5-level", np.arange(5) / 4, np.asarray([0.02, 0.025, 0.075, 0.215, 0.665]))
PASS_FAIL = Kind("pass/fail", np.asarray([0.0, 1.0]), np.asarray([0.13, 0.87]))
SKEWED = Kind("skewed", np.asarray([0.0, 0.8, 1.0]), np.asarray([0.03, 0.07, 0.90]))
KINDS = (FIVE_LEVELS, PASS_FAIL, SKEWED)
"""5-level: mean .87, sd .222; pass/fail: .87, .336; skewed: .956, .176, nine of ten perfect and a few worthless."""


def hourly(kind: Kind) -> list[Kind]:
    """The kind at each hour of the day: its traffic's mix swings the mean up and down, and no answer changes."""
    easy, hard = kind.worse(-SWING), kind.worse(SWING)
    shares = (1 + np.cos(2 * np.pi * np.arange(24) / 24)) / 2
    return [Kind(kind.name, kind.levels, share * easy.chances + (1 - share) * hard.chances) for share in shares]
