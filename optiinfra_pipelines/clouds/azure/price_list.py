"""Items of the Retail Prices API -> rows of the prices contract. Pure. Prices are pay-as-you-go; Windows, Low Priority
and DevTest are left out, spot is kept as such."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from optiinfra_pipelines.clouds.azure.parser import Size
from optiinfra_pipelines.clouds.azure.vocabulary import DISK_TIER_GIB
from optiinfra_pipelines.errors import CollectionError

Item = Mapping[str, Any]
MONTH_HOURS = 730  # https://azure.microsoft.com/pricing/calculator counts a month so
# unitOfMeasure -> (unit, how many of it a price is for)
_UNITS: Mapping[str, tuple[str, int]] = {
    "1 Hour": ("hour", 1),
    "1/Month": ("month", 1),
    "1 GB/Month": ("gib_month", 1),
    "1 GiB/Month": ("gib_month", 1),
    "1/Day": ("day", 1),
    "10K": ("request", 10_000),
}

_NEEDED = (
    *("skuId", "meterId", "skuName", "meterName", "productName", "serviceName", "type", "unitOfMeasure"),
    *("currencyCode", "armRegionName", "effectiveStartDate", "retailPrice", "tierMinimumUnits"),
)


def wanted_in(region: str) -> str:
    """The OData filter for what is priced in a region: one list, for pages of different lists cost a request each."""
    services = (
        "serviceName eq 'Virtual Machines'",
        "(serviceName eq 'Storage' and contains(productName, 'Managed Disk'))",
        "serviceName eq 'SQL Database'",
        "(serviceName eq 'Virtual Network' and contains(productName, 'IP Addresses'))",
    )
    return f"armRegionName eq '{region}' and priceType eq 'Consumption' and ({' or '.join(services)})"


def whole(item: Item) -> Item:
    """The same item; CollectionError (malformed) where it lacks what a price is made of."""
    lacks = [name for name in _NEEDED if item.get(name) is None]
    if lacks:
        named = item.get("meterId") or item.get("skuId") or item.get("productName")
        raise CollectionError("malformed", f"retail prices: {named} has no {', '.join(lacks)}; the others came")
    return item


def price_rows(items: Iterable[Item], sizes: Mapping[tuple[str, str], Size]) -> list[dict[str, Any]]:
    """One row an item that inventory can have; `sizes` tell what machines have, by (region, size) in lower case."""
    return list(_priced(items, sizes))


def _priced(items: Iterable[Item], sizes: Mapping[tuple[str, str], Size]) -> Iterator[dict[str, Any]]:
    seen: set[tuple[Any, ...]] = set()
    for item in items:
        kind = _kind(item)
        if kind is None:
            continue
        unit, count = _UNITS.get(item["unitOfMeasure"], (item["unitOfMeasure"].lower(), 1))
        size = sizes.get((item["armRegionName"].lower(), item.get("armSkuName", "").lower())) or Size(None, None)
        spot = item["skuName"].endswith(" Spot")
        row = {
            "sku": f"{item['skuId']}/{item['meterId']}",
            "kind": kind,
            "native_type": item.get("armSkuName") or item["skuName"],
            "region": item["armRegionName"] or "global",
            "vcpus": size.vcpus if kind == "machine" else _vcores(item, kind),
            "memory_gib": size.memory_gib,
            "gpu_model": size.gpu_model,
            "gpu_count": size.gpu_count,
            "storage_gib": _disk_gib(item) if kind == "volume" else None,
            "unit": unit,
            "price": Decimal(item["retailPrice"]) / count,
            "currency": item["currencyCode"],
            "price_type": "spot" if spot else "on_demand",
            "month_hours": MONTH_HOURS if unit == "hour" else None,
            "tier_start": Decimal(item["tierMinimumUnits"]),
            "details": json.dumps(
                {
                    "product": item["productName"],
                    "meter": item["meterName"],
                    "sku_name": item["skuName"],
                    "effective_from": item["effectiveStartDate"],
                }
            ),
            "source": "retail_prices:prices",
        }
        key = (row["sku"], row["region"], row["price_type"], row["currency"], row["tier_start"])
        if key not in seen:  # secondary meters of a region repeat the primary one
            seen.add(key)
            yield row


def _kind(item: Item) -> str | None:
    product, name = item["productName"], f"{item['skuName']} {item['meterName']}"
    service = item["serviceName"]
    if item["type"] != "Consumption":
        return None
    if service == "Virtual Machines":
        left_out = "Windows" in product or "Low Priority" in name or re.search(r"Cloud ?Services|Dedicated", product)
        return "machine" if item.get("armSkuName") and not left_out else None
    if service == "Storage":
        return "snapshot" if "Snapshot" in name else "volume"
    return {"SQL Database": "database", "Virtual Network": "ip_address"}.get(service)


def _vcores(item: Item, kind: str) -> float | None:
    match = re.match(r"(\d+) vCore", item["skuName"]) if kind == "database" else None
    return float(match.group(1)) if match else None


def _disk_gib(item: Item) -> float | None:
    match = re.match(r"[PES](\d+) ", item["skuName"])
    gib = DISK_TIER_GIB.get(int(match.group(1))) if match else None
    return float(gib) if gib else None
