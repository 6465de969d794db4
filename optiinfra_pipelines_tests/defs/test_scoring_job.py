"""The scoring job as Dagster runs it on the sandbox's judge: where nothing can be judged the run succeeds and says why,
no score is made up, and the judge's key stands nowhere."""

import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
import yaml

from optiinfra_pipelines.defs.partitions import day_key
from optiinfra_pipelines.llm.rubric import LEVELS
from optiinfra_pipelines.sandbox.gate import Fault
from optiinfra_pipelines.sandbox.groq_server import API_KEY, JUDGED_PATH, environment, serve_groq
from optiinfra_pipelines.settings import load_settings
from optiinfra_pipelines.tables import ALL_TABLES
from optiinfra_pipelines.tables.llm import APPLICATION_METRICS, JUDGE_CALLS
from optiinfra_pipelines.warehouse import open_warehouse
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines_tests.clouds.sandbox_cloud import Cloud
from optiinfra_pipelines_tests.llm.interactions import NOON, interaction, write

KEY = day_key("acme", NOON)
REFUSED = "gsk_canary_refused_by_groq"
INTERACTIONS = 12


@pytest.fixture(scope="module")
def server() -> Iterator[Cloud]:
    with serve_groq() as url:
        yield Cloud(url)


@pytest.fixture
def judge(server: Cloud) -> Iterator[Cloud]:
    httpx.delete(server.url + JUDGED_PATH)
    yield server
    server.heal()


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judge: Cloud) -> Warehouse:
    """A home with one customer, twelve interactions in its warehouse and a judge."""
    connection = {
        "id": "vultr-main",
        "provider": "vultr",
        "collect": ["inventory"],
        "credentials": {"api_key": "X_KEY"},
    }
    customers = {"customers": [{"id": "acme", "name": "Acme", "connections": [connection]}]}
    (tmp_path / "customers.yaml").write_text(yaml.safe_dump(customers))
    monkeypatch.chdir(tmp_path)
    given = {"OPTIINFRA_HOME": str(tmp_path / "home"), "OPTIINFRA_CUSTOMERS": str(tmp_path / "customers.yaml")}
    for name, value in (given | environment(judge.url)).items():
        monkeypatch.setenv(name, value)
    opened = open_warehouse(load_settings())
    opened.create_tables(ALL_TABLES)
    write(opened, [interaction(number, timestamp=NOON + timedelta(minutes=number)) for number in range(INTERACTIONS)])
    return opened


def run(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    from optiinfra_pipelines.definitions import defs

    job = defs.resolve_job_def("scoring_job")
    return job.execute_in_process(instance=instance, partition_key=KEY, raise_on_error=False)


def told(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    """The metadata of each asset that the run materialised."""
    return {
        event.asset_key.path[-1]: {name: each.value for name, each in event.materialization.metadata.items()}
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }


def check(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetCheckEvaluation:
    [found] = [each for each in result.get_asset_check_evaluations() if each.check_name == name]
    return found


def judged_scores(warehouse: Warehouse) -> int:
    rows = warehouse.query(
        f"SELECT count(*) AS scores FROM {warehouse.current(APPLICATION_METRICS)} m WHERE judge_fingerprint <> ''"
    ).to_pylist()
    return int(rows[0]["scores"])


def failed_checks(result: dg.ExecuteInProcessResult) -> list[str]:
    return [each.check_name for each in result.get_asset_check_evaluations() if not each.passed]


def test_a_day_is_scored_and_every_check_passes(warehouse: Warehouse, instance: dg.DagsterInstance) -> None:
    result = run(instance)
    assert (result.success, failed_checks(result)) == (True, [])
    metadata = told(result)
    assert (metadata["scoring_runs"]["evaluated"], metadata["scoring_runs"]["why_not"]) == (True, "")
    assert (metadata["judge_calls"]["judged"], metadata["judge_calls"]["cost_usd"] > 0) == (INTERACTIONS, True)
    assert judged_scores(warehouse) == INTERACTIONS * (len(LEVELS) + 1)


@pytest.mark.parametrize(
    ("changed", "why", "check_passes"),
    [
        ({"LLM_ENABLED": "false"}, "LLM_ENABLED is false", True),
        ({"GROQ_API_KEY": ""}, "GROQ_API_KEY is not set", False),
        ({"LLM_BUDGET_USD_PER_DAY": "0"}, "LLM_BUDGET_USD_PER_DAY", False),
        ({"LLM_BUDGET_USD_PER_RUN": "0"}, "LLM_BUDGET_USD_PER_RUN", False),
        ({"LLM_TOKENS_PER_DAY": "1"}, "of the day's 1 tokens", False),
        ({"GROQ_API_KEY": REFUSED}, "GROQ_API_KEY", False),
        ({"GROQ_MODEL": "nobody/knows"}, "nobody/knows", False),
    ],
    ids=[
        "disabled",
        "no key",
        "budget of the day",
        "budget of the run",
        "limit",
        "refused key",
        "model without a price",
    ],
)
def test_where_nothing_can_be_judged_the_run_succeeds_says_why_and_makes_up_no_score(
    changed: dict[str, str],
    why: str,
    check_passes: bool,
    warehouse: Warehouse,
    instance: dg.DagsterInstance,
    judge: Cloud,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    result = run(instance)
    assert result.success
    standing = told(result)["scoring_runs"]
    assert why in standing["why_not"]
    assert (standing["interactions"], standing["interactions_waiting"]) == (INTERACTIONS, INTERACTIONS)
    assert "interactions_scored" not in standing
    available = check(result, "judge_is_available")
    assert (available.passed, why in str(available.description)) == (check_passes, True)
    assert check(result, "interactions_are_accounted_for").passed
    assert told(result)["application_metrics"]["rows_measured"] > 0  # what needs no judge is measured all the same
    assert judged_scores(warehouse) == 0
    assert httpx.get(judge.url + JUDGED_PATH).json()["total"] == 0


def test_a_day_whose_budget_is_spent_is_not_evaluated_any_further(
    warehouse: Warehouse, instance: dg.DagsterInstance, judge: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_BUDGET_USD_PER_DAY", "0.001")
    monkeypatch.setenv("LLM_CONCURRENCY", "1")
    first = told(run(instance))["scoring_runs"]
    scored, sent = first["interactions_scored"], httpx.get(judge.url + JUDGED_PATH).json()["total"]
    assert 0 < scored < INTERACTIONS
    second = run(instance)
    standing = told(second)["scoring_runs"]
    assert (second.success, standing["interactions_scored"]) == (True, scored)
    assert "the day's budget of 0.001 USD is spent" in standing["why_not"]
    available = check(second, "judge_is_available")
    assert (available.passed, available.severity, str(available.description)) == (
        False,
        dg.AssetCheckSeverity.WARN,
        standing["why_not"],
    )
    assert httpx.get(judge.url + JUDGED_PATH).json()["total"] == sent


def test_a_blocked_judge_is_left_alone_by_the_next_run_which_says_so(
    warehouse: Warehouse, instance: dg.DagsterInstance, judge: Cloud
) -> None:
    judge.break_with(Fault("billing", status=402, times=1_000, match="chat"))
    first = run(instance)
    sent = sum(judge.requests.values())
    assert (first.success, sent > 0) == (True, True)
    second = run(instance)
    standing = told(second)["scoring_runs"]
    assert (second.success, standing["evaluated"], sum(judge.requests.values())) == (True, False, sent)
    assert "not evaluated" in standing["why_not"]
    assert not check(second, "judge_is_available").passed
    assert (judged_scores(warehouse), standing["interactions_waiting"]) == (0, INTERACTIONS)


def test_the_judges_key_stands_in_no_log_event_or_table(
    warehouse: Warehouse,
    instance: dg.DagsterInstance,
    judge: Cloud,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of runs that are refused, that break, and that succeed, at every level of logging."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("LLM_MAX_RETRIES", "0")
    monkeypatch.setenv("GROQ_API_KEY", REFUSED)
    run(instance)
    monkeypatch.setenv("GROQ_API_KEY", API_KEY)
    for fault in (Fault("reset", times=4, match="chat"), Fault("broken_json", times=4, match="chat")):
        judge.break_with(fault)
    run(instance)
    judge.heal()
    run(instance)
    assert judged_scores(warehouse) > 0
    said = capfd.readouterr()
    events = [
        str(entry)
        for record in instance.get_run_records(limit=10)
        for entry in instance.all_logs(record.dagster_run.run_id)
    ]
    held = [str(warehouse.query(f"SELECT * FROM {warehouse.name(table)} t").to_pylist()) for table in ALL_TABLES]
    searched = [said.out, said.err, caplog.text, *events, *held]
    assert len(events) > 50
    assert warehouse.query(f"SELECT * FROM {warehouse.name(JUDGE_CALLS)} c").num_rows > INTERACTIONS
    assert [key for key in (API_KEY, REFUSED) for text in searched if key in text] == []
