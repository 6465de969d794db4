"""Samples and baselines for tests of verdicts: 5-level scores of a stated mean, drawn with a stated seed."""

import numpy as np

from optiinfra_pipelines.quality.baseline import Baseline, freeze
from optiinfra_pipelines.quality.sample import Sample
from optiinfra_pipelines_tests.benchmarks.gate_streams import FIVE_LEVELS

JUDGE = "judge-1"


def quality(n: int, seed: int, drop: float = 0.0) -> list[float]:
    """Scores of mean .87 less the drop."""
    return FIVE_LEVELS.worse(drop).draw(np.random.default_rng(seed), (n,)).tolist()


def harm(n: int, seed: int, share: float = 0.01) -> list[float]:
    """0 but for a share of 1."""
    return (np.random.default_rng(seed).random(n) < share).astype(float).tolist()


def baseline(n: int = 2_000, seed: int = 1) -> Baseline:
    """A baseline of quality."""
    return freeze(Sample.of(quality(n, seed)), JUDGE)


def baselines() -> dict[str, Baseline]:
    """Baselines of all metrics that are gated by default."""
    return {
        "quality": baseline(),
        "hallucination": freeze(Sample.of(harm(2_000, 2, 0.05)), JUDGE),
        "toxicity": freeze(Sample.of([0.0] * 2_000), JUDGE),
    }


def samples(n: int, seed: int, drop: float = 0.0) -> dict[str, Sample]:
    """New scores of the same metrics; only quality drops."""
    return {
        "quality": Sample.of(quality(n, seed, drop)),
        "hallucination": Sample.of(harm(n, seed + 1, 0.05)),
        "toxicity": Sample.of([0.0] * n),
    }
