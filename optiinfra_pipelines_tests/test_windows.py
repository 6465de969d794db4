from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optiinfra_pipelines.windows import (
    DAY,
    WINDOW,
    BillingPeriod,
    Window,
    as_utc,
    billing_periods,
    days,
    floor_day,
    floor_window,
    periods_to_refresh,
    windows,
)

ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(2000, 1, 2), datetime(2100, 1, 1), timezones=ZONES)
LENGTHS = st.timedeltas(timedelta(0), timedelta(days=3))
PERIODS = st.builds(lambda year, month: f"{year:04d}-{month:02d}", st.integers(1000, 2999), st.integers(1, 12))


@given(at=MOMENTS)
def test_a_moment_lies_in_the_window_it_is_floored_to(at: datetime):
    start = floor_window(at)
    assert start.tzinfo is UTC
    assert start <= at < start + WINDOW
    assert (start.minute % 15, start.second, start.microsecond) == (0, 0, 0)
    assert floor_window(start) == start


@given(at=MOMENTS)
def test_a_moment_lies_in_the_utc_day_it_is_floored_to(at: datetime):
    start = floor_day(at)
    assert start <= at < start + DAY
    assert (start.hour, start.minute, start.tzinfo) == (0, 0, UTC)


@given(start=MOMENTS, length=LENGTHS, cut=st.sampled_from([(windows, WINDOW), (days, DAY)]))
def test_windows_tile_a_half_open_interval_without_gap_or_overlap(start: datetime, length: timedelta, cut):
    pieces, step = cut
    end = start + length
    found = list(pieces(start, end))
    if not length:
        assert found == []
        return
    assert found[0].contains(start)
    assert found[-1].start < end <= found[-1].end
    assert all(piece.end - piece.start == step for piece in found)
    assert all(left.end == right.start for left, right in pairwise(found))


def test_an_interval_that_ends_on_a_border_does_not_reach_into_the_next_window():
    start = datetime(2026, 10, 1, 12, 0, tzinfo=UTC)
    assert list(windows(start, start + WINDOW)) == [Window(start, start + WINDOW)]
    assert list(windows(start + WINDOW, start)) == []


@pytest.mark.parametrize("cut", [as_utc, floor_window, floor_day, BillingPeriod.of, periods_to_refresh])
def test_a_time_without_a_zone_is_refused(cut):
    with pytest.raises(ValueError, match="no time zone"):
        cut(datetime(2026, 10, 1))


@given(key=PERIODS)
def test_a_billing_period_is_its_calendar_month(key: str):
    period = BillingPeriod(key)
    assert str(period) == key
    assert BillingPeriod.of(period.start) == period
    assert period.contains(period.start)
    assert period.contains(period.end - timedelta(microseconds=1))
    assert not period.contains(period.end)
    assert period.end.day == 1


@given(key=PERIODS.filter(lambda key: "1000-01" < key < "2999-12"))
def test_neighbouring_billing_periods_touch(key: str):
    period = BillingPeriod(key)
    assert period.previous.end == period.start
    assert period.next.start == period.end
    assert period.previous.next == period.next.previous == period
    assert period.previous < period < period.next


@given(at=MOMENTS)
def test_a_moment_belongs_to_the_month_it_has_in_utc(at: datetime):
    assert BillingPeriod.of(at).contains(at)
    assert BillingPeriod.of(at).key == at.astimezone(UTC).strftime("%Y-%m")


@pytest.mark.parametrize(
    "key", ["2026-13", "2026-00", "26-10", "2026-1", "2026-10-01", "2026/10", "", "0999-01", "２０２６-10"]
)
def test_what_is_no_month_is_no_billing_period(key: str):
    with pytest.raises(ValueError, match="not a billing period"):
        BillingPeriod(key)


@given(start=MOMENTS, length=st.timedeltas(timedelta(0), timedelta(days=800)))
def test_billing_periods_cover_an_interval_and_nothing_beside_it(start: datetime, length: timedelta):
    end = start + length
    found = list(billing_periods(start, end))
    if not length:
        assert found == []
        return
    assert found[0].contains(start)
    assert found[-1].start < end <= found[-1].end
    assert all(left.next == right for left, right in pairwise(found))


@pytest.mark.parametrize(
    ("now", "periods"),
    [
        (datetime(2026, 10, 1, tzinfo=UTC), ["2026-10", "2026-09"]),
        (datetime(2026, 10, 10, 23, 59, 59, tzinfo=UTC), ["2026-10", "2026-09"]),
        (datetime(2026, 10, 11, tzinfo=UTC), ["2026-10"]),
        (datetime(2027, 1, 5, tzinfo=UTC), ["2027-01", "2026-12"]),
        (datetime(2026, 10, 11, 1, tzinfo=timezone(timedelta(hours=2))), ["2026-10", "2026-09"]),
    ],
)
def test_the_previous_period_is_refreshed_through_the_whole_tenth_of_the_month(now: datetime, periods: list[str]):
    assert [str(period) for period in periods_to_refresh(now)] == periods
