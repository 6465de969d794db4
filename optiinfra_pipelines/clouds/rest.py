"""JSON over HTTP as the clouds' REST APIs speak it: authorised, counted, retried as each provider asks, and paged.

What is asked and what the answers mean is each provider's. SDKs (boto3, Azure Monitor, BigQuery) bring their own.
"""

import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from email.utils import parsedate_to_datetime
from functools import cache, partial
from hashlib import sha256
from typing import Any

import httpx
import tenacity

from optiinfra_pipelines.clouds.collecting import Source
from optiinfra_pipelines.errors import CollectionError, ErrorKind

LONGEST_WAIT = 90.0  # seconds; an API that asks for more is left to the next run
MOST_PAGES = 10_000

Authorize = Callable[[str], Mapping[str, str]]
"""Headers that say who asks; given an Authorization that was refused: with a new token, unless there is one by now."""


class RetryLater(Exception):
    """A try that may be repeated: the error to end with where it is the last, and how long the API asks to wait."""

    def __init__(self, error: CollectionError, seconds: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.seconds = seconds


@cache
def trusted() -> ssl.SSLContext:
    """The authorities whose certificates HTTPS is checked by, read once a process: each reading takes 30 ms."""
    return httpx.create_ssl_context()


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The longest wait, in seconds, that an answer's headers ask for; None where they ask for none.

    Retry-After as seconds or as a date beside the answer's own Date (the two clocks need not agree), and Azure Cost
    Management's x-ms-ratelimit-microsoft.costmanagement-{qpu,entity,tenant}-retry-after.
    """
    waits = [_seconds(value, headers) for name, value in headers.items() if name.lower().endswith("retry-after")]
    known = [wait for wait in waits if wait is not None]
    return max(known) if known else None


def _seconds(value: str, headers: Mapping[str, str]) -> float | None:
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        sent = parsedate_to_datetime(headers.get("date", headers.get("Date", "")))
        return max((parsedate_to_datetime(value) - sent).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return None


def wait_as_asked(state: tenacity.RetryCallState) -> float:
    """How long to wait before the next try: as the API asks, else exponentially longer with jitter."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, RetryLater) and error.seconds is not None:
        return error.seconds
    return float(tenacity.wait_random_exponential(multiplier=0.25, max=20)(state))


@dataclass(frozen=True)
class Api:
    """One JSON API. `service` names it in messages and in raw.api_calls; `authorize` gives the headers of a request;
    `parse_float` makes numbers of their printed digits: Decimal where they are money.

    Every method raises CollectionError: auth (401 after a new token, 403), not_configured (404), throttled (429),
    transient (5xx, connection, timeout), malformed (400, no JSON), budget.
    """

    source: Source
    service: str
    base_url: str
    client: httpx.Client
    authorize: Authorize
    parse_float: Callable[[str], Any] = float

    def get(self, path: str, operation: str, params: Mapping[str, Any] | None = None, **paid: Any) -> Any:
        """The decoded answer to GET `path`, which may be a whole URL; `paid` are `units` and `price` of the call."""
        return self._ask("GET", path, operation, paid, params=params)

    def post(self, path: str, operation: str, body: Any, params: Mapping[str, Any] | None = None, **paid: Any) -> Any:
        """The decoded answer to POST `path` with `body` as JSON; None where the answer is 204."""
        return self._ask("POST", path, operation, paid, params=params, json=body)

    def _ask(self, method: str, path: str, operation: str, paid: Mapping[str, Any], **request: Any) -> Any:
        url = path if path.startswith(("http://", "https://")) else self.base_url + path
        if _origin(url) != _origin(self.base_url):  # it would be sent our credentials
            raise CollectionError(
                "malformed", f"{self._named(operation)}: the next page lies elsewhere, {_origin(url)}"
            )
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(RetryLater),
            stop=tenacity.stop_after_attempt(self.source.attempts),
            wait=wait_as_asked,
            reraise=True,
        )
        try:
            return again(partial(self._once, method, url, operation, paid, request))
        except RetryLater as last:
            raise last.error from last

    def _once(self, method: str, url: str, operation: str, paid: Mapping[str, Any], request: Any) -> Any:
        headers = self.authorize("")
        answer = self._send(method, url, operation, paid, request, headers)
        if answer.status_code == 401:  # a token may end between two pages
            headers = self.authorize(headers.get("Authorization", ""))
            answer = self._send(method, url, operation, paid, request, headers)
        if answer.status_code == 204:
            return None
        if answer.is_success:
            try:
                return json.loads(answer.content, parse_float=self.parse_float)
            except ValueError as error:
                raise RetryLater(
                    self._error("malformed", operation, f"the answer is no whole JSON ({error})")
                ) from None
        raise self._refusal(operation, answer)

    def _send(
        self, method: str, url: str, operation: str, paid: Mapping[str, Any], request: Any, headers: Mapping[str, str]
    ) -> httpx.Response:
        self.source.calls.add(
            self.service, operation, int(paid.get("units", 0)), Decimal(paid.get("price", Decimal(0)))
        )
        try:
            return self.client.request(method, url, headers=headers, timeout=self.source.timeout, **request)
        except httpx.TimeoutException:
            error = self._error("transient", operation, f"no answer within {self.source.timeout:g} s")
        except httpx.LocalProtocolError:  # its text holds the header that cannot be sent: a credential
            raise self._error("not_configured", operation, "a credential is not fit for a header; check it") from None
        except httpx.RequestError as problem:
            error = self._error("transient", operation, f"the connection broke ({type(problem).__name__})")
        raise RetryLater(error)

    def _refusal(self, operation: str, answer: httpx.Response) -> Exception:
        status, said = answer.status_code, said_of(answer.content)
        kind: ErrorKind
        # Google answers 403 where others answer 429: https://cloud.google.com/compute/docs/api/best-practices
        too_often = status == 429 or (status == 403 and b"ateLimitExceeded" in answer.content)
        if status in (401, 403) and not too_often:
            advice = "check the connection's credentials and that they may read this"
            return self._error("auth", operation, f"{status} {said}; {advice}")
        if status == 404:
            return self._error(
                "not_configured", operation, f"404 {said}; check accounts and endpoints of the connection"
            )
        if too_often or status >= 500:
            kind = "throttled" if too_often else "transient"
            wait = retry_after(answer.headers)
            if wait is not None and wait > LONGEST_WAIT:
                return self._error(
                    kind, operation, f"{status} {said}; it asks to wait {wait:g} s, the next run tries again"
                )
            return RetryLater(self._error(kind, operation, f"{status} {said}; the next run tries again"), wait)
        return self._error("malformed", operation, f"{status} {said}")

    def _error(self, kind: ErrorKind, operation: str, what: str) -> CollectionError:
        return CollectionError(kind, f"{self._named(operation)}: {what}")

    def _named(self, operation: str) -> str:
        return f"{self.source.name}: {self.service} {operation} at {httpx.URL(self.base_url).host}"


def said_of(body: bytes) -> str:
    """What an error's body says, in at most 300 characters: its message where it is one of the clouds' JSON errors."""
    try:
        said = json.loads(body)
    except ValueError:
        return body.decode(errors="replace")[:300]
    if isinstance(said, dict):
        error = said.get("error", said)
        if isinstance(error, dict):
            code, message = error.get("code") or error.get("status"), error.get("message")
            return f"{code or ''} {message or json.dumps(error)}".strip()[:300]
        return str(error)[:300]
    return str(said)[:300]


def pages(fetch: Callable[[str | None], Any], following: Callable[[Any], str | None], what: str) -> Iterator[Any]:
    """Every page: `fetch` gets one by the cursor (None: the first) and `following` reads the next cursor from it.

    CollectionError (malformed) where a cursor or a whole page comes a second time, or pages do not end: an API that
    repeats itself would otherwise be read for ever, or twice. Pages without anything in them may repeat: filtered
    lists have such.
    """
    cursor: str | None = None
    cursors: set[str] = set()
    bodies: set[bytes] = set()
    for _ in range(MOST_PAGES):
        page = fetch(cursor)
        cursor = following(page) or None
        if cursor is not None:
            body = sha256(json.dumps(page, sort_keys=True, default=str).replace(cursor, "").encode()).digest()
            if cursor in cursors or (body in bodies and _holds_anything(page)):
                raise CollectionError("malformed", f"{what}: the API sends a page again that it had sent before")
            cursors.add(cursor)
            bodies.add(body)
        yield page
        if cursor is None:
            return
    raise CollectionError("malformed", f"{what}: more than {MOST_PAGES} pages")


def _holds_anything(page: Any) -> bool:
    """Whether some list in the page has an item."""
    if isinstance(page, list):
        return bool(page)
    return isinstance(page, dict) and any(map(_holds_anything, page.values()))


def _origin(url: str) -> str:
    parts = httpx.URL(url)
    return f"{parts.scheme}://{parts.host}:{parts.port or ''}"
