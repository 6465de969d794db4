"""Requests to Azure OpenAI as a Log Analytics workspace holds them: which tables are asked for what, in which spans.
What the rows mean is in `llm/azure_openai.py`."""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from optiinfra_pipelines.clouds.azure.client import Access
from optiinfra_pipelines.clouds.collecting import Source
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.llm.azure_openai import DIAGNOSTICS, GATEWAY_LOG, LLM_LOG, Row, moment, requests_of
from optiinfra_pipelines.llm.interaction import Found, Interaction
from optiinfra_pipelines.places import LlmSource
from optiinfra_pipelines.windows import Window, as_utc

if TYPE_CHECKING:
    from optiinfra_pipelines.clouds.azure.monitor import Monitor

COLUMNS: Mapping[str, tuple[str, ...]] = {
    LLM_LOG: (
        *("TimeGenerated", "CorrelationId", "RequestId", "SequenceNumber", "OperationName", "ApiVersion"),
        *("DeploymentName", "ModelName", "Region", "IsStreamCompletion"),
        *("PromptTokens", "CompletionTokens", "TotalTokens", "RequestMessages", "ResponseMessages"),
    ),
    GATEWAY_LOG: (
        *("TimeGenerated", "CorrelationId", "ApiId", "ApimSubscriptionId", "ProductId", "OperationId", "Method"),
        *("Url", "Region", "ResponseCode", "BackendResponseCode", "TotalTime", "BackendTime"),
        *("RequestBody", "ResponseBody", "BackendRequestBody", "BackendResponseBody"),
    ),
    DIAGNOSTICS: (
        *("TimeGenerated", "CorrelationId", "Category", "OperationName", "DurationMs", "ResultSignature"),
        "properties_s",
    ),
}
APART = timedelta(minutes=10)
"""How far apart the rows of one request may lie: OpenAI's clients wait this long for an answer."""
_ASKED = timedelta(hours=1)  # of logs at once
_LEAST = timedelta(minutes=1)

_Told = tuple[datetime, str, Row]


def azure_interactions(source: Source, place: LlmSource, span: Window) -> Iterator[Found]:
    """Every request to a model that a workspace's logs tell of, with its timestamp in `span`, each once.

    The timestamp is the earliest TimeGenerated of a request's rows, when it came in as far as Azure tells. Other
    rows of it may be written up to APART later, so so much is asked for beyond both ends of `span`; a row that is
    later still counts as a request of its own. Rows that cannot be read are found where their own time lies.
    A table that the workspace does not have is empty. CollectionError: auth, not_configured, throttled, transient,
    malformed (and where one minute of a table is more than Log Analytics answers at once).
    """
    from optiinfra_pipelines.clouds.azure.monitor import Monitor

    if place.endpoint_url is not None:
        endpoints = {**source.connection.endpoints, "logs": place.endpoint_url}
        source = replace(source, connection=source.connection.model_copy(update={"endpoints": endpoints}))
    workspace = place.location.partition("://")[2]
    monitor = Monitor(source, Access(source))
    around = Window(as_utc(span.start) - APART, as_utc(span.end) + APART)
    tables = [_rows(monitor, source.name, workspace, table, around) for table in COLUMNS]
    for rows in _by_correlation(heapq.merge(*tables, key=lambda told: told[0])):
        for found in requests_of(
            [(table, row) for _, table, row in rows], place.application_label, place.variant_label
        ):
            if isinstance(found, Interaction):
                if span.contains(found.timestamp):
                    yield replace(found, account_id=workspace)
            elif span.contains(at := moment(found.record) or rows[0][0]):
                yield replace(found, at=at)


def _by_correlation(told: Iterator[_Told]) -> Iterator[list[_Told]]:
    """Rows, which come in the order of their time, by their CorrelationId. A row without one stands alone."""
    open_: dict[str, list[_Told]] = {}
    for each in told:
        correlation = each[2].get("CorrelationId")
        if not isinstance(correlation, str) or not correlation:
            yield [each]
            continue
        while open_ and (first := next(iter(open_.values())))[0][0] < each[0] - APART:
            yield open_.pop(first[0][2]["CorrelationId"])
        open_.setdefault(correlation, []).append(each)
    yield from open_.values()


def _rows(monitor: "Monitor", name: str, workspace: str, table: str, span: Window) -> Iterator[_Told]:
    """The rows of a table in the order of their time. Where an answer is partial, halves of its span are asked for.
    https://learn.microsoft.com/azure/azure-monitor/service-limits#log-analytics-workspaces"""
    left = [span]
    while left:
        start, end = left.pop()
        if end - start > _ASKED:
            left.append(Window(start + _ASKED, end))
            end = start + _ASKED
        asked = Window(start, end)
        answer = monitor.workspace(workspace, _query(table, asked), asked)
        if answer is None:
            return
        if answer.get("error"):
            if end - start <= _LEAST:
                raise CollectionError(
                    "malformed",
                    f"{name}: {table} of workspace {workspace} is only partly answered even for the minute from"
                    f" {start:%Y-%m-%d %H:%M:%S} UTC: {_said(answer['error'])}; log a sample of the requests",
                )
            half = start + max((end - start) / 2, _LEAST)
            left += [Window(half, end), Window(start, half)]
            continue
        told = [(moment(row) or start, table, row) for row in _table(answer, name, table)]
        del answer  # it may be 100 MB
        yield from sorted((each for each in told if asked.contains(each[0])), key=lambda each: each[0])


def _query(table: str, span: Window) -> str:
    start, end = (at.astimezone(UTC).strftime("datetime(%Y-%m-%dT%H:%M:%S.%fZ)") for at in span)
    # every kind of resource may log to the table of diagnostics
    of_models = ' | where Category == "RequestResponse"' if table == DIAGNOSTICS else ""
    return (
        f"{table} | where TimeGenerated >= {start} and TimeGenerated < {end}{of_models}"
        f" | project {', '.join(COLUMNS[table])} | order by TimeGenerated asc"
    )


def _table(answer: Any, name: str, table: str) -> Iterator[Row]:
    try:
        for each in answer["tables"]:
            columns = [column["name"] for column in each["columns"]]
            for row in each["rows"]:
                yield dict(zip(columns, row, strict=True))
    except (KeyError, TypeError, ValueError) as problem:
        raise CollectionError(
            "malformed", f"{name}: the answer of Log Analytics about {table} is no table ({type(problem).__name__})"
        ) from None


def _said(error: Mapping[str, Any]) -> str:
    """The code and message that lie innermost in a partial error: the outer ones only say that there is one."""
    inner = error.get("innererror") or next(iter(error.get("details") or ()), None)
    return _said(inner) if isinstance(inner, Mapping) else f"{error.get('code')} {error.get('message')}"[:300]
