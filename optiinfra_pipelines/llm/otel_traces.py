"""Traces in a ClickHouse table as the OpenTelemetry Collector's exporter for ClickHouse makes it (`otel_traces`).

Spans alone: events that the exporter writes into its table of logs are not joined.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from optiinfra_pipelines.clouds.collecting import Source
from optiinfra_pipelines.errors import CollectionError, ErrorKind
from optiinfra_pipelines.llm.genai import MARKS, interaction
from optiinfra_pipelines.llm.interaction import Found
from optiinfra_pipelines.llm.otlp import SPAN_BYTES, TRACE_BYTES, Event, Span, hex_id, is_error, moment
from optiinfra_pipelines.places import LlmSource
from optiinfra_pipelines.windows import Window, as_utc

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_REFUSED = (192, 193, 194, 497, 516)  # unknown user, wrong password, required password, access denied, authentication
_ABSENT = (60, 81)  # unknown table, unknown database
_OTHER_SCHEMA = (16, 43, 47, 386)  # no such column, or not of the exporter's types
_BUSY = (159, 202, 203, 209, 210, 241, 242, 394, 425, 439, 999, 1000)  # limits, memory, network, Keeper, host
# A span that the exporter sent again after an error is there twice: identical, so any of them will do.
_QUERY = """
SELECT
    toUnixTimestamp64Nano(Timestamp) AS start, toInt64(Duration) AS duration, TraceId AS trace_id, SpanId AS span_id,
    SpanName AS name, ServiceName AS service, ResourceAttributes AS resource, SpanAttributes AS attributes,
    StatusCode AS status, arrayMap(at -> toUnixTimestamp64Nano(at), Events.Timestamp) AS event_times,
    Events.Name AS event_names, Events.Attributes AS event_attributes
FROM {table}
WHERE Timestamp >= fromUnixTimestamp64Nano({{start:Int64}}) AND Timestamp < fromUnixTimestamp64Nano({{end:Int64}})
    AND hasAny(mapKeys(SpanAttributes), {{marks:Array(String)}})
LIMIT 1 BY TraceId, SpanId
"""


def otel_traces_interactions(source: Source, place: LlmSource, span: Window) -> Iterator[Found]:
    """Every call of a model that began in `span` and has a span in the table, each once, in no order.

    `place` is clickhouse://database/table, its server at `endpoint_url`; the user is `default` where the credentials
    name none. CollectionError: `auth` where the server refuses the user, `not_configured` where there is no such
    table or it is not the exporter's, `transient` where the server does not answer, `malformed` for the rest.
    """
    from clickhouse_connect.driver.exceptions import ClickHouseError

    table = _table(place)
    parameters = {"start": _nanoseconds(span.start), "end": _nanoseconds(span.end), "marks": list(MARKS)}
    try:
        with closing(_client(source, place)) as client:
            source.calls.add("clickhouse", "query")
            with client.query_rows_stream(_QUERY.format(table=table), parameters=parameters) as rows:
                for row in rows:
                    found = interaction(_span(*row), (), place.application_label, place.variant_label)
                    if found is not None:
                        yield found
    except ClickHouseError as error:
        raise _explained(source, place, error) from error


def _table(place: LlmSource) -> str:
    """The table's name, quoted; CollectionError where the location names none."""
    names = place.location.partition("://")[2].split("/")
    if len(names) != 2 or not all(_NAME.fullmatch(each) for each in names):
        raise CollectionError(
            "not_configured", f"{place.location} names no table; write it as clickhouse://database/table"
        )
    return ".".join(f"`{each}`" for each in names)


def _client(source: Source, place: LlmSource) -> "Client":
    import clickhouse_connect

    if place.endpoint_url is None:
        raise CollectionError(
            "not_configured", f"{place.location}: name its server in endpoint_url, such as https://clickhouse:8443"
        )
    server = urlsplit(place.endpoint_url)
    return clickhouse_connect.get_client(
        host=server.hostname or "",
        port=server.port or (8443 if server.scheme == "https" else 8123),
        username=source.secret("clickhouse_user") or "default",
        password=source.secret("clickhouse_password") or "",
        secure=server.scheme == "https",
        proxy_path=server.path,
        connect_timeout=source.timeout,
        send_receive_timeout=source.timeout,
        autogenerate_session_id=False,
        client_name="optiinfra_pipelines",
    )


def _span(
    start: int,
    duration: int,
    trace_id: str,
    span_id: str,
    name: str,
    service: str,
    resource: Mapping[str, str],
    attributes: Mapping[str, str],
    status: str,
    event_times: Sequence[int],
    event_names: Sequence[str],
    event_attributes: Sequence[Mapping[str, str]],
) -> Span:
    """The span of a row, columns as in _QUERY."""
    events = zip(event_names, event_times, event_attributes, strict=True)
    return Span(
        name=name,
        trace_id=hex_id(trace_id, TRACE_BYTES),
        span_id=hex_id(span_id, SPAN_BYTES),
        start=moment(start),
        end=moment(start + max(duration, 0)),
        attributes=attributes,
        resource={"service.name": service, **resource},
        events=tuple(Event(name, moment(at), of_event) for name, at, of_event in events),
        failed=is_error(status),
    )


def _nanoseconds(at: datetime) -> int:
    return (as_utc(at) - _EPOCH) // timedelta(microseconds=1) * 1000


def _explained(source: Source, place: LlmSource, error: Exception) -> CollectionError:
    code = getattr(error, "code", None)
    at = f"{source.name}: {place.location} at {place.endpoint_url}"
    said = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
    kind: ErrorKind
    if code in _REFUSED:
        kind, advice = "auth", "the server refused the user; check clickhouse_user and clickhouse_password"
    elif code in _ABSENT:
        kind, advice = "not_configured", "there is no such table; check the location"
    elif code in _OTHER_SCHEMA:
        kind, advice = "not_configured", "the table is not as the Collector's exporter makes it; check the location"
    elif code is None or code in _BUSY:
        kind, advice = "transient", "the next run tries again"
    else:
        kind, advice = "malformed", "the server refused the query"
    return CollectionError(kind, f"{at}: {advice} ({said})")
