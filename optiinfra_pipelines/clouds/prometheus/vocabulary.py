"""PromQL for each metric of the vocabulary, by exporter. Tables and text only.

Every expression is of one 15-minute window: evaluated at its end it looks 15 minutes back. Series of one machine are
joined by RESOURCE, the resource label without its port; what one series is of stands in the label METRIC.

Sources: node_exporter (https://github.com/prometheus/node_exporter#enabled-by-default), dcgm-exporter
(https://docs.nvidia.com/datacenter/dcgm/latest/dcgm-api/dcgm-api-field-ids.html), vLLM
(https://docs.vllm.ai/en/latest/design/metrics.html).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from optiinfra_pipelines.clouds.vocabulary import METRICS, Statistic
from optiinfra_pipelines.errors import CollectionError

RESOURCE = "machine"
METRIC = "metric"
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
# host:port, [IPv6]:port, and an IPv6 address without a port, whose own colons are no port's
_HOST = "([^:]+|.*]|.*:.*:.*)(:[0-9]+)?"

# What is no hardware of its own: counted as well, traffic and space would count twice.
_INTERFACES = 'device!~"lo|(veth|docker|br-|cni|flannel|cali|virbr|tap|tun|bond|wg).*"'
_DISKS = 'device!~"(loop|ram|zram|dm-|md|sr).*"'
_FILESYSTEMS = 'fstype!~"tmpfs|ramfs|devtmpfs|overlay|squashfs|iso9660|nfs.*|cifs|fuse.*|autofs"'
_IDLE = 'node_cpu_seconds_total{mode="idle"}'


@dataclass(frozen=True)
class Query:
    """PromQL of one statistic of one metric of machines; `component`: the label that tells a machine's parts apart.

    `$resource_label` in `promql` stands for the connection's label; `exporter_query` fills it in.
    """

    exporter: str
    metric: str
    statistic: Statistic
    promql: str
    component: str = ""

    @property
    def unit(self) -> str:
        return METRICS[self.metric].unit


def _machine(vector: str) -> str:
    return f'label_replace({vector}, "{RESOURCE}", "$1", "$resource_label", "{_HOST}")'


def _by(aggregation: str, vector: str, *labels: str) -> str:
    return f"{aggregation} by ({', '.join((RESOURCE, *labels))}) ({_machine(vector)})"


def _space(function: str, metric: str) -> str:
    # a file system that is mounted twice is one device
    return f"sum by ({RESOURCE}) ({_by('max', f'{function}({metric}{{{_FILESYSTEMS}}}[15m])', 'device')})"


def _used(free: str) -> str:
    # rate() extrapolates: of a machine that only idles the idle share may come out a little above 1
    return f"clamp_max(clamp_min(100 * (1 - {free}), 0), 100)"


def _node() -> Iterator[Query]:
    # rates of 5 minutes over 10 minutes look 15 minutes back in all
    idle = f"avg by ({RESOURCE}) ({_machine(f'rate({_IDLE}[15m])')})"
    lowest = f"min_over_time(avg by ({RESOURCE}) ({_machine(f'rate({_IDLE}[5m])')})[10m:1m])"
    yield Query("node", "cpu_utilization", "average", _used(idle))
    yield Query("node", "cpu_utilization", "maximum", _used(lowest))
    for statistic, over in (("average", "avg_over_time"), ("maximum", "min_over_time")):
        free, total = f"{over}(node_memory_MemAvailable_bytes[15m])", "max_over_time(node_memory_MemTotal_bytes[15m])"
        promql = _used(f"{_by('max', free)} / {_by('max', total)}")
        yield Query("node", "memory_utilization", statistic, promql)  # type: ignore[arg-type]
        free, total = _space(over, "node_filesystem_avail_bytes"), _space("max_over_time", "node_filesystem_size_bytes")
        yield Query("node", "storage_utilization", statistic, _used(f"{free} / {total}"))  # type: ignore[arg-type]
    for metric, counter, devices in (
        ("network_in_bytes", "node_network_receive_bytes_total", _INTERFACES),
        ("network_out_bytes", "node_network_transmit_bytes_total", _INTERFACES),
        ("disk_read_bytes", "node_disk_read_bytes_total", _DISKS),
        ("disk_write_bytes", "node_disk_written_bytes_total", _DISKS),
        ("disk_read_operations", "node_disk_reads_completed_total", _DISKS),
        ("disk_write_operations", "node_disk_writes_completed_total", _DISKS),
    ):
        yield Query("node", metric, "sum", _by("sum", f"increase({counter}{{{devices}}}[15m])"))


def _dcgm() -> Iterator[Query]:
    used = "100 * DCGM_FI_DEV_FB_USED / (DCGM_FI_DEV_FB_USED + DCGM_FI_DEV_FB_FREE)"
    for statistic, over in (("average", "avg_over_time"), ("maximum", "max_over_time")):
        busy = _by("avg", f"{over}(DCGM_FI_DEV_GPU_UTIL[15m])", "gpu")
        yield Query("dcgm", "gpu_utilization", statistic, busy, "gpu")  # type: ignore[arg-type]
        memory = _by("avg", f"{over}(({used})[15m:1m])", "gpu")
        yield Query("dcgm", "gpu_memory_utilization", statistic, memory, "gpu")  # type: ignore[arg-type]


def _vllm() -> Iterator[Query]:
    # one machine may run several servers of one model: what they hold is added up, shares are averaged
    model = "model_name"
    for statistic, over in (("average", "avg_over_time"), ("maximum", "max_over_time")):
        # a fraction from 0 to 1; vLLM before 0.10 calls it gpu_cache_usage_perc, some versions send both
        cache = f"{over}(vllm:kv_cache_usage_perc[15m]) or {over}(vllm:gpu_cache_usage_perc[15m])"
        kept = f"100 * {_by('avg' if statistic == 'average' else 'max', f'({cache})', model)}"
        yield Query("vllm", "kv_cache_utilization", statistic, kept, model)  # type: ignore[arg-type]
        for metric, gauge in (("requests_running", "running"), ("requests_waiting", "waiting")):
            held = f"{over}({_by('sum', f'vllm:num_requests_{gauge}', model)}[15m:1m])"
            yield Query("vllm", metric, statistic, held, model)  # type: ignore[arg-type]
    for metric, counter in (("input_tokens", "prompt"), ("output_tokens", "generation")):
        promql = _by("sum", f"increase(vllm:{counter}_tokens_total[15m])", model)
        yield Query("vllm", metric, "sum", promql, model)
    first = "vllm:time_to_first_token_seconds"
    seconds, count = (_by("sum", f"increase({first}_{part}[15m])", model) for part in ("sum", "count"))
    yield Query("vllm", "time_to_first_token_seconds", "average", f"{seconds} / {count}", model)
    buckets = _by("sum", f"increase({first}_bucket[15m])", model, "le")
    promql = f"histogram_quantile(0.95, {buckets})"
    yield Query("vllm", "time_to_first_token_seconds", "p95", promql, model)


QUERIES: tuple[Query, ...] = (*_node(), *_dcgm(), *_vllm())
EXPORTERS: Mapping[str, tuple[Query, ...]] = {
    name: tuple(query for query in QUERIES if query.exporter == name) for name in ("node", "dcgm", "vllm")
}


def exporter_query(exporter: str, resource_label: str) -> str:
    """All statistics of an exporter as one PromQL expression; each series has METRIC = "metric/statistic".

    CollectionError (not_configured) where `resource_label` is no name that a label can have.
    """
    if not _LABEL.fullmatch(resource_label):
        raise CollectionError("not_configured", f"prometheus.resource_label {resource_label!r} is no label's name")
    return " or ".join(
        f'label_replace({query.promql}, "{METRIC}", "{query.metric}/{query.statistic}", "", "")'
        for query in EXPORTERS[exporter]
    ).replace("$resource_label", resource_label)
