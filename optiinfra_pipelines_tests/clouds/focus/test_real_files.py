"""Real bills: every row is accounted for, and every sum equals that of the digits in the file, on both engines."""

import csv
import gzip
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest

from optiinfra_pipelines.clouds.focus.loader import LoadedPeriod, load_period, periods_of
from optiinfra_pipelines.tables.billing import FOCUS_BILLING
from optiinfra_pipelines.tables.contract import Type
from optiinfra_pipelines.tables.focus import FOCUS_COLUMNS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines_tests.clouds.focus.test_sql import EXACT, understood
from optiinfra_pipelines_tests.focus_files import bill_of, rejected, source_totals


@dataclass(frozen=True)
class Real:
    """A set of real files below the shared data, and how they are read."""

    path: str
    cost: str = "BilledCost"
    faults: dict[str, str] = field(default_factory=dict)  # reason of a rejected row -> its ChargePeriodEnd
    defaults: dict[str, str] = field(default_factory=dict)

    def files(self, data: Path) -> list[Path]:
        place = data / "finops" / self.path
        if not place.exists():
            pytest.skip(f"{place} is not in the shared data")
        return sorted(place.rglob("*.csv")) if place.is_dir() else [place]

    def rows(self, data: Path) -> Iterator[dict[str, str]]:
        """The rows as Python's own CSV reader reads them."""
        for path in self.files(data):
            with path.open(newline="", encoding="utf-8-sig") as file:
                yield from csv.DictReader(file)

    def load(self, warehouse: Warehouse, data: Path) -> list[LoadedPeriod]:
        """Load every period of the files."""
        bill = bill_of(data / "finops" / self.path, defaults=self.defaults)
        return [load_period(warehouse, FOCUS_BILLING, bill, period) for period in periods_of(bill)]


REAL = {
    "focus_sample": Real("focus_sample"),
    "aws_cur": Real("aws_cur/aws_sample-anonymous-aws-export-dataset.csv", "lineItem/UnblendedCost"),
    "synthetic_cur": Real("synthetic_exports/aws_cur_2026-10_sample.csv", "lineItem/UnblendedCost"),
    "focus_spec": Real(
        "focus_spec_1.2/examples",
        faults={"ChargePeriodEnd: is not a date of a bill": "2023-02-01T30:00:00Z"},
        defaults={"BillingCurrency": "USD", "BillingAccountId": "example", "ProviderName": "Example"},
    ),
}


@pytest.fixture(params=[name for name in REAL if name != "focus_spec"])
def bill(request: pytest.FixtureRequest, data: Path) -> Real:
    real = REAL[request.param]
    real.files(data)
    return real


@pytest.fixture(params=REAL)
def real(request: pytest.FixtureRequest, data: Path) -> Real:
    real = REAL[request.param]
    real.files(data)
    return real


def exact_sum(printed: Iterable[str]) -> Decimal:
    with localcontext(EXACT):
        return sum((understood(each) or Decimal(0) for each in printed), Decimal(0))


def test_every_row_is_loaded_or_rejected_and_sums_equal_the_printed_digits(
    warehouse: Warehouse, data: Path, real: Real
) -> None:
    loads = real.load(warehouse, data)
    printed = list(real.rows(data))
    assert sum(each.rows + each.rows_rejected for each in loads) == len(printed)
    assert sum(each.rows_rejected for each in loads) == len(rejected(warehouse)) == len(real.faults)
    [found] = warehouse.query(
        f"SELECT count(*) AS n, sum(BilledCost) AS billed FROM {warehouse.current(FOCUS_BILLING)} b"
    ).to_pylist()
    assert found["n"] == len(printed) - len(real.faults)
    assert {row["reason"]: row["payload"]["ChargePeriodEnd"] for row in rejected(warehouse)} == real.faults
    lost = exact_sum(row["payload"][real.cost] for row in rejected(warehouse))
    assert found["billed"] == exact_sum(row[real.cost] for row in printed) - lost
    totals = source_totals(warehouse, "rows", "billed_cost")
    assert sum(rows for rows, _ in totals) == len(printed)
    assert exact_sum(str(billed) for _, billed in totals) == exact_sum(row[real.cost] for row in printed)
    assert {each.status for each in real.load(warehouse, data)} == {"unchanged"}


def test_both_engines_hold_the_same_rows(
    duckdb_warehouse: Warehouse, clickhouse_warehouse: Warehouse, data: Path, bill: Real
) -> None:
    columns = ", ".join(name for name in FOCUS_BILLING.column_names if name not in ("x_load_id", "x_collected_at"))
    held: list[list[dict[str, Any]]] = []
    for warehouse in (duckdb_warehouse, clickhouse_warehouse):
        bill.load(warehouse, data)
        sql = f"SELECT {columns} FROM {warehouse.current(FOCUS_BILLING)} b ORDER BY x_source, x_row_number"
        held.append(warehouse.query(sql).to_pylist())
    assert held[0] == held[1]


def test_every_money_column_of_the_focus_sample_equals_its_printed_digits_row_by_row(
    warehouse: Warehouse, data: Path
) -> None:
    real = REAL["focus_sample"]
    printed = list(real.rows(data))
    money = [each.name for each in FOCUS_COLUMNS if each.type is Type.MONEY and each.name in printed[0]]
    real.load(warehouse, data)
    found = warehouse.query(
        f"SELECT x_row_number, {', '.join(money)} FROM {warehouse.current(FOCUS_BILLING)} b ORDER BY x_row_number"
    ).to_pylist()
    assert [row.pop("x_row_number") for row in found] == list(range(1, len(printed) + 1))
    expected = [
        {name: None if row[name] in ("", "NULL") else Decimal(row[name].strip()) for name in money} for row in printed
    ]
    assert found == expected


def test_a_real_bill_packed_with_a_byte_order_mark_is_the_same_bill(
    duckdb_warehouse: Warehouse, data: Path, tmp_path: Path
) -> None:
    [path] = REAL["focus_sample"].files(data)
    content = path.read_bytes()
    packed = gzip.compress(b"\xef\xbb\xbf") + gzip.compress(content[:99_999]) + gzip.compress(content[99_999:])
    (tmp_path / "bill.csv.gz").write_bytes(packed)
    bill = bill_of(tmp_path)
    loads = [load_period(duckdb_warehouse, FOCUS_BILLING, bill, period) for period in periods_of(bill)]
    assert sum(each.rows for each in loads) == 1000
