"""What every attempt to collect needs of the warehouse and leaves there: connections, credentials, money, calls."""

from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
from pydantic import SecretStr

from optiinfra_pipelines.clouds.collecting import Calls, Source, naive_utc
from optiinfra_pipelines.customers import Collect, Connection, Customer
from optiinfra_pipelines.settings import Settings, secret
from optiinfra_pipelines.tables.operations import API_CALLS, CONNECTIONS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import floor_day


def record_connections(warehouse: Warehouse, customer: Customer) -> None:
    """Bring raw.connections to what customers.yaml says of `customer`; a connection that left becomes inactive."""
    known = warehouse.query(
        "SELECT connection_id, provider, collects"
        f" FROM {warehouse.current(CONNECTIONS)} c WHERE customer_id = $customer",
        {"customer": customer.id},
    ).to_pylist()
    now = datetime.now(UTC).replace(tzinfo=None)
    named = {
        each.id: {"provider": each.provider, "collects": ",".join(each.collect), "active": True}
        for each in customer.connections
    }
    gone = {
        row["connection_id"]: {"provider": row["provider"], "collects": row["collects"], "active": False}
        for row in known
    }
    rows = [
        {"customer_id": customer.id, "connection_id": connection_id, **row, "collected_at": now}
        for connection_id, row in (gone | named).items()
    ]
    warehouse.upsert(CONNECTIONS, pa.Table.from_pylist(rows, schema=CONNECTIONS.arrow_schema))


def open_source(settings: Settings, customer: Customer, connection: Connection, calls: Calls) -> Source:
    """The connection with its credentials; CollectionError (not_configured) where one is not set."""
    credentials = credentials_of(customer, connection)
    return Source(
        customer.id, connection, credentials, calls, timeout=settings.api_timeout, attempts=settings.api_attempts
    )


def credentials_of(customer: Customer, connection: Connection) -> dict[str, SecretStr]:
    """The values of the connection's credentials; CollectionError (not_configured) where one is not set."""
    owner = f"{customer.id}/{connection.id}"
    return {name: secret(variable, connection=owner) for name, variable in connection.credentials.items()}


def api_budget(warehouse: Warehouse, settings: Settings, customer: Customer, now: datetime) -> Calls:
    """An account of calls with what is left of the customer's budget of the UTC day."""
    budget = customer.api_budget_usd if customer.api_budget_usd is not None else settings.api_budget_usd
    [row] = warehouse.query(
        f"SELECT sum(price) AS spent FROM {warehouse.name(API_CALLS)} c"
        " WHERE customer_id = $customer AND called_at >= $day",
        {"customer": customer.id, "day": naive_utc(floor_day(now))},
    ).to_pylist()
    return Calls(budget - (row["spent"] or Decimal(0)), budget)


def record_calls(
    warehouse: Warehouse,
    customer: Customer,
    connection: Connection,
    kind: Collect,
    calls: Calls,
    now: datetime,
) -> None:
    """One row of raw.api_calls for each kind of call that the attempt made."""
    made = [
        {
            "customer_id": customer.id,
            "provider": connection.provider,
            "connection_id": connection.id,
            "kind": kind,
            "service": service,
            "operation": operation,
            "calls": count,
            "units": units,
            "price": price,
            "run_id": warehouse.run_id,
            "called_at": naive_utc(now),
        }
        for (service, operation), (count, units, price) in sorted(calls.made.items())
    ]
    if made:
        warehouse.append(API_CALLS, pa.Table.from_pylist(made, schema=API_CALLS.arrow_schema))
