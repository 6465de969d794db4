"""A bill read from Cloud Billing's export in BigQuery: the detailed (or standard) table, or the FOCUS table.

What its rows mean is in `charges.py`. A billing period is an invoice month: usage of 31 October may lie in the bill of
November, and the reverse. https://cloud.google.com/billing/docs/how-to/export-data-bigquery-tables
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from functools import cached_property, partial
from typing import Any

import pyarrow as pa

from optiinfra_pipelines.clouds.collecting import Source
from optiinfra_pipelines.clouds.gcp.charges import detailed_charges, focus_charges
from optiinfra_pipelines.clouds.gcp.client import HOSTS, Access, told
from optiinfra_pipelines.clouds.gcp.vocabulary import QUERY_LEAST_BYTES, QUERY_PRICE_PER_TIB
from optiinfra_pipelines.errors import CollectionError, ErrorKind
from optiinfra_pipelines.windows import BillingPeriod

_FOCUS_TABLES = "gcp_billing_export_focus"
_EXPORTED_TABLES = "gcp_billing_export_"
# Usage is exported before its invoice month begins where Pacific time or a correction puts it there
_BEFORE = timedelta(days=10)
_PAGE = 10_000
_TIB = 1024**4


class BigQueryBill:
    """The bill at bigquery://project/dataset/table. Opening it contacts nobody.

    A query costs by the bytes that it reads: a free dry run says how many, and the price is accounted for before the
    query is sent.
    """

    def __init__(self, source: Source) -> None:
        location = source.connection.billing.location if source.connection.billing else ""
        parts = location.removeprefix("bigquery://").split("/")
        if len(parts) != 3 or not all(parts) or "`" in location:
            raise CollectionError(
                "not_configured", f"{source.name}: {location or 'no location'} is not bigquery://project/dataset/table"
            )
        self._source = source
        self._project, self._dataset, self._table = parts

    @property
    def _is_focus(self) -> bool:
        return self._table.startswith(_FOCUS_TABLES)

    def periods(self) -> list[BillingPeriod]:
        """The invoice months that the table holds, oldest first."""
        month = "FORMAT_TIMESTAMP('%Y%m', BillingPeriodStart)" if self._is_focus else "invoice.month"
        pages = self._pages(f"SELECT DISTINCT {month} AS month FROM {self._name} AS t", {})
        return sorted(BillingPeriod(f"{each[:4]}-{each[4:]}") for page in pages for each in page if each)

    def rows(self, period: BillingPeriod) -> pa.Table:
        """The charges of the invoice month `period`, under FOCUS names, as text; no rows where there is no bill yet.

        CollectionError: auth, not_configured (no such table), throttled, transient, malformed, budget.
        """
        given: dict[str, Any] = {"month": period.key.replace("-", "")}
        if self._is_focus:
            # at 00:00 UTC or at midnight of Pacific time, a period's start is on the first of its month in UTC
            where = "FORMAT_TIMESTAMP('%Y%m', BillingPeriodStart) = @month"
            return self._ordered(where, given, focus_charges)
        where = "invoice.month = @month"
        if self._table.startswith(_EXPORTED_TABLES):  # a view has no partitions
            where += " AND _PARTITIONTIME >= @since"
            given["since"] = period.start - _BEFORE
        return self._ordered(where, given, partial(detailed_charges, period=period))

    def _ordered(self, where: str, given: Mapping[str, Any], charges: Callable[[list[str]], pa.Table]) -> pa.Table:
        """The charges in an order of their own, for BigQuery has none; no more than one page is held as text."""
        pages = [charges(page) for page in self._pages(self._charges(where), given)]
        found = pa.concat_tables(pages, promote_options="default") if pages else pa.table({})
        return found.sort_by([(name, "ascending") for name in sorted(found.schema.names)]) if found.num_rows else found

    @property
    def _name(self) -> str:
        return f"`{self._project}.{self._dataset}.{self._table}`"

    def _charges(self, where: str) -> str:
        # as one JSON text a row: every column that the table has, in the digits that BigQuery prints, each only once
        return f"SELECT TO_JSON_STRING(t) AS charge FROM {self._name} AS t WHERE {where}"

    @cached_property
    def _client(self) -> Any:
        from google.cloud import bigquery

        endpoint = self._source.endpoint("bigquery", HOSTS["bigquery"])
        credentials = Access(self._source).lend()
        return bigquery.Client(self._project, credentials, client_options={"api_endpoint": endpoint})

    def _pages(self, sql: str, given: Mapping[str, Any]) -> Iterator[list[str]]:
        """The one text column that `sql` selects, page by page."""
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
                page_size=_PAGE,
            )
            yield from self._read(found)

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
                "not_configured": "check the connection's billing location",
            }.get(kind, "the next run tries again")
            said = str(getattr(error, "message", None) or told(error))[:300]
            raise CollectionError(kind, f"{self._source.name}: bigquery {self._name}: {said}; {advice}") from None


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
