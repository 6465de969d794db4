"""Vultr's API over HTTP: who asks, how often, and lists of many pages. What the answers mean is the parsers' business.

Source: https://www.vultr.com/api/ ("Meta and Pagination", "Rate Limit").
"""

from collections.abc import Mapping
from decimal import Decimal
from threading import Event, Lock
from time import monotonic
from typing import Any

import httpx

from optiinfra_pipelines.clouds.collecting import Source
from optiinfra_pipelines.clouds.rest import Api, pages, trusted
from optiinfra_pipelines.errors import CollectionError

PUBLIC = "https://api.vultr.com"
PAGE_SIZE = 500  # the most that per_page may be
REQUESTS_A_SECOND = 30  # from one IP address; more are answered 429 without a Retry-After


class Pace:
    """Lets through `rate` requests a second, and as many at once after a pause. Safe across threads."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left = rate
        self._at = monotonic()
        self._lock = Lock()

    def __call__(self, request: httpx.Request) -> None:
        """Wait until `request` may be sent."""
        with self._lock:
            now = monotonic()
            self._left = min(self._rate, self._left + (now - self._at) * self._rate) - 1
            self._at = now
            wait = -self._left / self._rate
        if wait > 0:
            Event().wait(wait)


_PACE = Pace(REQUESTS_A_SECOND)  # one for the process: the public API's limit is by IP address, whoever's key it is


class VultrApi:
    """The API of one connection. Methods raise CollectionError as rest.Api does; numbers with a point are Decimal.

    CollectionError (not_configured) where the connection has no key.
    """

    def __init__(self, source: Source, page_size: int = PAGE_SIZE) -> None:
        key = source.secret("api_key")
        if not key:
            raise CollectionError(
                "not_configured", f"{source.name}: name an environment variable under credentials.api_key"
            )
        self.source = source
        self._page_size = page_size
        headers = {"Authorization": f"Bearer {key}"}
        base_url = source.endpoint("api", PUBLIC)
        client = httpx.Client(verify=trusted(), event_hooks={"request": [_PACE] if base_url == PUBLIC else []})
        self._api = Api(source, "vultr", base_url, client, lambda refused: headers, parse_float=Decimal)

    def get(self, path: str) -> Any:
        """The decoded answer to GET /v2`path`."""
        return self._api.get(f"/v2{path}", _operation(path))

    def list(self, path: str, key: str, params: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """Every item of the list `key` at /v2`path`, over all pages.

        CollectionError (malformed) where an answer lacks the list, pages repeat, or fewer items came than the API
        itself counts in meta.total.
        """
        items: list[dict[str, Any]] = []
        totals: list[int] = []

        def fetch(cursor: str | None) -> Any:
            query = {"per_page": self._page_size, **(params or {}), **({"cursor": cursor} if cursor else {})}
            return self._api.get(f"/v2{path}", _operation(path), query)

        for page in pages(fetch, _next_cursor, f"{self.source.name}: vultr {path}"):
            if not isinstance(page, dict) or not isinstance(page.get(key), list):
                raise CollectionError("malformed", f"{self.source.name}: vultr {path}: the answer has no list {key}")
            items += page[key]
            if "total" in (page.get("meta") or {}):
                totals.append(int(page["meta"]["total"]))
        # something made between two pages raises the total but may stand on a page that was read before
        if totals and len(items) < min(totals):
            raise CollectionError(
                "malformed",
                f"{self.source.name}: vultr {path}: {len(items)} of {min(totals)} items came; the next run tries again",
            )
        return items


def _next_cursor(page: Any) -> str | None:
    links = ((page.get("meta") or {}).get("links") or {}) if isinstance(page, dict) else {}
    return links.get("next") or None


def _operation(path: str) -> str:
    """The path without ids: /instances/{id}/bandwidth."""
    parts = path.strip("/").split("/")
    return "/".join("{id}" if any(map(str.isdigit, part)) else part for part in parts)
