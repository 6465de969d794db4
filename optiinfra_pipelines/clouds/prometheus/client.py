"""A Prometheus server asked for the machines of one connection, a request for each exporter and day.

Source: https://prometheus.io/docs/prometheus/latest/querying/api/#range-queries
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

from optiinfra_pipelines.clouds.collecting import Findings, Source
from optiinfra_pipelines.clouds.prometheus.parser import SECONDS, machines_by_label, parse_matrix, window_ends
from optiinfra_pipelines.clouds.prometheus.vocabulary import EXPORTERS, exporter_query
from optiinfra_pipelines.clouds.rest import Api
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.tables.contract import Table
from optiinfra_pipelines.windows import DAY, Window

# Prometheus refuses more than 11,000 points a series; a day has 96, and of thousands of machines it is enough at once.
LONGEST = DAY


def prometheus_metrics(source: Source, table: Table, resources: Sequence[Mapping[str, Any]], span: Window) -> Findings:
    """Rows of `table` (a provider's raw metrics) from the connection's Prometheus: 15-minute windows of `span`.

    `resources` are inventory rows; a series is of the machine whose id, name or IP address the resource label holds,
    else of a machine with that label as its id. An exporter that fails is one failure; CollectionError (auth,
    not_configured) where the server refuses to answer at all.
    """
    config = source.connection.prometheus
    if config is None:
        raise CollectionError("not_configured", f"{source.name} has no prometheus section in customers.yaml")
    machines = machines_by_label(resources)
    findings = Findings()
    with httpx.Client() as client:
        api = Api(source, "prometheus", config.url, client, lambda renew: _authorization(source))
        for exporter in EXPORTERS:
            promql = exporter_query(exporter, config.resource_label)
            with findings.part():
                for part in _parts(span):
                    result = _query_range(api, source, findings, promql, part)
                    found = parse_matrix(result, machines, part, table, f"prometheus:query_range/{exporter}")
                    findings.tables += [found] if found.num_rows else []
    if len(findings.failures) == len(EXPORTERS) and all(each.kind == "auth" for each in findings.failures):
        raise findings.failures[0]
    return findings


def _parts(span: Window) -> Iterator[Window]:
    start = span.start
    while start < span.end:
        yield Window(start, min(start + LONGEST, span.end))
        start += LONGEST


def _query_range(api: Api, source: Source, findings: Findings, promql: str, span: Window) -> list[dict[str, Any]]:
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
    if partial:
        said = "; ".join(map(str, partial))[:300]
        findings.failures.append(
            CollectionError("transient", f"{source.name}: prometheus query_range is not whole: {said}")
        )
    return data["result"]


def _authorization(source: Source) -> Mapping[str, str]:
    token = source.secret("prometheus_token")
    if token:
        return {"Authorization": f"Bearer {token}"}
    user, password = source.secret("prometheus_username"), source.secret("prometheus_password")
    if user is not None:
        pair = b64encode(f"{user}:{password or ''}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}
    return {}
