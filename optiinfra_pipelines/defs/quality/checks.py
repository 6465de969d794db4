"""Checks of scores: contracts, that no interaction is lost, that the judge can be asked and answers as it should."""

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.defs.partitions import CUSTOMER_DAYS, customer_and_day
from optiinfra_pipelines.defs.quality.assets import SCORED
from optiinfra_pipelines.defs.rendering import check_result
from optiinfra_pipelines.defs.warehouse_resource import WarehouseResource
from optiinfra_pipelines.llm.sampling import interactions, of_span
from optiinfra_pipelines.quality_verdicts import (
    accounted_for,
    canaries_resisted,
    judge_answers,
    judge_available,
    judge_calibrated,
    scores_traceable,
)
from optiinfra_pipelines.tables.contract import Table
from optiinfra_pipelines.tables.llm import (
    ANCHOR_SCORES,
    APPLICATION_METRICS,
    JUDGE_CALIBRATIONS,
    JUDGE_CALLS,
    SCORING_RUNS,
)
from optiinfra_pipelines.verdicts import Verdict, contract, contract_query
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import Window

_DAY_COLUMN: Mapping[str, str] = {
    "application_metrics": "timestamp",
    "judge_calls": "interaction_timestamp",
    "scoring_runs": "day",
}
Judge = Callable[[Warehouse, str, Window], Verdict]


def _check(table: Table, name: str, judge: Judge, *, blocking: bool = False) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=[table.schema, table.name],
        name=name,
        description=judge.__doc__,
        blocking=blocking,
        partitions_def=CUSTOMER_DAYS,
    )
    def check(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource) -> dg.AssetCheckResult:
        customer_id, day = customer_and_day(context.partition_key)
        return check_result(judge(warehouse.open(context.run.run_id), customer_id, day), customer=customer_id)

    return check


def contract_check(table: Table, *, blocking: bool = False) -> dg.AssetChecksDefinition:
    """The check of a table's contract over a customer's day; over all of a customer where it has no column of days."""
    column = _DAY_COLUMN.get(table.name)
    of_day = f" AND {column} >= $start AND {column} < $end" if column else ""

    def judge(warehouse: Warehouse, customer_id: str, day: Window) -> Verdict:
        """Every row has what its contract requires, and no key stands twice."""
        rows = f"(SELECT * FROM {warehouse.current(table)} c WHERE customer_id = $customer{of_day})"
        of = of_span(customer_id, day) if column else {"customer": customer_id}
        return contract(table, warehouse.query(contract_query(table, rows), of).to_pylist()[0])

    return _check(table, f"{table.name}_follows_contract", judge, blocking=blocking)


def _newest_run(warehouse: Warehouse, customer_id: str, day: Window) -> dict[str, Any] | None:
    rows = warehouse.query(
        f"SELECT * FROM {warehouse.current(SCORING_RUNS)} t"
        " WHERE customer_id = $customer AND day = $start ORDER BY collected_at DESC LIMIT 1",
        {"customer": customer_id, "start": naive_utc(day.start)},
    ).to_pylist()
    return rows[0] if rows else None


def _accounted_for(warehouse: Warehouse, customer_id: str, day: Window) -> Verdict:
    """Collected = scored + failed + skipped by reason + waiting, and all that lay in the raw tables then is counted."""
    run = _newest_run(warehouse, customer_id, day)
    if run is None:
        return accounted_for(None)
    [counted] = warehouse.query(
        f"SELECT count(*) AS in_raw FROM ({interactions(warehouse, 'collected_at')}) i WHERE collected_at <= $counted",
        of_span(customer_id, day) | {"counted": naive_utc(run["collected_at"])},
    ).to_pylist()
    return accounted_for(run | counted)


def _judge_available(warehouse: Warehouse, customer_id: str, day: Window) -> Verdict:
    """The judge could be asked: its key, its account and its model are in order, and there is money for it."""
    return judge_available(_newest_run(warehouse, customer_id, day))


def _judge_answers(warehouse: Warehouse, customer_id: str, day: Window) -> Verdict:
    """At most 2 % of the judge's answers are truncated, invalid or refused."""
    rows = warehouse.query(
        f"SELECT status, error_kind, count(*) AS calls, sum(cost) AS cost FROM {warehouse.current(JUDGE_CALLS)} c"
        " WHERE customer_id = $customer AND interaction_timestamp >= $start AND interaction_timestamp < $end"
        " GROUP BY status, error_kind ORDER BY status, error_kind",
        of_span(customer_id, day),
    ).to_pylist()
    return judge_answers(rows)


def _traceable(warehouse: Warehouse, customer_id: str, day: Window) -> Verdict:
    """Every judged score belongs to one call that succeeded (or is being settled), and every such call has scores."""
    [row] = warehouse.query(
        "WITH calls AS (SELECT call_id, interaction_id, judge_fingerprint, status"
        f" FROM {warehouse.current(JUDGE_CALLS)} c WHERE customer_id = $customer"
        " AND status IN ('succeeded', 'in_flight')"
        " AND interaction_timestamp >= $start AND interaction_timestamp < $end),"
        " judged AS (SELECT judge_call_id, interaction_id, judge_fingerprint, count(*) AS n"
        f" FROM {warehouse.current(APPLICATION_METRICS)} m WHERE customer_id = $customer"
        " AND timestamp >= $start AND timestamp < $end AND judge_fingerprint <> ''"
        " GROUP BY judge_call_id, interaction_id, judge_fingerprint)"
        " SELECT (SELECT count(*) FROM calls) AS calls, (SELECT count(*) FROM judged) AS judged,"
        " (SELECT count(*) FROM judged WHERE judge_call_id NOT IN (SELECT call_id FROM calls)) AS without_call,"
        " (SELECT count(*) FROM calls WHERE status = 'succeeded'"
        "  AND call_id NOT IN (SELECT judge_call_id FROM judged)) AS without_scores,"
        " (SELECT count(*) FROM (SELECT interaction_id, judge_fingerprint FROM judged"
        "  GROUP BY interaction_id, judge_fingerprint HAVING count(*) > 1) d) AS judged_twice",
        of_span(customer_id, day),
    ).to_pylist()
    return scores_traceable(row)


contract_checks = [contract_check(table, blocking=True) for table in SCORED]
interactions_are_accounted_for = _check(SCORING_RUNS, "interactions_are_accounted_for", _accounted_for)
judge_is_available = _check(SCORING_RUNS, "judge_is_available", _judge_available)
judge_answers_are_valid = _check(JUDGE_CALLS, "judge_answers_are_valid", _judge_answers)
scores_are_traceable = _check(APPLICATION_METRICS, "scores_are_traceable", _traceable)


@dg.asset_check(asset=["quality", "anchor_scores"])
def judge_resists_canaries(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource) -> dg.AssetCheckResult:
    """No bad answer that asks its judge for a good score gets one: no score gets better by more than a level."""
    opened = warehouse.open(context.run.run_id)
    rows = opened.query(
        f"SELECT * FROM {opened.current(ANCHOR_SCORES)} a"
        f" WHERE day = (SELECT max(day) FROM {opened.current(ANCHOR_SCORES)} b)"
    ).to_pylist()
    return check_result(canaries_resisted(rows))


def _whole_table_check(table: Table) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=[table.schema, table.name], name=f"{table.name}_follows_contract")
    def check(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource) -> dg.AssetCheckResult:
        """Every row has what its contract requires, and no key stands twice."""
        opened = warehouse.open(context.run.run_id)
        counts = opened.query(contract_query(table, opened.current(table))).to_pylist()[0]
        return check_result(contract(table, counts))

    return check


whole_table_checks = [_whole_table_check(table) for table in (ANCHOR_SCORES, JUDGE_CALIBRATIONS)]


@dg.asset_check(asset=["quality", "judge_calibrations"])
def judge_is_calibrated(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource) -> dg.AssetCheckResult:
    """Of the judge of each customer's newest scores it was measured how often it errs."""
    opened = warehouse.open(context.run.run_id)
    judges = opened.query(
        "SELECT customer_id, judge_model, judge_fingerprint FROM (SELECT customer_id, judge_model, judge_fingerprint,"
        " row_number() OVER (PARTITION BY customer_id ORDER BY collected_at DESC, day DESC) AS place"
        f" FROM {opened.current(SCORING_RUNS)} s WHERE scored > 0) t WHERE place = 1 ORDER BY customer_id"
    )
    figures = opened.query(
        f"SELECT * FROM {opened.current(JUDGE_CALIBRATIONS)} c"
        " ORDER BY collected_at DESC, calibration_id, metric_type, figure DESC"
    )
    return check_result(judge_calibrated(judges.to_pylist(), figures.to_pylist()))
