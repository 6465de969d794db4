"""Billing tables for the tests of the rules, in DuckDB and in ClickHouse, and the row that they are made of.

ClickHouse is chDB in a child process: one process holds one engine, and other tests may hold another.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from optiinfra_pipelines.clouds.focus.rules import Query, RuleResult, run_rules
from optiinfra_pipelines.tables.billing import FOCUS_BILLING
from optiinfra_pipelines.tables.focus import FOCUS_1_2
from optiinfra_pipelines.tables.rule import Rule
from optiinfra_pipelines.warehouse.protocol import Engine

ENGINES: tuple[Engine, ...] = ("duckdb", "clickhouse")
ALL_COLUMNS = frozenset(column.name for column in FOCUS_1_2)
ALL_CRITERIA = frozenset(criterion for column in FOCUS_1_2 for criterion in column.criteria) | {
    "ACCOUNT_NAMING_SUPPORTED",
    "VIRTUAL_CURRENCY_SUPPORTED",
}
SHARED = Path(os.environ.get("OPTIINFRA_DATA", Path(__file__).parents[4] / "shared" / "data")) / "finops"

# An hour of a virtual machine: keeps every rule of FOCUS 1.2 that rows can break.
USAGE: dict[str, Any] = {
    "AvailabilityZone": "us-east-1a",
    "BilledCost": Decimal("0.19"),
    "BillingAccountId": "123456789012",
    "BillingAccountName": "Acme",
    "BillingAccountType": "Payer",
    "BillingCurrency": "USD",
    "BillingPeriodEnd": datetime(2026, 11, 1),
    "BillingPeriodStart": datetime(2026, 10, 1),
    "ChargeCategory": "Usage",
    "ChargeDescription": "$0.20 per hour of a large machine",
    "ChargeFrequency": "Usage-Based",
    "ChargePeriodEnd": datetime(2026, 10, 1, 1),
    "ChargePeriodStart": datetime(2026, 10, 1),
    "ConsumedQuantity": Decimal(1),
    "ConsumedUnit": "Hours",
    "ContractedCost": Decimal("0.19"),
    "ContractedUnitPrice": Decimal("0.19"),
    "EffectiveCost": Decimal("0.19"),
    "InvoiceId": "INV-1",
    "InvoiceIssuerName": "AWS",
    "ListCost": Decimal("0.2"),
    "ListUnitPrice": Decimal("0.2"),
    "PricingCategory": "Standard",
    "PricingCurrency": "USD",
    "PricingCurrencyContractedUnitPrice": Decimal("0.19"),
    "PricingCurrencyEffectiveCost": Decimal("0.19"),
    "PricingCurrencyListUnitPrice": Decimal("0.2"),
    "PricingQuantity": Decimal(1),
    "PricingUnit": "Hours",
    "ProviderName": "AWS",
    "PublisherName": "AWS",
    "RegionId": "us-east-1",
    "RegionName": "US East (N. Virginia)",
    "ResourceId": "i-1",
    "ResourceName": "web",
    "ResourceType": "instance",
    "ServiceCategory": "Compute",
    "ServiceName": "Amazon EC2",
    "ServiceSubcategory": "Virtual Machines",
    "SkuId": "SKU1",
    "SkuMeter": "Instance hours",
    "SkuPriceDetails": '{"CoreCount": 2, "OperatingSystem": "Linux", "x_Tier": null}',
    "SkuPriceId": "SKU1.HOUR",
    "SubAccountId": "210987654321",
    "SubAccountName": "Shop",
    "SubAccountType": "Member",
    "Tags": '{"team": "shop", "spot": false}',
}
_LINEAGE = {
    "x_customer_id": "acme",
    "x_provider": "aws",
    "x_connection_id": "aws-main",
    "x_source": "s3://bills/1.parquet",
    "x_focus_version": "1.2",
    "x_load_id": "load-1",
    "x_collected_at": datetime(2026, 11, 2),
}


@dataclass(frozen=True)
class Bill:
    """A billing table on one engine."""

    engine: Engine
    query: Query
    relation: str

    def judge(
        self,
        rules: list[Rule] | tuple[Rule, ...],
        present: Mapping[str, frozenset[str]] | None = None,
        criteria: Mapping[str, frozenset[str]] | None = None,
    ) -> list[RuleResult]:
        """The rules on this bill; without arguments every column was delivered and every criterion is met."""
        given = {"aws": ALL_COLUMNS} if present is None else present
        met = {"aws": ALL_CRITERIA} if criteria is None else criteria
        return run_rules(self.query, self.relation, rules, self.engine, given, met)


def bill(engine: Engine, *changes: Mapping[str, Any]) -> Bill:
    """A table with one row for each mapping: USAGE with those changes."""
    rows = [{**_LINEAGE, **USAGE, "x_row_number": number, **change} for number, change in enumerate(changes, 1)]
    return stored(engine, pa.Table.from_pylist(rows, schema=FOCUS_BILLING.arrow_schema))


def stored(engine: Engine, rows: pa.Table) -> Bill:
    """A table of the billing contract that holds `rows`."""
    if engine == "duckdb":
        database = duckdb.connect()
        columns = ", ".join(f'"{column.name}" {column.type.duckdb}' for column in FOCUS_BILLING.columns)
        database.execute(f"CREATE TABLE bill ({columns})").fetchall()
        database.register("rows", rows)
        database.execute("INSERT INTO bill SELECT * FROM rows").fetchall()
        return Bill(engine, lambda sql: database.cursor().sql(sql).to_arrow_table(), "bill")
    relation = f"bill_{next(_tables)}"
    columns = ", ".join(f'"{column.name}" {_clickhouse_type(column.name)}' for column in FOCUS_BILLING.columns)
    ask_clickhouse(f"CREATE TABLE {relation} ({columns}) ENGINE = MergeTree ORDER BY (x_customer_id, x_load_id)")
    with TemporaryDirectory() as folder:
        pq.write_table(rows, f"{folder}/rows.parquet")
        ask_clickhouse(f"INSERT INTO {relation} SELECT * FROM file('{folder}/rows.parquet', Parquet)")
    return Bill(engine, ask_clickhouse, relation)


_tables = count()


def _clickhouse_type(name: str) -> str:
    column = FOCUS_BILLING.column(name)
    kind = f"Nullable({column.type.clickhouse})" if column.nullable else column.type.clickhouse
    return f"LowCardinality({kind})" if column.low_cardinality else kind


def ask_clickhouse(sql: str) -> Any:
    """The answer of ClickHouse to one statement as an Arrow table; raises what it refuses."""
    pipe = _clickhouse()
    pipe.send(sql)
    answer = pipe.recv()
    if isinstance(answer, Exception):
        raise answer
    return answer


@cache
def _clickhouse() -> Connection:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=_serve, args=(theirs,), daemon=True).start()
    return ours


def _serve(pipe: Connection) -> None:
    import chdb

    connection = chdb.connect(":memory:")
    while True:
        try:
            pipe.send(connection.query(pipe.recv(), "ArrowTable"))
        except RuntimeError as error:
            pipe.send(error)
        except EOFError:
            return
