"""Time as this project cuts it: 15-minute windows, days, billing periods. Pure; every time is UTC and every interval
half-open, `start` in and `end` out. What is missing or due is decided elsewhere, from what the warehouse holds."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

WINDOW = timedelta(minutes=15)
DAY = timedelta(days=1)
# Clouds restate a month until about its tenth day: Azure closes on the 5th, AWS and commercial tools by the 10th.
LAST_REFRESH_DAY = 10

_PERIOD = re.compile(r"[12]\d{3}-(0[1-9]|1[0-2])")


class Window(NamedTuple):
    """A half-open interval of UTC time: `start` belongs to it, `end` does not."""

    start: datetime
    end: datetime

    def contains(self, at: datetime) -> bool:
        """Whether the moment `at` lies in the window; ValueError for a time without a zone."""
        return self.start <= as_utc(at) < self.end


def as_utc(at: datetime) -> datetime:
    """The same moment in UTC; ValueError for a time without a zone."""
    if at.tzinfo is None or at.utcoffset() is None:
        raise ValueError(f"{at.isoformat()} has no time zone; say which moment it is, for example with tzinfo=UTC")
    return at.astimezone(UTC)


def floor_window(at: datetime) -> datetime:
    """Start of the 15-minute window that `at` lies in."""
    at = as_utc(at)
    return at.replace(minute=at.minute - at.minute % 15, second=0, microsecond=0)


def floor_day(at: datetime) -> datetime:
    """Start of the UTC day that `at` lies in."""
    return as_utc(at).replace(hour=0, minute=0, second=0, microsecond=0)


def windows(start: datetime, end: datetime) -> Iterator[Window]:
    """Every 15-minute window that shares time with [start, end), in order; none where `end` is not after `start`."""
    return _steps(floor_window(start), as_utc(start), as_utc(end), WINDOW)


def days(start: datetime, end: datetime) -> Iterator[Window]:
    """Every UTC day that shares time with [start, end), in order; none where `end` is not after `start`."""
    return _steps(floor_day(start), as_utc(start), as_utc(end), DAY)


def _steps(at: datetime, start: datetime, end: datetime, step: timedelta) -> Iterator[Window]:
    while at < end and start < end:
        yield Window(at, at + step)
        at += step


@dataclass(frozen=True, order=True)
class BillingPeriod:
    """One calendar month of a bill, written `YYYY-MM` as in FOCUS exports and in this project's slices.

    ValueError where `key` is not such a month of the years 1000 to 2999.
    """

    key: str

    def __post_init__(self) -> None:
        if not _PERIOD.fullmatch(self.key):
            raise ValueError(f"{self.key!r} is not a billing period; write year and month, for example '2026-10'")

    def __str__(self) -> str:
        return self.key

    @classmethod
    def of(cls, at: datetime) -> "BillingPeriod":
        """The period that the moment `at` lies in, by UTC."""
        at = as_utc(at)
        return cls(f"{at.year:04d}-{at.month:02d}")

    @property
    def start(self) -> datetime:
        """First moment of the month."""
        return datetime(int(self.key[:4]), int(self.key[5:]), 1, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """First moment after the month."""
        # 31 days after its first moment every month is over, and none of them is more than a month ago
        return (self.start + 31 * DAY).replace(day=1)

    @property
    def previous(self) -> "BillingPeriod":
        return BillingPeriod.of(self.start - DAY)

    @property
    def next(self) -> "BillingPeriod":
        return BillingPeriod.of(self.end)

    def contains(self, at: datetime) -> bool:
        """Whether the moment `at` lies in the month, by UTC."""
        return self.start <= as_utc(at) < self.end


def billing_periods(start: datetime, end: datetime) -> Iterator[BillingPeriod]:
    """Every billing period that shares time with [start, end), in order; none where `end` is not after `start`."""
    if as_utc(start) >= as_utc(end):
        return
    period = BillingPeriod.of(start)
    while period.start < end:
        yield period
        period = period.next


def periods_to_refresh(now: datetime) -> tuple[BillingPeriod, ...]:
    """The billing periods to collect again at `now`: the current one and, through the whole UTC 10th of the month
    (the 10th included), the one before it. Older ones are due only when their source says that they changed."""
    current = BillingPeriod.of(now)
    return (current, current.previous) if as_utc(now).day <= LAST_REFRESH_DAY else (current,)
