"""Azure's words and the vocabulary's: metrics, states, GPUs of VM sizes, disk sizes, meters. Tables, each with its
source; how answers are read is in the parsers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from optiinfra_pipelines.clouds.vocabulary import MetricMapping, StateMapping, Statistic, Unit, gpu_model
from optiinfra_pipelines.windows import WINDOW

_METRICS = "https://learn.microsoft.com/azure/azure-monitor/reference/supported-metrics/"
_VM = _METRICS + "microsoft-compute-virtualmachines-metrics"
_DISK = _METRICS + "microsoft-compute-disks-metrics"
_SQL = _METRICS + "microsoft-sql-servers-databases-metrics"
_PER_WINDOW = WINDOW.total_seconds()  # a rate a second, averaged over the window, times this is the window's sum
_COMPLEMENT = -1.0  # what is available in percent -> what is used: 100 - value

VIRTUAL_MACHINES = "microsoft.compute/virtualmachines"
DISKS = "microsoft.compute/disks"
DATABASES = "microsoft.sql/servers/databases"
# Metric namespace by resource type, of the types that have platform metrics
NAMESPACES: Mapping[str, str] = {"machine": VIRTUAL_MACHINES, "volume": DISKS, "database": DATABASES}

MAPPINGS = (
    MetricMapping("Percentage CPU", "cpu_utilization", "machine", 1, _VM),
    MetricMapping("Available Memory Percentage", "memory_utilization", "machine", _COMPLEMENT, _VM),
    MetricMapping("Network In Total", "network_in_bytes", "machine", 1, _VM),
    MetricMapping("Network Out Total", "network_out_bytes", "machine", 1, _VM),
    MetricMapping("Disk Read Bytes", "disk_read_bytes", "machine", 1, _VM),
    MetricMapping("Disk Write Bytes", "disk_write_bytes", "machine", 1, _VM),
    MetricMapping("Disk Read Operations/Sec", "disk_read_operations", "machine", _PER_WINDOW, _VM),
    MetricMapping("Disk Write Operations/Sec", "disk_write_operations", "machine", _PER_WINDOW, _VM),
    MetricMapping("Composite Disk Read Bytes/sec", "disk_read_bytes", "volume", _PER_WINDOW, _DISK),
    MetricMapping("Composite Disk Write Bytes/sec", "disk_write_bytes", "volume", _PER_WINDOW, _DISK),
    MetricMapping("Composite Disk Read Operations/sec", "disk_read_operations", "volume", _PER_WINDOW, _DISK),
    MetricMapping("Composite Disk Write Operations/sec", "disk_write_operations", "volume", _PER_WINDOW, _DISK),
    MetricMapping("cpu_percent", "cpu_utilization", "database", 1, _SQL),
    MetricMapping("sessions_count", "database_connections", "database", 1, _SQL),
    MetricMapping("storage", "storage_used_bytes", "database", 1, _SQL),
)


@dataclass(frozen=True)
class Reading:
    """One statistic to take from one aggregation of a native metric: `offset + scale * value`, in `unit`."""

    metric: str
    statistic: Statistic
    unit: Unit
    aggregation: str
    scale: float
    offset: float = 0.0


_AGGREGATIONS: Mapping[Statistic, str] = {
    "average": "average",
    "maximum": "maximum",
    "minimum": "minimum",
    "sum": "total",
}


def readings(mapping: MetricMapping) -> tuple[Reading, ...]:
    """How the statistics that are wanted of a metric are read from Azure's aggregations of it."""
    found = []
    for statistic in mapping.wanted:
        aggregation, offset = _AGGREGATIONS[statistic], 0.0
        if mapping.scale == _COMPLEMENT:  # the most that was used is where the least was available
            aggregation, offset = ("minimum" if statistic == "maximum" else aggregation), 100.0
        elif mapping.scale == _PER_WINDOW:
            aggregation = "average"
        found.append(Reading(mapping.metric, statistic, mapping.unit, aggregation, mapping.scale, offset))
    return tuple(found)


READINGS: Mapping[str, Mapping[str, tuple[Reading, ...]]] = {
    resource_type: {each.native: readings(each) for each in MAPPINGS if each.resource_type == resource_type}
    for resource_type in NAMESPACES
}
AGGREGATIONS: Mapping[str, tuple[str, ...]] = {
    resource_type: tuple(sorted({each.aggregation for group in by_name.values() for each in group}))
    for resource_type, by_name in READINGS.items()
}

# What guests report to Log Analytics, by one query over every workspace that holds logs of a subscription.
# Disk: VM insights, https://learn.microsoft.com/azure/azure-monitor/vm/vminsights-log-query (InsightsMetrics).
# GPU: the counters of NVIDIA's driver for Windows, by a data collection rule into Perf,
# https://learn.microsoft.com/azure/azure-monitor/vm/data-collection-performance. On Linux: Prometheus with DCGM.
GUEST_QUERY = """\
let disks = InsightsMetrics
| where Namespace == "LogicalDisk" and Name == "FreeSpaceMB"
| extend Size = toreal(todynamic(Tags)["vm.azm.ms/diskSizeMB"])
| summarize Free = sum(Val), Size = sum(Size) by Id = tolower(_ResourceId), At = bin(TimeGenerated, 1m)
| project Id, At, Metric = "storage_utilization", Component = "", Used = 100.0 - 100.0 * Free / Size;
let gpus = Perf
| where ObjectName == "NVIDIA GPU" and CounterName in ("% GPU Usage", "% GPU Memory Usage")
| project Id = tolower(_ResourceId), At = TimeGenerated,
  Metric = iff(CounterName == "% GPU Usage", "gpu_utilization", "gpu_memory_utilization"),
  Component = strcat("gpu-", extract(@"(\\d+)", 1, InstanceName)), Used = CounterValue;
union isfuzzy=true disks, gpus
| where isfinite(Used)
| summarize Average = avg(Used), Maximum = max(Used), Samples = count()
  by Id, Metric, Component, Window = bin(At, 15m)
"""

_POWER = "https://learn.microsoft.com/azure/virtual-machines/states-billing"
STATES: Mapping[str, StateMapping] = {
    mapping.resource_type: mapping
    for mapping in (
        StateMapping(
            "machine",
            _POWER,
            {
                "creating": "starting",
                "starting": "starting",
                "running": "running",
                "stopping": "stopping",
                "stopped": "stopped",
                "deallocating": "stopping",
                "deallocated": "deallocated",
                "hibernated": "suspended",
            },
        ),
        StateMapping(
            "volume",
            "https://learn.microsoft.com/rest/api/compute/disks/get#diskstate",
            {
                "Attached": "attached",
                "Reserved": "attached",  # to a machine that is deallocated
                "Frozen": "attached",  # to a machine that hibernates
                "ActiveSAS": "attached",  # something reads it by a link: not to be judged unused
                "ActiveSASFrozen": "attached",
                "Unattached": "unattached",
                "ReadyToUpload": "creating",
                "ActiveUpload": "creating",
            },
        ),
        StateMapping(
            "database",
            "https://learn.microsoft.com/rest/api/sql/databases/get#databasestatus",
            {
                "Online": "running",
                "Creating": "starting",
                "Resuming": "starting",
                "Copying": "starting",
                "Pausing": "stopping",
                "Stopping": "stopping",
                "Paused": "stopped",
                "Stopped": "stopped",
                "Offline": "stopped",
                "AutoClosed": "stopped",
                "Disabled": "suspended",
                "Restoring": "maintenance",
                "Recovering": "maintenance",
                "RecoveryPending": "maintenance",
                "Scaling": "maintenance",
                "Standby": "maintenance",
                "OfflineChangingDwPerformanceTiers": "maintenance",
                "OnlineChangingDwPerformanceTiers": "maintenance",
                "OfflineSecondary": "maintenance",
                "Suspect": "failed",
                "EmergencyMode": "failed",
                "Inaccessible": "failed",
                "Shutdown": "stopped",
            },
        ),
        StateMapping(
            "snapshot",
            "https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations",
            {"Succeeded": "available", "Creating": "creating", "Updating": "available", "Deleting": "deleting"},
        ),
    )
}
# Images and addresses have the provisioning states that snapshots have.
PROVISIONING = STATES["snapshot"]

# GPUs by the size's name: Microsoft.Compute/skus tells how many, not which.
# https://learn.microsoft.com/azure/virtual-machines/sizes/overview#gpu-accelerated
_GPU_SIZES: tuple[tuple[str, str], ...] = (
    (r"_nd96amsr_a100_v4|_nc\d+ads_a100_v4", "NVIDIA A100 80GB"),
    (r"_nd96asr_(a100_)?v4", "NVIDIA A100 40GB"),
    (r"_(nc|ncc)\d+[a-z]+_h100_v5", "NVIDIA H100 NVL 94GB"),
    (r"_nc\d+r?s?_v3|_nc24rs_v3", "NVIDIA V100 16GB"),
    (r"_nd40rs_v2", "NVIDIA V100 32GB"),
    (r"_nc\d+r?s_v2", "NVIDIA P100 16GB"),
    (r"_nc\d+r?$", "NVIDIA K80 12GB"),
    (r"_nd\d+r?s$", "NVIDIA P40 24GB"),
    (r"_nv\d+as_v4", "AMD MI25 16GB"),
    (r"_nv\d+ads_v710_v5", "AMD V710 28GB"),
    (r"_nv\d+(s_v[23])?$", "NVIDIA M60 8GB"),
)
# Sizes that have a part of one GPU, of which the API says 1. https://learn.microsoft.com/azure/virtual-machines/nva10v5-series
_GPU_SHARES: Mapping[str, float] = {
    "standard_nv6ads_a10_v5": 1 / 6,
    "standard_nv12ads_a10_v5": 1 / 3,
    "standard_nv18ads_a10_v5": 1 / 2,
    "standard_nv4as_v4": 1 / 8,
    "standard_nv8as_v4": 1 / 4,
    "standard_nv16as_v4": 1 / 2,
    "standard_nv4ads_v710_v5": 1 / 6,
    "standard_nv8ads_v710_v5": 1 / 3,
    "standard_nv12ads_v710_v5": 1 / 2,
}


def size_gpu(size: str, count: float) -> tuple[str | None, float | None]:
    """The GPU and how many of them a VM size has, from its name and the API's `count`; (None, None) without."""
    name = size.lower()
    if not count:
        return None, None
    known = next((model for pattern, model in _GPU_SIZES if re.search(pattern, name)), None)
    return known or gpu_model(size), _GPU_SHARES.get(name, count)


# https://learn.microsoft.com/azure/azure-sql/database/resource-limits-vcore-single-databases (provisioned compute)
DATABASE_GIB_PER_VCORE: Mapping[str, float] = {"Gen4": 7.0, "Gen5": 5.1, "Fsv2": 1.9, "M": 29.4, "DC": 4.5}

# GiB by the number in a managed disk's tier (P10, E10, S10).
# https://learn.microsoft.com/azure/virtual-machines/disks-types
DISK_TIER_GIB: Mapping[int, int] = dict(
    zip(
        (1, 2, 3, 4, 6, 10, 15, 20, 30, 40, 50, 60, 70, 80),
        (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32767),
        strict=True,
    )
)

# Charge types of Cost Management -> ChargeCategory of FOCUS.
# https://learn.microsoft.com/azure/cost-management-billing/automate/understand-usage-details-fields
CHARGE_CATEGORIES: Mapping[str, str] = {
    "Usage": "Usage",
    "UnusedReservation": "Usage",
    "UnusedSavingsPlan": "Usage",
    "Purchase": "Purchase",
    "Refund": "Credit",
    "Tax": "Tax",
    "Adjustment": "Adjustment",
    "RoundingAdjustment": "Adjustment",
}
PRICING_CATEGORIES: Mapping[str, str] = {
    "OnDemand": "Standard",
    "Spot": "Dynamic",
    "Reservation": "Committed",
    "SavingsPlan": "Committed",
}
# Services of Cost Management -> (ServiceCategory, ServiceSubcategory) of FOCUS.
# https://github.com/microsoft/finops-toolkit/blob/dev/src/open-data/Services.csv
SERVICES: Mapping[str, tuple[str, str]] = {
    "Virtual Machines": ("Compute", "Virtual Machines"),
    "Virtual Machines Licenses": ("Compute", "Virtual Machines"),
    "Storage": ("Storage", "Other (Storage)"),
    "SQL Database": ("Databases", "Relational Databases"),
    "Virtual Network": ("Networking", "Network Connectivity"),
    "Bandwidth": ("Networking", "Other (Networking)"),
    "Azure OpenAI": ("AI and Machine Learning", "Generative AI"),
    "Cognitive Services": ("AI and Machine Learning", "Other (AI and Machine Learning)"),
}
