"""The ceiling of a load: the same casts as one bare INSERT ... SELECT of each engine, straight from the bill's files.

It keeps no ledger, looks at no row before it takes it, sums nothing and numbers nothing: row numbers, sources and load
ids are constants. Costs become exact decimals of their printed digits, of doubles by the product's own expression:
DuckDB's cast from double to decimal would be quicker, and give the digits of the binary number.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import duckdb
import pyarrow as pa

from optiinfra_pipelines.clouds.focus.sql import money
from optiinfra_pipelines.tables.billing import AWS_BILLING
from optiinfra_pipelines.tables.contract import Column, Type
from optiinfra_pipelines.warehouse.clickhouse import column_type

_COLUMNS = ", ".join(f'"{name}"' for name in AWS_BILLING.column_names)


def duckdb_insert(bill: Path) -> str:
    """One DuckDB statement that loads the bill into raw.aws_billing."""
    names = _names(bill)
    extra = ", ".join(f"""'{name}', "{name}\"""" for name in names if name.startswith("x_"))
    values = _values(names, _duckdb_csv if _is_csv(bill) else _duckdb_parquet)
    values |= _lineage(f"CAST(json_object({extra}) AS VARCHAR)", Type.TIMESTAMP.duckdb)
    return f"INSERT INTO raw.aws_billing ({_COLUMNS}) SELECT {_in_order(values)} FROM {_relation(bill)}"


def clickhouse_insert(bill: Path, threads: int) -> str:
    """One ClickHouse statement that loads the bill, which the server reads from its own disk, into raw.aws_billing.

    Of CSV, ClickHouse's parser makes decimals and times of the text itself: no text stands between.
    """
    names = _names(bill)
    if _is_csv(bill):
        structure = ", ".join(f"`{name}` {_clickhouse_type(name)}" for name in names).replace("'", "\\'")
        relation, cast = f"file('{bill}/*', CSVWithNames, '{structure}')", _as_read
    else:
        relation, cast = f"file('{bill}/*', Parquet)", _clickhouse_parquet
    extra = ", ".join(f"'{name}', \"{name}\"" for name in names if name.startswith("x_"))
    values = _values(names, cast) | _lineage(f"toJSONString(map({extra}))", Type.TIMESTAMP.clickhouse)
    settings = f"max_insert_threads = {threads}, date_time_input_format = 'best_effort'"
    return (
        f"INSERT INTO optiinfra_raw.aws_billing ({_COLUMNS}) SETTINGS {settings}"
        f" SELECT {_in_order(values)} FROM {relation}"
    )


def _values(names: list[str], cast: Callable[[Column], str]) -> dict[str, str]:
    return {each.name: cast(each) if each.name in names else "NULL" for each in AWS_BILLING.columns}


def _lineage(extra: str, timestamp: str) -> dict[str, str]:
    return {
        "x_customer_id": "'acme'",
        "x_provider": "'aws'",
        "x_connection_id": "'aws-main'",
        "x_source": "'acme.parquet'",
        "x_row_number": "1",
        "x_focus_version": "'1.2'",
        "x_extra": extra,
        "x_load_id": "'load'",
        "x_collected_at": f"CAST('2026-11-02 00:00:00' AS {timestamp})",
    }


def _in_order(values: Mapping[str, str]) -> str:
    return ", ".join(values[name] for name in AWS_BILLING.column_names)


def _duckdb_parquet(column: Column) -> str:
    return money(f'"{column.name}"', pa.float64()).sql if column.type is Type.MONEY else _as_read(column)


def _duckdb_csv(column: Column) -> str:
    return f'CAST("{column.name}" AS {column.type.duckdb})'


def _clickhouse_parquet(column: Column) -> str:
    return f'toDecimal128(toString("{column.name}"), 21)' if column.type is Type.MONEY else _as_read(column)


def _as_read(column: Column) -> str:
    return f'"{column.name}"'


def _clickhouse_type(name: str) -> str:
    return column_type(AWS_BILLING.column(name)) if name in AWS_BILLING.column_names else "Nullable(String)"


def _is_csv(bill: Path) -> bool:
    return next(bill.iterdir()).name.endswith(".csv.gz")


def _relation(bill: Path) -> str:
    if _is_csv(bill):
        return f"read_csv('{bill}/*', all_varchar = true, hive_partitioning = false)"
    return f"read_parquet('{bill}/*', hive_partitioning = false)"


def _names(bill: Path) -> list[str]:
    with duckdb.connect() as con:
        return [name for name, *_ in con.execute(f"DESCRIBE FROM {_relation(bill)}").fetchall()]
