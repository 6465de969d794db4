"""Checks of what is concluded from scores: the gate's verdicts, rollbacks, monitors, the judge's drift, contracts."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from optiinfra_pipelines.defs.partitions import CUSTOMER_DAYS, customer_and_day
from optiinfra_pipelines.defs.quality.checks import contract_check
from optiinfra_pipelines.defs.rendering import check_result
from optiinfra_pipelines.defs.warehouse_resource import CustomersResource, WarehouseResource
from optiinfra_pipelines.gate_verdicts import (
    no_drift,
    no_drop,
    not_inferior,
    rollbacks_delivered,
    worst_alarm,
    worst_verdict,
)
from optiinfra_pipelines.tables.gate import GATE_TABLES

gate_contract_checks = [contract_check(table) for table in GATE_TABLES]


@dg.asset_check(asset=["quality", "verdicts"], partitions_def=CUSTOMER_DAYS)
def quality_is_not_inferior_to_baseline(
    context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource
) -> dg.AssetCheckResult:
    """Every model and variant that was deployed and answers is non-inferior to its baseline (APPROVE). One that is
    worse is an ERROR (REJECT), one that is undecided a warning (INCONCLUSIVE)."""
    from optiinfra_pipelines.gate.rejections import explanation_of
    from optiinfra_pipelines.gate.standing import picture, verdicts_in_force

    customer_id, day = customer_and_day(context.partition_key)
    opened = warehouse.open(context.run.run_id)
    rows = verdicts_in_force(opened, customer_id, day)
    worst = worst_verdict(rows)
    drawn = picture(opened, worst, min(day.end, datetime.now(UTC)), worst["deployed_at"]) if worst else ""
    said = explanation_of(opened, customer_id, worst["verdict_id"]) if worst else None
    explained = {"explanation": said} if said else {}
    return check_result(not_inferior(rows), customer=customer_id, **_about(worst), **explained, **_shown(drawn))


@dg.asset_check(asset=["quality", "rollback_requests"], partitions_def=CUSTOMER_DAYS)
def rollbacks_are_delivered(
    context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource, customers: CustomersResource
) -> dg.AssetCheckResult:
    """Every rollback that a rejected deployment asks for arrived. Days gone by ask for none."""
    from optiinfra_pipelines.gate.rejections import ANSWERS, rollbacks_in_force

    customer_id, day = customer_and_day(context.partition_key)
    now = datetime.now(UTC)
    if day.end <= now - ANSWERS:
        return check_result(rollbacks_delivered([]), customer=customer_id)
    opened, customer = warehouse.open(context.run.run_id), customers.load().customer(customer_id)
    return check_result(rollbacks_delivered(rollbacks_in_force(opened, customer, now)), customer=customer_id)


@dg.asset_check(asset=["quality", "monitor_states"], partitions_def=CUSTOMER_DAYS)
def no_drop_is_seen(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource) -> dg.AssetCheckResult:
    """No monitor stands in alarm at the end of the day. An alarm is an ERROR, and a warning where it is the judge's."""
    from optiinfra_pipelines.gate.standing import picture, states_of

    customer_id, day = customer_and_day(context.partition_key)
    opened = warehouse.open(context.run.run_id)
    rows = states_of(opened, customer_id, day)
    worst = worst_alarm(rows)
    drawn = picture(opened, worst, worst["seen_until"], worst["change_start"]) if worst else ""
    return check_result(no_drop(rows), customer=customer_id, **_about(worst), **_shown(drawn))


@dg.asset_check(asset=["quality", "anchor_scores"])
def judge_does_not_drift(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource) -> dg.AssetCheckResult:
    """The anchors score as in their first three scorings: a judge that moves by 3 points moves every application."""
    from optiinfra_pipelines.gate.standing import judge_drift

    return check_result(no_drift(judge_drift(warehouse.open(context.run.run_id), datetime.now(UTC))))


def _about(row: Mapping[str, Any] | None) -> dict[str, str]:
    return {name: row[name] for name in ("provider", "application_id", "model_name")} if row else {}


def _shown(drawn: str) -> dict[str, dg.MarkdownMetadataValue]:
    return {"scores": dg.MetadataValue.md(drawn)} if drawn else {}
