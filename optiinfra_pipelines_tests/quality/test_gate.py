"""The gate's verdicts: what is rejected, approved and left open, and that nothing broken is ever approved."""

import json
import math
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiinfra_pipelines.quality.baseline import Baseline, freeze
from optiinfra_pipelines.quality.gate import Verdict, judge_gate
from optiinfra_pipelines.quality.policy import METRICS, Metric, Policy, stratum
from optiinfra_pipelines.quality.sample import Sample
from optiinfra_pipelines_tests.benchmarks.gate_streams import FIVE_LEVELS, hourly
from optiinfra_pipelines_tests.quality.scores import JUDGE, baseline, baselines, harm, quality, samples

ONE = Policy(metrics={"quality": METRICS["quality"]})


def judged(sample: Sample | None, frozen: Baseline | None = None, policy: Policy = ONE, look: int = 1) -> Verdict:
    found = {} if sample is None else {"quality": sample}
    return judge_gate({"quality": frozen or baseline()}, found, policy, look, [JUDGE])


def test_a_drop_from_87_to_75_percent_is_rejected_with_its_evidence() -> None:
    verdict = judge_gate(baselines(), samples(200, 7, drop=0.12), Policy(), fingerprints=[JUDGE])
    assert (verdict.verdict, verdict.final, verdict.more_needed) == ("REJECT", True, None)
    found = {each.metric: each for each in verdict.metrics}["quality"]
    assert found.verdict == "REJECT"
    assert found.estimate is not None
    assert found.lower is not None
    assert found.upper is not None
    assert found.estimate >= 0.05
    assert 0 < found.lower < found.estimate < found.upper
    assert (found.n, found.n_sessions, found.baseline_n, found.margin) == (200, 200, 2_000, 0.05)
    assert "quality: worse by" in verdict.reason
    assert "the margin is 5 points" in verdict.reason


def test_an_unchanged_application_is_approved_once_all_gated_metrics_are_surely_within_their_margins() -> None:
    verdict = judge_gate(baselines(), samples(900, 3), Policy(), fingerprints=[JUDGE])
    assert verdict.verdict == "APPROVE"
    assert [each.metric for each in verdict.metrics] == ["hallucination", "quality", "toxicity"]
    assert all(
        each.upper is not None and each.margin is not None and each.upper < each.margin for each in verdict.metrics
    )


def test_more_of_a_harm_is_worse_and_less_of_it_is_not() -> None:
    frozen = {"hallucination": freeze(Sample.of(harm(2_000, 1, 0.1)), JUDGE)}
    policy = Policy(metrics={"hallucination": METRICS["hallucination"]})
    more, less = (judge_gate(frozen, {"hallucination": Sample.of(harm(400, 2, p))}, policy) for p in (0.3, 0.03))
    assert more.verdict == "REJECT"
    assert less.verdict == "APPROVE"


def test_twenty_scores_five_points_lower_are_noise_and_not_a_verdict() -> None:
    verdict = judged(Sample.of([1.0] * 14 + [0.5] * 5 + [0.75]))
    assert verdict.verdict == "INCONCLUSIVE"
    assert verdict.reason == "quality: 20 scores; a verdict needs 30 at least"


def test_an_open_verdict_says_how_many_scores_are_missing_and_that_many_are_enough() -> None:
    rng = np.random.default_rng(5)
    scores = FIVE_LEVELS.draw(rng, (150,)).tolist()
    first = judged(Sample.of(scores))
    assert first.verdict == "INCONCLUSIVE"
    assert first.more_needed is not None
    # the same mean and spread over as many scores as it asked for
    whole = math.ceil((150 + first.more_needed) / 150) * scores
    assert judged(Sample.of(whole)).verdict == "APPROVE"


def test_no_amount_of_scores_is_asked_for_where_only_a_larger_baseline_helps() -> None:
    verdict = judged(Sample.of(quality(400, 3, drop=0.03)), baseline(210))
    assert verdict.verdict == "INCONCLUSIVE"
    assert verdict.more_needed is None


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        (None, "nothing was scored yet"),
        (Sample.of([]), "nothing was scored yet"),
        (
            Sample.of([None, math.nan, math.inf] * 50),
            "no score is usable: 0 are flagged as text that addresses the judge",
        ),
        (Sample.of([1.0] * 300, flagged=[True] * 300), "300 are flagged as text that addresses the judge"),
        (Sample.of([1.0] * 5), "5 scores; a verdict needs 30 at least"),
        (Sample.of([1.0] * 300), "all 300 scores are 1: is the judge or the application stuck?"),
        (Sample.of([0.87] * 3_000), "all 3000 scores are 0.87"),
        (Sample.of([0.75, *[1.0] * 299]), "299 of 300 scores are 1: is the judge or the application stuck?"),
        (Sample.of(quality(400, 2), sessions=["one"] * 400), "400 scores count like 1.0 sessions; a verdict needs 20"),
        (Sample.of(quality(400, 2), weights=[1e9] + [1.0] * 399), "400 scores count like 1.0 sessions"),
        (Sample.of(quality(400, 2), weights=[None] * 400), "no score is usable"),
    ],
    ids=[
        "absent",
        "empty",
        "nan",
        "flagged",
        "thin",
        "perfect",
        "constant",
        "nearly",
        "session",
        "heavy",
        "weightless",
    ],
)
def test_scores_that_show_nothing_get_a_reason_and_never_a_verdict(sample: Sample | None, said: str) -> None:
    verdict = judged(sample)
    assert verdict.verdict == "INCONCLUSIVE"
    assert said in verdict.reason
    json.dumps(verdict.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("frozen", "judges", "said"),
    [
        ({}, [JUDGE], "there is no baseline of this judge yet"),
        ({"quality": baseline(150)}, [JUDGE], "the baseline has 150 scores and needs 200"),
        (
            {"quality": freeze(Sample.of(quality(900, 1), sessions=["a", "b", "c"] * 300), JUDGE)},
            [JUDGE],
            "the baseline counts like 3.0 sessions and needs 20",
        ),
        ({"quality": baseline()}, [JUDGE, "judge-2"], "scores of 2 judges do not compare (judge-1, judge-2)"),
        ({"quality": baseline()}, ["judge-2"], "scores of 2 judges do not compare (judge-1, judge-2)"),
    ],
    ids=["none", "small", "few sessions", "mixed", "other"],
)
def test_a_baseline_that_does_not_fit_gets_a_reason_and_never_a_verdict(
    frozen: dict[str, Baseline], judges: list[str], said: str
) -> None:
    verdict = judge_gate(frozen, {"quality": Sample.of(quality(400, 2))}, ONE, 1, judges)
    assert verdict.verdict == "INCONCLUSIVE"
    assert said in verdict.reason
    assert verdict.metrics[0].n == 400


def test_a_gated_metric_without_scores_keeps_the_others_from_being_approved_but_not_from_being_rejected() -> None:
    good, bad = samples(900, 3), samples(300, 3, drop=0.15)
    del good["toxicity"], bad["toxicity"]
    assert judge_gate(baselines(), good, Policy()).verdict == "INCONCLUSIVE"
    assert judge_gate(baselines(), bad, Policy()).verdict == "REJECT"


def test_an_application_that_only_gives_worthless_answers_is_rejected_although_its_scores_are_constant() -> None:
    assert judged(Sample.of([0.0] * 60)).verdict == "REJECT"


def test_a_policy_without_gated_metrics_approves_nothing() -> None:
    verdict = judge_gate(baselines(), samples(900, 3), Policy(metrics={}))
    assert (verdict.verdict, verdict.reason) == ("INCONCLUSIVE", "no metric is gated")


def test_a_deployment_still_open_at_its_deadline_is_held_or_rejected_as_the_policy_says_and_never_approved() -> None:
    sample = Sample.of(quality(120, 4, drop=0.04))
    assert not judged(sample, look=95).final
    held = judged(sample, look=96)
    assert (held.verdict, held.final) == ("INCONCLUSIVE", True)
    assert "held for a person to decide" in held.reason
    strict = Policy(metrics=ONE.metrics, at_deadline="reject")
    assert judged(sample, policy=strict, look=95).verdict == "INCONCLUSIVE"
    assert judged(sample, policy=strict, look=96).verdict == "REJECT"


def test_the_same_scores_in_any_order_and_at_any_look_give_the_same_bytes() -> None:
    scores, names = quality(300, 6, 0.05), [f"c{number // 4}" if number % 3 else None for number in range(300)]
    weights = [1 + number % 7 / 3 for number in range(300)]
    rows = list(zip(scores, weights, names, strict=True))
    said = set()
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        one, two, three = zip(*rows, strict=True)
        said.add(json.dumps(judged(Sample.of(one, two, three)).to_dict()))
    assert len(said) == 1
    assert (
        judged(Sample.of(scores, weights, names), look=50).metrics == judged(Sample.of(scores, weights, names)).metrics
    )


def test_a_stored_baseline_gives_the_same_verdict_as_the_one_that_was_stored() -> None:
    sample, frozen = Sample.of(quality(300, 6)), baseline()
    stored = Baseline.from_dict(json.loads(json.dumps(frozen.to_dict())))
    assert judged(sample, stored) == judged(sample, frozen)


def test_conversations_count_as_conversations_and_not_as_their_turns() -> None:
    scores = [each for each in quality(60, 8, 0.12) for _ in range(5)]
    alone, together = Sample.of(scores), Sample.of(scores, sessions=[f"c{number // 5}" for number in range(300)])
    assert judged(alone).verdict == "REJECT"
    wide, narrow = judged(together).metrics[0], judged(alone).metrics[0]
    assert wide.estimate == narrow.estimate
    assert (wide.lower or 0) < (narrow.lower or 0)


def test_scores_sampled_unevenly_are_weighed_back() -> None:
    # one hard answer in five of the traffic, every other one in the sample
    rng = np.random.default_rng(9)
    easy, hard = FIVE_LEVELS.worse(-0.02), FIVE_LEVELS.worse(0.08)
    scores = [*easy.draw(rng, (600,)), *hard.draw(rng, (600,))]
    assert judged(Sample.of(scores, weights=[1.6] * 600 + [0.4] * 600)).verdict == "APPROVE"
    estimate = judged(Sample.of(scores)).metrics[0].estimate
    assert estimate is not None
    assert estimate > 0.02


def test_a_deployment_at_night_is_held_against_the_baseline_s_nights() -> None:
    rng = np.random.default_rng(10)
    hours = [hour for hour in range(24) for _ in range(250)]
    day = hourly(FIVE_LEVELS)
    frozen = freeze(Sample.of([float(day[h].draw(rng, ())) for h in hours], strata=[stratum(h) for h in hours]), JUDGE)
    plain = freeze(Sample.of(frozen.sample.scores.tolist()), JUDGE)
    night = [hour for hour in (10, 11, 12, 13) for _ in range(250)]
    scores = [float(day[h].draw(rng, ())) for h in night]
    by_hour = judged(Sample.of(scores, strata=[stratum(h) for h in night]), frozen).metrics[0]
    by_mean = judged(Sample.of(scores), plain).metrics[0]
    assert by_hour.estimate is not None
    assert by_mean.estimate is not None
    assert abs(by_hour.estimate) < 0.015 < by_mean.estimate


def test_a_margin_can_be_a_share_of_the_baseline_and_scores_can_lack_an_upper_end() -> None:
    rng = np.random.default_rng(3)
    latency = Policy(metrics={"latency_ms": Metric("latency_ms", "up", 0.1, True, True, 0, math.inf)})
    frozen = {"latency_ms": freeze(Sample.of(rng.gamma(4, 200, 2_000).tolist()))}
    slower, same = rng.gamma(4, 260, 600).tolist(), rng.gamma(4, 200, 4_000).tolist()
    rejected, approved = (judge_gate(frozen, {"latency_ms": Sample.of(each)}, latency) for each in (slower, same))
    assert rejected.verdict == "REJECT"
    assert rejected.metrics[0].margin == pytest.approx(80, rel=0.1)
    assert approved.verdict == "APPROVE"


def test_a_share_of_nothing_is_no_margin() -> None:
    latency = Policy(metrics={"latency_ms": Metric("latency_ms", "up", 0.1, True, True, 0, math.inf)})
    verdict = judge_gate(
        {"latency_ms": freeze(Sample.of([0.0] * 300))}, {"latency_ms": Sample.of([9.0] * 300)}, latency
    )
    assert (verdict.verdict, verdict.metrics[0].reason) == (
        "INCONCLUSIVE",
        "the baseline's mean is 0: a share of it is no margin",
    )


def test_scores_out_of_the_metric_s_range_are_another_metric_s() -> None:
    verdict = judged(Sample.of([87.0, 75.0, *quality(300, 2)]))
    assert verdict.reason == "quality: 2 scores lie outside 0 to 1: they are not of this metric"


def test_with_every_score_that_gets_worse_the_evidence_against_a_deployment_grows() -> None:
    scores = sorted(quality(200, 11, 0.06))
    p_values = []
    for worse in range(0, 60, 10):
        changed = [0.0] * worse + scores[worse:]
        p_values.append(judged(Sample.of(changed)).metrics[0].p_value or 0.0)
    assert all(later <= earlier for earlier, later in pairwise(p_values))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(allow_nan=True), st.floats(0, 1)),
            st.one_of(st.none(), st.floats(-1, 1e6)),
            st.one_of(st.none(), st.sampled_from("abc")),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_whatever_comes_gets_a_verdict_that_json_can_hold(
    rows: list[tuple[float | None, float | None, str | None, bool]],
) -> None:
    scores, weights, sessions, flagged = zip(*rows, strict=True) if rows else ((), (), (), ())
    verdict = judged(Sample.of(scores, weights, sessions, flagged=flagged))
    assert verdict.verdict != "APPROVE"
    json.dumps(verdict.to_dict(), allow_nan=False)
