"""Samples and baselines: what is kept of the scores, how sure their mean is, and that storing them loses nothing."""

import json
import math

import numpy as np
import pytest

from optiinfra_pipelines.quality.baseline import Baseline, freeze
from optiinfra_pipelines.quality.policy import METRICS, Metric, Policy, stratum
from optiinfra_pipelines.quality.sample import Sample
from optiinfra_pipelines_tests.benchmarks.gate_streams import FIVE_LEVELS, hourly
from optiinfra_pipelines_tests.quality.scores import quality


def test_a_sample_leaves_out_what_is_no_score_and_what_is_flagged_and_counts_both() -> None:
    sample = Sample.of([0.5, None, math.nan, math.inf, 1.0, 0.0], flagged=[False, False, False, False, True, False])
    assert sample.scores.tolist() == [0.0, 0.5]
    assert (sample.n, sample.missing, sample.flagged, sample.n_sessions) == (2, 3, 1, 2)


def test_scores_without_a_session_are_each_a_session_of_their_own() -> None:
    sample = Sample.of([1.0, 0.5, 0.25, 0.0], sessions=["b", None, "b", None])
    assert sample.n_sessions == 3
    assert sorted(np.bincount(sample.sessions).tolist()) == [1, 1, 2]


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="3 scores came with 2"):
        Sample.of([1.0, 1.0, 1.0], sessions=["a", "b"])


def test_a_baseline_knows_its_size_mean_spread_and_sessions() -> None:
    frozen = freeze(Sample.of([0.0, 1.0] * 100, sessions=[f"c{number // 4}" for number in range(200)]))
    assert (frozen.n, frozen.n_sessions, frozen.mean, frozen.spread) == (200, 50, 0.5, 0.5)
    assert frozen.error == 0  # every conversation has the same mean


def test_the_error_of_a_baseline_s_mean_is_that_of_its_conversations() -> None:
    rng = np.random.default_rng(1)
    talks = FIVE_LEVELS.conversations(rng, 300, 400, icc=0.3)
    names = [f"c{number // 5}" for number in range(2_000)]
    found = [freeze(Sample.of(each.ravel().tolist(), sessions=names)) for each in talks]
    scatter = float(np.std([each.mean for each in found]))
    assert np.mean([each.error for each in found]) == pytest.approx(scatter, rel=0.12)
    assert np.mean([each.icc for each in found]) == pytest.approx(0.3, abs=0.02)
    alone = freeze(Sample.of(talks[0].ravel().tolist()))
    assert alone.error < 0.8 * scatter


def test_what_is_stored_comes_back_byte_for_byte_and_a_changed_score_is_another_baseline() -> None:
    names = [f"c{number // 3}" if number % 2 else None for number in range(500)]
    sample = Sample.of(
        quality(500, 3), [1 + n % 3 / 7 for n in range(500)], names, [stratum(n % 24) for n in range(500)]
    )
    frozen = freeze(sample, "judge-1")
    stored = json.dumps(frozen.to_dict(), sort_keys=True)
    back = Baseline.from_dict(json.loads(stored))
    assert json.dumps(back.to_dict(), sort_keys=True) == stored
    assert back.key == frozen.key
    assert freeze(sample, "judge-2").key != frozen.key
    assert freeze(Sample.of(quality(500, 4)), "judge-1").key != frozen.key


def test_one_session_is_no_baseline() -> None:
    with pytest.raises(ValueError, match="two sessions at least, not of 1"):
        freeze(Sample.of([0.5] * 50, sessions=["a"] * 50))


def test_hours_that_differ_by_chance_are_drawn_together_and_hours_that_differ_are_told_apart() -> None:
    rng, hours = np.random.default_rng(2), [n % 24 for n in range(4_800)]
    labels = [stratum(hour) for hour in hours]
    names = np.asarray(sorted(set(labels)))
    flat = freeze(Sample.of(FIVE_LEVELS.draw(rng, (4_800,)).tolist(), strata=labels))
    day = hourly(FIVE_LEVELS)
    swinging = freeze(Sample.of([float(day[hour].draw(rng, ())) for hour in hours], strata=labels))
    assert np.ptp(flat.expected(names)) < 0.01
    assert np.ptp(swinging.expected(names)) > 0.04
    assert swinging.expected(np.asarray(["somewhere new"]))[0] == swinging.mean


def test_the_expectation_of_another_mix_of_hours_is_less_sure_than_that_of_the_baseline_s_own() -> None:
    rng, hours = np.random.default_rng(3), [n % 24 for n in range(2_400)]
    day = hourly(FIVE_LEVELS)
    frozen = freeze(Sample.of([float(day[h].draw(rng, ())) for h in hours], strata=[stratum(hour) for hour in hours]))
    own = frozen.expectation_variance(frozen.sample.strata, frozen.sample.weights)
    night = frozen.expectation_variance(np.asarray([stratum(1)] * 100), np.ones(100))
    assert own == pytest.approx(frozen.error**2, rel=0.25)
    assert 2 * own < night < frozen.spread**2 / 300
    assert frozen.error < frozen.typical_error < math.sqrt(night) * 1.5


def test_margins_can_be_changed_by_name_and_are_then_gated() -> None:
    policy = Policy().with_margins({"coherence": 0.03})
    assert policy.gated == ("coherence", "hallucination", "quality", "toxicity")
    assert (policy.metrics["coherence"].margin, METRICS["coherence"].margin) == (0.03, 0.05)
    with pytest.raises(KeyError):
        Policy().with_margins({"charm": 0.03})


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Metric("quality", "down", 0.0),
        lambda: Metric("quality", "down", math.nan),
        lambda: Policy(alpha_reject=0.0),
        lambda: Policy(reject_min=1),
    ],
)
def test_a_policy_that_cannot_hold_is_refused(wrong: "type[Policy]") -> None:
    with pytest.raises(ValueError, match=r"margin|error rates|minimum"):
        wrong()
