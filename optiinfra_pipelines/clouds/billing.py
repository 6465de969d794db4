"""Collecting bills: every connection of a customer that delivers one, each attempt recorded in raw.collection_runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

import pyarrow as pa

from optiinfra_pipelines.clouds.api_bills import fetched, open_api_bill
from optiinfra_pipelines.clouds.bookkeeping import api_budget, credentials_of, open_source, record_calls
from optiinfra_pipelines.clouds.collecting import Calls
from optiinfra_pipelines.clouds.collection import mistake
from optiinfra_pipelines.clouds.focus.layouts import known_periods, period_files
from optiinfra_pipelines.clouds.focus.loader import Bill, LoadedPeriod, load_period, newest_load, periods_of
from optiinfra_pipelines.clouds.focus.locations import open_location
from optiinfra_pipelines.customers import Connection, Customer
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.tables.billing import AWS_BILLING, AZURE_BILLING, FOCUS_BILLING, GCP_BILLING, VULTR_BILLING
from optiinfra_pipelines.tables.contract import Table
from optiinfra_pipelines.tables.operations import COLLECTION_RUNS
from optiinfra_pipelines.warehouse.protocol import Warehouse, WarehouseError
from optiinfra_pipelines.windows import BillingPeriod

# Which table a connection's bill goes to, by its provider.
TABLE_OF = {
    "aws": AWS_BILLING,
    "gcp": GCP_BILLING,
    "azure": AZURE_BILLING,
    "vultr": VULTR_BILLING,
    "focus": FOCUS_BILLING,
}


@dataclass(frozen=True)
class Collected:
    """How the attempt on one connection ended; `error` is None unless it failed."""

    connection_id: str
    loaded: LoadedPeriod
    error: CollectionError | WarehouseError | None = None


def billing_connections(customer: Customer, table: Table) -> list[Connection]:
    """The connections of `customer` whose bill goes to `table`."""
    return [each for each in customer.connections if each.billing is not None and TABLE_OF.get(each.provider) is table]


def open_bill(customer: Customer, connection: Connection) -> Bill:
    """The connection's bill in files, with its credentials; CollectionError (not_configured) where one is not set."""
    if connection.billing is None:
        raise CollectionError("not_configured", f"connection {customer.id}/{connection.id} has no billing section")
    location = open_location(connection.billing, credentials_of(customer, connection))
    return Bill(customer.id, connection.id, connection.provider, connection.billing, location)


def months_of(
    warehouse: Warehouse, settings: Settings, customer: Customer, connection: Connection
) -> list[BillingPeriod]:
    """Every billing period that the connection's bill tells of, oldest first; calls that cost count as any other."""
    if connection.billing is not None and connection.billing.is_api:
        now = datetime.now(UTC)
        calls = api_budget(warehouse, settings, customer, now)
        try:
            return sorted(open_api_bill(open_source(settings, customer, connection, calls)).periods())
        finally:
            record_calls(warehouse, customer, connection, "billing", calls, now)
    return periods_of(open_bill(customer, connection))


@contextmanager
def _bill(
    settings: Settings, customer: Customer, connection: Connection, period: BillingPeriod, calls: Calls
) -> Iterator[Bill]:
    """The bill, in files for as long as the block lasts."""
    if connection.billing is None or not connection.billing.is_api:
        yield open_bill(customer, connection)
        return
    with fetched(open_source(settings, customer, connection, calls), period) as location:
        yield Bill(customer.id, connection.id, connection.provider, connection.billing, location)


def collect_billing(
    warehouse: Warehouse, settings: Settings, table: Table, customer: Customer, period: BillingPeriod
) -> list[Collected]:
    """Load `period` of every connection of `customer` that delivers to `table`; one failing leaves the others be."""
    return [
        _attempt(warehouse, settings, table, customer, each, period) for each in billing_connections(customer, table)
    ]


def changed_periods(warehouse: Warehouse, customer: Customer) -> Iterator[tuple[Table, BillingPeriod]]:
    """Named billing periods whose files are not the ones loaded: a bill restated late, or never loaded."""
    for table in TABLE_OF.values():
        for connection in billing_connections(customer, table):
            if connection.billing is None or connection.billing.is_api:
                continue  # to ask an API what changed is to fetch it: the hourly schedule does
            bill = open_bill(customer, connection)
            for period in sorted(known_periods(bill.location)):
                files = period_files(bill.location, bill.source, period)
                before = newest_load(warehouse, table, bill.slice(period))
                if files.objects and (before is None or before["fingerprint"] != files.fingerprint):
                    yield table, period


def _attempt(
    warehouse: Warehouse,
    settings: Settings,
    table: Table,
    customer: Customer,
    connection: Connection,
    period: BillingPeriod,
) -> Collected:
    started_at, began = datetime.now(UTC), monotonic()
    asks_an_api = connection.billing is not None and connection.billing.is_api
    calls = api_budget(warehouse, settings, customer, started_at) if asks_an_api else Calls()
    try:
        with _bill(settings, customer, connection, period, calls) as bill:
            outcome = Collected(connection.id, load_period(warehouse, table, bill, period))
    except (CollectionError, WarehouseError) as error:
        outcome = Collected(connection.id, LoadedPeriod("unchanged"), error)
    except Exception as error:  # noqa: BLE001 - a mistake of ours in one reader must not cost the other connections their bills
        outcome = Collected(connection.id, LoadedPeriod("unchanged"), mistake(error, f"{customer.id}/{connection.id}"))
    failure = outcome.error
    row = {
        "customer_id": customer.id,
        "provider": connection.provider,
        "connection_id": connection.id,
        "kind": "billing",
        "window_start": period.start.replace(tzinfo=None),
        "window_end": period.end.replace(tzinfo=None),
        "status": "failed" if failure else outcome.loaded.status,
        "rows": outcome.loaded.rows,
        "rows_rejected": outcome.loaded.rows_rejected,
        "error_kind": failure.kind if isinstance(failure, CollectionError) else ("conflict" if failure else None),
        "error": str(failure) if failure else None,
        "duration_seconds": monotonic() - began,
        "run_id": warehouse.run_id,
        "started_at": started_at.replace(tzinfo=None),
    }
    warehouse.append(COLLECTION_RUNS, pa.Table.from_pylist([row], schema=COLLECTION_RUNS.arrow_schema))
    record_calls(warehouse, customer, connection, "billing", calls, started_at)
    return outcome
