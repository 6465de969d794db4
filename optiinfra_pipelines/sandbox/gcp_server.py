"""The sandbox's Google Cloud: tokens, Compute Engine, Cloud SQL, Monitoring, price list and BigQuery on loopback.

Routes, credentials, pages and faults; what resources look like is `gcp_wire.py`'s, what bills look like and the
BigQuery jobs are `gcp_bigquery.py`'s. `python -m optiinfra_pipelines.sandbox.gcp_server --port 0 --today 2026-11-20`.
"""

import argparse
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime
from functools import cache
from hashlib import blake2b
from http import HTTPStatus
from random import Random
from threading import Lock
from typing import Any
from urllib.parse import parse_qs

from optiinfra_pipelines.sandbox import gcp_wire
from optiinfra_pipelines.sandbox.fleet import Fleet, account_of
from optiinfra_pipelines.sandbox.gate import (
    FAULT_IN_ENVIRON,
    Fault,
    Gate,
    answer_json,
    read_body,
    serve,
    serve_apart,
)
from optiinfra_pipelines.sandbox.gcp_bigquery import BigQuery, QueryRefused
from optiinfra_pipelines.sandbox.gcp_prices import skus
from optiinfra_pipelines.sandbox.gcp_wire import shown_resources, shown_series

__all__ = ["ABSENT", "FAULTS", "connection", "environment", "serve_gcp", "shown_resources", "shown_series"]

TABLE = "gcp_billing_export_resource_v1_0123AB_4567CD_89EF01"
FOCUS_TABLE = "gcp_billing_export_focus_0123AB_4567CD_89EF01"
DATASET = "billing"
KINDS = (
    "rate_limit_403",
    "partial_page",
    "endless_cursor",
    "repeated_page",
    "token_expiry",
    "clock_skew",
    "empty_zone",
    "unreachable_zone",
)
_ANY = "/projects/"  # every list, time series and query, and no token or price list
_GOOGLE = {"server": "ESF", "vary": "Origin, X-Origin, Referer"}  # Google names no time to wait
FAULTS: Mapping[str, Fault | None] = {
    "throttled": Fault("status", 429, match=_ANY, headers=_GOOGLE),
    "server_error_500": Fault("status", 500, match=_ANY),
    "server_error_503": Fault("status", 503, match=_ANY),
    "connection_reset": Fault("reset", match=_ANY),
    "timeout": Fault("hang", match=_ANY, seconds=2),
    "truncated_json": Fault("cut", match=_ANY),
    "partial_page": Fault("partial_page", match=_ANY),
    "endless_cursor": Fault("endless_cursor", match=_ANY),
    "repeated_page": Fault("repeated_page", match=_ANY),
    "token_expiry": Fault("token_expiry", match=_ANY),
    "clock_skew": Fault("clock_skew", match="/token"),
    "empty_zone": Fault("empty_zone", match="/aggregated/instances"),
    "permission_denied": Fault("status", 403, match="GET /v1/projects/"),  # Cloud SQL alone
    "region_not_enabled": None,
}
ABSENT: Mapping[str, str] = {  # why there is no such fault
    "region_not_enabled": "regions of Google Cloud are open to every project; none has to be enabled",
}
_REASONS = {
    401: ("authError", "UNAUTHENTICATED", "Request had invalid authentication credentials."),
    403: ("forbidden", "PERMISSION_DENIED", "The caller does not have permission"),
    404: ("notFound", "NOT_FOUND", "The requested resource was not found"),
    429: ("rateLimitExceeded", "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Queries'."),
    500: ("backendError", "INTERNAL", "Internal error encountered."),
    503: ("backendError", "UNAVAILABLE", "The service is currently unavailable."),
}


def serve_gcp(
    today: date, customers: Sequence[str] = ("acme", "globex"), machines: int = 0, latency: float = 0.0
) -> AbstractContextManager[str]:
    """Run the server in a process of its own and yield its URL."""
    arguments = ("--today", today.isoformat(), "--customers", ",".join(customers))
    load = ("--machines", str(machines), "--latency", str(latency))
    return serve_apart("optiinfra_pipelines.sandbox.gcp_server", *arguments, *load)


def connection(customer_id: str, url: str) -> dict[str, Any]:
    """The entry of customers.yaml that collects one customer from the server at `url`."""
    return {
        "id": "gcp-api",
        "provider": "gcp",
        "accounts": [account_of(customer_id, "gcp")],
        "collect": ["billing", "metrics", "inventory", "prices"],
        "billing": {"location": f"bigquery://{account_of(customer_id, 'gcp')}/{DATASET}/{TABLE}"},
        "endpoints": dict.fromkeys(("compute", "monitoring", "sqladmin", "cloudbilling", "bigquery", "oauth2"), url),
        "credentials": {"service_account_json": _variable(customer_id)},
    }


def environment(customer_ids: Iterable[str]) -> dict[str, str]:
    """The environment variables that `connection` names: each a service account's key file, for no real account."""
    return {_variable(customer_id): json.dumps(_key_file(customer_id)) for customer_id in customer_ids}


def _variable(customer_id: str) -> str:
    return f"SANDBOX_GCP_KEY_{re.sub('[^A-Z0-9]', '_', customer_id.upper())}"


def _key_file(customer_id: str) -> dict[str, str]:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = _private_key(customer_id).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {
        "type": "service_account",
        "project_id": account_of(customer_id, "gcp"),
        "private_key_id": f"canary-gcp-{customer_id}-key",
        "private_key": pem.decode(),
        "client_email": _email(customer_id),
        "client_id": "100000000000000000001",
        "token_uri": "https://oauth2.googleapis.com/token",
    }


def _email(customer_id: str) -> str:
    return f"collector@{account_of(customer_id, 'gcp')}.iam.gserviceaccount.com"


@cache
def _private_key(customer_id: str) -> Any:
    """An RSA key that belongs to the customer's name, so that server and client agree on it without a file."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    random = Random(f"sandbox-gcp-{customer_id}")
    exponent = 65537
    p, q = _prime(random), _prime(random)
    d = pow(exponent, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(exponent, p * q)
    numbers = rsa.RSAPrivateNumbers(
        p, q, d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q), public
    )
    return numbers.private_key()


def _prime(random: Random, bits: int = 512) -> int:
    while True:
        candidate = random.getrandbits(bits) | (3 << (bits - 2)) | 1
        if candidate % 65537 != 1 and all(candidate % small for small in (3, 5, 7, 11, 13, 17, 19, 23, 29, 31)):
            bases = (random.randrange(2, candidate) for _ in range(8))
            if all(_passes_fermat_and_rabin(candidate, base) for base in bases):
                return candidate


def _passes_fermat_and_rabin(number: int, base: int) -> bool:
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    power = pow(base, odd, number)
    if power in (1, number - 1):
        return True
    for _ in range(twos - 1):
        power = power * power % number
        if power == number - 1:
            return True
    return False


def error_body(status: int, environ: Mapping[str, Any]) -> tuple[str, bytes]:
    """An error as Google's APIs write it."""
    return "application/json; charset=UTF-8", json.dumps(_error(status)).encode()


def _error(status: int, message: str = "", other_reason: str = "") -> dict[str, Any]:
    reason, word, usual = _REASONS.get(status, ("badRequest", "INVALID_ARGUMENT", "Invalid request"))
    said = message or usual
    return {
        "error": {
            "code": status,
            "message": said,
            "errors": [{"message": said, "domain": "global", "reason": other_reason or reason}],
            "status": word,
        }
    }


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.reason = status, message, reason


class GoogleCloud:
    """The WSGI application."""

    def __init__(self, fleet: Fleet) -> None:
        from google.auth import exceptions, jwt

        self._jwt, self._auth_error = jwt, exceptions.GoogleAuthError
        self._fleet = fleet
        self._customers = {account_of(customer, "gcp"): customer for customer in fleet.customers}
        self._tokens: dict[str, str] = {}
        self._issued = 0
        self._lock = Lock()
        self._bigquery = BigQuery(fleet, DATASET, TABLE, FOCUS_TABLE)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        try:
            if path == "/token":
                return self._token(environ, start_response)
            customer = self._customer(environ)
            return answer_json(start_response, self._answered(environ, path, customer))
        except Refused as refused:
            return answer_json(start_response, _error(refused.status, refused.message, refused.reason), refused.status)
        except QueryRefused as refused:
            return answer_json(start_response, _error(HTTPStatus.BAD_REQUEST, str(refused)), HTTPStatus.BAD_REQUEST)

    def _token(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        form = parse_qs(read_body(environ).decode())
        why = self._wrong_with(form.get("assertion", [""])[0], environ)
        if why:
            refusal = {"error": "invalid_grant", "error_description": why}
            return answer_json(start_response, refusal, HTTPStatus.BAD_REQUEST)
        _, payload, _ = form["assertion"][0].split(".")
        issuer = json.loads(_decoded(payload))["iss"]
        customer = next(each for each in self._fleet.customers if _email(each) == issuer)
        with self._lock:
            self._issued += 1
            token = f"canary-gcp-{customer}-token-{self._issued}"
            self._tokens[token] = customer
        return answer_json(start_response, {"access_token": token, "expires_in": 3599, "token_type": "Bearer"})

    def _wrong_with(self, assertion: str, environ: Mapping[str, Any]) -> str:
        if _kind(environ) == "clock_skew":
            return (
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. "
                "Check your iat and exp values in the JWT claim."
            )
        try:
            claims = self._jwt.decode(assertion, verify=False)
            customer = next((each for each in self._fleet.customers if _email(each) == claims.get("iss")), None)
            if customer is None:
                return "Invalid grant: account not found"
            self._jwt.decode(assertion, certs=_public_pem(customer))
        except (self._auth_error, ValueError):
            return "Invalid JWT Signature."
        return ""

    def _customer(self, environ: dict[str, Any]) -> str:
        token = environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ")
        with self._lock:
            if _kind(environ) == "token_expiry":
                self._tokens.pop(token, None)
            customer = self._tokens.get(token)
        if customer is None:
            raise Refused(HTTPStatus.UNAUTHORIZED)
        return customer

    def _answered(self, environ: dict[str, Any], path: str, customer: str) -> Any:
        if _kind(environ) == "rate_limit_403":  # as Compute Engine refuses too many requests
            raise Refused(HTTPStatus.FORBIDDEN, "Rate Limit Exceeded", "rateLimitExceeded")
        query = {name: values[-1] for name, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
        prices = re.fullmatch(r"/v1/services/([^/]+)/skus", path)
        if prices:
            return _page(environ, query, skus(prices[1]), "skus", int(query.get("pageSize", 5000)))
        owned = re.search(r"/projects/([^/]+)/(.+)$", path)
        if not owned:
            raise Refused(HTTPStatus.NOT_FOUND)
        project, rest = owned[1], owned[2]
        if self._customers.get(project) != customer:
            raise Refused(HTTPStatus.FORBIDDEN, f"Required permission on projects/{project} is missing")
        if path.startswith("/compute/v1/"):
            return self._compute(environ, query, project, rest)
        if path.startswith("/v3/") and rest == "timeSeries":
            return self._series(environ, query, customer)
        if path.startswith("/v1/") and rest == "instances":
            items = [gcp_wire.sql_instance(each) for each in self._fleet.of(customer, "gcp", "database")]
            page = _page(environ, query, items, "items", int(query.get("maxResults", 500)))
            return {"kind": "sql#instancesList"} | page
        if path.startswith("/bigquery/v2/"):
            body = read_body(environ)
            return self._bigquery.answer(environ["REQUEST_METHOD"], project, rest, query, body, _kind(environ))
        raise Refused(HTTPStatus.NOT_FOUND)

    def _compute(self, environ: dict[str, Any], query: Mapping[str, str], project: str, rest: str) -> Any:
        scope, _, kind = rest.partition("/")
        if scope not in ("aggregated", "global") or not kind:
            raise Refused(HTTPStatus.NOT_FOUND)
        resources = shown_resources(self._fleet, self._customers[project])
        items = gcp_wire.compute_items(resources, kind)
        names = re.findall(r'name = "([^"]+)"', query.get("filter", ""))
        if names:
            items = [each for each in items if each[1]["name"] in names]
        page = _page(environ, query, items, "items", min(int(query.get("maxResults", 500)), 500))
        found, about = page.pop("items"), {"id": f"projects/{project}/{rest}", "selfLink": f"{environ['PATH_INFO']}"}
        if scope == "global":
            return {"kind": f"compute#{kind[:-1]}List", "items": [item for _, item in found], **about, **page}
        scopes: dict[str, Any] = {f"zones/{zone}": _warned(f"zones/{zone}") for zone in gcp_wire.EMPTY_ZONES}
        for where, item in found:
            scopes.setdefault(where, {}).setdefault(kind, []).append(item)
        if _kind(environ) == "empty_zone":  # a zone that holds nothing but a warning, or no key at all
            scopes["zones/us-west8-a"] = {}
        if _kind(environ) == "unreachable_zone":
            scopes["zones/us-west4-b"] = _warned("zones/us-west4-b", "UNREACHABLE")
        return {"kind": f"compute#{kind[:-1]}AggregatedList", "items": scopes, **about, **page}

    def _series(self, environ: dict[str, Any], query: Mapping[str, str], customer: str) -> Any:
        types = re.findall(r'metric\.type = "([^"]+)"', query.get("filter", ""))
        if len(types) != 1:
            raise Refused(
                HTTPStatus.BAD_REQUEST, "Field filter had an invalid value: must specify a single metric type."
            )
        wire, aligner = gcp_wire.WIRES.get(types[0]), query.get("aggregation.perSeriesAligner", "")
        if wire is None:  # nor does Monitoring know a metric that nothing ever wrote, such as that of endpoints here
            message = f'Cannot find metric(s) that match type = "{types[0]}".'
            raise Refused(HTTPStatus.NOT_FOUND, message)
        if (aligner == "ALIGN_DELTA") != (wire.kind == "DELTA") or query.get("aggregation.alignmentPeriod") != "900s":
            raise Refused(HTTPStatus.BAD_REQUEST, f"The aligner cannot be applied to metrics with kind {wire.kind}")
        start, end = (datetime.fromisoformat(query[f"interval.{name}"]) for name in ("startTime", "endTime"))
        starts = gcp_wire.window_starts(start, end)
        series = [
            (each, point)
            for each in gcp_wire.time_series(self._fleet, customer, types[0], aligner, starts)
            for point in each["points"]
        ]
        page = _page(environ, query, series, "points", min(int(query.get("pageSize", 100_000)), 100_000))
        shown: dict[int, dict[str, Any]] = {}
        for each, point in page.pop("points"):
            shown.setdefault(id(each), {**each, "points": []})["points"].append(point)
        return ({"timeSeries": list(shown.values())} if shown else {}) | {"unit": wire.unit} | page


def _warned(scope: str, code: str = "NO_RESULTS_ON_PAGE") -> dict[str, Any]:
    if code != "NO_RESULTS_ON_PAGE":
        return {"warning": {"code": code, "message": f"Unable to reach scope '{scope}'.", "data": []}}
    message = f"There are no results for scope '{scope}' on this page."
    return {"warning": {"code": code, "message": message, "data": [{"key": "scope", "value": scope}]}}


def _page(
    environ: Mapping[str, Any], query: Mapping[str, str], items: Sequence[Any], key: str, size: int
) -> dict[str, Any]:
    """One page of `items` under `key`; the cursor is opaque, belongs to its query and holds how a fault goes on."""
    own = {name: value for name, value in query.items() if name != "pageToken"}
    digest = blake2b(json.dumps(own, sort_keys=True).encode(), digest_size=6).hexdigest()
    kind, offset = _kind(environ), 0
    if "pageToken" in query:
        kind, at, belongs = _cursor(query["pageToken"])
        if belongs != digest:
            raise Refused(HTTPStatus.BAD_REQUEST, "Invalid value for field 'pageToken'")
        offset = at
    if kind == "endless_cursor":
        return {key: items[:1], "nextPageToken": _encoded(f"{kind}|{offset + 1}|{digest}")}
    if kind == "repeated_page":
        return {key: items[:1], "nextPageToken": _encoded(f"{kind}|0|{digest}")}
    size = 1 if kind == "partial_page" and not offset else size
    page: dict[str, Any] = {key: items[offset : offset + size]}
    if offset + size < len(items):
        page["nextPageToken"] = _encoded(f"|{offset + size}|{digest}")
    return page


def _cursor(written: str) -> tuple[str, int, str]:
    try:
        kind, offset, digest = _decoded(written).split("|")
        return kind, int(offset), digest
    except ValueError:
        raise Refused(HTTPStatus.BAD_REQUEST, "Invalid value for field 'pageToken'") from None


def _encoded(text: str) -> str:
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decoded(text: str) -> str:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()


def _kind(environ: Mapping[str, Any]) -> str:
    fault = environ.get(FAULT_IN_ENVIRON)
    return fault.kind if fault else ""


@cache
def _public_pem(customer_id: str) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = _private_key(customer_id).public_key()
    return bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def main() -> None:
    """Serve until the process ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--today", type=date.fromisoformat, required=True)
    parser.add_argument("--customers", default="acme,globex")
    parser.add_argument("--machines", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0)
    options = parser.parse_args()
    _public_pem("")  # the libraries that tokens need are slow to load, and a client waits for its first token
    fleet = Fleet(options.today, tuple(options.customers.split(",")), options.machines, ("gcp",))
    serve(Gate(GoogleCloud(fleet), error_body, KINDS, options.latency), options.port)


if __name__ == "__main__":
    main()
