"""Azure of the sandbox: login, Resource Manager, Resource Graph, Monitor metrics and logs, Cost Management and Retail
Prices on one loopback server. What answers look like is in `azure_wire.py`."""

import argparse
import json
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from optiinfra_pipelines.sandbox.azure_wire import Wire, price_items
from optiinfra_pipelines.sandbox.fleet import Fleet, Resource, Series, account_of
from optiinfra_pipelines.sandbox.gate import (
    FAULT_IN_ENVIRON,
    Fault,
    Gate,
    answer,
    answer_json,
    read_body,
    serve,
    serve_apart,
)
from optiinfra_pipelines.sandbox.interactions import Corpus
from optiinfra_pipelines.sandbox.log_analytics import BadQuery, workspace_answer, workspace_id

_GRAPH = "Microsoft.ResourceGraph/resources"
_GRAPH_MOST = 1_000
_COST_PAGE = 100
_PRICE_PAGE = 5
_QPU = "x-ms-ratelimit-microsoft.costmanagement-"
_THROTTLED = {
    "Retry-After": "0",
    f"{_QPU}qpu-retry-after": "0",
    f"{_QPU}entity-retry-after": "1",
    f"{_QPU}tenant-retry-after": "0",
}
_LONG_AGO = "Thu, 01 Jan 2015 00:00:00 GMT"  # what a server with a wrong clock says it is, and to wait until
FAULTS: Mapping[str, Fault | None] = {
    "throttled": Fault("status", 429, match=_GRAPH, headers=_THROTTLED),
    "server_error_500": Fault("status", 500, match="POST /m"),  # management and metrics
    "server_error_503": Fault("status", 503, match="POST /m"),
    "connection_reset": Fault("reset", match="POST /m"),
    "timeout": Fault("hang", match="POST /m", seconds=2),
    "truncated_json": Fault("cut", match="POST /m"),
    "partial_page": Fault("partial_page", match=_GRAPH),
    "endless_cursor": Fault("endless_cursor", times=2, match=_GRAPH),
    "repeated_page": Fault("repeated_page", times=2, match=_GRAPH),
    "token_expiry": Fault("status", 401, match="POST /m"),
    "clock_skew": Fault("status", 429, match="POST /m", headers={"Date": _LONG_AGO, "Retry-After": _LONG_AGO}),
    "empty_zone": None,
    "permission_denied": Fault("status", 403, match="POST /logs/"),  # logs alone
    "region_not_enabled": None,
}
ABSENT: Mapping[str, str] = {  # why there is no such fault
    "empty_zone": "nothing is listed by zone: Resource Graph answers for all subscriptions and regions at once",
    "region_not_enabled": "a subscription may use every region; what is in none is asked for nowhere",
}
_KINDS = ("partial_page", "endless_cursor", "repeated_page", "no_tables")


def serve_azure(
    today: date, customers: tuple[str, ...] = ("acme", "globex"), machines: int = 0, latency: float = 0.0
) -> AbstractContextManager[str]:
    """Run the server in a process of its own; yields its URL."""
    return serve_apart(
        "optiinfra_pipelines.sandbox.azure_server",
        *("--today", today.isoformat(), "--customers", ",".join(customers)),
        *("--machines", str(machines), "--latency", str(latency)),
    )


def connection(customer_id: str, url: str) -> dict[str, Any]:
    """The customer's entry under `connections` in customers.yaml for the server at `url`."""
    account = account_of(customer_id, "azure")
    return {
        "id": "azure-api",
        "provider": "azure",
        "accounts": [account],
        "collect": ["billing", "metrics", "inventory", "prices"],
        "billing": {"location": f"cost-management://{account}"},
        "endpoints": {name: f"{url}/{name}" for name in ("login", "management", "metrics", "logs", "prices")},
        "credentials": {name: _variable(customer_id, name) for name in ("tenant_id", "client_id", "client_secret")},
    }


def environment(customer_ids: Iterable[str]) -> dict[str, str]:
    """The variables that the connections of these customers name."""
    return {
        _variable(customer, name): value for customer in customer_ids for name, value in _credentials(customer).items()
    }


def _variable(customer_id: str, name: str) -> str:
    return f"SANDBOX_AZURE_{customer_id.upper().replace('-', '_')}_{name.upper()}"


def _credentials(customer_id: str) -> dict[str, str]:
    return {
        "tenant_id": f"tenant-{customer_id}",
        "client_id": f"client-{customer_id}",
        "client_secret": f"canary-azure-{customer_id}-client-secret",
    }


def shown_series(fleet: Fleet, customer_id: str) -> Iterator[Series]:
    """Exactly the series that raw metrics must hold of the customer."""
    return Wire(fleet, customer_id).series()


def shown_resources(fleet: Fleet, customer_id: str) -> list[Resource]:
    """The resources that inventory must hold of the customer."""
    return fleet.of(customer_id, "azure")


def error_body(status: int, environ: Mapping[str, Any]) -> tuple[str, bytes]:
    """An error as Azure Resource Manager writes it."""
    codes = {
        401: "ExpiredAuthenticationToken",
        403: "AuthorizationFailed",
        429: "RateLimiting",
        404: "ResourceNotFound",
    }
    code = codes.get(status, "InternalServerError" if status == 500 else "ServerTimeout")
    error = {"code": code, "message": f"{environ['PATH_INFO']} was answered with {status}."}
    return "application/json", json.dumps({"error": error}).encode()


class Refused(Exception):
    """An answer that is no success: status and the code and message of its body."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"code": code, "message": message}}


class AzureServer:
    """The WSGI application for a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._wires = {customer: Wire(fleet, customer) for customer in fleet.customers}
        self._corpus = Corpus(fleet.today, customers=fleet.customers)
        self._tokens: dict[str, str] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path, given = environ["PATH_INFO"], parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        params = {name: values[0] for name, values in given.items()}
        try:
            if path.startswith("/login/"):
                return self._login(environ, start_response, path)
            if path.startswith("/prices/"):
                return answer_json(start_response, self._prices(environ, params))
            wire = self._asking(environ)
            body = json.loads(read_body(environ)) if environ["REQUEST_METHOD"] == "POST" else {}
            if path.endswith(_GRAPH):
                return answer_json(start_response, self._graph(wire, body, environ.get(FAULT_IN_ENVIRON)))
            if workspace := re.fullmatch(r"/logs/v1/workspaces/([^/]+)/query", path):
                return answer_json(start_response, self._workspace(wire, workspace[1], body))
            subscription = re.search(r"/subscriptions/([^/]+)", path)
            if subscription is None or subscription.group(1) != wire.account:
                raise Refused(403, "AuthorizationFailed", f"The client has no authorization over {path}.")
            if path.endswith("Microsoft.CostManagement/query"):
                return self._costs(wire, body, environ, params, start_response)
            if path.startswith("/logs/"):
                return answer_json(start_response, _logs(wire, body, environ.get(FAULT_IN_ENVIRON)))
            return answer_json(start_response, self._answer(wire, path, params, body))
        except Refused as error:
            return answer_json(start_response, error.body, error.status)
        except BadQuery as error:
            return answer_json(start_response, error.body, 400)

    def _login(self, environ: dict[str, Any], start_response: Any, path: str) -> Iterable[bytes]:
        form = {name: values[0] for name, values in parse_qs(read_body(environ).decode()).items()}
        for customer in self._wires:
            known = _credentials(customer)
            if path.split("/")[2] == known["tenant_id"] and all(
                form.get(name) == known[name] for name in ("client_id", "client_secret")
            ):
                token = secrets.token_urlsafe(24)
                self._tokens[token] = customer
                said = {"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": token}
                return answer_json(start_response, said)
        refusal = {
            "error": "invalid_client",
            "error_description": "AADSTS7000215: Invalid client secret provided.",
            "error_codes": [7000215],
        }
        return answer_json(start_response, refusal, 401)

    def _asking(self, environ: Mapping[str, Any]) -> Wire:
        customer = self._tokens.get(environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer "))
        if customer is None:
            raise Refused(401, "InvalidAuthenticationToken", "The access token is invalid.")
        return self._wires[customer]

    def _graph(self, wire: Wire, body: Mapping[str, Any], fault: Fault | None) -> dict[str, Any]:
        records = wire.records if wire.account in body.get("subscriptions", [wire.account]) else []
        if "summarize" in body["query"]:
            records = [{"id": "westeurope", "subscription": wire.account}] if records else []
        options = body.get("options", {})
        size = min(int(options.get("$top", 100)), _GRAPH_MOST)
        start = _decoded(options["$skipToken"]) if "$skipToken" in options else 0
        data = records[start : start + size]
        following = start + size
        token = _encoded(following) if following < len(records) else None
        if fault is not None and fault.kind == "partial_page":
            data = data[: len(data) // 2]
        elif fault is not None:
            data, token = records[:size], "same" if fault.kind == "endless_cursor" else secrets.token_urlsafe(8)
        page = {
            "totalRecords": len(records),
            "count": len(data),
            "data": data,
            "facets": [],
            "resultTruncated": "false",
        }
        return page | ({"$skipToken": token} if token else {})

    def _workspace(self, wire: Wire, workspace: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if workspace != workspace_id(wire.customer_id):
            raise Refused(403, "InsufficientAccessError", "The provided credentials have insufficient access.")
        return workspace_answer(self._corpus, wire.customer_id, body, datetime.now(UTC))

    def _answer(self, wire: Wire, path: str, params: Mapping[str, str], body: Mapping[str, Any]) -> dict[str, Any]:
        if path.endswith("/metrics:getBatch"):
            return self._metrics(wire, params, body)
        if path.endswith("/Microsoft.Compute/skus"):
            return {"value": wire.skus()}
        if path.endswith("/resources"):
            return {"value": wire.created(params["$filter"])}
        raise Refused(404, "InvalidResourceType", f"Nothing is at {path}.")

    def _metrics(self, wire: Wire, params: Mapping[str, str], body: Mapping[str, Any]) -> dict[str, Any]:
        asked = [wire.by_id.get(each.lower()) for each in body["resourceids"]]
        found = [each for each in asked if each is not None]
        if len(asked) > 50:
            raise Refused(400, "BadRequest", f"{len(asked)} resources were asked for; the most is 50.")
        if len(found) < len(asked):
            raise Refused(404, "ResourceNotFound", "A resource of the batch was not found.")
        if len({each.resource_type for each in found}) > 1:
            raise Refused(400, "BadRequest", "The resources of a batch are of one type.")
        start, end = (datetime.fromisoformat(params[name]) for name in ("starttime", "endtime"))
        names, aggregations = params["metricnames"].split(","), set(params["aggregation"].lower().split(","))
        return {"values": [wire.metric_value(each, names, aggregations, start, end) for each in found]}

    def _costs(
        self,
        wire: Wire,
        body: Mapping[str, Any],
        environ: Mapping[str, Any],
        params: Mapping[str, str],
        start_response: Any,
    ) -> Iterable[bytes]:
        columns, rows = wire.costs(body)
        headers = {f"{_QPU}qpu-consumed": "1", f"{_QPU}qpu-remaining": "qpm=11;qph=599"}
        if not rows:
            start_response("204 No Content", list(headers.items()))
            return []
        start = _decoded(params["$skiptoken"]) if "$skiptoken" in params else 0
        link = None
        if start + _COST_PAGE < len(rows):
            cursor = quote(_encoded(start + _COST_PAGE))
            link = f"http://{environ['HTTP_HOST']}{environ['PATH_INFO']}?api-version=2025-03-01&$skiptoken={cursor}"
        head = json.dumps({"nextLink": link, "columns": columns})[:-1]
        page = f'{{"properties": {head}, "rows": [{", ".join(rows[start : start + _COST_PAGE])}]}}}}'
        return answer(start_response, 200, page.encode(), headers=headers)

    def _prices(self, environ: Mapping[str, Any], params: Mapping[str, str]) -> dict[str, Any]:
        region = re.search(r"armRegionName eq '([^']+)'", params.get("$filter", ""))
        items = price_items(self._fleet, region.group(1) if region else "westeurope")
        start = int(params.get("$skip", 0))
        link = None
        if start + _PRICE_PAGE < len(items):
            base = f"http://{environ['HTTP_HOST']}{environ['PATH_INFO']}"
            link = f"{base}?$filter={quote(params.get('$filter', ''))}&$skip={start + _PRICE_PAGE}"
        page = items[start : start + _PRICE_PAGE]
        head = {"BillingCurrency": "USD", "CustomerEntityId": "Default", "CustomerEntityType": "Retail"}
        return head | {"Items": page, "NextPageLink": link, "Count": len(page)}


def _logs(wire: Wire, body: Mapping[str, Any], fault: Fault | None) -> dict[str, Any]:
    if fault is not None:  # neither table exists: no agent has ever reported
        raise Refused(400, "SemanticError", "SEM0100: 'union' operator: Failed to resolve table expressions.")
    start, end = (datetime.fromisoformat(each) for each in body["timespan"].split("/"))
    types = {
        "Id": "string",
        "Metric": "string",
        "Component": "string",
        "Window": "datetime",
        "Average": "real",
        "Maximum": "real",
        "Samples": "long",
    }
    columns = [{"name": name, "type": type_} for name, type_ in types.items()]
    return {"tables": [{"name": "PrimaryResult", "columns": columns, "rows": list(wire.guest_rows(start, end))}]}


def _encoded(offset: int) -> str:
    return urlsafe_b64encode(json.dumps({"offset": offset}).encode()).decode()


def _decoded(cursor: str) -> int:
    try:
        return int(json.loads(urlsafe_b64decode(unquote(cursor)))["offset"])
    except (ValueError, KeyError) as error:
        raise Refused(400, "BadRequest", "The skip token is not valid.") from error


def main() -> None:
    """Serve until the process ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--today", type=date.fromisoformat, required=True)
    parser.add_argument("--customers", default="acme,globex")
    parser.add_argument("--machines", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0)
    given = parser.parse_args()
    fleet = Fleet(given.today, tuple(given.customers.split(",")), given.machines, ("azure",))
    serve(Gate(AzureServer(fleet), error_body, _KINDS, given.latency), given.port)


if __name__ == "__main__":
    main()
