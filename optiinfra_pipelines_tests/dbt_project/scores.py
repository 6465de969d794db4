"""Scores of an hour as a scoring run would have left them, for the marts: weights, a flagged one, two judges."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from optiinfra_pipelines.tables.llm import APPLICATION_METRICS, JUDGE_CALLS, SCORING_RUNS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines_tests.llm.interactions import NOON, THE_DAY, interaction, write

AT = NOON.replace(tzinfo=None)
# (interaction, score, probability, flagged, judge); of the first judge 0.5 and 1.0 count, of weights 1 and 4
JUDGED = ((0, 0.5, 1.0, False, "a"), (1, 1.0, 0.25, False, "a"), (2, 0.0, 1.0, True, "a"), (0, 0.75, 1.0, False, "b"))


def write_scores(warehouse: Warehouse) -> None:
    """Write three interactions, their scores by two judges, one measure, two calls and how the day stands."""
    ids = write(warehouse, [interaction(number, conversation_id="c-1") for number in range(3)])
    rows = [
        _score(ids[number], number, "quality", score, judge)
        | {"sampling_probability": probability, "flagged": flagged, "judge_call_id": f"call-{number}-{judge}"}
        for number, score, probability, flagged, judge in JUDGED
    ]
    rows += [_score(ids[number], number, "latency_ms", 100.0 * (number + 1), "") for number in range(3)]
    warehouse.upsert(APPLICATION_METRICS, pa.Table.from_pylist(rows, schema=APPLICATION_METRICS.arrow_schema))
    calls = [_call(ids[0], "succeeded", 1, Decimal("0.0001")), _call(ids[1], "failed", 4, Decimal("0.0003"))]
    warehouse.upsert(JUDGE_CALLS, pa.Table.from_pylist(calls, schema=JUDGE_CALLS.arrow_schema))
    standing = {name: 0 for name in SCORING_RUNS.column_names if name.startswith("skipped_")} | {
        "customer_id": "acme",
        "day": THE_DAY.start.replace(tzinfo=None),
        "judge_fingerprint": "a",
        "judge_model": "judge",
        "evaluated": True,
        "collected": 3,
        "scored": 3,
        "failed": 0,
        "waiting": 0,
        "flagged": 1,
        "requests": 5,
        "cost": Decimal("0.0004"),
        "run_id": "run-1",
        "collected_at": AT,
    }
    warehouse.upsert(SCORING_RUNS, pa.Table.from_pylist([standing], schema=SCORING_RUNS.arrow_schema))


def _score(interaction_id: str, number: int, metric: str, score: float, judge: str) -> dict[str, Any]:
    return {
        "score_id": f"{interaction_id}/{metric}/{judge}",
        "timestamp": AT + timedelta(seconds=number),
        "customer_id": "acme",
        "provider": "vultr",
        "connection_id": "vultr-main",
        "application_id": "support-copilot",
        "application_name": "Support copilot",
        "metric_type": metric,
        "score": score,
        "details": "{}",
        "model_name": "llama",
        "metadata": "{}",
        "collected_at": AT,
        "interaction_id": interaction_id,
        "variant": "",
        "conversation_id": "c-1",
        "judge_fingerprint": judge,
        "sampling_probability": 1.0,
        "flagged": False,
    }


def _call(interaction_id: str, status: str, requests: int, cost: Decimal) -> dict[str, Any]:
    return {
        "call_id": f"{interaction_id}/{status}",
        "customer_id": "acme",
        "interaction_id": interaction_id,
        "interaction_timestamp": AT,
        "judge_fingerprint": "a",
        "judge_model": "judge",
        "judge_account": "account",
        "status": status,
        "requests": requests,
        "input_tokens": 1_000 if status == "succeeded" else None,
        "output_tokens": 200 if status == "succeeded" else None,
        "cost": cost,
        "sampling_probability": 1.0,
        "flagged": False,
        "run_id": "run-1",
        "called_at": AT,
        "collected_at": AT,
    }
