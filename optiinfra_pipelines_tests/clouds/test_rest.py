"""JSON over HTTP: authorised, counted, retried as the provider asks, paged without going round in circles."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx
import pytest

from optiinfra_pipelines.clouds.collecting import Calls, Source
from optiinfra_pipelines.clouds.rest import Api, pages, retry_after
from optiinfra_pipelines.customers import Connection
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.sandbox.gate import FAULTS_PATH, Gate, answer_json

TOKEN = "canary-token-of-acme"


@dataclass
class Service:
    """A service on loopback whose tokens can end; what it was asked, and where."""

    url: str
    good_tokens: set[str]
    asked: list[str] = field(default_factory=list)

    def fault(self, **fault: Any) -> None:
        assert httpx.post(self.url + FAULTS_PATH, json={"match": "/things", **fault}).status_code == 200


def error_body(status: int, environ: Mapping[str, Any]) -> tuple[str, bytes]:
    return "application/json", json.dumps({"error": {"code": status, "message": "as it was asked to"}}).encode()


@pytest.fixture
def service() -> Iterator[Service]:
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log_request(self, *_: Any) -> None:
            """Silence."""

        def connection_dropped(self, *_: Any) -> None:
            self.close_connection = True

    running = Service("", {TOKEN})

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        running.asked.append(environ["PATH_INFO"])
        if environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ") not in running.good_tokens:
            return answer_json(start_response, {"error": {"message": "token expired"}}, 401)
        return answer_json(start_response, {"things": list(range(100)), "price": 0.1})

    server = make_server("127.0.0.1", 0, Gate(application, error_body), threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    running.url = f"http://127.0.0.1:{server.port}"
    yield running
    server.shutdown()
    thread.join()


def source(**settings: Any) -> Source:
    connection = Connection.model_validate(
        {"id": "things", "provider": "vultr", "collect": ["inventory"], "credentials": {"api_key": "KEY"}}
    )
    return Source("acme", connection, {}, **settings)


@pytest.fixture
def ask(service: Service) -> Iterator[Callable[..., Any]]:
    with httpx.Client() as client:

        def asked(of: Source, renewed: str = TOKEN, **api: Any) -> Any:
            def authorize(refused: str) -> Mapping[str, str]:
                return {"Authorization": f"Bearer {renewed if refused else TOKEN}"}

            return Api(of, "things", service.url, client, authorize, **api).get("/things", "ListThings")

        yield asked


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 429, "headers": {"Retry-After": "0"}},
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 503},
        {"kind": "reset"},
        {"kind": "truncate"},
        {"kind": "cut"},
        {"kind": "hang", "seconds": 1.0},
    ],
    ids=lambda fault: str(fault.get("status", fault["kind"])),
)
def test_a_fault_that_passes_is_survived_and_each_try_is_counted(
    service: Service, ask: Callable[..., Any], fault: dict[str, Any]
) -> None:
    service.fault(**fault)
    of = source(timeout=0.5)
    assert len(ask(of)["things"]) == 100
    assert of.calls.made == {("things", "ListThings"): (2, 0, Decimal(0))}


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        ({"kind": "status", "status": 429}, "throttled", "429 as it was asked to"),
        ({"kind": "status", "status": 503}, "transient", "503"),
        ({"kind": "reset"}, "transient", "the connection broke"),
        ({"kind": "cut"}, "malformed", "no whole JSON"),
        ({"kind": "status", "status": 403}, "auth", "check the connection's credentials"),
        ({"kind": "status", "status": 404}, "not_configured", "check accounts and endpoints"),
        ({"kind": "status", "status": 400}, "malformed", "400"),
    ],
    ids=lambda value: str(value.get("status", value["kind"])) if isinstance(value, dict) else "",
)
def test_a_fault_that_stays_says_what_happened_to_whom_and_what_to_do(
    service: Service, ask: Callable[..., Any], fault: dict[str, Any], kind: str, said: str
) -> None:
    service.fault(times=10, **fault)
    with pytest.raises(CollectionError, match=said) as raised:
        ask(source(attempts=2))
    assert raised.value.kind == kind
    assert "acme/things: things ListThings at 127.0.0.1" in str(raised.value)
    assert TOKEN not in str(raised.value)


def test_a_wait_longer_than_a_run_should_last_is_left_to_the_next_run(
    service: Service, ask: Callable[..., Any]
) -> None:
    service.fault(status=429, times=10, headers={"Retry-After": "3600"})
    with pytest.raises(CollectionError, match="asks to wait 3600 s, the next run tries again"):
        ask(source())
    assert service.asked == []


def test_a_token_that_ended_between_two_pages_is_renewed_once(service: Service, ask: Callable[..., Any]) -> None:
    service.good_tokens = {"fresh"}
    assert len(ask(source(), renewed="fresh")["things"]) == 100
    service.good_tokens = set()
    with pytest.raises(CollectionError) as raised:
        ask(source(), renewed="fresh")
    assert raised.value.kind == "auth"


def test_a_call_that_the_budget_does_not_cover_is_never_sent(service: Service) -> None:
    of = source(calls=Calls(Decimal("0.015"), Decimal(1)))
    with httpx.Client() as client:
        api = Api(of, "ce", service.url, client, lambda renew: {"Authorization": f"Bearer {TOKEN}"})
        api.get("/things", "GetCostAndUsage", price=Decimal("0.01"))
        with pytest.raises(CollectionError, match="raise api_budget_usd") as raised:
            api.get("/things", "GetCostAndUsage", price=Decimal("0.01"))
    assert raised.value.kind == "budget"
    assert service.asked == ["/things"]
    assert of.calls.left == Decimal("0.005")


def test_money_is_read_in_its_printed_digits(ask: Callable[..., Any]) -> None:
    assert ask(source(), parse_float=Decimal)["price"] == Decimal("0.1")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "Sat, 21 Nov 2026 10:00:30 GMT", "date": "Sat, 21 Nov 2026 10:00:00 GMT"}, 30.0),
        ({"retry-after": "soon"}, None),
        (
            {
                "x-ms-ratelimit-microsoft.costmanagement-qpu-retry-after": "10",
                "x-ms-ratelimit-microsoft.costmanagement-entity-retry-after": "42",
                "x-ms-ratelimit-microsoft.costmanagement-tenant-retry-after": "15",
            },
            42.0,
        ),
    ],
)
def test_the_longest_wait_that_is_asked_for_counts(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(httpx.Headers(headers)) == seconds


def test_pages_end_where_the_cursor_ends() -> None:
    answers = {None: {"items": [1], "next": "a"}, "a": {"items": [2], "next": "b"}, "b": {"items": [3], "next": ""}}
    assert [page["items"] for page in pages(answers.__getitem__, lambda page: page["next"], "things")] == [
        [1],
        [2],
        [3],
    ]


def test_an_endless_cursor_is_an_error_and_not_an_endless_loop() -> None:
    with pytest.raises(CollectionError, match="sends a page again"):
        list(pages(lambda cursor: {"items": [cursor], "next": "same"}, lambda page: page["next"], "things"))


def test_a_page_that_is_repeated_under_ever_new_cursors_is_an_error() -> None:
    numbers = iter(range(100))
    with pytest.raises(CollectionError, match="sends a page again"):
        list(pages(lambda cursor: {"items": [1], "next": f"c{next(numbers)}"}, lambda page: page["next"], "things"))
