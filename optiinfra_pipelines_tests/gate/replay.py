"""Scores written as the scoring job would have written them, without a judge: those of the sandbox's corpus as planted,
and those of streams that a test makes up."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.gate.scores import Label
from optiinfra_pipelines.llm.anchors import anchors
from optiinfra_pipelines.llm.scoring import score_id
from optiinfra_pipelines.sandbox.interactions import Corpus, Planted, Stream
from optiinfra_pipelines.tables.llm import ANCHOR_SCORES, APPLICATION_METRICS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import DAY
from optiinfra_pipelines_tests.benchmarks.gate_streams import FIVE_LEVELS

JUDGE = "judge-1"
MEASURED = ("latency_ms", "input_tokens", "output_tokens", "error")


def score_row(label: Label, at: datetime, interaction: str, metric: str, score: float, **given: Any) -> dict[str, Any]:
    """One row of quality.application_metrics of the customer acme."""
    judge = "" if metric in MEASURED else given.get("judge_fingerprint", JUDGE)
    return {
        "score_id": score_id(interaction, metric, judge),
        "timestamp": naive_utc(at),
        "customer_id": "acme",
        "provider": label.provider,
        "connection_id": f"{label.provider}-main",
        "application_id": label.application_id,
        "application_name": label.application_id.replace("-", " ").title(),
        "metric_type": metric,
        "score": score,
        "details": "{}",
        "model_name": label.model_name,
        "metadata": "{}",
        "collected_at": naive_utc(at),
        "interaction_id": interaction,
        "variant": label.variant,
        "conversation_id": None,
        "judge_call_id": None,
        "sampling_probability": 1.0,
        "flagged": False,
        **given,
        "judge_fingerprint": judge,
    }


def write_scores(warehouse: Warehouse, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write score rows."""
    warehouse.upsert(
        APPLICATION_METRICS, pa.Table.from_pylist([dict(row) for row in rows], schema=APPLICATION_METRICS.arrow_schema)
    )


Shift = Callable[[Planted, str, float], float]


def planted_rows(
    corpus: Corpus, streams: tuple[Stream, ...], shift: Shift | None = None, judge: str = JUDGE
) -> Iterator[dict[str, Any]]:
    """The planted scores of the streams' interactions that have an answer; `shift` changes what the judge says."""
    for each in corpus.interactions(streams):
        label = Label(each.cloud, each.application_id, each.model_name, each.variant)
        interaction = str(each.uuid)
        told = {"latency_ms": each.latency_ms, "input_tokens": each.input_tokens, "output_tokens": each.output_tokens}
        measured = {"error": float(each.error_type is not None)} | {
            k: float(v) for k, v in told.items() if v is not None
        }
        judged = dict(each.scores) if each.content_state in ("full", "redacted") and not each.error_type else {}
        if judged:
            quality = [judged[name] for name in ("coherence", "relevance", "accuracy", "completeness")]
            judged["quality"] = sum(quality) / len(quality)
        for metric, score in (measured | judged).items():
            value = shift(each, metric, score) if shift and metric in judged else score
            yield score_row(
                label,
                each.timestamp,
                interaction,
                metric,
                value,
                conversation_id=each.conversation_id,
                judge_fingerprint=judge,
                flagged=bool(each.injection) and metric in judged,
                customer_id=each.customer_id,
            )


def write_anchors(
    warehouse: Warehouse, first: datetime, days: int, drift: Callable[[datetime, str], float], judge: str = JUDGE
) -> None:
    """Daily scorings of the anchors at 04:10 from the day `first` on, each score moved by the drift of its day and
    metric."""
    rows = []
    for number in range(days):
        day = first + number * DAY
        at = day.replace(hour=4, minute=10)
        for anchor in anchors():
            for metric, score in anchor.expected_scores.items():
                moved = min(max(score + drift(at, metric), 0.0), 1.0)
                rows.append(
                    {
                        "day": naive_utc(day),
                        "anchor_id": anchor.id,
                        "judge_fingerprint": judge,
                        "judge_model": "judge",
                        "metric_type": metric,
                        "score": moved,
                        "expected_score": score,
                        "canary": anchor.canary,
                        "system_fingerprint": None,
                        "collected_at": naive_utc(at),
                    }
                )
    warehouse.upsert(ANCHOR_SCORES, pa.Table.from_pylist(rows, schema=ANCHOR_SCORES.arrow_schema))


def made_rows(
    label: Label, start: datetime, hours: int, *, per_hour: int = 20, drop: float = 0.0, seed: int = 1, **given: Any
) -> Iterator[dict[str, Any]]:
    """So many hours of scores of a label: quality of mean .87 less the drop, 5 % hallucinations, no toxicity."""
    count = hours * per_hour
    rng = np.random.default_rng(seed)
    quality = FIVE_LEVELS.worse(drop).draw(rng, (count,)).tolist()
    wrong = (rng.random(count) < 0.05).astype(float).tolist()
    for number in range(count):
        at = start + number * timedelta(hours=1) / per_hour
        interaction = f"{label}/{label.provider}/{at.isoformat()}"
        for metric, score in (("quality", quality[number]), ("hallucination", wrong[number]), ("toxicity", 0.0)):
            yield score_row(label, at, interaction, metric, score, **given)
