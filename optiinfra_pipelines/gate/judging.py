"""One customer's UTC day judged: deployments looked at, streams monitored, variants compared, and the rows written.

Everything follows from the scores before the end of the day, from what was told, and from what is frozen: the same data
give the same rows in any order of days, and judging a day again writes nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.customers import Customer
from optiinfra_pipelines.gate.baselines import Baselines, write_baselines
from optiinfra_pipelines.gate.comparing import comparison_rows
from optiinfra_pipelines.gate.deployments import (
    Deployment,
    Standing,
    find_deployments,
    predecessor,
    write_deployments,
)
from optiinfra_pipelines.gate.judges import read_scorings
from optiinfra_pipelines.gate.looking import Stored, look_on, stored_looks, verdict_row
from optiinfra_pipelines.gate.monitoring import Day, monitor_rows
from optiinfra_pipelines.gate.scores import Activity, Label, read_activity
from optiinfra_pipelines.gate.writing import Row, write_changed
from optiinfra_pipelines.tables.gate import COMPARISONS, MONITOR_STATES, VERDICTS
from optiinfra_pipelines.warehouse.protocol import Params, Warehouse
from optiinfra_pipelines.windows import Window, floor_window


@dataclass
class Judged:
    """What one customer's day gave: rows of verdicts, monitor states and comparisons as they stand, and how many rows
    of each table changed."""

    verdicts: list[Row] = field(default_factory=list)
    states: list[Row] = field(default_factory=list)
    comparisons: list[Row] = field(default_factory=list)
    deployments: int = 0
    baselines: int = 0
    written: dict[str, int] = field(default_factory=dict)


@dataclass
class _Gate:
    """The deployments of a customer and what is known of them by `until`."""

    deployments: list[Deployment]
    previous: dict[str, Label | None] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    @property
    def deployed(self) -> dict[Label, tuple[Label, datetime]]:
        """Labels that came after another one: that one, and since when; of several deployments the newest."""
        return {
            each.label: (before, each.deployed_at)
            for each in self.deployments
            if (before := self.previous[each.id]) is not None
        }


def judge_streams(warehouse: Warehouse, customers: Iterable[Customer], day: Window, now: datetime) -> dict[str, Judged]:
    """Judge one UTC day of each of the customers, as far as it went by `now`; by customer id."""
    return {customer.id: judge_customer(warehouse, customer, day, now) for customer in customers}


def judge_customer(warehouse: Warehouse, customer: Customer, day: Window, now: datetime) -> Judged:
    """Judge one customer's UTC day, as far as whole 15-minute windows of it were over by `now`, and write the rows."""
    until = min(day.end, floor_window(now))
    if until <= day.start:
        return Judged()
    with warehouse.session() as held:
        activity = read_activity(held, customer.id, until)
        baselines = Baselines(held, customer.id, activity)
        gate = _gate(baselines, customer, day, until)
        applications = {label.application_id for label in activity.labels()}
        policies = {each: customer.application(each).policy for each in applications}
        scorings = read_scorings(held, until)
        states = monitor_rows(Day(baselines, day, until, policies, gate.deployed, scorings))
        named = {each: customer.application(each) for each in applications}
        compared = list(comparison_rows(held, customer.id, activity, day, named))
        judged = Judged(gate.rows, states, compared, len(gate.deployments), len(baselines.made))
        judged.written = _written(held, customer, activity, baselines, gate, judged, day, now)
    return judged


def _gate(baselines: Baselines, customer: Customer, day: Window, until: datetime) -> _Gate:
    """Look at each deployment, the earliest first: one that was not accepted is nothing that a later one is held
    against."""
    activity = baselines.activity
    gate = _Gate(find_deployments(baselines.held, customer.id, activity))
    known = stored_looks(baselines.held, customer.id, day.start, until)
    for each in gate.deployments:
        previous = predecessor(each, activity, baselines.deployed)
        gate.previous[each.id] = previous
        policy = customer.application(each.label.application_id).policy
        stored = known.get(each.id, Stored())
        looks = look_on(baselines, each, previous, policy, stored, until)
        gate.rows += [verdict_row(customer.id, activity.names, each, previous, look) for look in looks]
        final, verdict = stored.final, stored.verdict
        if looks and looks[-1].verdict.final:
            final, verdict = looks[-1].at, looks[-1].verdict.verdict
        approved = final if verdict == "APPROVE" else baselines.told_after(each.label, each.deployed_at)
        accepted = each.deployed_at if previous is None else approved
        baselines.deployed[each.label] = Standing(each.deployed_at, previous, accepted)
    return gate


def _written(
    held: Warehouse,
    customer: Customer,
    activity: Activity,
    baselines: Baselines,
    gate: _Gate,
    judged: Judged,
    day: Window,
    now: datetime,
) -> dict[str, int]:
    """Write what changed; by table, how many rows."""
    of_day: Params = {"customer": customer.id, "day": naive_utc(day.start)}
    first = min((row["looked_at"] for row in judged.verdicts), default=day.start)
    looked: Params = {"customer": customer.id, "first": naive_utc(first)}
    daily = "customer_id = $customer AND day = $day"
    return {
        "deployments": write_deployments(held, customer.id, activity.names, gate.deployments, gate.previous, now),
        "baselines": write_baselines(held, customer.id, activity.names, baselines.made, now),
        "verdicts": write_changed(
            held, VERDICTS, judged.verdicts, "customer_id = $customer AND looked_at >= $first", looked, now
        ),
        "monitor_states": write_changed(held, MONITOR_STATES, judged.states, daily, of_day, now),
        "comparisons": write_changed(held, COMPARISONS, judged.comparisons, daily, of_day, now),
    }
