"""Two variants: the difference of quality and of cost with intervals, and one decision in one sentence."""

import json
import math

import numpy as np
import pytest

from optiinfra_pipelines.quality.comparison import Arm, compare, compare_shadow
from optiinfra_pipelines.quality.policy import METRICS, Policy
from optiinfra_pipelines_tests.benchmarks.gate_streams import FIVE_LEVELS
from optiinfra_pipelines_tests.quality.scores import harm, quality

QUALITY, POLICY = METRICS["quality"], Policy()


def arm(n: int, seed: int, drop: float = 0.0, cost: float = 0.002, prefix: str = "u") -> Arm:
    """A variant's requests, three a user, with costs that scatter."""
    costs = cost * np.random.default_rng(seed + 1).gamma(4, 0.25, n)
    return Arm(quality(n, seed, drop), [f"{prefix}{number // 3}" for number in range(n)], costs.tolist())


def shadow(n: int, seed: int, share: float, drop: float) -> tuple[Arm, Arm]:
    """Both variants on the same prompts: a share of answers is alike."""
    rng = np.random.default_rng(seed)
    first, second = FIVE_LEVELS.draw(rng, (n,)), FIVE_LEVELS.worse(drop).draw(rng, (n,))
    second = np.where(rng.random(n) < share, first, second)
    users = [f"u{number // 2}" for number in range(n)]
    cost = 0.002 * rng.gamma(4, 0.25, n)
    return Arm(first.tolist(), users, cost.tolist()), Arm(second.tolist(), users, (0.6 * cost).tolist())


def test_a_cheaper_variant_as_good_as_the_other_is_approved_in_one_sentence() -> None:
    found = compare(arm(2_000, 1), arm(2_000, 2, cost=0.00124, prefix="v"), QUALITY, POLICY)
    assert found.verdict == "APPROVE"
    assert found.sentence == "saves 36 % (34 to 38 %) and is non-inferior within 5 points, n = 2000"
    assert (found.n_a, found.n_b, found.users_a, found.paired) == (2_000, 2_000, 667, False)
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_cheaper_variant_that_is_worse_is_rejected() -> None:
    found = compare(arm(600, 1), arm(600, 2, drop=0.12, cost=0.001, prefix="v"), QUALITY, POLICY)
    assert found.verdict == "REJECT"
    assert "and is worse by" in found.sentence
    assert found.difference is not None
    assert found.worse == pytest.approx(-found.difference, abs=1e-3)


def test_on_the_same_prompts_fewer_of_them_are_enough() -> None:
    a, b = shadow(400, 3, 0.8, 0.0)
    paired, split = compare_shadow(a, b, QUALITY, POLICY), compare(a, b, QUALITY, POLICY)
    assert paired.verdict == "APPROVE"
    assert paired.sentence == "saves 40 % (40 to 40 %) and is non-inferior within 5 points, n = 400"
    assert split.verdict == "INCONCLUSIVE"
    assert (paired.upper or 0) < (split.upper or 0)


def test_the_sign_flips_find_a_small_lasting_difference_and_are_the_same_each_time() -> None:
    same, worse = (compare_shadow(*shadow(600, 4, 0.7, drop), QUALITY, POLICY) for drop in (0.0, 0.12))
    assert same.p_value is not None
    assert worse.p_value is not None
    assert worse.p_value < 0.001 < 0.05 < same.p_value
    assert compare_shadow(*shadow(600, 4, 0.7, 0.12), QUALITY, POLICY) == worse


def test_prompts_that_one_variant_has_no_score_for_do_not_count() -> None:
    a, b = shadow(300, 5, 0.5, 0.0)
    gaps = Arm([None if n % 3 == 0 else s for n, s in enumerate(b.scores)], b.users, b.costs)
    found = compare_shadow(a, gaps, QUALITY, POLICY)
    assert (found.n_a, found.n_b) == (200, 200)
    with pytest.raises(ValueError, match="zip"):
        compare_shadow(a, Arm(b.scores[:9], b.users[:9]), QUALITY, POLICY)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    quality_held = cost_held = 0
    for seed in range(400):
        a, b = arm(300, 3 * seed), arm(300, 3 * seed + 1, drop=0.05, cost=0.0012, prefix="v")
        found = compare(a, b, QUALITY, POLICY)
        quality_held += (found.difference_low or 0) <= -0.05 <= (found.difference_high or 0)
        cost_held += (found.saving_low or 0) <= 0.4 <= (found.saving_high or 0)
    assert 0.92 <= quality_held / 400 <= 0.98
    assert 0.92 <= cost_held / 400 <= 0.98


def test_a_variant_worse_by_its_margin_is_hardly_ever_called_non_inferior() -> None:
    approved = sum(
        compare(arm(600, 3 * seed), arm(600, 3 * seed + 1, drop=0.05, prefix="v"), QUALITY, POLICY).verdict == "APPROVE"
        for seed in range(300)
    )
    assert approved <= 7  # 2.5 %


def test_more_of_a_harm_counts_against_a_variant() -> None:
    users = [f"u{number}" for number in range(900)]
    a, b = Arm(harm(900, 1, 0.02), users), Arm(harm(900, 2, 0.12), [f"v{user}" for user in users])
    assert compare(a, b, METRICS["hallucination"], POLICY).verdict == "REJECT"
    assert compare(b, a, METRICS["hallucination"], POLICY).verdict == "APPROVE"


def test_two_variants_without_any_harm_are_non_inferior_to_each_other() -> None:
    clean = Arm([0.0] * 2_000, [None] * 2_000)
    found = compare(clean, clean, METRICS["toxicity"], POLICY)
    assert found.verdict == "APPROVE", found.sentence


@pytest.mark.parametrize(
    ("b", "said"),
    [
        (Arm([], []), "too few scores to compare: 600 and 0, 30 needed, n = 0"),
        (Arm([None, math.nan] * 30, [None] * 60), "too few scores to compare"),
        (Arm(quality(90, 1), ["one"] * 90, [0.001] * 90), "scores of 1.0 users do not compare, 20 needed"),
        (Arm([7.0] * 90, [None] * 90), "90 scores lie outside 0 to 1"),
        (Arm([0.87] * 900, [None] * 900), "is not judged: all 900 scores are 0.87"),
    ],
    ids=["empty", "nan", "one user", "out of range", "constant"],
)
def test_what_cannot_be_compared_is_said_and_never_approved(b: Arm, said: str) -> None:
    found = compare(arm(600, 1), b, QUALITY, POLICY)
    assert found.verdict == "INCONCLUSIVE"
    assert said in found.sentence
    json.dumps(found.to_dict(), allow_nan=False)


def test_costs_that_do_not_differ_for_sure_and_costs_that_rise_are_said_as_such() -> None:
    a = arm(300, 1)
    assert compare(a, arm(300, 9, prefix="v"), QUALITY, POLICY).sentence.startswith("costs about the same (saves -")
    assert compare(a, arm(300, 2, cost=0.003, prefix="v"), QUALITY, POLICY).sentence.startswith("costs 6")
    free = compare(a, Arm(quality(300, 2), [None] * 300), QUALITY, POLICY)
    assert (free.saving, free.cost_b) == (None, None)
