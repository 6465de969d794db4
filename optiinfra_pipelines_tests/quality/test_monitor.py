"""The monitor: it finds a change and says when it began, can be run again, and keeps its rate of false alarms."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from optiinfra_pipelines.quality.baseline import freeze
from optiinfra_pipelines.quality.calibration import threshold
from optiinfra_pipelines.quality.monitor import Monitor, ScoredWindow
from optiinfra_pipelines.quality.policy import METRICS, Policy, stratum
from optiinfra_pipelines.quality.sample import Sample
from optiinfra_pipelines.windows import WINDOW
from optiinfra_pipelines_tests.benchmarks.gate_streams import FIVE_LEVELS, hourly
from optiinfra_pipelines_tests.quality.scores import baseline, quality

START = datetime(2026, 11, 1, tzinfo=UTC)
QUALITY = METRICS["quality"]


def windows(counts: list[int], seed: int, drop: float = 0.0, first: int = 0) -> list[ScoredWindow]:
    """Windows of so many scores each, one after the other."""
    return [
        ScoredWindow(START + (first + place) * WINDOW, Sample.of(quality(n, seed + place, drop) if n else []))
        for place, n in enumerate(counts)
    ]


def test_a_drop_of_12_points_raises_one_alarm_that_says_when_the_change_began() -> None:
    monitor = Monitor(baseline(), QUALITY, Policy())
    good, bad = windows([20] * 60, 100), windows([20] * 20, 900, 0.12, first=60)
    calm = monitor.step(monitor.start(20), good)
    assert (calm["alarm"], calm["alarms"], calm["windows"]) == (False, 0, 60)
    alarmed = monitor.step(calm, bad)
    assert (alarmed["alarm"], alarmed["alarms"]) == (True, 1)
    raised, began = (datetime.fromisoformat(alarmed[key]) for key in ("alarm_since", "change_start"))
    change = START + 60 * WINDOW
    assert change <= raised <= change + 8 * WINDOW
    assert abs(began - change) <= 3 * WINDOW


def test_an_alarm_ends_when_quality_is_back_and_the_next_change_raises_another() -> None:
    monitor = Monitor(baseline(), QUALITY, Policy())
    state = monitor.step(monitor.start(20), windows([20] * 30, 1, 0.12))
    state = monitor.step(state, windows([20] * 60, 2, 0.0, first=30))
    assert (state["alarm"], state["alarm_since"], state["change_start"]) == (False, None, None)
    state = monitor.step(state, windows([20] * 30, 3, 0.12, first=90))
    assert (state["alarm"], state["alarms"]) == (True, 2)


def test_one_go_and_window_by_window_and_days_run_twice_end_in_the_same_bytes() -> None:
    monitor = Monitor(baseline(), QUALITY, Policy())
    every = windows([20, 0, 7, 41, 1, 0, 20, 33] * 24, 5, 0.02)
    once = monitor.step(monitor.start(20), every)
    state: dict[str, Any] = monitor.start(20)
    for window in every:
        state = monitor.step(json.loads(json.dumps(state)), [window])
    assert json.dumps(state) == json.dumps(once)
    days = [every[:96], every[96:]]
    for day in (days[0], days[0], days[1], days[0], days[1]):
        state = monitor.step(state, reversed(day))
    assert json.dumps(state) == json.dumps(once)
    assert (once["windows"], once["empty_windows"]) == (192, 48)


def test_windows_without_scores_and_with_nothing_usable_change_no_evidence() -> None:
    monitor = Monitor(baseline(), QUALITY, Policy())
    before = monitor.step(monitor.start(20), windows([20] * 10, 6, 0.05))
    unusable = Sample.of([None, float("nan"), 0.0], flagged=[False, False, True])
    after = monitor.step(before, [ScoredWindow(START + 50 * WINDOW, unusable)])
    assert after["score"] == before["score"]
    assert after["betting"] == before["betting"]
    assert (after["windows"], after["empty_windows"]) == (11, 1)


def test_a_state_of_another_baseline_is_refused() -> None:
    state = Monitor(baseline(seed=1), QUALITY, Policy()).start(20)
    with pytest.raises(ValueError, match="start a new one"):
        Monitor(baseline(seed=2), QUALITY, Policy()).step(state, [])


def test_the_betting_test_confirms_a_drop_and_stays_silent_for_a_month_without_one() -> None:
    monitor = Monitor(baseline(), QUALITY, Policy())
    calm = monitor.step(monitor.start(20), windows([20] * 960, 10_000))
    assert not calm["betting_alarm"]
    assert calm["alarms"] <= 1
    assert monitor.step(calm, windows([20] * 20, 7, 0.12, first=960))["betting_alarm"]


def test_the_first_signs_of_a_harm_that_never_happened_before_are_no_alarm_and_a_habit_of_it_is() -> None:
    clean = freeze(Sample.of([0.0] * 2_000))
    monitor = Monitor(clean, METRICS["toxicity"], Policy())
    at = iter(range(1_000))

    def seen(state: dict[str, Any], scores: list[float]) -> dict[str, Any]:
        return monitor.step(state, [ScoredWindow(START + next(at) * WINDOW, Sample.of(scores))])

    state = seen(monitor.start(20), [1.0] + [0.0] * 19)
    assert not state["alarm"]
    for _ in range(8):
        state = seen(state, [1.0, 1.0] + [0.0] * 18)
    assert state["alarm"]


def test_a_metric_without_an_upper_end_is_monitored_without_the_betting_test() -> None:
    rng = np.random.default_rng(6)
    monitor = Monitor(freeze(Sample.of(rng.gamma(4, 200, 2_000).tolist())), METRICS["latency_ms"], Policy())
    slow = [
        ScoredWindow(START + at * WINDOW, Sample.of(rng.gamma(4, 200 if at < 40 else 300, 20).tolist(), [2.0] * 20))
        for at in range(60)
    ]
    calm, alarmed = monitor.step(monitor.start(20), slow[:40]), monitor.step(monitor.start(20), slow)
    assert (calm["alarm"], alarmed["alarm"], alarmed["betting"], alarmed["betting_alarm"]) == (False, True, [], False)


def test_uneven_weights_within_a_window_count_as_fewer_scores() -> None:
    monitor, scores = Monitor(baseline(), QUALITY, Policy()), quality(20, 3, 0.3)
    even, uneven = (
        monitor.step(monitor.start(20), [ScoredWindow(START, Sample.of(scores, weights))])
        for weights in ([3.0] * 20, [1.0, 19.0] * 10)
    )
    assert even["score"] > 0
    assert uneven["score"] < even["score"]


def test_a_smaller_baseline_and_rarer_alarms_ask_for_a_higher_threshold() -> None:
    small, large = (threshold(baseline(n), QUALITY, 20, 2_880) for n in (500, 5_000))
    assert small > 1.3 * large
    assert threshold(baseline(), QUALITY, 20, 28_800) > threshold(baseline(), QUALITY, 20, 2_880) + 1
    assert threshold(baseline(), QUALITY, 20, 2_880) == threshold(baseline(), QUALITY, 20, 2_880)


def test_conversations_do_not_raise_more_alarms_than_were_asked_for() -> None:
    rng, names = np.random.default_rng(3), [f"c{number // 5}" for number in range(2_000)]
    alarms = 0
    for _ in range(8):
        scores = FIVE_LEVELS.conversations(rng, 1, 400)[0].ravel().tolist()
        monitor = Monitor(freeze(Sample.of(scores, sessions=names)), QUALITY, Policy())
        stream = FIVE_LEVELS.conversations(rng, 480, 4).reshape(480, -1)
        state = monitor.start(20)
        each = [
            ScoredWindow(START + place * WINDOW, Sample.of(scores.tolist(), sessions=names[:20]))
            for place, scores in enumerate(stream)
        ]
        alarms += monitor.step(state, each)["alarms"]
    assert alarms <= 5  # 8 streams of 5 days: 1.3 were asked for


def test_a_day_whose_mix_moves_the_mean_is_calm_when_held_against_its_own_hours() -> None:
    rng, day = np.random.default_rng(8), hourly(FIVE_LEVELS)
    hours = [n % 24 for n in range(4_800)]
    frozen = freeze(Sample.of([float(day[h].draw(rng, ())) for h in hours], strata=[stratum(h) for h in hours]))
    blind = freeze(Sample.of(frozen.sample.scores.tolist()))
    stream = []
    for place in range(96 * 10):
        at = START + place * WINDOW
        scores = day[at.hour].draw(rng, (20,)).tolist()
        stream.append(ScoredWindow(at, Sample.of(scores, strata=[stratum(at.hour)] * 20)))
    calm, alarmed = (
        each.step(each.start(20), stream) for each in (Monitor(one, QUALITY, Policy()) for one in (frozen, blind))
    )
    assert calm["alarms"] <= 1 < alarmed["alarms"]


def test_a_state_can_be_stored_as_json() -> None:
    monitor = Monitor(baseline(), QUALITY, Policy())
    state = monitor.step(monitor.start(20), windows([20] * 4, 1))
    assert json.loads(json.dumps(state)) == state
    assert datetime.fromisoformat(state["last_window"]) == START + timedelta(minutes=45)
