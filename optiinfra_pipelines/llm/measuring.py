"""What is known of an interaction without a judge: latency, tokens, speed, errors, refusals, as rows of the scores."""

from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.customers import Customer
from optiinfra_pipelines.llm.sampling import parts
from optiinfra_pipelines.llm.scoring import RECORD, score_id
from optiinfra_pipelines.tables.llm import APPLICATION_METRICS, LLM_INTERACTIONS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import Window

MEASURES = {
    "latency_ms": "i.latency_ms",
    "time_to_first_token_ms": "i.time_to_first_token_ms",
    "input_tokens": "i.input_tokens * 1.0",
    "output_tokens": "i.output_tokens * 1.0",
    "total_tokens": "(i.input_tokens + i.output_tokens) * 1.0",
    "tokens_per_second": "CASE WHEN i.latency_ms > 0 THEN i.output_tokens / (i.latency_ms / 1000) END",
    "error": "CASE WHEN i.error_type IS NOT NULL THEN 1.0 ELSE 0.0 END",
    "refusal": "CASE WHEN i.refused THEN 1.0 WHEN NOT i.refused THEN 0.0 END",
}
"""Metric type -> SQL over a row `i` of raw.{p}_llm_interactions; null where the source does not tell."""


def measure_day(warehouse: Warehouse, customer: Customer, day: Window, now: datetime) -> int:
    """Write the measures of the day's interactions that are new, or newer than theirs; the number of rows."""
    written = 0
    with warehouse.session() as held:
        for part in parts(held, customer, day):
            for provider in LLM_INTERACTIONS:
                rows = _rows(held, customer, provider, part, now)
                written += held.upsert(APPLICATION_METRICS, rows) if rows.num_rows else 0
    return written


def _rows(held: Warehouse, customer: Customer, provider: Any, span: Window, now: datetime) -> pa.Table:
    columns = ", ".join(f"i.{name} AS {name}" for name in RECORD)
    measures = ", ".join(f"{sql} AS {name}" for name, sql in MEASURES.items())
    found = held.query(
        f"SELECT {columns}, {measures} FROM {held.current(LLM_INTERACTIONS[provider])} i LEFT JOIN ("
        "SELECT interaction_id AS measured_id, collected_at AS measured_at"
        f" FROM {held.current(APPLICATION_METRICS)} t WHERE customer_id = $customer AND metric_type = 'error'"
        " AND timestamp >= $start AND timestamp < $end) m ON i.interaction_id = m.measured_id"
        " WHERE i.customer_id = $customer AND i.window_start >= $start AND i.window_start < $end"
        " AND (m.measured_id IS NULL OR m.measured_id = '' OR m.measured_at < i.collected_at)",
        {"customer": customer.id, "start": naive_utc(span.start), "end": naive_utc(span.end)},
    )
    parts = []
    for metric in MEASURES:
        told = found.filter(pc.is_valid(found.column(metric)))
        same = {
            "customer_id": customer.id,
            "metric_type": metric,
            "details": "{}",
            "metadata": "{}",
            "collected_at": naive_utc(now),
            "judge_fingerprint": "",
            "judge_call_id": None,
            "sampling_probability": 1.0,
            "flagged": False,
        }
        ids = [score_id(each, metric, "") for each in told.column("interaction_id").to_pylist()]
        made = {"score_id": pa.array(ids, pa.string()), "score": told.column(metric).cast(pa.float64())}
        parts.append(
            pa.table(
                [
                    made[name]
                    if name in made
                    else told.column(name).cast(type)
                    if name in RECORD
                    else pa.repeat(pa.scalar(same[name], type), told.num_rows)
                    for name, type in ((each.name, each.type) for each in APPLICATION_METRICS.arrow_schema)
                ],
                schema=APPLICATION_METRICS.arrow_schema,
            )
        )
    return pa.concat_tables(parts)
