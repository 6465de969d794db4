"""`python -m optiinfra_pipelines.llm.evaluation_export acme 2026-10-31 > events.jsonl`: one customer's judged scores of
one UTC day as OpenTelemetry events, one OTLP/JSON request a line, for any backend that holds the traces.

What an event holds is in `evaluation_events.py`.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.llm.evaluation_events import evaluation_events
from optiinfra_pipelines.llm.sampling import interactions, of_span
from optiinfra_pipelines.settings import load_settings
from optiinfra_pipelines.tables.llm import APPLICATION_METRICS
from optiinfra_pipelines.warehouse import open_warehouse
from optiinfra_pipelines.warehouse.protocol import Warehouse, WarehouseError
from optiinfra_pipelines.windows import DAY, Window

_AT_ONCE = timedelta(hours=1)


def judged_scores(warehouse: Warehouse, customer_id: str, day: Window) -> Iterator[dict[str, Any]]:
    """The judged scores of the day with `trace_id`, `span_id` and `response_id` of their interactions, by time."""
    traced = interactions(warehouse, "interaction_id, trace_id, span_id, details AS told", "timestamp")
    start = day.start
    while start < day.end:
        rows = warehouse.query(
            f"SELECT m.*, t.trace_id AS trace_id, t.span_id AS span_id, t.told AS told"
            f" FROM {warehouse.current(APPLICATION_METRICS)} m LEFT JOIN ({traced}) t"
            " ON m.interaction_id = t.interaction_id WHERE customer_id = $customer AND judge_fingerprint <> ''"
            " AND timestamp >= $start AND timestamp < $end ORDER BY timestamp, score_id",
            of_span(customer_id, Window(start, start + _AT_ONCE)),
        )
        for row in rows.to_pylist():
            yield row | {"response_id": json.loads(row.pop("told") or "{}").get("response_id")}
        start += _AT_ONCE


def main(arguments: list[str] | None = None) -> int:
    """Print the events; 0 also where there are none."""
    parser = argparse.ArgumentParser(prog="python -m optiinfra_pipelines.llm.evaluation_export", description=__doc__)
    parser.add_argument("customer", help="customer id, as in customers.yaml")
    parser.add_argument("day", type=lambda day: datetime.fromisoformat(day).replace(tzinfo=UTC), help="2026-10-31")
    options = parser.parse_args(arguments)
    try:
        warehouse = open_warehouse(load_settings())
        rows = judged_scores(warehouse, options.customer, Window(options.day, options.day + DAY))
        for request in evaluation_events(rows):
            print(json.dumps(request, ensure_ascii=False))
    except (CollectionError, WarehouseError) as error:
        print(f"cannot go on: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
