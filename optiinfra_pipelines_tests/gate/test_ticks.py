"""A day judged tick by tick: each goes on from what the one before left, and the rows are those of one go."""

import shutil
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.gate.judging import judge_customer
from optiinfra_pipelines.tables.gate import MONITOR_STATES
from optiinfra_pipelines.warehouse.duckdb import DuckDBWarehouse
from optiinfra_pipelines.windows import DAY
from optiinfra_pipelines_tests.gate.replay import made_rows, write_scores
from optiinfra_pipelines_tests.gate.test_judging import NEW, OLD, START, acme, content, day, judge, rows_of

TODAY, HOUR = START + 6 * DAY, timedelta(hours=1)


def test_ticks_end_in_the_rows_of_one_go_although_scores_came_late_between_them(
    duckdb_warehouse: DuckDBWarehouse, tmp_path: Path
) -> None:
    write_scores(duckdb_warehouse, made_rows(OLD, START, 6 * 24, seed=1))
    judge(duckdb_warehouse, 5)
    shutil.copyfile(duckdb_warehouse.path, tmp_path / "at-once.duckdb")
    at_once = DuckDBWarehouse(tmp_path / "at-once.duckdb")
    rows = [*made_rows(OLD, TODAY, 9, seed=2), *made_rows(NEW, TODAY + 3 * HOUR, 6, drop=0.12, seed=3)]
    moments = [TODAY, *(TODAY + number * HOUR + timedelta(minutes=30) for number in (1, 2, 3, 5, 6, 7, 8))]
    late = list(made_rows(OLD, TODAY + timedelta(minutes=1), 2, seed=4, collected_at=naive_utc(moments[4])))
    for since, until in pairwise(moments):
        seen = [row for row in rows if naive_utc(since) <= row["timestamp"] < naive_utc(until)]
        write_scores(duckdb_warehouse, seen + (late if until == moments[5] else []))
        judge_customer(duckdb_warehouse, acme(), day(6), until)
    write_scores(at_once, [row for row in rows if row["timestamp"] < naive_utc(moments[-1])] + late)
    judge_customer(at_once, acme(), day(6), moments[-1])
    assert content(duckdb_warehouse) == content(at_once)
    alarms = {row["model_name"] for row in rows_of(at_once, MONITOR_STATES) if row["alarm"]}
    assert alarms == {NEW.model_name}
