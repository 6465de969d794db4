"""An application of the sandbox before its real judge, day after day, until one of the two changes: the monitor's alarm
is called the judge's where another judge answers behind the same name, and the application's where its answers drop."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from optiinfra_pipelines.customers import Connection, Customer
from optiinfra_pipelines.gate.baselines import freeze_now
from optiinfra_pipelines.gate.judging import judge_customer
from optiinfra_pipelines.gate.standing import judge_drift
from optiinfra_pipelines.gate_verdicts import no_drift, no_drop
from optiinfra_pipelines.llm.anchoring import judge_anchors
from optiinfra_pipelines.llm.evaluation import evaluate
from optiinfra_pipelines.llm.interaction import Interaction, Texts
from optiinfra_pipelines.llm.measuring import measure_day
from optiinfra_pipelines.sandbox.groq_server import API_KEY, serve_groq
from optiinfra_pipelines.sandbox.interactions import STREAMS, Corpus, Planted
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.tables.gate import BASELINES
from optiinfra_pipelines.tables.llm import APPLICATION_METRICS
from optiinfra_pipelines.verdicts import Verdict
from optiinfra_pipelines.warehouse.duckdb import DuckDBWarehouse
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import DAY, Window
from optiinfra_pipelines_tests.llm.interactions import write

CORPUS = Corpus(date(2026, 11, 20))
[QUIET] = [
    replace(each, rate=1.5) for each in STREAMS if (each.customer_id, each.cloud) == ("globex", "vultr")
]  # busier than planted: 140 interactions a day
GLOBEX = Customer(
    id="globex",
    name="Globex",
    connections=(Connection.model_validate({"id": "vultr-main", "provider": "vultr", "collect": ["inventory"]}),),
)
BEFORE = 8  # days by one judge: a week until there is a baseline, and one that is held against it
ANCHORED = timedelta(hours=4, minutes=10)  # when the schedule has the anchors scored
STRICTER = -12.0  # points
_DEGRADED = dict(zip("abc", "def", strict=True))  # first digits of case codes: what the judge takes them for


@dataclass(frozen=True)
class Seen:
    """What is concluded at the end of a day: the monitors' rows by metric, and both checks."""

    states: Mapping[str, dict[str, Any]]
    drop: Verdict
    drift: Verdict

    @property
    def causes(self) -> dict[str, str]:
        """Metrics in alarm, and what is said to have caused it."""
        return {metric: row["cause"] for metric, row in self.states.items() if row["alarm"]}


def day(number: int) -> Window:
    """The UTC day so many days after the corpus began."""
    return Window(CORPUS.start + number * DAY, CORPUS.start + (number + 1) * DAY)


def collected(each: Planted, worse: bool) -> Interaction:
    """The interaction as a collector finds it; `worse`: with an answer of the degraded cases, by the same model."""
    answer = each.answer
    if worse:
        answer = answer.replace(f"[case {each.case}]", f"[case {_DEGRADED[each.case[0]]}{each.case[1:]}]")
    return Interaction(
        native_id=str(each.uuid),
        timestamp=each.timestamp,
        model_name=each.model_name,
        texts=Texts(each.system, each.context, each.question, answer),
        application=each.application_id,
        conversation_id=each.conversation_id,
        latency_ms=each.latency_ms,
        error_type=each.error_type,
    )


def live(warehouse: Warehouse, judge: str, number: int, *, worse: bool = False) -> Seen:
    """A UTC day as the schedules would have it: anchors and answers judged by the server at `judge`, and concluded."""
    of = day(number)
    settings = Settings.model_validate(
        # calls are accounted for at the moment they are made: all these days are paid on one
        {"groq_api_key": API_KEY, "groq_base_url": judge, "llm_concurrency": 8}
        | dict.fromkeys(("llm_budget_usd_per_day", "llm_budget_usd_per_run"), Decimal(100))
    )
    assert judge_anchors(warehouse, settings, of.start + ANCHORED).reason is None
    found = [collected(each, worse) for each in CORPUS.interactions((QUIET,), of.start, of.end)]
    write(warehouse, found, customer=GLOBEX.id, collected_at=of.end)
    measure_day(warehouse, GLOBEX, of, of.end)
    evaluated = evaluate(warehouse, settings, GLOBEX, of, of.end)
    assert (evaluated.reason, evaluated.judged) == (None, evaluated.states["scored"])
    states = judge_customer(warehouse, GLOBEX, of, of.end).states
    by_metric = {row["metric_type"]: row for row in states}
    return Seen(by_metric, no_drop(states), no_drift(judge_drift(warehouse, of.end)))


@pytest.fixture(scope="module")
def judge() -> Iterator[str]:
    with serve_groq() as url:
        yield url


@pytest.fixture(scope="module")
def stricter() -> Iterator[str]:
    with serve_groq(drift=STRICTER) as url:
        yield url


@pytest.fixture(scope="module")
def lived(judge: str, duckdb_template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Seen]]:
    """The warehouse after the days before anything changed, and what was seen on each."""
    path = tmp_path_factory.mktemp("lived") / "warehouse.duckdb"
    shutil.copyfile(duckdb_template, path)
    warehouse = DuckDBWarehouse(path, run_id="run-1")
    return path, [live(warehouse, judge, number) for number in range(BEFORE)]


@pytest.fixture
def warehouse(lived: tuple[Path, list[Seen]], tmp_path: Path) -> Warehouse:
    shutil.copyfile(lived[0], tmp_path / "warehouse.duckdb")
    return DuckDBWarehouse(tmp_path / "warehouse.duckdb", run_id="run-1")


def test_while_neither_changes_no_monitor_alarms_and_the_anchors_score_as_at_first(
    lived: tuple[Path, list[Seen]], warehouse: Warehouse
) -> None:
    for seen in lived[1]:
        assert (seen.causes, seen.drop.passed, seen.drift.passed) == ({}, True, True)
    assert lived[1][-1].drop.numbers["monitors"] >= 9
    [baseline] = warehouse.query(
        f"SELECT n, mean FROM {warehouse.current(BASELINES)} b WHERE metric_type = 'quality'"
    ).to_pylist()
    assert baseline["n"] >= 500
    assert baseline["mean"] == pytest.approx(0.87, abs=0.02)


def test_a_judge_swapped_behind_the_same_name_is_called_the_judges(warehouse: Warehouse, stricter: str) -> None:
    swapped = [live(warehouse, stricter, BEFORE + number) for number in range(3)]
    for seen in swapped:
        assert seen.causes["quality"] == "judge"
        assert not {"application", "both"} & set(seen.causes.values())
        assert abs(seen.states["quality"]["change_start"] - day(BEFORE).start) <= timedelta(hours=6)
    last = swapped[-1]
    assert set(last.causes.values()) == {"judge"}
    assert (last.drop.passed, last.drop.severity) == (False, "WARN")
    assert "the judge changed, not the application" in last.drop.sentence
    drift, fingerprint = last.drift, last.states["quality"]["judge_fingerprint"]
    assert (drift.passed, drift.severity) == (False, "ERROR")
    assert drift.sentence.startswith(f"judge {fingerprint} scores ")
    judges = warehouse.query(
        f"SELECT DISTINCT judge_fingerprint AS judge FROM {warehouse.current(APPLICATION_METRICS)} m"
        " WHERE judge_fingerprint <> ''"
    )
    assert judges["judge"].to_pylist() == [fingerprint]  # nothing but the anchors could tell


def test_answers_that_drop_before_the_same_judge_are_called_the_applications(warehouse: Warehouse, judge: str) -> None:
    seen = live(warehouse, judge, BEFORE, worse=True)
    assert seen.causes["quality"] == "application"
    assert not {"judge", "both"} & set(seen.causes.values())
    assert (seen.drop.passed, seen.drop.severity) == (False, "ERROR")
    assert seen.drop.sentence.endswith("the judge's anchors by 0 points (n = 24): the application changed")
    assert seen.drift.passed


def test_once_a_baseline_of_the_new_judge_is_frozen_a_later_drop_is_the_applications(
    warehouse: Warehouse, stricter: str
) -> None:
    for number in range(BEFORE, BEFORE + 2):
        assert live(warehouse, stricter, number).causes["quality"] == "judge"
    frozen = day(BEFORE + 1).end
    assert freeze_now(warehouse, GLOBEX.id, frozen, "another judge", frozen, since=day(BEFORE).start)
    assert live(warehouse, stricter, BEFORE + 2).causes == {}
    seen = live(warehouse, stricter, BEFORE + 3, worse=True)
    assert seen.causes["quality"] == "application"
    assert not {"judge", "both"} & set(seen.causes.values())
    assert (seen.drop.passed, seen.drop.severity) == (False, "ERROR")
