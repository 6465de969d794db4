"""Every fault of every cloud's API recovers or is recorded, and the next tick fills the gap once."""

import json
import subprocess
import sys
from collections import Counter
from datetime import datetime
from io import StringIO

import pytest
from rich.console import Console

from optiinfra_pipelines.sandbox.fault_matrix import (
    FAULT_NAMES,
    NAMES,
    Cell,
    Held,
    after_fault,
    judge,
    print_table,
    under_fault,
)

pytestmark = pytest.mark.xdist_group("fault matrix")  # one matrix for all of them
COMMAND = [sys.executable, "-m", "optiinfra_pipelines.sandbox.fault_matrix"]
TRANSIENT = ("throttled", "server_error_500", "connection_reset", "timeout", "truncated_json")
FIRST = datetime(2026, 11, 20)
WHOLE = Held(Counter({("a", "ec2:DescribeInstances"): 1, ("b", "rds:DescribeDBInstances"): 1}), {FIRST: [None]})


@pytest.fixture(scope="module")
def cells() -> dict[tuple[str, str], Cell]:
    return {(each.fault, each.server): each for each in judge(FAULT_NAMES, NAMES)}


def test_no_fault_of_any_server_is_left_out(cells: dict[tuple[str, str], Cell]) -> None:
    assert set(cells) == {(fault, server) for fault in FAULT_NAMES for server in NAMES}
    assert len(cells) == 14 * 5


def test_each_fault_recovers_or_is_recorded_or_is_absent_for_a_reason(cells: dict[tuple[str, str], Cell]) -> None:
    assert {key: each.detail for key, each in cells.items() if each.outcome == "failed"} == {}
    assert all(each.detail for each in cells.values() if each.outcome in ("absent", "recorded"))


def test_what_is_worth_another_try_recovers(cells: dict[tuple[str, str], Cell]) -> None:
    tried = [each for each in cells.values() if each.fault in TRANSIENT]
    assert {each.outcome for each in tried} == {"recovered"}


def test_a_denied_permission_is_recorded_on_every_server(cells: dict[tuple[str, str], Cell]) -> None:
    denied = {each.server: (each.outcome, each.detail.split()[-1]) for each in cells.values() if "denied" in each.fault}
    assert denied == dict.fromkeys(NAMES, ("recorded", "auth"))


def test_without_another_try_the_same_faults_are_recorded_and_their_gaps_filled() -> None:
    found = judge(("server_error_503", "connection_reset"), NAMES, attempts=1)
    assert {each.outcome for each in found} == {"recorded"}, found
    assert {word for each in found for word in each.detail.split() if word not in ("inventory", "metrics", "")} <= {
        "transient",
        "transient;",
    }


def test_the_command_prints_a_table_of_faults_and_servers_and_why_some_are_absent() -> None:
    asked = ["--server", "vultr", "prometheus", "--fault", "throttled", "endless_cursor"]
    ended = subprocess.run([*COMMAND, *asked], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = [line.split() for line in ended.stdout.splitlines()]
    assert ["fault", "vultr", "prometheus"] in lines
    assert ["throttled", "recovered", "recovered"] in lines
    assert ["endless_cursor", "recorded", "-"] in lines
    assert "- endless_cursor of prometheus: one answer holds all: there are no pages" in ended.stdout


def test_the_command_prints_one_json_object_a_line_for_programs() -> None:
    asked = ["--server", "vultr", "--fault", "permission_denied", "clock_skew", "--json"]
    ended = subprocess.run([*COMMAND, *asked], capture_output=True, text=True, check=True)
    denied, skew = map(json.loads, ended.stdout.splitlines())
    assert denied == {
        "fault": "permission_denied",
        "server": "vultr",
        "outcome": "recorded",
        "detail": "inventory auth",
    }
    assert (skew["outcome"], skew["detail"]) == ("absent", "no request carries a time, and nothing is signed")


def test_a_cell_that_failed_says_why_in_the_table() -> None:
    printed = StringIO()
    print_table([Cell("timeout", "aws", "failed", "it [is] wrong")], Console(file=printed, width=120))
    assert "FAILED: it [is] wrong" in printed.getvalue()


@pytest.mark.parametrize(
    ("held", "hit", "wrong"),
    [
        (WHOLE, True, []),
        (Held(Counter(), {FIRST: ["auth"]}), False, ["it failed", "rows of more than one source are lost"]),
        (Held(Counter(), {FIRST: ["none"]}), True, ["it failed without", "rows of more than one source are lost"]),
        (Held(WHOLE.rows - Counter({("a", "ec2:DescribeInstances"): 1}), {FIRST: ["auth"]}), True, []),
        (Held(WHOLE.rows - Counter({("a", "ec2:DescribeInstances"): 1}), {FIRST: [None]}), True, ["it succeeded"]),
        (Held(WHOLE.rows + Counter({("a", "ec2:DescribeInstances"): 1}), {FIRST: [None]}), True, ["1 rows are not"]),
        (Held(WHOLE.rows, {}), True, ["0 windows"]),
    ],
)
def test_under_a_fault_of_one_service_only_its_own_recorded_loss_is_right(
    held: Held, hit: bool, wrong: list[str]
) -> None:
    found = list(under_fault("permission_denied", hit, held, WHOLE))
    assert len(found) == len(wrong)
    assert all(said.startswith(start) for said, start in zip(found, wrong, strict=True))


@pytest.mark.parametrize(
    ("held", "wrong"),
    [
        (Held(WHOLE.rows, {FIRST: ["auth", None]}), []),
        (Held(WHOLE.rows, {FIRST: [None, None]}), ["the window of 00:00 was collected 2 times"]),
        (Held(WHOLE.rows, {FIRST: ["auth"]}), ["the window of 00:00 was collected 0 times"]),
        (Held(WHOLE.rows + WHOLE.rows, {FIRST: [None]}), ["the next tick left the gap"]),
        (Held(Counter(), {FIRST: [None]}), ["the next tick left the gap"]),
    ],
)
def test_after_a_fault_each_window_was_collected_exactly_once(held: Held, wrong: list[str]) -> None:
    found = list(after_fault("metrics", held, WHOLE))
    assert len(found) == len(wrong)
    assert all(said.startswith(start) for said, start in zip(found, wrong, strict=True))
