"""Google Cloud's APIs over HTTP: tokens of a service account, and the calls that the collector makes.

What answers mean is in the parsers; the BigQuery client is opened in `bigquery.py`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property, partial
from threading import Lock
from types import MappingProxyType
from typing import Any

import httpx

from optiinfra_pipelines.clouds.collecting import Source
from optiinfra_pipelines.clouds.gcp.vocabulary import SERIES_PRICE
from optiinfra_pipelines.clouds.rest import Api, pages, trusted
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.windows import Window, as_utc

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
HOSTS = {
    "compute": "https://compute.googleapis.com",
    "monitoring": "https://monitoring.googleapis.com",
    "sqladmin": "https://sqladmin.googleapis.com",
    "cloudbilling": "https://cloudbilling.googleapis.com",
    "bigquery": "https://bigquery.googleapis.com",
}
# The most that one answer holds, by the methods' reference: instances.aggregatedList maxResults, timeSeries.list
# pageSize (points), instances.list of Cloud SQL, skus.list
COMPUTE_PAGE, SERIES_PAGE, SQL_PAGE, SKUS_PAGE = 500, 100_000, 1000, 5000


class Access:
    """The connection's Google credentials: a service account's key, or those that the machine has by itself.

    Opening contacts nobody where there is a key. CollectionError: not_configured for a key that cannot be read.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = Lock()
        self._lent = ""

    @cached_property
    def _found(self) -> tuple[Any, str | None]:
        import google.auth
        from google.auth.exceptions import DefaultCredentialsError, MalformedError
        from google.oauth2 import service_account

        key = self._source.secret("service_account_json")
        try:
            if key is None:
                return google.auth.default(scopes=[SCOPE])
            info = {**json.loads(key)}
            if "oauth2" in self._source.connection.endpoints:
                info["token_uri"] = self._source.endpoint("oauth2", "") + "/token"
            return service_account.Credentials.from_service_account_info(info, scopes=[SCOPE]), info.get("project_id")
        except DefaultCredentialsError:
            why = "this machine has no Google credentials; name service_account_json under credentials"
        except (MalformedError, ValueError, TypeError):  # their texts may quote the key
            why = "service_account_json holds no service account key; it is the whole JSON file that Google gives"
        raise CollectionError("not_configured", f"{self._source.name}: {why}")

    def lend(self) -> Any:
        """Credentials for a client of Google's own. They ask here for tokens, so that every one is accounted for, and
        nobody else: service account credentials look up boundaries of their own accord before a request."""
        from google.oauth2.credentials import Credentials

        return Credentials(None, refresh_handler=self._lend_token)

    def _lend_token(self, request: Any, scopes: Any) -> tuple[str, Any]:
        self.headers(f"Bearer {self._lent}")  # who asks again was refused with what was lent
        self._lent = self._found[0].token
        return self._lent, self._found[0].expiry

    @property
    def projects(self) -> tuple[str, ...]:
        """The projects to collect: `accounts` of the connection, else the credentials' own."""
        own = self._found[1]
        if self._source.connection.accounts or own:
            return self._source.connection.accounts or (str(own),)
        raise CollectionError(
            "not_configured", f"{self._source.name}: the credentials name no project; list projects under accounts"
        )

    def headers(self, refused: str = "") -> Mapping[str, str]:
        """See rest.Authorize; CollectionError: auth where Google refuses the key, transient on silence."""
        with self._lock:
            if not self._found[0].valid or refused == f"Bearer {self._found[0].token}":
                self._refresh()
            return {"Authorization": f"Bearer {self._found[0].token}"}

    def _refresh(self) -> None:
        from google.auth.exceptions import RefreshError, TransportError
        from google.auth.transport.requests import Request

        self._source.calls.add("oauth2", "token")
        try:
            self._found[0].refresh(partial(Request(), timeout=self._source.timeout))
        except (RefreshError, TransportError) as error:
            again = isinstance(error, TransportError) or error.retryable
            advice = (
                "the next run tries again" if again else "check service_account_json and that its key is not revoked"
            )
            raise CollectionError(
                "transient" if again else "auth",
                f"{self._source.name}: no Google access token ({told(error.args[0])}); {advice}",
            ) from None


@dataclass(frozen=True)
class GoogleCloud:
    """One connection's calls. Methods give decoded pages and raise what `clouds.rest.Api` raises."""

    source: Source
    access: Access
    client: httpx.Client

    def _api(self, service: str, parse_float: Callable[[str], Any] = float) -> Api:
        return Api(
            self.source,
            service,
            self.source.endpoint(service, HOSTS[service]),
            self.client,
            self.access.headers,
            parse_float,
        )

    def aggregated(self, project: str, kind: str, expression: str = "") -> Iterator[Any]:
        """Pages of aggregatedList of `kind` (instances, disks, addresses, machineTypes), partial ones as well."""
        params = {"returnPartialSuccess": "true", "filter": expression}
        return self._listed(
            f"/compute/v1/projects/{project}/aggregated/{kind}", f"{kind}.aggregatedList", project, params
        )

    def global_list(self, project: str, kind: str) -> Iterator[Any]:
        """Pages of the global list of `kind` (snapshots, images)."""
        return self._listed(f"/compute/v1/projects/{project}/global/{kind}", f"{kind}.list", project, {})

    def databases(self, project: str) -> Iterator[Any]:
        """Pages of the Cloud SQL instances."""
        path = f"/v1/projects/{project}/instances"
        params = {"maxResults": SQL_PAGE}
        return self._paged("sqladmin", path, "instances.list", project, params)

    def series(
        self, project: str, expression: str, aligner: str, span: Window, seconds: int, expected: int
    ) -> Iterator[Any]:
        """Pages of timeSeries.list: points of the windows of `seconds` that end in (span.start, span.end].

        Google charges by the series returned; `expected` is how many that will be, for the account of calls.
        """
        params = {
            "filter": expression,
            "interval.startTime": _rfc3339(span.start),
            "interval.endTime": _rfc3339(span.end),
            "aggregation.alignmentPeriod": f"{seconds}s",
            "aggregation.perSeriesAligner": aligner,
            "view": "FULL",
            "pageSize": SERIES_PAGE,
        }
        paid = {"units": expected, "price": expected * SERIES_PRICE}
        return self._paged(
            "monitoring", f"/v3/projects/{project}/timeSeries", "timeSeries.list", project, params, paid=paid
        )

    def skus(self, service_id: str) -> Iterator[Any]:
        """Pages of one service's SKUs in the public price list, numbers as Decimal."""
        path = f"/v1/services/{service_id}/skus"
        return self._paged("cloudbilling", path, "skus.list", service_id, {"pageSize": SKUS_PAGE}, Decimal)

    def _listed(self, path: str, operation: str, project: str, params: Mapping[str, Any]) -> Iterator[Any]:
        asked = {name: value for name, value in params.items() if value} | {"maxResults": COMPUTE_PAGE}
        return self._paged("compute", path, operation, project, asked)

    def _paged(
        self,
        service: str,
        path: str,
        operation: str,
        owner: str,
        params: Mapping[str, Any],
        parse_float: Callable[[str], Any] = float,
        paid: Mapping[str, Any] = MappingProxyType({}),
    ) -> Iterator[Any]:
        api = self._api(service, parse_float)

        def fetch(cursor: str | None) -> Any:
            return api.get(path, operation, {**params, "pageToken": cursor} if cursor else params, **paid)

        return pages(
            fetch, lambda page: page.get("nextPageToken"), f"{self.source.name}: {service} {operation} of {owner}"
        )


@contextmanager
def open_cloud(source: Source, access: Access) -> Iterator[GoogleCloud]:
    """The calls of one connection, over HTTP connections that are closed at the end."""
    with httpx.Client(verify=trusted(), limits=httpx.Limits(max_connections=8)) as client:
        yield GoogleCloud(source, access, client)


def told(error: object) -> str:
    """What an error of Google's libraries says; its kind alone where it tells of a header: those hold credentials."""
    return type(error).__name__ if "header" in str(error).lower() else str(error)


def _rfc3339(at: Any) -> str:
    return f"{as_utc(at):%Y-%m-%dT%H:%M:%SZ}"
