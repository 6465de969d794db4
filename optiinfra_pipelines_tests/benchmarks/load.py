"""How fast a month's bill is loaded, and in how much memory: the product beside the bare insert of the same engine.

The product's side is `load_period` with all it does: files found, rows judged, numbered and traced, the source's own
digits summed, the ledger written. The bare insert is ceiling.py's. Both find the tables there when the clock starts,
and both run on the same ClickHouse server of the sandbox, each time a new one.
"""

import os
from collections.abc import Mapping
from time import perf_counter

import duckdb

from optiinfra_pipelines.clouds.focus.loader import Bill, load_period
from optiinfra_pipelines.clouds.focus.locations import open_location
from optiinfra_pipelines.customers import BillingSource
from optiinfra_pipelines.tables.billing import AWS_BILLING
from optiinfra_pipelines.warehouse.protocol import Engine
from optiinfra_pipelines.windows import BillingPeriod
from optiinfra_pipelines_tests.benchmarks.bench import Bench
from optiinfra_pipelines_tests.benchmarks.bill import MONTH, files_of
from optiinfra_pipelines_tests.benchmarks.ceiling import clickhouse_insert, duckdb_insert
from optiinfra_pipelines_tests.benchmarks.child import Outcome, run_apart
from optiinfra_pipelines_tests.benchmarks.figures import Benchmark, Pair, typical
from optiinfra_pipelines_tests.benchmarks.warehouses import clickhouse_address, empty_warehouse, warehouse_at

CSV_SHARE = 5  # CSV takes longer to read: a fifth of the rows


def load_as_product(address: str, bill: str, rows: int) -> Mapping[str, float]:
    """Task: load the bill the product's way; its rows a second."""
    warehouse, source = warehouse_at(address), BillingSource(location=bill)
    owned = Bill("acme", "aws-main", "aws", source, open_location(source, {}))
    began = perf_counter()
    loaded = load_period(warehouse, AWS_BILLING, owned, BillingPeriod(MONTH))
    seconds = perf_counter() - began
    if loaded.rows != rows:
        raise ValueError(f"of {rows} rows {loaded.rows} were loaded and {loaded.rows_rejected} rejected")
    return {"rows_per_second": rows / seconds}


def load_bare(address: str, bill: str, rows: int) -> Mapping[str, float]:
    """Task: load the bill by the engine's bare insert; its rows a second."""
    if address.startswith("http"):
        seconds = _seconds_of_clickhouse(address, bill)
    else:
        statement = duckdb_insert(files_of(bill))
        began = perf_counter()
        with duckdb.connect(address, config={"preserve_insertion_order": "false"}) as con:
            con.execute("SET enable_progress_bar = false")
            con.execute(statement)
        seconds = perf_counter() - began
    held = warehouse_at(address).query(f"SELECT count(*) AS n FROM {warehouse_at(address).name(AWS_BILLING)}")
    if held["n"][0].as_py() != rows:
        raise ValueError(f"of {rows} rows {held['n'][0]} were loaded")
    return {"rows_per_second": rows / seconds}


def _seconds_of_clickhouse(url: str, bill: str) -> float:
    import clickhouse_connect

    address = clickhouse_address(url)
    statement = clickhouse_insert(files_of(bill), threads=os.cpu_count() or 1)
    with clickhouse_connect.get_client(host=address.host, port=address.port, send_receive_timeout=3600) as client:
        began = perf_counter()
        client.command(statement)
        return perf_counter() - began


def product_run(bench: Bench, engine: Engine, rows: int, extension: str = "parquet") -> Outcome:
    """One load by the product into an empty warehouse; its outcome is kept for the memory benchmarks."""
    bill = bench.bill(rows, extension)
    with empty_warehouse(engine) as address:
        outcome = run_apart(load_as_product, address, bill, rows)
    kept_outcomes(bench, engine, rows).append(outcome)
    return outcome


def kept_outcomes(bench: Bench, engine: Engine, rows: int) -> list[Outcome]:
    """The outcomes so far of the product's loads of that many rows."""
    return bench.once(f"loads {engine} {rows}", list[Outcome])


def _beside_ceiling(bench: Bench, engine: Engine, rows: int, extension: str) -> Pair:
    pairs = []
    for turn in range(bench.rounds):
        bench.say(f"loading {rows:,} rows of {extension} into {engine}, {turn + 1} of {bench.rounds}")
        product = product_run(bench, engine, rows, extension)
        with empty_warehouse(engine) as address:
            bare = run_apart(load_bare, address, bench.bill(rows, extension), rows)
        pairs.append(Pair(product.numbers["rows_per_second"], bare.numbers["rows_per_second"]))
    return typical(pairs)


def _speed(name: str, engine: Engine, extension: str, share: int, wanted: str) -> Benchmark:
    return Benchmark(
        name,
        "rows/s",
        "higher",
        f"bare INSERT ... SELECT of {engine} from the same {extension} files"
        + (f" (1/{share} of the rows)" if share > 1 else ""),
        wanted,
        lambda bench: _beside_ceiling(bench, engine, bench.share(share), extension),
    )


def _peak(bench: Bench, engine: Engine, rows: int) -> float:
    if not kept_outcomes(bench, engine, rows):
        bench.say(f"loading {rows:,} rows of parquet into {engine} for its memory")
        product_run(bench, engine, rows)
    return max(outcome.peak_mb for outcome in kept_outcomes(bench, engine, rows))


def _memory(name: str, engine: Engine) -> Benchmark:
    return Benchmark(name, "MB", "lower", None, "< 1500", lambda bench: Pair(_peak(bench, engine, bench.rows)))


LOADS = (
    _speed("focus_load_duckdb", "duckdb", "parquet", 1, ">= 0.8"),
    _speed("focus_load_duckdb_csv", "duckdb", "csv.gz", CSV_SHARE, ">= 0.8"),
    _speed("focus_load_clickhouse", "clickhouse", "parquet", 1, ">= 0.5"),
    _speed("focus_load_clickhouse_csv", "clickhouse", "csv.gz", CSV_SHARE, ">= 0.5"),
)
MEMORY = (
    _memory("focus_load_peak_memory", "duckdb"),
    Benchmark(
        "focus_load_peak_memory_10m",
        "MB",
        "lower",
        "peak with half of these rows",
        "<= 1",
        lambda bench: Pair(_peak(bench, "duckdb", 2 * bench.rows), _peak(bench, "duckdb", bench.rows)),
    ),
    _memory("focus_load_peak_memory_clickhouse", "clickhouse"),
)
