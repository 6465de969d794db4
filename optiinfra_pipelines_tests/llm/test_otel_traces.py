"""Traces in ClickHouse, in the table that the OpenTelemetry Collector's exporter makes, read from the real engine."""

import json
import socket
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.llm.interaction import Interaction, Texts
from optiinfra_pipelines.llm.opentelemetry import opentelemetry_interactions
from optiinfra_pipelines.places import LlmSource
from optiinfra_pipelines.sandbox.clickhouse_server import serve_clickhouse
from optiinfra_pipelines.windows import Window
from optiinfra_pipelines_tests.conftest import connect
from optiinfra_pipelines_tests.llm.traces import AT, CHAT, DAY, nanoseconds, source, span_id, trace_id

# Columns, engine, keys and settings of exporter/clickhouseexporter/internal/sql_templates/traces_table.sql of the
# OpenTelemetry Collector (contrib).
TABLE = """
CREATE TABLE {table} (
    Timestamp DateTime64(9) CODEC(Delta, ZSTD(1)), TraceId String CODEC(ZSTD(1)), SpanId String CODEC(ZSTD(1)),
    ParentSpanId String CODEC(ZSTD(1)), TraceState String CODEC(ZSTD(1)),
    SpanName LowCardinality(String) CODEC(ZSTD(1)), SpanKind LowCardinality(String) CODEC(ZSTD(1)),
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)), ScopeVersion String CODEC(ZSTD(1)),
    SpanAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    Duration UInt64 CODEC(ZSTD(1)), StatusCode LowCardinality(String) CODEC(ZSTD(1)),
    StatusMessage String CODEC(ZSTD(1)),
    Events Nested (
        Timestamp DateTime64(9), Name LowCardinality(String), Attributes Map(LowCardinality(String), String)
    ) CODEC(ZSTD(1)),
    Links Nested (
        TraceId String, SpanId String, TraceState String, Attributes Map(LowCardinality(String), String)
    ) CODEC(ZSTD(1)),
    INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX idx_span_attr_key mapKeys(SpanAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX idx_duration Duration TYPE minmax GRANULARITY 1
) ENGINE = MergeTree() PARTITION BY toDate(Timestamp) ORDER BY (ServiceName, SpanName, toDateTime(Timestamp))
SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1
"""


def as_text(told: Mapping[str, Any]) -> dict[str, str]:
    """Attributes as the exporter writes them: everything is text, lists and objects are JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in told.items()}


class Traces:
    """A table of traces of its own on a server."""

    def __init__(self, url: str) -> None:
        self.url, self.database = url, f"otel_{uuid4().hex[:8]}"
        self.place = LlmSource(
            location=f"clickhouse://{self.database}/otel_traces", format="opentelemetry", endpoint_url=url
        )
        self.run(f"CREATE DATABASE {self.database}")
        self.run(TABLE.format(table=f"{self.database}.otel_traces"))

    def run(self, statement: str) -> None:
        with connect(self.url) as client:
            client.command(statement)

    def insert(
        self,
        told: Mapping[str, Any],
        number: int = 1,
        *,
        at: int = nanoseconds(AT),
        duration: int = 1_200_000_000,
        status: str = "Unset",
        resource: Mapping[str, str] | None = None,
        events: Sequence[tuple[str, int, Mapping[str, Any]]] = (),
    ) -> None:
        """One span; times are nanoseconds, of events after its start."""
        row = {
            "Timestamp": at,
            "TraceId": trace_id(number),
            "SpanId": span_id(number),
            "SpanName": "chat gpt-4o",
            "SpanKind": "Client",
            "ServiceName": "shop",
            "ResourceAttributes": dict(resource or {"service.name": "shop"}),
            "SpanAttributes": as_text(told),
            "Duration": duration,
            "StatusCode": status,
            "Events.Timestamp": [at + after for _, after, _ in events],
            "Events.Name": [name for name, _, _ in events],
            "Events.Attributes": [as_text(each) for _, _, each in events],
        }
        with connect(self.url) as client:
            client.insert("otel_traces", [list(row.values())], list(row), database=self.database)

    def read(self, span: Window = DAY, **credentials: str) -> list[Interaction]:
        found = list(opentelemetry_interactions(source(self.place, **credentials), self.place, span))
        assert all(isinstance(each, Interaction) for each in found)
        return [each for each in found if isinstance(each, Interaction)]


@pytest.fixture
def traces(clickhouse_url: str) -> Iterator[Traces]:
    made = Traces(clickhouse_url)
    yield made
    made.run(f"DROP DATABASE {made.database}")


def test_a_row_is_the_interaction_that_its_span_tells(traces: Traces) -> None:
    told = CHAT | {
        "gen_ai.usage.input_tokens": 14,
        "gen_ai.usage.output_tokens": 8,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.request.stream": True,
    }
    traces.insert(told, resource={"service.name": "shop", "app": "helpdesk", "cloud.region": "eu-west-1"})
    assert traces.read() == [
        Interaction(
            native_id=f"{trace_id(1)}:{span_id(1)}",
            timestamp=AT,
            model_name="gpt-4o",
            texts=Texts(input="Capital of France?", output="Paris."),
            application="helpdesk",
            region="eu-west-1",
            input_tokens=14,
            output_tokens=8,
            latency_ms=1200.0,
            time_to_first_token_ms=250.0,
            finish_reason="stop",
            trace_id=trace_id(1),
            span_id=span_id(1),
            details={
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": "gpt-4o",
                "gen_ai.request.stream": "true",
                "span": "chat gpt-4o",
            },
        )
    ]


def test_openinference_spans_and_their_events_are_understood(traces: Traces) -> None:
    told = {
        "openinference.span.kind": "LLM",
        "llm.model_name": "gpt-4o",
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.content": "Zürich? 🏔",
        "llm.token_count.prompt": 14,
    }
    events = [
        ("First Token Stream Event", 100_000_000, {}),
        ("exception", 200_000_000, {"exception.type": "openai.APIConnectionError"}),
    ]
    traces.insert(told, status="Error", events=events)
    (found,) = traces.read()
    assert (found.texts.input, found.input_tokens, found.application) == ("Zürich? 🏔", 14, "shop")
    assert (found.time_to_first_token_ms, found.error_type) == (100.0, "openai.APIConnectionError")


def test_calls_that_began_in_the_window_are_given_once_and_no_others(traces: Traces) -> None:
    quarter = Window(AT, AT + timedelta(minutes=15))
    traces.insert(CHAT, 1, at=nanoseconds(AT) - 1)
    traces.insert(CHAT, 2)
    traces.insert(CHAT, 2)  # sent again
    traces.insert(CHAT, 3, at=nanoseconds(quarter.end) - 1)
    traces.insert(CHAT, 4, at=nanoseconds(quarter.end))
    traces.insert({"http.request.method": "POST"}, 5)
    traces.insert({"gen_ai.operation.name": "invoke_agent"}, 6)
    assert sorted(each.span_id or "" for each in traces.read(quarter)) == [span_id(2), span_id(3)]


def test_memory_stays_flat_as_the_table_grows(traces: Traces) -> None:
    digits = "leftPad(toString(number + 1), {}, '0')"
    traces.run(
        f"INSERT INTO {traces.database}.otel_traces (Timestamp, TraceId, SpanId, SpanAttributes)"
        f" SELECT fromUnixTimestamp64Nano({nanoseconds(AT)}), {digits.format(32)}, {digits.format(16)},"
        " map('gen_ai.operation.name', 'chat', 'gen_ai.prompt', randomPrintableASCII(10000))"
        " FROM numbers(9000)"  # 90 MB
    )
    tracemalloc.start()
    count = sum(1 for _ in opentelemetry_interactions(source(traces.place), traces.place, DAY))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 9_000
    assert peak < 60 << 20  # of buffers: 48 MB were measured for 60 MB of spans, and 43 for 240


def kind_of(place: LlmSource, **credentials: str) -> str:
    with pytest.raises(CollectionError) as refused:
        list(opentelemetry_interactions(source(place, **credentials), place, DAY))
    assert place.location in str(refused.value)
    assert "wrong-one" not in str(refused.value)
    return refused.value.kind


def test_a_password_is_sent_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    with serve_clickhouse(tmp_path, password="right-one") as url:
        place = LlmSource(location="clickhouse://otel/otel_traces", format="opentelemetry", endpoint_url=url)
        assert kind_of(place, clickhouse_user="default", clickhouse_password="wrong-one") == "auth"
        assert kind_of(place, clickhouse_user="default", clickhouse_password="right-one") == "not_configured"


def test_a_table_that_is_absent_or_not_the_exporters_is_a_matter_of_configuration(traces: Traces) -> None:
    def place(table: str) -> LlmSource:
        return traces.place.model_copy(update={"location": f"clickhouse://{table}"})

    traces.run(f"CREATE TABLE {traces.database}.other (a String) ENGINE = MergeTree ORDER BY a")
    traces.run(f"CREATE TABLE {traces.database}.json AS {traces.database}.otel_traces")
    traces.run(f"ALTER TABLE {traces.database}.json DROP INDEX idx_span_attr_key")
    traces.run(f"ALTER TABLE {traces.database}.json MODIFY COLUMN SpanAttributes String")
    tables = ("absent.otel_traces", f"{traces.database}/absent", f"{traces.database}/other", f"{traces.database}/json")
    for table in (*tables, f"{traces.database}/otel_traces` --", traces.database):
        assert kind_of(place(table)) == "not_configured"
    assert kind_of(traces.place.model_copy(update={"endpoint_url": None})) == "not_configured"


def test_a_server_that_does_not_answer_or_is_busy_is_asked_again_later(traces: Traces) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    assert kind_of(traces.place.model_copy(update={"endpoint_url": nowhere})) == "transient"
    for fault in ({"code": 241}, {"code": 202}, {"drop": "before"}):
        armed = {"match": "SpanAttributes", "times": 5} | fault
        httpx.post(f"{traces.url}/sandbox/faults", json=armed).raise_for_status()
        assert kind_of(traces.place) == "transient"
        httpx.delete(f"{traces.url}/sandbox/faults").raise_for_status()
