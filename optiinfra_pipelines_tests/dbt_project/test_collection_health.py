"""marts.collection_health: what works, what fails, and what was never tried."""

from decimal import Decimal
from typing import Any

import pytest

from optiinfra_pipelines_tests.dbt_project.conftest import History

pytestmark = pytest.mark.xdist_group("dbt")


def health(history: History, customer_id: str, connection_id: str, kind: str) -> dict[str, Any]:
    """The one row of a connection and kind after the first build."""
    key = (customer_id, connection_id, kind)
    (row,) = (
        row
        for row in history.after["first"]["marts.collection_health"]
        if (row["customer_id"], row["connection_id"], row["kind"]) == key
    )
    return row


def test_failures_since_the_last_success_are_counted(history: History) -> None:
    row = health(history, "acme", "aws-main", "billing")
    assert (row["status"], row["consecutive_failures"], row["failing_windows"]) == ("failed", 1, 1)
    assert (row["last_error_kind"], row["last_error"]) == ("auth", "key expired")
    assert (row["last_rows"], row["last_rows_rejected"]) == (13, 2)
    assert 25 <= row["hours_since_last_success"] < 25.5


def test_each_window_that_fails_is_counted_apart(history: History) -> None:
    row = health(history, "acme", "saas", "billing")
    assert (row["status"], row["consecutive_failures"], row["failing_windows"]) == ("failed", 2, 2)
    assert (row["last_success_at"], row["hours_since_last_success"], row["last_rows"]) == (None, None, None)


def test_what_is_expected_and_was_never_attempted_stands_out(history: History) -> None:
    row = health(history, "acme", "aws-main", "metrics")
    assert (row["status"], row["active"], row["provider"]) == ("never_attempted", True, "aws")
    assert (row["last_attempt_at"], row["consecutive_failures"]) == (None, 0)


def test_a_connection_that_customers_yaml_no_longer_names_is_not_active(history: History) -> None:
    row = health(history, "beta", "left", "billing")
    assert (row["status"], row["active"], row["last_rows"]) == ("succeeded", False, 5)


def test_what_todays_calls_cost_stands_beside_what_they_collect(history: History) -> None:
    row = health(history, "acme", "gcp-api", "metrics")
    assert (row["api_requests_today"], row["api_price_today"]) == (27, Decimal("0.000007"))
    row = health(history, "acme", "gcp-api", "inventory")
    assert (row["api_requests_today"], row["api_price_today"]) == (0, 0)


def test_the_price_of_calls_is_kept_for_each_day(history: History) -> None:
    days = sorted(history.after["first"]["marts.api_spend_daily"], key=lambda row: row["call_day"])
    assert [(row["requests"], row["charged_units"], row["list_price"]) for row in days] == [
        (9, 9, 1),
        (27, 14, Decimal("0.000007")),
    ]


def test_a_window_that_cannot_be_read_again_is_no_failing_window(history: History) -> None:
    row = health(history, "acme", "gcp-api", "inventory")
    assert (row["status"], row["consecutive_failures"], row["failing_windows"]) == ("failed", 1, 0)
