"""Rollback requests over real HTTP: signed, sent once, repeated under the same key, and silent about their secrets."""

import hmac
import json
import logging
import math
import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from werkzeug.wrappers import Request, Response

from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.gate import rollback
from optiinfra_pipelines.gate.rollback import (
    ATTEMPTS,
    EXPIRES,
    LEASE,
    LONGEST_WAIT,
    Requested,
    Rollback,
    Webhook,
    request_rollback,
)
from optiinfra_pipelines.quality.gate import MetricVerdict, Verdict
from optiinfra_pipelines.tables.rollbacks import ROLLBACK_REQUESTS
from optiinfra_pipelines.warehouse.duckdb import DuckDBWarehouse
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines_tests.gate.server import NOON, Clock, Server, served, status

SECRET = "canary-signing-secret"
PATH = "/hooks/canary-token?key=canary-query"
QUALITY = MetricVerdict(
    "quality",
    "REJECT",
    "quality: worse by 12.1 points than the baseline",
    n=412,
    n_sessions=120,
    baseline_n=2_000,
    baseline_sessions=640,
    baseline_mean=0.8712,
    observed=0.7504,
    estimate=0.1208,
    lower=0.0893,
    upper=0.1521,
    margin=0.05,
)
REJECT = Verdict(
    "REJECT", "quality: worse by 12.1 points", True, 9, 412, None, 0.01, 0.05, 0.025, ("judge-1",), (QUALITY,)
)
REJECTED = Rollback(
    customer_id="acme",
    application_id="support-bot",
    deployment_id="support-bot/llama-3.1-8b-q4/2026-11-21T09:00",
    verdict_id="verdict-7",
    judge_fingerprint="judge-1",
    model_before="llama-3.1-8b",
    model_after="llama-3.1-8b-q4",
    variant_before="",
    variant_after="",
    verdict=REJECT,
    run_link="http://127.0.0.1:3000/runs/run-1",
)


@pytest.fixture
def server() -> Iterator[Server]:
    with served(status(202)) as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(warehouse: Warehouse) -> Warehouse:
    warehouse.create_tables([ROLLBACK_REQUESTS])
    return warehouse


@pytest.fixture
def embedded(duckdb_warehouse: DuckDBWarehouse) -> DuckDBWarehouse:
    duckdb_warehouse.create_tables([ROLLBACK_REQUESTS])
    return duckdb_warehouse


def webhook(server: Server, secret: str = SECRET, path: str = PATH) -> Webhook:
    return Webhook(SecretStr(server.url + path), SecretStr(secret))


def ask(
    warehouse: Warehouse, server: Server | None, clock: Clock, rejected: Rollback = REJECTED, secret: str = SECRET
) -> Requested:
    to = webhook(server, secret) if server else None
    return request_rollback(warehouse, rejected, to, clock=clock, sleep=clock.sleep)


def row(warehouse: Warehouse) -> dict[str, Any]:
    [found] = warehouse.query(f"SELECT * FROM {warehouse.current(ROLLBACK_REQUESTS)} r").to_pylist()
    return found


def keys(server: Server) -> set[str]:
    return {each.headers["Idempotency-Key"] for each in server.received}


def test_a_rejected_deployment_is_asked_to_roll_back_once_however_often_it_is_judged(
    store: Warehouse, server: Server, clock: Clock
):
    first = ask(store, server, clock)
    assert (first.status, first.sent, first.attempts, first.http_status) == ("delivered", True, 1, 202)
    for _ in range(3):
        clock.passes(minutes=15)
        later = ask(store, server, clock, replace(REJECTED, verdict_id="verdict-8"))
        assert later == replace(first, sent=False)
    [received] = server.received
    body = json.loads(received.body)
    assert (received.method, received.target) == ("POST", PATH)
    assert (body["customer"], body["application"], body["verdict"]) == ("acme", "support-bot", "REJECT")
    assert body["model"] == {"before": "llama-3.1-8b", "after": "llama-3.1-8b-q4"}
    assert (body["deployment"], body["run"]) == (REJECTED.deployment_id, REJECTED.run_link)
    [figures] = body["figures"]
    assert (figures["observed"], figures["baseline_mean"], figures["lower"], figures["n"]) == (
        0.7504,
        0.8712,
        0.0893,
        412,
    )
    found = row(store)
    assert (found["status"], found["webhook_host"], found["verdict_id"]) == ("delivered", "127.0.0.1", "verdict-7")
    assert (found["requested_at"], found["delivered_at"]) == (NOON, NOON)
    assert found["payload"].encode() == received.body


def test_the_receiver_can_check_who_sent_it_and_when(embedded: DuckDBWarehouse, server: Server, clock: Clock):
    ask(embedded, server, clock)
    [received] = server.received
    timestamp = received.headers["X-Optiinfra-Timestamp"]
    expected = hmac.new(SECRET.encode(), f"{timestamp}.".encode() + received.body, sha256).hexdigest()
    assert received.headers["X-Optiinfra-Signature"] == f"sha256={expected}"
    assert int(timestamp) == NOON.timestamp()


def test_what_the_receiver_could_not_take_is_repeated_as_it_asks_under_the_same_key_and_signed_anew(
    store: Warehouse, server: Server, clock: Clock
):
    server.answers(status(429, {"Retry-After": "7"}), status(503), status(408))
    asked = ask(store, server, clock)
    assert (asked.status, asked.attempts) == ("delivered", 4)
    assert clock.waits[0] == 7
    assert len(keys(server)) == len({each.body for each in server.received}) == 1
    stamps = [each.headers["X-Optiinfra-Timestamp"] for each in server.received]
    assert int(stamps[1]) == NOON.timestamp() + 7
    assert len({each.headers["X-Optiinfra-Signature"] for each in server.received}) == len(set(stamps))


@pytest.mark.parametrize("wait", ["3600", "inf", "nan"])
def test_a_receiver_that_asks_for_a_long_wait_is_left_to_a_later_run(
    embedded: DuckDBWarehouse, server: Server, clock: Clock, wait: str
):
    server.answers(status(429, {"Retry-After": wait}))
    asked = ask(embedded, server, clock)
    assert (asked.status, asked.attempts, asked.http_status, clock.waits) == ("failed", 1, 429, [])
    clock.passes(minutes=15)
    assert ask(embedded, server, clock).status == "delivered"
    assert len(keys(server)) == 1


def test_a_receiver_that_stays_down_is_asked_by_later_runs_and_not_for_ever(
    store: Warehouse, server: Server, clock: Clock
):
    server.otherwise = status(500)
    asked = ask(store, server, clock)
    assert (asked.status, asked.attempts, asked.http_status) == ("failed", ATTEMPTS, 500)
    assert asked.error is not None
    assert "500 Internal Server Error; a later run asks again" in asked.error
    assert max(clock.waits) <= LONGEST_WAIT
    clock.passes(minutes=15)
    assert ask(store, server, clock).attempts == 2 * ATTEMPTS
    server.otherwise = status(200)
    clock.at = NOON + EXPIRES
    expired = ask(store, server, clock)
    assert (expired.status, expired.sent) == ("failed", False)
    assert expired.error is not None
    assert "roll back by hand" in expired.error
    assert ask(store, server, clock) == expired
    assert len(server.received) == 2 * ATTEMPTS


@pytest.mark.parametrize("code", [400, 401, 404, 409, 410])
def test_what_the_receiver_refuses_is_for_a_person_until_address_or_secret_change(
    embedded: DuckDBWarehouse, server: Server, clock: Clock, code: int
):
    server.answers(status(code, body="no hook with canary-token, secret canary-signing-secret"))
    asked = ask(embedded, server, clock)
    assert (asked.status, asked.attempts, asked.http_status) == ("failed", 1, code)
    assert asked.error is not None
    assert asked.error.startswith(f"the rollback request for {REJECTED.deployment_id} of acme/support-bot: 127.0.0.1")
    assert "check address and secret" in asked.error
    clock.passes(hours=1)
    assert not ask(embedded, server, clock).sent
    assert ask(embedded, server, clock, secret="another").status == "delivered"
    assert len(server.received) == 2


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(embedded: DuckDBWarehouse, server: Server, clock: Clock, code: int):
    with served(status(200)) as elsewhere:
        server.answers(status(code, {"Location": f"{elsewhere.url}/?canary-token"}))
        asked = ask(embedded, server, clock)
        assert elsewhere.received == []
    assert (asked.status, asked.http_status) == ("failed", code)
    assert asked.error is not None
    assert "redirects are not followed" in asked.error
    assert elsewhere.url not in asked.error


def test_a_receiver_that_does_not_answer_or_listen_is_asked_again(
    embedded: DuckDBWarehouse, server: Server, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rollback, "TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes connections, says nothing
        there = Webhook(SecretStr(f"http://127.0.0.1:{mute.getsockname()[1]}/"), SecretStr(SECRET))
        asked = request_rollback(embedded, REJECTED, there, clock=clock, sleep=clock.sleep)
    assert (asked.status, asked.attempts, asked.http_status) == ("failed", ATTEMPTS, None)
    assert asked.error is not None
    assert "no answer within 0.3 s" in asked.error
    again = request_rollback(embedded, REJECTED, there, clock=clock, sleep=clock.sleep)
    assert again.error is not None
    assert "cannot be reached (ConnectError)" in again.error
    assert ask(embedded, server, clock).status == "delivered"


def test_of_two_runs_at_one_moment_one_sends(embedded: DuckDBWarehouse, server: Server, clock: Clock):
    with ThreadPoolExecutor(4) as pool:
        asked = list(pool.map(lambda _: ask(embedded, server, clock), range(4)))
    assert [each.sent for each in asked].count(True) == 1
    assert len(server.received) == 1
    assert row(embedded)["status"] == "delivered"


def _ask_from_another_process(path: Path, url: str) -> None:
    there = Webhook(SecretStr(url), SecretStr(SECRET))
    request_rollback(DuckDBWarehouse(path), REJECTED, there, clock=Clock())


def test_a_run_killed_between_sending_and_recording_sends_again_with_the_same_key_and_body(
    embedded: DuckDBWarehouse, server: Server, clock: Clock
):
    def kill(_: Request) -> Response:
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        return Response(status=200)

    server.answers(kill)
    child = multiprocessing.get_context("spawn").Process(
        target=_ask_from_another_process, args=(embedded.path, server.url + PATH)
    )
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert (row(embedded)["status"], row(embedded)["attempts"]) == ("in_flight", 1)
    clock.at = NOON + LEASE - timedelta(seconds=1)
    assert (ask(embedded, server, clock).status, len(server.received)) == ("in_flight", 1)
    clock.passes(seconds=1)
    changed = replace(REJECTED, verdict=replace(REJECT, n=500), run_link="http://127.0.0.1:3000/runs/run-2")
    assert ask(embedded, server, clock, changed).status == "delivered"
    assert [each.body for each in server.received] == [server.received[0].body] * 2
    assert len(keys(server)) == 1
    assert row(embedded)["attempts"] == 2


def test_without_a_webhook_the_request_is_one_line_of_json_once(
    store: Warehouse, server: Server, clock: Clock, capsys: pytest.CaptureFixture[str]
):
    logged = ask(store, None, clock)
    assert (logged.status, logged.attempts, logged.sent) == ("logged", 0, True)
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["deployment"]) == ("rollback_requested", REJECTED.deployment_id)
    assert line["figures"][0]["estimate"] == 0.1208
    assert ask(store, None, clock) == ask(store, server, clock) == replace(logged, sent=False)
    assert (capsys.readouterr().err, server.received) == ("", [])
    assert row(store)["webhook_host"] is None


def test_neither_address_nor_secret_is_in_logs_rows_and_errors(
    embedded: DuckDBWarehouse, server: Server, clock: Clock, caplog: pytest.LogCaptureFixture
):
    server.answers(*[status(500, body=PATH)] * ATTEMPTS, status(401, body=SECRET))
    with caplog.at_level(logging.DEBUG):
        said = [ask(embedded, server, clock), ask(embedded, server, clock)]
        said.append(ask(embedded, server, clock, secret="canary-other"))
    assert said[-1].status == "delivered"
    assert "HTTP Request: POST http://127.0.0.1" in caplog.text
    assert "canary" not in f"{caplog.text}{said}{row(embedded)}{webhook(server)!r}"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://hooks.example.com/canary", "must be https"),
        ("http://127.0.0.1.example.com/canary", "must be https"),
        ("http://localhost.example.com/canary", "must be https"),
        ("http://10.0.0.1/canary", "must be https"),
        ("https://canary:canary@hooks.example.com/", "neither user nor password"),
        ("https://hooks.example.com/#canary", "nor fragment"),
        ("ftp://hooks.example.com/canary", "no address"),
        ("https:///canary", "no address"),
        ("https://[canary/", "no address"),
        ("canary", "no address"),
        ("", "no address"),
    ],
)
def test_an_address_that_would_give_the_request_away_is_refused(url: str, message: str):
    with pytest.raises(CollectionError, match=message) as raised:
        Webhook(SecretStr(url), SecretStr(SECRET))
    assert raised.value.kind == "not_configured"
    assert "canary" not in str(raised.value)


def test_encrypted_addresses_and_loopback_are_taken_and_an_empty_secret_is_not():
    for url in ("https://hooks.example.com/a?b=c", "http://127.0.0.2:8080/", "http://[::1]/x", "http://localhost/x"):
        assert Webhook(SecretStr(url), SecretStr(SECRET)).host in url
    with pytest.raises(CollectionError, match="needs a secret"):
        Webhook(SecretStr("https://hooks.example.com/"), SecretStr(""))


def test_only_a_rejected_deployment_is_rolled_back(embedded: DuckDBWarehouse, server: Server, clock: Clock):
    for verdict in ("APPROVE", "INCONCLUSIVE"):
        with pytest.raises(ValueError, match="is not rejected"):
            ask(embedded, server, clock, replace(REJECTED, verdict=replace(REJECT, verdict=verdict)))
    assert server.received == []


def test_each_deployment_and_judge_has_a_key_of_its_own():
    names = ("customer_id", "application_id", "deployment_id", "judge_fingerprint")
    made = [replace(REJECTED, **{name: "other"}) for name in names]  # type: ignore[arg-type]
    shifted = [
        replace(REJECTED, customer_id="a", application_id="bc"),
        replace(REJECTED, customer_id="ab", application_id="c"),
    ]
    assert len({each.idempotency_key for each in (REJECTED, *made, *shifted)}) == 7
    assert replace(REJECTED, verdict_id="later").idempotency_key == REJECTED.idempotency_key


def test_a_bound_without_end_is_null_in_the_body(embedded: DuckDBWarehouse, server: Server, clock: Clock):
    latency = replace(QUALITY, metric="latency_ms", upper=math.inf, lower=math.nan)
    ask(embedded, server, clock, replace(REJECTED, verdict=replace(REJECT, metrics=(latency,))))
    [figures] = json.loads(server.received[0].body)["figures"]
    assert (figures["upper"], figures["lower"]) == (None, None)


def test_a_clock_that_is_set_back_loses_no_record_of_a_delivery(store: Warehouse, server: Server, clock: Clock):
    def back(_: Request) -> Response:
        clock.passes(hours=-1)
        return Response(status=200)

    server.answers(back)
    assert ask(store, server, clock).status == "delivered"
    assert row(store)["status"] == "delivered"
    assert not ask(store, server, clock).sent
