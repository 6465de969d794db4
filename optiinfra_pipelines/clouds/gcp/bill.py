"""A bill read from Cloud Billing's export in BigQuery: the detailed (or standard) table, or the FOCUS table.

What its rows mean is in `charges.py`. A billing period is an invoice month: usage of 31 October may lie in the bill of
November, and the reverse. https://cloud.google.com/billing/docs/how-to/export-data-bigquery-tables
"""

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import pyarrow as pa

from optiinfra_pipelines.clouds.collecting import Source
from optiinfra_pipelines.clouds.gcp.bigquery import BigQueryTable
from optiinfra_pipelines.clouds.gcp.charges import detailed_charges, focus_charges
from optiinfra_pipelines.windows import BillingPeriod

_FOCUS_TABLES = "gcp_billing_export_focus"
_EXPORTED_TABLES = "gcp_billing_export_"
# Usage is exported before its invoice month begins where Pacific time or a correction puts it there
_BEFORE = timedelta(days=10)
_PAGE = 10_000


class BigQueryBill:
    """The bill at bigquery://project/dataset/table. Opening it contacts nobody."""

    def __init__(self, source: Source) -> None:
        location = source.connection.billing.location if source.connection.billing else ""
        self._table = BigQueryTable(source, location, "billing location")

    @property
    def _is_focus(self) -> bool:
        return self._table.name.startswith(_FOCUS_TABLES)

    def periods(self) -> list[BillingPeriod]:
        """The invoice months that the table holds, oldest first."""
        month = "FORMAT_TIMESTAMP('%Y%m', BillingPeriodStart)" if self._is_focus else "invoice.month"
        pages = self._table.pages(f"SELECT DISTINCT {month} AS month FROM {self._table.quoted} AS t", {}, _PAGE)
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
        if self._table.name.startswith(_EXPORTED_TABLES):  # a view has no partitions
            where += " AND _PARTITIONTIME >= @since"
            given["since"] = period.start - _BEFORE
        return self._ordered(where, given, partial(detailed_charges, period=period))

    def _ordered(self, where: str, given: Mapping[str, Any], charges: Callable[[list[str]], pa.Table]) -> pa.Table:
        """The charges in an order of their own, for BigQuery has none; no more than one page is held as text."""
        pages = [charges(page) for page in self._table.pages(self._charges(where), given, _PAGE)]
        found = pa.concat_tables(pages, promote_options="default") if pages else pa.table({})
        return found.sort_by([(name, "ascending") for name in sorted(found.schema.names)]) if found.num_rows else found

    def _charges(self, where: str) -> str:
        # as one JSON text a row: every column that the table has, in the digits that BigQuery prints, each only once
        return f"SELECT TO_JSON_STRING(t) AS charge FROM {self._table.quoted} AS t WHERE {where}"
