"""One signed HTTP request per rejected deployment that asks its owner's webhook to roll back: written ahead, sent,
settled. What is rejected is decided elsewhere; alerts for people are in `alerts/`."""

import hmac
import json
import math
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Literal
from uuid import UUID, uuid5

import httpx
import pyarrow as pa
import tenacity
from pydantic import SecretStr

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.clouds.rest import RetryLater, retry_after, trusted, wait_as_asked
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.quality.gate import Verdict
from optiinfra_pipelines.tables.rollbacks import ROLLBACK_REQUESTS
from optiinfra_pipelines.warehouse.protocol import Warehouse

Status = Literal["in_flight", "delivered", "failed", "logged"]
Clock = Callable[[], datetime]

ATTEMPTS = 4  # in one call; with the longest waits and timeouts they end well within the lease
TIMEOUT = 15.0  # seconds for each of connecting, sending and answering
LONGEST_WAIT = 60.0  # seconds; a receiver that asks for more is asked again by a later call
LEASE = timedelta(minutes=10)  # a request in flight for longer belongs to a run that was killed
EXPIRES = timedelta(hours=24)  # rolling back later would undo what was deployed meanwhile
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]*:[0-9a-f:.]*")  # a name, as ASCII, or an address
_REPEATED = frozenset({408, 425, 429})
_FIGURES = ("metric", "verdict", "observed", "baseline_mean", "estimate", "lower", "upper", "margin", "n", "baseline_n")
_NAMESPACE = UUID("5e5b7f43-5e0c-5d6e-8d2f-0b1c7a9e4d10")


@dataclass(frozen=True)
class Webhook:
    """Where rollback requests go, and the secret that signs them; neither is ever logged, stored or named in errors.

    CollectionError (not_configured) for an address that is not https (http only on loopback), one that holds a user,
    a password or a fragment, and for an empty secret. The address may hold a token in its path or query.
    """

    url: SecretStr
    secret: SecretStr

    def __post_init__(self) -> None:
        mistake = _mistake(self.url.get_secret_value())
        if not mistake and not self.secret.get_secret_value():
            mistake = "needs a secret to sign requests with"
        if mistake:
            raise CollectionError("not_configured", f"the rollback webhook {mistake}")

    @property
    def address(self) -> httpx.URL:
        """The parsed address; it may hold a token."""
        return httpx.URL(self.url.get_secret_value())

    @property
    def host(self) -> str:
        """Its host, which is all of it that rows and messages name."""
        return self.address.host

    @property
    def digest(self) -> str:
        """12 hexadecimal digits that change with the address or the secret and give neither away."""
        known = f"{self.url.get_secret_value()}\0{self.secret.get_secret_value()}"
        return sha256(known.encode()).hexdigest()[:12]


def _mistake(address: str) -> str:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        return "is no address of the form https://host/path"
    if url.scheme not in ("http", "https") or not _HOST.fullmatch(url.raw_host.decode()):
        return "is no address of the form https://host/path"
    if url.scheme == "http" and not _is_loopback(url.host):
        return f"at {url.host} must be https:// (http:// only on loopback)"
    if url.userinfo or url.fragment:
        return f"at {url.host} must hold neither user nor password nor fragment: requests are signed"
    return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Rollback:
    """A rejected deployment, as its owner is told of it. `run_link` leads to the run that judged it."""

    customer_id: str
    application_id: str
    deployment_id: str
    verdict_id: str
    judge_fingerprint: str
    model_before: str
    model_after: str
    variant_before: str
    variant_after: str
    verdict: Verdict
    run_link: str

    @property
    def idempotency_key(self) -> str:
        """UUIDv5 of customer, application, deployment and judge: a deployment has one request, however often judged."""
        parts = [self.customer_id, self.application_id, self.deployment_id, self.judge_fingerprint]
        return str(uuid5(_NAMESPACE, json.dumps(parts)))

    def payload(self, at: datetime) -> str:
        """The request's body: JSON with the figures of every gated metric in units of its score."""
        body = {
            "event": "rollback_requested",
            "version": 1,
            "idempotency_key": self.idempotency_key,
            "customer": self.customer_id,
            "application": self.application_id,
            "deployment": self.deployment_id,
            "model": {"before": self.model_before, "after": self.model_after},
            "variant": {"before": self.variant_before, "after": self.variant_after},
            "verdict": self.verdict.verdict,
            "verdict_id": self.verdict_id,
            "reason": self.verdict.reason,
            "figures": [{name: _plain(getattr(each, name)) for name in _FIGURES} for each in self.verdict.metrics],
            "run": self.run_link,
            "requested_at": at.astimezone(UTC).isoformat(timespec="seconds"),
        }
        return json.dumps(body, allow_nan=False)


def _plain(value: Any) -> Any:
    """The value as JSON has it: an infinite bound is none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Requested:
    """How a deployment's request stands. `sent`: this call sent or logged it, and did not just find it settled."""

    idempotency_key: str
    application_id: str
    deployment_id: str
    status: Status
    attempts: int
    http_status: int | None
    error: str | None
    sent: bool


def request_rollback(
    warehouse: Warehouse,
    rollback: Rollback,
    webhook: Webhook | None,
    *,
    clock: Clock = lambda: datetime.now(UTC),
    sleep: Callable[[float], None] = time.sleep,
) -> Requested:
    """Ask for the rollback of a rejected deployment, unless that was done; without a webhook log it as a line of JSON.

    May be called at every look. What was delivered (2xx) or logged is never sent again. A request that was refused
    is not repeated until address or secret change; one that met 408, 425, 429, 5xx or no answer is, by later calls.
    After EXPIRES nothing is sent. A run that is killed between sending and recording leaves the request in flight: it
    is sent again after LEASE with the same idempotency key and the same body, by which the receiver tells it.

    The embedded engine lets one run at a time claim a request. On ClickHouse two runs that begin in the same moment
    may both send it, under the same key. Raises ValueError for a verdict that is no REJECT, and WarehouseError.
    """
    if rollback.verdict.verdict != "REJECT":
        raise ValueError(f"{rollback.deployment_id} is not rejected: {rollback.verdict.verdict}")
    now = clock()
    first = {
        "idempotency_key": rollback.idempotency_key,
        "customer_id": rollback.customer_id,
        "application_id": rollback.application_id,
        "deployment_id": rollback.deployment_id,
        "verdict_id": rollback.verdict_id,
        "attempts": 0,
        "payload": rollback.payload(now),
        "requested_at": naive_utc(now),
    }
    return _fulfil(warehouse, first, webhook, clock, sleep)


def _fulfil(
    warehouse: Warehouse,
    wanted: Mapping[str, Any],
    webhook: Webhook | None,
    clock: Clock,
    sleep: Callable[[float], None],
) -> Requested:
    with warehouse.session() as held:
        found = _find(held, wanted["idempotency_key"])
        row = dict(found or wanted)
        now = clock()
        if found and not _is_due(found, webhook, now):
            return _requested(found, sent=False)
        if found and naive_utc(now) - found["requested_at"] >= EXPIRES:
            return _requested(_settle(held, row, _expired(row), clock), sent=False)
        row = _settle(held, row, _claimed(row, webhook), clock)
    if webhook is None:
        print(json.dumps(json.loads(row["payload"]) | {"at": now.isoformat()}), file=sys.stderr, flush=True)
        ended: dict[str, Any] = {"status": "logged", "delivered_at": naive_utc(now)}
    else:
        ended = _Sending(webhook, row, clock, sleep).ended()
    return _requested(_settle(warehouse, row, ended, clock), sent=True)


def _is_due(found: Mapping[str, Any], webhook: Webhook | None, now: datetime) -> bool:
    if found["status"] in ("delivered", "logged") or found["error_kind"] == "expired":
        return False
    if found["status"] == "in_flight":
        return bool(naive_utc(now) - found["collected_at"] >= LEASE)
    changed = webhook is not None and webhook.digest != found["webhook_digest"]
    late = naive_utc(now) - found["requested_at"] >= EXPIRES
    return found["error_kind"] == "transient" or changed or late


def _expired(row: Mapping[str, Any]) -> dict[str, Any]:
    hours = EXPIRES.total_seconds() / 3600
    said = f"not delivered within {hours:g} hours and no longer sent; roll back by hand where it still applies"
    return {"status": "failed", "error_kind": "expired", "error": " ".join(filter(None, (row.get("error"), said)))}


def _claimed(row: Mapping[str, Any], webhook: Webhook | None) -> dict[str, Any]:
    return {
        "webhook_host": webhook.host if webhook else None,
        "webhook_digest": webhook.digest if webhook else None,
        "status": "in_flight",
        "attempts": row["attempts"] + (webhook is not None),
        "http_status": None,
        "error_kind": None,
        "error": None,
    }


class _Sending:
    """The tries of one claimed request, and what they came to."""

    def __init__(self, webhook: Webhook, row: Mapping[str, Any], clock: Clock, sleep: Callable[[float], None]) -> None:
        self._webhook, self._row, self._clock, self._sleep = webhook, row, clock, sleep
        self._tries = 0
        self._http_status: int | None = None

    def ended(self) -> dict[str, Any]:
        """Send until it is taken, refused or out of tries; what changes in its row."""
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(RetryLater),
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=wait_as_asked,
            sleep=self._sleep,
            reraise=True,
        )
        ended: dict[str, Any]
        try:
            again(self._once)
            ended = {"status": "delivered", "delivered_at": naive_utc(self._clock())}
        except RetryLater as last:
            ended = {"status": "failed", "error_kind": "transient", "error": str(last)}
        except CollectionError as error:
            kind = "transient" if error.kind == "throttled" else "refused"
            ended = {"status": "failed", "error_kind": kind, "error": str(error)}
        attempts = self._row["attempts"] + self._tries - 1  # the claim counted the first
        return ended | {"attempts": attempts, "http_status": self._http_status}

    def _once(self) -> None:
        self._tries += 1
        self._http_status = None
        try:
            answer = self._send()
        except httpx.TimeoutException:
            raise self._later(f"gave no answer within {TIMEOUT:g} s") from None
        except httpx.RequestError as error:  # its text may hold the address
            raise self._later(f"cannot be reached ({type(error).__name__})") from None
        status = self._http_status = answer.status_code
        if answer.is_success:
            return
        if status in _REPEATED or status >= 500:
            wait = retry_after(answer.headers)
            if wait is not None and not wait <= LONGEST_WAIT:
                raise CollectionError("throttled", self._said(f"answered {_named(status)} and asks to wait {wait:g} s"))
            raise self._later(f"answered {_named(status)}", wait)
        leads = "redirects are not followed: set the address where it leads" if answer.is_redirect else ""
        advice = leads or "check address and secret of the webhook, and what its receiver wants; or roll back by hand"
        raise CollectionError("malformed", self._said(f"answered {_named(status)}; {advice}"))

    def _send(self) -> httpx.Response:
        """One request. The client logs addresses, so it is given the bare host, and the rest as the target to send."""
        address, body = self._webhook.address, self._row["payload"].encode()
        timestamp = str(int(self._clock().timestamp()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "optiinfra-pipelines",
            "Idempotency-Key": self._row["idempotency_key"],
            "X-OptiInfra-Timestamp": timestamp,
            "X-OptiInfra-Signature": signature(self._webhook.secret, timestamp, body),
        }
        loopback = address.scheme == "http"  # what is not encrypted goes through no proxy
        with (
            httpx.Client(verify=trusted(), timeout=TIMEOUT, trust_env=not loopback) as client,
            client.stream(
                "POST",
                address.copy_with(raw_path=b"/"),
                content=body,
                headers=headers,
                follow_redirects=False,
                extensions={"target": address.raw_path},
            ) as answer,
        ):
            return answer  # its body is not read: it may be long, and quote what it was sent

    def _later(self, what: str, seconds: float | None = None) -> RetryLater:
        return RetryLater(CollectionError("transient", self._said(f"{what}; a later run asks again")), seconds)

    def _said(self, what: str) -> str:
        row = self._row
        about = f"the rollback request for {row['deployment_id']} of {row['customer_id']}/{row['application_id']}"
        return f"{about}: {self._webhook.host} {what}"


def signature(secret: SecretStr, timestamp: str, body: bytes) -> str:
    """X-OptiInfra-Signature: sha256= and HMAC-SHA256 by `secret` of timestamp (Unix seconds, of this try), "." and
    body. A receiver compares it in constant time, and takes no timestamp older than it waits for."""
    digest = hmac.new(secret.get_secret_value().encode(), timestamp.encode() + b"." + body, sha256)
    return f"sha256={digest.hexdigest()}"


def _named(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}" if status in set(HTTPStatus) else str(status)


def _find(held: Warehouse, key: str) -> dict[str, Any] | None:
    rows = held.query(
        f"SELECT * FROM {held.current(ROLLBACK_REQUESTS)} r WHERE idempotency_key = $key", {"key": key}
    ).to_pylist()
    return _stored(rows[0]) if rows else None


def _stored(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as it is written again: its times without a zone."""
    return {name: naive_utc(value) if isinstance(value, datetime) else value for name, value in row.items()}


def _settle(warehouse: Warehouse, row: Mapping[str, Any], changes: Mapping[str, Any], clock: Clock) -> dict[str, Any]:
    """Write the row with its changes, later than the one it replaces even where the clock was set back."""
    now = naive_utc(clock())
    before = row.get("collected_at")
    written = before + timedelta(microseconds=1) if before and before >= now else now
    settled = {**row, **changes, "run_id": warehouse.run_id, "collected_at": written}
    warehouse.upsert(ROLLBACK_REQUESTS, pa.Table.from_pylist([settled], schema=ROLLBACK_REQUESTS.arrow_schema))
    return settled


def _requested(row: Mapping[str, Any], *, sent: bool) -> Requested:
    return Requested(
        row["idempotency_key"],
        row["application_id"],
        row["deployment_id"],
        row["status"],
        row["attempts"],
        row.get("http_status"),
        row.get("error"),
        sent,
    )
