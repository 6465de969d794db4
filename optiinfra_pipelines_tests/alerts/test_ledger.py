import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optiinfra_pipelines.alerts.ledger import MOST_ALERTS, MOST_FAILING, Cursor, Ledger, Observation, Page
from optiinfra_pipelines.alerts.message import Alert
from optiinfra_pipelines.alerts.notifier import DeliveryError, deliver


def observe(position: int, subject: str, failure: str | None) -> Observation:
    """An observation whose alert can be told from every other by its link."""
    alert = Alert(
        kind="failed_check" if failure else "recovered_check",
        customer="acme",
        provider="aws",
        asset=subject,
        check="rows_conform",
        severity="ERROR",
        numbers=(),
        link=f"{position}/{subject}/{failure}",
    )
    return Observation(position, subject, failure, alert)


def reader(log: list[Observation], most: int = 1000):
    """Reads `log` as an event log is read: after a position, at most `most` observations, never half a position."""

    def read(after: int | None) -> Page:
        left = [seen for seen in log if seen.position > (after or 0)]
        cut = left[most - 1].position if len(left) > most else None
        page = [seen for seen in left if cut is None or seen.position <= cut]
        return Page(page, page[-1].position if page else after or 0)

    return read


@dataclass
class Channel:
    """A notifier that accepts or refuses as its plan says, then always accepts."""

    name: str
    plan: list[bool]

    def __post_init__(self) -> None:
        self.arrived: list[str] = []

    def send(self, alerts) -> None:
        if self.plan and not self.plan.pop(0):
            raise DeliveryError("transient", "refused")
        self.arrived += [alert.link for alert in alerts]


def transitions(log: list[Observation]) -> list[str]:
    """What a person with nothing else to do would say of the log: every change, in order."""
    state: dict[str, str | None] = {}
    said = []
    for seen in log:
        if state.get(seen.subject) != seen.failure:
            said.append(seen.alert.link if seen.alert else "")
        state[seen.subject] = seen.failure
    return said


@st.composite
def logs(draw: st.DrawFn) -> list[Observation]:
    steps = draw(st.lists(st.lists(st.sampled_from("abcd"), unique=True, max_size=4), max_size=30))
    failures = st.sampled_from([None, None, "WARN", "ERROR"])
    return [observe(at, subject, draw(failures)) for at, subjects in enumerate(steps, 1) for subject in subjects]


@given(
    log=logs(), most=st.integers(1, 40), plans=st.lists(st.lists(st.booleans(), max_size=10), min_size=1, max_size=3)
)
def test_whatever_fails_on_the_way_each_channel_gets_each_change_once_and_in_order(log, most, plans):
    channels = [Channel(f"channel-{number}", list(plan)) for number, plan in enumerate(plans)]
    cursor: str | None = None
    for _ in range(len(log) + 11):  # every tick moves on, or uses up one refusal of a plan of at most ten
        cursor = deliver(Cursor.parse(cursor), channels, reader(log, most)).cursor.to_json()
    for channel in channels:
        assert channel.arrived == transitions(log)


def test_the_same_failure_is_due_once_and_its_recovery_once():
    log = [observe(1, "a", "ERROR"), observe(2, "a", "ERROR"), observe(3, "a", None), observe(4, "a", None)]
    ledger, due = Ledger(0).after(Page(log, 4))
    assert [alert.link for alert in due] == ["1/a/ERROR", "3/a/None"]
    assert ledger == Ledger(4, {})


def test_a_warning_that_becomes_an_error_is_news():
    log = [observe(1, "a", "WARN"), observe(2, "a", "WARN"), observe(3, "a", "ERROR")]
    assert [alert.link for alert in Ledger(0).after(Page(log, 3))[1]] == ["1/a/WARN", "3/a/ERROR"]


def test_what_was_always_well_is_never_told():
    assert Ledger(0).after(Page([observe(1, "a", None)], 7)) == (Ledger(7), ())


def test_what_stops_failing_without_a_recovery_to_tell_is_forgotten_in_silence():
    gone = Observation(2, "a", None, None)
    ledger, due = Ledger(0).after(Page([observe(1, "a", "ERROR"), gone], 2))
    assert len(due) == 1
    assert not ledger.failing


def test_a_storm_is_told_in_portions_and_one_run_is_never_split():
    log = [observe(at, f"{at}-{part}", "ERROR") for at in range(1, 5) for part in range(8)]
    portions = []
    ledger = Ledger(0)
    while ledger.position != 4:
        ledger, due = ledger.after(reader(log)(ledger.position))
        portions.append(len(due))
    assert portions == [16, 16]
    crowded = [observe(1, str(part), "ERROR") for part in range(MOST_ALERTS + 5)]
    assert len(Ledger(0).after(Page(crowded, 1))[1]) == MOST_ALERTS + 5


def test_the_memory_of_failures_is_bounded_and_keeps_the_newest():
    log = [observe(at, f"subject-{at}", "ERROR") for at in range(1, MOST_FAILING + 101)]
    ledger = Ledger(0)
    while ledger.position != log[-1].position:
        ledger, _ = ledger.after(reader(log)(ledger.position))
    assert len(ledger.failing) == MOST_FAILING
    assert "subject-1" not in ledger.failing
    assert f"subject-{MOST_FAILING + 100}" in ledger.failing


def test_a_rotated_token_continues_where_the_old_channel_stood():
    log = [observe(1, "a", "ERROR"), observe(2, "b", "ERROR")]
    told = deliver(Cursor({"old": Ledger(1, {"a": "ERROR"})}), [new := Channel("new", [])], reader(log))
    assert new.arrived == ["2/b/ERROR"]
    assert set(told.cursor.ledgers) == {"new"}


def test_a_cursor_survives_the_way_through_json():
    cursor = Cursor({"log": Ledger(12, {"raw.aws_billing|rows_conform|acme|2026-10": "ERROR"}), "new": Ledger()})
    assert Cursor.parse(cursor.to_json()) == cursor
    assert Cursor.parse(None) == Cursor.parse("") == Cursor()


def test_a_cursor_that_somebody_mangled_is_an_error_and_not_a_fresh_start():
    with pytest.raises(json.JSONDecodeError):
        Cursor.parse("{mangled")
