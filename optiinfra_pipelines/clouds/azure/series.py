"""Answers of Azure Monitor -> tables of the metrics contract. Pure and columnar: lists of values, then Arrow at once.

A point without a value is no data, and no row. Ids differ in case between answers: rows have them in lower case.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

from optiinfra_pipelines.clouds.azure.vocabulary import READINGS
from optiinfra_pipelines.clouds.collecting import collected_schema, naive_utc
from optiinfra_pipelines.tables.cloud import METRICS
from optiinfra_pipelines.windows import WINDOW, Window

_SCHEMA = collected_schema(METRICS["azure"])
_SECONDS = int(WINDOW.total_seconds())


class Clock:
    """Window starts as written -> naive UTC; None for one outside `span` or between two windows."""

    def __init__(self, span: Window) -> None:
        self._span = span
        self._known: dict[str, datetime | None] = {}

    def start(self, written: str) -> datetime | None:
        """The start of the window, where it is one of the span's."""
        if written not in self._known:
            at = datetime.fromisoformat(written)
            inside = self._span.contains(at) and int(at.timestamp()) % _SECONDS == 0
            self._known[written] = naive_utc(at) if inside else None
        return self._known[written]


@dataclass
class _Columns:
    """Rows as lists, in the order of the contract's columns that differ from row to row."""

    columns: dict[str, list[Any]] = field(
        default_factory=lambda: {
            name: []
            for name in (
                *("account_id", "resource_id", "resource_type", "metric_name", "component", "unit", "statistic"),
                *("window_start", "value", "sample_count"),
            )
        }
    )

    def add(self, fixed: Mapping[str, str], starts: list[Any], values: list[float]) -> None:
        """Add one series' points; `fixed` are the columns that they share."""
        for name, value in fixed.items():
            self.columns[name] += [value] * len(values)
        self.columns["window_start"] += starts
        self.columns["value"] += values
        self.columns["sample_count"] += [None] * len(values)

    def table(self, source: str) -> pa.Table:
        count = len(self.columns["value"])
        self.columns |= {"window_seconds": [_SECONDS] * count, "source": [source] * count}
        return pa.table([pa.array(self.columns[each.name], each.type) for each in _SCHEMA], schema=_SCHEMA)


def metric_table(values: Iterable[Mapping[str, Any]], resource_type: str, span: Window) -> pa.Table:
    """Rows from the `values` of metrics:getBatch answers for resources of one type; 15-minute windows of `span`."""
    rows, clock = _Columns(), Clock(span)
    for value in values:
        resource_id = value["resourceid"].lower()
        fixed = {
            "account_id": resource_id.split("/")[2],
            "resource_id": resource_id,
            "resource_type": resource_type,
        }
        for metric in value["value"]:
            wanted = READINGS[resource_type].get(metric["name"]["value"], ())
            for series in metric["timeseries"]:
                dimensions = [str(each["value"]) for each in series.get("metadatavalues") or ()]
                _read(rows, wanted, fixed | {"component": "/".join(dimensions)}, series["data"], clock)
    return rows.table("azure_monitor:getBatch")


def _read(rows: _Columns, wanted: Iterable[Any], fixed: Mapping[str, str], data: list[Any], clock: Clock) -> None:
    timed = [(clock.start(point["timeStamp"]), point) for point in data]
    for reading in wanted:
        name, scale, offset = reading.aggregation, reading.scale, reading.offset
        held = [(at, point[name]) for at, point in timed if at is not None and point.get(name) is not None]
        if held:
            rows.add(
                {**fixed, "metric_name": reading.metric, "unit": reading.unit, "statistic": reading.statistic},
                [at for at, _ in held],
                [offset + scale * number for _, number in held],
            )


def guest_table(answer: Mapping[str, Any], span: Window, wanted: Container[str]) -> pa.Table:
    """Rows from the answer to GUEST_QUERY of the machines with `wanted` ids, columns mapped by name."""
    rows, clock = _Columns(), Clock(span)
    for table in answer.get("tables") or ():
        names = [column["name"] for column in table["columns"]]
        for written in table["rows"]:
            row = dict(zip(names, written, strict=True))
            at = clock.start(row["Window"])
            for statistic in ("average", "maximum"):
                value = row[statistic.capitalize()]
                if at is None or value is None or row["Id"] not in wanted:
                    continue
                fixed = {
                    "account_id": row["Id"].split("/")[2],
                    "resource_id": row["Id"],
                    "resource_type": "machine",
                    "metric_name": row["Metric"],
                    "component": row["Component"],
                    "unit": "percent",
                    "statistic": statistic,
                }
                rows.add(fixed, [at], [float(value)])
                rows.columns["sample_count"][-1] = row["Samples"]
    return rows.table("log_analytics:query")
