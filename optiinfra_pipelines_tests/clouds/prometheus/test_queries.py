"""The expressions that a Prometheus is asked: of metrics that exporters have, in the vocabulary's words and units."""

import re
from collections import Counter
from pathlib import Path

import pytest

from optiinfra_pipelines.clouds.prometheus.vocabulary import EXPORTERS, QUERIES, exporter_query
from optiinfra_pipelines.clouds.vocabulary import METRICS
from optiinfra_pipelines.errors import CollectionError


def test_each_query_is_one_statistic_of_a_metric_of_the_vocabulary() -> None:
    assert all(query.statistic in METRICS[query.metric].statistics for query in QUERIES)
    assert set(Counter((query.metric, query.statistic) for query in QUERIES).values()) == {1}


def test_every_expression_looks_back_fifteen_minutes_in_all() -> None:
    for query in QUERIES:
        ranges = set(re.findall(r"\[([0-9]+m(?::1m)?)\]", query.promql))
        assert ranges in ({"15m"}, {"15m:1m"}, {"5m", "10m:1m"}), query


def test_percent_and_not_a_fraction_is_asked_for() -> None:
    for query in QUERIES:
        if query.unit == "percent" and "DCGM_FI_DEV_GPU_UTIL" not in query.promql:  # has percents itself
            assert "100 * " in query.promql


def test_a_machine_that_only_idles_is_not_below_zero_where_rates_are_extrapolated() -> None:
    differences = [query for query in QUERIES if "100 * (1 - " in query.promql]
    assert {query.metric for query in differences} == {"cpu_utilization", "memory_utilization", "storage_utilization"}
    for query in differences:
        assert query.promql.startswith("clamp_max(clamp_min(100 * (1 - ")
        assert query.promql.endswith("), 0), 100)")


def test_vllms_names_are_those_of_a_recorded_answer(data: Path) -> None:
    recorded = set(re.findall(r"^(vllm:\w+)", (data / "llm" / "wire" / "vllm_metrics.txt").read_text(), re.MULTILINE))
    asked = {name for query in EXPORTERS["vllm"] for name in re.findall(r"vllm:\w+", query.promql)}
    assert asked - recorded == {"vllm:gpu_cache_usage_perc"}  # its name before vLLM 0.10


def test_an_exporter_is_asked_with_one_expression_that_a_url_holds() -> None:
    for exporter, queries in EXPORTERS.items():
        promql = exporter_query(exporter, "instance")
        assert promql.count('"metric", "') == len(queries)
        assert promql.count("(") == promql.count(")")
        assert "$resource_label" not in promql
        assert len(promql) < 5000  # written into a URL it stays below the 8 KiB that proxies take


def test_a_resource_label_that_is_no_label_is_refused() -> None:
    with pytest.raises(CollectionError, match="no label's name") as refused:
        exporter_query("node", 'instance"} or vector(1)')
    assert refused.value.kind == "not_configured"
