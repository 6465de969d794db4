"""One 15-minute tick of many customers on four clouds, against the sandbox's servers with latency.

The tick is what the schedule asks for: inventory and metrics of every connection, through `collect_day` into a
warehouse. Customers are collected side by side, as concurrent runs do; what Dagster adds to each run, a process and its
events, is not in it.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

from optiinfra_pipelines_tests.benchmarks.bench import Bench
from optiinfra_pipelines_tests.benchmarks.child import Outcome, run_apart
from optiinfra_pipelines_tests.benchmarks.figures import Benchmark, Pair
from optiinfra_pipelines_tests.benchmarks.warehouses import empty_warehouse, warehouse_at

CUSTOMERS, MACHINES, LATENCY = 50, 10, 0.1  # 50 customers x 4 clouds x 10 machines, 100 ms on each answer
_PLANNED = 6  # machines that the sandbox's fleet has in any case on each cloud
_SIDE_BY_SIDE = 16


def tick(address: str, customers: int) -> Mapping[str, float]:
    """Task: the first two ticks of a day; seconds, requests and rows of the second one, which has an inventory."""
    from optiinfra_pipelines.sandbox.clouds import serve_clouds
    from optiinfra_pipelines.sandbox.fleet import Fleet

    begin = datetime(2026, 11, 20, 0, 15, 30, tzinfo=UTC)
    names = tuple(f"customer-{number:02d}" for number in range(customers))
    with serve_clouds(Fleet(begin.date(), names, MACHINES - _PLANNED), LATENCY) as clouds:
        os.environ.update(clouds.environment())
        _collect(address, clouds, begin)
        return _collect(address, clouds, begin + timedelta(minutes=15))


def _collect(address: str, clouds: Any, now: datetime) -> Mapping[str, float]:
    from optiinfra_pipelines.clouds.collection import Kind, collect_day
    from optiinfra_pipelines.customers import Customer, Customers
    from optiinfra_pipelines.settings import Settings
    from optiinfra_pipelines.windows import DAY, Window, floor_day

    content = [{"id": each, "name": each, "connections": clouds.connections(each)} for each in clouds.fleet.customers]
    kinds: tuple[Kind, ...] = ("inventory", "metrics")
    today = Window(floor_day(now), floor_day(now) + DAY)

    def collected(customer: Customer) -> list[Any]:
        warehouse = warehouse_at(address)
        return [
            attempt
            for kind in kinds
            for cloud in clouds.fleet.clouds
            for attempt in collect_day(warehouse, Settings(), customer, cloud, kind, today, now)
        ]

    began = perf_counter()
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as threads:
        attempts = [
            attempt
            for found in threads.map(collected, Customers.model_validate({"customers": content}).customers)
            for attempt in found
        ]
    seconds = perf_counter() - began
    failed = [str(attempt.error) for attempt in attempts if attempt.error]
    if failed:
        raise ValueError(f"{len(failed)} of {len(attempts)} attempts failed: {failed[0]}")
    return {
        "seconds": seconds,
        "requests": sum(attempt.requests for attempt in attempts),
        "rows": sum(attempt.rows for attempt in attempts),
    }


def fewest_requests(customers: int) -> int:
    """The fewest requests that the APIs' page and batch limits allow for one tick of that many such customers, where
    nothing is kept from the tick before and each customer has credentials of its own.

    AWS: one role taken on, one DescribeRegions; for each of the two enabled regions 8 lists, in the one with machines
    also sizes of types and tags of databases; ListMetrics of Bedrock in each region and of the agent where machines
    run, and one GetMetricData for each 500 statistics. Google Cloud: one token, 7 lists, and one timeSeries.list for
    each of 25 pairs of metric type and aligner, for a request takes one of each. Azure: three audiences' tokens,
    Resource Graph, sizes, creation times, one getBatch for each of machines, databases and disks, one query for guests.
    Vultr: 8 lists and the plans; Prometheus: one query for each of three exporters.
    """
    inventory = {"aws": 2 + 2 * 8 + 2, "gcp": 1 + 7, "azure": 1 + 3, "vultr": 9}
    metrics = {"aws": 3 + 1, "gcp": 25, "azure": 2 + 3 + 1, "vultr": 3}
    return customers * (sum(inventory.values()) + sum(metrics.values()))


def _ticked(bench: Bench) -> Outcome:
    customers = CUSTOMERS if bench.rows >= 1_000_000 else 1

    def run() -> Outcome:
        bench.say(f"a tick of {customers} customers on four clouds")
        with empty_warehouse("duckdb") as address:
            return run_apart(tick, address, customers)

    return bench.once("tick", run)


def _requests(bench: Bench) -> Pair:
    customers = CUSTOMERS if bench.rows >= 1_000_000 else 1
    return Pair(_ticked(bench).numbers["requests"], fewest_requests(customers))


TICKS = (
    Benchmark("tick_50_customers", "s", "lower", None, "< 120", lambda bench: Pair(_ticked(bench).numbers["seconds"])),
    Benchmark("tick_requests", "requests", "lower", "the fewest that page and batch limits allow", "<= 1.2", _requests),
)
