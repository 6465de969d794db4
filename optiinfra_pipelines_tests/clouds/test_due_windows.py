"""Which windows are due: what is missing, what came too early to be whole, and nothing twice."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from optiinfra_pipelines.clouds.collection import SETTLED, due_windows
from optiinfra_pipelines.windows import DAY, WINDOW, Window, floor_window, windows

MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
TODAY = Window(MIDNIGHT, MIDNIGHT + DAY)
moments = st.timedeltas(timedelta(0), 2 * DAY).map(lambda after: MIDNIGHT + after)


def at(hour: int, minute: int = 0, second: int = 0) -> datetime:
    return MIDNIGHT.replace(hour=hour, minute=minute, second=second)


def starts(found: list[Window]) -> list[str]:
    return [f"{window.start:%H:%M}" for window in found]


def test_on_a_days_first_tick_every_window_that_is_over_is_due() -> None:
    assert starts(due_windows("metrics", TODAY, at(0, 46), [])) == ["00:00", "00:15", "00:30"]


def test_a_window_is_due_when_it_is_over_and_not_before() -> None:
    assert due_windows("metrics", TODAY, at(0, 14, 59), []) == []
    assert starts(due_windows("metrics", TODAY, at(0, 15), [])) == ["00:00"]


def test_interactions_of_a_window_are_due_some_minutes_after_it_is_over() -> None:
    assert due_windows("llm_interactions", TODAY, at(0, 19, 59), []) == []
    assert starts(due_windows("llm_interactions", TODAY, at(0, 20), [])) == ["00:00"]


def test_a_window_that_was_read_fresh_is_due_once_more_when_it_has_settled() -> None:
    tried = [(at(0, 0), at(0, 15, 3))]
    assert "00:00" not in starts(due_windows("metrics", TODAY, at(1, 14), tried))
    assert "00:00" in starts(due_windows("metrics", TODAY, at(1, 15), tried))
    tried.append((at(0, 0), at(1, 15, 2)))
    assert "00:00" not in starts(due_windows("metrics", TODAY, at(9, 0), tried))


def test_a_window_of_a_failed_tick_stays_due() -> None:
    tried = [(at(0, 0), at(2)), (at(0, 30), at(2))]
    assert "00:15" in starts(due_windows("metrics", TODAY, at(2), tried))


def test_a_day_gone_by_is_due_whole_and_ends_at_midnight() -> None:
    found = due_windows("metrics", TODAY, MIDNIGHT + 3 * DAY, [])
    assert len(found) == 96
    assert (found[0].start, found[-1].end) == (TODAY.start, TODAY.end)


@given(st.lists(moments, min_size=1, max_size=40))
def test_whenever_ticks_come_each_window_that_settled_was_read_after_it_settled(ticks: list[datetime]) -> None:
    tried: list[tuple[datetime, datetime]] = []
    reads: dict[datetime, int] = {}
    for now in sorted(ticks):
        for window in due_windows("metrics", TODAY, now, tried):
            assert window.end <= now
            reads[window.start] = reads.get(window.start, 0) + 1
            tried.append((window.start, now))
    last = max(ticks)
    over = {window.start for window in windows(TODAY.start, min(TODAY.end, floor_window(last)))}
    settled = {start for start in over if start + WINDOW + SETTLED <= last}
    assert set(reads) == over
    assert settled <= {start for start, began in tried if began >= start + WINDOW + SETTLED}
    assert max(reads.values(), default=0) <= 2


def test_inventory_is_due_once_in_a_quarter_of_an_hour_and_only_today() -> None:
    assert starts(due_windows("inventory", TODAY, at(10, 20), [])) == ["10:15"]
    assert due_windows("inventory", TODAY, at(10, 29), [(at(10, 15), at(10, 20))]) == []
    assert due_windows("inventory", TODAY, MIDNIGHT + DAY, []) == []


def test_prices_are_due_once_a_day() -> None:
    assert due_windows("prices", TODAY, at(3, 20), []) == [TODAY]
    assert due_windows("prices", TODAY, at(23), [(MIDNIGHT, at(3, 20))]) == []
