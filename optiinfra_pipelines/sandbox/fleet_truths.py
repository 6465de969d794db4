"""Holds the warehouse against the fleet: every resource, every series and every bill that the servers show."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from importlib import import_module
from math import isclose
from typing import Any

from optiinfra_pipelines.sandbox.fleet import Fleet, FleetCloud, Resource, Series, window_starts
from optiinfra_pipelines.sandbox.fleet_bills import bill_periods, charges
from optiinfra_pipelines.tables.operations import COLLECTION_RUNS
from optiinfra_pipelines.warehouse.protocol import Warehouse

_INVENTORY = """
SELECT customer_id, provider, resource_type, resource_id, state, region, vcpus, memory_gib, gpu_model, gpu_count,
       storage_gib, attached_to, created_at
FROM {staging}.inventory i WHERE is_current AND connection_id = $connection
"""
_METRICS = """
SELECT customer_id, resource_id, metric_name, component, statistic, count(*) AS n, sum(value) AS total,
       min(window_start) AS first, max(window_start) AS last
FROM {staging}.metrics m WHERE connection_id = $connection AND window_seconds = 900
GROUP BY customer_id, resource_id, metric_name, component, statistic
"""
_BILLS = """
SELECT x_customer_id AS customer, BillingPeriodStart AS start, count(*) AS n, sum(BilledCost) AS billed
FROM {staging}.billing b WHERE x_connection_id = $connection GROUP BY 1, 2
"""
_WINDOWS = """
SELECT customer_id, window_start FROM {runs} r
WHERE kind = 'metrics' AND status = 'succeeded' AND connection_id = $connection GROUP BY customer_id, window_start
"""
_FIELDS = (
    "state",
    "region",
    "vcpus",
    "memory_gib",
    "gpu_model",
    "gpu_count",
    "storage_gib",
    "attached_to",
    "created_at",
)


def server(cloud: FleetCloud) -> Any:
    """The module of a cloud's server."""
    return import_module(f"optiinfra_pipelines.sandbox.{cloud}_server")


def fleet_differences(warehouse: Warehouse, fleet: Fleet) -> Iterator[str]:
    """One sentence for each thing that the warehouse holds otherwise than the fleet has it; none where all is true."""
    for cloud in fleet.clouds:
        connection = {"connection": f"{cloud}-api"}
        names = {"staging": warehouse.database("staging"), "runs": warehouse.name(COLLECTION_RUNS)}

        def ask(sql: str, names: Mapping[str, str] = names, params: Any = connection) -> list[dict[str, Any]]:
            return warehouse.query(sql.format(**names), params).to_pylist()

        yield from _inventory(fleet, cloud, ask(_INVENTORY))
        yield from _metrics(fleet, cloud, ask(_METRICS), ask(_WINDOWS))
        yield from _bills(fleet, cloud, ask(_BILLS))


def _inventory(fleet: Fleet, cloud: FleetCloud, rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    found = {(row["customer_id"], row["resource_type"], row["resource_id"]): row for row in rows}
    planted = {
        (customer, each.resource_type, each.resource_id): each
        for customer in fleet.customers
        for each in server(cloud).shown_resources(fleet, customer)
    }
    for key in sorted({*found, *planted}):
        if key not in found or key not in planted:
            yield f"{cloud} {' '.join(key)}: {'is not in the inventory' if key in planted else 'was never planted'}"
            continue
        for field in _FIELDS:
            expected, held = _planted_field(planted[key], field), found[key][field]
            if field == "created_at" and held is None:
                continue  # some clouds say of addresses and functions no date
            if expected is not None and not _same(expected, held):
                yield f"{cloud} {' '.join(key)}: {field} is {held}, planted {expected}"


def _planted_field(resource: Resource, field: str) -> Any:
    if field in ("vcpus", "memory_gib", "gpu_model", "gpu_count"):
        return getattr(resource.shape, field) or None if resource.shape else None
    if field == "storage_gib" and resource.resource_type == "machine":
        return None  # a machine's own disk: told by some clouds alone
    return getattr(resource, field)


def _same(expected: Any, held: Any) -> bool:
    if isinstance(expected, datetime):
        return held is not None and abs((held - expected).total_seconds()) < 1
    if isinstance(expected, float):
        return held is not None and isclose(expected, held, rel_tol=1e-9)
    return bool(expected == held)


def _metrics(
    fleet: Fleet, cloud: FleetCloud, rows: Iterable[Mapping[str, Any]], windows: Iterable[Mapping[str, Any]]
) -> Iterator[str]:
    found = {
        (row["customer_id"], row["resource_id"], row["metric_name"], row["component"], row["statistic"]): row
        for row in rows
    }
    collected: dict[str, list[datetime]] = {}
    for row in windows:
        collected.setdefault(row["customer_id"], []).append(row["window_start"])
    planted: dict[tuple[str, ...], Series] = {}
    for customer in fleet.customers:
        for each in server(cloud).shown_series(fleet, customer):
            planted[customer, each.resource.resource_id, each.metric, each.component, each.statistic] = each
    for key in sorted({*found, *planted}):
        if key not in planted:
            yield f"{cloud} {' '.join(key)}: was never planted"
            continue
        starts = sorted(collected.get(key[0], ()))
        values = [value for value in map(planted[key].value, starts) if value is not None]
        held = found.get(key, {"n": 0, "total": 0.0})
        if held["n"] != len(values) or not isclose(held["total"], sum(values), rel_tol=1e-9, abs_tol=1e-9):
            yield (
                f"{cloud} {' '.join(key)}: {held['n']} windows that sum to {held['total']},"
                f" planted {len(values)} that sum to {sum(values)}"
            )
    for customer, starts in collected.items():
        missing = set(window_starts(min(starts), max(starts))) - set(starts)
        if missing:
            yield f"{cloud} {customer}: {len(missing)} windows between the first and the last were never collected"


def _bills(fleet: Fleet, cloud: FleetCloud, rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    found = {(row["customer"], f"{row['start']:%Y-%m}"): (row["n"], row["billed"]) for row in rows}
    for customer in fleet.customers:
        for period in bill_periods(fleet.today):
            planted = sum((each.cost for each in charges(fleet, customer, cloud, period)), Decimal(0))
            count, billed = found.pop((customer, str(period)), (0, Decimal(0)))
            if billed != planted or (planted and not count):
                yield f"{cloud} bill of {customer} {period}: {billed} in {count} rows, planted {planted}"
    for customer, month in found:
        yield f"{cloud} bill of {customer} {month}: was never planted"
