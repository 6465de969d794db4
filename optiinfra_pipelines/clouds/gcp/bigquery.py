"""One table in BigQuery and the queries that read it: what they cost, their pages, and what their errors mean.

Which rows are asked for and what they say belongs to the bill (`bill.py`) and to `interactions.py`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from functools import cached_property
from typing import Any

from optiinfra_pipelines.clouds.collecting import Source
from optiinfra_pipelines.clouds.gcp.client import HOSTS, Access, told
from optiinfra_pipelines.clouds.gcp.vocabulary import QUERY_LEAST_BYTES, QUERY_PRICE_PER_TIB
from optiinfra_pipelines.errors import CollectionError, ErrorKind

_TIB = 1024**4


class BigQueryTable:
    """The table or view at bigquery://project/dataset/table. Opening it contacts nobody.

    A query costs by the bytes that it reads: a free dry run says how many, and the price is accounted for before the
    query is sent. `setting` is where customers.yaml names the location, for messages; `endpoint_url` is BigQuery's
    address where neither the connection's nor the public one serves. CollectionError: not_configured.
    """

    def __init__(self, source: Source, location: str, setting: str, endpoint_url: str | None = None) -> None:
        parts = location.removeprefix("bigquery://").split("/")
        if len(parts) != 3 or not all(parts) or "`" in location:
            raise CollectionError(
                "not_configured", f"{source.name}: {location or 'no location'} is not bigquery://project/dataset/table"
            )
        self._source, self._setting, self._endpoint_url = source, setting, endpoint_url
        self._project, self._dataset, self.name = parts

    @property
    def quoted(self) -> str:
        """The table as a statement names it."""
        return f"`{self._project}.{self._dataset}.{self.name}`"

    def pages(self, sql: str, given: Mapping[str, Any], page_size: int) -> Iterator[list[str]]:
        """The one text column that `sql` selects, in pages of at most `page_size` values.

        `given` are the values of named parameters: text, or times with a zone. CollectionError: auth, not_configured
        (no such table), throttled, transient, malformed, budget.
        """
        with self._told_apart():
            from google.cloud import bigquery

            kinds = {name: "STRING" if isinstance(value, str) else "TIMESTAMP" for name, value in given.items()}
            asked = [bigquery.ScalarQueryParameter(name, kinds[name], value) for name, value in given.items()]
            self._account(sql, asked)
            found = self._client.query_and_wait(
                sql,
                job_config=bigquery.QueryJobConfig(query_parameters=asked),
                api_timeout=self._source.timeout,
                wait_timeout=self._source.timeout * self._source.attempts,
                retry=self._retry("jobs.query"),
                job_retry=None,
                page_size=page_size,
            )
            yield from self._read(found)

    @cached_property
    def _client(self) -> Any:
        from google.cloud import bigquery

        endpoint = self._endpoint_url or self._source.endpoint("bigquery", HOSTS["bigquery"])
        credentials = Access(self._source).lend()
        return bigquery.Client(self._project, credentials, client_options={"api_endpoint": endpoint})

    def _read(self, found: Any) -> Iterator[list[str]]:
        count = 0
        for page in found.pages:
            texts = [row[0] for row in page]
            count += len(texts)
            if count > found.total_rows:
                break
            yield texts
            if found.next_page_token:
                self._source.calls.add("bigquery", "jobs.getQueryResults")
        if count != found.total_rows:
            raise CollectionError(
                "malformed",
                f"{self._source.name}: bigquery says the answer has {found.total_rows} rows and sent {count}",
            )

    def _account(self, sql: str, asked: list[Any]) -> None:
        from google.cloud import bigquery

        self._source.calls.add("bigquery", "jobs.insert dry run")
        dry = bigquery.QueryJobConfig(query_parameters=asked, dry_run=True, use_query_cache=False)
        retry = self._retry("jobs.insert dry run")
        job = self._client.query(sql, job_config=dry, timeout=self._source.timeout, retry=retry, job_retry=None)
        size = max(job.total_bytes_processed or 0, QUERY_LEAST_BYTES)
        self._source.calls.add("bigquery", "jobs.query", size, Decimal(size) * QUERY_PRICE_PER_TIB / _TIB)

    def _retry(self, operation: str) -> Any:
        from google.api_core.retry import Retry

        left = iter(range(self._source.attempts - 1))

        def again(error: Exception) -> bool:
            if _kind(error) not in ("throttled", "transient") or next(left, None) is None:
                return False
            self._source.calls.add("bigquery", operation)
            return True

        return Retry(predicate=again, initial=0.25, maximum=20, timeout=self._source.timeout * self._source.attempts)

    @contextmanager
    def _told_apart(self) -> Iterator[None]:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from requests.exceptions import RequestException

        try:
            yield
        except (GoogleAPIError, GoogleAuthError, RequestException, TimeoutError) as error:
            kind = _kind(error)
            advice = {
                "auth": "check the credentials and that they may run jobs and read the table",
                "not_configured": f"check the connection's {self._setting}",
                "malformed": f"check that the connection's {self._setting} is a table of this kind",
            }.get(kind, "the next run tries again")
            said = str(getattr(error, "message", None) or told(error))[:300]
            raise CollectionError(kind, f"{self._source.name}: bigquery {self.quoted}: {said}; {advice}") from None


def _kind(error: Exception) -> ErrorKind:
    """What an exception of Google's client means for us."""
    from google.api_core import exceptions as api
    from google.auth.exceptions import RefreshError, TransportError
    from requests.exceptions import RequestException

    reasons = {each.get("reason") for each in getattr(error, "errors", ()) if isinstance(each, Mapping)}
    if isinstance(error, api.TooManyRequests) or "rateLimitExceeded" in reasons:
        return "throttled"
    if isinstance(error, RefreshError):
        return "transient" if error.retryable else "auth"
    if isinstance(error, api.Unauthorized | api.Forbidden):
        return "auth"
    if isinstance(error, api.NotFound):
        return "not_configured"
    if isinstance(error, api.ClientError):
        return "malformed"
    if isinstance(error, api.GoogleAPIError | RequestException | TransportError | ConnectionError | TimeoutError):
        return "transient"
    return "malformed"
