"""Parsing metrics: from decoded answers of each cloud's metrics API to rows of raw metrics, in points a CPU second.

The answers are those of the sandbox's servers, whose shapes tests hold against recordings: metrics of 405 machines a
connection, 4 windows a series, as a tick with its re-read window brings them, and of as many connections as make
200,000 points. They are parsed in the collectors' portions: a request of 500 series (AWS), a batch of 50 machines
(Azure), a metric type (Google Cloud), an exporter (Prometheus). Building and decoding them is not timed. A point is a
row that came out.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from time import process_time
from typing import TYPE_CHECKING, Any

from optiinfra_pipelines.windows import WINDOW, Window
from optiinfra_pipelines_tests.benchmarks.bench import Bench
from optiinfra_pipelines_tests.benchmarks.child import run_apart
from optiinfra_pipelines_tests.benchmarks.figures import Benchmark, Pair, typical

if TYPE_CHECKING:
    import pyarrow as pa

    from optiinfra_pipelines.sandbox.fleet import Fleet

POINTS, MACHINES = 200_000, 400
_NOON = datetime(2026, 11, 19, 12, tzinfo=UTC)
SPAN = Window(_NOON, _NOON + 4 * WINDOW)
CUSTOMER = "acme"
Parse = Callable[[], "pa.Table"]


def parsing(source: str, wanted: int) -> Mapping[str, float]:
    """Task: parse what `source` (a key of ANSWERS) answers to one connection after the other, until there are `wanted`
    points; how many there are, and CPU seconds of it on one core."""
    import pyarrow as pa

    from optiinfra_pipelines.sandbox.fleet import Fleet

    pa.set_cpu_count(1)
    pa.array([0])  # pyarrow imports pandas for its first array: a third of a second once a process, and no parsing
    fleet = Fleet(SPAN.end.date(), (CUSTOMER,), MACHINES)
    points, seconds = 0, 0.0
    while points < wanted:
        before = points
        for parse in ANSWERS[source](fleet):
            began = process_time()
            table = parse()
            seconds += process_time() - began
            points += table.num_rows
        if points == before:
            raise ValueError(f"the answers of {source} hold no points")
    return {"points": points, "seconds": seconds}


def _aws(fleet: "Fleet") -> Iterator[Parse]:
    from optiinfra_pipelines.clouds.aws.series import batches, metric_rows, queries
    from optiinfra_pipelines.sandbox.aws_measures import measures, points

    inventory = [
        {
            "account_id": each.account_id,
            "resource_id": each.resource_id,
            "resource_type": each.resource_type,
            "state": each.state,
            "storage_gib": each.storage_gib,
            "details": "{}",
        }
        for each in fleet.of(CUSTOMER, "aws", "machine")
    ]
    known = measures(fleet, CUSTOMER)
    for series in batches(list(queries(inventory)), SPAN):
        results = []
        for number, query in enumerate(series):
            shown = list(points(known, query.asked(number), *SPAN))
            times, values = [at for at, _ in shown], [value for _, value in shown]
            about = {"Id": f"q{number}", "Label": f"q{number}", "StatusCode": "Complete"}
            results.append({**about, "Timestamps": times, "Values": values})
        yield partial(metric_rows, series, results, SPAN)


def _gcp(fleet: "Fleet") -> Iterator[Parse]:
    import pyarrow as pa

    from optiinfra_pipelines.clouds.gcp.series import Points, metric_tables
    from optiinfra_pipelines.clouds.gcp.vocabulary import ALIGNERS, GPU_MEMORY, QUERIES, MetricQuery
    from optiinfra_pipelines.clouds.vocabulary import Statistic
    from optiinfra_pipelines.sandbox.gcp_wire import WIRES, time_series, window_starts

    def parsed(page: Mapping[str, Any], query: MetricQuery, statistic: Statistic) -> pa.Table:
        found = Points()
        found.add(page, "p", query, frozenset())
        return pa.concat_tables(metric_tables(query, statistic, found, SPAN, {}))

    starts = window_starts(*SPAN)
    for query in QUERIES:
        native = query.mapping.native
        if query.mapping.resource_type == "machine" and native != GPU_MEMORY:
            for statistic in query.mapping.wanted:
                series = list(time_series(fleet, CUSTOMER, native, ALIGNERS[statistic], starts))
                page = _decoded({"timeSeries": series, "unit": WIRES[native].unit})
                yield partial(parsed, page, query, statistic)


def _azure(fleet: "Fleet") -> Iterator[Parse]:
    from optiinfra_pipelines.clouds.azure.monitor import BATCH
    from optiinfra_pipelines.clouds.azure.series import metric_table
    from optiinfra_pipelines.clouds.azure.vocabulary import AGGREGATIONS, READINGS
    from optiinfra_pipelines.sandbox.azure_wire import Wire

    wire = Wire(fleet, CUSTOMER)
    asked = READINGS["machine"], set(AGGREGATIONS["machine"]), *SPAN
    machines = fleet.of(CUSTOMER, "azure", "machine")
    for first in range(0, len(machines), BATCH):
        values = _decoded([wire.metric_value(machine, *asked) for machine in machines[first : first + BATCH]])
        yield partial(metric_table, values, "machine", SPAN)


def _prometheus(fleet: "Fleet") -> Iterator[Parse]:
    from urllib.parse import urlencode

    from optiinfra_pipelines.clouds.prometheus.parser import SECONDS, machines_by_label, parse_matrix, window_ends
    from optiinfra_pipelines.clouds.prometheus.vocabulary import EXPORTERS, exporter_query
    from optiinfra_pipelines.sandbox.prometheus_server import PrometheusServer, environment, host_of
    from optiinfra_pipelines.tables.cloud import METRICS

    inventory = [
        {
            "account_id": each.account_id,
            "resource_id": each.resource_id,
            "resource_type": each.resource_type,
            "name": each.name,
            "details": json.dumps({"private_ips": [host_of(each)]}),
        }
        for each in fleet.of(CUSTOMER, "vultr", "machine")
    ]
    machines = machines_by_label(inventory)
    server, [token] = PrometheusServer(fleet), environment([CUSTOMER]).values()
    start, end = (int(at.timestamp()) for at in window_ends(SPAN))
    for exporter in EXPORTERS:
        asked = {"query": exporter_query(exporter, "instance"), "start": start, "end": end, "step": SECONDS}
        environ = {
            "PATH_INFO": f"/{CUSTOMER}/vultr/api/v1/query_range",
            "QUERY_STRING": urlencode(asked),
            "HTTP_AUTHORIZATION": f"Bearer {token}",
        }
        result = json.loads(b"".join(server(environ, lambda *_: None)))["data"]["result"]
        yield partial(parse_matrix, result, machines, SPAN, METRICS["vultr"], "prometheus")


def _decoded(answer: Any) -> Any:
    """The answer as it is once it has come over the wire."""
    return json.loads(json.dumps(answer))


ANSWERS: Mapping[str, Callable[["Fleet"], Iterator[Parse]]] = {
    "aws": _aws,
    "gcp": _gcp,
    "azure": _azure,
    "prometheus": _prometheus,
}
"""Source -> the answers to one connection, each as what parses it."""


def _rate(bench: Bench, source: str) -> float:
    wanted = POINTS if bench.rows >= 1_000_000 else 1

    def one() -> Pair:
        numbers = run_apart(parsing, source, wanted).numbers
        return Pair(numbers["points"] / numbers["seconds"])

    def measured() -> float:
        bench.say(f"parsing metrics of {source}")
        return typical([one() for _ in range(bench.rounds)]).value

    return bench.once(f"parsing {source}", measured)


def _of(source: str) -> Benchmark:
    return Benchmark(
        f"metric_parsing_{source}", "points/s", "higher", None, "", lambda bench: Pair(_rate(bench, source))
    )


def _slowest(bench: Bench) -> Pair:
    return Pair(min(_rate(bench, source) for source in ANSWERS))


PARSING = (
    Benchmark("metric_parsing", "points/s", "higher", None, ">= 200000", _slowest),
    *(_of(source) for source in ANSWERS),
)
