"""A Prometheus server on loopback for the sandbox: range queries over the machines of one customer on one cloud.

`/{customer}/{cloud}/api/v1/query_range` answers in the words of Prometheus's HTTP API. It is no PromQL engine: of each
operand of `or` it reads which exporter's metric is asked for, over which function, the labels that are to be made and
the bounds of clamp_min and clamp_max; the values are the fleet's.
Run as `python -m optiinfra_pipelines.sandbox.prometheus_server --port 0 --today ...`.
"""

import argparse
import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs

from optiinfra_pipelines.sandbox.fleet import Fleet, FleetCloud, Resource, Series, series_of
from optiinfra_pipelines.sandbox.gate import FAULT_IN_ENVIRON, Fault, Gate, answer_json, serve, serve_apart
from optiinfra_pipelines.sandbox.vultr_wire import private_ip
from optiinfra_pipelines.windows import WINDOW

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
MOST_POINTS = 11_000
PARTIAL = "partial"
FAULTS: Mapping[str, Fault | None] = {
    "throttled": Fault(status=429, times=2),  # a proxy's: Prometheus itself has no limit of requests
    "server_error_500": Fault(status=500, times=2),
    "server_error_503": Fault(status=503, times=2),
    "connection_reset": Fault(kind="reset", times=2),
    "timeout": Fault(kind="hang", seconds=2, times=1),
    "truncated_json": Fault(kind="cut", times=2),
    "partial_page": Fault(kind=PARTIAL, times=1),  # Thanos's partial response: a warning beside what there is
    "endless_cursor": None,
    "repeated_page": None,
    "token_expiry": None,
    "clock_skew": None,
    "empty_zone": None,
    "permission_denied": Fault(status=403, match="DCGM", times=1),
    "region_not_enabled": None,
}
ABSENT: Mapping[str, str] = {  # why there is no such fault
    "endless_cursor": "one answer holds all: there are no pages",
    "repeated_page": "one answer holds all: there are no pages",
    "token_expiry": "a bearer token or password is a person's to renew",
    "clock_skew": "times are in the request and in the answer, no clock is compared",
    "empty_zone": "a server knows no zones",
    "region_not_enabled": "a server knows no regions",
}


@dataclass(frozen=True)
class _LlmSeries(Series):
    """What vLLM tells beyond the fleet's own metrics, reckoned from the tokens that its machine reads."""

    def value(self, window_start: datetime) -> float | None:
        tokens = Series(self.resource, "input_tokens", "sum").value(window_start)
        if tokens is None or self.metric not in _PER_TOKEN:
            return super().value(window_start)
        if self.metric == "time_to_first_token_seconds" and self.resource.profile == "idle":
            return None  # no request ended: the server answers NaN, a quotient of zeros
        amount = tokens * _PER_TOKEN[self.metric] * (1.5 if self.statistic in ("maximum", "p95") else 1)
        return amount if self.metric.endswith("seconds") else float(round(amount))


_PER_TOKEN = {"requests_running": 2e-5, "requests_waiting": 3e-6, "time_to_first_token_seconds": 4e-7}
_LLM = (
    *(("kv_cache_utilization", each) for each in ("average", "maximum")),
    *((metric, each) for metric in ("requests_running", "requests_waiting") for each in ("average", "maximum")),
    *((metric, "sum") for metric in ("input_tokens", "output_tokens")),
    *(("time_to_first_token_seconds", each) for each in ("average", "p95")),
)
# An exporter's metric -> the fleet's, with the port that the exporter listens on, and whether it has percents itself.
_METRICS: Mapping[str, tuple[str, int, bool]] = {
    "node_cpu_seconds_total": ("cpu_utilization", 9100, False),
    "node_memory_MemAvailable_bytes": ("memory_utilization", 9100, False),
    "node_filesystem_avail_bytes": ("storage_utilization", 9100, False),
    "node_network_receive_bytes_total": ("network_in_bytes", 9100, True),
    "node_network_transmit_bytes_total": ("network_out_bytes", 9100, True),
    "node_disk_read_bytes_total": ("disk_read_bytes", 9100, True),
    "node_disk_written_bytes_total": ("disk_write_bytes", 9100, True),
    "node_disk_reads_completed_total": ("disk_read_operations", 9100, True),
    "node_disk_writes_completed_total": ("disk_write_operations", 9100, True),
    "DCGM_FI_DEV_GPU_UTIL": ("gpu_utilization", 9400, True),
    "DCGM_FI_DEV_FB_USED": ("gpu_memory_utilization", 9400, False),
    "vllm:kv_cache_usage_perc": ("kv_cache_utilization", 8000, False),
    "vllm:num_requests_running": ("requests_running", 8000, True),
    "vllm:num_requests_waiting": ("requests_waiting", 8000, True),
    "vllm:prompt_tokens_total": ("input_tokens", 8000, True),
    "vllm:generation_tokens_total": ("output_tokens", 8000, True),
    "vllm:time_to_first_token_seconds_sum": ("time_to_first_token_seconds", 8000, True),
    "vllm:time_to_first_token_seconds_bucket": ("time_to_first_token_seconds", 8000, True),
}
_NAME = re.compile(r"(?:node_|DCGM_|vllm:)\w+")
_CLAMP = re.compile(r"clamp_(min|max)\(")
_BOUND = re.compile(r", (-?[0-9.]+)\)")  # the last argument of a clamp; no other function's is a number
_MADE = re.compile(r'"(\w+)", "([^"]*)", "(\w*)", "([^"]*)"\)')


def shown_series(fleet: Fleet, customer_id: str, cloud: FleetCloud = "vultr") -> Iterator[Series]:
    """The series that the exporters of a customer's machines on one cloud have."""
    for machine in fleet.of(customer_id, cloud, "machine"):
        yield from series_of(machine)
        if machine.measured and machine.shape and machine.shape.gpu_count:
            yield from (_LlmSeries(machine, metric, statistic, MODEL) for metric, statistic in _LLM)


def host_of(machine: Resource) -> str:
    """How the resource label names a machine: by its private address on Vultr, elsewhere by its name."""
    return private_ip(machine) if machine.cloud == "vultr" else machine.name


@dataclass(frozen=True)
class _Operand:
    """One operand of `or`: what it asks for and the labels that it puts on its series."""

    metric: str
    statistic: str
    port: int
    factor: float
    made: tuple[tuple[str, str, str, str], ...]
    clamps: tuple[tuple[str, float], ...]

    @classmethod
    def read(cls, promql: str) -> "_Operand | None":
        """The operand, or None where no exporter has such a metric."""
        found = _NAME.search(promql)
        if found is None or found[0] not in _METRICS:
            return None
        metric, port, percent = _METRICS[found[0]]
        factor = 1.0 if percent or "100 *" in promql else 0.01
        before = promql[: found.start()]
        inner_first = zip(reversed(_CLAMP.findall(promql)), map(float, _BOUND.findall(promql)), strict=True)
        made, clamps = tuple(_MADE.findall(promql)), tuple(inner_first)
        return cls(metric, _statistic(promql, before), port, factor, made, clamps)

    def result(self, value: float) -> float:
        """What the operand makes of the fleet's value."""
        value *= self.factor
        for clamp, bound in self.clamps:
            value = max(value, bound) if clamp == "min" else min(value, bound)
        return value

    def labels(self, series: Series) -> dict[str, str]:
        """The labels of the series, the made ones among them; those that the operand does not name are aggregated."""
        own = {"instance": f"{host_of(series.resource)}:{self.port}"}
        component = series.component.removeprefix("gpu-")
        labels = {("model_name" if self.port == 8000 else "gpu"): component} if component else {}
        for target, replacement, label, regex in self.made:
            matched = re.fullmatch(regex, own.get(label, ""))
            if matched:
                labels[target] = matched.expand(replacement.replace("$", "\\"))
        return labels


def _statistic(promql: str, before: str) -> str:
    if "histogram_quantile(0.95" in promql:
        return "p95"
    if "increase(" in promql:
        return "average" if " / " in promql else "sum"
    return "maximum" if "max_over_time(" in before or "min_over_time(" in before else "average"


def _operands(promql: str) -> Iterator[str]:
    depth, start = 0, 0
    for match in re.finditer(r'"[^"]*"|[()]| or ', promql):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if match[0] == " or " and depth == 0:
            yield promql[start : match.start()]
            start = match.end()
    yield promql[start:]


class PrometheusServer:
    """The WSGI application: a fleet's machines as a Prometheus server of each customer and cloud shows them."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    @cached_property
    def _series(self) -> dict[tuple[str, str, str, str], list[Series]]:
        found: dict[tuple[str, str, str, str], list[Series]] = {}
        for customer in self._fleet.customers:
            for cloud in self._fleet.clouds:
                for series in shown_series(self._fleet, customer, cloud):
                    found.setdefault((customer, cloud, series.metric, series.statistic), []).append(series)
        return found

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        matched = re.fullmatch(r"/([^/]+)/([^/]+)/api/v1/query_range", environ["PATH_INFO"])
        if matched is None or matched[1] not in self._fleet.customers:
            return answer_json(start_response, _error("not_found", "404 page not found"), 404)
        if environ.get("HTTP_AUTHORIZATION") not in _accepted(matched[1]):
            return answer_json(start_response, _error("unauthorized", "Unauthorized"), 401)
        asked = {name: values[0] for name, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
        try:
            start, end, step = (int(float(asked[name])) for name in ("start", "end", "step"))
        except (KeyError, ValueError):
            return answer_json(start_response, _error("bad_data", 'invalid parameter "start"'), 400)
        if (end - start) // step + 1 > MOST_POINTS:
            said = "exceeded maximum resolution of 11,000 points per timeseries."
            return answer_json(start_response, _error("bad_data", f"{said} Try decreasing the query resolution"), 400)
        operands = [(each, _Operand.read(each)) for each in _operands(asked.get("query", ""))]
        if any(operand is None for _, operand in operands):
            return answer_json(start_response, _error("bad_data", "no exporter of the sandbox has this metric"), 400)
        result = [
            {"metric": operand.labels(series), "values": points}
            for _, operand in operands
            if operand is not None
            for series in self._series.get((matched[1], matched[2], operand.metric, operand.statistic), [])
            if (points := _points(series, operand, range(start, end + 1, step)))
        ]
        whole: dict[str, Any] = {"status": "success", "data": {"resultType": "matrix", "result": result}}
        fault = environ.get(FAULT_IN_ENVIRON)
        if fault is not None and fault.kind == PARTIAL:
            whole["data"]["result"] = result[: len(result) // 2]
            whole["warnings"] = ["fetch series for {} from replica store-1: connection refused"]
        return answer_json(start_response, whole)


def _points(series: Series, operand: _Operand, times: range) -> list[tuple[int, str]]:
    """What an expression over the last 15 minutes is at each of `times`: the window's value at its end."""
    found = []
    for at in times:
        value = series.value(datetime.fromtimestamp(at, UTC) - WINDOW)
        if value is not None:
            found.append((at, repr(operand.result(value))))
        elif series.metric == "time_to_first_token_seconds":
            found.append((at, "NaN"))
    return found


def _error(kind: str, message: str) -> dict[str, str]:
    return {"status": "error", "errorType": kind, "error": message}


def _error_body(status: int, environ: Mapping[str, Any]) -> tuple[str, bytes]:
    kind = {429: "too_many_requests", 403: "forbidden", 503: "timeout"}.get(status, "internal")
    return "application/json", json.dumps(_error(kind, "query timed out in expression evaluation")).encode()


def _token(customer_id: str) -> str:
    return f"canary-prometheus-{customer_id}-token"


def _accepted(customer_id: str) -> tuple[str, str]:
    pair = b64encode(f"{customer_id}:{_token(customer_id)}".encode()).decode()
    return f"Bearer {_token(customer_id)}", f"Basic {pair}"


def serve_prometheus(
    today: date, customers: tuple[str, ...] = ("acme", "globex"), machines: int = 0, latency: float = 0.0
) -> AbstractContextManager[str]:
    """The server in a process of its own; yields its URL."""
    options = ("--today", f"{today}", "--customers", ",".join(customers), "--machines", f"{machines}")
    return serve_apart("optiinfra_pipelines.sandbox.prometheus_server", *options, "--latency", f"{latency}")


def prometheus(customer_id: str, url: str, cloud: FleetCloud = "vultr") -> dict[str, str]:
    """The `prometheus` section of a connection in customers.yaml; its token is named by `credentials`."""
    return {"url": f"{url}/{customer_id}/{cloud}", "resource_label": "instance"}


def credentials(customer_id: str) -> dict[str, str]:
    """What the connection's `credentials` have besides the cloud's own, for `prometheus`."""
    return {"prometheus_token": _variable(customer_id)}


def environment(customer_ids: Iterable[str]) -> dict[str, str]:
    """The environment variables that `credentials` names."""
    return {_variable(each): _token(each) for each in customer_ids}


def _variable(customer_id: str) -> str:
    return f"{customer_id.upper().replace('-', '_')}_PROMETHEUS_TOKEN"


def main(arguments: list[str] | None = None) -> None:
    """Command line of the server."""
    parser = argparse.ArgumentParser(
        prog="python -m optiinfra_pipelines.sandbox.prometheus_server", description=__doc__
    )
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0, the default, takes a free one")
    parser.add_argument("--today", type=date.fromisoformat, required=True, help="UTC day that ages are counted from")
    parser.add_argument("--customers", default="acme,globex", help="ids of the customers, parted by commas")
    parser.add_argument("--machines", type=int, default=0, help="plain machines to add to each customer and cloud")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds to wait before each answer")
    options = parser.parse_args(arguments)
    fleet = Fleet(options.today, tuple(options.customers.split(",")), options.machines)
    serve(Gate(PrometheusServer(fleet), _error_body, (PARTIAL,), options.latency), options.port)


if __name__ == "__main__":
    main()
