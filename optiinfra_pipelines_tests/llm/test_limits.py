"""Limits of the judge: never above what the account allows, never above the budget, no longer wait than needed."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optiinfra_pipelines.llm.limits import Exhausted, Limits, Reservation, Spent, duration

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
USD = Decimal("0.001")


@dataclass
class Clock:
    """Time that passes when somebody waits."""

    seconds: float = 0.0
    waits: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds)

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.seconds += seconds

    def wait(self, _: threading.Condition, seconds: float) -> None:
        self.sleep(seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limited(clock: Clock, **limits: Any) -> Limits:
    return Limits(clock=clock, now=clock.now, wait=clock.wait, **limits)


def refused(ask: Callable[[], Any]) -> Exhausted:
    with pytest.raises(Exhausted) as raised:
        ask()
    return raised.value


def used(limits: Limits, tokens: int = 100, usd: Decimal = USD) -> None:
    limits.settle(limits.reserve(tokens, usd, 1e6), tokens, usd)


def test_without_limits_nobody_waits(clock: Clock):
    limits = limited(clock)
    for _ in range(1000):
        used(limits)
    assert clock.waits == []
    assert limits.usd_in_run == 1


def test_a_minutes_requests_are_waited_for_as_long_as_needed(clock: Clock):
    limits = limited(clock, requests_per_minute=2)
    used(limits)
    clock.seconds = 20
    used(limits)
    used(limits)
    assert clock.waits == [40]
    used(limits)
    assert clock.waits == [40, 20]


def test_a_minutes_tokens_are_those_that_were_used_not_those_reserved(clock: Clock):
    limits = limited(clock, tokens_per_minute=1000)
    limits.settle(limits.reserve(900, USD, 10), 200, USD)
    used(limits, 800)
    assert clock.waits == []
    used(limits, 1)
    assert clock.waits == [60]


def test_a_request_larger_than_a_minutes_tokens_is_left_to_the_provider(clock: Clock):
    limits = limited(clock, tokens_per_minute=1000)
    used(limits, 10)
    limits.reserve(5000, USD, 100)
    assert clock.waits == [60]


def test_a_wait_beyond_the_deadline_is_not_begun(clock: Clock):
    limits = limited(clock, requests_per_minute=1)
    used(limits)
    error = refused(lambda: limits.reserve(1, USD, 60))
    assert (error.kind, error.retry_at, clock.waits) == ("limit", NOON + timedelta(seconds=60), [])
    assert refused(lambda: limits.reserve(1, USD, 0)).kind == "deadline"


def test_what_was_used_today_before_counts_and_midnight_in_utc_ends_it(clock: Clock):
    midnight = NOON + timedelta(hours=12)
    by_requests = limited(clock, requests_per_day=10, spent=Spent(9, 0, Decimal(0)))
    by_tokens = limited(clock, tokens_per_day=1000, spent=Spent(0, 900, Decimal(0)))
    by_budget = limited(clock, usd_per_day=Decimal("0.010"), spent=Spent(0, 0, Decimal("0.009")))
    for limits, kind in ((by_requests, "limit"), (by_tokens, "limit"), (by_budget, "budget")):
        used(limits)
        error = refused(lambda limits=limits: limits.reserve(1, USD, 1e6))
        assert (error.kind, error.retry_at) == (kind, midnight)
    clock.seconds = 12 * 3600
    for limits in (by_requests, by_tokens, by_budget):
        limits.reserve(1, USD, 1e6)
    assert clock.waits == []


def test_the_budget_of_a_run_is_refused_before_it_is_exceeded(clock: Clock):
    limits = limited(clock, usd_per_run=Decimal("0.0025"))
    used(limits)
    used(limits)
    error = refused(lambda: limits.reserve(1, USD, 1e6))
    assert (error.kind, error.retry_at) == ("budget", None)
    assert "LLM_BUDGET_USD_PER_RUN" in str(error)
    limits.reserve(1, Decimal("0.0005"), 1e6)


def test_a_call_that_was_never_sent_takes_nothing(clock: Clock):
    limits = limited(
        clock, requests_per_minute=1, tokens_per_minute=100, requests_per_day=1, tokens_per_day=100, usd_per_run=USD
    )
    for _ in range(3):
        limits.give_back(limits.reserve(100, USD, 10))
    used(limits)
    assert clock.waits == []
    assert refused(lambda: limits.reserve(1, USD, 1e6)).kind == "budget"


def test_a_reservation_is_settled_once(clock: Clock):
    limits = limited(clock)
    reservation = limits.reserve(1, USD, 1)
    limits.settle(reservation, 1, USD)
    for again in (lambda: limits.settle(reservation, 1, USD), lambda: limits.give_back(reservation)):
        with pytest.raises(ValueError, match="before"):
            again()


def test_room_that_calls_in_flight_may_leave_is_waited_for():
    limits = Limits(usd_per_run=Decimal("0.001"))
    first = limits.reserve(1, Decimal("0.0008"), limits.clock() + 60)
    second: list[Reservation] = []
    waiting = threading.Thread(target=lambda: second.append(limits.reserve(1, Decimal("0.0008"), limits.clock() + 60)))
    waiting.start()
    assert second == []
    limits.settle(first, 1, Decimal("0.0002"))
    waiting.join(10)
    assert len(second) == 1


def test_calls_go_one_by_one_until_an_answer_could_tell_the_limits(clock: Clock):
    limits = limited(clock)
    first = limits.reserve(1, USD, 60)
    assert refused(lambda: limits.reserve(1, USD, 30)).retry_at == NOON + timedelta(seconds=30)
    limits.settle(first, 1, USD)
    limits.learn({})
    limits.reserve(1, USD, 60)
    limits.reserve(1, USD, 60)
    assert clock.waits == [30]


def test_unknown_limits_are_kept_once_an_answer_tells_them(clock: Clock):
    limits = limited(clock)
    limits.learn(
        {
            "x-ratelimit-limit-tokens": "8000",
            "x-ratelimit-remaining-tokens": "500",
            "x-ratelimit-reset-tokens": "56.25s",
        }
    )
    limits.reserve(500, USD, 100)
    assert clock.waits == []
    limits.reserve(1000, USD, 100)
    assert clock.waits == [pytest.approx(7.5)]  # 8000 a minute


def test_requests_of_groq_recover_one_by_one_over_the_day(clock: Clock):
    limits = limited(clock)
    limits.learn(
        {
            "x-ratelimit-limit-requests": "1000",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "24h",
        }
    )
    error = refused(lambda: limits.reserve(1, USD, 60))
    assert (error.kind, error.retry_at) == ("limit", NOON + timedelta(seconds=86.4))
    limits.reserve(1, USD, 100)
    assert clock.waits == [pytest.approx(86.4)]


def test_calls_in_flight_are_taken_off_what_an_answer_says_remains(clock: Clock):
    limits = limited(clock)
    limits.reserve(3000, USD, 1)
    limits.learn({"x-ratelimit-limit-tokens": "6000", "x-ratelimit-remaining-tokens": "4000"})
    limits.reserve(1000, USD, 100)
    assert clock.waits == []
    limits.reserve(1500, USD, 100)
    assert clock.waits == [15]


@pytest.mark.parametrize("value", ["", "many", "-1", "1,000", "inf"])
def test_headers_that_are_no_numbers_teach_nothing(clock: Clock, value: str):
    limits = limited(clock)
    limits.learn({"x-ratelimit-limit-tokens": value, "x-ratelimit-remaining-tokens": "0"})
    limits.learn({"x-ratelimit-limit-requests": "10", "x-ratelimit-remaining-requests": value})
    used(limits)
    assert clock.waits == []


def test_a_pause_holds_for_everybody(clock: Clock):
    limits = limited(clock)
    limits.pause(30)
    limits.pause(10)
    error = refused(lambda: limits.reserve(1, USD, 20))
    assert (error.kind, error.retry_at) == ("throttled", NOON + timedelta(seconds=30))
    limits.reserve(1, USD, 60)
    assert clock.waits == [30]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1m26.4s", 86.4),
        ("6.375s", 6.375),
        ("2h3m", 7380),
        ("120ms", 0.12),
        ("1d", 86400),
        ("6", 6),
        ("0s", 0),
        ("", None),
        ("soon", None),
        ("1m soon", None),
    ],
)
def test_durations_are_read_as_groq_writes_them(text: str, seconds: float | None):
    assert duration(text) == (None if seconds is None else pytest.approx(seconds))


@given(
    st.lists(st.tuples(st.integers(1, 400), st.floats(0, 1), st.floats(0, 40)), min_size=1, max_size=40),
    st.integers(1, 5),
    st.integers(400, 900),
)
def test_no_sixty_seconds_ever_hold_more_than_the_limit(
    calls: list[tuple[int, float, float]], requests: int, tokens: int
):
    clock = Clock()
    limits = limited(clock, requests_per_minute=requests, tokens_per_minute=tokens)
    sent: list[tuple[float, int]] = []
    for reserved, share, pause in calls:
        reservation = limits.reserve(reserved, USD, 1e9)
        sent.append((clock.seconds, int(reserved * share)))
        limits.settle(reservation, int(reserved * share), USD)
        clock.seconds += pause
    for end, _ in sent:
        minute = [used for at, used in sent if end - 60 + 1e-6 < at <= end]
        assert len(minute) <= requests
        assert sum(minute) <= tokens


def test_many_threads_together_stay_within_budget_and_limits():
    limits = Limits(requests_per_day=500, usd_per_run=Decimal("0.1"))
    limits.learn({})
    taken: list[Decimal] = []
    refusals: list[str] = []

    def work() -> None:
        while True:
            try:
                reservation = limits.reserve(10, USD, limits.clock() + 30)
            except Exhausted as error:
                refusals.append(error.kind)
                return
            taken.append(USD / 2)
            limits.settle(reservation, 5, USD / 2)

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert refusals == ["budget"] * 32
    assert Decimal("0.099") <= sum(taken) <= Decimal("0.1")
    assert limits.usd_in_run == sum(taken)
