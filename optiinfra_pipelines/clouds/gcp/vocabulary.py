"""Google Cloud's words in this project's vocabulary: states, metric types, machine tiers, billing words.

Tables only, each with the page that lists the words; what reads them is in the parsers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from optiinfra_pipelines.clouds.vocabulary import MetricMapping, StateMapping, Statistic

_COMPUTE = "https://cloud.google.com/compute/docs/reference/rest/v1"
STATES: Mapping[str, StateMapping] = {
    mapping.resource_type: mapping
    for mapping in (
        StateMapping(
            "machine",
            "https://cloud.google.com/compute/docs/instances/instance-life-cycle",
            {
                "PENDING": "starting",
                "PROVISIONING": "starting",
                "STAGING": "starting",
                "RUNNING": "running",
                "REPAIRING": "starting",
                "PENDING_STOP": "stopping",
                "STOPPING": "stopping",
                "STOPPED": "stopped",
                "TERMINATED": "stopped",  # Compute Engine's word for a stopped machine; a deleted one is not listed
                "SUSPENDING": "stopping",
                "SUSPENDED": "suspended",
                "DEPROVISIONING": "terminated",
            },
        ),
        # READY is no state of ours: whether anything uses the disk decides between attached and unattached
        StateMapping("volume", f"{_COMPUTE}/disks", dict.fromkeys(("CREATING", "RESTORING"), "creating") | {
            "DELETING": "deleting", "FAILED": "failed", "UNAVAILABLE": "failed",
        }),
        StateMapping("snapshot", f"{_COMPUTE}/snapshots", {
            "CREATING": "creating", "UPLOADING": "creating", "READY": "available", "DELETING": "deleting",
            "FAILED": "failed",
        }),
        StateMapping("image", f"{_COMPUTE}/images", {
            "PENDING": "creating", "READY": "available", "DELETING": "deleting", "FAILED": "failed",
        }),
        StateMapping("ip_address", f"{_COMPUTE}/addresses", {
            "RESERVING": "creating", "IN_USE": "attached", "RESERVED": "unattached",
        }),
        StateMapping(
            "database",
            "https://cloud.google.com/sql/docs/mysql/admin-api/rest/v1/instances#SqlInstanceState",
            {
                "RUNNABLE": "running",
                "SUSPENDED": "suspended",
                "PENDING_CREATE": "starting",
                "PENDING_DELETE": "stopping",
                "MAINTENANCE": "maintenance",
                "ONLINE_MAINTENANCE": "running",
                "REPAIRING": "failed",
                "FAILED": "failed",
            },
        ),
    )
}  # fmt: skip

_GCP_METRICS = "https://cloud.google.com/monitoring/api/metrics_gcp_c"
_VERTEX_METRICS = "https://cloud.google.com/monitoring/api/metrics_gcp_a_b"
_AGENT_METRICS = "https://cloud.google.com/monitoring/api/metrics_opsagent"


@dataclass(frozen=True)
class MetricQuery:
    """One metric type of Cloud Monitoring: what it means, which of its series are wanted, and what they are of.

    `labels` narrow the series by metric labels; `component` is the metric label that tells parts of a resource apart;
    `needs_gpu`: only worth asking where a machine has one.
    """

    mapping: MetricMapping
    labels: Mapping[str, str]
    component: str = ""
    needs_gpu: bool = False

    @property
    def is_summed(self) -> bool:
        """Whether a row is the sum over series that the metric's labels split: a machine's disks, a model's calls."""
        return self.component == "device_name" or self.mapping.resource_type == "model"


ALIGNERS: Mapping[Statistic, str] = {"average": "ALIGN_MEAN", "maximum": "ALIGN_MAX", "sum": "ALIGN_DELTA"}
"""How Monitoring computes a statistic of a window: gauges by mean and maximum, counters by what they grew."""

PERCENT_UNITS = {"10^2.%": 100.0, "%": 1.0}
"""UCUM units of Monitoring for shares -> percent: https://cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.metricDescriptors"""


def _query(
    native: str, metric: str, of: str, source: str, component: str = "", scale: float = 1.0, **labels: str
) -> MetricQuery:
    return MetricQuery(MetricMapping(native, metric, of, scale, source), labels, component, "/gpu/" in native)


_DISK_COUNTERS = {
    "disk_read_bytes": "compute.googleapis.com/instance/disk/read_bytes_count",
    "disk_write_bytes": "compute.googleapis.com/instance/disk/write_bytes_count",
    "disk_read_operations": "compute.googleapis.com/instance/disk/read_ops_count",
    "disk_write_operations": "compute.googleapis.com/instance/disk/write_ops_count",
}
_CPU, _IN = (
    "compute.googleapis.com/instance/cpu/utilization",
    "compute.googleapis.com/instance/network/received_bytes_count",
)
_OUT = "compute.googleapis.com/instance/network/sent_bytes_count"
GPU_MEMORY = "agent.googleapis.com/gpu/memory/bytes_used"

QUERIES: tuple[MetricQuery, ...] = (
    _query(_CPU, "cpu_utilization", "machine", _GCP_METRICS, scale=100.0),
    _query(_IN, "network_in_bytes", "machine", _GCP_METRICS),
    _query(_OUT, "network_out_bytes", "machine", _GCP_METRICS),
    # series are by device: their sum is the machine's, each one the disk's
    *(_query(native, metric, "machine", _GCP_METRICS, "device_name") for metric, native in _DISK_COUNTERS.items()),
    _query("agent.googleapis.com/memory/percent_used", "memory_utilization", "machine", _AGENT_METRICS, state="used"),
    _query(
        "agent.googleapis.com/disk/percent_used", "storage_utilization", "machine", _AGENT_METRICS, "device",
        state="used",
    ),
    # the Ops Agent multiplies NVML's fraction by 100:
    # https://github.com/GoogleCloudPlatform/ops-agent/blob/master/apps/hostmetrics.go
    _query("agent.googleapis.com/gpu/utilization", "gpu_utilization", "machine", _AGENT_METRICS, "gpu_number"),
    # bytes by memory_state used and free; the share is worked out by the parser
    _query(GPU_MEMORY, "gpu_memory_utilization", "machine", _AGENT_METRICS, "gpu_number"),
    _query(
        "cloudsql.googleapis.com/database/cpu/utilization", "cpu_utilization", "database", _GCP_METRICS, scale=100.0
    ),
    _query("cloudsql.googleapis.com/database/network/connections", "database_connections", "database", _GCP_METRICS),
    _query("cloudsql.googleapis.com/database/disk/bytes_used", "storage_used_bytes", "database", _GCP_METRICS),
    _query(
        "aiplatform.googleapis.com/publisher/online_serving/model_invocation_count", "invocations", "model",
        _VERTEX_METRICS,
    ),
    # models that the customer deployed on an endpoint of his own
    _query("aiplatform.googleapis.com/prediction/online/prediction_count", "invocations", "model", _VERTEX_METRICS),
    # the metric label `type` says input or output: the parser makes input_tokens and output_tokens of them
    _query("aiplatform.googleapis.com/publisher/online_serving/token_count", "input_tokens", "model", _VERTEX_METRICS),
)  # fmt: skip
TOKEN_METRICS = {"input": "input_tokens", "output": "output_tokens"}

SQL_SOURCE = "https://cloud.google.com/sql/docs/mysql/instance-settings#machine-type-2ndgen"
SQL_TIERS: Mapping[str, tuple[float, float]] = {  # vCPUs and GiB, source above
    "db-f1-micro": (1, 0.6),
    "db-g1-small": (1, 1.7),
}
SQL_SERIES: Mapping[str, float] = {  # GiB a vCPU, source above
    "db-n1-standard": 3.75,
    "db-n1-highmem": 6.5,
    "db-perf-optimized-N": 8,
    "db-memory-optimized-N": 16,
    "db-c4a-highmem": 8,
}

# https://cloud.google.com/billing/docs/how-to/export-data-bigquery-tables/detailed-usage (cost_type)
CHARGE_CATEGORIES: Mapping[str, str] = {
    "regular": "Usage",
    "tax": "Tax",
    "adjustment": "Adjustment",
    "rounding_error": "Adjustment",
}
# Service descriptions of https://cloud.google.com/skus -> ServiceCategory of FOCUS 1.2
SERVICE_CATEGORIES: Mapping[str, str] = {
    "Compute Engine": "Compute",
    "Kubernetes Engine": "Compute",
    "Cloud Run": "Compute",
    "Cloud Functions": "Compute",
    "App Engine": "Compute",
    "Cloud SQL": "Databases",
    "Cloud Spanner": "Databases",
    "AlloyDB": "Databases",
    "Cloud Bigtable": "Databases",
    "Cloud Memorystore for Redis": "Databases",
    "Cloud Storage": "Storage",
    "Cloud Filestore": "Storage",
    "BigQuery": "Analytics",
    "Cloud Dataflow": "Analytics",
    "Vertex AI": "AI and Machine Learning",
    "Networking": "Networking",
    "Cloud DNS": "Networking",
    "Cloud Logging": "Management and Governance",
    "Cloud Monitoring": "Management and Governance",
    "Support": "Other",
}

# https://cloud.google.com/bigquery/pricing#on_demand_pricing: USD a TiB that a query reads, at least 10 MB of it
QUERY_PRICE_PER_TIB = Decimal("6.25")
QUERY_LEAST_BYTES = 10 * 1024 * 1024

# https://cloud.google.com/stackdriver/pricing (Monitoring API calls): USD a time series that a read returns, beyond the
# first million of a month, which is not told apart here
SERIES_PRICE = Decimal("0.0000005")

COMPUTE_SERVICE = "6F81-5844-456A"  # https://cloud.google.com/skus/sku-groups/compute-engine
SQL_SERVICE = "9662-B51E-5089"  # https://cloud.google.com/sql/pricing, as the catalog's services.list names it
PRICE_TYPES: Mapping[str, str] = {  # category.usageType of the Cloud Billing Catalog
    "OnDemand": "on_demand",
    "Preemptible": "spot",
    "Commit1Mo": "reserved",
    "Commit1Yr": "reserved",
    "Commit3Yr": "reserved",
}
PRICE_UNITS: Mapping[str, str] = {  # usageUnit of the catalog's pricing expressions (UCUM)
    "h": "hour",
    "GiBy.h": "gib_hour",
    "GiBy.mo": "gib_month",
    "GiBy": "gib",
    "mo": "month",
    "count": "request",
}
