"""Interactions out of Vertex AI's request-response log: one BigQuery query a span, read page by page.

What a row says is in `llm/vertex.py`.
https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/request-response-logging
"""

import json
from collections.abc import Iterator
from dataclasses import replace

from optiinfra_pipelines.clouds.collecting import Source
from optiinfra_pipelines.clouds.gcp.bigquery import BigQueryTable
from optiinfra_pipelines.llm.interaction import Found, Interaction
from optiinfra_pipelines.llm.vertex import LATENESS, logged_at, parse
from optiinfra_pipelines.places import LlmSource
from optiinfra_pipelines.windows import Window

# NUMERIC would lose digits as a JSON number. otel_log stays away: only tables of recent setups have it, and it holds
# every text once more, which would be paid for once more
_ROWS = """
SELECT TO_JSON_STRING(STRUCT(
  CAST(request_id AS STRING) AS request_id, logging_time, endpoint, deployed_model_id, model, api_method,
  request_payload, response_payload, full_request, full_response, metadata
)) AS interaction
FROM {table}
WHERE logging_time >= @since AND logging_time < @until
QUALIFY request_id IS NULL OR ROW_NUMBER() OVER (PARTITION BY request_id ORDER BY logging_time) = 1
"""
_PAGE = 1000  # rows; of long ones BigQuery sends fewer, for no page of an answer is larger than 10 MB


def vertex_interactions(source: Source, place: LlmSource, span: Window) -> Iterator[Found]:
    """Every interaction of the table at `place` whose timestamp lies in `span`, each request_id once.

    A request may be logged up to LATENESS after it was made, so logging_time is asked for that much beyond the span.
    It is the one column that is filtered by: where the table is partitioned by it, BigQuery reads, and charges for,
    the days of the span alone, and else the whole table. A row that is no interaction counts by its logging_time.
    CollectionError as of `BigQueryTable.pages`, whose query is accounted for before it is sent.
    """
    table = BigQueryTable(source, place.location, "llm location", place.endpoint_url)
    given = {"since": span.start, "until": span.end + LATENESS}
    for page in table.pages(_ROWS.format(table=table.quoted), given, _PAGE):
        for text in page:
            row = json.loads(text, parse_constant=lambda _: None)
            found = parse(row, place)
            at = found.timestamp if isinstance(found, Interaction) else logged_at(row)
            if at is not None and span.contains(at):
                yield found if isinstance(found, Interaction) else replace(found, at=at)
