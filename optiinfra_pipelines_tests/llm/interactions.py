"""Interactions made for tests, as the collectors would have written them to raw."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from optiinfra_pipelines.llm.interaction import Interaction, Texts, interaction_row
from optiinfra_pipelines.tables.cloud import CloudProvider
from optiinfra_pipelines.tables.llm import LLM_INTERACTIONS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import DAY, Window

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
THE_DAY = Window(NOON.replace(hour=0), NOON.replace(hour=0) + DAY)
SOURCE = "opentelemetry:s3://traces/otlp"


def interaction(number: int, **given: Any) -> Interaction:
    """The `number`-th interaction: one each second from NOON on, of which every word is its own."""
    said = Interaction(
        native_id=f"n-{number}",
        timestamp=NOON + timedelta(seconds=number),
        model_name="llama-3.1-70b-instruct",
        texts=Texts(input=f"What is item {number}?", output=f"Item {number} is a part of the catalogue."),
        application="support-copilot",
        input_tokens=20,
        output_tokens=10,
        latency_ms=500.0,
        finish_reason="stop",
    )
    return replace(said, **given)


def write(
    warehouse: Warehouse,
    found: Sequence[Interaction],
    *,
    customer: str = "acme",
    provider: CloudProvider = "vultr",
    collected_at: datetime = NOON + timedelta(hours=1),
) -> list[str]:
    """Write interactions of one customer; their ids."""
    table = LLM_INTERACTIONS[provider]
    rows = [
        interaction_row(customer, SOURCE, each, each.texts, 0, "test")
        | {
            "customer_id": customer,
            "provider": provider,
            "connection_id": f"{provider}-main",
            "collected_at": collected_at.replace(tzinfo=None),
        }
        for each in found
    ]
    if rows:
        warehouse.upsert(table, pa.Table.from_pylist(rows, schema=table.arrow_schema))
    return [row["interaction_id"] for row in rows]
