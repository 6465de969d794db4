"""One vocabulary over four clouds: names of metrics, resource types, states, GPU models, and the shapes of the tables
that map each provider's words to them. The mappings themselves stand in `clouds/<provider>/vocabulary.py`, each with
its source. A word that no table knows is kept as it was written: checks count those, nothing drops them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Statistic = Literal["average", "maximum", "minimum", "sum", "p95", "p99"]
Unit = Literal["percent", "bytes", "count", "seconds", "tokens"]

RESOURCE_TYPES = ("machine", "volume", "snapshot", "ip_address", "database", "function", "image", "model")
MACHINE_STATES = ("starting", "running", "stopping", "stopped", "deallocated", "suspended", "terminated")
STATES: Mapping[str, tuple[str, ...]] = {
    # stopped: no process runs; deallocated: stopped, and the provider has taken the hardware back (Azure alone tells)
    "machine": MACHINE_STATES,
    "database": (*MACHINE_STATES, "maintenance", "failed"),
    "volume": ("creating", "attached", "unattached", "deleting", "failed"),
    "snapshot": ("creating", "available", "deleting", "failed"),
    "image": ("creating", "available", "deleting", "failed"),
    "ip_address": ("creating", "attached", "unattached", "deleting"),
    "function": ("creating", "active", "inactive", "failed"),
}


@dataclass(frozen=True)
class Metric:
    """One metric of the vocabulary. `highest`: a value above it cannot be true (100 for percentages)."""

    name: str
    unit: Unit
    statistics: tuple[Statistic, ...]
    meaning: str
    highest: float | None = None


def _percent(name: str, meaning: str) -> Metric:
    return Metric(name, "percent", ("average", "maximum"), meaning, 100)


def _sum(name: str, unit: Unit, meaning: str) -> Metric:
    return Metric(name, unit, ("sum",), meaning)


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        _percent("cpu_utilization", "Share of the CPU time of all vCPUs that was used."),
        _percent("memory_utilization", "Share of the memory that processes used, without caches."),
        _percent("gpu_utilization", "Share of the time in which the GPU was busy."),
        _percent("gpu_memory_utilization", "Share of the GPU's memory that was used."),
        _percent("storage_utilization", "Share of the disk that was used."),
        _percent("kv_cache_utilization", "Share of an LLM server's key-value cache that was used."),
        _sum("network_in_bytes", "bytes", "Bytes received in the window."),
        _sum("network_out_bytes", "bytes", "Bytes sent in the window."),
        _sum("disk_read_bytes", "bytes", "Bytes read from disks in the window."),
        _sum("disk_write_bytes", "bytes", "Bytes written to disks in the window."),
        _sum("disk_read_operations", "count", "Read operations in the window."),
        _sum("disk_write_operations", "count", "Write operations in the window."),
        Metric("storage_used_bytes", "bytes", ("average", "maximum"), "Bytes stored."),
        Metric("database_connections", "count", ("average", "maximum"), "Open connections."),
        _sum("invocations", "count", "Calls of a function or model in the window."),
        _sum("errors", "count", "Calls that failed by the callee's fault."),
        _sum("throttles", "count", "Calls refused for being too many."),
        Metric("duration_seconds", "seconds", ("average", "maximum"), "How long a call took."),
        _sum("input_tokens", "tokens", "Tokens that models read in the window."),
        _sum("output_tokens", "tokens", "Tokens that models wrote in the window."),
        Metric("time_to_first_token_seconds", "seconds", ("average", "p95"), "From the request to the first token."),
        Metric("requests_running", "count", ("average", "maximum"), "Requests that an LLM server works on."),
        Metric("requests_waiting", "count", ("average", "maximum"), "Requests that wait for an LLM server."),
    )
}


@dataclass(frozen=True)
class MetricMapping:
    """How one metric of a provider becomes one of the vocabulary: `value * scale` in its unit.

    `native` is the provider's name of it (for CloudWatch with its namespace: AWS/EC2 CPUUtilization), `source` the
    page that says so. Rates become sums over the window by the collector, which knows the window.
    """

    native: str
    metric: str
    resource_type: str
    scale: float
    source: str
    statistics: tuple[Statistic, ...] = ()

    @property
    def wanted(self) -> tuple[Statistic, ...]:
        """The statistics to ask for."""
        return self.statistics or METRICS[self.metric].statistics

    @property
    def unit(self) -> Unit:
        return METRICS[self.metric].unit


@dataclass(frozen=True)
class StateMapping:
    """What a provider's word for a state of one resource type means; `source` is the page that lists the words."""

    resource_type: str
    source: str
    words: Mapping[str, str]

    def state(self, word: str | None) -> str | None:
        """The state in the vocabulary; the provider's word itself, in lower case, where the table lacks it."""
        return None if word is None else self.words.get(word, word.lower())


# A GPU as clouds write it (nvidia-tesla-t4, NVIDIA_A100, "A10G", Standard_NC24ads_A100_v4) -> how NVIDIA and AMD call
# it, with the memory where one name stands for two cards. Longer patterns stand first: L40S is no L4, A100 no A10.
_GPU_MODELS: tuple[tuple[str, str], ...] = (
    (r"b300", "NVIDIA B300 288GB"),
    (r"gb200", "NVIDIA GB200 186GB"),
    (r"b200", "NVIDIA B200 180GB"),
    (r"gh200", "NVIDIA GH200 96GB"),
    (r"h200", "NVIDIA H200 141GB"),
    (r"h100", "NVIDIA H100 80GB"),
    (r"a100.*80|80.*a100", "NVIDIA A100 80GB"),
    (r"a100", "NVIDIA A100 40GB"),
    (r"a10g", "NVIDIA A10G 24GB"),
    (r"a10(?!\d)", "NVIDIA A10 24GB"),
    (r"a16", "NVIDIA A16 16GB"),
    (r"a40", "NVIDIA A40 48GB"),
    (r"l40s", "NVIDIA L40S 48GB"),
    (r"l4(?!\d)", "NVIDIA L4 24GB"),
    (r"t4g", "NVIDIA T4G 16GB"),
    (r"t4", "NVIDIA T4 16GB"),
    (r"v100.*32|32.*v100", "NVIDIA V100 32GB"),
    (r"v100", "NVIDIA V100 16GB"),
    (r"p100", "NVIDIA P100 16GB"),
    (r"p4(?!\d)", "NVIDIA P4 8GB"),
    (r"k80", "NVIDIA K80 12GB"),
    (r"m60", "NVIDIA M60 8GB"),
    (r"rtx.?pro.?6000", "NVIDIA RTX PRO 6000 96GB"),
    (r"mi355x", "AMD MI355X 288GB"),
    (r"mi325x", "AMD MI325X 256GB"),
    (r"mi300x", "AMD MI300X 192GB"),
)
GPU_MODELS = tuple(dict.fromkeys(model for _, model in _GPU_MODELS))


def gpu_model(written: str | None) -> str | None:
    """The GPU in the vocabulary that a cloud's `written` name means; `written` itself where none is known."""
    if not written:
        return None
    for pattern, model in _GPU_MODELS:
        if re.search(pattern, written.lower()):
            return model
    return written
