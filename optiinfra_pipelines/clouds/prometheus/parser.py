"""From the matrix of a range query to rows of raw metrics. Pure and columnar: decoded answers in, Arrow out.

A series of a host that no inventory row of the connection names is no row: one Prometheus may measure the machines of
several connections or customers, and those of another one are none of this one's.

Source: https://prometheus.io/docs/prometheus/latest/querying/api/#range-queries
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from optiinfra_pipelines.clouds.collecting import collected_schema
from optiinfra_pipelines.clouds.prometheus.vocabulary import METRIC, QUERIES, RESOURCE
from optiinfra_pipelines.tables.contract import Table
from optiinfra_pipelines.windows import WINDOW, Window

SECONDS = int(WINDOW.total_seconds())
_QUERIES = {f"{query.metric}/{query.statistic}": query for query in QUERIES}


class Machine(NamedTuple):
    """What raw metrics say of whose measurement it is."""

    account_id: str
    resource_id: str
    resource_type: str


def machines_by_label(resources: Iterable[Mapping[str, Any]]) -> dict[str, Machine]:
    """Every word by which a label may name a machine -> the machine: its id, its name and its IP addresses
    (`private_ips`, `public_ips` in details), all in lower case. A word that names two machines names none."""
    found: dict[str, Machine] = {}
    twice: set[str] = set()
    for rank in range(3):  # ids before names before addresses: an id is never taken for another machine's name
        of_rank: dict[str, Machine] = {}
        for row in resources:
            if row["resource_type"] == "machine":
                machine = Machine(row["account_id"], row["resource_id"], "machine")
                for word in _words(row)[rank]:
                    if of_rank.setdefault(word.lower(), machine) != machine:
                        twice.add(word.lower())
        found = {word: machine for word, machine in of_rank.items() if word not in twice} | found
    return found


def _words(row: Mapping[str, Any]) -> tuple[list[str], list[str], list[str]]:
    details = row.get("details") or "{}"
    details = json.loads(details) if isinstance(details, str) else details
    addresses = [*(details.get("private_ips") or ()), *(details.get("public_ips") or ())]
    return [row["resource_id"]], [row["name"]] if row.get("name") else [], addresses


def parse_matrix(
    result: Sequence[Mapping[str, Any]], machines: Mapping[str, Machine], span: Window, table: Table, source: str
) -> pa.Table:
    """Rows of `table` from `result`: [{"metric": labels, "values": [[seconds, "value"], ...]}].

    A point at a window's end is of that window; NaN and infinite values are no rows, nor are points outside `span`,
    nor hosts that `machines` does not know (see `unknown_hosts`).
    """
    words: list[tuple[str, ...]] = []
    counts: list[int] = []
    times: list[float] = []
    printed: list[str] = []
    for series in result:
        labels = series["metric"]
        query = _QUERIES.get(labels.get(METRIC, ""))
        machine = machines.get(_host(labels))
        if query is None or machine is None:
            continue
        component = _component(query.component, labels.get(query.component, "") if query.component else "")
        words.append((*machine, query.metric, component, query.unit, query.statistic))
        counts.append(len(series["values"]))
        for at, value in series["values"]:
            times.append(at)
            printed.append(value)
    ends = np.array(times, np.int64)
    values = np.array([float(value) for value in printed], np.float64)
    kept = np.isfinite(values) & (ends > span.start.timestamp()) & (ends <= span.end.timestamp())
    of_series = np.repeat(np.arange(len(counts)), np.array(counts, np.int64))[kept]
    columns = {
        name: pa.array([each[place] for each in words], pa.string()).take(pa.array(of_series))
        for place, name in enumerate(_TEXTS)
    }
    rows = len(of_series)
    columns["window_start"] = pa.array(ends[kept] - SECONDS).cast(pa.timestamp("s")).cast(pa.timestamp("us"))
    columns["window_seconds"] = pa.repeat(pa.scalar(SECONDS), rows)
    columns["value"] = pa.array(values[kept])
    columns["sample_count"] = pa.nulls(rows)
    columns["source"] = pa.repeat(pa.scalar(source), rows)
    schema = collected_schema(table)
    return pa.table([columns[field.name].cast(field.type) for field in schema], schema=schema)


_TEXTS = ("account_id", "resource_id", "resource_type", "metric_name", "component", "unit", "statistic")


def unknown_hosts(result: Iterable[Mapping[str, Any]], machines: Mapping[str, Machine]) -> set[str]:
    """The hosts of series in `result` that `machines` does not know, in lower case; a series without one has none."""
    return {host for series in result if (host := _host(series["metric"])) and host not in machines}


def _host(labels: Mapping[str, str]) -> str:
    return labels.get(RESOURCE, "").strip("[]").lower()


def _component(label: str, value: str) -> str:
    return f"gpu-{value}" if label == "gpu" and value else value


def window_ends(span: Window) -> tuple[datetime, datetime]:
    """Start and end of a range query, both included, whose points are the ends of the windows of `span`."""
    return span.start + WINDOW, span.end
