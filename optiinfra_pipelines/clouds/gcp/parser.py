"""Inventory answers of Compute Engine and Cloud SQL -> rows of the inventory contract. Pure: no I/O, nothing raised for
words that are new; metrics are read in `series.py`, prices in `catalog.py`."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.clouds.gcp.vocabulary import SQL_SERIES, SQL_TIERS, STATES
from optiinfra_pipelines.clouds.vocabulary import gpu_model

Item = Mapping[str, Any]
EMPTY_SCOPE = "NO_RESULTS_ON_PAGE"


@dataclass(frozen=True)
class MachineShape:
    """What a machine type has; `gpu_model` in the vocabulary."""

    vcpus: float
    memory_gib: float
    gpu_model: str | None = None
    gpu_count: float | None = None


@dataclass
class Listing:
    """The items of one or more pages, and what the API could not list: a scope (zones/x, regions/x) and its reason.

    `whole`: no page failed.
    """

    items: list[Item] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    whole: bool = True

    def add(self, page: Item, kind: str) -> None:
        """Take in one page of an aggregated list (`items` by scope) or of a plain list (`items` in a row)."""
        items = page.get("items") or {}
        if isinstance(items, list):
            self.items += items
        else:
            for scope, found in items.items():
                self.items += found.get(kind) or ()
                self._warn(scope, found.get("warning"))
        self._warn("", page.get("warning"))
        for scope in page.get("unreachables") or page.get("unreachable") or ():
            self.missing.setdefault(tail(scope, 2), "unreachable")
        for warning in page.get("warnings") or ():  # Cloud SQL
            self.missing.setdefault(warning.get("region") or "", f"{warning.get('code')} {warning.get('message', '')}")

    def _warn(self, scope: str, warning: Item | None) -> None:
        if warning and warning.get("code") != EMPTY_SCOPE:
            self.missing[scope] = f"{warning.get('code')} {warning.get('message', '')}".strip()


@dataclass(frozen=True)
class Links:
    """What instances tell of other resources, by the end of their links: ids, and the device names of their disks."""

    machine_ids: Mapping[str, str]
    devices: Mapping[str, str]

    @classmethod
    def of(cls, instances: Iterable[Item]) -> "Links":
        """The links of `instances`."""
        ids: dict[str, str] = {}
        devices: dict[str, str] = {}
        for instance in instances:
            ids[resource_path(instance.get("selfLink"))] = str(instance["id"])
            for disk in instance.get("disks") or ():
                if disk.get("source") and disk.get("deviceName"):
                    devices[resource_path(disk["source"])] = disk["deviceName"]
        return cls(ids, devices)

    def user(self, users: Iterable[str] | None) -> str | None:
        """The id of the first user that is a machine; else the path of the first user; None where there is none."""
        paths = [resource_path(user) for user in users or ()]
        return next((self.machine_ids[path] for path in paths if path in self.machine_ids), paths[0] if paths else None)


def tail(link: str | None, parts: int = 1) -> str:
    """The last `parts` of a link: n2-standard-2 of https://.../machineTypes/n2-standard-2; empty for none."""
    return "/".join((link or "").rstrip("/").split("/")[-parts:])


def resource_path(link: str | None) -> str:
    """A link from its project on: hosts and API versions differ between answers."""
    return (link or "").partition("/projects/")[2] or (link or "")


def region_of(zone: str) -> str:
    """us-central1 of us-central1-a."""
    return zone.rpartition("-")[0]


def moment(written: str | None) -> datetime | None:
    """An RFC 3339 time with any offset as naive UTC; None where it is absent."""
    return naive_utc(datetime.fromisoformat(written)) if written else None


def machine_shapes(listed: Iterable[Item]) -> dict[str, MachineShape]:
    """Machine types by name, from machineTypes lists."""
    shapes = {}
    for item in listed:
        accelerator: Item = next(iter(item.get("accelerators") or ()), {})
        shapes[item["name"]] = MachineShape(
            float(item["guestCpus"]),
            item["memoryMb"] / 1024,
            gpu_model(accelerator.get("guestAcceleratorType")),
            float(accelerator["guestAcceleratorCount"]) if accelerator else None,
        )
    return shapes


def custom_shape(native_type: str) -> MachineShape | None:
    """What a custom type says by its name (n2-custom-4-16384, custom-2-4096-ext); None for any other."""
    match = re.fullmatch(r"(?:[a-z0-9]+-)?custom-(?:micro-|small-|medium-)?(\d+)-(\d+)(?:-ext)?", native_type)
    return MachineShape(float(match[1]), int(match[2]) / 1024) if match else None


def type_names(instances: Iterable[Item]) -> list[str]:
    """The machine types of `instances` that only the API can explain, sorted."""
    names = {tail(instance.get("machineType")) for instance in instances}
    return sorted(name for name in names if name and custom_shape(name) is None)


def machine_rows(
    project: str, instances: Iterable[Item], shapes: Mapping[str, MachineShape]
) -> Iterator[dict[str, Any]]:
    """One row an instance; vCPUs and memory are null where the type is in no list."""
    for instance in instances:
        native_type = tail(instance.get("machineType"))
        shape = shapes.get(native_type) or custom_shape(native_type)
        extra: Item = next(iter(instance.get("guestAccelerators") or ()), {})
        gpus = sum(each.get("acceleratorCount", 0) for each in instance.get("guestAccelerators") or ())
        disks = instance.get("disks") or ()
        boot: Item = next((disk for disk in disks if disk.get("boot")), {})
        zone = tail(instance.get("zone"))
        yield _row(project, "machine", instance, "compute:instances.aggregatedList") | {
            "native_type": native_type,
            "state": STATES["machine"].state(instance.get("status")),
            "region": region_of(zone),
            "zone": zone,
            "vcpus": shape.vcpus if shape else None,
            "memory_gib": shape.memory_gib if shape else None,
            "gpu_model": gpu_model(tail(extra.get("acceleratorType"))) or (shape.gpu_model if shape else None),
            "gpu_count": float(gpus) if gpus else (shape.gpu_count if shape else None),
            "storage_gib": _number(boot.get("diskSizeGb")),
            "details": _json(_machine_details(instance, disks)),
        }


def _machine_details(instance: Item, disks: Iterable[Item]) -> dict[str, Any]:
    metadata = {each["key"]: each.get("value") for each in (instance.get("metadata") or {}).get("items") or ()}
    interfaces = instance.get("networkInterfaces") or ()
    configs = [config for each in interfaces for config in each.get("accessConfigs") or ()]
    scheduling = instance.get("scheduling") or {}
    created_by = metadata.get("created-by") or ""
    return {
        "cpu_platform": instance.get("cpuPlatform"),
        "deletion_protection": instance.get("deletionProtection"),
        "disks": [
            {"device_name": disk.get("deviceName"), "source": resource_path(disk.get("source"))} for disk in disks
        ],
        "last_started_at": instance.get("lastStartTimestamp"),
        "last_stopped_at": instance.get("lastStopTimestamp"),
        # https://cloud.google.com/compute/docs/instance-groups/getting-info-about-migs: created-by of its machines
        "autoscaling_group": tail(created_by) if "/instanceGroupManagers/" in created_by else None,
        "kubernetes_cluster": metadata.get("cluster-name")
        or (instance.get("labels") or {}).get("goog-k8s-cluster-name"),
        "network_tags": (instance.get("tags") or {}).get("items"),
        "price_type": "spot"
        if scheduling.get("preemptible") or scheduling.get("provisioningModel") == "SPOT"
        else None,
        "private_ips": [each["networkIP"] for each in interfaces if each.get("networkIP")],
        "public_ips": [config["natIP"] for config in configs if config.get("natIP")],
        "self_link": resource_path(instance.get("selfLink")),
        "service_account": next((each.get("email") for each in instance.get("serviceAccounts") or ()), None),
        "status_message": instance.get("statusMessage"),
    }


def volume_rows(project: str, disks: Iterable[Item], links: Links) -> Iterator[dict[str, Any]]:
    """One row a disk, zonal or regional; one that nothing uses is unattached."""
    for disk in disks:
        zone, users = tail(disk.get("zone")), disk.get("users") or ()
        state = STATES["volume"].state(disk.get("status"))
        if disk.get("status") in ("READY", None):
            state = "attached" if users else "unattached"
        replication = disk.get("asyncPrimaryDisk") or {}
        details = {
            "device_name": links.devices.get(resource_path(disk.get("selfLink"))),
            "image": resource_path(disk.get("sourceImage")),
            "last_attached_at": disk.get("lastAttachTimestamp"),
            "last_detached_at": disk.get("lastDetachTimestamp"),
            "provisioned_iops": _number(disk.get("provisionedIops")),
            "provisioned_throughput": _number(disk.get("provisionedThroughput")),
            "replica_of": resource_path(replication.get("disk")),
            "replica_zones": [tail(each) for each in disk.get("replicaZones") or ()],
            "resource_policies": [resource_path(each) for each in disk.get("resourcePolicies") or ()],
            "self_link": resource_path(disk.get("selfLink")),
            "snapshot_id": disk.get("sourceSnapshotId"),
            "users": [resource_path(user) for user in users],
            # https://cloud.google.com/kubernetes-engine/docs/how-to/creating-managing-labels: labels that GKE sets
            "kubernetes_cluster": (disk.get("labels") or {}).get("goog-k8s-cluster-name"),
        }
        yield _row(project, "volume", disk, "compute:disks.aggregatedList") | {
            "native_type": tail(disk.get("type")) or None,
            "state": state,
            "region": region_of(zone) if zone else tail(disk.get("region")),
            "zone": zone or None,
            "storage_gib": _number(disk.get("sizeGb")),
            "attached_to": links.user(users),
            "details": _json(details),
        }


def snapshot_rows(
    project: str, snapshots: Iterable[Item], images: Iterable[Item], all_images: bool = True
) -> Iterator[dict[str, Any]]:
    """One row a snapshot; `details.used_by_images` are the ids of the images that were made from it. `users_unknown`
    stands there where `images` are not `all_images` of the project."""
    made: dict[str, list[str]] = {}
    for image in images:
        if image.get("sourceSnapshotId"):
            made.setdefault(str(image["sourceSnapshotId"]), []).append(str(image["id"]))
    for snapshot in snapshots:
        details = {
            "auto_created": snapshot.get("autoCreated"),
            "chain": snapshot.get("chainName"),
            "self_link": resource_path(snapshot.get("selfLink")),
            "storage_bytes": _number(snapshot.get("storageBytes")),
            "storage_locations": snapshot.get("storageLocations"),
            "used_by_images": made.get(str(snapshot["id"])),
            "users_unknown": None if all_images else True,
            "volume": resource_path(snapshot.get("sourceDisk")),
            "volume_id": snapshot.get("sourceDiskId"),
        }
        yield _row(project, "snapshot", snapshot, "compute:snapshots.list") | {
            "native_type": snapshot.get("snapshotType"),
            "state": STATES["snapshot"].state(snapshot.get("status")),
            "region": _only(snapshot.get("storageLocations")),
            "storage_gib": _number(snapshot.get("diskSizeGb")),
            "details": _json(details),
        }


def image_rows(project: str, images: Iterable[Item]) -> Iterator[dict[str, Any]]:
    """One row an image of the project's own; attached to the snapshot that it was made from."""
    for image in images:
        details = {
            "archive_bytes": _number(image.get("archiveSizeBytes")),
            "family": image.get("family"),
            "self_link": resource_path(image.get("selfLink")),
            "snapshot_id": image.get("sourceSnapshotId"),
            "storage_locations": image.get("storageLocations"),
            "volume_id": image.get("sourceDiskId"),
        }
        yield _row(project, "image", image, "compute:images.list") | {
            "state": STATES["image"].state(image.get("status")),
            "region": _only(image.get("storageLocations")),
            "storage_gib": _number(image.get("diskSizeGb")),
            "attached_to": image.get("sourceSnapshotId"),
            "details": _json(details),
        }


def address_rows(project: str, addresses: Iterable[Item], links: Links) -> Iterator[dict[str, Any]]:
    """One row a reserved address, regional or global; what has a user is attached whatever its status says."""
    for address in addresses:
        users = address.get("users") or ()
        details = {
            "address": address.get("address"),
            "address_type": address.get("addressType"),
            "network_tier": address.get("networkTier"),
            "prefix_length": address.get("prefixLength"),
            "purpose": address.get("purpose"),
            "users": [resource_path(user) for user in users],
        }
        yield _row(project, "ip_address", address, "compute:addresses.aggregatedList") | {
            "native_type": address.get("addressType"),
            "state": "attached" if users else STATES["ip_address"].state(address.get("status")),
            "region": tail(address.get("region")) or "global",
            "attached_to": links.user(users),
            "details": _json(details),
        }


def database_rows(instances: Iterable[Item]) -> Iterator[dict[str, Any]]:
    """One row a Cloud SQL instance, under the id that its metrics have: project:name."""
    for instance in instances:
        settings = instance.get("settings") or {}
        tier = settings.get("tier") or ""
        shape = database_shape(tier)
        running = settings.get("activationPolicy") != "NEVER"
        state = STATES["database"].state(instance.get("state"))
        addresses = instance.get("ipAddresses") or ()
        details = {
            "availability_type": settings.get("availabilityType"),
            "backups_enabled": (settings.get("backupConfiguration") or {}).get("enabled"),
            "deletion_protection": settings.get("deletionProtectionEnabled"),
            "disk_type": settings.get("dataDiskType"),
            "edition": settings.get("edition"),
            "engine": instance.get("databaseVersion"),
            "instance_type": instance.get("instanceType"),
            "private_ips": [each["ipAddress"] for each in addresses if each.get("type") == "PRIVATE"],
            "provisioned_iops": _number(settings.get("dataDiskProvisionedIops")),
            "public_ips": [each["ipAddress"] for each in addresses if each.get("type") == "PRIMARY"],
            "replica_of": instance.get("masterInstanceName"),
            "replicas": instance.get("replicaNames"),
        }
        row = _row(instance["project"], "database", instance, "sqladmin:instances.list")
        yield row | {
            "resource_id": f"{instance['project']}:{instance['name']}",
            "native_type": tier or None,
            # RUNNABLE is running, or has been stopped by its owner: the activation policy tells which
            "state": state if running or state != "running" else "stopped",
            "region": instance.get("region"),
            "zone": instance.get("gceZone"),
            "vcpus": shape.vcpus if shape else None,
            "memory_gib": shape.memory_gib if shape else None,
            "storage_gib": _number(settings.get("dataDiskSizeGb")),
            "created_at": moment(instance.get("createTime")),
            "tags": _tags(settings.get("userLabels")),
            "details": _json(details),
        }


def database_shape(tier: str) -> MachineShape | None:
    """vCPUs and memory of a Cloud SQL tier by its name; None where the name does not say."""
    custom = re.fullmatch(r"db-custom-(?:[A-Z0-9]+-)?(\d+)-(\d+)", tier)
    if custom:
        return MachineShape(float(custom[1]), int(custom[2]) / 1024)
    if tier in SQL_TIERS:
        return MachineShape(*SQL_TIERS[tier])
    series, _, vcpus = tier.rpartition("-")
    return (
        MachineShape(float(vcpus), int(vcpus) * SQL_SERIES[series])
        if series in SQL_SERIES and vcpus.isdigit()
        else None
    )


def _row(project: str, resource_type: str, item: Item, source: str) -> dict[str, Any]:
    return {
        "account_id": project,
        "resource_id": str(item.get("id", "")),
        "resource_type": resource_type,
        "name": item.get("name"),
        "created_at": moment(item.get("creationTimestamp")),
        "tags": _tags(item.get("labels")),
        "source": source,
    }


def _number(written: str | int | None) -> float | None:
    return float(written) if written is not None else None


def _only(values: list[str] | None) -> str | None:
    return values[0] if values and len(values) == 1 else None


def _tags(labels: Mapping[str, str] | None) -> str:
    return json.dumps(dict(sorted((labels or {}).items())))


def _json(details: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in sorted(details.items()) if value not in (None, "", [])})
