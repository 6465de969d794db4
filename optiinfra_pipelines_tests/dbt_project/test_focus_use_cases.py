"""The use cases that FOCUS publishes run on marts.focus_1_2, with the same answers on both engines."""

from decimal import Decimal
from math import isnan
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlglot

from optiinfra_pipelines.tables.billing import FOCUS_BILLING
from optiinfra_pipelines.warehouse.protocol import WarehouseError
from optiinfra_pipelines_tests.dbt_project.bills import Row, charge, load_file
from optiinfra_pipelines_tests.dbt_project.conftest import History, Target
from optiinfra_pipelines_tests.dbt_project.focus_queries import adjusted, published, translated
from optiinfra_pipelines_tests.focus_files import write_csv

pytestmark = pytest.mark.xdist_group("dbt")

# Published statements that no engine runs as they are; each runs as its publishers adjusted it.
INVALID = {
    "effective_savings_rate_services": "an alias of two words: AS Total ContractedCost",
    "daily_anomaly_services": "an alias inside GROUP BY",
    "daily_anomaly_subaccount": "an alias inside GROUP BY",
    "report_service_costs_by_providers_subaccount": "ORDER BY a column that is not in GROUP BY",
    "identify_unused_commitments": "SELECT of a column that is not in GROUP BY",
}
# Runs on both, with other answers: it casts quantities to DECIMAL(10, 2), which DuckDB rounds and ClickHouse cuts off.
ROUNDED = {"calculate_unit_economics"}


def varied_charges() -> list[Row]:
    """One charge of each kind that a use case asks for, in September 2024."""
    september = {
        "BillingPeriodStart": "2024-09-01T00:00:00Z",
        "BillingPeriodEnd": "2024-10-01T00:00:00Z",
        "ChargePeriodStart": "2024-09-03T00:00:00Z",
        "ChargePeriodEnd": "2024-09-03T01:00:00Z",
        "SubAccountId": "sub-7",
        "PricingUnit": "Hours",
        "PricingQuantity": "1.5",
        "ConsumedUnit": "Hours",
        "ConsumedQuantity": "1.5",
        "PricingCurrency": "USD",
        "PricingCurrencyEffectiveCost": "1",
        "CapacityReservationId": "",
        "CapacityReservationStatus": "",
        "ChargeFrequency": "Usage-Based",
        "ChargeDescription": "an hour",
        "SkuPriceDetails": "",
    }
    kinds: list[dict[str, str]] = [
        {"SkuPriceDetails": '{"CoreCount": 4, "InstanceSeries": "m5"}', "Tags": '{"Application": "chat"}'},
        {"SkuPriceDetails": '{"CoreCount": 2}'},
        {"ChargeDescription": "data transfer out", "ConsumedUnit": "GB", "ConsumedQuantity": "12.34"},
        {"PricingCurrency": "TOKENS", "PricingCurrencyEffectiveCost": "250.5"},
        {"ChargeCategory": "Purchase", "PricingUnit": "TOKENS", "PricingQuantity": "1000"},
        {"ChargeCategory": "Credit", "BilledCost": "-3"},
        {"CapacityReservationId": "cr-1", "CapacityReservationStatus": "Unused"},
        {"ChargeFrequency": "Recurring", "CommitmentDiscountId": "sp-1", "ChargeCategory": "Purchase"},
        {"CommitmentDiscountStatus": "Unused", "CommitmentDiscountId": "sp-1", "BilledCost": "0"},
    ]
    return [charge(september, kind) for kind in kinds]


@pytest.fixture(scope="module")
def use_cases(data: Path) -> Path:
    """The folder of the published use cases."""
    return data / "finops" / "focus_use_cases"


@pytest.fixture(scope="module")
def targets(
    data: Path, duckdb_history: History, clickhouse_history: History, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Target, Target]:
    """Both engines with the FOCUS sample and a charge of every kind; the views need no build to show them."""
    varied = write_csv(tmp_path_factory.mktemp("varied") / "2024-09" / "bill.csv", varied_charges())
    for history in (duckdb_history, clickhouse_history):
        load_file(history.target.warehouse, FOCUS_BILLING, "sample", data / "finops" / "focus_sample", "2024-09")
        load_file(history.target.warehouse, FOCUS_BILLING, "varied", varied.parent.parent, "2024-09")
    return duckdb_history.target, clickhouse_history.target


def answer(target: Target, sql: str, read: str, *, limited: bool) -> list[tuple[Any, ...]]:
    """The rows of a use case, in the order in which the engine gave them."""
    warehouse = target.warehouse
    statement = translated(sql, read, warehouse.engine, warehouse.database("marts"), limited=limited)
    columns = warehouse.query(statement).columns
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


def alike(one: list[tuple[Any, ...]], other: list[tuple[Any, ...]]) -> bool:
    """Whether both are the same rows: decimals to the digit, quotients (doubles in DuckDB) to nine digits."""
    if len(one) != len(other):
        return False
    pairs = zip(sorted(one, key=_order), sorted(other, key=_order), strict=True)
    return all(len(a) == len(b) and all(map(_same, a, b)) for a, b in pairs)


def _order(row: tuple[Any, ...]) -> list[str]:
    return [f"{float(v):.6e}" if isinstance(v, int | float | Decimal) else repr(v) for v in row]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isnan(a):
        return b is None  # nothing divided by nothing
    if isinstance(a, float) or isinstance(b, float):
        return a is not None and b is not None and float(a) == pytest.approx(float(b), rel=1e-9)
    return bool(a == b)


def refusals(targets: tuple[Target, Target], statements: dict[str, str], read: str) -> dict[str, str]:
    """Name -> what went wrong of each statement that does not run, answers nothing, or answers differently."""
    wrong: dict[str, str] = {}
    for name, sql in statements.items():
        try:
            for target in targets:
                answer(target, sql, read, limited=True)
            answers = [answer(target, sql, read, limited=False) for target in targets]
        except (sqlglot.ParseError, duckdb.Error, WarehouseError) as error:
            wrong[name] = str(error)
            continue
        if not answers[0] or not alike(*answers):
            wrong[name] = f"DuckDB answers {answers[0][:3]}, ClickHouse {answers[1][:3]}"
    return wrong


def test_published_use_cases_run_alike_on_both_engines(targets: tuple[Target, Target], use_cases: Path) -> None:
    statements = published(use_cases)
    wrong = refusals(targets, statements, "mysql")
    assert wrong.keys() == INVALID.keys() | ROUNDED, wrong
    assert "ClickHouse [" in wrong["calculate_unit_economics"]
    assert len(statements) - len(wrong) == 21


def test_adjusted_use_cases_run_alike_on_both_engines(targets: tuple[Target, Target], use_cases: Path) -> None:
    statements = adjusted(use_cases)
    assert refusals(targets, statements, "duckdb") == {}
    assert INVALID.keys() <= statements.keys()
