"""Scoring killed at random moments, and two runs of it at once: nothing judged twice but a batch, nothing lost, and no
more spent than the budget."""

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TextIO, cast

import httpx
import pytest

from optiinfra_pipelines.llm.judge import PRICES
from optiinfra_pipelines.llm.rubric import LEVELS
from optiinfra_pipelines.llm.sampling import LEASE
from optiinfra_pipelines.sandbox.groq_server import JUDGED_PATH, environment, serve_groq
from optiinfra_pipelines.tables.llm import APPLICATION_METRICS, JUDGE_CALLS, SCORING_RUNS
from optiinfra_pipelines.warehouse.clickhouse import ClickHouseWarehouse
from optiinfra_pipelines.warehouse.duckdb import DuckDBWarehouse
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import floor_day
from optiinfra_pipelines_tests.llm.interactions import interaction, write
from optiinfra_pipelines_tests.llm.scorer import BATCH

KILLS_DUCKDB, KILLS_CLICKHOUSE = 80, 20
ROUND = 96  # interactions that are new in each round
METRICS = len(LEVELS) + 1
AMPLE = Decimal(1000)
HANGS = 100  # seconds after which a run that nobody was to kill is given up
PRICE = PRICES["openai/gpt-oss-20b"]
DEAREST = PRICE.cost(4_000, 0, 1_024)  # more than any call of these can cost, in USD


class Scorer:
    """The scoring process; each run is a child of its own."""

    def __init__(self, address: str, judge: str) -> None:
        command = [sys.executable, "-m", "optiinfra_pipelines_tests.llm.scorer", address]
        given = {**os.environ, **environment(judge), "LLM_CONCURRENCY": "8"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=given
        )
        self.runs = 0

    def begin(self, now: datetime, budget: Decimal = AMPLE, kill_after: float = HANGS) -> None:
        """Begin a run, to be killed after `kill_after` seconds."""
        self.runs += 1
        line = f"{self.process.pid}-{self.runs} {kill_after} {now.isoformat()} {budget}\n"
        cast(TextIO, self.process.stdin).write(line)

    def ended(self) -> int:
        """The run's exit status, once it has one (9: it was killed)."""
        return int(cast(TextIO, self.process.stdout).readline())


@contextmanager
def scorer(address: str, judge: str) -> Iterator[Scorer]:
    scoring = Scorer(address, judge)
    try:
        yield scoring
    finally:
        scoring.process.communicate()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serve_groq(latency=0.02) as url:
        yield url


@pytest.fixture
def judge(server: str) -> str:
    """URL of a judge that has judged nothing yet."""
    httpx.delete(server + JUDGED_PATH)
    return server


def judged(judge: str) -> tuple[int, Decimal]:
    """How many times the judge has judged since it was fresh, and what all of that cost in USD."""
    told = httpx.get(judge + JUDGED_PATH).json()
    sent, cached, answered = (told["usage"].get(f"{each}_tokens", 0) for each in ("prompt", "cached", "completion"))
    return int(told["total"]), PRICE.cost(sent, cached, answered)


def later() -> datetime:
    """When a run begins that finds the calls of the killed one abandoned."""
    return datetime.now(UTC) + LEASE + timedelta(seconds=1)


def wait_until_quiet(warehouse: Warehouse) -> None:
    """Let a server finish the statements that the killed run had sent whole."""
    sql = "SELECT count() AS n FROM system.processes WHERE position(query, 'system.processes') = 0"
    while warehouse.engine == "clickhouse" and warehouse.query(sql)["n"][0].as_py():
        pass


@dataclass(frozen=True)
class Seen:
    """How the day stands: interactions that have scores, and its calls by status with what is booked for them."""

    scored: int
    calls: Counter[str]
    booked: Decimal


def look(warehouse: Warehouse) -> Seen:
    """What a reader sees; it fails where an interaction has a score twice, or some of them and not the others."""
    with warehouse.session() as held:
        [scores] = held.query(
            "SELECT count(*) AS written, count(DISTINCT concat(interaction_id, metric_type, judge_fingerprint)) AS own,"
            f" count(DISTINCT interaction_id) AS scored FROM {held.current(APPLICATION_METRICS)} s"
        ).to_pylist()
        calls = held.query(
            f"SELECT status, count(*) AS calls, sum(cost) AS usd FROM {held.current(JUDGE_CALLS)} c GROUP BY status"
        ).to_pylist()
    assert scores["written"] == scores["own"] == METRICS * scores["scored"]
    booked = sum((row["usd"] for row in calls), Decimal(0))
    return Seen(scores["scored"], Counter({row["status"]: row["calls"] for row in calls}), booked)


def check_that_all_are_scored(warehouse: Warehouse, interactions: int) -> None:
    """Each interaction has one call that succeeded, and its scores are that call's; nothing is left in flight."""
    seen = look(warehouse)
    assert (seen.scored, seen.calls["succeeded"], seen.calls["in_flight"]) == (interactions, interactions, 0)
    [own] = warehouse.query(
        "SELECT count(*) AS scores, count(DISTINCT s.interaction_id) AS interactions"
        f" FROM {warehouse.current(APPLICATION_METRICS)} s JOIN {warehouse.current(JUDGE_CALLS)} c"
        " ON s.judge_call_id = c.call_id AND s.interaction_id = c.interaction_id WHERE c.status = 'succeeded'"
    ).to_pylist()
    assert (own["scores"], own["interactions"]) == (METRICS * interactions, interactions)
    [standing] = warehouse.query(f"SELECT * FROM {warehouse.current(SCORING_RUNS)} r").to_pylist()
    assert (standing["collected"], standing["scored"], standing["waiting"]) == (interactions, interactions, 0)


def reason(warehouse: Warehouse) -> str | None:
    """Why the last run left something."""
    found: str | None = warehouse.query(f"SELECT reason FROM {warehouse.current(SCORING_RUNS)} r")["reason"][0].as_py()
    return found


def kill_runs(warehouse: Warehouse, address: str, judge: str, kills: int, seed: int) -> None:
    """Round by round: interactions come, runs are killed, one is not; every other round has too little money."""
    draw = random.Random(seed)
    rounds = killed = spent_out = 0
    with scorer(address, judge) as scoring:
        while killed < kills:
            write(warehouse, [interaction(rounds * ROUND + each) for each in range(ROUND)])
            rounds += 1
            budget = look(warehouse).booked + DEAREST * draw.randint(5, 30) if rounds % 2 else AMPLE
            days = {floor_day(later())}
            for _ in range(draw.randint(6, 12)):
                scoring.begin(later(), budget, kill_after=draw.uniform(0.05, 0.8))
                days.add(floor_day(later()))
                killed += scoring.ended() == signal.SIGKILL
                wait_until_quiet(warehouse)
                seen, (times, paid) = look(warehouse), judged(judge)
                assert times - seen.scored <= BATCH * killed
                assert seen.calls["in_flight"] <= BATCH
                assert paid <= budget * len(days) + DEAREST
            scoring.begin(later(), budget)
            assert scoring.ended() == 0
            assert judged(judge)[1] <= budget * len(days) + DEAREST
            spent_out += reason(warehouse) == "budget"
            scoring.begin(later())
            assert scoring.ended() == 0
            check_that_all_are_scored(warehouse, rounds * ROUND)
    assert spent_out


@pytest.mark.xdist_group("killed duckdb scoring")
def test_killing_runs_on_duckdb_scores_each_interaction_once_and_pays_twice_for_a_batch_at_most(
    duckdb_warehouse: DuckDBWarehouse, judge: str
) -> None:
    kill_runs(duckdb_warehouse, str(duckdb_warehouse.path), judge, KILLS_DUCKDB, seed=3)


@pytest.mark.xdist_group("killed clickhouse scoring")
def test_killing_runs_on_clickhouse_scores_each_interaction_once_and_pays_twice_for_a_batch_at_most(
    clickhouse_warehouse: ClickHouseWarehouse, clickhouse_url: str, judge: str
) -> None:
    kill_runs(clickhouse_warehouse, clickhouse_url, judge, KILLS_CLICKHOUSE, seed=4)


def test_two_runs_at_once_share_a_day_and_judge_nothing_twice(duckdb_warehouse: DuckDBWarehouse, judge: str) -> None:
    many = 4 * ROUND  # the file has one opener at a time: who waits for it may find nothing left, or much
    write(duckdb_warehouse, [interaction(each) for each in range(many)])
    path, now = str(duckdb_warehouse.path), datetime.now(UTC)
    with scorer(path, judge) as one, scorer(path, judge) as other:
        one.begin(now)
        other.begin(now)
        assert (one.ended(), other.ended()) == (0, 0)
        one.begin(datetime.now(UTC))
        assert one.ended() == 0
    check_that_all_are_scored(duckdb_warehouse, many)
    assert judged(judge)[0] == many
