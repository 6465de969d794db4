"""The benchmarks themselves: each runs, on few rows, and says what it promises to say."""

import json

import pytest

from optiinfra_pipelines_tests.benchmarks.__main__ import BENCHMARKS, main
from optiinfra_pipelines_tests.benchmarks.parsing import ANSWERS

REQUIRED = {
    *("focus_load_duckdb", "focus_load_clickhouse", "focus_load_vs_dlt", "focus_load_vs_pandas"),
    *("focus_load_peak_memory", "cost_marts_build", "costs_daily_query", "code_location_import"),
    "metric_parsing",
    *("judge_concurrency", "judge_peak_memory", "judge_overhead"),
    *("redaction_recall", "redaction_false_alterations"),
    *("gate_false_alarms_n5", "gate_false_alarms_n20", "gate_false_alarms_n50", "gate_delay_12_points_n20"),
    *("gate_delay_5_points_n20", "gate_reject_no_change", "gate_approve_5_points", "gate_reject_12_points_n200"),
    *("gate_96_looks", "gate_7_metrics", "gate_sessions", "gate_day_night", "gate_1000_applications"),
}


def test_every_benchmark_that_was_asked_for_exists() -> None:
    assert {benchmark.name for benchmark in BENCHMARKS} >= REQUIRED


@pytest.mark.parametrize(
    "name", ["focus_load_duckdb", "focus_load_clickhouse", "focus_load_vs", "focus_load_peak_memory"]
)
def test_a_load_benchmark_prints_one_line_of_json_for_each_figure(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--only", name, "--rows", "2000", "--rounds", "1"])
    assert ended.value.code == 0
    figures = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert figures
    assert all(figure["name"].startswith(name) and figure["value"] > 0 for figure in figures)
    assert all(
        set(figure) == {"name", "value", "unit", "better", "baseline", "baseline_value", "ratio"} for figure in figures
    )


def test_the_slowest_of_the_four_metric_parsers_is_the_figure(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--only", "metric_parsing", "--rows", "2000", "--rounds", "1"])
    assert ended.value.code == 0
    slowest, *each = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [figure["name"] for figure in each] == [f"metric_parsing_{source}" for source in ANSWERS]
    assert slowest["value"] == min(figure["value"] for figure in each) > 0


def test_a_benchmark_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--only", "no_such_benchmark"])
    assert ended.value.code == 2
    assert "no benchmark begins with 'no_such_benchmark'" in capsys.readouterr().err


def test_the_benchmarks_of_the_judge_say_time_memory_and_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--only", "judge_", "--rows", "2000", "--rounds", "1"])
    assert ended.value.code == 0
    figures = {figure["name"]: figure for figure in map(json.loads, capsys.readouterr().out.splitlines())}
    assert figures.keys() == {"judge_concurrency", "judge_peak_memory", "judge_overhead"}
    assert figures["judge_concurrency"]["value"] > figures["judge_concurrency"]["baseline_value"] > 0
    assert all(figure["value"] > 0 for figure in figures.values())
