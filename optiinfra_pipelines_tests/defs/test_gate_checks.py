"""The gate as Dagster runs it: a rejected deployment is a failed check with its figures and a picture, and the jobs by
which people take part in it do what they say."""

from base64 import b64decode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import dagster as dg
import pytest
import yaml

from optiinfra_pipelines.gate.scores import Label
from optiinfra_pipelines.settings import load_settings
from optiinfra_pipelines.tables import ALL_TABLES
from optiinfra_pipelines.tables.gate import BASELINES, DEPLOYMENTS
from optiinfra_pipelines.warehouse import open_warehouse
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import DAY
from optiinfra_pipelines_tests.defs.conftest import Judged
from optiinfra_pipelines_tests.gate.replay import made_rows, write_anchors, write_scores

START = datetime(2026, 10, 1, tzinfo=UTC)
OLD = Label("vultr", "support-copilot", "model-1", "")
NEW = Label("vultr", "support-copilot", "model-2", "")


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """A home with one customer and ten days of scores of one model."""
    connection = {"id": "vultr-main", "provider": "vultr", "collect": ["inventory"]}
    customers = {"customers": [{"id": "acme", "name": "Acme", "connections": [connection]}]}
    (tmp_path / "customers.yaml").write_text(yaml.safe_dump(customers))
    monkeypatch.chdir(tmp_path)
    given = {"OPTIINFRA_HOME": str(tmp_path / "home"), "OPTIINFRA_CUSTOMERS": str(tmp_path / "customers.yaml")}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    opened = open_warehouse(load_settings())
    opened.create_tables(ALL_TABLES)
    write_scores(opened, made_rows(OLD, START, 10 * 24, seed=1))
    return opened


def told(check: dg.AssetCheckEvaluation) -> dict[str, Any]:
    return {name: value.value for name, value in check.metadata.items()}


def test_a_rejected_deployment_is_an_error_with_its_figures_and_a_picture(warehouse: Warehouse, judged: Judged) -> None:
    write_scores(warehouse, made_rows(NEW, START + 10 * DAY, 24, drop=0.12, seed=2))
    found = judged(START + 10 * DAY)
    check = found["quality_is_not_inferior_to_baseline"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    shown = told(check)
    assert shown["observed"] < shown["baseline"] - shown["margin"]
    assert 0 < shown["lower_bound"] < shown["change"] < shown["upper_bound"]
    assert shown["n"] >= 30
    assert "REJECT of support-copilot on vultr (model-2)" in (check.description or "")
    picture = b64decode(shown["scores"].split("base64,")[1].rstrip(")"))
    assert ElementTree.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"
    drop = found["no_drop_is_seen"]
    assert (drop.passed, drop.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert all(each.passed for name, each in found.items() if name.endswith("follows_contract"))


def test_an_undecided_deployment_warns_how_many_scores_are_missing(warehouse: Warehouse, judged: Judged) -> None:
    write_scores(warehouse, made_rows(NEW, START + 10 * DAY, 2, seed=2))
    check = judged(START + 10 * DAY)["quality_is_not_inferior_to_baseline"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert told(check)["more_needed"] > 0


def test_a_deployment_that_is_non_inferior_passes(warehouse: Warehouse, judged: Judged) -> None:
    write_scores(warehouse, made_rows(NEW, START + 10 * DAY, 24, seed=2))
    assert judged(START + 10 * DAY)["quality_is_not_inferior_to_baseline"].passed


def test_a_stream_without_a_change_passes_every_check(warehouse: Warehouse, judged: Judged) -> None:
    found = judged(START + 9 * DAY)
    assert {name for name, each in found.items() if not each.passed} == set()
    assert {"quality_is_not_inferior_to_baseline", "no_drop_is_seen"} <= found.keys()


def test_a_judge_whose_anchors_moved_is_told_apart_from_one_that_did_not(warehouse: Warehouse) -> None:
    from optiinfra_pipelines.gate.standing import judge_drift
    from optiinfra_pipelines.gate_verdicts import no_drift

    swapped = START + 8 * DAY
    write_anchors(warehouse, START, 8, lambda at, metric: 0.0)
    assert no_drift(judge_drift(warehouse, swapped)).passed
    write_anchors(warehouse, swapped, 6, lambda at, metric: -0.1 * (metric == "quality"))
    verdict = no_drift(judge_drift(warehouse, swapped + 6 * DAY))
    assert (verdict.passed, verdict.severity) == (False, "ERROR")
    assert "scores quality of the anchors" in verdict.sentence
    assert "since 2026-10-09" in verdict.sentence


def test_people_tell_of_a_deployment_and_freeze_baselines_by_jobs(
    warehouse: Warehouse, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optiinfra_pipelines.definitions import defs

    recent = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=30)
    write_scores(warehouse, made_rows(OLD, recent, 24, seed=3))
    deployment = {"customer": "acme", "provider": "vultr", "application": "support-copilot", "model": "model-1"}
    deployment |= {"deployed_at": "2026-10-09T12:00:00+02:00", "note": "prompt v2"}
    for name, op, config in (
        ("tell_deployment_job", "tell_deployment", deployment),
        ("freeze_baselines_job", "freeze_baselines", {"customer": "acme", "note": "by hand"}),
    ):
        run_config = {"ops": {op: {"config": config}}}
        assert defs.resolve_job_def(name).execute_in_process(instance=instance, run_config=run_config).success
    [row] = warehouse.query(f"SELECT * FROM {warehouse.current(DEPLOYMENTS)} d").to_pylist()
    assert (row["deployed_at"], row["note"]) == (datetime(2026, 10, 9, 10, tzinfo=UTC), "prompt v2")
    rows = warehouse.query(f"SELECT * FROM {warehouse.current(BASELINES)} b").to_pylist()
    assert {(row["metric_type"], row["reason"], row["told"]) for row in rows} == {
        (name, "by hand", True) for name in ("quality", "hallucination", "toxicity")
    }
