"""The fleet's resources, charges and plans as Vultr's API v2 writes them: the OpenAPI document and recordings are the
model. Which of them a request gets, and how, is the server's business.
"""

from datetime import datetime
from hashlib import blake2b
from typing import Any

from optiinfra_pipelines.sandbox.fleet import Resource
from optiinfra_pipelines.sandbox.fleet_bills import FleetCharge

Content = dict[str, Any]


def private_ip(machine: Resource) -> str:
    """The machine's address in its VPC, which no other machine of the customer has."""
    low, middle, high = blake2b(machine.resource_id.encode(), digest_size=3).digest()
    return f"10.{low}.{middle}.{high}"


def public_ip(machine: Resource) -> str:
    """The machine's main IPv4 address, of a range for documents and tests (RFC 2544)."""
    _, middle, high = blake2b(machine.resource_id.encode(), digest_size=3).digest()
    return f"198.18.{middle}.{high}"


def iso(at: datetime) -> str:
    """A time as billing and instances write it."""
    return f"{at:%Y-%m-%dT%H:%M:%S}+00:00"


def instance(machine: Resource) -> Content:
    """An item of /instances."""
    shape = machine.shape
    assert shape is not None
    return {
        "id": machine.resource_id,
        "os": "Ubuntu 24.04 LTS x64",
        "ram": int(shape.memory_gib * 1024),
        "disk": int(machine.storage_gib or 0),
        "main_ip": public_ip(machine),
        "vcpu_count": int(shape.vcpus),
        "region": machine.region,
        "plan": shape.native_type,
        "date_created": iso(machine.created_at),
        "status": "active",
        "allowed_bandwidth": 2000,
        "netmask_v4": "255.255.254.0",
        "gateway_v4": "198.18.0.1",
        "power_status": machine.state,
        "server_status": "ok",
        "v6_network": "",
        "v6_main_ip": "",
        "v6_network_size": 0,
        "label": machine.name,
        "internal_ip": private_ip(machine),
        "kvm": "https://my.vultr.com/subs/vps/novnc/api.php?data=canary-vultr-console",
        "default_password": "canary-vultr-password",
        "hostname": machine.name,
        "tags": [f"{key}={value}" for key, value in machine.tags.items()],
        "os_id": 2284,
        "app_id": 0,
        "image_id": "",
        "firewall_group_id": "",
        "features": ["auto_backups"],
    }


def block(volume: Resource) -> Content:
    """An item of /blocks."""
    size = int(volume.storage_gib or 0)
    return {
        "id": volume.resource_id,
        "date_created": iso(volume.created_at),
        "cost": size / 10,
        "pending_charges": 2.5,
        "status": "active",
        "size_gb": size,
        "region": volume.region,
        "attached_to_instance": volume.attached_to or "",
        "attached_to_instance_ip": "",
        "attached_to_instance_label": "",
        "label": volume.name,
        "mount_id": f"{volume.region}-{volume.resource_id[:12]}",
        "block_type": "high_perf",
        "os_id": 0,
        "snapshot_id": "",
        "bootable": False,
    }


def snapshot(snapshot: Resource) -> Content:
    """An item of /snapshots."""
    size = int((snapshot.storage_gib or 0) * 1024**3)
    return {
        "id": snapshot.resource_id,
        "date_created": f"{snapshot.created_at:%Y-%m-%d %H:%M:%S}",
        "description": snapshot.name,
        "size": size,
        "compressed_size": size // 40,
        "status": "complete",
        "os_id": 2284,
        "app_id": 0,
    }


def reserved_ip(address: Resource) -> Content:
    """An item of /reserved-ips."""
    return {
        "id": address.resource_id,
        "region": address.region,
        "ip_type": "v4",
        "subnet": address.name,
        "subnet_size": 32,
        "label": "",
        "instance_id": address.attached_to or "",
    }


def database(database: Resource) -> Content:
    """An item of /databases."""
    shape = database.shape
    assert shape is not None
    return {
        "id": database.resource_id,
        "date_created": f"{database.created_at:%Y-%m-%d %H:%M:%S}",
        "plan": shape.native_type,
        "plan_disk": int(database.storage_gib or 0),
        "plan_ram": int(shape.memory_gib * 1024),
        "plan_vcpus": int(shape.vcpus),
        "plan_replicas": 1,
        "region": database.region.upper(),
        "database_engine": "pg",
        "database_engine_version": "16",
        "vpc_id": "d39bf0bf-e050-47d4-a291-5d6fc736f250",
        "status": "Running",
        "label": database.name,
        "tag": next((f"{key}={value}" for key, value in database.tags.items()), ""),
        "pending_charges": 12.15,
        "dbname": "defaultdb",
        "host": f"vultr-prod-{database.resource_id}.vultrdb.com",
        "user": "vultradmin",
        "password": "canary-vultr-database-password",
        "port": "16751",
        "read_replicas": [],
    }


def invoice_item(charge: FleetCharge) -> Content:
    """An item of an invoice or of /billing/pending-charges."""
    resource = charge.resource
    if resource is None or resource.shape is None:
        product, text = ("Sales Tax" if charge.category == "Tax" else "Account Credit"), charge.description
    elif resource.resource_type == "database":
        product, text = "Managed Database", f"{resource.shape.native_type} ({resource.name})"
    else:
        product = "Cloud GPU" if resource.shape.gpu_count else "Vultr Cloud Compute"
        text = f"{public_ip(resource)} ({int(resource.shape.memory_gib * 1024)} MB) [{resource.name}]"
    return {
        "description": text,
        "product": product,
        "start_date": iso(charge.start),
        "end_date": iso(charge.end),
        "units": float(charge.quantity),
        "unit_type": "hours" if resource else "",
        "unit_price": float(charge.price),
        "total": float(charge.cost),  # at most 13 digits: a float prints them as they are
    }


def _plan(plan_id: str, vcpus: int, ram: int, disk: int, hourly: float, monthly: float, **more: Any) -> Content:
    return {
        "id": plan_id,
        "vcpu_count": vcpus,
        "ram": ram,
        "disk": disk,
        "disk_count": 1,
        "bandwidth": 3072,
        "monthly_cost": monthly,
        "hourly_cost": hourly,
        "type": plan_id.split("-")[0],
        "locations": ["ewr", "sao"],
        **more,
    }


# Machine types of the fleet, shares of a GPU, a place that costs more, and the free plan: list prices of autumn 2026.
_A100 = {"gpu_type": "NVIDIA_A100", "locations": ["ewr"]}
PLANS: list[Content] = [
    _plan("vc2-1c-0.5gb-free", 1, 512, 10, 0, 0),
    _plan("vc2-2c-4gb", 2, 4096, 80, 0.03, 20, location_cost={"sao": {"hourly_cost": 0.045, "monthly_cost": 30}}),
    _plan("vcg-a100-1c-6g-4vram", 1, 6144, 70, 0.123, 90, gpu_vram_gb=4, **_A100),
    _plan("vcg-a100-6c-60g-40vram", 12, 61440, 1400, 1.397, 800, gpu_vram_gb=40, **_A100),
    _plan("vcg-a100-12c-120g-80vram", 12, 122880, 1400, 2.397, 1750, gpu_vram_gb=80, **_A100),
]
PLANS_METAL: list[Content] = [
    {
        "id": "vbm-256c-2048gb-8-mi300x-gpu",
        "physical_cpus": 2,
        "cpu_count": 128,
        "cpu_cores": 128,
        "cpu_threads": 256,
        "cpu_model": "EPYC 9534",
        "cpu_mhz": 2450,
        "ram": 2321924,
        "disk": 3576,
        "disk_count": 8,
        "bandwidth": 10240,
        "monthly_cost": 11773.44,
        "hourly_cost": 17.52,
        "monthly_cost_preemptible": 9891.84,
        "hourly_cost_preemptible": 14.72,
        "type": "NVMe",
        "locations": ["ord"],
    }
]
DATABASE_PLANS: list[Content] = [
    {
        "id": "vultr-dbaas-business-cc-2-80-4",
        "number_of_nodes": 2,
        "type": "cloud_compute",
        "vcpu_count": 2,
        "ram": 4096,
        "disk": 80,
        "monthly_cost": 150,
        "supported_engines": {"mysql": True, "pg": True},
        "locations": ["ewr"],
    }
]
