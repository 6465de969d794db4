"""Deployments: a model or variant that is new in its stream, seen from the data, or one that somebody told of.

Labels that were there within the first day of a stream began with it and were never deployed.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.gate.scores import Activity, Label, read_activity
from optiinfra_pipelines.gate.writing import Row, label_columns, row_id, write_changed
from optiinfra_pipelines.tables.gate import DEPLOYMENTS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import DAY

_BEGAN_WITH_IT = DAY
_SAME = timedelta(days=7)  # a label seen within a week after somebody told of it is that deployment
_BESIDE = DAY  # labels last seen within a day of each other ran side by side


@dataclass(frozen=True)
class Deployment:
    """A label that began to answer at `deployed_at`."""

    id: str
    label: Label
    deployed_at: datetime
    told: bool = False
    note: str = ""


def tell(
    warehouse: Warehouse, customer_id: str, label: Label, deployed_at: datetime, note: str, now: datetime
) -> Deployment:
    """Record a deployment that the data need not show, such as of a prompt; telling again changes nothing. ValueError
    for a stream (provider and application) that was never seen."""
    made = Deployment(row_id(customer_id, *label.parts, deployed_at), label, deployed_at, True, note)
    with warehouse.session() as held:
        streams = {each.stream for each in read_activity(held, customer_id, now).labels()}
        if label.stream not in streams:
            seen = ", ".join(sorted(" ".join(each) for each in streams)) or "nothing yet"
            raise ValueError(f"{customer_id} has no {' '.join(label.stream)}; seen are: {seen}")
        if made.id not in {each.id for each in _told(held, customer_id, deployed_at + DAY)}:
            write_deployments(held, customer_id, {}, [made], {}, now)
    return made


def find_deployments(held: Warehouse, customer_id: str, activity: Activity) -> list[Deployment]:
    """All deployments before `activity.until`, the earliest first."""
    told = _told(held, customer_id, activity.until)
    labels = activity.labels()
    began: dict[tuple[str, str], datetime] = {}
    for label, (first, _) in labels.items():
        began[label.stream] = min(first, began.get(label.stream, first))
    found = list(told)
    for label, (first, _) in labels.items():
        known = any(each.label == label and timedelta(0) <= first - each.deployed_at <= _SAME for each in told)
        if first >= began[label.stream] + _BEGAN_WITH_IT and not known:
            found.append(Deployment(row_id(customer_id, *label.parts), label, first))
    return sorted(found, key=lambda each: (each.deployed_at, each.id))


@dataclass(frozen=True)
class Standing:
    """The newest deployment of a label: when it began, what it is held against, and since when it is `accepted`: by an
    APPROVE, or by a baseline that somebody froze of it; None: not yet."""

    at: datetime
    previous: Label | None
    accepted: datetime | None


def predecessor(deployment: Deployment, activity: Activity, deployed: Mapping[Label, Standing]) -> Label | None:
    """What a deployment is held against: the label that answered before it, of several the one most like it.

    In place of a label that was deployed and not accepted by then stands what that one was held against: else drops
    within the margin would add up from deployment to deployment.
    """
    last = {
        label: seen
        for label in activity.labels()
        if label.stream == deployment.label.stream
        and (seen := activity.last_before(label, deployment.deployed_at)) is not None
    }
    if not last:
        return None
    newest = max(last.values())
    beside = [label for label, seen in last.items() if seen >= newest - _BESIDE]
    ours = deployment.label
    found: Label | None = min(
        beside,
        key=lambda each: (each != ours, each.variant != ours.variant, each.model_name != ours.model_name, each),
    )
    passed: set[Label] = set()
    while found is not None and found not in passed:
        passed.add(found)
        known = deployed.get(found)
        if known is None or (known.accepted is not None and known.accepted <= deployment.deployed_at):
            break
        found = known.previous
    return found


def write_deployments(
    held: Warehouse,
    customer_id: str,
    names: Mapping[str, str],
    deployments: Collection[Deployment],
    before: Mapping[str, Label | None],
    now: datetime,
) -> int:
    """Write deployments with what each is held against, by deployment id; how many rows changed."""
    rows: list[Row] = []
    for each in deployments:
        previous = before.get(each.id)
        rows.append(
            {
                "deployment_id": each.id,
                **label_columns(customer_id, each.label, names),
                "deployed_at": each.deployed_at,
                "previous_model": previous.model_name if previous else None,
                "previous_variant": previous.variant if previous else None,
                "told": each.told,
                "note": each.note,
            }
        )
    return write_changed(held, DEPLOYMENTS, rows, "customer_id = $customer", {"customer": customer_id}, now)


def _told(held: Warehouse, customer_id: str, until: datetime) -> list[Deployment]:
    rows = held.query(
        f"SELECT * FROM {held.current(DEPLOYMENTS)} d WHERE customer_id = $customer AND told AND deployed_at < $until",
        {"customer": customer_id, "until": naive_utc(until)},
    ).to_pylist()
    return [
        Deployment(
            row["deployment_id"],
            Label.of(row),
            row["deployed_at"],
            True,
            row["note"],
        )
        for row in rows
    ]
