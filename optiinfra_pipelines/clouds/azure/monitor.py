"""Requests to Azure Monitor by its SDKs: metrics of batches of resources, logs of a subscription. Imported only where
metrics are collected. Answers are handed on as decoded JSON: the SDKs' own models cost more than parsing does."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from azure.core.exceptions import AzureError, DecodeError, HttpResponseError
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import HTTPPolicy, RetryPolicy
from azure.monitor.query import LogsQueryClient
from azure.monitor.querymetrics import MetricsClient

from optiinfra_pipelines.clouds.azure.client import Access, retrying
from optiinfra_pipelines.clouds.azure.vocabulary import AGGREGATIONS, GUEST_QUERY, NAMESPACES, READINGS
from optiinfra_pipelines.clouds.collecting import Source
from optiinfra_pipelines.clouds.rest import LONGEST_WAIT, RetryLater, retry_after, said_of
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.windows import WINDOW, Window

BATCH = 50  # resources in one getBatch: https://learn.microsoft.com/azure/azure-monitor/metrics/migrate-to-batch-api
REGIONAL = "https://{region}.metrics.monitor.azure.com"
LOGS = "https://api.loganalytics.io"


class _Asking(HTTPPolicy[Any, Any]):
    """Counts a request, says who asks, and asks once more with a new token where the last one was refused."""

    def __init__(self, access: Access, service: str, operation: str) -> None:
        super().__init__()
        self._access, self._service, self._operation = access, service, operation

    def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        token = self._access.token(self._service)
        answer = self._send(request, token)
        if answer.http_response.status_code == 401:
            answer = self._send(request, self._access.token(self._service, refused=token))
        return answer

    def _send(self, request: PipelineRequest[Any], token: str) -> PipelineResponse[Any, Any]:
        self._access.source.calls.add(self._service, self._operation)
        request.http_request.headers["Authorization"] = f"Bearer {token}"
        return self.next.send(request)


class Monitor:
    """Azure Monitor for one connection. Its methods raise CollectionError: auth, not_configured (404), throttled,
    transient, malformed."""

    def __init__(self, source: Source, access: Access) -> None:
        self._source = source
        self._access = access

    def metrics(self, region: str, resource_type: str, resource_ids: Sequence[str], span: Window) -> list[Any]:
        """The `values` of metrics:getBatch for up to BATCH resources of one subscription, region and type.

        One that is gone since the inventory makes Azure refuse the batch: then halves are asked for, and that one
        has no values.
        """
        try:
            return list(self._batch(region, resource_type, resource_ids, span)["values"])
        except CollectionError as error:
            if error.kind != "not_configured":
                raise
        half = len(resource_ids) // 2
        halves = (resource_ids[:half], resource_ids[half:]) if half else ()
        return [value for each in halves for value in self.metrics(region, resource_type, each, span)]

    def _batch(self, region: str, resource_type: str, resource_ids: Sequence[str], span: Window) -> Any:
        address = self._source.endpoint("metrics", REGIONAL.format(region=region))
        what = f"metrics getBatch of {len(resource_ids)} {resource_type}s in {region}"
        with MetricsClient(address, self._access, **self._options("metrics", "getBatch")) as client:  # type: ignore[arg-type]
            return self._decoded(
                what,
                lambda keep: client.query_resources(
                    resource_ids=resource_ids,
                    metric_namespace=NAMESPACES[resource_type],
                    metric_names=list(READINGS[resource_type]),
                    timespan=(span.start, span.end),
                    granularity=WINDOW,
                    aggregations=AGGREGATIONS[resource_type],
                    cls=keep,
                ),
            )

    def guests(self, subscription: str, span: Window) -> Any:
        """The answer to GUEST_QUERY over all workspaces that hold logs of a subscription's resources; None where no
        agent has ever reported any. An answer may be partial: it then has an `error`."""
        return self._logs(
            f"logs query of subscription {subscription}",
            lambda client, keep: client.query_resource(
                f"/subscriptions/{subscription}",
                GUEST_QUERY,
                timespan=(span.start, span.end - timedelta(microseconds=1)),
                cls=keep,
            ),
        )

    def workspace(self, workspace_id: str, query: str, span: Window) -> Any:
        """The answer to `query` over what a workspace got in `span`; None where it has no such table. An answer may
        be partial: it then has an `error`."""
        return self._logs(
            f"logs query of workspace {workspace_id}",
            lambda client, keep: client.query_workspace(workspace_id, query, timespan=(span.start, span.end), cls=keep),
        )

    def _logs(self, what: str, ask: Callable[[LogsQueryClient, Callable[..., Any]], Any]) -> Any:
        address = self._source.endpoint("logs", LOGS)
        with LogsQueryClient(self._access, endpoint=address, **self._options("logs", "query")) as client:  # type: ignore[arg-type]
            try:
                return self._decoded(what, lambda keep: ask(client, keep))
            except CollectionError as error:
                if "SemanticError" in str(error) or "SEM0100" in str(error):  # none of the tables is there
                    return None
                raise

    def _options(self, service: str, operation: str) -> dict[str, Any]:
        # the SDKs would refuse plain http to a private endpoint, and not repeat a POST: both are done here
        return {
            "authentication_policy": _Asking(self._access, service, operation),
            "retry_policy": RetryPolicy.no_retries(),
            "connection_timeout": self._source.timeout,
            "read_timeout": self._source.timeout,
        }

    def _decoded(self, what: str, ask: Callable[[Callable[..., Any]], Any]) -> Any:
        def once() -> Any:
            kept: list[Any] = []

            def keep(_: Any, decoded: Any, __: Any) -> dict[str, Any]:
                kept.append(decoded)
                return {"values": [], "tables": []}

            try:
                ask(keep)
            except AzureError as error:
                raise self._told_apart(what, error) from None
            return kept[0]

        return retrying(self._source, once)

    def _told_apart(self, what: str, error: AzureError) -> Exception:
        def of(kind: Any, why: str) -> CollectionError:
            return CollectionError(kind, f"{self._source.name}: {what}: {why}")

        if isinstance(error, DecodeError):
            return RetryLater(of("malformed", "the answer is no whole JSON"))
        if not isinstance(error, HttpResponseError) or error.response is None:
            return RetryLater(of("transient", f"the connection broke ({type(error).__name__})"))
        status = error.status_code or 0
        said = f"{status} {_said(error)}"
        if status in (401, 403):
            return of("auth", f"{said}; check the connection's credentials and that they may read this")
        if status == 404:
            return of("not_configured", said)
        if status == 429 or status >= 500:
            wait = retry_after(_headers(error))
            failed = of("throttled" if status == 429 else "transient", f"{said}; the next run tries again")
            return failed if wait is not None and wait > LONGEST_WAIT else RetryLater(failed, wait)
        return of("malformed", said)


def _headers(error: HttpResponseError) -> Mapping[str, str]:
    return getattr(error.response, "headers", {})


def _said(error: HttpResponseError) -> str:
    body: bytes = getattr(error.response, "content", b"")
    inner = " SemanticError" if b"SemanticError" in body or b"SEM0100" in body else ""
    return said_of(body) + inner
