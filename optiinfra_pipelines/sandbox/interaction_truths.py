"""Holds the interactions and scores of the warehouse against what is planted in the sandbox's corpus: each interaction
once and with its facts, no personal value left, every one scored or skipped for its reason, scores true to the plant.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from math import sqrt
from typing import Any
from uuid import UUID

from optiinfra_pipelines.llm.rubric import LEVELS
from optiinfra_pipelines.sandbox.interactions import Corpus, Planted
from optiinfra_pipelines.tables.llm import APPLICATION_METRICS, LLM_INTERACTIONS, SCORING_RUNS
from optiinfra_pipelines.tables.operations import COLLECTION_RUNS
from optiinfra_pipelines.warehouse.protocol import Warehouse

MOST_LEAKED = 0.01  # of the planted personal values
_DEVIATIONS = 4.5  # by which a mean may be off its plant, with the dozens of means that are looked at
_LEVEL = {metric: 1 / (len(levels) - 1) for metric, levels in LEVELS.items()}
_NO_METADATA = ("invoke", "stream", "diagnostics")  # forms of a record that tell no conversation
_TEXTS = ("input", "output", "system", "context", "details")
_FACTS = (
    *("application_id", "model_name", "variant", "conversation_id", "content_state", "input_tokens", "output_tokens"),
    *("cached_tokens", "reasoning_tokens", "latency_ms", "time_to_first_token_ms", "finish_reason", "error_type"),
)
"""Columns of raw.{p}_llm_interactions that Planted has under the same names."""


def native_id(planted: Planted) -> str:
    """What the interaction is called at its source, by the documents of each: requestId, request_id, CorrelationId,
    trace and span."""
    if planted.cloud == "gcp":
        return str(planted.uuid.int % 10**19)
    if planted.cloud == "vultr":
        return f"{planted.uuid.hex}:{UUID(int=planted.uuid.int ^ (1 << 100)).hex[:16]}"
    return str(planted.uuid)


def interaction_differences(warehouse: Warehouse, corpus: Corpus, published_at: datetime) -> Iterator[str]:
    """One sentence for each thing that the warehouse holds otherwise than planted; none where all is true.

    `published_at`: what was delivered to its log before this must be there, where its window was read.
    """
    read = _windows_read(warehouse)
    planted: dict[tuple[str, str, str], Planted] = {
        (each.customer_id, each.cloud, native_id(each)): each
        for each in corpus.interactions()
        if _window(each) in read[each.customer_id, each.cloud]
    }
    columns = ", ".join(("customer_id", "provider", "native_id", "interaction_id", *_FACTS, *_TEXTS))
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for table in LLM_INTERACTIONS.values():
        for row in warehouse.query(f"SELECT {columns} FROM {warehouse.current(table)} i").to_pylist():
            found[row["customer_id"], row["provider"], row["native_id"]] = row
    for key, each in planted.items():
        if key not in found and each.delivered_at < published_at:
            yield f"interaction {key} of {each.timestamp:%Y-%m-%d %H:%M} was not collected"
    yield from (f"interaction {key} was never planted" for key in found.keys() - planted.keys())
    pairs = [(planted[key], row) for key, row in found.items() if key in planted]
    for each, row in pairs:
        for fact in _FACTS:
            planted_fact = None if fact == "conversation_id" and each.form in _NO_METADATA else getattr(each, fact)
            if not _same(row[fact], planted_fact):
                named = f"{each.cloud} interaction {row['native_id']} ({each.form}): {fact}"
                yield f"{named}: planted {planted_fact}, found {row[fact]}"
    yield from _leaks(pairs)
    yield from _standing(warehouse, len(found))
    by_id = {row["interaction_id"]: each for each, row in pairs}
    yield from _injections(warehouse, by_id)
    yield from _scores(warehouse, by_id)


def _same(found: Any, planted: Any) -> bool:
    if isinstance(planted, float) and isinstance(found, float):
        return abs(found - planted) < 1  # milliseconds: some logs print whole ones
    return bool(found == planted)


def _window(planted: Planted) -> datetime:
    at = planted.timestamp
    return at.replace(minute=at.minute - at.minute % 15, second=0, microsecond=0)


def _windows_read(warehouse: Warehouse) -> dict[tuple[str, str], set[datetime]]:
    rows = warehouse.query(
        f"SELECT DISTINCT customer_id, provider, window_start FROM {warehouse.name(COLLECTION_RUNS)} r"
        " WHERE kind = 'llm_interactions' AND status <> 'failed'"
    ).to_pylist()
    read: dict[tuple[str, str], set[datetime]] = defaultdict(set)
    for row in rows:
        read[row["customer_id"], row["provider"]].add(row["window_start"])
    return read


def _leaks(pairs: list[tuple[Planted, dict[str, Any]]]) -> Iterator[str]:
    values, leaked = 0, Counter[str]()
    for each, row in pairs:
        kept = "\n".join(str(row[name]) for name in _TEXTS)
        for kind, value in each.personal:
            values += 1
            leaked[kind] += value in kept
    if sum(leaked.values()) > MOST_LEAKED * values:
        yield f"{sum(leaked.values())} of {values} personal values were kept: {dict(+leaked)}"


def _standing(warehouse: Warehouse, interactions: int) -> Iterator[str]:
    rows = warehouse.query(f"SELECT * FROM {warehouse.current(SCORING_RUNS)} t").to_pylist()
    collected = sum(row["collected"] for row in rows)
    if collected != interactions:
        yield f"{interactions} interactions lie in raw, and {collected} are accounted for"
    for row in rows:
        parts = [row[name] for name in row if name in ("scored", "failed", "waiting") or name.startswith("skipped_")]
        day = f"{row['customer_id']} {row['day']:%Y-%m-%d}"
        if sum(parts) != row["collected"]:
            yield f"scores of {day}: {row['collected']} collected, and {sum(parts)} scored, failed, skipped or waiting"
        if row["failed"] or row["waiting"]:
            yield f"scores of {day}: {row['failed']} failed, {row['waiting']} waiting: {row['explanation']}"


def _injections(warehouse: Warehouse, planted: Mapping[str, Planted]) -> Iterator[str]:
    """Every planted injection that was judged is flagged, and moved no score by more than a level."""
    rows = warehouse.query(
        f"SELECT interaction_id, metric_type, score, flagged FROM {warehouse.current(APPLICATION_METRICS)} m"
        " WHERE judge_fingerprint <> ''"
    ).to_pylist()
    for row in rows:
        each = planted.get(row["interaction_id"])
        if each is None or not each.injection or row["metric_type"] not in each.scores:
            continue
        if not row["flagged"]:
            yield f"interaction {row['interaction_id']}: its injection ({each.injection}) was not flagged"
        if row["score"] > each.scores[row["metric_type"]] + _LEVEL[row["metric_type"]] + 1e-9:
            yield f"interaction {row['interaction_id']}: its injection moved {row['metric_type']} to {row['score']}"


def _scores(warehouse: Warehouse, planted: Mapping[str, Planted]) -> Iterator[str]:
    """Means by stream, model and metric lie as near to the planted ones as the judge's noise allows."""
    rows = warehouse.query(
        f"SELECT interaction_id, metric_type, score FROM {warehouse.current(APPLICATION_METRICS)} m"
        " WHERE judge_fingerprint <> '' AND NOT flagged"
    ).to_pylist()
    off: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    for row in rows:
        each = planted.get(row["interaction_id"])
        if each is None:
            yield f"interaction {row['interaction_id']} has a score and was never planted"
        elif row["metric_type"] in each.scores:
            stream: tuple[str, str, str, str] = (each.cloud, each.application_id, each.model_name, row["metric_type"])
            off[stream].append(row["score"] - each.scores[row["metric_type"]])
    for key, differences in sorted(off.items()):
        count = len(differences)
        mean = sum(differences) / count
        spread = sqrt(sum((each - mean) ** 2 for each in differences) / count) or 0.5 / sqrt(count)
        if count >= 30 and abs(mean) > max(_DEVIATIONS * spread / sqrt(count), 0.02):
            yield f"{' '.join(key)}: scores are off by {mean:+.3f} on average over {count}"
