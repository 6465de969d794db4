"""What follows a row of quality.verdicts that rejects a deployment: its rollback request and explanation, each once.

Only what still answers is followed up: judging days gone by asks nobody to roll back what was replaced since. Sending
is in `rollback.py`, writing texts in `explanations.py`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
from pydantic import SecretStr

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.customers import Customer
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.gate.explanations import MOST_EXAMPLES, Example, Facts, explain
from optiinfra_pipelines.gate.judges import read_scorings, shift_since
from optiinfra_pipelines.gate.looking import stored_verdict
from optiinfra_pipelines.gate.rollback import Rollback, Webhook, request_rollback
from optiinfra_pipelines.gate.scores import Label, read_activity
from optiinfra_pipelines.gate.standing import baseline_of, verdicts_in_force
from optiinfra_pipelines.llm.interaction import Texts
from optiinfra_pipelines.quality.control import SURE
from optiinfra_pipelines.quality.policy import METRICS
from optiinfra_pipelines.settings import Settings, secret
from optiinfra_pipelines.tables.explanations import EXPLANATIONS
from optiinfra_pipelines.tables.llm import APPLICATION_METRICS, LLM_INTERACTIONS
from optiinfra_pipelines.tables.rollbacks import ROLLBACK_REQUESTS
from optiinfra_pipelines.warehouse.protocol import Params, Warehouse
from optiinfra_pipelines.windows import Window, floor_day, floor_window

Row = Mapping[str, Any]
ANSWERS = timedelta(hours=6)  # since a model's newest score: later it is taken to answer no more
_READ = 2 * MOST_EXAMPLES  # some may speak to the model, which leaves them out


@dataclass(frozen=True)
class Followed:
    """A rejected deployment that still answers, and what was done. `rollback`: how its request stands, `held` where the
    judge moved, `not_configured`, both with the reason in `error`, or None where the application names no webhook."""

    deployment_id: str
    application_id: str
    rollback: str | None
    error: str | None
    explanation: str


def follow_up(
    warehouse: Warehouse, settings: Settings, customer: Customer, now: datetime, run_link: str
) -> list[Followed]:
    """Ask for the rollback of each rejected deployment that answers, and explain it, unless that was done.

    `run_link`: of the run that judged it. In demo mode requests are logged. Raises WarehouseError.
    """
    found = []
    for row in rejected_in_force(warehouse, customer.id, now):
        rollback, error = None, None
        try:
            webhook = webhook_of(customer, row["application_id"])
            if webhook is not None and (moved := judge_moved(warehouse, row, now)):
                rollback, error = "held", moved
            elif webhook is not None:
                asked = request_rollback(warehouse, rollback_of(row, run_link), None if settings.demo else webhook)
                rollback, error = str(asked.status), asked.error
        except CollectionError as refused:
            rollback, error = refused.kind, str(refused)
        text = _explanation(warehouse, settings, customer, row, now)
        found.append(Followed(row["deployment_id"], row["application_id"], rollback, error, text))
    return found


def judge_moved(warehouse: Warehouse, row: Row, now: datetime) -> str:
    """Why a REJECT may be the judge's own: its anchors score worse, by half the margin at least, than when it scored
    the baseline. Empty where they do not, or where they were not scored since."""
    metric = METRICS.get(row["metric_type"] or "")
    baseline = baseline_of(warehouse, row)
    if metric is None or baseline is None:
        return ""
    scorings = read_scorings(warehouse, now).get((row["judge_fingerprint"], metric.name), [])
    shift = shift_since(scorings, metric, row["deployed_at"], baseline["first_at"], baseline["frozen_at"])
    if shift is None or shift.change < max(row["margin"] / 2, SURE * shift.error):
        return ""
    return (
        f"the rollback of {row['application_id']} is held: the judge's anchors are worse by"
        f" {metric.amount(shift.change)} since the deployment; freeze a new baseline, or roll back by hand"
    )


def rejected_in_force(warehouse: Warehouse, customer_id: str, now: datetime) -> list[dict[str, Any]]:
    """The final REJECTs of labels that answered within ANSWERS before `now`, as rows of quality.verdicts."""
    today = Window(floor_day(now - ANSWERS), now)
    rows = [
        row for row in verdicts_in_force(warehouse, customer_id, today) if row["final"] and row["verdict"] == "REJECT"
    ]
    if not rows:
        return []
    seen = read_activity(warehouse, customer_id, now).labels()
    return [row for row in rows if seen[Label.of(row)][1] >= now - ANSWERS]


def rollbacks_in_force(warehouse: Warehouse, customer: Customer, now: datetime) -> list[dict[str, Any]]:
    """How the request of each rejected deployment stands that answers and whose application names a webhook:
    application_id, deployment_id, status (`held` or `not_asked` where none was written) and error."""
    asked = [
        row
        for row in rejected_in_force(warehouse, customer.id, now)
        if customer.application(row["application_id"]).rollback_webhook is not None
    ]
    stored = warehouse.query(
        f"SELECT * FROM {warehouse.current(ROLLBACK_REQUESTS)} r WHERE customer_id = $customer",
        {"customer": customer.id},
    ).to_pylist()
    known = {row["deployment_id"]: row for row in sorted(stored, key=lambda row: row["requested_at"])}
    found = []
    for row in asked:
        moved = "" if row["deployment_id"] in known else judge_moved(warehouse, row, now)
        absent = {"status": "held" if moved else "not_asked", "error": moved or None}
        standing = known.get(row["deployment_id"], absent)
        about = {name: row[name] for name in ("application_id", "deployment_id")}
        found.append(about | {name: standing[name] for name in absent})
    return found


def explanation_of(warehouse: Warehouse, customer_id: str, verdict_id: str) -> str | None:
    """What was said of a verdict; None where nothing was."""
    known = warehouse.query(
        f"SELECT text FROM {warehouse.current(EXPLANATIONS)} e WHERE customer_id = $customer AND verdict_id = $verdict",
        {"customer": customer_id, "verdict": verdict_id},
    ).to_pylist()
    return str(known[0]["text"]) if known else None


def _explanation(warehouse: Warehouse, settings: Settings, customer: Customer, row: Row, now: datetime) -> str:
    """What is said of a verdict; written where it was not yet."""
    known = explanation_of(warehouse, customer.id, row["verdict_id"])
    if known is not None:
        return known
    made = explain(warehouse, settings, customer, facts_of(warehouse, row), now)
    written = {name: row[name] for name in ("verdict_id", "customer_id", "application_id", "deployment_id")}
    written |= {"text": made.text, "written_by": made.written_by, "objections": json.dumps(made.objections)}
    written |= {"cost": made.cost, "collected_at": naive_utc(now)}
    warehouse.upsert(EXPLANATIONS, pa.Table.from_pylist([written], schema=EXPLANATIONS.arrow_schema))
    return made.text


def webhook_of(customer: Customer, application_id: str) -> Webhook | None:
    """Where the application's rollbacks are asked for; None where customers.yaml does not say.

    CollectionError (not_configured) where the variable of its secret is not set, or the address will not do.
    """
    told = customer.application(application_id).rollback_webhook
    if told is None:
        return None
    return Webhook(SecretStr(told.url), secret(told.secret, connection=f"{customer.id}/{application_id}"))


def rollback_of(row: Row, run_link: str) -> Rollback:
    """The rollback request of a rejecting row of quality.verdicts."""
    return Rollback(
        customer_id=row["customer_id"],
        judge_fingerprint=row["judge_fingerprint"],
        run_link=run_link,
        **_rejected(row),
    )


def facts_of(warehouse: Warehouse, row: Row) -> Facts:
    """What an explanation of a rejecting row of quality.verdicts may rest on, its worst interactions among it.

    Their texts are those of the warehouse: `explain` redacts them. Raises WarehouseError.
    """
    return Facts(
        examples=_worst(warehouse, row) if row["metric_type"] else (),
        **_rejected(row),
    )


def _rejected(row: Row) -> dict[str, Any]:
    """What requests and explanations both tell of the rejected deployment."""
    return {
        **{name: row[name] for name in ("application_id", "deployment_id", "verdict_id")},
        "model_before": row["previous_model"] or "",
        "model_after": row["model_name"],
        "variant_before": row["previous_variant"] or "",
        "variant_after": row["variant"],
        "verdict": stored_verdict(json.loads(row["metrics"])),
    }


def _worst(warehouse: Warehouse, row: Row) -> tuple[Example, ...]:
    """The interactions since the deployment that score worst by the metric that decides, the newest of equals first."""
    names = ("customer_id", "provider", "application_id", "model_name", "variant", "judge_fingerprint", "metric_type")
    label: dict[str, Any] = {name: row[name] for name in names}
    span: Params = {"since": naive_utc(row["deployed_at"]), "until": naive_utc(row["looked_at"])}
    order = "ASC" if METRICS[row["metric_type"]].bad == "down" else "DESC"
    equal = " AND ".join(f"{name} = ${name}" for name in names[:5])
    judged = "judge_fingerprint IN ($judge_fingerprint, '') AND timestamp >= $since AND timestamp < $until"
    with warehouse.session() as held:
        scores = held.current(APPLICATION_METRICS)
        found = held.query(
            f"SELECT interaction_id FROM {scores} s WHERE {equal} AND {judged} AND metric_type = $metric_type"
            f" AND NOT flagged ORDER BY score {order}, timestamp DESC, interaction_id LIMIT {_READ}",
            {**label, **span},
        )
        ids: list[str] = found.column("interaction_id").to_pylist()
        listed: Params = {"customer_id": row["customer_id"], "ids": " ".join(ids), **span}
        scored = held.query(
            f"SELECT interaction_id, metric_type, score FROM {scores} s WHERE customer_id = $customer_id AND {judged}"
            " AND position(interaction_id IN $ids) > 0",
            {**listed, "judge_fingerprint": row["judge_fingerprint"]},
        ).to_pylist()
        said = held.query(
            f"SELECT interaction_id, system, context, input, output FROM"
            f" {held.current(LLM_INTERACTIONS[row['provider']])} i WHERE customer_id = $customer_id"
            " AND window_start >= $since AND window_start < $until AND position(interaction_id IN $ids) > 0",
            {**listed, "since": naive_utc(floor_window(row["deployed_at"]))},
        ).to_pylist()
    texts = {each["interaction_id"]: each for each in said}
    gated = {each["metric"] for each in json.loads(row["metrics"])["metrics"]}
    return tuple(
        Example(
            each,
            Texts(**{part: texts[each][part] or "" for part in ("system", "context", "input", "output")}),
            {
                one["metric_type"]: one["score"]
                for one in scored
                if one["interaction_id"] == each and one["metric_type"] in gated
            },
        )
        for each in ids
        if each in texts
    )
