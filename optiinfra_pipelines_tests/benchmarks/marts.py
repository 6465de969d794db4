"""How long the marts of a month take to build, and a dashboard's question to them to be answered."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import duckdb

from optiinfra_pipelines.warehouse.protocol import Engine
from optiinfra_pipelines_tests.benchmarks.bench import Bench
from optiinfra_pipelines_tests.benchmarks.child import run_apart
from optiinfra_pipelines_tests.benchmarks.figures import Benchmark, Pair
from optiinfra_pipelines_tests.benchmarks.load import load_as_product
from optiinfra_pipelines_tests.benchmarks.warehouses import (
    clickhouse_address,
    create_tables,
    empty_warehouse,
)
from optiinfra_pipelines_tests.dbt_project.dbt_runs import Dbt

MONTHS = 24
_QUERIES = 21

_EARLIER_MONTHS = f"""
INSERT INTO marts.costs_daily
SELECT * EXCLUDE (back) REPLACE (
    CAST(charge_day - to_months(CAST(back AS INTEGER)) AS DATE) AS charge_day,
    strftime(CAST(billing_period || '-01' AS DATE) - to_months(CAST(back AS INTEGER)), '%Y-%m') AS billing_period
)
FROM marts.costs_daily CROSS JOIN range(1, {MONTHS}) AS month(back)
"""
_MONTHS_BY_SERVICE = """
SELECT billing_period, service_name, sum(effective_cost) AS effective_cost, sum(total_savings) AS total_savings
FROM marts.costs_daily WHERE customer_id = $customer GROUP BY billing_period, service_name
ORDER BY billing_period, service_name
"""


@dataclass(frozen=True)
class Build:
    """One `dbt build` of everything: seconds from its first node to its last, by dbt's clock, and of all the rest."""

    nodes: float
    startup: float


def _on_duckdb(bench: Bench) -> Build:
    return bench.once("marts duckdb", lambda: _build(bench, "duckdb", create_tables(_path(bench))))


def _on_clickhouse(bench: Bench) -> Build:
    def build() -> Build:
        with empty_warehouse("clickhouse") as address:
            return _build(bench, "clickhouse", address)

    return bench.once("marts clickhouse", build)


def _path(bench: Bench) -> str:
    return str(bench.folder / "warehouse.duckdb")


def _build(bench: Bench, engine: Engine, address: str) -> Build:
    """Load the bill, then build as often as there are rounds, each time from nothing; the build of median length."""
    bench.say(f"loading {bench.rows:,} rows into {engine} for its marts")
    run_apart(load_as_product, address, bench.bill(bench.rows), bench.rows)
    builds = []
    with TemporaryDirectory(prefix="optiinfra-bench-") as folder:
        dbt = Dbt(_environment(address), Path(folder))
        dbt.run("parse")  # as `make setup` does
        for turn in range(bench.rounds):
            bench.say(f"building the marts on {engine}, {turn + 1} of {bench.rounds}")
            began = perf_counter()
            dbt.run("build", "--full-refresh")
            seconds = perf_counter() - began
            nodes = json.loads((Path(folder) / "target" / "run_results.json").read_text())["elapsed_time"]
            builds.append(Build(nodes, seconds - nodes))
    return sorted(builds, key=lambda build: build.nodes)[(len(builds) - 1) // 2]


def _environment(address: str) -> Mapping[str, str]:
    if not address.startswith("http"):
        return {"OPTIINFRA_DBT_TARGET": "duckdb", "OPTIINFRA_DUCKDB_PATH": address}
    server = clickhouse_address(address)
    return {
        "OPTIINFRA_DBT_TARGET": "clickhouse",
        "OPTIINFRA_CLICKHOUSE_HOST": server.host,
        "OPTIINFRA_CLICKHOUSE_PORT": str(server.port),
    }


def _answer(bench: Bench) -> float:
    _on_duckdb(bench)
    bench.say(f"asking {MONTHS} months of marts.costs_daily")
    run_apart(add_earlier_months, _path(bench))
    return run_apart(ask_costs_daily, _path(bench)).numbers["milliseconds"]


def add_earlier_months(path: str) -> Mapping[str, float]:
    """Task: put copies of the month, each under an earlier month's name, into marts.costs_daily; its rows then."""
    with duckdb.connect(path) as con:
        con.execute(_EARLIER_MONTHS)
        held = con.execute("SELECT count(*), count(DISTINCT billing_period) FROM marts.costs_daily").fetchone()
    if held is None or held[1] != MONTHS:
        raise ValueError(f"marts.costs_daily holds {held}, not {MONTHS} months")
    return {"rows": held[0]}


def ask_costs_daily(path: str) -> Mapping[str, float]:
    """Task: one customer's costs by month and service, asked over one open connection; the median time.

    Opening the file takes 20 to 30 ms more, which a dashboard pays once.
    """
    times = []
    with duckdb.connect(path, read_only=True) as con:
        for _ in range(_QUERIES):
            began = perf_counter()
            answer = con.execute(_MONTHS_BY_SERVICE, {"customer": "acme"}).fetchall()
            times.append(perf_counter() - began)
    if len({month for month, *_ in answer}) != MONTHS:
        raise ValueError(f"the answer has {len(answer)} rows and not {MONTHS} months")
    return {"milliseconds": 1000 * median(times)}


MARTS = (
    Benchmark("cost_marts_build", "s", "lower", None, "< 10", lambda bench: Pair(_on_duckdb(bench).nodes)),
    Benchmark("cost_marts_build_startup", "s", "lower", None, "", lambda bench: Pair(_on_duckdb(bench).startup)),
    Benchmark(
        "cost_marts_build_clickhouse", "s", "lower", None, "< 10", lambda bench: Pair(_on_clickhouse(bench).nodes)
    ),
    Benchmark("costs_daily_query", "ms", "lower", None, "< 100", lambda bench: Pair(_answer(bench))),
)
