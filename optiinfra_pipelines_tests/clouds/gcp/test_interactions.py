"""The request-response log read by Google's own client from a BigQuery on loopback, whose tables DuckDB holds."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

import duckdb
import pyarrow as pa
import pytest
import sqlglot
from werkzeug.serving import make_server

from optiinfra_pipelines.clouds.collecting import Calls, Source
from optiinfra_pipelines.clouds.gcp.interactions import vertex_interactions
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.llm.interaction import Found, Interaction, Texts, Unreadable
from optiinfra_pipelines.llm.vertex import LATENESS
from optiinfra_pipelines.places import LlmSource
from optiinfra_pipelines.sandbox.gate import Fault, Gate, answer_json, read_body
from optiinfra_pipelines.windows import Window, windows
from optiinfra_pipelines_tests.clouds.gcp.conftest import source_at
from optiinfra_pipelines_tests.clouds.sandbox_cloud import Cloud

SIZE = 52_428_800
PLACE = LlmSource(location="bigquery://acme-llm/logs/gemini", format="vertex")
START = datetime(2026, 11, 19, 10, tzinfo=UTC)
SPAN = Window(START, START + timedelta(minutes=15))
GEMINI = "publishers/google/models/gemini-2.5-flash"
# The columns of the table as Vertex AI makes it, by its documents; NUMERIC of BigQuery holds ids whole
TABLE = """
CREATE TABLE logs.gemini (
  endpoint VARCHAR, deployed_model_id VARCHAR, logging_time TIMESTAMPTZ, request_id DECIMAL(38, 0),
  request_payload VARCHAR[], response_payload VARCHAR[], model VARCHAR, model_version VARCHAR, api_method VARCHAR,
  full_request JSON, full_response JSON, metadata JSON, otel_log JSON
)
"""


class BigQuery:
    """jobs.insert (dry runs), jobs.query and jobs.getQueryResults over one dataset, and tokens for anybody."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self._results: list[list[Any]] = []
        self._database = duckdb.connect()
        self._database.execute("SET TimeZone = 'UTC'; CREATE SCHEMA logs;" + TABLE)

    def log(self, rows: list[dict[str, Any]]) -> None:
        """Let the table hold `rows` and no others."""
        self.asked.clear()
        self._database.execute("DELETE FROM logs.gemini")
        self._database.register("written", pa.Table.from_pylist(rows))
        self._database.execute("INSERT INTO logs.gemini BY NAME SELECT * FROM written")

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        path, body = environ["PATH_INFO"], read_body(environ)
        if path == "/token":
            return answer_json(start_response, {"access_token": "canary", "expires_in": 3599, "token_type": "Bearer"})
        query = {name: values[-1] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
        try:
            return answer_json(start_response, self._answer(path.removeprefix("/bigquery/v2/projects/"), query, body))
        except duckdb.Error as error:
            status = 404 if isinstance(error, duckdb.CatalogException) else 400
            return answer_json(start_response, {"error": {"code": status, "message": str(error)}}, status)

    def _answer(self, path: str, query: dict[str, str], body: bytes) -> dict[str, Any]:
        project, _, rest = path.partition("/")
        asked = json.loads(body or b"{}")
        if rest.startswith("jobs"):  # a dry run, or how a query stands of which more pages are wanted
            if asked:
                self._rows(asked["configuration"]["query"])
            return {
                "kind": "bigquery#job",
                "configuration": asked.get("configuration", {"query": {"query": ""}}),
                "jobReference": {"projectId": project, "jobId": rest.partition("/")[2], "location": "US"},
                "statistics": {"totalBytesProcessed": str(SIZE), "query": {"totalBytesProcessed": str(SIZE)}},
                "status": {"state": "DONE"},
            }
        if rest == "queries":
            self.asked.append(asked)
            self._results.append(self._rows(asked))
            rest, query = f"queries/job_{len(self._results) - 1}", {"maxResults": str(asked["maxResults"])}
        number = int(rest.rpartition("_")[2])
        rows, start, size = self._results[number], int(query.get("pageToken", 0)), int(query["maxResults"])
        return {
            "kind": "bigquery#queryResponse",
            "schema": {"fields": [{"name": "interaction", "type": "STRING", "mode": "NULLABLE"}]},
            "jobReference": {"projectId": project, "jobId": f"job_{number}", "location": "US"},
            "jobComplete": True,
            "totalRows": str(len(rows)),
            "rows": [{"f": [{"v": value} for value in row]} for row in rows[start : start + size]],
        } | ({"pageToken": str(start + size)} if start + size < len(rows) else {})

    def _rows(self, asked: dict[str, Any]) -> list[Any]:
        given = {each["name"]: each["parameterValue"]["value"] for each in asked["queryParameters"]}
        tree = sqlglot.parse_one(asked["query"], read="bigquery")
        for table in tree.find_all(sqlglot.exp.Table):
            table.set("catalog", None)
        return self._database.execute(tree.sql(dialect="duckdb"), given).fetchall()


@pytest.fixture(scope="module")
def bigquery() -> BigQuery:
    return BigQuery()


@pytest.fixture(scope="module")
def address(bigquery: BigQuery) -> Iterator[str]:
    def error(status: int, _: Any) -> tuple[str, bytes]:
        return "application/json", json.dumps({"error": {"code": status, "message": "a fault"}}).encode()

    server = make_server("127.0.0.1", 0, Gate(bigquery, error), threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cloud(address: str) -> Iterator[Cloud]:
    cloud = Cloud(address)
    cloud.heal()
    yield cloud
    cloud.heal()


@pytest.fixture
def source(cloud: Cloud) -> Source:
    return replace(source_at(cloud.url), timeout=10)


def row(number: int, logged: datetime, created: datetime | None = None, **columns: Any) -> dict[str, Any]:
    """One logged request: question and answer tell its number."""
    request = {"contents": [{"role": "user", "parts": [{"text": f"Question {number}"}]}], "labels": {"app": "faq"}}
    response = {
        "candidates": [{"content": {"role": "model", "parts": [{"text": f"Answer {number}"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 5, "thoughtsTokenCount": 40},
        "modelVersion": "gemini-2.5-flash",
        **({"createTime": created.isoformat()} if created else {}),
    }
    return {
        "endpoint": f"projects/acme-llm/locations/us-central1/{GEMINI}",
        "deployed_model_id": None,
        "logging_time": logged,
        "request_id": Decimal(5374205265901353984 + number),
        "request_payload": ["unread"][:0],
        "response_payload": ["unread"][:0],
        "model": GEMINI,
        "model_version": "default",
        "api_method": "GenerateContent",
        "full_request": json.dumps(request),
        "full_response": json.dumps(response),
        "metadata": json.dumps({"request_latency": 1225.994}),
        "otel_log": json.dumps({"trace_id": "..."}),
    } | columns


def numbers(found: Iterator[Found]) -> list[int]:
    """The numbers of the requests found, in order."""
    return sorted(int(each.texts.input.split()[1]) for each in found if isinstance(each, Interaction))


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def test_a_row_of_the_table_is_an_interaction_in_all_its_fields(bigquery: BigQuery, source: Source) -> None:
    bigquery.log([row(1, START + minutes(1), START + timedelta(seconds=58, microseconds=774006))])
    assert list(vertex_interactions(source, PLACE, SPAN)) == [
        Interaction(
            native_id="5374205265901353985",
            timestamp=START + timedelta(seconds=58, microseconds=774006),
            model_name="gemini-2.5-flash",
            texts=Texts(input="Question 1", output="Answer 1"),
            application="faq",
            operation="generate_content",
            account_id="acme-llm",
            region="us-central1",
            input_tokens=9,
            output_tokens=45,
            reasoning_tokens=40,
            latency_ms=1225.994,
            finish_reason="stop",
            details={"api_method": "GenerateContent"},
        )
    ]


def test_bodies_of_deployed_models_are_read_out_of_the_payloads(bigquery: BigQuery, source: Source) -> None:
    logged = row(1, START)
    payloads = {"request_payload": [logged["full_request"]], "response_payload": [logged["full_response"]]}
    bigquery.log([logged | payloads | {"full_request": None, "full_response": None}])
    assert numbers(vertex_interactions(source, PLACE, SPAN)) == [1]


def test_the_time_of_the_request_decides_whether_it_is_of_the_span(bigquery: BigQuery, source: Source) -> None:
    end = SPAN.end
    bigquery.log(
        [
            row(1, START + minutes(1), START - timedelta(microseconds=1)),  # made before the span, logged in it
            row(2, START + minutes(1), START),
            row(3, end + minutes(5), end - timedelta(microseconds=1)),  # made in the span, logged after it
            row(4, end + minutes(5), end),
            row(5, end + LATENESS - minutes(1), end - minutes(1)),
            row(6, START),  # Claude and chats in OpenAI's form tell no time but that of the log
            row(7, end),
            row(8, START - timedelta(microseconds=1)),
        ]
    )
    assert numbers(vertex_interactions(source, PLACE, SPAN)) == [2, 3, 5, 6]


def test_every_request_is_in_one_of_the_spans_that_follow_each_other(bigquery: BigQuery, source: Source) -> None:
    made = [START + minutes(1.7 * number) for number in range(60)]
    delays = [None, minutes(0), minutes(0.3), minutes(20), LATENESS, LATENESS + minutes(1), minutes(-1)]
    rows = []
    for number, at in enumerate(made):
        delay = delays[number % len(delays)]
        rows.append(row(number, at) if delay is None else row(number, at + delay, at))
    bigquery.log(rows)
    spans = windows(START - minutes(15), START + timedelta(hours=4))
    found = [number for span in spans for number in numbers(vertex_interactions(source, PLACE, span))]
    assert sorted(found) == list(range(60))


def test_a_request_that_is_logged_twice_is_found_once(bigquery: BigQuery, source: Source) -> None:
    bigquery.log([row(1, START + minutes(2)), row(1, START + minutes(1)), row(1, START + minutes(1)), row(2, START)])
    found = list(vertex_interactions(source, PLACE, SPAN))
    assert numbers(iter(found)) == [1, 2]
    assert {each.timestamp for each in found if isinstance(each, Interaction)} == {START, START + minutes(1)}


def test_rows_that_are_no_interactions_come_with_a_reason_in_the_span_of_their_logging(
    bigquery: BigQuery, source: Source
) -> None:
    at = START + minutes(3)
    bigquery.log([row(1, at), row(2, at, full_request='{"instances": []}'), row(3, at, request_id=None)])
    reasons = [each.reason for each in vertex_interactions(source, PLACE, SPAN) if isinstance(each, Unreadable)]
    assert sorted(reasons) == ["request_id is missing", "the request holds neither contents nor messages"]
    before = Window(SPAN.start - minutes(15), SPAN.start)
    assert list(vertex_interactions(source, PLACE, before)) == []


def test_the_log_is_asked_for_by_its_time_alone_and_for_the_columns_that_are_read(
    bigquery: BigQuery, source: Source
) -> None:
    bigquery.log([row(1, START)])
    list(vertex_interactions(source, PLACE, SPAN))
    (asked,) = bigquery.asked
    given = {each["name"]: each["parameterValue"]["value"] for each in asked["queryParameters"]}
    assert {name: datetime.fromisoformat(value) for name, value in given.items()} == {
        "since": SPAN.start,
        "until": SPAN.end + LATENESS,
    }
    tree = sqlglot.parse_one(asked["query"], read="bigquery")
    where = tree.find(sqlglot.exp.Where)
    assert where is not None
    assert {column.name for column in where.find_all(sqlglot.exp.Column)} == {"logging_time"}
    columns = {column.name for column in tree.find_all(sqlglot.exp.Column)}
    assert columns == set(row(1, START)) - {"model_version", "otel_log"}
    assert not tree.find(sqlglot.exp.Star)


def test_pages_are_read_one_after_another_as_they_are_wanted(
    bigquery: BigQuery, source: Source, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optiinfra_pipelines.clouds.gcp.interactions._PAGE", 2)
    bigquery.log([row(number, START) for number in range(7)])
    found = vertex_interactions(source, PLACE, SPAN)
    first = [next(found), next(found)]
    assert not any(request.startswith("GET") and "/queries/" in request for request in cloud.requests)
    assert numbers(iter([*first, *found])) == list(range(7))
    assert source.calls.made["bigquery", "jobs.getQueryResults"][0] == 3


def test_a_query_is_paid_by_the_bytes_that_a_dry_run_tells_and_not_sent_without_the_money(
    bigquery: BigQuery, source: Source
) -> None:
    bigquery.log([row(1, START)])
    list(vertex_interactions(source, PLACE, SPAN))
    assert source.calls.made["bigquery", "jobs.query"] == (1, SIZE, Decimal(SIZE) * Decimal("6.25") / 2**40)
    bigquery.asked.clear()
    spent = replace(source, calls=Calls(left=Decimal(0), budget=Decimal(1)))
    with pytest.raises(CollectionError) as error:
        list(vertex_interactions(spent, PLACE, SPAN))
    assert (error.value.kind, bigquery.asked) == ("budget", [])


@pytest.mark.parametrize("fault", [Fault("status", 429), Fault("status", 503), Fault("reset"), Fault("cut")])
def test_a_passing_fault_leaves_nothing_out(bigquery: BigQuery, source: Source, cloud: Cloud, fault: Fault) -> None:
    bigquery.log([row(number, START) for number in range(3)])
    cloud.break_with(replace(fault, match="/queries"))
    assert numbers(vertex_interactions(source, PLACE, SPAN)) == [0, 1, 2]
    assert source.calls.made["bigquery", "jobs.query"][0] == 2


@pytest.mark.parametrize(("status", "kind"), [(403, "auth"), (404, "not_configured"), (400, "malformed")])
def test_a_lasting_fault_is_told_by_its_kind(source: Source, cloud: Cloud, status: int, kind: str) -> None:
    cloud.break_with(Fault("status", status, times=9, match="/jobs"))
    with pytest.raises(CollectionError, match=r"acme-llm\.logs\.gemini.*a fault") as error:
        list(vertex_interactions(source, PLACE, SPAN))
    assert error.value.kind == kind


def test_a_table_that_is_not_there_or_no_table_at_all_is_told(source: Source) -> None:
    for location, said in (
        ("bigquery://acme-llm/logs/nosuch", "nosuch.*check the connection's llm location"),
        ("bigquery://acme-llm/logs", "is not bigquery://project/dataset/table"),
    ):
        with pytest.raises(CollectionError, match=said) as error:
            list(vertex_interactions(source, LlmSource(location=location, format="vertex"), SPAN))
        assert error.value.kind == "not_configured"


def test_the_address_of_the_place_goes_before_that_of_the_connection(bigquery: BigQuery, source: Source) -> None:
    bigquery.log([row(1, START)])
    nowhere = {**source.connection.endpoints, "bigquery": "http://127.0.0.1:9"}
    lost = replace(source, connection=source.connection.model_copy(update={"endpoints": nowhere}))
    place = PLACE.model_copy(update={"endpoint_url": source.connection.endpoints["bigquery"]})
    assert numbers(vertex_interactions(lost, place, SPAN)) == [1]
