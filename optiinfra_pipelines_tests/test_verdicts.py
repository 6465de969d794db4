"""The rules behind the checks, on figures alone."""

from datetime import datetime
from decimal import Decimal, localcontext

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optiinfra_pipelines.tables import ALL_TABLES, Table
from optiinfra_pipelines.tables.operations import CONNECTIONS
from optiinfra_pipelines.verdicts import (
    collapse,
    contract,
    contract_query,
    freshness,
    gaps,
    plausible_metrics,
    reconciliation,
    rejections,
    vocabulary,
)
from optiinfra_pipelines.warehouse.duckdb import create_statement

MONEY = st.decimals(min_value=-(10**9), max_value=10**9, places=12)


def invoice(**figures: object) -> dict[str, object]:
    zero = {
        "source_rows": 0,
        "warehouse_rows": 0,
        "source_billed_cost": Decimal(0),
        "warehouse_billed_cost": Decimal(0),
    }
    return {**zero, "source_effective_cost": None, "warehouse_effective_cost": None, **figures}


@given(cost=MONEY, rows=st.integers(1, 1000))
def test_an_invoice_that_adds_up_to_the_last_digit_passes(cost: Decimal, rows: int) -> None:
    same = invoice(source_rows=rows, warehouse_rows=rows, source_billed_cost=cost, warehouse_billed_cost=cost)
    assert reconciliation([same], rejected=0).passed


@given(cost=MONEY)
def test_a_difference_in_the_last_digit_alone_is_an_error(cost: Decimal) -> None:
    with localcontext(prec=60):
        off = cost + Decimal("1e-21")
    verdict = reconciliation([invoice(source_billed_cost=cost, warehouse_billed_cost=off)], rejected=5)
    assert (verdict.passed, verdict.severity) == (False, "ERROR")


def test_rejected_rows_explain_what_is_missing_and_no_more() -> None:
    short = invoice(source_rows=10, warehouse_rows=8, source_billed_cost=Decimal(10), warehouse_billed_cost=Decimal(8))
    assert reconciliation([short], rejected=2).severity == "WARN"
    assert reconciliation([short], rejected=1).severity == "ERROR"


def test_a_row_too_many_is_an_error_whatever_was_rejected() -> None:
    doubled = invoice(source_rows=1, warehouse_rows=2)
    assert reconciliation([doubled], rejected=9).severity == "ERROR"


def test_an_invoice_known_to_one_side_only_is_an_error() -> None:
    alone = invoice(source_rows=None, source_billed_cost=None, warehouse_rows=3, warehouse_billed_cost=Decimal(3))
    assert not reconciliation([alone], rejected=0).passed


def test_effective_cost_counts_where_the_source_prints_it() -> None:
    off = invoice(source_effective_cost=Decimal(2), warehouse_effective_cost=Decimal(1))
    unprinted = invoice(source_effective_cost=None, warehouse_effective_cost=Decimal(1))
    assert not reconciliation([off], rejected=0).passed
    assert reconciliation([unprinted], rejected=0).passed


def test_rejections_are_counted_by_reason_the_most_first() -> None:
    verdict = rejections([{"reason": "a", "rows": 1}, {"reason": "b", "rows": 4}], rows=95)
    assert verdict.sentence == "5 of 100 rows were rejected"
    assert [each["reason"] for each in verdict.rows] == ["b", "a"]
    assert rejections([], rows=7).passed


def test_a_connection_that_never_succeeded_or_too_long_ago_is_stale_and_named_worst_first() -> None:
    def connection(name: str, hours: float | None) -> dict[str, object]:
        return {"customer_id": "acme", "connection_id": name, "hours_since_success": hours, "last_error": None}

    verdict = freshness([connection("a", 1), connection("b", 40), connection("c", None)], hours=36)
    assert not verdict.passed
    assert [each["connection_id"] for each in verdict.rows] == ["c", "b"]
    assert freshness([connection("a", 36)], hours=36).passed


@pytest.mark.parametrize("table", ALL_TABLES, ids=lambda table: table.name)
def test_every_contract_can_be_asked_of_its_table(table: Table) -> None:
    con = duckdb.connect()
    con.execute(f"CREATE SCHEMA {table.schema}")
    con.execute(create_statement(table))
    row = con.execute(contract_query(table, table.full_name))
    counts = dict(zip([each[0] for each in row.description], row.fetchone(), strict=True))
    assert contract(table, counts).passed


def test_a_null_a_strange_value_and_a_doubled_key_break_the_contract() -> None:
    con = duckdb.connect()
    con.execute(f"CREATE VIEW loose AS SELECT * FROM ({create_rows()})")
    row = con.execute(contract_query(CONNECTIONS, "loose"))
    counts = dict(zip([each[0] for each in row.description], row.fetchone(), strict=True))
    verdict = contract(CONNECTIONS, counts)
    broken = {each["promise"]: each["rows"] for each in verdict.rows}
    assert broken == {"provider is null": 1, "customer_id + connection_id is not unique": 1}


def create_rows() -> str:
    row = "SELECT 'acme' AS customer_id, 'a' AS connection_id, {} AS provider, 'billing' AS collects, true AS active,"
    row += " TIMESTAMP '2026-01-01' AS collected_at"
    return f"{row.format(chr(39) + 'aws' + chr(39))} UNION ALL {row.format('NULL')}"


def test_a_listing_that_lost_more_than_half_collapsed_even_if_nothing_is_left() -> None:
    listing = {"connection_id": "aws-main", "resource_type": "machine"}
    assert not collapse([{**listing, "before": 100, "now": 0}]).passed
    assert not collapse([{**listing, "before": 100, "now": 49}]).passed
    assert collapse([{**listing, "before": 100, "now": 50}]).passed


def test_a_handful_of_things_may_all_be_cleaned_up() -> None:
    assert collapse([{"connection_id": "aws-main", "resource_type": "volume", "before": 4, "now": 0}]).passed


def test_a_burst_beyond_100_percent_is_a_warning_and_a_negative_value_an_error() -> None:
    metric = {"metric_name": "cpu_utilization", "negative": 0, "too_high": 0, "in_future": 0, "measured": 10}
    assert plausible_metrics([metric]).passed
    assert plausible_metrics([{**metric, "too_high": 2}]).severity == "WARN"
    assert plausible_metrics([{**metric, "negative": 1}]).severity == "ERROR"
    assert plausible_metrics([{**metric, "in_future": 1}]).severity == "ERROR"


def test_words_that_are_not_in_the_vocabulary_are_counted_and_shown() -> None:
    verdict = vocabulary([("state of a machine", "hibernating", 2), ("state of a machine", "hibernating", 1)], 10)
    assert (verdict.passed, verdict.severity) == (False, "WARN")
    assert verdict.rows == [{"column": "state of a machine", "word": "hibernating", "rows": 3}]


def test_a_missing_window_is_told_with_its_connection() -> None:
    at = datetime(2026, 11, 20, 10, 15)
    verdict = gaps({"aws-main": [at], "aws-other": []})
    assert not verdict.passed
    assert verdict.rows == [{"connection_id": "aws-main", "windows_missing": 1, "first": at, "last": at}]
