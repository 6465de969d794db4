"""The price list of the sandbox's Google Cloud: SKUs as the Cloud Billing Catalog gives them. The parts add up to the
list prices of the fleet's shapes."""

from decimal import Decimal
from typing import Any

from optiinfra_pipelines.sandbox.gcp_wire import REGION

COMPUTE, CLOUD_SQL = "6F81-5844-456A", "9662-B51E-5089"
_SKUS = (
    # id, description, family, group, usage type, unit, price of a unit
    ("CF4E-A0C7-E3BF", "N2 Instance Core running in Iowa", "Compute", "CPU", "OnDemand", "h", "0.031611"),
    ("5C10-1C2D-3E4F", "N2 Instance Ram running in Iowa", "Compute", "RAM", "OnDemand", "GiBy.h", "0.004237"),
    ("2922-40C5-B19F", "A2 Instance Core running in Iowa", "Compute", "CPU", "OnDemand", "h", "0.031611"),
    ("2390-DCAF-DA38", "A2 Instance Ram running in Iowa", "Compute", "RAM", "OnDemand", "GiBy.h", "0.004237"),
    ("039F-D0DA-4055", "Nvidia Tesla A100 GPU running in Iowa", "Compute", "GPU", "OnDemand", "h", "2.933908"),
    (
        "7A1B-0C3D-2E5F",
        "Spot Preemptible N2 Instance Core running in Iowa",
        "Compute",
        "CPU",
        "Preemptible",
        "h",
        "0.00823",
    ),
    ("D973-5D65-BAB2", "Storage PD Capacity", "Storage", "PDStandard", "OnDemand", "GiBy.mo", "0.04"),
    ("9B5F-3A1C-77D0", "Storage PD Snapshot in US", "Storage", "PDSnapshot", "OnDemand", "GiBy.mo", "0.05"),
    ("C054-7F72-A02E", "Static Ip Charge", "Network", "IpAddress", "OnDemand", "h", "0.01"),
)
_SQL_SKUS = (
    ("0F7A-2B3C-4D5E", "Cloud SQL for PostgreSQL: Zonal - vCPU in Iowa", "SQLGen2InstancesCPU", "h", "0.03"),
    ("1A8B-3C4D-5E6F", "Cloud SQL for PostgreSQL: Zonal - RAM in Iowa", "SQLGen2InstancesRAM", "GiBy.h", "0.0051"),
)


def skus(service_id: str) -> list[dict[str, Any]]:
    """The SKUs of one service; none of a service that the sandbox does not have."""
    if service_id == COMPUTE:
        return [_sku(COMPUTE, "Compute Engine", *each) for each in _SKUS]
    if service_id == CLOUD_SQL:
        return [
            _sku(CLOUD_SQL, "Cloud SQL", sku, text, "ApplicationServices", group, "OnDemand", unit, price)
            for sku, text, group, unit, price in _SQL_SKUS
        ]
    return []


def _sku(
    service_id: str, service: str, sku: str, text: str, family: str, group: str, usage: str, unit: str, price: str
) -> dict[str, Any]:
    whole, _, rest = price.partition(".")
    amount = {"currencyCode": "USD", "units": whole, "nanos": int(Decimal(f"0.{rest or 0}") * 10**9)}
    # the first address is free in this list, so that there is a price of two tiers
    rates = [{"startUsageAmount": 0, "unitPrice": amount}]
    if group == "IpAddress":
        free = {"currencyCode": "USD", "units": "0", "nanos": 0}
        rates = [{"startUsageAmount": 0, "unitPrice": free}, {"startUsageAmount": 1, "unitPrice": amount}]
    return {
        "name": f"services/{service_id}/skus/{sku}",
        "skuId": sku,
        "description": text,
        "category": {
            "serviceDisplayName": service,
            "resourceFamily": family,
            "resourceGroup": group,
            "usageType": usage,
        },
        "serviceRegions": [REGION],
        "pricingInfo": [
            {
                "effectiveTime": "2026-10-01T00:00:00.000Z",
                "summary": "",
                "pricingExpression": {
                    "usageUnit": unit,
                    "baseUnit": "s" if unit == "h" else "By.s",
                    "displayQuantity": 1,
                    "tieredRates": rates,
                },
                "currencyConversionRate": 1,
            }
        ],
        "serviceProviderName": "Google",
    }
