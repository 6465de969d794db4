"""Contracts of what clouds say of resources: metrics, inventory, prices. One table of each per provider.

Names of metrics, types and states are those of `clouds/vocabulary.py`; a value it does not know stands here as the
provider wrote it, so these columns promise no closed set.
"""

from typing import Literal

from optiinfra_pipelines.tables.columns import count, figure, json, label, money, text, time
from optiinfra_pipelines.tables.contract import Kind, Table

CloudProvider = Literal["aws", "gcp", "azure", "vultr"]
CLOUD_PROVIDERS: tuple[CloudProvider, ...] = ("aws", "gcp", "azure", "vultr")

OWNER = (
    label("customer_id", "Customer."),
    label("provider", "Cloud: aws, gcp, azure, vultr."),
    label("connection_id", "Connection of customers.yaml."),
)
_LINEAGE = (
    label("source", "Service and call that delivered the row, such as cloudwatch:GetMetricData."),
    time("collected_at", "When the collection began; of two rows with one key the later one is current."),
)


def _metrics(provider: CloudProvider) -> Table:
    return Table(
        schema="raw",
        name=f"{provider}_metrics",
        description="One row is one statistic of one metric of one resource over one window. No data is no row.",
        kind=Kind.KEYED,
        columns=(
            *OWNER,
            label("account_id", "AWS account, GCP project, Azure subscription; empty on Vultr."),
            text("resource_id", "Id of the resource as raw inventory has it."),
            label("resource_type", "machine, volume, database, function, model, ...; see the vocabulary."),
            label("metric_name", "Name of the metric in the vocabulary, or as the provider wrote it."),
            label("component", "Part of the resource that was measured, such as gpu-0; empty for the whole of it."),
            label("unit", "percent (0 to 100), bytes, count, seconds, tokens."),
            label("statistic", "average, maximum, minimum, sum, p95, p99."),
            time("window_start", "Start of the window."),
            count("window_seconds", "Length of the window.", "s"),
            figure("value", "The statistic over the window, in `unit`.", nullable=False),
            count("sample_count", "Samples behind the value; null where the source does not say.", nullable=True),
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
            label("account_id", "AWS account, GCP project, Azure subscription; empty on Vultr."),
            time("snapshot_day", "UTC day of the snapshot."),
            time("snapshot_at", "Start of the 15-minute window in which the resource was last listed on that day."),
            text("resource_id", "The cloud's own id: instance id, self link, lower-case Azure resource id, UUID."),
            label("resource_type", "machine, volume, snapshot, ip_address, database, function, image, ..."),
            text("name", "Name for people; null where there is none.", nullable=True),
            label("native_type", "Type as the cloud calls it, such as g5.xlarge or gp3.", nullable=True),
            label("state", "State in the vocabulary, or as the cloud wrote it; null for what has none.", nullable=True),
            label("region", "The cloud's own region id, such as us-east-1.", nullable=True),
            label("zone", "Availability zone, where it is in one.", nullable=True),
            figure("vcpus", "Virtual CPUs.", "vCPU"),
            figure("memory_gib", "Memory.", "GiB"),
            label("gpu_model", "GPU in the vocabulary, such as NVIDIA A100 40GB; null without GPU.", nullable=True),
            figure("gpu_count", "GPUs; a fraction where a GPU is shared.", "GPU"),
            figure("storage_gib", "Size of a volume, snapshot or database; a machine's own disk.", "GiB"),
            text("attached_to", "Resource id that uses it; null where nothing does.", nullable=True),
            time("created_at", "When the cloud says it was created; null where it does not.", nullable=True),
            json("tags", "Tags or labels as a JSON object; {} for none."),
            money("hourly_price", "List price an hour where the API gives it.", "currency", nullable=True),
            label("price_currency", "ISO code of hourly_price.", nullable=True),
            json("details", "What else the rules need, as a JSON object."),
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
            time("price_day", "UTC day on which the list was read."),
            text("sku", "The cloud's own SKU, meter or plan id."),
            label(
                "kind", "machine, volume, snapshot, ip_address, database, function, model, gpu, vcpu, memory, egress."
            ),
            label("native_type", "Type as the cloud calls it, such as g5.xlarge; null for none.", nullable=True),
            label("region", "The cloud's own region id; global for a price of no region."),
            figure("vcpus", "Virtual CPUs.", "vCPU"),
            figure("memory_gib", "Memory.", "GiB"),
            label("gpu_model", "GPU in the vocabulary; null without GPU.", nullable=True),
            figure("gpu_count", "GPUs; a fraction where a GPU is shared.", "GPU"),
            figure("storage_gib", "Disk that the price includes.", "GiB"),
            label("unit", "What the price is for: hour, gib_month, gib, month, request, token, ..."),
            money("price", "List price of one unit.", "currency"),
            label("currency", "ISO code."),
            label("price_type", "on_demand, spot, reserved."),
            count("month_hours", "Hours that a month of it is billed for at most.", "h", nullable=True),
            money("tier_start", "Units from which on the price holds; 0 for the first tier."),
            json("details", "What else tells one price from another, as a JSON object."),
            *_LINEAGE,
        ),
        key=("customer_id", "connection_id", "sku", "region", "price_type", "currency", "tier_start", "price_day"),
        order_by=("customer_id", "connection_id", "price_day", "kind", "region", "sku"),
    )


METRICS = {provider: _metrics(provider) for provider in CLOUD_PROVIDERS}
INVENTORY = {provider: _inventory(provider) for provider in CLOUD_PROVIDERS}
PRICES = {provider: _prices(provider) for provider in CLOUD_PROVIDERS}

CLOUD_TABLES = (*METRICS.values(), *INVENTORY.values(), *PRICES.values())
