"""From a row of quality.verdicts that rejects a deployment to what follows it: the rollback request, its webhook, and
the facts that an explanation rests on. Sending is in `rollback.py`, writing in `explanations.py`."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.customers import Customer
from optiinfra_pipelines.gate.explanations import MOST_EXAMPLES, Example, Facts
from optiinfra_pipelines.gate.looking import stored_verdict
from optiinfra_pipelines.gate.rollback import Rollback, Webhook
from optiinfra_pipelines.llm.interaction import Texts
from optiinfra_pipelines.quality.policy import METRICS
from optiinfra_pipelines.settings import secret
from optiinfra_pipelines.tables.llm import APPLICATION_METRICS, LLM_INTERACTIONS
from optiinfra_pipelines.warehouse.protocol import Params, Warehouse
from optiinfra_pipelines.windows import floor_window

Row = Mapping[str, Any]
_READ = 2 * MOST_EXAMPLES  # some may speak to the model, which leaves them out


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
        application_id=row["application_id"],
        deployment_id=row["deployment_id"],
        verdict_id=row["verdict_id"],
        judge_fingerprint=row["judge_fingerprint"],
        model_before=row["previous_model"] or "",
        model_after=row["model_name"],
        variant_before=row["previous_variant"] or "",
        variant_after=row["variant"],
        verdict=stored_verdict(json.loads(row["metrics"])),
        run_link=run_link,
    )


def facts_of(warehouse: Warehouse, row: Row) -> Facts:
    """What an explanation of a rejecting row of quality.verdicts may rest on, its worst interactions among it.

    Their texts are those of the warehouse: `explain` redacts them. Raises WarehouseError.
    """
    return Facts(
        application_id=row["application_id"],
        deployment_id=row["deployment_id"],
        verdict_id=row["verdict_id"],
        model_before=row["previous_model"] or "",
        model_after=row["model_name"],
        variant_before=row["previous_variant"] or "",
        variant_after=row["variant"],
        verdict=stored_verdict(json.loads(row["metrics"])),
        examples=_worst(warehouse, row) if row["metric_type"] else (),
    )


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
