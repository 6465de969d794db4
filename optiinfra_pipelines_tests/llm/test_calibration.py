"""The calibration of a judge, over real HTTP: it finds the errors that the sandbox's judge was told to make, within
its money, and says what it could not do."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pyarrow as pa
import pytest
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st
from scipy.stats import binomtest

from optiinfra_pipelines.defs.quality.calibrate import main
from optiinfra_pipelines.defs.quality.checks import judge_is_calibrated
from optiinfra_pipelines.defs.warehouse_resource import WarehouseResource
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.llm.calibration import (
    ANSWER_FIRST,
    SETTLED_AT_ONCE,
    Calibration,
    Figure,
    calibrate,
    chosen,
    wilson,
)
from optiinfra_pipelines.llm.evaluation import open_limits
from optiinfra_pipelines.llm.interaction import Texts
from optiinfra_pipelines.llm.judge import fingerprint_of
from optiinfra_pipelines.llm.labelled import HALLUCINATION, Labelled, read_labelled
from optiinfra_pipelines.llm.limits import Exhausted
from optiinfra_pipelines.llm.redaction import Redactor
from optiinfra_pipelines.llm.rubric import ORDER, messages
from optiinfra_pipelines.sandbox.gate import Fault
from optiinfra_pipelines.sandbox.groq_server import BROKEN_JSON, JUDGED_PATH, environment, serve_groq
from optiinfra_pipelines.sandbox.judge_rule import Judged, answer_digest
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.tables.llm import JUDGE_CALIBRATIONS, JUDGE_CALLS, SCORING_RUNS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines_tests.clouds.sandbox_cloud import Cloud

NOON = datetime(2026, 11, 20, 12)
# Sensitivities and specificities that the sandbox's judge is told to have; each pair has a seed of its own.
PAIRS = [(0.5 + 0.024 * n, 0.97 - 0.024 * (7 * n % 20)) for n in range(20)]
OF_HALUEVAL = 500  # items for each pair
LEAST_INSIDE = 35  # of 40 intervals at 95 %: fewer would come by chance once in 70 times
CUSTOMERS = """
customers:
  - id: acme
    name: Acme
    redact: {TICKET: "T-[0-9]{5}"}
    connections:
      - {id: vultr-main, provider: vultr, collect: [inventory]}
"""


def made(count: int) -> list[Labelled]:
    """Answers of which no two are alike, every third one with a hallucination."""
    return [
        Labelled(
            f"{number}",
            Texts(input=f"What is item {number}?", output=f"Item {number} is a part of the catalogue."),
            {HALLUCINATION: number % 3 == 0},
        )
        for number in range(count)
    ]


def planted(folder: Path, items: Sequence[Labelled]) -> Path:
    """The sandbox's file of labels, by the answers as the judge is sent them."""
    path, redactor = folder / "labels.jsonl", Redactor()
    with path.open("w") as lines:
        for item in items:
            sent = Judged.read(messages(redactor.redact(item.texts)[0], "0")[-1]["content"])
            label = {HALLUCINATION: 0.9 if item.labels[HALLUCINATION] else 0.1}
            lines.write(json.dumps({"answer_sha256": sent.digest, "scores": label}) + "\n")
    return path


@contextmanager
def judging(monkeypatch: pytest.MonkeyPatch, labels: Path, **rule: float) -> Iterator[Cloud]:
    with serve_groq(labels=labels, **rule) as url:
        for name, value in environment(url).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("LLM_CONCURRENCY", "4")
        yield Cloud(url)


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """A judge that makes no errors on `made(400)`."""
    with judging(monkeypatch, planted(tmp_path, made(400))) as server:
        yield server


def run(warehouse: Warehouse, items: Sequence[Labelled], repeat: float = 0.0, **settings: Any) -> Calibration:
    return calibrate(
        warehouse,
        Settings(**settings),
        items,
        dataset="made.jsonl",
        redactor=Redactor(),
        repeat=repeat,
        seconds=60,
    )


def figure(of: Calibration, name: str, metric: str = HALLUCINATION) -> Figure:
    [found] = [each for each in of.figures if (each.metric_type, each.figure) == (metric, name)]
    return found


def holds(interval: Figure, truth: float) -> bool:
    assert interval.lower is not None
    assert interval.upper is not None
    return interval.lower <= truth <= interval.upper


def near(measured: Figure, truth: float) -> bool:
    """Whether a single draw lies where 999 of 1000 do."""
    return abs(measured.value - truth) <= 3.3 * math.sqrt(truth * (1 - truth) / measured.n)


def rows(warehouse: Warehouse, table: Any) -> list[dict[str, Any]]:
    return warehouse.query(f"SELECT * FROM {warehouse.current(table)} t").to_pylist()


def test_sensitivity_and_specificity_of_twenty_judges_lie_in_their_intervals(
    data: Path, tmp_path: Path, duckdb_warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = read_labelled(data / "llm" / "halueval" / "general_data_visible.jsonl").items
    labels = planted(tmp_path, items)
    inside = 0
    for seed, (sensitivity, specificity) in enumerate(PAIRS):
        with judging(monkeypatch, labels, sensitivity=sensitivity, specificity=specificity, seed=seed):
            done = run(duckdb_warehouse, chosen(items, OF_HALUEVAL, seed), llm_budget_usd_per_day=Decimal(100))
        assert (done.judged, done.stopped) == (OF_HALUEVAL, "")
        assert figure(done, "sensitivity").n == figure(done, "specificity").n == OF_HALUEVAL / 2
        inside += holds(figure(done, "sensitivity"), sensitivity) + holds(figure(done, "specificity"), specificity)
    print(f"{inside} of {2 * len(PAIRS)} intervals at 95 % hold the truth")
    assert inside >= LEAST_INSIDE


def test_the_figures_of_a_small_labelled_set_are_those_planted_and_stand_in_the_warehouse(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = made(400)
    with judging(monkeypatch, planted(tmp_path, items), sensitivity=0.8, specificity=0.9, seed=1) as server:
        done = run(warehouse, items, repeat=0.25)
        told = httpx.get(server.url + JUDGED_PATH).json()
    assert (done.items, done.judged, done.requests, done.stopped) == (400, 400, 600, "")
    assert told["total"] == 600
    assert near(figure(done, "sensitivity"), 0.8)
    assert near(figure(done, "specificity"), 0.9)
    assert (figure(done, "sensitivity").n, figure(done, "specificity").n) == (134, 266)
    assert (figure(done, "failed").value, figure(done, "failed").n) == (0, 400)
    for metric in (HALLUCINATION, "quality"):
        assert (figure(done, "self_agreement", metric).value, figure(done, "self_agreement", metric).n) == (1, 100)
        assert (figure(done, "order_sensitivity", metric).value, figure(done, "order_sensitivity", metric).n) == (
            0,
            100,
        )
    written = rows(warehouse, JUDGE_CALIBRATIONS)
    assert {(row["metric_type"], row["figure"], row["value"], row["n"]) for row in written} == {
        (each.metric_type, each.figure, each.value, each.n) for each in done.figures
    }
    assert {(row["calibration_id"], row["judge_fingerprint"], row["dataset"]) for row in written} == {
        (done.calibration_id, fingerprint_of(Settings(), Redactor().version), "made.jsonl")
    }


def test_the_price_is_what_the_judge_billed_and_counts_towards_the_day(warehouse: Warehouse, judge: Cloud) -> None:
    done = run(warehouse, made(40), repeat=0.5)
    used = httpx.get(judge.url + JUDGED_PATH).json()["usage"]
    uncached = used["prompt_tokens"] - used["cached_tokens"]
    billed = uncached * Decimal("0.075") + used["cached_tokens"] * Decimal("0.0375")
    assert done.cost == (billed + used["completion_tokens"] * Decimal("0.30")) / 1_000_000 > 0
    calls = rows(warehouse, JUDGE_CALLS)
    assert len(calls) == used["completions"] == 80
    assert sum(row["cost"] for row in calls) == done.cost
    assert {row["customer_id"] for row in calls} == {""}
    assert {row["interaction_id"] for row in calls} == {f"calibration:made.jsonl:{number}" for number in range(40)}
    price = figure(done, "price_per_1000")
    assert (price.lower, price.upper, price.n) == (None, None, 40)
    assert price.value == pytest.approx(float(done.cost) / 80 * 1000, rel=0.15)
    limits = open_limits(warehouse, Settings(llm_budget_usd_per_day=done.cost), datetime.now(UTC))
    with pytest.raises(Exhausted, match="the day's budget"):
        limits.reserve(1, Decimal("0.000001"), limits.clock() + 60)


@pytest.mark.parametrize(("noise", "agreement", "change"), [("repeat_noise", 0.8, 0.2), ("order_noise", 1.0, 0.2)])
def test_agreement_with_itself_and_sensitivity_to_order_are_those_planted(
    duckdb_warehouse: Warehouse,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    noise: str,
    agreement: float,
    change: float,
) -> None:
    """Fresh noise in 40 % of the repetitions, and a call that is right by halves: one in five changes. What a
    repetition alone would change changes in another order too."""
    items = made(250)
    rule = {"sensitivity": 0.5, "specificity": 0.5, noise: 0.4, "seed": 2}
    with judging(monkeypatch, planted(tmp_path, items), **rule):
        done = run(duckdb_warehouse, items, repeat=1.0)
    assert figure(done, "self_agreement").n == figure(done, "order_sensitivity").n == 250
    assert near(figure(done, "self_agreement"), agreement)
    assert near(figure(done, "order_sensitivity"), change)


def test_another_order_changes_the_order_of_the_judged_parts_and_nothing_else() -> None:
    texts = Texts("Be short.", "Canberra is the capital.", "Capital?", "<b>Sydney</b>")
    usual, reordered = messages(texts, "0f"), messages(texts, "0f", ANSWER_FIRST)
    assert usual == messages(texts, "0f", ORDER)
    assert (Judged.read(usual[1]["content"]).keys, Judged.read(reordered[1]["content"]).keys) == (ORDER, ANSWER_FIRST)
    assert sorted(usual[1]["content"]) == sorted(reordered[1]["content"])
    assert usual[0] == reordered[0]


def test_answers_that_are_unfit_are_counted_and_left_out_of_the_shares(warehouse: Warehouse, judge: Cloud) -> None:
    judge.break_with(Fault(kind=BROKEN_JSON, match="/chat/completions", times=6))
    done = run(warehouse, made(60), llm_max_retries=0)
    assert (done.judged, done.stopped) == (54, "")
    assert (figure(done, "failed").value, figure(done, "failed").n) == (0.1, 60)
    assert figure(done, "sensitivity").n + figure(done, "specificity").n == 54
    statuses = [row["status"] for row in rows(warehouse, JUDGE_CALLS)]
    assert (statuses.count("failed"), statuses.count("succeeded")) == (6, 54)


def test_a_spent_budget_ends_with_what_was_measured_and_says_so(warehouse: Warehouse, judge: Cloud) -> None:
    budget = Decimal("0.02")
    done = run(warehouse, made(400), repeat=0.2, llm_budget_usd_per_run=budget)
    assert "LLM_BUDGET_USD_PER_RUN" in done.stopped
    assert 0 < done.judged < 400
    assert done.cost <= budget
    assert figure(done, "sensitivity").n + figure(done, "specificity").n == done.judged
    assert not [each for each in done.figures if each.figure in ("self_agreement", "order_sensitivity")]
    assert len(rows(warehouse, JUDGE_CALIBRATIONS)) == len(done.figures)
    nothing = run(warehouse, made(40), llm_budget_usd_per_day=done.cost)
    assert "LLM_BUDGET_USD_PER_DAY" in nothing.stopped
    assert (nothing.judged, nothing.requests, nothing.figures) == (0, 0, ())


def test_a_judge_that_is_blocked_or_down_is_not_asked_again_and_again(
    duckdb_warehouse: Warehouse, judge: Cloud
) -> None:
    judge.break_with(Fault(status=401, match="/chat/completions", times=1_000))
    refused = run(duckdb_warehouse, made(100))
    assert "check GROQ_API_KEY" in refused.stopped
    assert (refused.judged, refused.figures) == (0, ())
    judge.heal()
    judge.break_with(Fault(status=500, match="/chat/completions", times=1_000))
    down = run(duckdb_warehouse, made(100), llm_max_retries=0)
    assert "500" in down.stopped
    assert down.requests < 20
    assert (down.judged, down.figures, rows(duckdb_warehouse, JUDGE_CALIBRATIONS)) == (0, (), [])


def test_a_calibration_that_is_broken_off_asks_no_more_and_its_money_is_counted(
    duckdb_warehouse: Warehouse, judge: Cloud
) -> None:
    def break_off(done: int, wanted: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(
            duckdb_warehouse,
            Settings(),
            made(400),
            dataset="made.jsonl",
            redactor=Redactor(),
            repeat=1.0,
            seconds=60,
            progress=break_off,
        )
    assert SETTLED_AT_ONCE <= httpx.get(judge.url + JUDGED_PATH).json()["total"] < 400
    assert len(rows(duckdb_warehouse, JUDGE_CALLS)) == SETTLED_AT_ONCE


@pytest.mark.usefixtures("judge")
def test_without_a_key_or_where_the_judge_is_disabled_nothing_is_asked(
    duckdb_warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_ENABLED", "false")
    with pytest.raises(CollectionError, match="LLM_ENABLED is false"):
        run(duckdb_warehouse, made(3))
    monkeypatch.setenv("LLM_ENABLED", "true")
    monkeypatch.setenv("GROQ_API_KEY", "")
    with pytest.raises(CollectionError, match="GROQ_API_KEY"):
        run(duckdb_warehouse, made(3))
    assert rows(duckdb_warehouse, JUDGE_CALLS) == []


def test_the_judge_sees_texts_redacted_as_in_production(duckdb_warehouse: Warehouse, judge: Cloud) -> None:
    item = Labelled("1", Texts(input="Who?", output="Write to jane.doe@example.com."), {HALLUCINATION: False})
    run(duckdb_warehouse, [item])
    told = httpx.get(judge.url + JUDGED_PATH).json()["answers"]
    assert list(told) == [answer_digest("Write to [EMAIL_1].")]


def test_a_sample_has_as_many_of_each_label_as_there_are_and_is_the_same_each_time() -> None:
    items = made(90)
    sample = chosen(items, 40, seed=1)
    assert [sum(each.labels[HALLUCINATION] is label for each in sample) for label in (True, False)] == [20, 20]
    assert sample == chosen(list(reversed(items)), 40, seed=1)
    assert sample != chosen(items, 40, seed=2)
    many = chosen(items, 80, seed=1)
    assert sum(each.labels[HALLUCINATION] for each in many) == 30
    assert len({each.id for each in many}) == 80
    everything = chosen(items, None, seed=1)
    assert sorted(everything, key=lambda each: int(each.id)) == items
    assert 5 <= sum(each.labels[HALLUCINATION] for each in everything[:30]) <= 15


@hypothesis_given(st.integers(1, 5_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_intervals_are_wilsons(of: tuple[int, int]) -> None:
    hits, n = of
    expected = binomtest(hits, n).proportion_ci(0.95, "wilson")
    assert wilson(hits, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= wilson(hits, n)[0] <= hits / n <= wilson(hits, n)[1] <= 1


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the product with an instance of Dagster, and a labelled file in it."""
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text("")
    monkeypatch.setenv("OPTIINFRA_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    with (tmp_path / "made.jsonl").open("w") as lines:
        for item in made(60):
            label = "yes" if item.labels[HALLUCINATION] else "no"
            said = {"user_query": item.texts.input, "chatgpt_response": item.texts.output, HALLUCINATION: label}
            lines.write(json.dumps({"ID": item.id, **said}) + "\n")
        lines.write("canary\n")
    return tmp_path


@pytest.mark.usefixtures("judge")
def test_the_command_prints_its_figures_names_bad_lines_and_shows_them_at_the_asset(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(home / "made.jsonl"), "--limit", "30", "--repeat", "0.5", "--dataset", "catalogue"]) == 0
    said = capsys.readouterr()
    assert "1 lines are left out" in said.err
    assert "made.jsonl:61: no JSON" in said.err
    assert "30 of 30 answers judged; 60 requests cost" in said.out
    assert "sensitivity" in said.out
    assert "100.0%" in said.out
    with dg.DagsterInstance.get() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(["quality", "judge_calibrations"]))
    assert event is not None
    assert event.asset_materialization is not None
    shown = event.asset_materialization.metadata
    assert shown["hallucination_sensitivity"].value == shown["hallucination_self_agreement"].value == 1.0
    assert (shown["dataset"].value, shown["judged"].value) == ("catalogue", 30)
    figures = shown["figures"]
    assert isinstance(figures, dg.TableMetadataValue)
    assert len(figures.records) == 8
    assert {row["dataset"] for row in rows(WarehouseResource().open(), JUDGE_CALIBRATIONS)} == {"catalogue"}


@pytest.mark.usefixtures("judge")
def test_the_command_says_why_nothing_was_measured(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([str(home / "missing.jsonl")]) == 1
    assert "cannot be read" in capsys.readouterr().err
    monkeypatch.setenv("LLM_BUDGET_USD_PER_RUN", "0")
    assert main([str(home / "made.jsonl")]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "stopped after 0 of 60 answers" in said
    assert "nothing was judged" in said
    with pytest.raises(SystemExit):
        main([str(home / "made.jsonl"), "--repeat", "2"])


@pytest.mark.usefixtures("judge")
def test_a_customer_with_patterns_of_its_own_has_a_judge_of_its_own(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "customers.yaml").write_text(CUSTOMERS)
    monkeypatch.setenv("OPTIINFRA_CUSTOMERS", str(home / "customers.yaml"))
    assert main([str(home / "made.jsonl"), "--limit", "4", "--customer", "acme"]) == 0
    fingerprints = {row["judge_fingerprint"] for row in rows(WarehouseResource().open(), JUDGE_CALIBRATIONS)}
    assert fingerprints == {fingerprint_of(Settings(), Redactor({"TICKET": "T-[0-9]{5}"}).version)}
    assert main([str(home / "made.jsonl"), "--customer", "globex"]) == 1


def standing(customer: str, fingerprint: str, minutes: int, scored: int) -> dict[str, Any]:
    skipped = {name: 0 for name in SCORING_RUNS.column_names if name.startswith("skipped_")}
    return skipped | {
        "customer_id": customer,
        "day": NOON.replace(hour=0),
        "judge_fingerprint": fingerprint,
        "judge_model": "m",
        "evaluated": True,
        "collected": scored,
        "scored": scored,
        **dict.fromkeys(("failed", "waiting", "flagged", "requests"), 0),
        "cost": Decimal(0),
        "run_id": "r",
        "collected_at": NOON + timedelta(minutes=minutes),
    }


def checked() -> dg.AssetCheckEvaluation:
    job = dg.define_asset_job("checks", selection=dg.AssetSelection.checks(judge_is_calibrated))
    defs = dg.Definitions(asset_checks=[judge_is_calibrated], jobs=[job], resources={"warehouse": WarehouseResource()})
    with dg.instance_for_test() as instance:  # Dagster asks the newest instance while it resolves: one that is there
        result = defs.resolve_job_def("checks").execute_in_process(instance=instance)
        [evaluation] = result.get_asset_check_evaluations()
        return evaluation


@pytest.mark.usefixtures("judge")
@pytest.mark.parametrize("engine", ["duckdb", "clickhouse"])
def test_the_check_warns_until_the_judge_of_the_newest_scores_was_measured(
    home: Path, engine: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine == "clickhouse":
        request.getfixturevalue("clickhouse_warehouse")
        url = request.getfixturevalue("clickhouse_url")
        monkeypatch.setenv("OPTIINFRA_WAREHOUSE", url.replace("http://", "clickhouse://default@"))
    assert (checked().passed, checked().description) == (True, "nothing was judged yet")
    mine = fingerprint_of(Settings(), Redactor().version)
    found = [
        standing("acme", "0123456789abcdef", minutes=0, scored=5),
        standing("acme", mine, minutes=15, scored=5),
        standing("acme", "fedcba9876543210", minutes=30, scored=0),
    ]
    WarehouseResource().open().upsert(SCORING_RUNS, pa.Table.from_pylist(found, schema=SCORING_RUNS.arrow_schema))
    before = checked()
    assert (before.passed, before.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert mine in (before.description or "")
    assert main([str(home / "made.jsonl"), "--limit", "20"]) == 0
    after = checked()
    assert after.passed
    assert after.metadata["hallucination_sensitivity"].value == 1.0
    assert after.metadata["hallucination_specificity"].value == 1.0
