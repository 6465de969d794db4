"""The planted interactions as they lie in S3, BigQuery and Log Analytics: over HTTP, and by the product's readers."""

import gzip
import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import boto3
import httpx
import pytest
from google.auth.transport.requests import Request
from google.oauth2 import service_account
from pydantic import SecretStr

from optiinfra_pipelines.clouds.collecting import Source
from optiinfra_pipelines.customers import Connection
from optiinfra_pipelines.llm.collecting import reader_of
from optiinfra_pipelines.llm.interaction import Interaction
from optiinfra_pipelines.sandbox import azure_server, gcp_server
from optiinfra_pipelines.sandbox.fleet import FleetCloud, account_of
from optiinfra_pipelines.sandbox.interaction_logs import (
    LLM_DATASET,
    llm_credentials,
    llm_places,
    log_objects,
    publish_interactions,
)
from optiinfra_pipelines.sandbox.interactions import Corpus, Planted
from optiinfra_pipelines.sandbox.log_analytics import workspace_answer, workspace_id
from optiinfra_pipelines.sandbox.s3_server import serve_s3
from optiinfra_pipelines.sandbox.scenario import ACCESS_KEY_ID, SECRET_ACCESS_KEY, environment
from optiinfra_pipelines.windows import Window

TODAY = date(2026, 11, 20)
CORPUS = Corpus(TODAY, days=2)
SPAN = Window(datetime(2026, 11, 19, 9, 30, tzinfo=UTC), datetime(2026, 11, 20, 9, 30, tzinfo=UTC))
PROJECT = account_of("acme", "gcp")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with serve_s3(ACCESS_KEY_ID) as url:
        publish_interactions(url, CORPUS, CORPUS.end)
        yield url


@pytest.fixture(scope="module")
def gcp() -> Iterator[str]:
    with gcp_server.serve_gcp(TODAY) as url:
        yield url


@pytest.fixture(scope="module")
def azure() -> Iterator[str]:
    with azure_server.serve_azure(TODAY) as url:
        yield url


def _source(customer: str, cloud: FleetCloud, s3: str = "", url: str = "") -> Source:
    known: dict[str, Any] = {"endpoints": {}, "credentials": {}}
    values = environment()
    if cloud in ("gcp", "azure"):
        server = gcp_server if cloud == "gcp" else azure_server
        known = server.connection(customer, url)
        values = server.environment([customer])
    connection = {
        "id": f"{cloud}-llm",
        "provider": cloud,
        "collect": ["llm_interactions"],
        "llm": llm_places(customer, cloud, s3),
        "endpoints": known["endpoints"],
        "credentials": known["credentials"] | llm_credentials(cloud),
    }
    secrets = {name: SecretStr(values[variable]) for name, variable in connection["credentials"].items()}
    return Source(customer, Connection.model_validate(connection), secrets)


def _told(source: Source, found: Interaction) -> tuple[Any, ...]:
    place = source.connection.llm[0]
    said = (found.texts.system, found.texts.context, found.texts.input, found.texts.output)
    tokens = (found.input_tokens, found.output_tokens, found.cached_tokens, found.reasoning_tokens)
    return (
        *(found.timestamp, found.application or place.application, found.model_name, found.variant, *said, *tokens),
        *(found.latency_ms, found.time_to_first_token_ms, found.finish_reason, found.error_type),
    )


def _planted(each: Planted) -> tuple[Any, ...]:
    tokens = (each.input_tokens, each.output_tokens, each.cached_tokens, each.reasoning_tokens)
    return (
        *(each.timestamp, each.application_id, each.model_name, each.variant),
        *(each.system, each.context, each.question, each.answer, *tokens),
        *(each.latency_ms, each.time_to_first_token_ms, each.finish_reason, each.error_type),
    )


def _assert_read_as_planted(source: Source, cloud: FleetCloud) -> None:
    place = source.connection.llm[0]
    found = list(reader_of(place)(source, place, SPAN))
    assert all(isinstance(each, Interaction) for each in found)
    streams = CORPUS.of(source.customer_id, cloud)
    planted = [each for each in CORPUS.interactions(streams, *SPAN) if SPAN.contains(each.timestamp)]
    assert len(found) == len(planted) > 20
    told = {_told(source, each) for each in found if isinstance(each, Interaction)}
    assert {_planted(each) for each in planted if not each.truncated} <= told


@pytest.mark.parametrize(("customer", "cloud"), [("acme", "aws"), ("globex", "aws"), ("acme", "vultr")])
def test_the_readers_of_s3_find_what_is_planted(s3: str, customer: str, cloud: FleetCloud) -> None:
    _assert_read_as_planted(_source(customer, cloud, s3), cloud)


def test_the_reader_of_bigquery_finds_what_is_planted(gcp: str) -> None:
    _assert_read_as_planted(_source("acme", "gcp", url=gcp), "gcp")


def test_the_reader_of_log_analytics_finds_what_is_planted(azure: str) -> None:
    _assert_read_as_planted(_source("acme", "azure", url=azure), "azure")


def test_a_customer_without_an_application_on_a_cloud_has_no_place_there() -> None:
    assert llm_places("globex", "gcp", "http://127.0.0.1:9") == []


def test_objects_lie_by_the_hour_of_their_delivery_as_aws_and_the_collector_lay_them(s3: str) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=s3,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY_ID,
        aws_secret_access_key=SECRET_ACCESS_KEY,
    )
    for bucket, folder in (
        ("acme-llm-logs", "bedrock/AWSLogs/111122223333/BedrockModelInvocationLogs/us-east-1"),
        ("acme-llm-traces", "otlp"),
    ):
        listed = client.list_objects_v2(Bucket=bucket, Prefix=f"{folder}/2026/11/19/")["Contents"]
        key = next(each["Key"] for each in listed if "/data/" not in each["Key"])
        assert re.fullmatch(rf"{folder}/2026/11/19/\d\d/[^/]+\.jsonl?\.gz", key)
        body = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        lines = [json.loads(line) for line in gzip.decompress(body).splitlines()]
        assert all(("schemaType" in line) == (bucket == "acme-llm-logs") for line in lines)


def test_what_is_late_lies_in_an_object_of_the_next_hour() -> None:
    objects = log_objects(CORPUS, CORPUS.end)
    late = {key: body for (_, key), body in objects.items() if key.endswith("traces_late.jsonl.gz")}
    assert late
    for key, body in late.items():
        line = json.loads(gzip.decompress(body).splitlines()[0])
        span = line["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
        at = datetime.fromtimestamp(int(span["startTimeUnixNano"]) / 1e9, UTC)
        assert f"{at + timedelta(hours=1):%Y/%m/%d/%H}" in key


def test_what_is_not_delivered_yet_is_not_published() -> None:
    now = datetime(2026, 11, 20, 8, 20, tzinfo=UTC)
    objects, whole = log_objects(CORPUS, now), log_objects(CORPUS, CORPUS.end)
    assert not [key for _, key in objects if "/2026/11/20/09/" in key]
    this_hour = ("acme-llm-traces", "otlp/2026/11/20/08/traces_main.jsonl.gz")
    assert 0 < len(objects[this_hour]) < len(whole[this_hour])
    assert len(objects) < len(whole)


def _bigquery(url: str, sql: str, **given: str) -> Any:
    key = json.loads(gcp_server.environment(["acme"])["SANDBOX_GCP_KEY_ACME"]) | {"token_uri": f"{url}/token"}
    credentials = service_account.Credentials.from_service_account_info(key, scopes=["any"])
    credentials.refresh(Request())
    parameters = [
        {"name": name, "parameterType": {"type": "TIMESTAMP"}, "parameterValue": {"value": value}}
        for name, value in given.items()
    ]
    return httpx.post(
        f"{url}/bigquery/v2/projects/{PROJECT}/queries",
        json={"query": sql.replace("LOG", f"`{PROJECT}.{LLM_DATASET}.request_response_logging`")}
        | {"useLegacySql": False, "queryParameters": parameters, "maxResults": 5},
        headers={"Authorization": f"Bearer {credentials.token}"},
        timeout=30,
    ).json()


def test_bigquery_has_the_documented_columns_and_pages(gcp: str) -> None:
    answer = _bigquery(
        gcp, "SELECT * FROM LOG WHERE logging_time < @at ORDER BY logging_time", at="2026-11-08T00:00:00Z"
    )
    fields = {each["name"]: (each["type"], each["mode"]) for each in answer["schema"]["fields"]}
    assert fields["logging_time"] == ("TIMESTAMP", "NULLABLE")
    assert fields["request_id"] == ("NUMERIC", "NULLABLE")
    assert fields["response_payload"] == ("STRING", "REPEATED")
    assert {fields[name] for name in ("full_request", "full_response", "metadata", "otel_log")} == {
        ("JSON", "NULLABLE")
    }
    assert {"endpoint", "deployed_model_id", "model", "model_version", "api_method"} <= set(fields)
    assert "delivered_at" not in fields
    assert (len(answer["rows"]), "pageToken" in answer) == (5, True)


def test_bigquery_shows_nothing_that_was_not_logged_yet() -> None:
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    with gcp_server.serve_gcp(tomorrow) as url:
        answer = _bigquery(url, "SELECT max(logging_time), count(*) FROM LOG")
    last, count = (each["v"] for each in answer["rows"][0]["f"])
    assert int(last) / 1e6 <= datetime.now(UTC).timestamp()
    corpus = Corpus(tomorrow)
    assert 500 < int(count) < len(list(corpus.interactions(corpus.of("acme", "gcp"))))


def _logs(url: str, query: str, span: Window = SPAN, workspace: str = "") -> httpx.Response:
    entry = azure_server.connection("acme", url)
    values = azure_server.environment(["acme"])
    tenant, client_id, secret = (
        values[entry["credentials"][name]] for name in ("tenant_id", "client_id", "client_secret")
    )
    form = {"client_id": client_id, "client_secret": secret, "grant_type": "client_credentials"}
    token = httpx.post(f"{url}/login/{tenant}/oauth2/v2.0/token", data=form).json()["access_token"]
    return httpx.post(
        f"{url}/logs/v1/workspaces/{workspace or workspace_id('acme')}/query",
        json={"query": query, "timespan": f"{span.start.isoformat()}/{span.end.isoformat()}"},
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    )


def test_log_analytics_answers_the_columns_of_the_projection_in_their_order(azure: str) -> None:
    query = (
        'ApiManagementGatewayLogs | where Method == "POST" and isnotempty(RequestBody)'
        " | project ResponseCode, TimeGenerated, CorrelationId | order by TimeGenerated asc"
    )
    (table,) = _logs(azure, query).json()["tables"]
    assert table["columns"] == [
        {"name": "ResponseCode", "type": "int"},
        {"name": "TimeGenerated", "type": "datetime"},
        {"name": "CorrelationId", "type": "string"},
    ]
    times = [row[1] for row in table["rows"]]
    assert times == sorted(times)
    assert all(SPAN.start <= datetime.fromisoformat(each) <= SPAN.end for each in times)
    planted = CORPUS.interactions(CORPUS.of("acme", "azure"), *SPAN)
    assert len(times) == sum(SPAN.contains(each.timestamp) and each.form == "gateway" for each in planted)


def test_log_analytics_tells_of_one_kind_of_diagnostics(azure: str) -> None:
    span = Window(Corpus(TODAY).start, Corpus(TODAY).end)
    asked = 'AzureDiagnostics | where Category {} "RequestResponse" | project CorrelationId'
    found, others = (_logs(azure, asked.format(how), span).json()["tables"][0]["rows"] for how in ("==", "!="))
    assert 0 < len(found) < 30
    assert others == []


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("NoSuchTable | project TimeGenerated", "SEM0100"),
        ("ApiManagementGatewayLogs | project NoSuchColumn", "SEM0100"),
        ("ApiManagementGatewayLogs | summarize count()", "SYN0002"),
    ],
)
def test_log_analytics_refuses_what_it_does_not_understand(azure: str, query: str, code: str) -> None:
    answer = _logs(azure, query)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "BadArgumentError"
    assert code in answer.json()["error"]["innererror"]["message"]


def test_anothers_workspace_is_forbidden(azure: str) -> None:
    answer = _logs(azure, "ApiManagementGatewayLogs", workspace=workspace_id("globex"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "InsufficientAccessError")


def test_log_analytics_shows_what_was_delivered_by_now_and_no_more_than_its_most() -> None:
    asked = {"query": "ApiManagementGatewayLogs", "timespan": f"{CORPUS.start.isoformat()}/{CORPUS.end.isoformat()}"}
    now = SPAN.start
    rows = workspace_answer(CORPUS, "acme", asked, now)["tables"][0]["rows"]
    assert rows
    assert max(datetime.fromisoformat(row[0]) for row in rows) <= now
    partial = workspace_answer(CORPUS, "acme", asked, now, most=3)
    assert len(partial["tables"][0]["rows"]) == 3
    assert partial["error"]["code"] == "PartialError"
