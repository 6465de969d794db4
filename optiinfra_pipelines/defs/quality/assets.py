"""Scores by customer and day. The run that writes them puts interactions before the judge; nothing else calls it."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from optiinfra_pipelines.clouds.collection import TABLES
from optiinfra_pipelines.defs.partitions import CUSTOMER_DAYS, customer_and_day
from optiinfra_pipelines.defs.rendering import table_metadata
from optiinfra_pipelines.defs.warehouse_resource import CustomersResource, WarehouseResource
from optiinfra_pipelines.tables.contract import Table
from optiinfra_pipelines.tables.llm import (
    ANCHOR_SCORES,
    APPLICATION_METRICS,
    JUDGE_CALIBRATIONS,
    JUDGE_CALLS,
    SCORING_RUNS,
)

SCORED = (APPLICATION_METRICS, JUDGE_CALLS, SCORING_RUNS)


def quality_spec(table: Table, **given: object) -> dg.AssetSpec:
    """The asset of a table of this group."""
    return dg.AssetSpec(
        key=[table.schema, table.name],
        description=table.description,
        group_name="quality",
        metadata=table_metadata(table),
        owners=["team:llm"],
        **given,  # type: ignore[arg-type]
    )


@dg.multi_asset(
    specs=[
        quality_spec(
            table,
            kinds={"groq"},
            deps=[[each.schema, each.name] for each in TABLES["llm_interactions"].values()],
            partitions_def=CUSTOMER_DAYS,
        )
        for table in SCORED
    ],
    partitions_def=CUSTOMER_DAYS,
    pool="judge",
)
def scores(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, customers: CustomersResource
) -> Iterator[dg.MaterializeResult]:
    """Measures every interaction of one customer's day, and has judged what is in the sample and was not yet."""
    from optiinfra_pipelines.llm.evaluation import evaluate
    from optiinfra_pipelines.llm.measuring import measure_day
    from optiinfra_pipelines.llm.planning import outlook

    customer_id, day = customer_and_day(context.partition_key)
    opened, customer = warehouse.open(context.run_id), customers.load().customer(customer_id)
    now = datetime.now(UTC)
    measured = measure_day(opened, customer, day, now)
    found = evaluate(opened, warehouse.settings(), customer, day, now)
    if found.explanation:
        say = context.log.error if found.reason in ("auth", "billing", "model_gone") else context.log.warning
        say(f"{customer_id} {day.start:%Y-%m-%d}: {found.explanation}")
    states = {f"interactions_{state}": count for state, count in sorted(found.states.items())}
    standing = {"interactions": found.collected, **states, "flagged": found.flagged}
    price = found.cost / found.judged if found.judged else None
    spent = {"judged": found.judged, "requests": found.requests, "cost_usd": float(found.cost)}
    yield dg.MaterializeResult(
        asset_key=["quality", "application_metrics"],
        metadata={"rows_measured": measured, **standing, **outlook(found.states.get("scored", 0), price, day, now)},
    )
    yield dg.MaterializeResult(asset_key=["quality", "judge_calls"], metadata=spent)
    yield dg.MaterializeResult(
        asset_key=["quality", "scoring_runs"],
        metadata={"evaluated": found.evaluated, "why_not": found.explanation or "", **standing},
    )


@dg.asset(
    key=["quality", "anchor_scores"],
    description=ANCHOR_SCORES.description,
    group_name="quality",
    metadata=table_metadata(ANCHOR_SCORES),
    kinds={"groq"},
    owners=["team:llm"],
    pool="judge",
)
def anchor_scores(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, customers: CustomersResource
) -> dg.MaterializeResult:
    """Has the frozen anchors judged, once a UTC day."""
    from optiinfra_pipelines.llm.anchoring import judge_anchors

    everybody = customers.load().customers
    found = judge_anchors(warehouse.open(context.run_id), warehouse.settings(), datetime.now(UTC), everybody)
    if found.explanation:
        context.log.warning(found.explanation)
    return dg.MaterializeResult(
        metadata={
            "evaluated": found.evaluated,
            "why_not": found.explanation or "",
            "anchors_scored": found.states.get("scored", 0),
            "requests": found.requests,
            "cost_usd": float(found.cost),
        }
    )


judge_calibrations = quality_spec(JUDGE_CALIBRATIONS, kinds={"table"})
