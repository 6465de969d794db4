"""Answers of Cloud Monitoring's timeSeries.list -> rows of the metrics contract, column by column. Pure.

A window is named by its end on this wire and by its start in the contract; points come newest first, a series may go
on in the next page, and a point without a value is no row.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from optiinfra_pipelines.clouds.collecting import collected_schema
from optiinfra_pipelines.clouds.gcp.parser import region_of
from optiinfra_pipelines.clouds.gcp.vocabulary import PERCENT_UNITS, TOKEN_METRICS, MetricQuery
from optiinfra_pipelines.clouds.vocabulary import METRICS as VOCABULARY
from optiinfra_pipelines.clouds.vocabulary import Statistic
from optiinfra_pipelines.tables.cloud import METRICS
from optiinfra_pipelines.windows import Window, as_utc

SECONDS = 900
SOURCE = "monitoring:timeSeries.list"
_SCHEMA = collected_schema(METRICS["gcp"])
_KEY = ("account_id", "resource_id", "component", "window_end")
# Devices that are no disk: snaps are always full, and tmpfs is memory
_NO_DISK = re.compile(r"(/dev/)?(loop\d+|tmpfs|udev|devtmpfs|shm)")
Devices = Mapping[tuple[str, str], str]
"""(machine id, device name) -> volume id, from inventory rows."""


@dataclass
class Points:
    """Points of one metric type and aligner as they came: columns of equal length, `component` the part's label."""

    accounts: list[str] = field(default_factory=list)
    resources: list[str] = field(default_factory=list)
    components: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    unit: str = ""
    unreachable: set[str] = field(default_factory=set)

    def add(self, page: Mapping[str, Any], project: str, query: MetricQuery, regions: frozenset[str]) -> None:
        """Take in one page; a series that is of no resource of `regions` (empty: all) is left out."""
        self.unit = page.get("unit", self.unit)
        self.unreachable.update(page.get("unreachable") or ())
        self.unreachable.update(error.get("message", "an error") for error in page.get("executionErrors") or ())
        resource_of = _RESOURCES[query.mapping.resource_type]
        component_of = _component(query)
        values, ends = self.values, self.ends
        for series in page.get("timeSeries") or ():
            labels, of = series["metric"].get("labels") or {}, series["resource"]["labels"]
            resource, component = resource_of(of), component_of(labels)
            if not resource or component is None or (regions and _region(of) not in regions):
                continue
            before = len(values)
            for point in series["points"]:
                value = point["value"]
                number = value.get("doubleValue", value.get("int64Value"))
                if number is not None:
                    values.append(float(number))  # an int64Value is a string
                    ends.append(point["interval"]["endTime"])
            count = len(values) - before
            self.accounts += [of.get("project_id") or project] * count
            self.resources += [resource] * count
            self.components += [component] * count

    def table(self) -> pa.Table:
        """The points as columns of _KEY and `value`; NaN, which JSON has as text, is left out."""
        instants = {end: _instant(end) for end in set(self.ends)}
        table = pa.table(
            {
                "account_id": pa.array(self.accounts, pa.string()),
                "resource_id": pa.array(self.resources, pa.string()),
                "component": pa.array(self.components, pa.string()),
                "window_end": pa.array([instants[end] for end in self.ends], pa.int64()),
                "value": pa.array(self.values, pa.float64()),
            }
        )
        return table.filter(pc.invert(pc.is_nan(table["value"]))) if table.num_rows else table


def metric_tables(
    query: MetricQuery, statistic: Statistic, points: Points, span: Window, devices: Devices
) -> list[pa.Table]:
    """Rows of the contract (without ADDED columns) from one request's points, of windows that start in `span`."""
    mapping = query.mapping
    scale = PERCENT_UNITS.get(points.unit, mapping.scale) if mapping.unit == "percent" else mapping.scale
    found = points.table()
    if query.component == "device_name":
        volumes = _volumes(found, devices)
        return [
            _contract(_summed(found), span, mapping.metric, "machine", statistic, scale),
            _contract(volumes, span, mapping.metric, "volume", statistic, scale),
        ]
    if mapping.resource_type == "model":
        kinds = {mapping.metric: ""} if mapping.metric == "invocations" else {m: w for w, m in TOKEN_METRICS.items()}
        return [
            _contract(_summed(found.filter(pc.equal(found["component"], word))), span, metric, "model",
                      statistic, scale)
            for metric, word in kinds.items()
        ]  # fmt: skip
    return [_contract(found, span, mapping.metric, mapping.resource_type, statistic, scale)]


def gpu_memory_tables(averages: Points, maxima: Points, span: Window) -> list[pa.Table]:
    """GPU memory in use, in percent: Monitoring gives bytes by memory_state, and used and free of a moment make the
    whole. The highest used and the highest free do not, so the whole comes from the averages for both statistics."""
    average, maximum = _by_state(averages), _by_state(maxima)
    whole = average["used"].join(average["free"], list(_KEY), right_suffix="_free", join_type="inner")
    whole = whole.append_column("whole", pc.add(whole["value"], whole["value_free"])).select([*_KEY, "whole"])
    tables = []
    for statistic, used in (("average", average["used"]), ("maximum", maximum["used"])):
        joined = used.join(whole, list(_KEY), join_type="inner")
        joined = joined.filter(pc.greater(joined["whole"], 0.0))
        share = joined.set_column(
            joined.column_names.index("value"), "value", pc.divide(joined["value"], joined["whole"])
        )
        tables.append(_contract(share, span, "gpu_memory_utilization", "machine", statistic, 100.0))
    return tables


def _by_state(points: Points) -> dict[str, pa.Table]:
    found = points.table()
    parts = pc.split_pattern(found["component"], "/")
    component, state = pc.list_element(parts, 0), pc.list_element(parts, 1)
    found = found.set_column(found.column_names.index("component"), "component", component)
    return {word: found.filter(pc.equal(state, word)) for word in ("used", "free")}


def _volumes(found: pa.Table, devices: Devices) -> pa.Table:
    names = zip(found["resource_id"].to_pylist(), found["component"].to_pylist(), strict=True)
    ids = pa.array([devices.get(name) for name in names], pa.string())
    volumes = found.set_column(found.column_names.index("resource_id"), "resource_id", ids)
    return _summed(volumes.filter(pc.is_valid(volumes["resource_id"])))


def _summed(found: pa.Table) -> pa.Table:
    """The sum over the series of a resource: what a counter's labels split belongs together again."""
    empty = pa.repeat(pa.scalar("", pa.string()), found.num_rows)
    found = found.set_column(found.column_names.index("component"), "component", empty)
    return found.group_by(list(_KEY)).aggregate([("value", "sum")]).rename_columns([*_KEY, "value"])


def _contract(found: pa.Table, span: Window, metric: str, resource_type: str, statistic: str, scale: float) -> pa.Table:
    starts = pc.subtract(found["window_end"], SECONDS * 1_000_000)
    first, end = _micros(span.start), _micros(span.end)
    inside = pc.and_(pc.greater_equal(starts, first), pc.less(starts, end))
    found, starts = found.filter(inside), pc.filter(starts, inside)
    size = found.num_rows
    columns: dict[str, Any] = {
        "account_id": found["account_id"],
        "resource_id": found["resource_id"],
        "resource_type": resource_type,
        "metric_name": metric,
        "component": found["component"],
        "unit": VOCABULARY[metric].unit,
        "statistic": statistic,
        "window_start": pc.cast(starts, pa.timestamp("us")),
        "window_seconds": SECONDS,
        "value": pc.multiply(found["value"], scale),
        "sample_count": None,
        "source": SOURCE,
    }
    arrays = [
        each
        if isinstance(each := columns[name], pa.Array | pa.ChunkedArray)
        else pa.repeat(pa.scalar(each, kind), size)
        for name, kind in zip(_SCHEMA.names, _SCHEMA.types, strict=True)
    ]
    return pa.table(arrays, schema=_SCHEMA)


def _region(labels: Mapping[str, str]) -> str:
    return region_of(labels["zone"]) if "zone" in labels else labels.get("region") or labels.get("location", "")


def _machine(labels: Mapping[str, str]) -> str:
    return labels.get("instance_id", "")


def _database(labels: Mapping[str, str]) -> str:
    return labels.get("database_id", "")


def _model(labels: Mapping[str, str]) -> str:
    if "endpoint_id" in labels:
        return f"endpoints/{labels['endpoint_id']}"
    name = labels.get("model_user_id", "").rpartition("/")[2]
    return f"publishers/{labels.get('publisher', '')}/models/{name}" if name else ""


_RESOURCES: Mapping[str, Callable[[Mapping[str, str]], str]] = {
    "machine": _machine,
    "database": _database,
    "model": _model,
}


def _component(query: MetricQuery) -> Callable[[Mapping[str, str]], str | None]:
    label = query.component
    if label == "gpu_number":
        return lambda labels: "/".join(
            [f"gpu-{labels.get(label, '0')}", *([labels["memory_state"]] if "memory_state" in labels else [])]
        )
    if label == "device":
        return lambda labels: None if _NO_DISK.fullmatch(labels.get(label, "")) else labels.get(label, "")
    if label:
        return lambda labels: labels.get(label, "")
    if query.mapping.metric in TOKEN_METRICS.values():
        return lambda labels: labels.get("type", "")
    return lambda labels: ""


def devices_of(resources: Iterable[Mapping[str, Any]]) -> Devices:
    """Which volume is which device of which machine, from inventory rows."""
    found = {}
    for row in resources:
        if row["resource_type"] == "volume" and row["attached_to"]:
            device = json.loads(row["details"]).get("device_name")
            if device:
                found[row["attached_to"], device] = row["resource_id"]
    return found


def _instant(written: str) -> int:
    return _micros(datetime.fromisoformat(written))


def _micros(at: datetime) -> int:
    return int(as_utc(at).timestamp()) * 1_000_000
