"""CloudWatch: which metrics to ask for, and what GetMetricData answers -> raw.aws_metrics. Pure.

Parsing is columnar: one Arrow table of all series, whose words are taken by the series' number.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from optiinfra_pipelines.clouds.aws.vocabulary import (
    LISTED_METRICS,
    MEMORY_FILE_SYSTEMS,
    METRICS,
    NITRO_ONLY,
    STATISTICS,
)
from optiinfra_pipelines.clouds.collecting import collected_schema, naive_utc
from optiinfra_pipelines.clouds.vocabulary import MetricMapping, Statistic
from optiinfra_pipelines.tables.cloud import METRICS as METRIC_TABLES
from optiinfra_pipelines.windows import WINDOW, Window

TABLE = METRIC_TABLES["aws"]
PERIOD = int(WINDOW.total_seconds())
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html
QUERIES_PER_REQUEST = 500
POINTS_PER_REQUEST = 100_800
LISTED_NAMESPACES = tuple(dict.fromkeys(native.split(" ")[0] for native in LISTED_METRICS))
LISTED_RECENTLY = timedelta(hours=3)  # ListMetrics, same reference: RecentlyActive may be PT3H; without it two weeks
_DIMENSION = {"machine": "InstanceId", "volume": "VolumeId", "database": "DBInstanceIdentifier"}
_GIB = 2**30


@dataclass(frozen=True)
class Query:
    """One series to ask for: `value * scale + offset` is in the vocabulary's unit."""

    mapping: MetricMapping
    account_id: str
    resource_id: str
    dimensions: tuple[tuple[str, str], ...]
    statistic: Statistic
    component: str = ""
    scale: float = 1.0
    offset: float = 0.0

    def asked(self, number: int) -> dict[str, Any]:
        """The MetricDataQuery with `number` in its Id."""
        namespace, name = self.mapping.native.split(" ")
        # free is least when used is most
        swapped = self.scale < 0 and self.statistic in ("maximum", "minimum")
        other: Statistic = "minimum" if self.statistic == "maximum" else "maximum"
        return {
            "Id": f"q{number}",
            "MetricStat": {
                "Metric": {
                    "Namespace": namespace,
                    "MetricName": name,
                    "Dimensions": [{"Name": name, "Value": value} for name, value in self.dimensions],
                },
                "Period": PERIOD,
                "Stat": STATISTICS[other if swapped else self.statistic],
            },
        }


def measured(resource: Mapping[str, Any]) -> bool:
    """Whether CloudWatch can have metrics of the inventory row: what is stopped by now ran in some window before."""
    kind, state = resource["resource_type"], resource["state"]
    if kind == "volume":
        return bool(state == "attached")
    return kind in ("machine", "database", "function") and state != "terminated"


def still_listed(span: Window, now: datetime) -> dict[str, str]:
    """Which metrics ListMetrics is to list, as its parameters: those that could have points in `span`."""
    return {"RecentlyActive": "PT3H"} if now - span.start <= LISTED_RECENTLY else {}


def queries(resources: Iterable[Mapping[str, Any]]) -> Iterator[Query]:
    """The series that the given inventory rows have by themselves."""
    for resource in filter(measured, resources):
        kind = resource["resource_type"]
        details = json.loads(resource["details"] or "{}")
        dimensions = ((_DIMENSION.get(kind, "FunctionName"), str(_native_id(resource))),)
        for mapping in METRICS:
            name = mapping.native.split(" ")[1]
            if mapping.resource_type != kind or (name in NITRO_ONLY and details.get("hypervisor") == "xen"):
                continue
            offset = 0.0
            if mapping.scale < 0:
                if resource["storage_gib"] is None:
                    continue
                offset = resource["storage_gib"] * _GIB
            for statistic in mapping.wanted:
                yield Query(
                    *(mapping, resource["account_id"], resource["resource_id"], dimensions, statistic),
                    scale=mapping.scale,
                    offset=offset,
                )


def listed_queries(
    listed: Iterable[Mapping[str, Any]], account_id: str, resources: Iterable[Mapping[str, Any]]
) -> Iterator[Query]:
    """The series among those that ListMetrics `listed`: of the agents on the given machines, and of models."""
    machines = {each["resource_id"]: each for each in resources if each["resource_type"] == "machine"}
    best: dict[tuple[str, str, str], tuple[int, Query]] = {}
    for metric in listed:
        mapping = LISTED_METRICS.get(f"{metric['Namespace']} {metric['MetricName']}")
        if mapping is None:
            continue
        pairs = tuple((each["Name"], each["Value"]) for each in metric.get("Dimensions", ()))
        named = dict(pairs)
        resource_id = named.get("ModelId" if mapping.resource_type == "model" else "InstanceId")
        scale = _scale(mapping, machines.get(resource_id or "", {}))
        if resource_id is None or scale is None or named.get("fstype") in MEMORY_FILE_SYSTEMS:
            continue
        if mapping.resource_type == "machine" and resource_id not in machines:
            continue
        if mapping.resource_type == "model" and len(pairs) > 1:
            continue  # the same calls once more, by the size of their prompts
        query = Query(mapping, account_id, resource_id, pairs, "average", _component(mapping, named), scale)
        # an agent may send a metric again in coarser groups: the finest one is the thing itself
        key = (mapping.metric, resource_id, query.component)
        if key not in best or best[key][0] < len(pairs):
            best[key] = (len(pairs), query)
    for _, query in best.values():
        for statistic in query.mapping.wanted:
            yield Query(
                *(query.mapping, query.account_id, query.resource_id, query.dimensions, statistic),
                *(query.component, query.scale),
            )


def batches(series: Sequence[Query], span: Window) -> Iterator[Sequence[Query]]:
    """`series` in as few requests as the limits on queries and points allow."""
    windows = max(int((span.end - span.start) / WINDOW), 1)
    size = min(QUERIES_PER_REQUEST, max(POINTS_PER_REQUEST // windows, 1))
    for first in range(0, len(series), size):
        yield series[first : first + size]


def metric_rows(series: Sequence[Query], results: Iterable[Mapping[str, Any]], span: Window) -> pa.Table:
    """The windows of `span` among `results` (MetricDataResults of all pages, by their Id the series' number)."""
    starts: list[Any] = []
    values: list[float] = []
    numbers: list[int] = []
    for result in results:
        times = result["Timestamps"]
        starts += times
        values += result["Values"]
        numbers += [int(result["Id"][1:])] * len(times)
    at = pa.array(starts, pa.timestamp("us", "UTC")).cast(pa.timestamp("us"))
    number = pa.array(numbers, pa.int32())
    scale = pa.array([each.scale for each in series], pa.float64())
    offset = pa.array([each.offset for each in series], pa.float64())
    value = pc.add(pc.multiply(pa.array(values, pa.float64()), scale.take(number)), offset.take(number))
    words = {
        "account_id": [each.account_id for each in series],
        "resource_id": [each.resource_id for each in series],
        "resource_type": [each.mapping.resource_type for each in series],
        "metric_name": [each.mapping.metric for each in series],
        "component": [each.component for each in series],
        "unit": [each.mapping.unit for each in series],
        "statistic": [each.statistic for each in series],
    }
    columns = {name: pa.array(values, pa.string()).take(number) for name, values in words.items()}
    schema = collected_schema(TABLE)
    count = len(at)
    columns |= {
        "window_start": at,
        "window_seconds": pa.repeat(pa.scalar(PERIOD), count),
        "value": value,
        "sample_count": pa.nulls(count),
        "source": pa.repeat(pa.scalar("cloudwatch:GetMetricData"), count),
    }
    table = pa.table([columns[column.name].cast(column.type) for column in schema], schema=schema)
    first, last = pa.scalar(naive_utc(span.start)), pa.scalar(naive_utc(span.end))
    return table.filter(pc.and_(pc.greater_equal(at, first), pc.less(at, last)))


def _native_id(resource: Mapping[str, Any]) -> str:
    """The value of the dimension that names it: databases and functions go by name, not by ARN."""
    if resource["resource_type"] in ("database", "function"):
        return str(resource["resource_id"]).rpartition(":")[2]
    return str(resource["resource_id"])


def _component(mapping: MetricMapping, named: Mapping[str, str]) -> str:
    if mapping.metric.startswith("gpu_"):
        return f"gpu-{named.get('index', '0')}"
    if mapping.metric == "storage_utilization":
        path = named.get("path", "/")
        return "" if path == "/" else path
    return ""


def _scale(mapping: MetricMapping, machine: Mapping[str, Any]) -> float | None:
    """The factor to the vocabulary's unit; None where it is not to be known."""
    if mapping.metric != "gpu_memory_utilization":
        return mapping.scale
    memory = json.loads(machine.get("details") or "{}").get("gpu_memory_mib")
    return mapping.scale / memory if memory else None
