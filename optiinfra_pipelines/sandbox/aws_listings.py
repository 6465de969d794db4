"""The fleet as EC2, RDS, Lambda and the Price List list it: answers in the shape that botocore's models give them.

Pure. Field names and forms follow the recorded answers; who may see them and how they are paged is `aws_server.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from hashlib import blake2b
from typing import Any

from optiinfra_pipelines.sandbox.fleet import Fleet, Resource, account_of

Item = dict[str, Any]
ENABLED_REGIONS = ("eu-west-1", "us-east-1")
CLOSED_REGION = "ap-east-1"  # there, and not opted into
_GPU_STORE_GB = 3800
# What DescribeInstanceTypes says of the fleet's types.
INSTANCE_TYPES: Mapping[str, Item] = {
    "m7i.large": {"VCpuInfo": {"DefaultVCpus": 2}, "MemoryInfo": {"SizeInMiB": 8192}, "CurrentGeneration": True},
    "g5.12xlarge": {
        "VCpuInfo": {"DefaultVCpus": 48},
        "MemoryInfo": {"SizeInMiB": 196608},
        "CurrentGeneration": False,
        "InstanceStorageSupported": True,
        "InstanceStorageInfo": {
            "TotalSizeInGB": _GPU_STORE_GB,
            "Disks": [{"SizeInGB": _GPU_STORE_GB, "Count": 1, "Type": "ssd"}],
        },
        "GpuInfo": {
            "Gpus": [
                {
                    "Name": "A10G",
                    "Manufacturer": "NVIDIA",
                    "Count": 4,
                    "LogicalGpuCount": 4,
                    "GpuPartitionSize": 1.0,
                    "MemoryInfo": {"SizeInMiB": 22888},
                }
            ],
            "TotalGpuMemoryInMiB": 91552,
        },
    },
    "r6g.2xlarge": {"VCpuInfo": {"DefaultVCpus": 8}, "MemoryInfo": {"SizeInMiB": 65536}, "CurrentGeneration": True},
}


def shown_resources(fleet: Fleet, customer_id: str) -> list[Resource]:
    """The resources that inventory lists, as far as the wire tells them: models are in no list, ListFunctions tells
    neither state nor birth, an address has no birth, and EC2's own disks are those of the type."""
    return [_shown(each) for each in fleet.of(customer_id, "aws") if each.resource_type != "model"]


def _shown(resource: Resource) -> Resource:
    kind = resource.resource_type
    tags = wire_tags(resource)
    if kind == "machine":
        gpu = resource.shape is not None and resource.shape.gpu_model
        return replace(resource, tags=tags, storage_gib=_GPU_STORE_GB * 10**9 / 2**30 if gpu else None)
    if kind in ("volume", "snapshot"):
        return replace(resource, tags=tags, native_type="gp3" if kind == "volume" else "standard")
    if kind == "function":
        return replace(resource, tags=tags, state=None, native_type="python3.12")
    return replace(resource, tags=tags)


def wire_tags(resource: Resource) -> dict[str, str]:
    """The tags of a resource; on EC2 its name is one of them, and a group's machines carry the group's."""
    tags = dict(resource.tags)
    if resource.resource_type in ("machine", "volume", "snapshot"):
        tags["Name"] = resource.name
    if "autoscaling-group" in tags:
        tags["aws:autoscaling:groupName"] = tags["autoscaling-group"]
    return tags


def reservations(fleet: Fleet, customer_id: str) -> list[Item]:
    """DescribeInstances: two instances a reservation, as an autoscaling group launches them."""
    machines = [_instance(each) for each in fleet.of(customer_id, "aws", "machine")]
    return [
        {
            "ReservationId": f"r-{_hex(customer_id, str(first))}",
            "OwnerId": account_of(customer_id, "aws"),
            "Groups": [],
            "Instances": machines[first : first + 2],
        }
        for first in range(0, len(machines), 2)
    ]


def volumes(fleet: Fleet, customer_id: str) -> list[Item]:
    """DescribeVolumes."""
    return [_volume(each) for each in fleet.of(customer_id, "aws", "volume")]


def snapshots(fleet: Fleet, customer_id: str) -> list[Item]:
    """DescribeSnapshots; with a public snapshot of somebody else among them, as moto lists them."""
    found = [
        {
            "Description": f"of {each.name}",
            "Encrypted": False,
            "OwnerId": each.account_id,
            "Progress": "100%",
            "SnapshotId": each.resource_id,
            "StartTime": each.created_at,
            "State": "completed",
            "VolumeId": "vol-ffffffff",
            "VolumeSize": int(each.storage_gib or 0),
            "StorageTier": "standard",
            "Tags": _pairs(wire_tags(each)),
        }
        for each in fleet.of(customer_id, "aws", "snapshot")
    ]
    return [*found, {**found[0], "OwnerId": "801119661308", "SnapshotId": "snap-0f0f0f0f0f0f0f0f0", "Tags": []}]


def images(fleet: Fleet, customer_id: str) -> list[Item]:
    """DescribeImages."""
    return [
        {
            "Architecture": "x86_64",
            "CreationDate": f"{each.created_at:%Y-%m-%dT%H:%M:%S}.000Z",
            "ImageId": each.resource_id,
            "ImageLocation": f"{each.account_id}/{each.name}",
            "ImageType": "machine",
            "Public": False,
            "OwnerId": each.account_id,
            "State": "available",
            "BlockDeviceMappings": [
                {
                    "DeviceName": "/dev/xvda",
                    "Ebs": {
                        "DeleteOnTermination": True,
                        "SnapshotId": each.attached_to,
                        "VolumeSize": int(each.storage_gib or 0),
                        "VolumeType": "gp3",
                        "Encrypted": False,
                    },
                }
            ],
            "Name": each.name,
            "RootDeviceName": "/dev/xvda",
            "RootDeviceType": "ebs",
            "VirtualizationType": "hvm",
            "Tags": _pairs(wire_tags(each)),
        }
        for each in fleet.of(customer_id, "aws", "image")
    ]


def addresses(fleet: Fleet, customer_id: str) -> list[Item]:
    """DescribeAddresses."""
    found = []
    for each in fleet.of(customer_id, "aws", "ip_address"):
        item = {
            "PublicIp": each.name,
            "AllocationId": each.resource_id,
            "Domain": "vpc",
            "PublicIpv4Pool": "amazon",
            "NetworkBorderGroup": each.region,
            "Tags": _pairs(wire_tags(each)),
        }
        if each.attached_to:
            item |= {"InstanceId": each.attached_to, "AssociationId": f"eipassoc-{_hex(each.resource_id, 'a')}"}
        found.append(item)
    return found


def databases(fleet: Fleet, customer_id: str) -> list[Item]:
    """DescribeDBInstances."""
    return [
        {
            "DBInstanceIdentifier": each.name,
            "DBInstanceClass": each.native_type,
            "Engine": "postgres",
            "EngineVersion": "17.4",
            "DBInstanceStatus": "available" if each.state == "running" else each.state,
            "AllocatedStorage": int(each.storage_gib or 0),
            "InstanceCreateTime": each.created_at,
            "AvailabilityZone": each.zone,
            "MultiAZ": False,
            "StorageType": "gp3",
            "Iops": 12000,
            "DBInstanceArn": each.resource_id,
            "TagList": _pairs(wire_tags(each)),
        }
        for each in fleet.of(customer_id, "aws", "database")
    ]


def functions(fleet: Fleet, customer_id: str) -> list[Item]:
    """ListFunctions, which tells neither state nor tags."""
    return [
        {
            "FunctionName": each.name,
            "FunctionArn": each.resource_id,
            "Runtime": "python3.12",
            "CodeSize": 48211,
            "Timeout": 60,
            "MemorySize": 1024,
            "LastModified": f"{each.created_at + timedelta(days=30):%Y-%m-%dT%H:%M:%S}.000+0000",
            "PackageType": "Zip",
            "Architectures": ["x86_64"],
            "EphemeralStorage": {"Size": int((each.storage_gib or 0.5) * 1024)},
        }
        for each in fleet.of(customer_id, "aws", "function")
    ]


def function_tags(fleet: Fleet, customer_id: str) -> list[Item]:
    """GetResources of the tagging API, for functions."""
    return [
        {"ResourceARN": each.resource_id, "Tags": _pairs(wire_tags(each))}
        for each in fleet.of(customer_id, "aws", "function")
    ]


def instance_types(names: Sequence[str]) -> list[Item]:
    """DescribeInstanceTypes for those of the names that there are."""
    rest = {"Hypervisor": "nitro", "BurstablePerformanceSupported": False}
    return [{"InstanceType": each, **rest, **INSTANCE_TYPES[each]} for each in names if each in INSTANCE_TYPES]


def regions(closed_too: bool = False) -> list[Item]:
    """DescribeRegions: the enabled ones; `closed_too` as after a region was closed that the list still has."""
    names = (*ENABLED_REGIONS, CLOSED_REGION) if closed_too else ENABLED_REGIONS
    return [
        {"RegionName": each, "Endpoint": f"ec2.{each}.amazonaws.com", "OptInStatus": "opt-in-not-required"}
        for each in names
    ]


def _instance(resource: Resource) -> Item:
    running = resource.state == "running"
    interface = {
        "NetworkInterfaceId": f"eni-{_hex(resource.resource_id, 'eni')}",
        "Attachment": {"AttachTime": resource.created_at, "DeviceIndex": 0, "Status": "attached"},
    }
    return {
        "InstanceId": resource.resource_id,
        "ImageId": "ami-0b6f9dd2c1a8f1c55",
        "InstanceType": resource.native_type,
        "State": {"Code": 16, "Name": "running"} if running else {"Code": 80, "Name": "stopped"},
        # the last start, which is not when it was made
        "LaunchTime": resource.created_at + timedelta(minutes=5),
        "Placement": {"AvailabilityZone": resource.zone, "Tenancy": "default", "GroupName": ""},
        "Architecture": "x86_64",
        "Hypervisor": "xen",  # what EC2 writes of Nitro machines, too
        "VirtualizationType": "hvm",
        "EbsOptimized": True,
        "Monitoring": {"State": "disabled"},
        "PrivateIpAddress": _private_ip(resource.resource_id),
        "NetworkInterfaces": [interface],
        "PlatformDetails": "Linux/UNIX",
        "StateTransitionReason": "" if running else "User initiated (2025-11-02 07:14:26 GMT)",
        "RootDeviceName": "/dev/xvda",
        "RootDeviceType": "ebs",
        "Tags": _pairs(wire_tags(resource)),
    }


def _volume(resource: Resource) -> Item:
    attachment = {
        "AttachTime": resource.created_at,
        "Device": "/dev/xvda",
        "InstanceId": resource.attached_to,
        "State": "attached",
        "VolumeId": resource.resource_id,
        "DeleteOnTermination": True,
    }
    return {
        "Attachments": [attachment] if resource.attached_to else [],
        "AvailabilityZone": resource.zone,
        "CreateTime": resource.created_at,
        "Encrypted": False,
        "Size": int(resource.storage_gib or 0),
        "SnapshotId": "",
        "State": "in-use" if resource.attached_to else "available",
        "VolumeId": resource.resource_id,
        "Iops": 3000,
        "Throughput": 125,
        "VolumeType": "gp3",
        "MultiAttachEnabled": False,
        "Tags": _pairs(wire_tags(resource)),
    }


def _pairs(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": name, "Value": value} for name, value in tags.items()]


def _hex(*names: str) -> str:
    return blake2b("/".join(names).encode(), digest_size=9).hexdigest()[:17]


def _private_ip(resource_id: str) -> str:
    return "10." + ".".join(str(each) for each in blake2b(resource_id.encode(), digest_size=3).digest())
