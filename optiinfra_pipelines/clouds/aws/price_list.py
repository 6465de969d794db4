"""Products of the Price List API -> rows of raw.aws_prices. Pure; amounts keep the digits that the API prints.

Only what a customer could buy by the hour today: on demand, shared hardware, Linux without preinstalled software.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from optiinfra_pipelines.clouds.vocabulary import gpu_model
from optiinfra_pipelines.errors import CollectionError


@dataclass(frozen=True)
class Product:
    """One question to GetProducts: the kind of its rows, the service and what its attributes must be.

    Attributes: https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/price-changes.html
    """

    kind: str
    service: str
    filters: Mapping[str, str]


PRODUCTS: tuple[Product, ...] = (
    Product(
        "machine",
        "AmazonEC2",
        {
            "productFamily": "Compute Instance",
            "operatingSystem": "Linux",
            "tenancy": "Shared",
            "preInstalledSw": "NA",
            "capacitystatus": "Used",
        },
    ),
    Product("volume", "AmazonEC2", {"productFamily": "Storage"}),
    Product("snapshot", "AmazonEC2", {"productFamily": "Storage Snapshot"}),
    Product("ip_address", "AmazonVPC", {"group": "VPCPublicIPv4Address"}),
    Product("database", "AmazonRDS", {"productFamily": "Database Instance", "deploymentOption": "Single-AZ"}),
)
_UNITS = {"Hrs": "hour", "GB-Mo": "gib_month", "GB-month": "gib_month", "GB-Month": "gib_month"}
# The GPU of a machine type's family where its product names none
# (https://docs.aws.amazon.com/ec2/latest/instancetypes/ac.html).
_FAMILY_GPUS = {
    "g4dn": "T4",
    "g5": "A10G",
    "g5g": "T4G",
    "g6": "L4",
    "g6e": "L40S",
    "gr6": "L4",
    "p3": "V100",
    "p3dn": "V100 32GB",
    "p4d": "A100",
    "p4de": "A100 80GB",
    "p5": "H100",
    "p5e": "H200",
    "p5en": "H200",
    "p6-b200": "B200",
    "p6-b300": "B300",
}
_MEMORY = re.compile(r"([\d.,]+) GiB")
_STORE = re.compile(r"(?:(\d+) x )?([\d,]+) ?(GB|TB)?")


def rows(text: str, kind: str) -> Iterator[dict[str, Any]]:
    """One row for each tier of each on-demand price of one product; `text` is a string of PriceList.

    CollectionError (malformed) where it is no product with attributes and terms.
    """
    try:
        product = json.loads(text)
        attributes = product["product"]["attributes"]
        sku = product["product"]["sku"]
        terms = product.get("terms", {}).get("OnDemand", {}).values()
        for dimension in (each for term in terms for each in term["priceDimensions"].values()):
            for currency, amount in dimension["pricePerUnit"].items():
                yield {
                    "sku": sku,
                    "kind": kind,
                    "native_type": _native_type(attributes),
                    "region": attributes.get("regionCode", "global"),
                    **_specifications(attributes),
                    "unit": _UNITS.get(dimension["unit"], dimension["unit"].lower()),
                    "price": Decimal(amount),
                    "currency": currency,
                    "price_type": "on_demand",
                    "month_hours": 730 if dimension["unit"] == "Hrs" else None,
                    "tier_start": Decimal(dimension.get("beginRange", "0")),
                    "details": json.dumps(_details(attributes, dimension), sort_keys=True),
                    "source": "pricing:GetProducts",
                }
    except (KeyError, ValueError, TypeError, InvalidOperation, AttributeError) as error:
        raise CollectionError("malformed", f"pricing GetProducts: a product cannot be read ({error!r})") from error


def _native_type(attributes: Mapping[str, str]) -> str | None:
    return attributes.get("instanceType") or attributes.get("volumeApiName") or attributes.get("usagetype")


def _specifications(attributes: Mapping[str, str]) -> dict[str, Any]:
    vcpus, memory = attributes.get("vcpu", ""), _MEMORY.search(attributes.get("memory", ""))
    gpus = attributes.get("gpu", "")
    family = attributes.get("instanceType", "").split(".")[0]
    return {
        "vcpus": float(vcpus) if vcpus.replace(".", "").isdigit() else None,
        "memory_gib": float(memory.group(1).replace(",", "")) if memory else None,
        "gpu_model": gpu_model(_FAMILY_GPUS.get(family)) if gpus else None,
        "gpu_count": float(gpus) if gpus else None,
        "storage_gib": _store(attributes.get("storage", "")),
    }


def _store(written: str) -> float | None:
    """The GiB of an instance store written as "1 x 3800 NVMe SSD" or "900 GB NVMe SSD"; None for "EBS only"."""
    match = _STORE.match(written)
    if not match:
        return None
    size = float(match.group(2).replace(",", "")) * (1000 if match.group(3) == "TB" else 1)
    return float(match.group(1) or 1) * size * 10**9 / 2**30


def _details(attributes: Mapping[str, str], dimension: Mapping[str, Any]) -> dict[str, Any]:
    kept = (
        *("usagetype", "operation", "location", "physicalProcessor", "processorArchitecture", "networkPerformance"),
        *("currentGeneration", "instanceFamily", "databaseEngine", "databaseEdition", "licenseModel"),
        *("deploymentOption", "volumeType", "gpuMemory", "group"),
    )
    found = {name: attributes[name] for name in kept if attributes.get(name)}
    return {**found, "description": dimension.get("description"), "end_range": dimension.get("endRange")}
