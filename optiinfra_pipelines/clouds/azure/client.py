"""Requests to Azure's REST APIs: tokens, Resource Graph, Resource Manager, Cost Management, Retail Prices. What the
answers mean is in the parsers; the SDKs of Azure Monitor are in `monitor.py`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from threading import Lock
from time import monotonic, time
from typing import Any

import httpx

from optiinfra_pipelines.clouds.collecting import Source
from optiinfra_pipelines.clouds.rest import Api, RetryLater, pages, retry_after, said_of, trusted, wait_as_asked
from optiinfra_pipelines.errors import CollectionError, ErrorKind

LOGIN = "https://login.microsoftonline.com"
MANAGEMENT = "https://management.azure.com"
PRICES = "https://prices.azure.com"
SCOPES: Mapping[str, str] = {
    "management": "https://management.azure.com/.default",
    "metrics": "https://metrics.monitor.azure.com/.default",
    "logs": "https://api.loganalytics.io/.default",
}
_EARLY = 120.0  # seconds before its end at which a token is no longer used
_GRAPH = "/providers/Microsoft.ResourceGraph/resources"
_GRAPH_PAGE = 1_000  # the most that Resource Graph gives at once
# What inventory asks for. Subscriptions come along to tell one that may not be read from one that is empty:
# Resource Graph leaves out what the caller may not see, and says nothing.
INVENTORY_QUERY = """\
resources
| where type in~ ('microsoft.compute/virtualmachines', 'microsoft.compute/disks', 'microsoft.compute/snapshots',
    'microsoft.compute/images', 'microsoft.compute/galleries/images/versions', 'microsoft.network/publicipaddresses',
    'microsoft.network/networkinterfaces', 'microsoft.sql/servers/databases')
| union (resourcecontainers | where type =~ 'microsoft.resources/subscriptions')
| project id, name, type, location, tags, sku, kind, zones, managedBy, subscriptionId, properties
| order by id asc
"""
REGIONS_QUERY = """\
resources
| where type in~ ('microsoft.compute/virtualmachines', 'microsoft.compute/disks', 'microsoft.sql/servers/databases')
| summarize subscription = min(subscriptionId) by id = tolower(location)
| order by id asc
"""


@dataclass
class Access:
    """Tokens of a connection, one a scope, each asked for once and again when it ends. Safe across threads.

    With credentials of an app registration they are asked for at the login endpoint; without, azure-identity's
    DefaultAzureCredential finds them on the machine. CollectionError (auth) where who asks is refused.
    """

    source: Source
    _tokens: dict[str, tuple[str, float]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def token(self, service: str, refused: str = "") -> str:
        """A bearer token for `service`, a key of SCOPES; a new one where `refused` is the one that is kept."""
        with self._lock:
            token, until = self._tokens.get(service, ("", 0.0))
            if monotonic() > until or token == refused:
                token, seconds = self._ask(SCOPES[service])
                self._tokens[service] = token, monotonic() + seconds - min(_EARLY, seconds / 2)
            return token

    def headers(self, refused: str) -> dict[str, str]:
        """Authorization for Resource Manager; see rest.Authorize."""
        token = self.token("management", refused.removeprefix("Bearer "))
        return {"Authorization": f"Bearer {token}"}

    def _ask(self, scope: str) -> tuple[str, float]:
        tenant, client = self.source.secret("tenant_id"), self.source.secret("client_id")
        secret = self.source.secret("client_secret")
        if tenant is None and client is None and secret is None:
            return self._from_the_machine(scope)
        if tenant is None or client is None or secret is None:
            raise CollectionError(
                "not_configured", f"{self.source.name}: tenant_id, client_id and client_secret go together"
            )
        form = {"grant_type": "client_credentials", "client_id": client, "client_secret": secret, "scope": scope}
        address = f"{self.source.endpoint('login', LOGIN)}/{tenant}/oauth2/v2.0/token"
        found = retrying(self.source, lambda: self._post(address, form))
        return str(found["access_token"]), float(found["expires_in"])

    def _post(self, address: str, form: Mapping[str, str]) -> Any:
        self.source.calls.add("login", "token")
        try:
            answer = httpx.post(address, data=form, timeout=self.source.timeout)
            if answer.is_success:
                return answer.json()
        except httpx.TransportError as error:
            raise RetryLater(self._error("transient", type(error).__name__)) from None
        except ValueError:
            raise RetryLater(self._error("malformed", "the answer is no JSON")) from None
        if answer.status_code in (429, 500, 502, 503, 504):
            kind: ErrorKind = "throttled" if answer.status_code == 429 else "transient"
            raise RetryLater(self._error(kind, f"{answer.status_code}"), retry_after(answer.headers))
        raise self._error("auth", f"{answer.status_code} {_refusal(answer)}; check the connection's credentials")

    def _from_the_machine(self, scope: str) -> tuple[str, float]:
        from azure.core.exceptions import ClientAuthenticationError
        from azure.identity import DefaultAzureCredential

        self.source.calls.add("login", "token")
        try:
            token = DefaultAzureCredential().get_token(scope)
        except ClientAuthenticationError as error:
            raise self._error("auth", f"{type(error).__name__}; name credentials in customers.yaml") from None
        return token.token, token.expires_on - time()

    def _error(self, kind: ErrorKind, what: str) -> CollectionError:
        return CollectionError(kind, f"{self.source.name}: login token: {what}")


def _refusal(answer: httpx.Response) -> str:
    try:
        return f"{answer.json()['error']} {str(answer.json().get('error_description', ''))[:200]}"
    except (ValueError, KeyError, TypeError):
        return said_of(answer.content)


def retrying(source: Source, attempt: Any) -> Any:
    """The result of `attempt`, tried as often as the source allows while it raises RetryLater."""
    import tenacity

    again = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(RetryLater),
        stop=tenacity.stop_after_attempt(source.attempts),
        wait=wait_as_asked,
        reraise=True,
    )
    try:
        return again(attempt)
    except RetryLater as last:
        raise last.error from last


@dataclass(frozen=True)
class Azure:
    """The REST APIs opened for one connection; every method raises what rest.Api raises."""

    source: Source
    arm: Api
    bills: Api
    retail: Api

    def graph(self, query: str) -> Iterator[dict[str, Any]]:
        """Every record that Resource Graph finds in the connection's subscriptions (none named: all it may read).

        CollectionError (malformed) where pages together do not hold as many records as the answer says there are.
        """
        asked: dict[str, Any] = {"query": query}
        if self.source.connection.accounts:
            asked["subscriptions"] = list(self.source.connection.accounts)

        def fetch(cursor: str | None) -> Any:
            options = {"resultFormat": "objectArray", "$top": _GRAPH_PAGE} | ({"$skipToken": cursor} if cursor else {})
            return self.arm.post(
                _GRAPH, "resources", asked | {"options": options}, params={"api-version": "2022-10-01"}
            )

        ids: set[str] = set()
        total = 0
        for page in pages(fetch, lambda page: page.get("$skipToken"), f"{self.source.name}: Resource Graph"):
            total = page["totalRecords"]
            for record in page["data"]:
                if record["id"].lower() in ids:
                    raise self._incomplete(f"sent {record['id']} twice")
                ids.add(record["id"].lower())
                yield record
        if len(ids) != total:
            raise self._incomplete(f"sent {len(ids)} of {total} records")

    def _incomplete(self, what: str) -> CollectionError:
        return CollectionError("malformed", f"{self.source.name}: Resource Graph {what}; the next run asks again")

    def created(self, subscription: str, types: Sequence[str]) -> dict[str, str]:
        """When resources of `types` were created, by lower-case id: Resource Graph does not tell of images and
        addresses. https://learn.microsoft.com/rest/api/resources/resources/list ($expand=createdTime)"""
        wanted = " or ".join(f"resourceType eq '{each}'" for each in types)
        params = {"api-version": "2021-04-01", "$filter": wanted, "$expand": "createdTime"}
        found = self._listed(f"/subscriptions/{subscription}/resources", "resources.list", params)
        return {each["id"].lower(): each["createdTime"] for each in found if each.get("createdTime")}

    def sizes(self, subscription: str, region: str) -> list[dict[str, Any]]:
        """The SKUs of Microsoft.Compute in a region. https://learn.microsoft.com/rest/api/compute/resource-skus/list"""
        params = {"api-version": "2021-07-01", "$filter": f"location eq '{region}'"}
        path = f"/subscriptions/{subscription}/providers/Microsoft.Compute/skus"
        return list(self._listed(path, "resourceSkus.list", params))

    def _listed(self, path: str, operation: str, params: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        def fetch(link: str | None) -> Any:
            return self.arm.get(link or path, operation, None if link else params)

        for page in pages(fetch, lambda page: page.get("nextLink"), f"{self.source.name}: {operation}"):
            yield from page["value"]

    def costs(self, subscription: str, body: Mapping[str, Any]) -> Iterator[Any]:
        """Every page of a Cost Management query; none where there is nothing. The next page is POSTed the same body.
        https://learn.microsoft.com/rest/api/cost-management/query/usage?view=rest-cost-management-2025-03-01"""
        path = f"/subscriptions/{subscription}/providers/Microsoft.CostManagement/query"

        def fetch(link: str | None) -> Any:
            return self.bills.post(link or path, "query", body, None if link else {"api-version": "2025-03-01"})

        def following(page: Any) -> str | None:
            return page["properties"].get("nextLink") if page else None

        for page in pages(fetch, following, f"{self.source.name}: Cost Management query"):
            if page:
                yield page["properties"]

    def prices(self, where: str) -> Iterator[dict[str, Any]]:
        """Every item of the Retail Prices API that `where` (OData) holds for, amounts as Decimal.
        https://learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices"""

        def fetch(link: str | None) -> Any:
            params = {"api-version": "2023-01-01-preview", "$filter": where}
            return self.retail.get(link or "/api/retail/prices", "prices", None if link else params)

        for page in pages(fetch, lambda page: page.get("NextPageLink"), f"{self.source.name}: Retail Prices"):
            yield from page["Items"]


@contextmanager
def open_azure(source: Source, access: Access) -> Iterator[Azure]:
    """The REST APIs of a connection, with connections kept open while the block lasts."""
    with httpx.Client(verify=trusted()) as client:
        management = source.endpoint("management", MANAGEMENT)
        arm = Api(source, "management", management, client, access.headers)
        bills = Api(source, "cost-management", management, client, access.headers, Decimal)
        retail = Api(source, "retail-prices", source.endpoint("prices", PRICES), client, lambda _: {}, Decimal)
        yield Azure(source, arm, bills, retail)
