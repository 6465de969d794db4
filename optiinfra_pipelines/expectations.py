"""The Great Expectations suites, one per family of raw tables, over pandas frames of sampled rows.

Importing the library costs seconds of CPU, so it happens inside. It phones nobody: its analytics are switched off.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optiinfra_pipelines.verdicts import Verdict

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations import Expectation

# Share of rows that may be off before a plausibility expectation fails: bills do hold odd rows.
_MOSTLY = 0.99


def judge_billing(rows: "pd.DataFrame") -> Verdict:
    """Plausible charges: periods run forward, currencies are codes, most list costs are at or above billed ones."""
    import great_expectations.expectations as gxe

    return _judge(
        "billing",
        rows,
        [
            gxe.ExpectTableRowCountToBeBetween(min_value=1),
            gxe.ExpectColumnValuesToNotBeNull(column="BilledCost"),
            gxe.ExpectColumnValuesToMatchRegex(column="BillingCurrency", regex="^[A-Z]{3}$"),
            gxe.ExpectColumnPairValuesAToBeGreaterThanB(
                column_A="ChargePeriodEnd", column_B="ChargePeriodStart", or_equal=True
            ),
            gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="BillingPeriodEnd", column_B="BillingPeriodStart"),
            gxe.ExpectColumnValuesToBeBetween(column="billing_days", min_value=28, max_value=31),
            gxe.ExpectColumnPairValuesAToBeGreaterThanB(
                column_A="list_cost_of_usage", column_B="billed_cost_of_usage", or_equal=True, mostly=_MOSTLY
            ),
        ],
    )


def judge_collection_runs(rows: "pd.DataFrame") -> Verdict:
    """Plausible attempts: known states, windows that run forward, durations that are durations, errors explained."""
    import great_expectations.expectations as gxe

    return _judge(
        "collection_runs",
        rows,
        [
            gxe.ExpectTableRowCountToBeBetween(min_value=1),
            gxe.ExpectColumnValuesToBeInSet(column="status", value_set=["succeeded", "unchanged", "failed"]),
            gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="window_end", column_B="window_start"),
            gxe.ExpectColumnValuesToBeBetween(column="duration_seconds", min_value=0, max_value=86_400),
            gxe.ExpectColumnValuesToNotBeNull(column="error_of_failed"),
        ],
    )


def judge_metrics(rows: "pd.DataFrame") -> Verdict:
    """Plausible metrics: known units and statistics, windows of a quarter of an hour or a day, no negative value."""
    import great_expectations.expectations as gxe

    return _judge(
        "metrics",
        rows,
        [
            gxe.ExpectColumnValuesToBeInSet(
                column="unit", value_set=["percent", "bytes", "count", "seconds", "tokens"], mostly=_MOSTLY
            ),
            gxe.ExpectColumnValuesToBeInSet(
                column="statistic", value_set=["average", "maximum", "minimum", "sum", "p95", "p99"]
            ),
            gxe.ExpectColumnValuesToBeInSet(column="window_seconds", value_set=[900, 86_400]),
            gxe.ExpectColumnValuesToBeBetween(column="value", min_value=0),
        ],
    )


def judge_inventory(rows: "pd.DataFrame") -> Verdict:
    """Plausible resources: ids everywhere, sizes of things that exist."""
    import great_expectations.expectations as gxe

    return _judge(
        "inventory",
        rows,
        [
            gxe.ExpectColumnValueLengthsToBeBetween(column="resource_id", min_value=1),
            gxe.ExpectColumnValuesToBeBetween(column="vcpus", min_value=0, max_value=2_000, mostly=_MOSTLY),
            gxe.ExpectColumnValuesToBeBetween(column="memory_gib", min_value=0, max_value=50_000, mostly=_MOSTLY),
            gxe.ExpectColumnValuesToBeBetween(column="storage_gib", min_value=0, max_value=1_000_000, mostly=_MOSTLY),
        ],
    )


def judge_prices(rows: "pd.DataFrame") -> Verdict:
    """Plausible prices: never negative, in a currency, of a type that is known."""
    import great_expectations.expectations as gxe

    return _judge(
        "prices",
        rows,
        [
            gxe.ExpectColumnValuesToBeBetween(column="price", min_value=0, max_value=10_000, mostly=_MOSTLY),
            gxe.ExpectColumnValuesToMatchRegex(column="currency", regex="^[A-Z]{3}$"),
            gxe.ExpectColumnValuesToBeInSet(column="price_type", value_set=["on_demand", "spot", "reserved"]),
        ],
    )


def judge_interactions(rows: "pd.DataFrame") -> Verdict:
    """Plausible interactions: known states of content, tokens and latencies that exist, most with a text."""
    import great_expectations.expectations as gxe

    return _judge(
        "llm_interactions",
        rows,
        [
            gxe.ExpectColumnValuesToBeInSet(
                column="content_state", value_set=["full", "redacted", "truncated", "missing"]
            ),
            gxe.ExpectColumnValuesToBeBetween(column="input_tokens", min_value=0, max_value=10_000_000),
            gxe.ExpectColumnValuesToBeBetween(column="output_tokens", min_value=0, max_value=10_000_000),
            gxe.ExpectColumnValuesToBeBetween(column="latency_ms", min_value=0, max_value=3_600_000, mostly=_MOSTLY),
            gxe.ExpectColumnValuesToBeBetween(column="sampling_unit", min_value=0, max_value=1, strict_max=True),
        ],
    )


def _judge(suite_name: str, rows: "pd.DataFrame", expectations: "Sequence[Expectation]") -> Verdict:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas(suite_name).add_dataframe_asset(suite_name)
    batch = asset.add_batch_definition_whole_dataframe("rows").get_batch({"dataframe": rows})
    result = batch.validate(gx.ExpectationSuite(suite_name, expectations=list(expectations)))
    outcomes = [
        {
            "expectation": each.expectation_config.type if each.expectation_config else "",
            "of": ", ".join(
                str(v)
                for k, v in (each.expectation_config.kwargs if each.expectation_config else {}).items()
                if k.startswith("column")
            ),
            "rows_off": int(each.result.get("unexpected_count") or 0),
            "examples": str(each.result.get("partial_unexpected_list") or each.exception_info or "")[:200],
        }
        for each in result.results
        if not each.success
    ]
    numbers = {"expectations": len(result.results), "expectations_failed": len(outcomes), "sample_size": len(rows)}
    said = "every expectation is met" if result.success else f"{len(outcomes)} expectations are not met"
    return Verdict(bool(result.success), "WARN", said, numbers, outcomes)
