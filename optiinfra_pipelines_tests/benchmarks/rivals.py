"""The same rows into DuckDB by the general loaders that people use with Dagster, each used as its documentation says.

None of them judges rows, keeps rejected ones, sums the source or makes exact decimals: costs stay doubles. Product and
rival load the same sample.
"""

from collections.abc import Callable, Iterator, Mapping
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import duckdb

from optiinfra_pipelines_tests.benchmarks.bench import Bench
from optiinfra_pipelines_tests.benchmarks.bill import files_of
from optiinfra_pipelines_tests.benchmarks.child import run_apart
from optiinfra_pipelines_tests.benchmarks.figures import Benchmark, Pair, typical
from optiinfra_pipelines_tests.benchmarks.load import product_run


def load_with_dlt(bill: str, rows: int) -> Mapping[str, float]:
    """Task: dlt's own filesystem source with its Parquet reader and default settings, which make objects of rows."""
    from dlt.sources.filesystem import filesystem, read_parquet

    return _run_dlt(filesystem(bucket_url=str(files_of(bill)), file_glob="*.parquet") | read_parquet(), rows)


def load_arrow_with_dlt(bill: str, rows: int) -> Mapping[str, float]:
    """Task: dlt given Arrow batches that its user reads himself, the fastest way into it: rows pass as they are."""
    import dlt
    import pyarrow.parquet as pq

    @dlt.resource
    def batches() -> Iterator[Any]:
        for file in sorted(files_of(bill).iterdir()):
            yield from pq.ParquetFile(file).iter_batches()

    return _run_dlt(batches(), rows)


def _run_dlt(resource: Any, rows: int) -> Mapping[str, float]:
    import dlt

    dlt.config["runtime.dlthub_telemetry"] = False
    with TemporaryDirectory(prefix="optiinfra-bench-") as folder:
        path = f"{folder}/dlt.duckdb"
        destination = dlt.destinations.duckdb(path)
        pipeline = dlt.pipeline("bill", pipelines_dir=folder, destination=destination, dataset_name="raw")
        began = perf_counter()
        pipeline.run(resource.with_name("aws_billing"))
        return _checked(path, rows, perf_counter() - began)


def load_with_pandas(bill: str, rows: int) -> Mapping[str, float]:
    """Task: a Dagster asset that reads the files with pandas and leaves writing to dagster-duckdb-pandas."""
    import dagster as dg
    import pandas as pd
    from dagster_duckdb_pandas import DuckDBPandasIOManager

    @dg.asset(key_prefix="raw", io_manager_key="io_manager")
    def aws_billing() -> pd.DataFrame:
        return pd.concat([pd.read_parquet(file) for file in sorted(files_of(bill).iterdir())])

    with TemporaryDirectory(prefix="optiinfra-bench-") as folder:
        path = f"{folder}/pandas.duckdb"
        began = perf_counter()
        dg.materialize([aws_billing], resources={"io_manager": DuckDBPandasIOManager(database=path)})
        return _checked(path, rows, perf_counter() - began)


def _checked(path: str, rows: int, seconds: float) -> Mapping[str, float]:
    with duckdb.connect(path, read_only=True) as con:
        held = con.execute("SELECT count(*) FROM raw.aws_billing").fetchone()
    if held != (rows,):
        raise ValueError(f"of {rows} rows {held} were loaded")
    return {"rows_per_second": rows / seconds}


def _beside(bench: Bench, rival: Callable[[str, int], Mapping[str, float]], rows: int) -> Pair:
    pairs = []
    for turn in range(bench.rounds):
        bench.say(f"loading {rows:,} rows by {rival.__name__} and by the product, {turn + 1} of {bench.rounds}")
        product = product_run(bench, "duckdb", rows)
        other = run_apart(rival, bench.bill(rows), rows)
        pairs.append(Pair(product.numbers["rows_per_second"], other.numbers["rows_per_second"]))
    return typical(pairs)


def _rival(
    name: str, rival: Callable[[str, int], Mapping[str, float]], share: int, baseline: str, wanted: str = ""
) -> Benchmark:
    return Benchmark(
        name,
        "rows/s",
        "higher",
        f"{baseline}, both on 1/{share} of the rows",
        wanted,
        lambda bench: _beside(bench, rival, bench.share(share)),
    )


RIVALS = (
    _rival("focus_load_vs_dlt", load_with_dlt, 500, "dlt: filesystem | read_parquet, its defaults", ">= 10"),
    _rival("focus_load_vs_dlt_arrow", load_arrow_with_dlt, 10, "dlt: Arrow batches, costs left as doubles"),
    _rival("focus_load_vs_pandas", load_with_pandas, 10, "pandas and dagster-duckdb-pandas, costs left as doubles"),
)
