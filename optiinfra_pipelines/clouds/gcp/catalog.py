"""SKUs of the Cloud Billing Catalog -> rows of the price contract, and the prices of machine types that they add up to.
Pure. Amounts are units and nanos, so they are exact.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from optiinfra_pipelines.clouds.gcp.parser import machine_shapes, region_of, tail
from optiinfra_pipelines.clouds.gcp.vocabulary import PRICE_TYPES, PRICE_UNITS
from optiinfra_pipelines.clouds.vocabulary import gpu_model
from optiinfra_pipelines.errors import CollectionError

SOURCE = "cloudbilling:skus.list"
_NANOS = Decimal("0.000000001")
# category.resourceGroup of Compute Engine's SKUs -> what the price is of; groups that are not here are no machine part
_GROUPS: Mapping[str, str] = {
    "CPU": "vcpu",
    "RAM": "memory",
    "GPU": "gpu",
    "N1Standard": "vcpu",
    "F1Micro": "machine",
    "G1Small": "machine",
    "PDStandard": "volume",
    "PDBalanced": "volume",
    "SSD": "volume",
    "LocalSSD": "volume",
    "PDSnapshot": "snapshot",
    "StorageImage": "snapshot",
    "IpAddress": "ip_address",
    "InterregionEgress": "egress",
    "PremiumInternetEgress": "egress",
}
# "N2 Instance Core running in Iowa", "A2 Instance Ram running in Americas", "C3 Custom Instance Core ..."
_FAMILY = re.compile(r"^(?:Spot Preemptible )?([A-Z]\d+[A-Z]?) (?:AMD |Arm |Predefined )?Instance (?:Core|Ram)\b")
# "Cloud SQL for PostgreSQL: Zonal - 4 vCPU + 16GB RAM in Iowa"
_SQL_SIZE = re.compile(r"(\d+) vCPU \+ ([\d.]+)GB RAM")


def whole(sku: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same SKU; CollectionError (malformed) where it lacks what a price is made of."""
    try:
        _ = sku["skuId"], sku["description"]
        for info in (sku.get("pricingInfo") or ())[-1:]:
            for rate in info["pricingExpression"].get("tieredRates") or ():
                _ = money(rate["unitPrice"]), rate["unitPrice"]["currencyCode"]
    except (KeyError, TypeError, AttributeError, InvalidOperation) as error:
        named = sku.get("skuId") or sku.get("name")
        raise CollectionError(
            "malformed", f"cloudbilling skus.list: {named} cannot be read ({error!r}); the others came"
        ) from error
    return sku


def price_rows(skus: Iterable[Mapping[str, Any]], regions: frozenset[str]) -> Iterator[dict[str, Any]]:
    """One row a SKU, region and tier, in `regions` (empty: all), of what the contract has a kind for."""
    for sku in skus:
        category = sku.get("category") or {}
        kind = _kind(sku["description"], category)
        usage = category.get("usageType", "")
        if kind is None:
            continue
        for region in sku.get("serviceRegions") or ("global",):
            if not regions or region in regions or region == "global":
                yield from _tiers(sku, kind, region, PRICE_TYPES.get(usage, usage.lower()))


def money(amount: Mapping[str, Any]) -> Decimal:
    """The exact amount of a google.type.Money: whole units as text and billionths as a number."""
    return Decimal(str(amount.get("units") or 0)) + Decimal(str(amount.get("nanos") or 0)) * _NANOS


def _kind(description: str, category: Mapping[str, Any]) -> str | None:
    if category.get("serviceDisplayName") == "Cloud SQL":
        return "database" if category.get("resourceGroup", "").startswith("SQLGen2Instances") else None
    return _GROUPS.get(category.get("resourceGroup", ""))


def _tiers(sku: Mapping[str, Any], kind: str, region: str, price_type: str) -> Iterator[dict[str, Any]]:
    description = sku["description"]
    group = (sku.get("category") or {}).get("resourceGroup")
    if kind == "vcpu" and re.search(r"\bRam\b", description):
        kind = "memory"  # N1Standard holds cores and memory alike
    family = _FAMILY.match(description)
    size = _SQL_SIZE.search(description)
    details = {"description": description, "family": family[1].lower() if family else None, "group": group}
    for info in (sku.get("pricingInfo") or ())[-1:]:  # ascending by time: the last holds
        expression = info["pricingExpression"]
        unit = expression.get("usageUnit", "")
        for rate in expression.get("tieredRates") or ():
            yield {
                "sku": sku["skuId"],
                "kind": kind,
                "region": region,
                "vcpus": float(size[1])
                if size
                else (1.0 if kind == "vcpu" or group == "SQLGen2InstancesCPU" else None),
                "memory_gib": float(size[2]) if size else _gib(kind, group),
                "gpu_model": gpu_model(description) if kind == "gpu" else None,
                "gpu_count": 1.0 if kind == "gpu" else None,
                "unit": PRICE_UNITS.get(unit, unit),
                "price": money(rate["unitPrice"]),
                "currency": rate["unitPrice"]["currencyCode"],
                "price_type": price_type,
                "tier_start": Decimal(str(rate.get("startUsageAmount") or 0)),
                "details": json.dumps({name: value for name, value in details.items() if value}),
                "source": SOURCE,
            }


def _gib(kind: str, group: str | None) -> float | None:
    return 1.0 if kind == "memory" or group == "SQLGen2InstancesRAM" else None


def machine_price_rows(
    prices: Sequence[Mapping[str, Any]], machine_types: Iterable[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """On-demand and spot prices of machine types, in each region where the parts have a price: cores times vCPUs and
    memory times GiB of the type's family, and its GPUs. A type of which one part has no price is left out."""
    parts = _parts(prices)
    listed = list(machine_types)
    shapes = machine_shapes(listed)
    places = sorted({(item["name"], region_of(tail(item.get("zone")))) for item in listed})
    terms = {(price_type, currency) for _, price_type, currency, *_ in parts}
    for (name, region), (price_type, currency) in ((place, term) for place in places for term in sorted(terms)):
        shape, where = shapes[name], (region, price_type, currency)
        family = name.partition("-")[0]
        core, memory = parts.get((*where, "vcpu", family)), parts.get((*where, "memory", family))
        gpu = parts.get((*where, "gpu", shape.gpu_model)) if shape.gpu_count else Decimal(0)
        if core is None or memory is None or gpu is None:
            continue
        yield {
            "sku": f"machine-type/{name}",
            "kind": "machine",
            "native_type": name,
            "region": region,
            "vcpus": shape.vcpus,
            "memory_gib": shape.memory_gib,
            "gpu_model": shape.gpu_model,
            "gpu_count": shape.gpu_count,
            "unit": "hour",
            "price": core * _exact(shape.vcpus) + memory * _exact(shape.memory_gib) + gpu * _exact(shape.gpu_count),
            "currency": currency,
            "price_type": price_type,
            "month_hours": 730,
            "tier_start": Decimal(0),
            "details": json.dumps({"sum_of": "vcpu, memory and gpu SKUs of the family", "family": family}),
            "source": SOURCE,
        }


def _parts(prices: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, str, str, str | None], Decimal]:
    found: dict[tuple[str, str, str, str, str | None], Decimal] = {}
    for row in prices:
        if row["kind"] in ("vcpu", "memory", "gpu") and row["price_type"] in ("on_demand", "spot") and row["price"]:
            part = row["gpu_model"] if row["kind"] == "gpu" else json.loads(row["details"]).get("family")
            if part:
                where = (row["region"], row["price_type"], row["currency"], row["kind"], part)
                found.setdefault(where, row["price"])
    return found


def _exact(amount: float | None) -> Decimal:
    return Decimal(str(amount or 0))
