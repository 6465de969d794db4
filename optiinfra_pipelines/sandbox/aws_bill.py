"""The fleet's charges as Cost Explorer tells them, and its list prices as the Price List API does. Pure."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from optiinfra_pipelines.sandbox.fleet import PLACES, Fleet, Shape
from optiinfra_pipelines.sandbox.fleet_bills import FleetCharge, charges
from optiinfra_pipelines.windows import billing_periods

_METRICS = ("UnblendedCost", "AmortizedCost", "NetUnblendedCost", "NetAmortizedCost", "BlendedCost")
_LOCATION = "US East (N. Virginia)"
Offer = tuple[str, dict[str, str], str, Decimal]
# What is sold beside the fleet's types, at the list prices of autumn 2026.
_PLAIN = (
    (
        "AmazonEC2",
        {"productFamily": "Storage", "volumeApiName": "gp3", "usagetype": "EBS:VolumeUsage.gp3"},
        *("GB-Mo", "0.0800000000"),
    ),
    ("AmazonEC2", {"productFamily": "Storage Snapshot", "usagetype": "EBS:SnapshotUsage"}, "GB-Mo", "0.0500000000"),
    ("AmazonVPC", {"group": "VPCPublicIPv4Address", "usagetype": "PublicIPv4:IdleAddress"}, "Hrs", "0.0050000000"),
)


def dimensions(charge: FleetCharge) -> dict[str, str]:
    """The values of one charge in the dimensions of Cost Explorer that the sandbox knows."""
    if charge.resource is None or charge.resource.shape is None:
        return {
            "SERVICE": "Tax" if charge.category == "Tax" else "AWS Credits",
            "USAGE_TYPE": "NoUsageType",
            "RECORD_TYPE": charge.category,
        }
    kind = charge.resource.shape.native_type
    if charge.resource.resource_type == "database":
        return {
            "SERVICE": "Amazon Relational Database Service",
            "USAGE_TYPE": f"InstanceUsage:{kind}",
            "RECORD_TYPE": "Usage",
        }
    return {
        "SERVICE": "Amazon Elastic Compute Cloud - Compute",
        "USAGE_TYPE": f"BoxUsage:{kind}",
        "RECORD_TYPE": "Usage",
    }


def cost_and_usage(fleet: Fleet, customer_id: str, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """ResultsByTime of GetCostAndUsage by day or month; the end is exclusive."""
    monthly = asked["Granularity"] == "MONTHLY"
    start, end = (date.fromisoformat(asked["TimePeriod"][name]) for name in ("Start", "End"))
    grouped = [each["Key"] for each in asked.get("GroupBy", ())]
    sums: dict[date, dict[tuple[str, ...], list[Decimal]]] = defaultdict(dict)
    open_days = set()
    for period in billing_periods(_midnight(start), _midnight(end)):
        for charge in charges(fleet, customer_id, "aws", period):
            day = charge.start.date()
            if not (start <= day < end and _wanted(asked.get("Filter"), dimensions(charge))):
                continue
            if charge.invoice_id is None:
                open_days.add(day)
            values = dimensions(charge)
            slot = day.replace(day=1) if monthly else day
            total = sums[slot].setdefault(tuple(values[name] for name in grouped), [Decimal(0), Decimal(0)])
            total[0] += charge.cost
            total[1] += charge.quantity
    results = []
    while start < end:
        following = (start.replace(day=1) + timedelta(days=32)).replace(day=1) if monthly else start + timedelta(days=1)
        groups = [
            {"Keys": list(keys), "Metrics": _metrics(asked["Metrics"], *total)}
            for keys, total in sorted(sums[start].items())
        ]
        results.append(
            {
                "TimePeriod": {"Start": start.isoformat(), "End": min(following, end).isoformat()},
                "Total": {},
                "Groups": groups,
                "Estimated": start in open_days or start >= fleet.today,
            }
        )
        start = following
    return results


def _metrics(names: Sequence[str], cost: Decimal, quantity: Decimal) -> dict[str, Any]:
    amounts = {name: {"Amount": f"{cost:f}", "Unit": "USD"} for name in _METRICS}
    amounts["UsageQuantity"] = {"Amount": f"{quantity:f}", "Unit": "Hrs"}
    return {name: amounts[name] for name in names}


def _wanted(test: Mapping[str, Any] | None, values: Mapping[str, str]) -> bool:
    if not test:
        return True
    if "Not" in test:
        return not _wanted(test["Not"], values)
    if "And" in test:
        return all(_wanted(each, values) for each in test["And"])
    dimension = test["Dimensions"]
    return dimension["Key"] == "LINKED_ACCOUNT" or values[dimension["Key"]] in dimension["Values"]


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def products(fleet: Fleet, service: str, wanted: Mapping[str, str]) -> list[str]:
    """PriceList of GetProducts: the products whose attributes are the wanted ones, each as JSON in a string."""
    found = []
    for offered, attributes, unit, price in _offers(fleet):
        if offered == service and all(attributes.get(name) == value for name, value in wanted.items()):
            found.append(_product(offered, attributes, unit, price))
    return found


def _offers(fleet: Fleet) -> list[Offer]:
    """Service, attributes, unit and price of everything sold: the fleet's types, a disk, a snapshot, an address."""
    shapes = {
        each.shape.native_type: (each.resource_type, each.shape)
        for each in fleet.resources
        if each.cloud == "aws" and each.shape
    }
    found = [
        ("AmazonRDS", _database(shape), "Hrs", shape.hourly)
        if kind == "database"
        else ("AmazonEC2", _machine(shape), "Hrs", shape.hourly)
        for kind, shape in shapes.values()
    ]
    found += [(service, dict(attributes), unit, Decimal(price)) for service, attributes, unit, price in _PLAIN]
    place = {"regionCode": PLACES["aws"][0], "location": _LOCATION, "locationType": "AWS Region"}
    return [(service, {**place, **attributes}, unit, price) for service, attributes, unit, price in found]


def _database(shape: Shape) -> dict[str, str]:
    return {
        "productFamily": "Database Instance",
        "instanceType": shape.native_type,
        "usagetype": f"InstanceUsage:{shape.native_type}",
        "vcpu": f"{shape.vcpus:g}",
        "memory": f"{shape.memory_gib:g} GiB",
        "storage": "EBS Only",
        "databaseEngine": "PostgreSQL",
        "deploymentOption": "Single-AZ",
        "licenseModel": "No license required",
    }


def _machine(shape: Shape) -> dict[str, str]:
    attributes = {
        "productFamily": "Compute Instance",
        "instanceType": shape.native_type,
        "usagetype": f"BoxUsage:{shape.native_type}",
        "vcpu": f"{shape.vcpus:g}",
        "memory": f"{shape.memory_gib:g} GiB",
        "storage": "1 x 3800 NVMe SSD" if shape.gpu_model else "EBS only",
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
        "operation": "RunInstances",
    }
    return attributes | ({"gpu": f"{shape.gpu_count:g}"} if shape.gpu_model else {})


def _product(service: str, attributes: Mapping[str, str], unit: str, price: Decimal) -> str:
    inner = {name: value for name, value in attributes.items() if name != "productFamily"}
    sku = "".join(each for each in attributes["usagetype"].upper() if each.isalnum())[-16:]
    term = f"{sku}.JRTCKXETXF"
    dimension = {
        "unit": unit,
        "endRange": "Inf",
        "beginRange": "0",
        "description": f"${price} per {unit} {attributes['usagetype']}",
        "appliesTo": [],
        "rateCode": f"{term}.6YS6EN2CT7",
        "pricePerUnit": {"USD": f"{price:.10f}"},
    }
    return json.dumps(
        {
            "product": {"productFamily": attributes.get("productFamily", ""), "attributes": inner, "sku": sku},
            "serviceCode": service,
            "terms": {"OnDemand": {term: {"priceDimensions": {f"{term}.6YS6EN2CT7": dimension}, "sku": sku}}},
        }
    )
