"""Contracts of what clouds say of resources: metrics, inventory, prices. One table of each per provider.

Names of metrics, types and states are those of `clouds/vocabulary.py`; a value it does not know stands here as the
provider wrote it, so these columns promise no closed set.
"""

from typing import Literal

from optiinfra_pipelines.tables.contract import Column, Kind, Table, Type

CloudProvider = Literal["aws", "gcp", "azure", "vultr"]
CLOUD_PROVIDERS: tuple[CloudProvider, ...] = ("aws", "gcp", "azure", "vultr")


def _text(name: str, description: str, *, nullable: bool = False) -> Column:
    return Column(name, Type.STRING, description, nullable=nullable, low_cardinality=True)


def _id(name: str, description: str, *, nullable: bool = False) -> Column:
    return Column(name, Type.STRING, description, nullable=nullable)


def _time(name: str, description: str, *, nullable: bool = False) -> Column:
    return Column(name, Type.TIMESTAMP, description, nullable=nullable, unit="UTC")


OWNER = (
    _text("customer_id", "Customer."),
    _text("provider", "Cloud: aws, gcp, azure, vultr."),
    _text("connection_id", "Connection of customers.yaml."),
)
_LINEAGE = (
    _text("source", "Service and call that delivered the row, such as cloudwatch:GetMetricData."),
    _time("collected_at", "When the collection began; of two rows with one key the later one is current."),
)


def _metrics(provider: CloudProvider) -> Table:
    return Table(
        schema="raw",
        name=f"{provider}_metrics",
        description="One row is one statistic of one metric of one resource over one window. No data is no row.",
        kind=Kind.KEYED,
        columns=(
            *OWNER,
            _text("account_id", "AWS account, GCP project, Azure subscription; empty on Vultr."),
            _id("resource_id", "Id of the resource as raw inventory has it."),
            _text("resource_type", "machine, volume, database, function, model, ...; see the vocabulary."),
            _text("metric_name", "Name of the metric in the vocabulary, or as the provider wrote it."),
            _text("component", "Part of the resource that was measured, such as gpu-0; empty for the whole of it."),
            _text("unit", "percent (0 to 100), bytes, count, seconds, tokens."),
            _text("statistic", "average, maximum, minimum, sum, p95, p99."),
            _time("window_start", "Start of the window."),
            Column("window_seconds", Type.INTEGER, "Length of the window.", nullable=False, unit="s"),
            Column("value", Type.FLOAT, "The statistic over the window, in `unit`.", nullable=False),
            Column("sample_count", Type.INTEGER, "Samples behind the value; null where the source does not say."),
            *_LINEAGE,
        ),
        key=(
            *("customer_id", "connection_id", "account_id", "resource_id", "metric_name", "component", "statistic"),
            *("window_start", "window_seconds"),
        ),
        order_by=("customer_id", "connection_id", "metric_name", "resource_id", "window_start"),
    )


def _inventory(provider: CloudProvider) -> Table:
    return Table(
        schema="raw",
        name=f"{provider}_inventory",
        description=(
            "One row is one resource on one UTC day, as last seen on it. A resource is gone where its connection's "
            "inventory succeeded after `snapshot_at`."
        ),
        kind=Kind.KEYED,
        columns=(
            *OWNER,
            _text("account_id", "AWS account, GCP project, Azure subscription; empty on Vultr."),
            _time("snapshot_day", "UTC day of the snapshot."),
            _time("snapshot_at", "Start of the 15-minute window in which the resource was last listed on that day."),
            _id("resource_id", "The cloud's own id: instance id, self link, lower-case Azure resource id, UUID."),
            _text("resource_type", "machine, volume, snapshot, ip_address, database, function, image, ..."),
            _id("name", "Name for people; null where there is none.", nullable=True),
            _text("native_type", "Type as the cloud calls it, such as g5.xlarge or gp3.", nullable=True),
            _text("state", "State in the vocabulary, or as the cloud wrote it; null for what has none.", nullable=True),
            _text("region", "The cloud's own region id, such as us-east-1.", nullable=True),
            _text("zone", "Availability zone, where it is in one.", nullable=True),
            Column("vcpus", Type.FLOAT, "Virtual CPUs.", unit="vCPU"),
            Column("memory_gib", Type.FLOAT, "Memory.", unit="GiB"),
            _text("gpu_model", "GPU in the vocabulary, such as NVIDIA A100 40GB; null without GPU.", nullable=True),
            Column("gpu_count", Type.FLOAT, "GPUs; a fraction where a GPU is shared.", unit="GPU"),
            Column(
                "storage_gib", Type.FLOAT, "Size of a volume, snapshot or database; a machine's own disk.", unit="GiB"
            ),
            _id("attached_to", "Resource id that uses it; null where nothing does.", nullable=True),
            _time("created_at", "When the cloud says it was created; null where it does not.", nullable=True),
            Column("tags", Type.JSON, "Tags or labels as a JSON object; {} for none.", nullable=False),
            Column("hourly_price", Type.MONEY, "List price an hour where the API gives it.", unit="currency"),
            _text("price_currency", "ISO code of hourly_price.", nullable=True),
            Column("details", Type.JSON, "What else the rules need, as a JSON object.", nullable=False),
            *_LINEAGE,
        ),
        key=("customer_id", "connection_id", "account_id", "resource_type", "resource_id", "snapshot_day"),
        order_by=("customer_id", "connection_id", "snapshot_day", "resource_type", "resource_id"),
    )


def _prices(provider: CloudProvider) -> Table:
    return Table(
        schema="raw",
        name=f"{provider}_prices",
        description="One row is one list price of one SKU in one region on one UTC day.",
        kind=Kind.KEYED,
        columns=(
            *OWNER,
            _time("price_day", "UTC day on which the list was read."),
            _id("sku", "The cloud's own SKU, meter or plan id."),
            _text(
                "kind", "machine, volume, snapshot, ip_address, database, function, model, gpu, vcpu, memory, egress."
            ),
            _text("native_type", "Type as the cloud calls it, such as g5.xlarge; null for none.", nullable=True),
            _text("region", "The cloud's own region id; global for a price of no region."),
            Column("vcpus", Type.FLOAT, "Virtual CPUs.", unit="vCPU"),
            Column("memory_gib", Type.FLOAT, "Memory.", unit="GiB"),
            _text("gpu_model", "GPU in the vocabulary; null without GPU.", nullable=True),
            Column("gpu_count", Type.FLOAT, "GPUs; a fraction where a GPU is shared.", unit="GPU"),
            Column("storage_gib", Type.FLOAT, "Disk that the price includes.", unit="GiB"),
            _text("unit", "What the price is for: hour, gib_month, gib, month, request, token, ..."),
            Column("price", Type.MONEY, "List price of one unit.", nullable=False, unit="currency"),
            _text("currency", "ISO code."),
            _text("price_type", "on_demand, spot, reserved."),
            Column("month_hours", Type.INTEGER, "Hours that a month of it is billed for at most.", unit="h"),
            Column(
                "tier_start", Type.MONEY, "Units from which on the price holds; 0 for the first tier.", nullable=False
            ),
            Column("details", Type.JSON, "What else tells one price from another, as a JSON object.", nullable=False),
            *_LINEAGE,
        ),
        key=("customer_id", "connection_id", "sku", "region", "price_type", "currency", "tier_start", "price_day"),
        order_by=("customer_id", "connection_id", "price_day", "kind", "region", "sku"),
    )


METRICS = {provider: _metrics(provider) for provider in CLOUD_PROVIDERS}
INVENTORY = {provider: _inventory(provider) for provider in CLOUD_PROVIDERS}
PRICES = {provider: _prices(provider) for provider in CLOUD_PROVIDERS}

CLOUD_TABLES = (*METRICS.values(), *INVENTORY.values(), *PRICES.values())
