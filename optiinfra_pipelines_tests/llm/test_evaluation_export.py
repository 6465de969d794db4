"""Scores written out as OpenTelemetry events and read again as they stand in the warehouse."""

import json
from decimal import Decimal

import pyarrow as pa

from optiinfra_pipelines.llm.evaluation_events import evaluation_events, evaluations
from optiinfra_pipelines.llm.evaluation_export import judged_scores
from optiinfra_pipelines.tables.llm import APPLICATION_METRICS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines_tests.dbt_project.scores import AT, write_scores
from optiinfra_pipelines_tests.llm.interactions import THE_DAY, interaction, write

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_each_judged_score_is_an_event_at_the_span_that_it_evaluates(warehouse: Warehouse) -> None:
    write_scores(warehouse)
    [traced] = write(warehouse, [interaction(7, trace_id=TRACE, span_id=SPAN, details={"response_id": "chatcmpl-1"})])
    [score] = warehouse.query(
        f"SELECT * FROM {warehouse.current(APPLICATION_METRICS)} m WHERE judge_fingerprint = 'b'"
    ).to_pylist()
    told = {"score_id": "of-the-traced-one", "interaction_id": traced, "details": '{"level": "right"}', "timestamp": AT}
    rows = pa.Table.from_pylist([score | told | {"collected_at": AT}], schema=APPLICATION_METRICS.arrow_schema)
    warehouse.upsert(APPLICATION_METRICS, rows)
    lines = [json.dumps(each) for each in evaluation_events(judged_scores(warehouse, "acme", THE_DAY))]
    read = [each for line in lines for each in evaluations(json.loads(line))]
    assert len(read) == 5
    assert {each.name for each in read} == {"quality"}
    [at_span] = [each for each in read if each.span_id]
    assert (at_span.trace_id, at_span.span_id, at_span.response_id, at_span.label) == (
        TRACE,
        SPAN,
        "chatcmpl-1",
        "right",
    )
    assert sum(Decimal(str(each.score)) for each in read) == Decimal("3.0")
    assert list(judged_scores(warehouse, "globex", THE_DAY)) == []
