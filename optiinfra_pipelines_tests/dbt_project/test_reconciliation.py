"""What the source's own digits add up to beside what the warehouse holds, and which rows are the difference."""

from decimal import Decimal
from typing import Any

import pytest

from optiinfra_pipelines_tests.dbt_project.conftest import History

pytestmark = pytest.mark.xdist_group("dbt")


def lines(history: History, customer_id: str, connection_id: str, *columns: str) -> set[tuple[Any, ...]]:
    """Columns of the first build's reconciliation of one connection."""
    return {
        tuple(row[name] for name in columns)
        for row in history.after["first"]["marts.invoice_reconciliation"]
        if (row["customer_id"], row["connection_id"]) == (customer_id, connection_id)
    }


def test_a_bill_without_rejected_rows_reconciles_invoice_by_invoice(history: History) -> None:
    found = lines(
        history,
        "acme",
        "aws-main",
        "billing_period",
        "invoice_id",
        "currency",
        "source_rows",
        "warehouse_rows",
        "status",
    )
    assert found == {
        ("2026-09", "INV-9", "USD", 2, 2, "reconciled"),
        ("2026-10", "INV-10", "USD", 10, 10, "reconciled"),
        ("2026-10", None, "USD", 1, 1, "reconciled"),
        ("2026-10", "INV-EU", "EUR", 2, 2, "reconciled"),
    }


def test_the_smallest_printed_digit_is_on_both_sides(history: History) -> None:
    found = lines(history, "acme", "aws-main", "invoice_id", "source_billed_cost", "warehouse_billed_cost")
    assert ("INV-9", Decimal("11.000000000000000000001"), Decimal("11.000000000000000000001")) in found
    assert ("INV-EU", Decimal("5.500000000000000000007"), Decimal("5.500000000000000000007")) in found


def test_rows_that_were_rejected_explain_what_is_missing(history: History) -> None:
    found = lines(
        history, "acme", "saas", "billing_period", "invoice_id", "rows_difference", "billed_cost_difference", "status"
    )
    assert found == {
        ("2026-09", "S-1", 0, Decimal(0), "reconciled"),
        ("2026-10", "S-1", -1, Decimal("-1234.50"), "rejected_rows"),
        ("2026-10", "S-2", -1, Decimal(0), "rejected_rows"),
        ("unknown", "S-1", -1, Decimal(-4), "rejected_rows"),
        ("unknown", None, -1, Decimal(0), "rejected_rows"),
    }


def test_money_that_no_rejected_row_explains_is_unexplained(history: History) -> None:
    found = lines(
        history, "gamma", "main", "invoice_id", "source_rows", "warehouse_rows", "billed_cost_difference", "status"
    )
    assert found == {
        ("S-1", 1, 1, Decimal("-0.000000000000000000001"), "unexplained"),
        ("S-2", 1, None, Decimal(-1), "unexplained"),
        ("S-3", None, 1, Decimal(1), "unexplained"),
        (None, 1, 1, Decimal(0), "reconciled"),
    }


def test_effective_cost_is_compared_only_where_the_source_prints_it(history: History) -> None:
    assert lines(history, "gamma", "main", "source_effective_cost", "effective_cost_difference") == {(None, None)}
    assert lines(history, "acme", "aws-main", "effective_cost_difference") == {(Decimal(0),)}


def test_a_bad_row_that_two_months_met_counts_once(history: History) -> None:
    met = [row for row in history.after["first"]["staging.rejected_rows"] if row["customer_id"] == "gamma"]
    (newest,) = (
        row["load_id"]
        for row in history.after["first"]["marts.invoice_reconciliation"]
        if row["slice"] == "gamma/main/2026-10" and row["invoice_id"] == "S-1"
    )
    assert [(row["row_number"], row["load_id"]) for row in met] == [(7, newest)]


def test_a_restatement_shows_what_was_believed_before(history: History) -> None:
    names = ("slice", "currency", "previous_rows", "rows", "previous_billed_cost", "billed_cost", "rows_difference")
    assert history.after["first"]["marts.billing_restatements"] == []
    found = history.after["restated"]["marts.billing_restatements"]
    assert {tuple(row[name] for name in names) for row in found} == {
        ("acme/aws-main/2026-10", "USD", 11, 10, Decimal("106.3"), Decimal("108.25"), -1),
        ("acme/aws-main/2026-10", "EUR", 2, 2, *[Decimal("5.500000000000000000007")] * 2, 0),
        ("beta/gcp-main/2026-10", "USD", 2, 0, Decimal(3), Decimal(0), -2),
    }
    assert all(row["previously_loaded_at"] < row["loaded_at"] for row in found)
    assert all(row["previous_load_id"] < row["load_id"] for row in found)
    assert all(row["billed_cost_difference"] == row["billed_cost"] - row["previous_billed_cost"] for row in found)
    assert {row["effective_cost_difference"] for row in found} == {Decimal("1.95"), Decimal(0), Decimal(-3)}
