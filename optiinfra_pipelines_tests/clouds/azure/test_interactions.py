"""A workspace of Log Analytics is asked for requests to models: each once, all of them, over its documented wire.

https://learn.microsoft.com/azure/azure-monitor/logs/api/response-format and .../api/errors
"""

import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from optiinfra_pipelines.clouds.azure.interactions import azure_interactions
from optiinfra_pipelines.clouds.collecting import Source
from optiinfra_pipelines.customers import Connection
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.llm.interaction import Found, Interaction, Unreadable
from optiinfra_pipelines.places import LlmSource
from optiinfra_pipelines.sandbox.gate import FAULTS_PATH, Gate, answer_json, read_body
from optiinfra_pipelines.windows import Window

WORKSPACE = "11111111-2222-3333-4444-555555555555"
TEN = datetime(2026, 11, 20, 10, tzinfo=UTC)
SPAN = Window(TEN, TEN + timedelta(minutes=15))
LLM_LOG, GATEWAY_LOG, DIAGNOSTICS = "ApiManagementGatewayLlmLog", "ApiManagementGatewayLogs", "AzureDiagnostics"
QUERY = re.compile(
    r"(\w+) \| where TimeGenerated >= datetime\((\S+)\) and TimeGenerated < datetime\((\S+)\)"
    r"( \| where Category == \"RequestResponse\")? \| project ([\w, ]+) \| order by TimeGenerated asc"
)


@dataclass
class Workspace:
    """A workspace with these rows by table, which answers `most` of them at once and then says that there are more."""

    url: str = ""
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    most: int = 500_000
    asked: list[tuple[str, datetime, datetime]] = field(default_factory=list)

    def fault(self, **fault: Any) -> None:
        assert httpx.post(self.url + FAULTS_PATH, json=fault).status_code == 200

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/login/tenant/oauth2/v2.0/token":
            assert b"scope=https%3A%2F%2Fapi.loganalytics.io%2F.default" in read_body(environ)
            return answer_json(start_response, {"access_token": "canary", "expires_in": 3600, "token_type": "Bearer"})
        assert environ["HTTP_AUTHORIZATION"] == "Bearer canary"
        assert environ["PATH_INFO"] == f"/logs/v1/workspaces/{WORKSPACE}/query"
        body = json.loads(read_body(environ))
        query = QUERY.fullmatch(body["query"])
        assert query, body["query"]
        table, columns = query.group(1), query.group(5).split(", ")
        start, end = (datetime.fromisoformat(each) for each in query.group(2, 3))
        assert [datetime.fromisoformat(each) for each in body["timespan"].split("/")] == [start, end]
        self.asked.append((table, start, end))
        if table not in self.tables:
            return answer_json(start_response, _semantic_error(table), 400)
        return answer_json(start_response, self._answer(table, columns, start, end))

    def _answer(self, table: str, columns: list[str], start: datetime, end: datetime) -> dict[str, Any]:
        found = [row for row in self.tables[table] if start <= datetime.fromisoformat(row["TimeGenerated"]) < end]
        rows = [[_cell(row.get(column)) for column in columns] for row in found]
        kinds = [{"name": column, "type": "datetime" if column == "TimeGenerated" else "string"} for column in columns]
        answer: dict[str, Any] = {"tables": [{"name": "PrimaryResult", "columns": kinds, "rows": rows[: self.most]}]}
        if len(rows) > self.most:
            inner = {"code": "-2133196797", "message": "The results of this query exceed the set limit of rows."}
            details = [{"code": "EngineError", "message": "Something went wrong.", "innererror": inner}]
            answer["error"] = {"code": "PartialError", "message": "There were some errors.", "details": details}
        return answer


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value  # as columns of type dynamic are sent


def _semantic_error(table: str) -> dict[str, Any]:
    said = f"'where' operator: Failed to resolve table or column expression named '{table}'"
    innermost = {"code": "SEM0100", "message": said}
    inner = {"code": "SemanticError", "message": "A semantic error occurred.", "innererror": innermost}
    message = "The request had some invalid properties"
    return {"error": {"code": "BadArgumentError", "message": message, "innererror": inner}}


def _error_body(status: int, _: Mapping[str, Any]) -> tuple[str, bytes]:
    return "application/json", json.dumps({"error": {"code": f"E{status}", "message": "as it was asked"}}).encode()


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log_request(self, *_: Any) -> None:
            """Silence."""

    running = Workspace()
    server = make_server("127.0.0.1", 0, Gate(running, _error_body), threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    running.url = f"http://127.0.0.1:{server.port}"
    yield running
    server.shutdown()
    thread.join()


def source(workspace: Workspace, **endpoints: str) -> Source:
    known = {"login": f"{workspace.url}/login", "logs": f"{workspace.url}/logs", **endpoints}
    names = {name: name.upper() for name in ("tenant_id", "client_id", "client_secret")}
    entry = {"id": "azure", "provider": "azure", "collect": ["inventory"], "endpoints": known, "credentials": names}
    secrets = {name: SecretStr(value) for name, value in zip(names, ("tenant", "client", "hidden"), strict=True)}
    return Source("acme", Connection.model_validate(entry), secrets)


def place(**settings: Any) -> LlmSource:
    return LlmSource.model_validate({"location": f"log-analytics://{WORKSPACE}", "format": "azure", **settings})


def read(workspace: Workspace, span: Window = SPAN) -> list[Found]:
    return list(azure_interactions(source(workspace), place(), span))


def ids(found: Iterable[Found]) -> list[str]:
    return [each.native_id for each in found if isinstance(each, Interaction)]


def at(seconds: float) -> str:
    """So many seconds after ten, in the digits of Log Analytics."""
    return (TEN + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")


def llm(seconds: float, correlation: str, number: int = 0, **columns: Any) -> dict[str, Any]:
    return {"TimeGenerated": at(seconds), "CorrelationId": correlation, "SequenceNumber": number, **columns}


def gateway(seconds: float, correlation: str, **columns: Any) -> dict[str, Any]:
    url = "https://x.azure-api.net/openai/deployments/chat-prod/chat/completions"
    return {"TimeGenerated": at(seconds), "CorrelationId": correlation, "Url": url, "Method": "POST", **columns}


def diagnostic(seconds: float, correlation: str) -> dict[str, Any]:
    properties = json.dumps({"modelDeploymentName": "chat-prod", "modelName": "gpt-4o", "modelVersion": "2024-08-06"})
    more = {"Category": "RequestResponse", "OperationName": "ChatCompletions_Create", "DurationMs": 1021}
    return {"TimeGenerated": at(seconds), "CorrelationId": correlation, **more, "properties_s": properties}


def test_one_request_in_three_tables_is_read_as_one_interaction_of_the_workspace(workspace: Workspace) -> None:
    asked = json.dumps({"messages": [{"role": "user", "content": "Capital?"}], "metadata": {"app": "shop"}})
    workspace.tables = {
        LLM_LOG: [
            llm(60, "c", 1, RequestMessages=[{"role": "user", "content": "Capital?"}]),
            llm(61, "c", 2, ResponseMessages=[{"role": "assistant", "content": "Paris."}]),
            llm(62, "c", 0, PromptTokens=9, CompletionTokens=2, ModelName="gpt-4o", DeploymentName="chat-prod"),
        ],
        GATEWAY_LOG: [gateway(59.5, "c", TotalTime=1300, RequestBody=asked, ResponseCode=200)],
        DIAGNOSTICS: [diagnostic(64, "c")],
    }
    (found,) = read(workspace)
    assert isinstance(found, Interaction)
    assert (found.native_id, found.account_id) == ("c", WORKSPACE)
    assert found.timestamp == TEN + timedelta(seconds=59.5)
    assert (found.texts.input, found.texts.output, found.content_state) == ("Capital?", "Paris.", "full")
    assert (found.application, found.latency_ms) == ("shop", 1300.0)
    assert (found.model_name, found.input_tokens, found.output_tokens) == ("gpt-4o-2024-08-06", 9, 2)
    assert found.details["tables"] == [LLM_LOG, GATEWAY_LOG, DIAGNOSTICS]


def test_a_request_belongs_to_the_span_in_which_its_first_row_lies_and_is_whole_there(workspace: Workspace) -> None:
    edge = 15 * 60
    workspace.tables = {
        LLM_LOG: [llm(edge + 30, "late", 0, ResponseMessages=[{"content": "Yes."}])],
        GATEWAY_LOG: [
            gateway(-1, "early", TotalTime=1),
            gateway(0, "first"),
            gateway(edge - 0.001, "late", TotalTime=1),
            gateway(edge, "next"),
        ],
        DIAGNOSTICS: [diagnostic(20, "early")],
    }
    before, now, after = (
        Window(SPAN.start + timedelta(minutes=step), SPAN.end + timedelta(minutes=step)) for step in (-15, 0, 15)
    )
    assert ids(read(workspace, before)) == ["early"]
    assert ids(read(workspace, after)) == ["next"]
    first, late = read(workspace, now)
    assert ids([first, late]) == ["first", "late"]
    assert isinstance(late, Interaction)
    assert (late.texts.output, late.latency_ms) == ("Yes.", 1.0)


def test_tables_that_the_workspace_does_not_have_are_empty(workspace: Workspace) -> None:
    assert read(workspace) == []
    workspace.tables = {DIAGNOSTICS: [diagnostic(5, "c")]}
    (found,) = read(workspace)
    assert isinstance(found, Interaction)
    assert (found.native_id, found.content_state) == ("c", "missing")


def test_a_day_is_asked_for_by_the_hour_and_every_request_comes_once(workspace: Workspace) -> None:
    day = Window(TEN, TEN + timedelta(hours=5))
    workspace.tables = {GATEWAY_LOG: [gateway(600 * number, f"c-{number}") for number in range(-3, 40)]}
    assert ids(read(workspace, day)) == [f"c-{number}" for number in range(30)]
    spans = [(start, end) for table, start, end in workspace.asked if table == GATEWAY_LOG]
    assert max(end - start for start, end in spans) == timedelta(hours=1)
    assert (spans[0][0], spans[-1][1]) == (day.start - timedelta(minutes=10), day.end + timedelta(minutes=10))


def test_what_is_read_is_handed_on_before_the_rest_is_asked_for(workspace: Workspace) -> None:
    workspace.tables = {GATEWAY_LOG: [gateway(600 * number, f"c-{number}") for number in range(40)]}
    reading = azure_interactions(source(workspace), place(), Window(TEN, TEN + timedelta(hours=5)))
    assert ids([next(reading)]) == ["c-0"]
    assert max(end for table, _, end in workspace.asked if table == GATEWAY_LOG) < TEN + timedelta(hours=2)
    assert [table for table, _, _ in workspace.asked].count(LLM_LOG) == 1  # it is not there, and not asked for again


def test_a_partial_answer_is_asked_for_again_in_halves(workspace: Workspace) -> None:
    workspace.tables = {GATEWAY_LOG: [gateway(number, f"c-{number}") for number in range(0, 900, 5)]}
    workspace.most = 20
    assert ids(read(workspace)) == [f"c-{number}" for number in range(0, 900, 5)]
    assert min(end - start for _, start, end in workspace.asked) > timedelta(minutes=1)


def test_a_minute_that_is_partial_still_is_an_error_that_says_which(workspace: Workspace) -> None:
    workspace.tables = {GATEWAY_LOG: [gateway(300 + number, f"c-{number}") for number in range(50)]}
    workspace.most = 20
    with pytest.raises(
        CollectionError, match=r"ApiManagementGatewayLogs .* 2026-11-20 10:0\d:\d\d UTC.* limit of rows"
    ) as raised:
        read(workspace)
    assert raised.value.kind == "malformed"


def test_rows_that_cannot_be_read_are_handed_on_and_the_others_are_read(workspace: Workspace) -> None:
    broken = diagnostic(5, "broken") | {"properties_s": "{"}
    nameless = gateway(6, "") | {"CorrelationId": None}
    workspace.tables = {
        DIAGNOSTICS: [broken, diagnostic(7, "c")],
        GATEWAY_LOG: [nameless, gateway(-5, "") | {"CorrelationId": None}],
    }
    found = read(workspace)
    assert ids(found) == ["c"]
    reasons = [each.reason for each in found if isinstance(each, Unreadable)]
    assert sorted(reasons) == ["has no CorrelationId", "its properties are no JSON object"]


def test_too_many_requests_are_waited_for_and_counted(workspace: Workspace) -> None:
    workspace.tables = {GATEWAY_LOG: [gateway(5, "c")]}
    workspace.fault(status=429, match="/query", headers={"Retry-After": "0"})
    asking = source(workspace)
    assert ids(azure_interactions(asking, place(), SPAN)) == ["c"]
    assert asking.calls.made["logs", "query"][0] == len(workspace.asked) + 1
    assert asking.calls.made["login", "token"][0] == 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"status": 403}, "auth"),
        ({"status": 404}, "not_configured"),
        ({"status": 429, "headers": {"Retry-After": "3600"}}, "throttled"),
    ],
)
def test_a_workspace_that_cannot_be_read_is_an_error_of_its_kind(
    workspace: Workspace, fault: dict[str, Any], kind: str
) -> None:
    workspace.fault(match="/query", **fault)
    with pytest.raises(CollectionError) as raised:
        read(workspace)
    assert raised.value.kind == kind
    assert WORKSPACE in str(raised.value)


def test_an_endpoint_of_the_place_goes_before_the_connection_s(workspace: Workspace) -> None:
    workspace.tables = {GATEWAY_LOG: [gateway(5, "c")]}
    elsewhere = source(workspace, logs="http://127.0.0.1:9")
    own = place(endpoint_url=f"{workspace.url}/logs")
    assert ids(azure_interactions(elsewhere, own, SPAN)) == ["c"]
