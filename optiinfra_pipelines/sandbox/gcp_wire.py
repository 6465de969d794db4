"""The fleet as Compute Engine, Cloud SQL and Cloud Monitoring write it: resources and time series as JSON values.

Pure; paging, credentials and faults are `gcp_server.py`'s. Shapes are those of recorded answers and of the discovery
documents: int64 is text, points come newest first, times of Compute Engine carry Pacific offsets.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from optiinfra_pipelines.sandbox.fleet import PLACES, Fleet, Resource, Series, series_of
from optiinfra_pipelines.windows import WINDOW

_WWW = "https://www.googleapis.com/compute/v1/projects"
_PACIFIC = timezone(timedelta(hours=-8))
REGION, ZONE = PLACES["gcp"]
EMPTY_ZONES = ("us-central1-b", "europe-west4-a", "asia-northeast3-c")
GPU_BYTES = {"NVIDIA A100 40GB": 40 * 2**30}
_ACCELERATORS = {"NVIDIA A100 40GB": "nvidia-tesla-a100"}
_MACHINE_STATUS = {"running": "RUNNING", "stopped": "TERMINATED"}
_DEVICE, _BOOT = "sda1", "persistent-disk-0"
_DISK_METRICS = ("disk_read_bytes", "disk_write_bytes", "disk_read_operations", "disk_write_operations")


@dataclass(frozen=True)
class MachineTotal(Series):
    """A counter of all disks of a machine: its boot disk's, and those of the volumes attached to it."""

    volumes: tuple[Series, ...] = ()

    def value(self, window_start: datetime) -> float | None:
        """The sum over the disks that were there; None before the machine was."""
        found = [Series.value(self, window_start), *(volume.value(window_start) for volume in self.volumes)]
        return None if found[0] is None else sum(value for value in found if value is not None)


def shown_resources(fleet: Fleet, customer_id: str) -> list[Resource]:
    """What raw inventory is to hold. An address has a name of its own here; models are in no inventory."""
    return [
        replace(each, name=_address_name(each)) if each.resource_type == "ip_address" else each
        for each in fleet.of(customer_id, "gcp")
        if each.resource_type != "model"
    ]


def shown_series(fleet: Fleet, customer_id: str) -> Iterator[Series]:
    """What raw metrics are to hold: a machine's disk counters are of all its disks, its file systems are by device."""
    everything = fleet.of(customer_id, "gcp")
    for resource in everything:
        disks = [each for each in everything if each.attached_to == resource.resource_id and each.measured]
        for series in series_of(resource):
            if resource.resource_type == "machine" and series.metric in _DISK_METRICS:
                volumes = tuple(Series(disk, series.metric, "sum") for disk in disks if disk.resource_type == "volume")
                yield MachineTotal(resource, series.metric, series.statistic, "", volumes)
            elif series.metric == "storage_utilization":
                yield replace(series, component=_DEVICE)
            else:
                yield series


def compute_items(resources: list[Resource], kind: str) -> list[tuple[str, dict[str, Any]]]:
    """(scope, item) of every resource that an aggregated or global list of `kind` holds."""
    types = {"instances": "machine", "disks": "volume", "addresses": "ip_address", "snapshots": "snapshot"}
    if kind == "machineTypes":
        shapes = {each.native_type: each for each in resources if each.resource_type == "machine"}
        return [(f"zones/{ZONE}", _machine_type(each)) for _, each in sorted(shapes.items(), key=str)]
    wanted = [each for each in resources if each.resource_type == types.get(kind, "image")]
    scope = f"regions/{REGION}" if kind == "addresses" else f"zones/{ZONE}"
    by_id = {each.resource_id: each for each in resources}
    return [(scope, _WRITERS[kind](each, by_id)) for each in wanted]


def _machine_type(machine: Resource) -> dict[str, Any]:
    shape = machine.shape
    assert shape is not None
    item = {
        "kind": "compute#machineType",
        "id": str(800_000 + int(shape.vcpus)),
        "name": shape.native_type,
        "guestCpus": int(shape.vcpus),
        "memoryMb": int(shape.memory_gib * 1024),
        "maximumPersistentDisks": 128,
        "zone": ZONE,
        "isSharedCpu": False,
    }
    if shape.gpu_model:
        item["accelerators"] = [
            {"guestAcceleratorType": _ACCELERATORS[shape.gpu_model], "guestAcceleratorCount": int(shape.gpu_count)}
        ]
    return item


def _link(resource: Resource, collection: str, name: str = "") -> str:
    return f"{_WWW}/{resource.account_id}/{collection}/{name or resource.name}"


def _common(resource: Resource, kind: str, collection: str) -> dict[str, Any]:
    created = resource.created_at.astimezone(_PACIFIC).isoformat(timespec="milliseconds")
    return {
        "kind": f"compute#{kind}",
        "id": resource.resource_id,
        "creationTimestamp": created,
        "name": resource.name,
        "labels": dict(resource.tags),
        "labelFingerprint": "42WmSpB8rSM=",
        "selfLink": _link(resource, collection),
    }


def _instance(machine: Resource, by_id: Mapping[str, Resource]) -> dict[str, Any]:
    disks = [each for each in by_id.values() if each.attached_to == machine.resource_id]
    volumes = [each for each in disks if each.resource_type == "volume"]
    addresses = [each for each in disks if each.resource_type == "ip_address"]
    group = machine.tags.get("autoscaling-group")
    created_by = f"projects/628364681111/zones/{ZONE}/instanceGroupManagers/{group}"
    attached = [_attached_disk(machine, _BOOT, f"{machine.name}-boot", 0, machine.storage_gib)]
    attached += [
        _attached_disk(machine, each.name, each.name, at, each.storage_gib) for at, each in enumerate(volumes, 1)
    ]
    access = {
        "kind": "compute#accessConfig",
        "type": "ONE_TO_ONE_NAT",
        "name": "External NAT",
        "networkTier": "PREMIUM",
    }
    status = _MACHINE_STATUS[machine.state or ""]
    return _common(machine, "instance", f"zones/{ZONE}/instances") | {
        "status": status,
        "machineType": _link(machine, f"zones/{ZONE}/machineTypes", machine.native_type or ""),
        "zone": f"{_WWW}/{machine.account_id}/zones/{ZONE}",
        "cpuPlatform": "Intel Cascade Lake" if status == "RUNNING" else "Unknown CPU Platform",
        "tags": {"items": ["https-server"], "fingerprint": "nNZ0SA7CJyk="},
        "disks": attached,
        "networkInterfaces": [
            {
                "kind": "compute#networkInterface",
                "network": _link(machine, "global/networks", "default"),
                "networkIP": f"10.128.{int(machine.resource_id) % 250}.{int(machine.resource_id) // 250 % 250}",
                "name": "nic0",
                "accessConfigs": [access | {"natIP": _ip(each)} for each in addresses],
            }
        ],
        "metadata": {
            "kind": "compute#metadata",
            "fingerprint": "yKr6py6Xll8=",
            **({"items": [{"key": "created-by", "value": created_by}]} if group else {}),
        },
        "scheduling": {"onHostMaintenance": "MIGRATE", "automaticRestart": True, "preemptible": False},
        "deletionProtection": False,
    }


def _attached_disk(machine: Resource, device: str, disk: str, index: int, gib: float | None) -> dict[str, Any]:
    return {
        "kind": "compute#attachedDisk",
        "type": "PERSISTENT",
        "mode": "READ_WRITE",
        "source": _link(machine, f"zones/{ZONE}/disks", disk),
        "deviceName": device,
        "index": index,
        "boot": index == 0,
        "autoDelete": index == 0,
        "interface": "SCSI",
        "diskSizeGb": str(int(gib or 0)),
    }


def _disk(volume: Resource, by_id: Mapping[str, Resource]) -> dict[str, Any]:
    item = _common(volume, "disk", f"zones/{ZONE}/disks") | {
        "status": "READY",
        "sizeGb": str(int(volume.storage_gib or 0)),
        "zone": f"{_WWW}/{volume.account_id}/zones/{ZONE}",
        "type": _link(volume, f"zones/{ZONE}/diskTypes", "pd-balanced"),
    }
    machine = by_id.get(volume.attached_to or "")
    if machine:
        item["users"] = [_link(machine, f"zones/{ZONE}/instances")]
    if volume.guard == "replica":
        item["asyncPrimaryDisk"] = {"disk": _link(volume, "zones/europe-west4-a/disks", "orders-primary")}
    return item


def _address(address: Resource, by_id: Mapping[str, Resource]) -> dict[str, Any]:
    machine = by_id.get(address.attached_to or "")
    item = _common(address, "address", f"regions/{REGION}/addresses") | {
        "address": _ip(address),
        "status": "IN_USE" if machine else "RESERVED",
        "region": f"{_WWW}/{address.account_id}/regions/{REGION}",
        "networkTier": "PREMIUM",
        "addressType": "EXTERNAL",
    }
    return item | ({"users": [_link(machine, f"zones/{ZONE}/instances")]} if machine else {})


def _address_name(address: Resource) -> str:
    return f"ip-{address.name.replace('.', '-')}" if re.match(r"\d", address.name) else address.name


def _ip(address: Resource) -> str:
    return address.name.removeprefix("ip-").replace("-", ".")


def _snapshot(snapshot: Resource, _: Mapping[str, Resource]) -> dict[str, Any]:
    return _common(snapshot, "snapshot", "global/snapshots") | {
        "status": "READY",
        "diskSizeGb": str(int(snapshot.storage_gib or 0)),
        "storageBytes": str(int((snapshot.storage_gib or 0) * 2**29)),
        "storageLocations": [REGION],
        "snapshotType": "STANDARD",
    }


def _image(image: Resource, by_id: Mapping[str, Resource]) -> dict[str, Any]:
    snapshot = by_id[image.attached_to or ""]
    return _common(image, "image", "global/images") | {
        "status": "READY",
        "sourceType": "RAW",
        "diskSizeGb": str(int(image.storage_gib or 0)),
        "storageLocations": [REGION],
        "sourceSnapshot": _link(snapshot, "global/snapshots"),
        "sourceSnapshotId": snapshot.resource_id,
    }


_WRITERS: Mapping[str, Callable[[Resource, Mapping[str, Resource]], dict[str, Any]]] = {
    "instances": _instance,
    "disks": _disk,
    "addresses": _address,
    "snapshots": _snapshot,
    "images": _image,
}


def sql_instance(database: Resource) -> dict[str, Any]:
    """A Cloud SQL instance as instances.list gives it."""
    return {
        "kind": "sql#instance",
        "name": database.name,
        "project": database.account_id,
        "connectionName": f"{database.account_id}:{REGION}:{database.name}",
        "state": "RUNNABLE",
        "backendType": "SECOND_GEN",
        "databaseVersion": "POSTGRES_16",
        "region": REGION,
        "gceZone": ZONE,
        "instanceType": "CLOUD_SQL_INSTANCE",
        "createTime": _rfc3339(database.created_at),
        "ipAddresses": [{"ipAddress": "203.0.113.200", "type": "PRIMARY"}],
        "settings": {
            "kind": "sql#settings",
            "tier": database.native_type,
            "activationPolicy": "ALWAYS" if database.state == "running" else "NEVER",
            "availabilityType": "ZONAL",
            "dataDiskSizeGb": str(int(database.storage_gib or 0)),
            "dataDiskType": "PD_SSD",
            "edition": "ENTERPRISE",
            "pricingPlan": "PER_USE",
            "userLabels": dict(database.tags),
        },
    }


@dataclass(frozen=True)
class Wire:
    """One metric type as Monitoring has it: `scale` makes the vocabulary's number the wire's."""

    metric: str
    kind: str
    value_type: str
    unit: str
    scale: float = 1.0


_CPU_UNIT = "10^2.%"
WIRES: Mapping[str, Wire] = {
    "compute.googleapis.com/instance/cpu/utilization": Wire("cpu_utilization", "GAUGE", "DOUBLE", _CPU_UNIT, 0.01),
    "compute.googleapis.com/instance/network/received_bytes_count": Wire("network_in_bytes", "DELTA", "INT64", "By"),
    "compute.googleapis.com/instance/network/sent_bytes_count": Wire("network_out_bytes", "DELTA", "INT64", "By"),
    "compute.googleapis.com/instance/disk/read_bytes_count": Wire("disk_read_bytes", "DELTA", "INT64", "By"),
    "compute.googleapis.com/instance/disk/write_bytes_count": Wire("disk_write_bytes", "DELTA", "INT64", "By"),
    "compute.googleapis.com/instance/disk/read_ops_count": Wire("disk_read_operations", "DELTA", "INT64", "1"),
    "compute.googleapis.com/instance/disk/write_ops_count": Wire("disk_write_operations", "DELTA", "INT64", "1"),
    "agent.googleapis.com/memory/percent_used": Wire("memory_utilization", "GAUGE", "DOUBLE", "%"),
    "agent.googleapis.com/disk/percent_used": Wire("storage_utilization", "GAUGE", "DOUBLE", "%"),
    "agent.googleapis.com/gpu/utilization": Wire("gpu_utilization", "GAUGE", "DOUBLE", "%"),
    "agent.googleapis.com/gpu/memory/bytes_used": Wire("gpu_memory_utilization", "GAUGE", "DOUBLE", "By"),
    "cloudsql.googleapis.com/database/cpu/utilization": Wire("cpu_utilization", "GAUGE", "DOUBLE", _CPU_UNIT, 0.01),
    "cloudsql.googleapis.com/database/network/connections": Wire("database_connections", "GAUGE", "INT64", "1"),
    "cloudsql.googleapis.com/database/disk/bytes_used": Wire("storage_used_bytes", "GAUGE", "INT64", "By"),
    "aiplatform.googleapis.com/publisher/online_serving/model_invocation_count": Wire(
        "invocations", "DELTA", "INT64", "1"
    ),
    "aiplatform.googleapis.com/publisher/online_serving/token_count": Wire("tokens", "DELTA", "INT64", "1"),
}
_STATISTICS = {"ALIGN_MEAN": "average", "ALIGN_MAX": "maximum", "ALIGN_DELTA": "sum"}
_SERVICES = {"machine": ("compute", "agent"), "database": ("cloudsql",), "model": ("aiplatform",)}


def window_starts(start: datetime, end: datetime) -> list[datetime]:
    """The starts of the whole windows that end in (start, end], counted back from `end` as Monitoring aligns; newest
    first."""
    count = math.floor((end - start) / WINDOW)
    return [end - WINDOW * (number + 1) for number in range(count)]


def time_series(fleet: Fleet, customer_id: str, native: str, aligner: str, starts: list[datetime]) -> Iterator[Any]:
    """Every series of one metric type, aligned; those without a point are not there."""
    wire, statistic = WIRES[native], _STATISTICS[aligner]
    service = native.partition(".")[0]
    for resource in fleet.of(customer_id, "gcp"):
        if service in _SERVICES.get(resource.resource_type, ()):
            for labels, read in _readers(fleet, resource, wire, statistic):
                points = [_point(wire, aligner, start, value) for start in starts if (value := read(start)) is not None]
                if points:
                    yield _series(resource, native, wire, aligner, labels, points)


Reader = Callable[[datetime], float | None]


def _readers(fleet: Fleet, resource: Resource, wire: Wire, statistic: str) -> Iterator[tuple[dict[str, str], Reader]]:
    own = [each for each in series_of(resource) if each.statistic == statistic]
    name = {"instance_name": resource.name}
    if wire.metric == "tokens":
        for word in ("input", "output"):
            for series in (each for each in own if each.metric == f"{word}_tokens"):
                yield {"type": word, "request_type": "shared", "max_token_size": "128K"}, series.value
        return
    for series in (each for each in own if each.metric == wire.metric):
        if wire.metric in _DISK_METRICS:
            kind = {"device_type": "permanent", "storage_type": "pd-balanced"}
            yield name | kind | {"device_name": _BOOT}, series.value
            for disk in fleet.of(resource.customer_id, "gcp", "volume"):
                if disk.attached_to == resource.resource_id:
                    yield name | kind | {"device_name": disk.name}, Series(disk, wire.metric, "sum").value
        elif wire.metric == "gpu_memory_utilization":
            yield from _gpu_memory(resource, series)
        elif wire.metric == "gpu_utilization":
            yield _gpu_labels(resource, series), series.value
        elif wire.metric == "storage_utilization":
            yield {"device": _DEVICE, "state": "used"}, replace(series, component=_DEVICE).value
            yield {"device": "loop3", "state": "used"}, lambda _: 100.0
        elif wire.metric == "memory_utilization":
            yield {"state": "used"}, series.value
        elif wire.metric == "invocations":
            yield from _invocations(series)
        else:
            yield (name if resource.resource_type == "machine" else {}), series.value


def _gpu_labels(resource: Resource, series: Series) -> dict[str, str]:
    model = resource.shape.gpu_model if resource.shape else None
    number = series.component.removeprefix("gpu-")
    return {"model": model or "", "gpu_number": number, "uuid": f"GPU-{resource.resource_id}-{number}"}


def _gpu_memory(resource: Resource, series: Series) -> Iterator[tuple[dict[str, str], Reader]]:
    whole = GPU_BYTES[(resource.shape.gpu_model if resource.shape else None) or ""]
    average = replace(series, statistic="average")

    def used(start: datetime) -> float | None:
        value = series.value(start)
        return None if value is None else value / 100 * whole

    def free(start: datetime) -> float | None:  # the most that was free is not the whole less the most that was used
        value = average.value(start)
        share = 0.9 if series.statistic == "maximum" else 1.0
        return None if value is None else whole - value / 100 * whole * share

    labels = _gpu_labels(resource, series)
    yield labels | {"memory_state": "used"}, used
    yield labels | {"memory_state": "free"}, free


def _invocations(series: Series) -> Iterator[tuple[dict[str, str], Reader]]:
    """Two series of one model, as response codes split them: their sum is the truth."""

    def failed(start: datetime) -> float | None:
        value = series.value(start)
        return None if value is None else float(int(value) // 100)

    def answered(start: datetime) -> float | None:
        value = series.value(start)
        return None if value is None else value - int(value) // 100

    yield {"response_code": "200", "request_type": "shared"}, answered
    yield {"response_code": "429", "request_type": "shared"}, failed


def _point(wire: Wire, aligner: str, start: datetime, value: float) -> dict[str, Any]:
    end = _rfc3339(start + WINDOW)
    whole = wire.value_type == "INT64" and aligner != "ALIGN_MEAN"  # a mean of whole numbers is a double
    written: dict[str, Any] = {"int64Value": str(int(value))} if whole else {"doubleValue": value * wire.scale}
    begin = _rfc3339(start) if wire.kind == "DELTA" else end
    return {"interval": {"startTime": begin, "endTime": end}, "value": written}


def _series(
    resource: Resource, native: str, wire: Wire, aligner: str, labels: Mapping[str, str], points: list[Any]
) -> dict[str, Any]:
    return {
        "metric": {"labels": dict(labels), "type": native},
        "resource": _monitored(resource),
        "metricKind": wire.kind,
        "valueType": "DOUBLE" if aligner == "ALIGN_MEAN" else wire.value_type,
        "points": points,
    }


def _monitored(resource: Resource) -> dict[str, Any]:
    project = {"project_id": resource.account_id}
    if resource.resource_type == "machine":
        return {"type": "gce_instance", "labels": project | {"instance_id": resource.resource_id, "zone": ZONE}}
    if resource.resource_type == "database":
        return {
            "type": "cloudsql_database",
            "labels": project | {"database_id": resource.resource_id, "region": REGION},
        }
    _, publisher, _, model = resource.resource_id.split("/")
    labels = {
        "resource_container": "628364681111",
        "location": REGION,
        "publisher": publisher,
        "model_user_id": model,
        "model_version_id": "",
    }
    return {"type": "aiplatform.googleapis.com/PublisherModel", "labels": labels}


def _rfc3339(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
