"""marts.costs_daily and what is summed from it: the right figures, the restated ones, and never half of them."""

from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal, localcontext
from typing import Any

import pytest

from optiinfra_pipelines.tables.billing import BILLING_TABLES
from optiinfra_pipelines_tests.dbt_project.bills import (
    AWS_OCTOBER,
    AWS_OCTOBER_RESTATED,
    AWS_SEPTEMBER,
    GCP_OCTOBER,
    SAAS_OCTOBER,
    SAAS_SEPTEMBER,
    Row,
)
from optiinfra_pipelines_tests.dbt_project.conftest import History

pytestmark = pytest.mark.xdist_group("dbt")

MEASURES = (
    "billed_cost",
    "effective_cost",
    "contracted_cost",
    "list_cost",
    "negotiated_savings",
    "commitment_savings",
    "total_savings",
    "rows",
)
TAGS = {  # printed Tags -> application, environment
    '{"application": "chat", "environment": "prod"}': ("chat", "prod"),
    '{"application": "chat"}': ("chat", None),
    '{"App": "chat", "team": "a \\"b\\""}': ("chat", None),
    '{"app": "chat", "Environment": "prod"}': ("chat", "prod"),
    '{"application": "", "App": "batch", "env": 5}': ("batch", "5"),
}
FIRST = {
    ("acme", "aws-main"): [*AWS_SEPTEMBER, *AWS_OCTOBER],
    ("acme", "saas"): [*SAAS_SEPTEMBER, *SAAS_OCTOBER],
    ("beta", "gcp-main"): GCP_OCTOBER,
}
RESTATED = {
    ("acme", "aws-main"): [*AWS_SEPTEMBER, *AWS_OCTOBER_RESTATED],
    ("acme", "saas"): [*SAAS_SEPTEMBER, *SAAS_OCTOBER],
}


def costs_of(bills: Mapping[tuple[str, str], Iterable[Row]]) -> list[dict[str, Any]]:
    """What marts.costs_daily has to hold of the printed rows, but for load ids, worked out row by row."""
    days: dict[tuple[Any, ...], dict[str, Any]] = {}
    with localcontext(prec=60):
        for (customer_id, connection_id), rows in bills.items():
            for row in rows:
                key = _grain(customer_id, connection_id, row)
                day = days.setdefault(tuple(key.values()), key | dict.fromkeys(MEASURES))
                for name, value in _measures(row).items():
                    if value is not None:
                        day[name] = (day[name] or 0) + value
    return sorted(days.values(), key=repr)


def _grain(customer_id: str, connection_id: str, row: Row) -> dict[str, Any]:
    application, environment = TAGS.get(row["Tags"], (None, None))
    provider = {"aws-main": "aws", "gcp-main": "gcp"}.get(connection_id)
    return {
        "customer_id": customer_id,
        "provider": provider or {"Microsoft Azure": "azure", "OpenAI": "openai"}[row["ProviderName"]],
        "connection_id": connection_id,
        "billing_account_id": row["BillingAccountId"],
        "sub_account_id": row["SubAccountId"] or None,
        "service_category": row["ServiceCategory"] or None,
        "service_name": row["ServiceName"] or None,
        "region_id": row["RegionId"] or None,
        "charge_category": row["ChargeCategory"],
        "application": application,
        "environment": environment,
        "currency": row["BillingCurrency"],
        "billing_period": row["BillingPeriodStart"][:7],
        "charge_day": date.fromisoformat(row["ChargePeriodStart"][:10]),
    }


def _measures(row: Row) -> dict[str, Decimal | int | None]:
    names = ("BilledCost", "EffectiveCost", "ContractedCost", "ListCost")
    billed, effective, contracted, listed = (Decimal(row[name]) if row[name] else None for name in names)
    usage = row["ChargeCategory"] == "Usage"
    values = (
        billed,
        effective,
        contracted,
        listed,
        listed - contracted if usage and listed is not None and contracted is not None else None,
        contracted - effective if usage and contracted is not None and effective is not None else None,
        listed - effective if usage and listed is not None and effective is not None else None,
        1,
    )
    return dict(zip(MEASURES, values, strict=True))


def costs_daily(history: History, step: str) -> list[dict[str, Any]]:
    """The mart's rows of the bills that were loaded properly, without load ids, which differ from run to run."""
    rows = history.after[step]["marts.costs_daily"]
    return [{name: row[name] for name in row if name != "load_id"} for row in rows if row["customer_id"] != "gamma"]


def money_as_printed(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows with equal amounts spelt alike: 1 and 1.000000000000000000000 are one amount."""
    spelt = (
        {name: Decimal(f"{value:.21f}") if isinstance(value, Decimal) else value for name, value in row.items()}
        for row in rows
    )
    return sorted(spelt, key=repr)


def test_costs_daily_sums_the_printed_digits_exactly(history: History) -> None:
    found = costs_daily(history, "first")
    assert money_as_printed(found) == money_as_printed(costs_of(FIRST))
    assert Decimal("10.000000000000000000001") in [row["billed_cost"] for row in found]


def test_a_charge_that_spans_a_month_stays_on_the_day_it_begins(history: History) -> None:
    fees = [
        row
        for row in history.after["first"]["marts.costs_daily"]
        if row["charge_category"] == "Purchase" and row["effective_cost"] != 0
    ]
    assert {row["charge_day"] for row in fees} == {date(2026, 10, 1)}


def test_a_restated_month_replaces_its_old_figures_and_no_others(history: History) -> None:
    restated = costs_daily(history, "restated")
    assert money_as_printed(restated) == money_as_printed(costs_of(RESTATED))


def test_a_month_restated_to_nothing_leaves_the_marts(history: History) -> None:
    assert "beta" in {row["customer_id"] for row in history.after["first"]["marts.costs_daily"]}
    for table in ("marts.costs_daily", "marts.provider_costs_monthly", "staging.billing"):
        name = "x_customer_id" if table == "staging.billing" else "customer_id"
        assert "beta" not in {row[name] for row in history.after["restated"][table]}


def test_rows_lost_from_the_mart_come_back_with_the_next_build(history: History) -> None:
    taxes = [row for row in history.after["restated"]["marts.costs_daily"] if row["charge_category"] == "Tax"]
    assert [row["billed_cost"] for row in taxes] == [Decimal(1)]


def test_a_killed_build_leaves_the_old_figures_or_the_new_ones_whole(history: History) -> None:
    found = money_as_printed(costs_daily(history, "killed"))
    assert found in (money_as_printed(costs_of(FIRST)), money_as_printed(costs_of(RESTATED)))


def test_a_full_refresh_gives_what_load_by_load_building_gave(history: History) -> None:
    for table, rows in history.after["restated"].items():
        if table != "marts.collection_health":  # it tells the time
            assert history.after["refreshed"][table] == rows, table


def test_provider_costs_leave_purchases_of_commitments_out_of_savings(history: History) -> None:
    (october,) = (
        row
        for row in history.after["first"]["marts.provider_costs_monthly"]
        if (row["provider"], row["billing_period"], row["currency"]) == ("aws", "2026-10", "USD")
    )
    usage = [row for row in AWS_OCTOBER if row["ChargeCategory"] == "Usage" and row["BillingCurrency"] == "USD"]
    total = sum(Decimal(row["ListCost"]) - Decimal(row["EffectiveCost"]) for row in usage)
    assert october["total_savings"] == total
    assert october["negotiated_savings"] + october["commitment_savings"] == total
    assert october["billed_cost"] == sum(Decimal(r["BilledCost"]) for r in AWS_OCTOBER if r["BillingCurrency"] == "USD")


def test_currencies_never_share_a_row(history: History) -> None:
    rows = history.after["first"]["marts.provider_costs_monthly"]
    euros = [row for row in rows if row["currency"] == "EUR"]
    assert [(row["billed_cost"], row["rows"]) for row in euros] == [(Decimal("5.500000000000000000007"), 2)]


def test_staging_billing_shows_what_the_warehouse_calls_current(history: History) -> None:
    warehouse = history.target.warehouse
    current = [
        row
        for table in BILLING_TABLES
        for row in warehouse.query(f"SELECT * FROM {warehouse.current(table)} t").to_pylist()
    ]
    assert history.after["refreshed"]["staging.billing"] == sorted(current, key=repr)


def test_both_engines_hold_the_same_marts(duckdb_history: History, clickhouse_history: History) -> None:
    volatile = {"load_id", "previous_load_id", "loaded_at", "previously_loaded_at", "hours_since_last_success"}
    lineage = {"x_load_id", "x_collected_at", "x_source", "source", "collected_at"}

    def comparable(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        kept = ({k: v for k, v in row.items() if k not in volatile | lineage} for row in rows)
        return money_as_printed({k: round(v, 9) if isinstance(v, float) else v for k, v in row.items()} for row in kept)

    for step in ("first", "restated", "refreshed"):
        for table, rows in duckdb_history.after[step].items():
            assert comparable(rows) == comparable(clickhouse_history.after[step][table]), (step, table)
