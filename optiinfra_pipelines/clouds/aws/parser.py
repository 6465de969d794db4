"""Answers of EC2, RDS and Lambda -> rows of raw.aws_inventory. Pure: what comes in is decoded by botocore.

Metrics are in `series.py`, prices in `price_list.py`, the bill in `bill.py`.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from optiinfra_pipelines.clouds.aws.vocabulary import STATES
from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.clouds.vocabulary import gpu_model

Row = dict[str, Any]
_GB_IN_GIB = 10**9 / 2**30  # EC2 tells instance stores in GB
_USERS = ("images", "template_versions")  # lists that tell what uses a snapshot


@dataclass(frozen=True)
class Listing:
    """What the services of one region of one account listed, as they wrote it.

    `types` are EC2's descriptions of instance types by name; `function_tags` tags by function ARN; `unlisted` the
    fields whose lists failed.
    """

    account_id: str
    region: str
    reservations: Sequence[Mapping[str, Any]] = ()
    volumes: Sequence[Mapping[str, Any]] = ()
    snapshots: Sequence[Mapping[str, Any]] = ()
    images: Sequence[Mapping[str, Any]] = ()
    template_versions: Sequence[Mapping[str, Any]] = ()
    addresses: Sequence[Mapping[str, Any]] = ()
    databases: Sequence[Mapping[str, Any]] = ()
    functions: Sequence[Mapping[str, Any]] = ()
    types: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    function_tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unlisted: frozenset[str] = frozenset()

    @property
    def instances(self) -> list[Mapping[str, Any]]:
        """The instances of all reservations."""
        return [instance for each in self.reservations for instance in each.get("Instances", ())]

    @property
    def type_names(self) -> list[str]:
        """The instance types to be described: those of instances, and of databases without their "db."."""
        names = {str(each["InstanceType"]) for each in self.instances}
        names |= {str(each["DBInstanceClass"]).removeprefix("db.") for each in self.databases}
        return sorted(names)


def rows(listing: Listing) -> Iterator[Row]:
    """The inventory rows of everything listed, without the columns that the caller knows."""
    for row in _all_rows(listing):
        row["account_id"] = listing.account_id
        row["region"] = listing.region
        row["tags"] = json.dumps(dict(sorted(row["tags"].items())))
        row["details"] = json.dumps(
            {name: value for name, value in sorted(row["details"].items()) if value not in (None, "", [], {})}
        )
        yield row


def _all_rows(listing: Listing) -> Iterator[Row]:
    for instance in listing.instances:
        yield _machine(instance, listing.types.get(instance["InstanceType"], {}))
    yield from map(_volume, listing.volumes)
    images = _users((snapshot, image["ImageId"]) for image in listing.images for snapshot in image_snapshots(image))
    templates = _users(
        (used, version["LaunchTemplateId"]) for version in listing.template_versions for used in _template_uses(version)
    )
    for snapshot in listing.snapshots:
        # OwnerIds=self is a filter that some servers ignore: a public snapshot is none of ours
        if snapshot.get("OwnerId") in ("", None, listing.account_id):
            yield _snapshot(snapshot, images, templates, not listing.unlisted.isdisjoint(_USERS))
    for image in listing.images:
        yield _image(image, templates, "template_versions" in listing.unlisted)
    yield from map(_address, listing.addresses)
    for database in listing.databases:
        yield _database(database, listing.types.get(str(database["DBInstanceClass"]).removeprefix("db."), {}))
    for function in listing.functions:
        yield _function(function, listing.function_tags.get(function["FunctionArn"], {}))


def tags_of(pairs: Iterable[Mapping[str, str]] | None) -> dict[str, str]:
    """Tags from the list of keys and values that EC2, RDS and the tagging API write."""
    return {each["Key"]: each.get("Value", "") for each in pairs or ()}


def image_snapshots(image: Mapping[str, Any]) -> list[str]:
    """The snapshots that an image or a launch template is made of."""
    ebs = (mapping.get("Ebs", {}) for mapping in image.get("BlockDeviceMappings", ()))
    return [each["SnapshotId"] for each in ebs if each.get("SnapshotId")]


def specifications(described: Mapping[str, Any]) -> Row:
    """vcpus, memory_gib, gpu_model and gpu_count of an instance type as DescribeInstanceTypes has it; null if empty."""
    memory = described.get("MemoryInfo", {}).get("SizeInMiB")
    gpus = described.get("GpuInfo", {}).get("Gpus", [])
    count = sum(float(each.get("LogicalGpuCount") or each.get("Count", 0)) for each in gpus)
    # a part of a GPU (g6f) is told by its partition size
    shares = [each.get("GpuPartitionSize", 1.0) for each in gpus]
    return {
        "vcpus": described.get("VCpuInfo", {}).get("DefaultVCpus"),
        "memory_gib": None if memory is None else memory / 1024,
        "gpu_model": gpu_model(f"{gpus[0].get('Manufacturer', '')} {gpus[0].get('Name', '')}") if gpus else None,
        "gpu_count": (count * shares[0] if shares[0] < 1 else count) if gpus else None,
    }


def _time(at: datetime | str | None) -> datetime | None:
    if not at:
        return None
    return naive_utc(at if isinstance(at, datetime) else datetime.fromisoformat(at))


def _row(kind: str, resource_id: str, source: str, **more: Any) -> Row:
    return {
        "resource_type": kind,
        "resource_id": resource_id,
        "source": source,
        "tags": {},
        "details": {},
        **more,
    }


def _machine(instance: Mapping[str, Any], described: Mapping[str, Any]) -> Row:
    tags = tags_of(instance.get("Tags"))
    disks = [each.get("Ebs", {}).get("VolumeId") for each in instance.get("BlockDeviceMappings", ())]
    store = described.get("InstanceStorageInfo", {}).get("TotalSizeInGB")
    gpu_memory = described.get("GpuInfo", {}).get("Gpus", [{}])[0].get("MemoryInfo", {}).get("SizeInMiB")
    return _row(
        "machine",
        instance["InstanceId"],
        "ec2:DescribeInstances",
        name=tags.get("Name"),
        native_type=instance["InstanceType"],
        state=STATES["machine"].state(instance.get("State", {}).get("Name")),
        zone=instance.get("Placement", {}).get("AvailabilityZone"),
        **specifications(described),
        storage_gib=None if store is None else store * _GB_IN_GIB,
        created_at=_time(_created(instance)),
        tags=tags,
        details={
            "image_id": instance.get("ImageId"),
            "architecture": instance.get("Architecture"),
            "hypervisor": described.get("Hypervisor"),
            "gpu_memory_mib": gpu_memory,
            "network_performance": described.get("NetworkInfo", {}).get("NetworkPerformance"),
            "current_generation": described.get("CurrentGeneration"),
            "burstable": described.get("BurstablePerformanceSupported"),
            "lifecycle": instance.get("InstanceLifecycle", "on-demand"),
            "price_type": "spot" if instance.get("InstanceLifecycle") == "spot" else None,
            "platform": instance.get("PlatformDetails") or instance.get("Platform"),
            "tenancy": instance.get("Placement", {}).get("Tenancy"),
            "launched_at": _text(instance.get("LaunchTime")),
            "state_reason": instance.get("StateTransitionReason"),
            "private_ip": instance.get("PrivateIpAddress"),
            "public_ip": instance.get("PublicIpAddress"),
            "private_dns_name": instance.get("PrivateDnsName"),
            "network_id": instance.get("VpcId"),
            "volumes": [each for each in disks if each],
            "detailed_monitoring": instance.get("Monitoring", {}).get("State") == "enabled",
            **_managed(tags),
        },
    )


def _created(instance: Mapping[str, Any]) -> datetime | str | None:
    """When it was made: its first network interface tells, for LaunchTime moves with every start."""
    times = [
        each["Attachment"]["AttachTime"]
        for each in instance.get("NetworkInterfaces", ())
        if each.get("Attachment", {}).get("DeviceIndex") == 0 and each["Attachment"].get("AttachTime")
    ]
    return times[0] if times else instance.get("LaunchTime")


def _managed(tags: Mapping[str, str]) -> Row:
    """What else runs the resource, by the tags that AWS's own services set."""
    cluster = next((name.split("/")[-1] for name in tags if name.startswith("kubernetes.io/cluster/")), None)
    replica = "AWSElasticDisasterRecoveryManaged" in tags
    backup = tags.get("aws:backup:source-resource") or tags.get("aws:dlm:lifecycle-policy-id")
    return {
        "autoscaling_group": tags.get("aws:autoscaling:groupName"),
        # the last one, of the EBS driver, tells that there is a cluster and not which
        "kubernetes_cluster": cluster or tags.get("aws:eks:cluster-name") or tags.get("ebs.csi.aws.com/cluster"),
        "stack": tags.get("aws:cloudformation:stack-name"),
        "replica": replica or None,
        "backup": backup,
    }


def _volume(volume: Mapping[str, Any]) -> Row:
    tags = tags_of(volume.get("Tags"))
    attachments = [each for each in volume.get("Attachments", ()) if each.get("State") != "detached"]
    return _row(
        "volume",
        volume["VolumeId"],
        "ec2:DescribeVolumes",
        name=tags.get("Name"),
        native_type=volume.get("VolumeType"),
        state=STATES["volume"].state(volume.get("State")),
        zone=volume.get("AvailabilityZone"),
        storage_gib=volume.get("Size"),
        attached_to=attachments[0].get("InstanceId") if attachments else None,
        created_at=_time(volume.get("CreateTime")),
        tags=tags,
        details={
            "disk_type": volume.get("VolumeType"),
            "iops": volume.get("Iops"),
            "throughput_mib": volume.get("Throughput"),
            "encrypted": volume.get("Encrypted"),
            "snapshot_id": volume.get("SnapshotId"),
            "delete_on_termination": attachments[0].get("DeleteOnTermination") if attachments else None,
            "attachments": [each.get("InstanceId") for each in attachments] if len(attachments) > 1 else None,
            **_managed(tags),
        },
    )


def _users(pairs: Iterable[tuple[str, str]]) -> Mapping[str, list[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for used, user in pairs:
        found[used].add(user)
    return {used: sorted(users) for used, users in found.items()}


def _template_uses(version: Mapping[str, Any]) -> list[str]:
    """The snapshots and the image that a version of a launch template names."""
    data = version.get("LaunchTemplateData", {})
    return [*image_snapshots(data), *([data["ImageId"]] if data.get("ImageId") else [])]


def _snapshot(
    snapshot: Mapping[str, Any],
    images: Mapping[str, list[str]],
    templates: Mapping[str, list[str]],
    users_unknown: bool,
) -> Row:
    tags = tags_of(snapshot.get("Tags"))
    return _row(
        "snapshot",
        snapshot["SnapshotId"],
        "ec2:DescribeSnapshots",
        name=tags.get("Name"),
        native_type=snapshot.get("StorageTier"),
        state=STATES["snapshot"].state(snapshot.get("State")),
        storage_gib=snapshot.get("VolumeSize"),
        created_at=_time(snapshot.get("StartTime")),
        tags=tags,
        details={
            "volume_id": snapshot.get("VolumeId"),
            "description": snapshot.get("Description"),
            "encrypted": snapshot.get("Encrypted"),
            "full_size_bytes": snapshot.get("FullSnapshotSizeInBytes"),
            "used_by_images": images.get(snapshot["SnapshotId"]),
            "used_by_launch_templates": templates.get(snapshot["SnapshotId"]),
            "users_unknown": users_unknown or None,
            **_managed(tags),
        },
    )


def _image(image: Mapping[str, Any], templates: Mapping[str, list[str]], users_unknown: bool) -> Row:
    snapshots = image_snapshots(image)
    sizes = [each.get("Ebs", {}).get("VolumeSize") for each in image.get("BlockDeviceMappings", ())]
    return _row(
        "image",
        image["ImageId"],
        "ec2:DescribeImages",
        name=image.get("Name"),
        state=STATES["image"].state(image.get("State")),
        storage_gib=sum(each for each in sizes if each) if any(sizes) else None,
        attached_to=snapshots[0] if snapshots else None,
        created_at=_time(image.get("CreationDate")),
        tags=tags_of(image.get("Tags")),
        details={
            "snapshots": snapshots,
            "architecture": image.get("Architecture"),
            "public": image.get("Public"),
            "last_launched_at": _text(image.get("LastLaunchedTime")),
            "used_by_launch_templates": templates.get(image["ImageId"]),
            "users_unknown": users_unknown or None,
        },
    )


def _address(address: Mapping[str, Any]) -> Row:
    tags = tags_of(address.get("Tags"))
    attached_to = address.get("InstanceId") or address.get("NetworkInterfaceId") or None
    return _row(
        "ip_address",
        # an address of EC2-Classic, and a recorded one in transfer, has no allocation
        address.get("AllocationId") or address["PublicIp"],
        "ec2:DescribeAddresses",
        name=tags.get("Name") or address["PublicIp"],
        state="attached" if attached_to or address.get("AssociationId") else "unattached",
        attached_to=attached_to,
        tags=tags,
        details={
            "public_ip": address["PublicIp"],
            "private_ip": address.get("PrivateIpAddress"),
            "network_interface_id": address.get("NetworkInterfaceId"),
            "network_interface_owner": address.get("NetworkInterfaceOwnerId"),
            "own_pool": address.get("PublicIpv4Pool", "amazon") != "amazon" or None,
            **_managed(tags),
        },
    )


def _database(database: Mapping[str, Any], described: Mapping[str, Any]) -> Row:
    return _row(
        "database",
        database["DBInstanceArn"],
        "rds:DescribeDBInstances",
        name=database["DBInstanceIdentifier"],
        native_type=database["DBInstanceClass"],
        state=STATES["database"].state(database.get("DBInstanceStatus")),
        zone=database.get("AvailabilityZone"),
        **specifications(described),
        storage_gib=database.get("AllocatedStorage"),
        created_at=_time(database.get("InstanceCreateTime")),
        tags=tags_of(database.get("TagList")),
        details={
            "engine": database.get("Engine"),
            "engine_version": database.get("EngineVersion"),
            "disk_type": database.get("StorageType"),
            "iops": database.get("Iops"),
            "multi_zone": database.get("MultiAZ"),
            "cluster": database.get("DBClusterIdentifier"),
            "replica_of": database.get("ReadReplicaSourceDBInstanceIdentifier"),
            "replicas": database.get("ReadReplicaDBInstanceIdentifiers"),
            "endpoint": database.get("Endpoint", {}).get("Address"),
            "license": database.get("LicenseModel"),
            "replica": True if database.get("ReadReplicaSourceDBInstanceIdentifier") else None,
        },
    )


def _function(function: Mapping[str, Any], tags: Mapping[str, str]) -> Row:
    memory = function.get("MemorySize")
    storage = function.get("EphemeralStorage", {}).get("Size")
    return _row(
        "function",
        function["FunctionArn"],
        "lambda:ListFunctions",
        name=function["FunctionName"],
        native_type=function.get("Runtime"),
        state=STATES["function"].state(function.get("State")),  # ListFunctions itself tells none
        memory_gib=None if memory is None else memory / 1024,
        storage_gib=None if storage is None else storage / 1024,
        tags=dict(tags),
        details={
            "architectures": function.get("Architectures"),
            "package_type": function.get("PackageType"),
            "code_bytes": function.get("CodeSize"),
            "timeout_seconds": function.get("Timeout"),
            "modified_at": function.get("LastModified"),
        },
    )


def _text(at: datetime | str | None) -> str | None:
    return at.isoformat() if isinstance(at, datetime) else at
