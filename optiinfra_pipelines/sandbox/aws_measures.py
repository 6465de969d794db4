"""The fleet's series as CloudWatch has them: namespaces, dimensions, units; ListMetrics and GetMetricData. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from optiinfra_pipelines.sandbox.aws_listings import INSTANCE_TYPES
from optiinfra_pipelines.sandbox.fleet import Fleet, Resource, Series, series_of

_NAMES: Mapping[tuple[str, str], tuple[str, str]] = {
    ("machine", "cpu_utilization"): ("AWS/EC2", "CPUUtilization"),
    ("machine", "network_in_bytes"): ("AWS/EC2", "NetworkIn"),
    ("machine", "network_out_bytes"): ("AWS/EC2", "NetworkOut"),
    ("machine", "disk_read_bytes"): ("AWS/EC2", "EBSReadBytes"),
    ("machine", "disk_write_bytes"): ("AWS/EC2", "EBSWriteBytes"),
    ("machine", "disk_read_operations"): ("AWS/EC2", "EBSReadOps"),
    ("machine", "disk_write_operations"): ("AWS/EC2", "EBSWriteOps"),
    ("machine", "memory_utilization"): ("CWAgent", "mem_used_percent"),
    ("machine", "storage_utilization"): ("CWAgent", "disk_used_percent"),
    ("machine", "gpu_utilization"): ("CWAgent", "nvidia_smi_utilization_gpu"),
    ("machine", "gpu_memory_utilization"): ("CWAgent", "nvidia_smi_memory_used"),
    ("volume", "disk_read_bytes"): ("AWS/EBS", "VolumeReadBytes"),
    ("volume", "disk_write_bytes"): ("AWS/EBS", "VolumeWriteBytes"),
    ("volume", "disk_read_operations"): ("AWS/EBS", "VolumeReadOps"),
    ("volume", "disk_write_operations"): ("AWS/EBS", "VolumeWriteOps"),
    ("database", "cpu_utilization"): ("AWS/RDS", "CPUUtilization"),
    ("database", "database_connections"): ("AWS/RDS", "DatabaseConnections"),
    ("database", "storage_used_bytes"): ("AWS/RDS", "FreeStorageSpace"),
    ("function", "invocations"): ("AWS/Lambda", "Invocations"),
    ("function", "errors"): ("AWS/Lambda", "Errors"),
    ("function", "throttles"): ("AWS/Lambda", "Throttles"),
    ("function", "duration_seconds"): ("AWS/Lambda", "Duration"),
    ("model", "invocations"): ("AWS/Bedrock", "Invocations"),
    ("model", "input_tokens"): ("AWS/Bedrock", "InputTokenCount"),
    ("model", "output_tokens"): ("AWS/Bedrock", "OutputTokenCount"),
}
_STATISTICS = {"average": "Average", "maximum": "Maximum", "sum": "Sum"}
_DIMENSIONS = {
    "machine": "InstanceId",
    "volume": "VolumeId",
    "database": "DBInstanceIdentifier",
    "function": "FunctionName",
    "model": "ModelId",
}
Key = tuple[str, str, frozenset[tuple[str, str]], str]


@dataclass(frozen=True)
class Measure:
    """One series on CloudWatch's side: its value is `series * scale + offset`."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]
    statistic: str
    series: Series
    scale: float = 1.0
    offset: float = 0.0

    def value(self, start: datetime) -> float | None:
        """What CloudWatch shows of the 15 minutes from `start`."""
        value = self.series.value(start)
        return None if value is None else value * self.scale + self.offset


def shown_series(fleet: Fleet, customer_id: str) -> Iterator[Series]:
    """Every series that CloudWatch shows of the customer; raw metrics are to hold exactly these."""
    for resource in fleet.of(customer_id, "aws"):
        for series in series_of(resource):
            if (resource.resource_type, series.metric) in _NAMES:
                yield series


def measures(fleet: Fleet, customer_id: str) -> dict[Key, Measure]:
    """Every series by namespace, name, dimensions and statistic."""
    found = (_measure(each) for each in shown_series(fleet, customer_id))
    return {(each.namespace, each.name, frozenset(each.dimensions), each.statistic): each for each in found}


def listed(found: Mapping[Key, Measure], namespace: str) -> list[dict[str, Any]]:
    """ListMetrics of a namespace; beside the agent's metrics stands what it sends of memory file systems, and each
    machine's disks once more as one group."""
    metrics = dict.fromkeys((each.namespace, each.name, each.dimensions) for each in found.values())
    ours = [each for each in metrics if each[0] == namespace]
    extra: list[tuple[str, str, tuple[tuple[str, str], ...]]] = []
    for space, name, dimensions in ours:
        if name == "disk_used_percent":
            instance = dict(dimensions)["InstanceId"]
            extra.append((space, name, (("InstanceId", instance),)))
            extra.append((space, name, (("InstanceId", instance), ("path", "/dev/shm"), ("fstype", "tmpfs"))))
        if space == "AWS/Bedrock":
            extra.append((space, name, (*dimensions, ("ContextWindow", "200K"))))
    return [
        {
            "Namespace": space,
            "MetricName": name,
            "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions],
        }
        for space, name, dimensions in (*ours, *extra)
    ]


def points(
    found: Mapping[Key, Measure], query: Mapping[str, Any], start: datetime, end: datetime
) -> Iterator[tuple[datetime, float]]:
    """The points of one MetricDataQuery, oldest first; none for a series that is not there."""
    stat = query["MetricStat"]
    metric, period = stat["Metric"], timedelta(seconds=stat["Period"])
    dimensions = frozenset((each["Name"], each["Value"]) for each in metric.get("Dimensions", ()))
    measure = found.get((metric["Namespace"], metric["MetricName"], dimensions, stat["Stat"]))
    seconds = int(period.total_seconds())
    at = datetime.fromtimestamp(int(start.timestamp()) // seconds * seconds, UTC)
    while measure is not None and at < end:
        value = measure.value(at)
        if value is not None:
            yield at, value
        at += period


def _measure(series: Series) -> Measure:
    resource = series.resource
    namespace, name = _NAMES[resource.resource_type, series.metric]
    native = resource.name if resource.resource_type in ("database", "function", "model") else resource.resource_id
    dimensions: tuple[tuple[str, str], ...] = ((_DIMENSIONS[resource.resource_type], native),)
    statistic, scale, offset = _STATISTICS[series.statistic], 1.0, 0.0
    if namespace == "CWAgent":
        dimensions += _agent_dimensions(resource, name, series.component)
    if name == "nvidia_smi_memory_used":
        [gpu] = INSTANCE_TYPES[str(resource.native_type)]["GpuInfo"]["Gpus"]
        scale = gpu["MemoryInfo"]["SizeInMiB"] / 100
    if name == "FreeStorageSpace":
        scale, offset = -1.0, (resource.storage_gib or 0) * 2**30
        statistic = "Minimum" if statistic == "Maximum" else statistic
    if name == "Duration":
        scale = 1000.0
    return Measure(namespace, name, dimensions, statistic, series, scale, offset)


def _agent_dimensions(resource: Resource, name: str, component: str) -> tuple[tuple[str, str], ...]:
    shared = (("ImageId", "ami-0b6f9dd2c1a8f1c55"), ("InstanceType", str(resource.native_type)))
    if name == "disk_used_percent":
        return (*shared, ("path", "/"), ("device", "nvme0n1p1"), ("fstype", "xfs"))
    if name.startswith("nvidia_smi"):
        return (*shared, ("index", component.removeprefix("gpu-")), ("name", "NVIDIA A10G"), ("arch", "Ampere"))
    return shared
