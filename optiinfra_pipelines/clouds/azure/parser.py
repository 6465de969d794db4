"""Records of Resource Graph (and of Resource Manager's lists, which have the same shape) -> rows of the inventory
contract. Pure: no I/O, nothing raised for words that are new; metrics are read in `series.py`."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from optiinfra_pipelines.clouds.azure.vocabulary import (
    DATABASE_GIB_PER_VCORE,
    DATABASES,
    DISKS,
    PROVISIONING,
    STATES,
    VIRTUAL_MACHINES,
    size_gpu,
)
from optiinfra_pipelines.clouds.collecting import naive_utc

Record = Mapping[str, Any]
SUBSCRIPTION = "microsoft.resources/subscriptions"
SNAPSHOTS = "microsoft.compute/snapshots"
IMAGES = ("microsoft.compute/images", "microsoft.compute/galleries/images/versions")
ADDRESSES = "microsoft.network/publicipaddresses"
INTERFACES = "microsoft.network/networkinterfaces"
DATED_BY_LISTS = ("Microsoft.Compute/images", "Microsoft.Network/publicIPAddresses")
_SOURCE = "resource_graph:resources"


@dataclass(frozen=True)
class Size:
    """What a VM size has."""

    vcpus: float | None
    memory_gib: float | None
    gpu_model: str | None = None
    gpu_count: float | None = None


@dataclass
class Known:
    """What other answers tell of the records: sizes by (region, size) in lower case, creation times by id; filled from
    the records themselves: which machine an interface belongs to, its addresses, which images use a snapshot."""

    sizes: Mapping[tuple[str, str], Size] = field(default_factory=dict)
    created: Mapping[str, str] = field(default_factory=dict)
    machine_of: dict[str, str] = field(default_factory=dict)
    private_ips: dict[str, list[str]] = field(default_factory=dict)
    public_ips: dict[str, list[str]] = field(default_factory=dict)
    images_of: dict[str, list[str]] = field(default_factory=dict)

    def read(self, records: Iterable[Record]) -> None:
        """Take in what interfaces, addresses and images say of other resources."""
        records = list(records)
        for record in records:
            if kind_of(record) == INTERFACES:
                self._interface(record)
        for record in records:
            properties, kind = record.get("properties") or {}, kind_of(record)
            if kind == ADDRESSES and properties.get("ipAddress"):
                machine = self._user(properties)
                self.public_ips.setdefault(machine or "", []).append(properties["ipAddress"])
            elif kind in IMAGES:
                for snapshot in image_sources(properties):
                    self.images_of.setdefault(snapshot, []).append(lower(record["id"]) or "")

    def _interface(self, record: Record) -> None:
        properties, own = record.get("properties") or {}, lower(record["id"]) or ""
        machine = lower((properties.get("virtualMachine") or {}).get("id"))
        if machine is None:
            return
        self.machine_of[own] = machine
        for each in properties.get("ipConfigurations") or ():
            address = (each.get("properties") or {}).get("privateIPAddress")
            if address:
                self.private_ips.setdefault(machine, []).append(address)

    def _user(self, properties: Record) -> str | None:
        user = address_user(properties)
        return self.machine_of.get(user, user) if user else None


def kind_of(record: Record) -> str:
    """The record's type in lower case; answers differ in how they write it."""
    return str(record.get("type") or "").lower()


def lower(resource_id: str | None) -> str | None:
    """A resource id as this project keeps it: answers differ in case. None for an empty one."""
    return resource_id.lower() if resource_id else None


def subscription_of(record: Record) -> str:
    """The subscription in lower case, by the record's id."""
    return str(record["id"]).lower().split("/")[2]


def sizes_of(skus: Iterable[Record]) -> dict[tuple[str, str], Size]:
    """Sizes by (region, name) in lower case, from Microsoft.Compute/skus."""
    found = {}
    for sku in skus:
        if sku.get("resourceType") != "virtualMachines":
            continue
        has = {each["name"]: each["value"] for each in sku.get("capabilities") or ()}
        model, count = size_gpu(sku["name"], float(has.get("GPUs", 0)))
        size = Size(_float(has.get("vCPUs")), _float(has.get("MemoryGB")), model, count)
        for region in sku.get("locations") or ():
            found[region.lower(), sku["name"].lower()] = size
    return found


def inventory_rows(records: Iterable[Record], known: Known) -> Iterator[dict[str, Any]]:
    """One row a resource of the types that inventory keeps; master databases are Azure's own."""
    for record in records:
        kind = kind_of(record)
        if kind == VIRTUAL_MACHINES:
            yield _machine(record, known)
        elif kind == DISKS:
            yield _volume(record)
        elif kind == SNAPSHOTS:
            yield _snapshot(record, known)
        elif kind in IMAGES:
            yield _image(record, known)
        elif kind == ADDRESSES:
            yield _address(record, known)
        elif kind == DATABASES and "system" not in (record.get("kind") or "") and record["name"] != "master":
            yield _database(record)


def _row(record: Record, resource_type: str, details: Mapping[str, Any]) -> dict[str, Any]:
    zones = record.get("zones") or ()
    return {
        "account_id": subscription_of(record),
        "resource_id": lower(record["id"]),
        "resource_type": resource_type,
        "name": record.get("name"),
        "region": lower((record.get("location") or "").replace(" ", "")),
        "zone": ",".join(map(str, zones)) or None,
        "tags": json.dumps(dict(sorted((record.get("tags") or {}).items()))),
        "details": json.dumps({name: value for name, value in details.items() if value not in (None, [], "")}),
        "source": _SOURCE,
    }


def _machine(record: Record, known: Known) -> dict[str, Any]:
    properties, own = record.get("properties") or {}, lower(record["id"]) or ""
    native = (properties.get("hardwareProfile") or {}).get("vmSize")
    storage = properties.get("storageProfile") or {}
    system = storage.get("osDisk") or {}
    group = lower((properties.get("virtualMachineScaleSet") or {}).get("id"))
    region = (record.get("location") or "").lower()
    size = known.sizes.get((region, (native or "").lower())) or Size(None, None)
    interfaces = (properties.get("networkProfile") or {}).get("networkInterfaces") or ()
    details = {
        "autoscaling_group": group,
        "kubernetes_cluster": _kubernetes(record),
        "availability_set": lower((properties.get("availabilitySet") or {}).get("id")),
        "disks": [
            lower((disk.get("managedDisk") or {}).get("id")) or disk.get("name")
            for disk in (system, *(storage.get("dataDisks") or ()))
            if disk
        ],
        "image": (storage.get("imageReference") or {}).get("id"),
        "licence": properties.get("licenseType"),
        "managed_by": lower(record.get("managedBy")),
        "network_interfaces": [lower(each.get("id")) for each in interfaces],
        "operating_system": system.get("osType"),
        "price_type": "spot" if properties.get("priority") in ("Spot", "Low") else None,
        "private_ips": known.private_ips.get(own),
        "public_ips": known.public_ips.get(own),
        "provisioning_state": properties.get("provisioningState"),
        "vm_id": properties.get("vmId"),
    }
    return _row(record, "machine", details) | {
        "native_type": native,
        "state": STATES["machine"].state(_power(properties)),
        "vcpus": size.vcpus,
        "memory_gib": size.memory_gib,
        "gpu_model": size.gpu_model,
        "gpu_count": size.gpu_count,
        "storage_gib": _float(system.get("diskSizeGB")),
        "created_at": time_of(properties.get("timeCreated")),
    }


def _kubernetes(record: Record) -> str | None:
    """The node resource group that AKS made for a cluster, MC_group_cluster_region, in lower case; None for any other.

    https://learn.microsoft.com/azure/aks/faq#why-are-two-resource-groups-created-with-aks
    """
    parts = str(record["id"]).lower().split("/")
    group = parts[4] if len(parts) > 4 and parts[3] == "resourcegroups" else ""
    return group if group.startswith("mc_") else None


def _power(properties: Record) -> str | None:
    """The word of a power state: stopped and deallocated are two, and only the second ends the charge."""
    extended = (properties.get("extended") or {}).get("instanceView") or {}
    code = (extended.get("powerState") or {}).get("code")
    statuses = (properties.get("instanceView") or {}).get("statuses") or ()
    codes = [code, *(each.get("code") for each in statuses)]
    found = next((each for each in codes if each and each.lower().startswith("powerstate/")), None)
    return found.partition("/")[2].lower() if found else None


def _volume(record: Record) -> dict[str, Any]:
    properties, sku = record.get("properties") or {}, record.get("sku") or {}
    tags = {name.lower() for name in record.get("tags") or {}}
    origin = properties.get("creationData") or {}
    details = {
        "disk_state": properties.get("diskState"),
        "iops": properties.get("diskIOPSReadWrite"),
        "throughput_mbps": properties.get("diskMBpsReadWrite"),
        "operating_system": properties.get("osType"),
        "tier": properties.get("tier"),
        "max_shares": properties.get("maxShares"),
        "last_ownership_update": properties.get("LastOwnershipUpdateTime"),
        "snapshot_id": lower(origin.get("sourceResourceId")),
        # Azure Site Recovery's disks wait for a disaster, unattached
        "replica": bool(tags & {"asr-replicadisk", "asrseeddisk"}) or None,
        "kubernetes_cluster": _kubernetes(record),
    }
    return _row(record, "volume", details) | {
        "native_type": sku.get("name"),
        "state": STATES["volume"].state(properties.get("diskState")),
        "storage_gib": _float(properties.get("diskSizeGB")),
        "attached_to": lower(record.get("managedBy")),
        "created_at": time_of(properties.get("timeCreated")),
    }


def _snapshot(record: Record, known: Known) -> dict[str, Any]:
    properties, own = record.get("properties") or {}, lower(record["id"]) or ""
    details = {
        "used_by_images": sorted(known.images_of.get(own, ())),
        "volume": lower((properties.get("creationData") or {}).get("sourceResourceId")),
        "incremental": properties.get("incremental"),
        "size_bytes": properties.get("diskSizeBytes"),
    }
    return _row(record, "snapshot", details) | {
        "native_type": (record.get("sku") or {}).get("name"),
        "state": PROVISIONING.state(properties.get("provisioningState")),
        "storage_gib": _float(properties.get("diskSizeGB")),
        "created_at": time_of(properties.get("timeCreated")),
    }


def image_sources(properties: Record) -> list[str]:
    """The ids of what an image's disks were made from: snapshots, disks; of a gallery's version too."""
    storage = properties.get("storageProfile") or {}
    disks = [storage.get("osDisk"), *(storage.get("dataDisks") or ())]
    named = [disk.get(key) for disk in disks if disk for key in ("snapshot", "managedDisk")]
    named += [
        (disk or {}).get("source") for disk in (storage.get("osDiskImage"), *(storage.get("dataDiskImages") or ()))
    ]
    return [each["id"].lower() for each in named if each and each.get("id")]


def _image(record: Record, known: Known) -> dict[str, Any]:
    properties, own = record.get("properties") or {}, lower(record["id"]) or ""
    storage, sources = properties.get("storageProfile") or {}, image_sources(properties)
    system = storage.get("osDisk") or storage.get("osDiskImage") or {}
    published = (properties.get("publishingProfile") or {}).get("publishedDate")
    details = {
        "sources": sources,
        "machine": lower((properties.get("sourceVirtualMachine") or {}).get("id")),
        "operating_system": system.get("osType"),
    }
    return _row(record, "image", details) | {
        "state": PROVISIONING.state(properties.get("provisioningState")),
        "storage_gib": _float(system.get("diskSizeGB") or system.get("sizeInGB")),
        "attached_to": sources[0] if sources else None,
        "created_at": time_of(known.created.get(own) or published),
    }


def address_user(properties: Record) -> str | None:
    """The id of what holds an address: the part of an ipConfiguration's id that names a resource, or a NAT gateway."""
    held = lower((properties.get("ipConfiguration") or properties.get("natGateway") or {}).get("id"))
    if held is None:
        return None
    head, _, tail = held.partition("/providers/")
    return f"{head}/providers/{'/'.join(tail.split('/')[:3])}" if tail else held


def _address(record: Record, known: Known) -> dict[str, Any]:
    properties, own = record.get("properties") or {}, lower(record["id"]) or ""
    user = address_user(properties)
    details = {
        "ip_address": properties.get("ipAddress"),
        "allocation": properties.get("publicIPAllocationMethod"),
        "attached_through": user,
        "fqdn": (properties.get("dnsSettings") or {}).get("fqdn"),
        "provisioning_state": properties.get("provisioningState"),
    }
    return _row(record, "ip_address", details) | {
        "native_type": (record.get("sku") or {}).get("name"),
        "state": "attached" if user else "unattached",
        "attached_to": known.machine_of.get(user, user) if user else None,
        "created_at": time_of(known.created.get(own)),
    }


def _database(record: Record) -> dict[str, Any]:
    properties, sku = record.get("properties") or {}, record.get("sku") or {}
    name = properties.get("currentServiceObjectiveName") or sku.get("name")
    family = sku.get("family")
    vcpus = _float(sku.get("capacity")) if family else None  # without a family the capacity is in DTU
    serverless = "_S_" in (name or "")
    per_vcore = None if serverless else DATABASE_GIB_PER_VCORE.get(family or "")
    bytes_most = properties.get("maxSizeBytes")
    details = {
        "engine": "sqlserver",
        "tier": sku.get("tier"),
        "dtus": None if family else sku.get("capacity"),
        "serverless": serverless or None,
        "elastic_pool": lower(properties.get("elasticPoolId")),
        "read_replicas": properties.get("readReplicaCount") or None,
        "secondary_type": properties.get("secondaryType"),
        "paused_at": properties.get("pausedDate"),
        "licence": properties.get("licenseType"),
    }
    return _row(record, "database", details) | {
        "native_type": name,
        "state": STATES["database"].state(properties.get("status")),
        "vcpus": vcpus,
        "memory_gib": round(vcpus * per_vcore, 2) if vcpus and per_vcore else None,
        "storage_gib": float(bytes_most) / 2**30 if bytes_most else None,
        "created_at": time_of(properties.get("creationDate")),
    }


def time_of(written: str | None) -> datetime | None:
    """A time with any offset and up to seven decimals as naive UTC; None where it is absent."""
    return naive_utc(datetime.fromisoformat(written)) if written else None


def _float(written: Any) -> float | None:
    return None if written in (None, "") else float(written)
