"""What is concluded from a customer's scores of one day, and two jobs by which people take part in it: telling of a
deployment, and freezing baselines."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from optiinfra_pipelines.defs.partitions import CUSTOMER_DAYS, customer_and_day
from optiinfra_pipelines.defs.quality.assets import quality_spec
from optiinfra_pipelines.defs.warehouse_resource import CustomersResource, WarehouseResource
from optiinfra_pipelines.tables.gate import GATE_TABLES
from optiinfra_pipelines.windows import as_utc


@dg.multi_asset(
    specs=[
        quality_spec(table, kinds={"python"}, deps=[["quality", "application_metrics"]], partitions_def=CUSTOMER_DAYS)
        for table in GATE_TABLES
    ],
    partitions_def=CUSTOMER_DAYS,
)
def gate(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, customers: CustomersResource
) -> Iterator[dg.MaterializeResult]:
    """Judges one customer's day: deployments against frozen baselines, streams by monitors, variants side by side; then
    asks for the rollback of what is rejected and answers."""
    from optiinfra_pipelines.gate.judging import judge_customer
    from optiinfra_pipelines.gate.rejections import follow_up

    customer_id, day = customer_and_day(context.partition_key)
    customer, now = customers.load().customer(customer_id), datetime.now(UTC)
    opened, settings = warehouse.open(context.run_id), warehouse.settings()
    judged = judge_customer(opened, customer, day, now)
    for row in judged.verdicts:
        context.log.info(f"{row['verdict']} of {row['application_id']} ({row['model_name']}): {row['reason']}")
    followed = follow_up(opened, settings, customer, now, f"{settings.web_url}/runs/{context.run_id}")
    for each in followed:
        if each.error:
            context.log.error(each.error)
    rejected = sum(row["verdict"] == "REJECT" for row in judged.verdicts)
    stand = {
        "deployments": {"deployments": judged.deployments},
        "baselines": {"frozen": judged.baselines},
        "verdicts": {
            "looks": len(judged.verdicts),
            "rejected": rejected,
        },
        "monitor_states": {"monitors": len(judged.states), "alarms": sum(row["alarm"] for row in judged.states)},
        "comparisons": {"comparisons": len(judged.comparisons), "decisions": "; ".join(_decisions(judged.comparisons))},
        "rollback_requests": {each.application_id: each.rollback or "no webhook" for each in followed},
        "explanations": {each.application_id: each.explanation for each in followed},
    }
    for table in GATE_TABLES:
        written = {"rows_written": judged.written.get(table.name, 0)}
        yield dg.MaterializeResult(asset_key=[table.schema, table.name], metadata={**stand[table.name], **written})


def _decisions(rows: list[dict[str, object]]) -> Iterator[str]:
    for row in rows:
        if row["metric_type"] == "quality":
            yield f"{row['application_id']}: {row['variant_b']} instead of {row['variant_a']} {row['sentence']}"


class ToldDeployment(dg.Config):
    """A deployment that the data need not show, such as of a prompt. `deployed_at` in ISO 8601, with its zone."""

    customer: str
    provider: str
    application: str
    model: str
    variant: str = ""
    deployed_at: str
    note: str = ""


@dg.op
def tell_deployment(
    context: dg.OpExecutionContext, config: ToldDeployment, warehouse: WarehouseResource, customers: CustomersResource
) -> None:
    """Records the deployment; the day it lies in judges it when it is materialised next. Fails for a customer or an
    application that nothing is known of."""
    from optiinfra_pipelines.gate.deployments import tell
    from optiinfra_pipelines.gate.scores import Label

    label = Label(config.provider, config.application, config.model, config.variant)
    at = as_utc(datetime.fromisoformat(config.deployed_at))
    customer = customers.load().customer(config.customer)
    made = tell(warehouse.open(context.run_id), customer.id, label, at, config.note, datetime.now(UTC))
    context.log.info(f"deployment {made.id} of {label} at {at:%Y-%m-%d %H:%M} UTC")


class FrozenBaselines(dg.Config):
    """Whose baselines are frozen: of one customer or of all, of the applications named or of all; from the scores of
    the last four weeks, or from `since` on (ISO 8601, with its zone)."""

    customer: str = ""
    applications: list[str] = []  # noqa: RUF012
    since: str = ""
    note: str = "frozen by hand"


@dg.op
def freeze_baselines(
    context: dg.OpExecutionContext, config: FrozenBaselines, warehouse: WarehouseResource, customers: CustomersResource
) -> None:
    """Freezes the scores of the last four weeks of every model and variant that answered within a week."""
    from optiinfra_pipelines.gate.baselines import freeze_now

    opened, now = warehouse.open(context.run_id), datetime.now(UTC)
    since = as_utc(datetime.fromisoformat(config.since)) if config.since else None
    for customer_id in [config.customer] if config.customer else customers.load().ids:
        made = freeze_now(opened, customer_id, now, config.note, now, config.applications, since)
        context.log.info(f"{customer_id}: {len(made)} baselines")


@dg.job(description="Tells the gate of a deployment that the data need not show, such as of a prompt.")
def tell_deployment_job() -> None:
    tell_deployment()


@dg.job(description="Freezes new baselines from the newest scores: after a judge changed, or a drop was accepted.")
def freeze_baselines_job() -> None:
    freeze_baselines()


baselines_schedule = dg.ScheduleDefinition(
    name="baselines_schedule",
    job=freeze_baselines_job,
    cron_schedule="0 5 1 * *",
    run_config={"ops": {"freeze_baselines": {"config": {"note": "frozen by the monthly schedule"}}}},
    description="Off unless switched on: a baseline of each month takes a slow decline for the norm.",
)
