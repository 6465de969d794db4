"""How often and for how much the judge may be asked: the account's limits, the day's and the run's money.

Reserve before a request, settle after it. Knows nothing of what is asked; HTTP is in `judge.py`.
"""

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal

ExhaustedKind = Literal["budget", "limit", "throttled", "deadline"]
Wait = Callable[[threading.Condition, float], object]

_MINUTE, _DAY = 60.0, 86_400.0
_LEAST_WAIT = 0.001  # seconds; what floating point leaves of a wait that is over must not become a busy loop
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|d|h|m|s)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Exhausted(Exception):
    """No request may be sent before the deadline: a budget is spent, a limit reached, or the provider said to wait.

    `retry_at` (UTC) is when one may be again; None where only another run or a person can help.
    """

    def __init__(self, kind: ExhaustedKind, reason: str, retry_at: datetime | None) -> None:
        super().__init__(reason)
        self.kind: ExhaustedKind = kind
        self.retry_at = retry_at


@dataclass(frozen=True, slots=True)
class Spent:
    """What was used up on this UTC day before: requests, tokens that count towards limits, USD."""

    requests: int = 0
    tokens: int = 0
    usd: Decimal = Decimal(0)


@dataclass(slots=True, eq=False)
class Reservation:
    """Room for one request: its time on the clock, the most tokens and USD that it may take."""

    at: float
    tokens: int
    usd: Decimal
    in_minute: bool = True


class _Bucket:
    """What the provider says is left of a limit: it fills up steadily, as its reset times show (Groq: 850 of 8000
    tokens used, full again after 6.375 s = 850 / 8000 of a minute)."""

    def __init__(self, size: float, level: float, rate: float, at: float) -> None:
        self.size, self.level, self.rate, self.at = size, level, rate, at

    def fill(self, now: float) -> None:
        self.level = min(self.size, self.level + (now - self.at) * self.rate)
        self.at = now

    def seconds_until(self, amount: float) -> float:
        """How long until `amount` is there; what is larger than the bucket needs a full one."""
        lacking = min(amount, self.size) - self.level
        return lacking / self.rate if lacking > 0 else 0.0


class Limits:
    """Limits on requests, tokens and money, shared by the threads that ask one judge. None is no limit.

    Days are UTC days, a minute is any 60 seconds, and a run lasts as long as this object. `clock` counts seconds that
    deadlines are told in, `now` is the time of day, and `wait(condition, seconds)` passes time: tests give their own.
    """

    def __init__(
        self,
        *,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        requests_per_day: int | None = None,
        tokens_per_day: int | None = None,
        usd_per_day: Decimal | None = None,
        usd_per_run: Decimal | None = None,
        spent: Spent = Spent(),
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        wait: Wait = threading.Condition.wait,
    ) -> None:
        self.clock, self.now = clock, now
        self._minute_limits = (requests_per_minute, tokens_per_minute)
        self._day_limits = (requests_per_day, tokens_per_day)
        self._usd_per_day, self._usd_per_run = usd_per_day, usd_per_run
        self._wait = wait
        self._condition = threading.Condition()
        self._day = now().date()
        self._requests, self._tokens, self._usd_today = spent.requests, spent.tokens, spent.usd
        self._usd_in_run = Decimal(0)
        self._open: set[Reservation] = set()
        self._reserved_tokens, self._reserved_usd = 0, Decimal(0)
        self._minute: deque[Reservation] = deque()
        self._minute_tokens = 0
        self._buckets: dict[str, _Bucket] = {}
        self._paused_until = float("-inf")
        self._known = requests_per_minute is not None or tokens_per_minute is not None

    @property
    def usd_in_run(self) -> Decimal:
        """What the requests of this run have cost, without those in flight."""
        return self._usd_in_run

    def reserve(self, tokens: int, usd: Decimal, deadline: float) -> Reservation:
        """Room for a request of at most `tokens` and `usd`; waits for it where a minute, a pause or the end of calls
        in flight will bring it before `deadline` (of `clock`), else raises Exhausted.

        Where no limit per minute is set, requests go one by one until an answer was learned from.
        """
        with self._condition:
            while True:
                now = self.clock()
                if now >= deadline:
                    raise Exhausted("deadline", "the time of this run for asking the judge is over", self.now())
                self._pass_time(now)
                refusal = self._refusal(tokens, usd, Decimal(0), 0, 0)
                if refusal:
                    raise refusal
                alone = not self._known and self._open  # many at once would be refused where the limits are small
                if alone or self._refusal(tokens, usd, self._reserved_usd, self._reserved_tokens, len(self._open)):
                    self._wait(self._condition, deadline - now)  # calls in flight may turn out cheaper
                    continue
                seconds, kind, why = self._seconds_to_wait(now, tokens)
                if seconds <= 0:
                    return self._take(now, tokens, usd)
                if now + seconds >= deadline:
                    if kind == "throttled" or not self._open:
                        raise Exhausted(kind, why, self.now() + timedelta(seconds=seconds))
                    seconds = deadline - now  # calls in flight hold more than they will have taken
                self._wait(self._condition, max(seconds, _LEAST_WAIT))

    def exhausted(self, tokens: int, usd: Decimal) -> Exhausted | None:
        """Why no request of `tokens` and `usd` could be sent today or in this run, with nothing in flight."""
        with self._condition:
            self._pass_time(self.clock())
            return self._refusal(tokens, usd, Decimal(0), 0, 0)

    def settle(self, reservation: Reservation, tokens: int, usd: Decimal) -> None:
        """The request was sent and took `tokens` (those that count towards limits) and `usd`."""
        with self._condition:
            self._close(reservation)
            if reservation.in_minute:
                self._minute_tokens += tokens - reservation.tokens
            if "tokens" in self._buckets:
                self._buckets["tokens"].level += reservation.tokens - tokens
            reservation.tokens = tokens
            self._pass_time(self.clock())
            self._requests += 1
            self._tokens += tokens
            self._usd_today += usd
            self._usd_in_run += usd

    def give_back(self, reservation: Reservation) -> None:
        """The request was never sent."""
        with self._condition:
            self._close(reservation)
            if reservation.in_minute:
                self._minute.remove(reservation)
                self._minute_tokens -= reservation.tokens
            for name, bucket in self._buckets.items():
                bucket.level += reservation.tokens if name == "tokens" else 1

    def learn(self, headers: Mapping[str, str]) -> None:
        """Take over what an answer's x-ratelimit-* headers tell; settle its own reservation before.

        By names in lower case. Groq counts requests by the day and tokens by the minute; the reset time tells in any
        case how fast a limit recovers. Calls in flight are taken off what remains, counted by the provider or not.
        """
        with self._condition:
            self._known = True
            for name, period in (("requests", _DAY), ("tokens", _MINUTE)):
                limit, left = (_number(headers.get(f"x-ratelimit-{what}-{name}")) for what in ("limit", "remaining"))
                if not limit or left is None:
                    continue
                reset = duration(headers.get(f"x-ratelimit-reset-{name}", ""))
                rate = (limit - left) / reset if reset and left < limit else limit / period
                in_flight = self._reserved_tokens if name == "tokens" else len(self._open)
                self._buckets[name] = _Bucket(limit, max(left - in_flight, 0), rate, self.clock())
            self._condition.notify_all()

    def pause(self, until: float) -> None:
        """Let nobody send a request before `until` (of `clock`): the provider said so."""
        with self._condition:
            self._paused_until = max(self._paused_until, until)

    def _pass_time(self, now: float) -> None:
        while self._minute and self._minute[0].at + _MINUTE <= now:
            past = self._minute.popleft()
            past.in_minute = False
            self._minute_tokens -= past.tokens
        for bucket in self._buckets.values():
            bucket.fill(now)
        today = self.now().date()
        if today != self._day:
            self._day = today
            self._requests, self._tokens, self._usd_today = 0, 0, Decimal(0)

    def _refusal(
        self, tokens: int, usd: Decimal, usd_in_flight: Decimal, tokens_in_flight: int, in_flight: int
    ) -> Exhausted | None:
        """Why a day or the run has no room for the request, beside what is in flight."""
        price = usd + usd_in_flight
        if self._usd_per_run is not None and self._usd_in_run + price > self._usd_per_run:
            reason = f"the run's budget of {self._usd_per_run} USD is spent ({self._usd_in_run} USD)"
            return Exhausted("budget", f"{reason}; the next run goes on, or raise LLM_BUDGET_USD_PER_RUN", None)
        tomorrow = datetime.combine(self._day + timedelta(days=1), datetime.min.time(), UTC)
        if self._usd_per_day is not None and self._usd_today + price > self._usd_per_day:
            reason = f"the day's budget of {self._usd_per_day} USD is spent ({self._usd_today} USD)"
            return Exhausted("budget", f"{reason}; it goes on tomorrow, or raise LLM_BUDGET_USD_PER_DAY", tomorrow)
        requests_limit, tokens_limit = self._day_limits
        if requests_limit is not None and self._requests + in_flight + 1 > requests_limit:
            reason = f"the day's {requests_limit} requests are used up"
            return Exhausted("limit", f"{reason}; it goes on tomorrow, or raise LLM_REQUESTS_PER_DAY", tomorrow)
        if tokens_limit is not None and self._tokens + tokens_in_flight + tokens > tokens_limit:
            reason = f"of the day's {tokens_limit} tokens {self._tokens} are used"
            return Exhausted("limit", f"{reason}; it goes on tomorrow, or raise LLM_TOKENS_PER_DAY", tomorrow)
        return None

    def _seconds_to_wait(self, now: float, tokens: int) -> tuple[float, ExhaustedKind, str]:
        """The longest of all waits, and whose it is."""
        waits: list[tuple[float, ExhaustedKind, str]] = [
            (self._paused_until - now, "throttled", "the provider asked to wait"),
            (self._seconds_in_minute(now, tokens), "limit", "the limit per minute is reached"),
        ]
        for name, bucket in self._buckets.items():
            seconds = bucket.seconds_until(tokens if name == "tokens" else 1)
            waits.append((seconds, "limit", f"the provider's limit of {bucket.size:g} {name} is reached"))
        return max(waits, key=lambda each: each[0])

    def _seconds_in_minute(self, now: float, tokens: int) -> float:
        requests_limit, tokens_limit = self._minute_limits
        count, held = len(self._minute), self._minute_tokens
        seconds = 0.0
        for each in self._minute:  # oldest first: how many of them have to pass by
            few = requests_limit is None or count < requests_limit
            if few and (tokens_limit is None or held + min(tokens, tokens_limit) <= tokens_limit):
                break
            seconds = each.at + _MINUTE - now
            count, held = count - 1, held - each.tokens
        return seconds

    def _take(self, now: float, tokens: int, usd: Decimal) -> Reservation:
        reservation = Reservation(now, tokens, usd)
        self._open.add(reservation)
        self._reserved_tokens += tokens
        self._reserved_usd += usd
        self._minute.append(reservation)
        self._minute_tokens += tokens
        for name, bucket in self._buckets.items():
            bucket.level -= tokens if name == "tokens" else 1
        return reservation

    def _close(self, reservation: Reservation) -> None:
        if reservation not in self._open:
            raise ValueError("this reservation was settled or given back before")
        self._open.remove(reservation)
        self._reserved_tokens -= reservation.tokens
        self._reserved_usd -= reservation.usd
        self._condition.notify_all()


def duration(text: str) -> float | None:
    """Seconds of a duration such as 1m26.4s, 2h3m, 120ms or 6; None where it is none."""
    parts = _DURATION.findall(text)
    if parts and "".join(amount + unit for amount, unit in parts) == text:
        return sum(float(amount) * _SECONDS[unit] for amount, unit in parts)
    return _number(text)


def _number(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"\d+(\.\d+)?", text) else None
