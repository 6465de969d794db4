"""Judge or application: anchors that move tell, and an alarm is blamed on what moved."""

import json
import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from optiinfra_pipelines.quality.control import Anchors, Scores, application_shift, attribute, judge_shift
from optiinfra_pipelines.quality.policy import METRICS, Policy
from optiinfra_pipelines.quality.sample import Sample
from optiinfra_pipelines_tests.quality.scores import baseline, quality

QUALITY, POLICY = METRICS["quality"], Policy()
DAY = datetime(2026, 11, 1, tzinfo=UTC)
NAMES = [f"anchor-{number:02d}" for number in range(40)]
TRUTH = np.random.default_rng(1).uniform(0.1, 0.95, len(NAMES))


def scoring(seed: int, moved: float = 0.0, noise: float = 0.05) -> Scores:
    """The anchors' scores by a judge that moved by so much and scatters."""
    scores = TRUTH + moved + np.random.default_rng(seed).normal(0, noise, len(NAMES))
    return dict(zip(NAMES, np.clip(scores, 0, 1).tolist(), strict=True))


def anchors(seed: int = 0) -> Anchors:
    return Anchors.frozen([scoring(1_000 * seed + repeat) for repeat in range(5)])


def days(count: int, seed: int, moved: float = 0.0, first: int = 0) -> dict[datetime, Scores]:
    return {DAY + timedelta(days=first + day): scoring(seed + day, moved) for day in range(count)}


def test_a_judge_that_keeps_its_measure_raises_no_alarm_in_half_a_year() -> None:
    frozen = anchors()
    states = frozen.step(frozen.start(POLICY), days(180, 50), POLICY)
    assert [state["alarms"] for state in states.values()] == [0, 0]


@pytest.mark.parametrize(("moved", "direction"), [(-0.03, "down"), (0.03, "up")])
def test_a_judge_that_moves_by_three_points_is_found_within_days_in_its_direction(moved: float, direction: str) -> None:
    frozen = anchors()
    states = frozen.step(frozen.start(POLICY), days(10, 70) | days(8, 90, moved, first=10), POLICY)
    assert [bad for bad, state in states.items() if state["alarm"]] == [direction]
    began = datetime.fromisoformat(states[direction]["change_start"])
    assert abs(began - (DAY + timedelta(days=10))) <= timedelta(days=2)


def test_days_that_were_seen_change_nothing() -> None:
    frozen, all_days = anchors(), days(12, 30, -0.02)
    once = frozen.step(frozen.start(POLICY), all_days, POLICY)
    again = frozen.step(frozen.step(once, all_days, POLICY), dict(list(all_days.items())[:5]), POLICY)
    assert json.dumps(again) == json.dumps(once)


def test_a_judge_that_always_repeats_itself_still_has_a_scatter() -> None:
    exact = Anchors.frozen([scoring(0, noise=0.0)] * 3)
    states = exact.step(exact.start(POLICY), {DAY: scoring(0, 0.001, noise=0.0)}, POLICY)
    assert not any(state["alarm"] for state in states.values())
    shift = judge_shift(exact, QUALITY, [scoring(0, 0.001, noise=0.0)])
    assert shift is not None
    assert shift.change < 2 * shift.error


def test_scoring_the_same_anchors_again_makes_no_more_anchors() -> None:
    exact = Anchors.frozen([scoring(0, noise=0.0)] * 3)
    uneven = {name: score - 0.25 * (number % 2) for number, (name, score) in enumerate(exact.means.items())}
    shift = judge_shift(exact, QUALITY, [uneven] * 30)
    assert shift is not None
    assert shift.change == pytest.approx(0.125)
    assert shift.error == pytest.approx(0.125 / math.sqrt(len(NAMES) - 1))


def test_of_a_hundred_judges_swapped_for_stricter_ones_no_application_is_blamed() -> None:
    blamed = {"application": 0, "both": 0, "judge": 0, "undetermined": 0}
    for seed in range(100):
        frozen = baseline(seed=seed)
        since = Sample.of(quality(600, 5_000 + seed, drop=0.03))
        judge = judge_shift(anchors(seed), QUALITY, [scoring(9_000 + 10 * seed + repeat, -0.03) for repeat in range(3)])
        blamed[attribute(QUALITY, 0.05, application_shift(frozen, QUALITY, since), judge).cause] += 1
    assert blamed["application"] == blamed["both"] == 0
    assert blamed["judge"] >= 95


def test_of_a_hundred_applications_that_dropped_no_judge_is_blamed_alone() -> None:
    causes = []
    for seed in range(100):
        since = Sample.of(quality(200, 7_000 + seed, drop=0.12))
        judge = judge_shift(anchors(seed), QUALITY, [scoring(8_000 + seed)])
        causes.append(attribute(QUALITY, 0.05, application_shift(baseline(seed=seed), QUALITY, since), judge).cause)
    assert causes.count("application") >= 95
    assert causes.count("judge") == 0


def test_where_both_changed_both_are_named() -> None:
    since = Sample.of(quality(400, 3, drop=0.16))
    judge = judge_shift(anchors(), QUALITY, [scoring(400 + day, -0.04) for day in range(3)])
    found = attribute(QUALITY, 0.05, application_shift(baseline(), QUALITY, since), judge)
    assert found.cause == "both"
    assert found.sentence.endswith("the judge changed, and the application beyond it")


def test_without_anchors_since_the_change_nobody_is_blamed() -> None:
    shift = application_shift(baseline(), QUALITY, Sample.of(quality(200, 3, drop=0.12)))
    assert judge_shift(anchors(), QUALITY, []) is None
    assert judge_shift(anchors(), QUALITY, [{"a new anchor": 0.5}]) is None
    found = attribute(QUALITY, 0.05, shift, None)
    assert found.cause == "undetermined"
    assert "score them before you act" in found.sentence


def test_one_scoring_of_the_anchors_does_not_show_how_they_scatter() -> None:
    with pytest.raises(ValueError, match="two scorings"):
        Anchors.frozen([scoring(1)])
