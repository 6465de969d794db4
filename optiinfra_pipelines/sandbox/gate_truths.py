"""Holds what the quality gate concluded against what is planted: the degraded model is rejected, soon and alone, its
owner is asked once to roll back, and the concise variant saves what it saves.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from optiinfra_pipelines.sandbox.interactions import MODEL_AFTER, MODEL_BEFORE, Corpus
from optiinfra_pipelines.tables.gate import COMPARISONS, VERDICTS
from optiinfra_pipelines.warehouse.protocol import Warehouse

MOST_SCORES = 200  # at which 12 points are rejected in 99 of 100 deployments


def gate_differences(warehouse: Warehouse, corpus: Corpus, received: Sequence[dict[str, Any]]) -> Iterator[str]:
    """One sentence for each thing that was concluded otherwise than planted; `received`: the rollback requests."""
    rejected = warehouse.query(
        f"SELECT * FROM {warehouse.current(VERDICTS)} v WHERE verdict = 'REJECT' ORDER BY looked_at"
    ).to_pylist()
    planted = ("acme", "vultr", "support-copilot", MODEL_AFTER)
    for row in rejected:
        found = row["customer_id"], row["provider"], row["application_id"], row["model_name"]
        if found != planted:
            yield f"{' '.join(found)} {row['variant']} was rejected, and nothing is wrong with it: {row['reason']}"
    right = [row for row in rejected if row["model_name"] == MODEL_AFTER]
    if len(right) != 1:
        yield f"{MODEL_AFTER} was rejected {len(right)} times, not once"
    for row in right:
        if row["previous_model"] != MODEL_BEFORE or not row["final"]:
            yield f"{MODEL_AFTER} was held against {row['previous_model']}, final: {row['final']}"
        if row["n"] > MOST_SCORES:
            yield f"{MODEL_AFTER} was rejected after {row['n']} scores only"
        if not corpus.deployed_at < row["looked_at"]:
            yield f"{MODEL_AFTER} was rejected at {row['looked_at']}, before it was deployed"
    asked = [each["body"] for each in received]
    if [(each["customer"], each["model"].get("after")) for each in asked] != [("acme", MODEL_AFTER)]:
        yield f"rollbacks were asked for {len(asked)} times: {[each['model'] for each in asked]}"


def comparison_differences(warehouse: Warehouse, corpus: Corpus) -> Iterator[str]:
    """The newest comparison of the two variants says what the concise one saves, and rejects it not."""
    rows = warehouse.query(
        f"SELECT * FROM {warehouse.current(COMPARISONS)} c WHERE metric_type = 'quality' AND customer_id = 'acme'"
        " AND provider = 'gcp' ORDER BY day DESC LIMIT 1"
    ).to_pylist()
    if not rows:
        yield "control and concise on gcp were not compared"
    for row in rows:
        costs: dict[str, list[float]] = {row["variant_a"]: [], row["variant_b"]: []}
        stream = next(each for each in corpus.streams if each.experiments)
        for each in corpus.interactions((stream,), row["since"], row["seen_until"]):
            if each.input_tokens is not None and each.output_tokens is not None:
                costs[each.variant].append(0.30 * each.input_tokens + 2.50 * each.output_tokens)
        cost_a, cost_b = (sum(costs[row[name]]) / len(costs[row[name]]) for name in ("variant_a", "variant_b"))
        if (row["variant_a"], row["variant_b"], row["cost_unit"]) != ("control", "concise", "USD"):
            yield f"{row['variant_b']} was held against {row['variant_a']} in {row['cost_unit']}"
        if row["verdict"] == "REJECT" or not row["saving_low"] <= 1 - cost_b / cost_a <= row["saving_high"]:
            yield f"concise saves {1 - cost_b / cost_a:.1%}, and it was said: {row['verdict']}, {row['sentence']}"
