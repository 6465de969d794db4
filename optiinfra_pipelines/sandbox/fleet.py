"""The resources that the sandbox's customers run on each cloud, and what their metrics are at any time. No I/O.

Facts are in the product's vocabulary: the servers (`aws_server.py`, ...) write them as each cloud's wire has it, and
the truths hold the warehouse against them. Deterministic: a fact depends on the seed and on `today`, a metric's value
on the resource and the window alone.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property
from hashlib import blake2b
from typing import Literal
from uuid import UUID

from optiinfra_pipelines.sandbox.scenario import ACCOUNTS, APPLICATIONS
from optiinfra_pipelines.windows import WINDOW

FleetCloud = Literal["aws", "gcp", "azure", "vultr"]
FLEET_CLOUDS: tuple[FleetCloud, ...] = ("aws", "gcp", "azure", "vultr")
Profile = Literal["busy", "idle", "oversized", "off"]
SERIES = ("average", "maximum")


@dataclass(frozen=True)
class Shape:
    """A machine or database type as its cloud sells it; `hourly` is the list price in USD."""

    cloud: FleetCloud
    native_type: str
    vcpus: float
    memory_gib: float
    hourly: Decimal
    gpu_model: str | None = None
    gpu_count: float = 0
    storage_gib: float | None = None
    month_hours: int = 730


# Public list prices of autumn 2026, on demand, Linux, in the region of PLACES.
_SHAPES: Mapping[FleetCloud, Mapping[str, Shape]] = {
    "aws": {
        "small": Shape("aws", "m7i.large", 2, 8, Decimal("0.1008")),
        "gpu": Shape("aws", "g5.12xlarge", 48, 192, Decimal("5.672"), "NVIDIA A10G 24GB", 4),
        "database": Shape("aws", "db.r6g.2xlarge", 8, 64, Decimal("0.8996"), storage_gib=500),
    },
    "gcp": {
        "small": Shape("gcp", "n2-standard-2", 2, 8, Decimal("0.097118")),
        "gpu": Shape("gcp", "a2-highgpu-1g", 12, 85, Decimal("3.673385"), "NVIDIA A100 40GB", 1),
        "database": Shape("gcp", "db-custom-4-16384", 4, 16, Decimal("0.2016"), storage_gib=200),
    },
    "azure": {
        "small": Shape("azure", "Standard_D2s_v5", 2, 8, Decimal("0.115")),
        "gpu": Shape("azure", "Standard_NC24ads_A100_v4", 24, 220, Decimal("3.673"), "NVIDIA A100 80GB", 1),
        "database": Shape("azure", "GP_Gen5_8", 8, 40.8, Decimal("1.615"), storage_gib=250),
    },
    "vultr": {
        "small": Shape("vultr", "vc2-2c-4gb", 2, 4, Decimal("0.03"), storage_gib=80),
        "gpu": Shape("vultr", "vcg-a100-12c-120g-80vram", 12, 120, Decimal("2.397"), "NVIDIA A100 80GB", 1, 1400),
        "database": Shape("vultr", "vultr-dbaas-business-cc-2-80-4", 2, 4, Decimal("0.223"), storage_gib=80),
    },
}
PLACES: Mapping[FleetCloud, tuple[str, str]] = {
    "aws": ("us-east-1", "us-east-1a"),
    "gcp": ("us-central1", "us-central1-a"),
    "azure": ("westeurope", "1"),
    "vultr": ("ewr", ""),
}


@dataclass(frozen=True)
class Resource:
    """One resource and what raw inventory has to say of it; `resource_id` is the id that table is to hold.

    `guard` names why a rule must leave it alone: young, autoscaled, in_image, replica; empty for none.
    """

    customer_id: str
    cloud: FleetCloud
    account_id: str
    resource_type: str
    resource_id: str
    name: str
    state: str | None
    created_at: datetime
    tags: Mapping[str, str]
    shape: Shape | None = None
    storage_gib: float | None = None
    attached_to: str | None = None
    native_type: str | None = None
    profile: Profile = "busy"
    guard: str = ""
    agent: bool = True  # whether a guest agent reports memory, disk and GPU

    @property
    def region(self) -> str:
        return PLACES[self.cloud][0]

    @property
    def zone(self) -> str | None:
        return PLACES[self.cloud][1] or None

    @property
    def tags_json(self) -> str:
        """Tags as raw inventory has them."""
        return json.dumps(dict(sorted(self.tags.items())))

    @property
    def measured(self) -> bool:
        """Whether there are metrics of it at all: what is off has none."""
        return self.state in ("running", "attached", "active", None) and self.profile != "off"


@dataclass(frozen=True)
class Series:
    """One statistic of one metric of one resource, in the vocabulary's words and unit."""

    resource: Resource
    metric: str
    statistic: str
    component: str = ""

    def value(self, window_start: datetime) -> float | None:
        """The true value over the 15-minute window; None before the resource was there."""
        if window_start < self.resource.created_at:
            return None
        draw = _draw(self.resource.resource_id, self.metric, self.component, int(window_start.timestamp()))
        if self.metric.endswith("_utilization"):
            level = _LEVELS[self.resource.profile].get(self.metric, 50.0)
            average = level * (0.8 + 0.4 * draw)
            return average if self.statistic == "average" else min(average * 1.25, 100.0)
        typical = _TYPICAL[self.metric] * (0.02 if self.resource.profile == "idle" else 1.0)
        amount = typical * (0.5 + draw)
        if self.statistic in ("maximum", "p95"):
            amount *= 1.5
        return amount if self.metric == "duration_seconds" or "seconds" in self.metric else float(round(amount))


# Percent by profile, so that averages vary by a fifth about these: idle stays below 5 and its maxima below 20.
_LEVELS: Mapping[Profile, Mapping[str, float]] = {
    "busy": {"cpu_utilization": 52.0, "memory_utilization": 61.0, "gpu_utilization": 68.0},
    "idle": {"cpu_utilization": 1.5, "memory_utilization": 7.0, "gpu_utilization": 0.5, "gpu_memory_utilization": 3.0},
    "oversized": {"cpu_utilization": 8.0, "memory_utilization": 18.0, "storage_utilization": 20.0},
    "off": {},
}
# Amounts in one 15-minute window.
_TYPICAL: Mapping[str, float] = {
    "network_in_bytes": 90_000_000,
    "network_out_bytes": 140_000_000,
    "disk_read_bytes": 30_000_000,
    "disk_write_bytes": 45_000_000,
    "disk_read_operations": 4_000,
    "disk_write_operations": 6_500,
    "storage_used_bytes": 80_000_000_000,
    "database_connections": 40,
    "invocations": 900,
    "errors": 4,
    "throttles": 1,
    "duration_seconds": 0.35,
    "input_tokens": 610_000,
    "output_tokens": 98_000,
}
_MACHINE_SUMS = (
    *("network_in_bytes", "network_out_bytes", "disk_read_bytes", "disk_write_bytes"),
    *("disk_read_operations", "disk_write_operations"),
)


def series_of(resource: Resource) -> Iterator[Series]:
    """Every series that a fully equipped resource of its type has; a cloud shows those that its wire knows."""
    if not resource.measured:
        return
    kind = resource.resource_type
    if kind == "machine":
        yield from (Series(resource, "cpu_utilization", each) for each in SERIES)
        yield from (Series(resource, metric, "sum") for metric in _MACHINE_SUMS)
        if resource.agent:
            for metric in ("memory_utilization", "storage_utilization"):
                yield from (Series(resource, metric, each) for each in SERIES)
            gpus = range(int(resource.shape.gpu_count) if resource.shape else 0)
            for number in gpus:
                for metric in ("gpu_utilization", "gpu_memory_utilization"):
                    yield from (Series(resource, metric, each, f"gpu-{number}") for each in SERIES)
    elif kind == "database":
        for metric in ("cpu_utilization", "database_connections", "storage_used_bytes"):
            yield from (Series(resource, metric, each) for each in SERIES)
    elif kind == "volume" and resource.state == "attached":
        yield from (Series(resource, metric, "sum") for metric in _MACHINE_SUMS if metric.startswith("disk"))
    elif kind == "function":
        yield from (Series(resource, metric, "sum") for metric in ("invocations", "errors", "throttles"))
        yield from (Series(resource, "duration_seconds", each) for each in SERIES)
    elif kind == "model":
        yield from (Series(resource, metric, "sum") for metric in ("invocations", "input_tokens", "output_tokens"))


@dataclass(frozen=True)
class Fleet:
    """All resources. `today` is the UTC day that ages are counted from; `machines` adds that many plain GPU-less
    machines to each customer and cloud, for load; `customers` are ids beyond those of the scenario where more."""

    today: date
    customers: tuple[str, ...] = ("acme", "globex")
    machines: int = 0
    clouds: tuple[FleetCloud, ...] = field(default=FLEET_CLOUDS)

    @cached_property
    def resources(self) -> tuple[Resource, ...]:
        """Every resource, in a fixed order."""
        return tuple(
            resource
            for customer in self.customers
            for cloud in self.clouds
            for resource in _planted(customer, cloud, self.today, self.machines)
        )

    def of(self, customer_id: str, cloud: FleetCloud, *types: str) -> list[Resource]:
        """The resources of one customer on one cloud, of the given types; all types where none is given."""
        return [
            each
            for each in self.resources
            if (each.customer_id, each.cloud) == (customer_id, cloud) and (not types or each.resource_type in types)
        ]


def account_of(customer_id: str, cloud: FleetCloud) -> str:
    """The AWS account, GCP project or Azure subscription of a customer; empty on Vultr."""
    if cloud == "vultr":
        return ""
    if (customer_id, cloud) in ACCOUNTS:
        return ACCOUNTS[customer_id, cloud]
    number = int(blake2b(customer_id.encode(), digest_size=5).hexdigest(), 16)
    return {
        "aws": f"{number % 10**12:012d}",
        "gcp": f"{customer_id}-llm-{number % 10**4:04d}",
        "azure": str(UUID(int=number)),
    }[cloud]


@dataclass(frozen=True)
class _Plan:
    """One line of what every customer runs on every cloud; `age` in days, `on` the name of the machine it hangs on."""

    resource_type: str
    name: str
    state: str | None
    age: int
    shape: str = ""
    gib: float | None = None
    on: str = ""
    profile: Profile = "busy"
    guard: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


_PLANS = (
    _Plan("machine", "api-1", "running", 200, "small", 50),
    _Plan("machine", "api-2", "running", 200, "small", 50, guard="autoscaled", tags={"autoscaling-group": "api"}),
    _Plan("machine", "llm-gpu-1", "running", 120, "gpu", 200),
    _Plan("machine", "llm-gpu-2", "running", 90, "gpu", 200, profile="idle"),
    _Plan("machine", "trial-gpu", "running", 3, "gpu", 200, profile="idle", guard="young"),
    _Plan("machine", "batch-old", "stopped", 400, "small", 50, profile="off"),
    _Plan("database", "orders", "running", 500, "database"),
    _Plan("database", "archive", "running", 500, "database", profile="oversized"),
    _Plan("volume", "api-1-disk", "attached", 200, gib=50, on="api-1"),
    _Plan("volume", "llm-gpu-1-disk", "attached", 120, gib=200, on="llm-gpu-1"),
    _Plan("volume", "forgotten-disk", "unattached", 150, gib=512),
    _Plan("volume", "replica-disk", "unattached", 150, gib=512, guard="replica", tags={"asr-replicadisk": "true"}),
    _Plan("snapshot", "nightly-2025", "available", 240, gib=512),
    _Plan("snapshot", "golden-base", "available", 240, gib=50, guard="in_image"),
    _Plan("snapshot", "nightly-yesterday", "available", 1, gib=50),
    _Plan("image", "golden", "available", 240, gib=50, on="golden-base"),
    _Plan("ip_address", "203.0.113.10", "attached", 200, on="api-1"),
    _Plan("ip_address", "203.0.113.77", "unattached", 60),
)
_ONLY: Mapping[FleetCloud, tuple[_Plan, ...]] = {
    "aws": (
        _Plan("function", "ingest", "active", 300, gib=0.5),
        _Plan("model", "anthropic.claude-sonnet-4", None, 300),
    ),
    "azure": (_Plan("machine", "batch-deallocated", "deallocated", 400, "small", 50, profile="off"),),
    "gcp": (_Plan("model", "publishers/google/models/gemini-2.5-flash", None, 300),),
    "vultr": (),
}


def _planted(customer: str, cloud: FleetCloud, today: date, machines: int) -> Iterator[Resource]:
    extra = tuple(_Plan("machine", f"worker-{number}", "running", 100, "small", 50) for number in range(machines))
    plans = (*_PLANS, *_ONLY[cloud], *extra)
    ids = {plan.name: _resource_id(customer, cloud, plan) for plan in plans}
    midnight = datetime.combine(today, time(), UTC)
    applications = APPLICATIONS.get(customer, ("support-copilot", "document-search"))
    for number, plan in enumerate(plans):
        shape = _SHAPES[cloud][plan.shape] if plan.shape else None
        yield Resource(
            customer_id=customer,
            cloud=cloud,
            account_id=account_of(customer, cloud),
            resource_type=plan.resource_type,
            resource_id=ids[plan.name],
            name=plan.name,
            state=plan.state,
            created_at=midnight - timedelta(days=plan.age) + timedelta(hours=9, minutes=number % 60),
            tags={"application": applications[number % 2], "environment": "production", **plan.tags},
            shape=shape,
            storage_gib=shape.storage_gib if shape and shape.storage_gib else plan.gib,
            attached_to=ids[plan.on] if plan.on else None,
            native_type=shape.native_type if shape else None,
            profile=plan.profile,
            guard=plan.guard,
        )


def _resource_id(customer: str, cloud: FleetCloud, plan: _Plan) -> str:
    kind, account = plan.resource_type, account_of(customer, cloud)
    digest = blake2b(f"{customer}/{cloud}/{kind}/{plan.name}".encode(), digest_size=16).hexdigest()
    if kind == "model":
        return plan.name
    if cloud == "aws":
        return _aws_id(kind, account, plan.name, digest)
    if cloud == "gcp":
        return f"{account}:{plan.name}" if kind == "database" else str(int(digest[:15], 16) + 10**18)
    if cloud == "azure":
        return f"/subscriptions/{account}/resourcegroups/production/providers/{_AZURE_TYPES[kind]}/{plan.name}".lower()
    return str(UUID(digest, version=4))


def _aws_id(kind: str, account: str, name: str, digest: str) -> str:
    prefix = {"machine": "i", "volume": "vol", "snapshot": "snap", "image": "ami", "ip_address": "eipalloc"}.get(kind)
    if prefix:
        return f"{prefix}-{digest[:17]}"
    region = PLACES["aws"][0]
    if kind == "database":
        return f"arn:aws:rds:{region}:{account}:db:{name}"
    return f"arn:aws:lambda:{region}:{account}:function:{name}"


_AZURE_TYPES = {
    "machine": "Microsoft.Compute/virtualMachines",
    "volume": "Microsoft.Compute/disks",
    "snapshot": "Microsoft.Compute/snapshots",
    "image": "Microsoft.Compute/images",
    "ip_address": "Microsoft.Network/publicIPAddresses",
    "database": "Microsoft.Sql/servers/production/databases",
}


def _draw(*names: object) -> float:
    """A number from 0 to 1 that belongs to `names` for ever."""
    digest = blake2b("/".join(map(str, names)).encode(), digest_size=6).digest()
    return int.from_bytes(digest) / 2**48


def window_starts(start: datetime, end: datetime) -> Iterator[datetime]:
    """The starts of the 15-minute windows in [start, end), both on a quarter of an hour."""
    while start < end:
        yield start
        start += WINDOW
