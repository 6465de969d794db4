"""A Prometheus server asked for the machines of one connection, a request for each exporter and day.

The server may measure others' machines too: series of hosts that the connection's inventory does not name are left out,
and a warning on the logger `optiinfra_pipelines` counts those hosts and names some.

Source: https://prometheus.io/docs/prometheus/latest/querying/api/#range-queries
"""

import logging
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from optiinfra_pipelines.clouds.collecting import Findings, Source
from optiinfra_pipelines.clouds.prometheus.parser import (
    SECONDS,
    machines_by_label,
    parse_matrix,
    unknown_hosts,
    window_ends,
)
from optiinfra_pipelines.clouds.prometheus.vocabulary import EXPORTERS, exporter_query
from optiinfra_pipelines.clouds.rest import Api, trusted
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.tables.contract import Table
from optiinfra_pipelines.windows import DAY, Window

# Prometheus refuses more than 11,000 points a series; a day has 96, and of thousands of machines it is enough at once.
LONGEST = DAY
_SOURCE = "prometheus:query_range"
_SHOWN = 5  # hosts that the warning names
_log = logging.getLogger("optiinfra_pipelines")


def prometheus_metrics(source: Source, table: Table, resources: Sequence[Mapping[str, Any]], span: Window) -> Findings:
    """Rows of `table` (a provider's raw metrics) from the connection's Prometheus: 15-minute windows of `span`.

    `resources` are inventory rows; a series is of the machine whose id, name or IP address the resource label holds;
    one of no such machine is left out, with a warning. An exporter that fails is one failure. CollectionError: auth
    where the server refuses all, not_configured where the connection names no server or a label that can be none.
    """
    config = source.connection.prometheus
    if config is None:
        raise CollectionError("not_configured", f"{source.name} has no prometheus section in customers.yaml")
    queries = {exporter: exporter_query(exporter, config.resource_label) for exporter in EXPORTERS}
    machines = machines_by_label(resources)
    unknown: set[str] = set()
    with httpx.Client(verify=trusted()) as client, ThreadPoolExecutor(len(queries)) as pool:
        api = Api(source, "prometheus", config.url, client, lambda refused: _authorization(source))

        def ask(exporter: str) -> Findings:
            findings = Findings()
            with findings.part():
                for part in _parts(span):
                    result, missing = _query_range(api, source, queries[exporter], part)
                    findings.tables.append(parse_matrix(result, machines, part, table, f"{_SOURCE}/{exporter}"))
                    findings.failures += missing
                    unknown.update(unknown_hosts(result, machines))
            return findings

        answers = list(pool.map(ask, queries))
    refused = [failure for each in answers for failure in each.failures if failure.kind == "auth"]
    if len(refused) == len(answers):
        raise refused[0]
    findings = Findings()
    for each in answers:
        findings.add(each)
    if unknown:
        _warn(source.name, unknown)
    return findings


def _warn(name: str, unknown: set[str]) -> None:
    shown = ", ".join(sorted(unknown)[:_SHOWN]) + (", ..." if len(unknown) > _SHOWN else "")
    _log.warning(
        "%s: prometheus measures %d hosts that the connection's inventory does not have: their metrics are left out"
        " (%s); where they are this connection's, check prometheus.resource_label and that inventory is collected",
        *(name, len(unknown), shown),
    )


def _parts(span: Window) -> Iterator[Window]:
    start = span.start
    while start < span.end:
        yield Window(start, min(start + LONGEST, span.end))
        start += LONGEST


def _query_range(
    api: Api, source: Source, promql: str, span: Window
) -> tuple[list[dict[str, Any]], list[CollectionError]]:
    """The matrix, and a failure where the server says that something is missing in it."""
    start, end = window_ends(span)
    params = {"query": promql, "start": int(start.timestamp()), "end": int(end.timestamp()), "step": SECONDS}
    answer = api.get("/api/v1/query_range", "query_range", params)
    if not isinstance(answer, dict) or answer.get("status") != "success":
        said = f"{answer.get('errorType')}: {answer.get('error')}" if isinstance(answer, dict) else "no JSON object"
        raise CollectionError("malformed", f"{source.name}: prometheus query_range: {said}")
    data = answer.get("data") or {}
    if data.get("resultType") != "matrix" or not isinstance(data.get("result"), list):
        raise CollectionError("malformed", f"{source.name}: prometheus query_range: the answer is no matrix")
    # Thanos, Mimir and others answer with what they have and warn of what is missing; PromQL's warnings are no such
    partial = [each for each in answer.get("warnings") or () if not str(each).startswith("PromQL")]
    said = "; ".join(map(str, partial))[:300]
    missing = CollectionError("transient", f"{source.name}: prometheus query_range is not whole: {said}")
    return data["result"], [missing] if partial else []


def _authorization(source: Source) -> Mapping[str, str]:
    token = source.secret("prometheus_token")
    if token:
        return {"Authorization": f"Bearer {token}"}
    user, password = source.secret("prometheus_username"), source.secret("prometheus_password")
    if user is not None:
        pair = b64encode(f"{user}:{password or ''}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}
    return {}
