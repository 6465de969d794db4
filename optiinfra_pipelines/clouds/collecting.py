"""What the collectors of all clouds share: what they are given, what they give back, and the account of their calls.

How one cloud is asked is in `clouds/<provider>/`; when and for whom, and where rows go, is in `clouds/collection.py`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from threading import Lock
from typing import Any, Protocol

import pyarrow as pa
from pydantic import SecretStr

from optiinfra_pipelines.customers import Connection
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.tables.contract import Table
from optiinfra_pipelines.windows import BillingPeriod, Window, as_utc

ADDED = ("customer_id", "provider", "connection_id", "snapshot_day", "snapshot_at", "price_day", "collected_at")
"""Columns of the contracts that collectors leave out: the caller knows them."""


@dataclass
class Calls:
    """The calls of one attempt and their list price, against what is left of the day's budget. Safe across threads.

    `left` is what paid calls may still cost, in USD; None: no limit. `budget` is the whole of it, for the message.
    """

    left: Decimal | None = None
    budget: Decimal | None = None
    made: dict[tuple[str, str], tuple[int, int, Decimal]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def add(self, service: str, operation: str, units: int = 0, price: Decimal = Decimal(0)) -> None:
        """Account for one request before it is sent; CollectionError (budget) where the money for it is not left."""
        with self._lock:
            if price and self.left is not None:
                if price > self.left:
                    raise CollectionError(
                        "budget",
                        f"{service} {operation} would cost {price} USD and {self.left} of the day's {self.budget} USD"
                        " for paid calls is left; it goes on at 00:00 UTC. To spend more, raise api_budget_usd in"
                        " customers.yaml or OPTIINFRA_API_BUDGET_USD",
                    )
                self.left -= price
            calls, before, spent = self.made.get((service, operation), (0, 0, Decimal(0)))
            self.made[service, operation] = (calls + 1, before + units, spent + price)


@dataclass(frozen=True)
class Source:
    """One connection opened for collecting: whose it is, its credentials by field name, and the account of calls.

    `timeout` is how many seconds one answer may take; `attempts` how often one request is sent at most.
    """

    customer_id: str
    connection: Connection
    credentials: Mapping[str, SecretStr]
    calls: Calls = field(default_factory=Calls)
    timeout: float = 30
    attempts: int = 5

    @property
    def name(self) -> str:
        """How messages name it: acme/aws-main."""
        return f"{self.customer_id}/{self.connection.id}"

    def endpoint(self, service: str, default: str) -> str:
        """The base URL of one of the provider's services, without a slash at its end; `default` is the public one."""
        return self.connection.endpoints.get(service, default).rstrip("/")

    def secret(self, field_name: str) -> str | None:
        """The value of a credential; None where customers.yaml names none."""
        value = self.credentials.get(field_name)
        return value.get_secret_value() if value is not None else None


@dataclass
class Findings:
    """What one collection brought: rows for one table, and the parts that failed while the others came whole.

    `tables` hold columns of the contract without ADDED ones. A part is a service in a region or account; its failure
    is a CollectionError that names it. A collection with any failure is recorded as failed, and its rows are kept.
    `unfit` are rows that a column cannot hold, each with the reason: they are refused, and the others are not.
    """

    tables: list[pa.Table] = field(default_factory=list)
    failures: list[CollectionError] = field(default_factory=list)
    unfit: list[tuple[Mapping[str, Any], str]] = field(default_factory=list)

    def add_rows(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add `rows`, each a mapping of the contract's columns; absent columns are null."""
        if not rows:
            return
        schema = collected_schema(table)
        try:
            self.tables.append(pa.Table.from_pylist(list(rows), schema=schema))
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            for row in rows:
                try:
                    self.tables.append(pa.Table.from_pylist([row], schema=schema))
                except (pa.ArrowInvalid, pa.ArrowTypeError):
                    self.unfit.append((row, f"{_unfit_column(row, schema)}: cannot be held exactly"))

    def add(self, other: "Findings") -> None:
        """Add all that `other` brought."""
        self.tables += other.tables
        self.failures += other.failures
        self.unfit += other.unfit

    @contextmanager
    def part(self) -> Iterator[None]:
        """A block whose CollectionError is one part's failure: it is kept, and what comes after goes on.

        Not so `auth` of the whole connection: raise it outside of parts.
        """
        try:
            yield
        except CollectionError as error:
            self.failures.append(error)

    @property
    def row_count(self) -> int:
        return sum(table.num_rows for table in self.tables)


class Collector(Protocol):
    """One provider's way to its APIs for one Source. Its constructor contacts nobody."""

    def metrics(self, resources: Sequence[Mapping[str, Any]], span: Window) -> Findings:
        """15-minute windows of `span` of the given resources, newest inventory rows of the connection (all columns).

        A resource that answers nothing has no rows. Metrics of things no inventory lists (models) come as well.
        """
        ...

    def inventory(self) -> Findings:
        """Every resource there is now."""
        ...

    def prices(self) -> Findings:
        """List prices of machine types, disks, addresses and databases to be had in the connection's regions."""
        ...


class BillSource(Protocol):
    """A bill that comes from an API and not from files; rows have FOCUS columns and x_ columns, values as printed."""

    def periods(self) -> Iterable[BillingPeriod]:
        """The billing periods that the API can tell of."""
        ...

    def rows(self, period: BillingPeriod) -> pa.Table:
        """The charges of one period: text columns by FOCUS names, amounts in the digits the API printed, null where
        the API does not say; `x_` columns for what FOCUS has no column for. No rows where there is no bill yet."""
        ...


def collected_schema(table: Table) -> pa.Schema:
    """The Arrow schema of what a collector gives for `table`: its contract without ADDED columns."""
    return pa.schema([column.arrow for column in table.columns if column.name not in ADDED])


def _unfit_column(row: Mapping[str, Any], schema: pa.Schema) -> str:
    for column in schema:
        try:
            pa.array([row.get(column.name)], column.type)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            return str(column.name)
    return "row"


def naive_utc(at: datetime) -> datetime:
    """The moment `at` as warehouses take it: UTC without a zone; ValueError where it has none to begin with."""
    return as_utc(at).replace(tzinfo=None)


OpenCollector = Callable[[Source], Collector]
