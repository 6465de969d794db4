"""Rows of the gate's tables: their ids, and writing only what differs from what is there, so that judging the same
scores again changes no byte."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

import pyarrow as pa

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.gate.scores import Label
from optiinfra_pipelines.tables.contract import Table, Type
from optiinfra_pipelines.warehouse.protocol import Params, Warehouse

_NAMESPACE = UUID("b4f6a7e0-6a0a-5a39-8b52-9d7f5a1d3c21")
Row = dict[str, Any]


def row_id(*parts: str | datetime) -> str:
    """UUIDv5 of what a row is about."""
    return str(uuid5(_NAMESPACE, json.dumps([each if isinstance(each, str) else each.isoformat() for each in parts])))


def label_columns(customer_id: str, label: Label, names: Mapping[str, str]) -> Row:
    """The columns that name a label."""
    return {
        "customer_id": customer_id,
        "provider": label.provider,
        "application_id": label.application_id,
        "application_name": names.get(label.application_id, label.application_id),
        "model_name": label.model_name,
        "variant": label.variant,
    }


def as_json(content: Any) -> str:
    """JSON of plain values; ValueError for what it cannot hold, such as NaN."""
    return json.dumps(content, allow_nan=False)


def write_changed(held: Warehouse, table: Table, rows: Sequence[Row], where: str, params: Params, now: datetime) -> int:
    """Write those rows that differ from the stored ones, which `where` finds; how many. `rows` lack collected_at.

    Times come with their zone.
    """
    if not rows:
        return 0
    stored = held.query(f"SELECT * FROM {held.current(table)} t WHERE {where}", params).to_pylist()
    known = {tuple(row[name] for name in table.key): row for row in stored}
    times = [column.name for column in table.columns if column.type is Type.TIMESTAMP]
    written = []
    for row in rows:
        before = known.get(tuple(row[name] for name in table.key))
        if before is None or any(before[name] != value for name, value in row.items()):
            plain = {name: naive_utc(row[name]) for name in times if row.get(name) is not None}
            written.append(row | plain | {"collected_at": naive_utc(now)})
    if written:
        held.upsert(table, pa.Table.from_pylist(written, schema=table.arrow_schema))
    return len(written)
