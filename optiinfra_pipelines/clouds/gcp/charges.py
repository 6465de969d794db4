"""Rows of Cloud Billing's BigQuery exports, as JSON text -> charges under FOCUS names, as text. Pure.

Numbers keep the digits that BigQuery printed. A credit is a charge of its own, beside the charge that it is for.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa

from optiinfra_pipelines.clouds.gcp.vocabulary import CHARGE_CATEGORIES, SERVICE_CATEGORIES
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.tables.focus import FOCUS_COLUMNS
from optiinfra_pipelines.windows import BillingPeriod

Charge = dict[str, str | None]
_FOCUS_NAMES = frozenset(column.name for column in FOCUS_COLUMNS)
_GOOGLE = "Google Cloud"
# What the detailed export says beside FOCUS: our column -> the export's field
_EXTRA: Mapping[str, str] = {
    "x_InvoiceMonth": "invoice.month",
    "x_PublisherType": "invoice.publisher_type",
    "x_CostType": "cost_type",
    "x_ExportTime": "export_time",
    "x_CurrencyConversionRate": "currency_conversion_rate",
    "x_ServiceId": "service.id",
    "x_ProjectNumber": "project.number",
    "x_Location": "location.location",
    "x_ResourceGlobalName": "resource.global_name",
    "x_AdjustmentMode": "adjustment_info.mode",
    "x_AdjustmentType": "adjustment_info.type",
    "x_ConsumptionModel": "consumption_model.description",
    "x_SystemLabels": "system_labels",
    "x_ProjectLabels": "project.labels",
    "x_ResourceTags": "tags",
}
_CREDIT = ("x_CreditType", "x_CreditId", "x_CreditName")


def detailed_charges(rows: Iterable[str], period: BillingPeriod) -> pa.Table:
    """The charges of one invoice month from rows of the detailed or standard export, each a JSON object."""
    return _table([charge for row in rows for charge in _unnested(_decoded(row), period)])


def focus_charges(rows: Iterable[str]) -> pa.Table:
    """The charges of rows of the FOCUS export: its own columns, those that FOCUS does not know under x_ names."""
    return _table([_focus_charge(_decoded(row)) for row in rows])


def _table(found: list[Charge]) -> pa.Table:
    names = sorted({name for charge in found for name in charge})
    return pa.table({name: pa.array([charge.get(name) for charge in found], pa.string()) for name in names})


def resource_id(global_name: str | None) -> str | None:
    """The id that inventory has for a resource of Compute Engine or Cloud SQL; any other name as it is."""
    compute = re.fullmatch(r"//compute\.googleapis\.com/projects/.+/(\d+)", global_name or "")
    if compute:
        return compute[1]
    database = re.fullmatch(
        r"//(?:cloudsql|sqladmin)\.googleapis\.com/projects/([^/]+)/instances/([^/]+)", global_name or ""
    )
    return f"{database[1]}:{database[2]}" if database else global_name or None


def _decoded(row: str) -> Mapping[str, Any]:
    try:
        decoded = json.loads(row, parse_float=_digits, parse_int=_digits)
    except ValueError:
        decoded = None
    if isinstance(decoded, dict):
        return decoded
    raise CollectionError("malformed", f"a row of the billing export is no JSON object: {row[:200]}")


class _Digits(str):
    """A number, as it was printed."""


def _digits(written: str) -> _Digits:
    return _Digits(written)


def _unnested(row: Mapping[str, Any], period: BillingPeriod) -> Iterator[Charge]:
    shared = _shared(row, period)
    cost, at_list = _amount(row.get("cost")), _amount(row.get("cost_at_list"))
    cost_type = row.get("cost_type") or "regular"
    yield shared | {
        "BilledCost": cost,
        "EffectiveCost": cost,
        "ContractedCost": cost,
        "ListCost": at_list if cost_type in ("regular", "tax") else cost,
        "ChargeCategory": CHARGE_CATEGORIES.get(cost_type, cost_type),
        "ChargeDescription": _field(row, "adjustment_info.description") or _field(row, "sku.description"),
        "ChargeFrequency": "Usage-Based"
        if cost_type == "regular"
        else "Recurring"
        if cost_type == "tax"
        else "One-Time",
        "ConsumedQuantity": _amount(_value(row, "usage.amount")) if cost_type == "regular" else None,
        "ConsumedUnit": _field(row, "usage.unit") if cost_type == "regular" else None,
        "PricingQuantity": _amount(_value(row, "usage.amount_in_pricing_units")) if cost_type == "regular" else None,
        "PricingUnit": _field(row, "usage.pricing_unit") if cost_type == "regular" else None,
        "ContractedUnitPrice": _unit_price(row),
    }
    for credit in row.get("credits") or ():
        amount = _amount(credit.get("amount"))
        yield shared | {
            **dict.fromkeys(("BilledCost", "EffectiveCost", "ContractedCost", "ListCost"), amount),
            "ChargeCategory": "Credit",
            "ChargeDescription": credit.get("full_name") or credit.get("name"),
            "ChargeFrequency": "Usage-Based",
            "x_CreditType": credit.get("type"),
            "x_CreditId": credit.get("id"),
            "x_CreditName": credit.get("name"),
        }


def _shared(row: Mapping[str, Any], period: BillingPeriod) -> Charge:
    service, name = _field(row, "service.description"), _field(row, "resource.global_name")
    tags = {tag["key"]: tag.get("value") for tag in row.get("labels") or ()}
    return {our: _field(row, theirs) for our, theirs in _EXTRA.items()} | {
        **dict.fromkeys(_CREDIT),
        **dict.fromkeys(("ProviderName", "PublisherName", "InvoiceIssuerName"), _GOOGLE),
        "BillingAccountId": _field(row, "billing_account_id"),
        "BillingAccountType": "Billing Account",
        "BillingCurrency": _field(row, "currency"),
        # an invoice month is one of Pacific time; a period is known by its UTC month, and usage times stay as they are
        "BillingPeriodStart": f"{period.start:%Y-%m-%dT%H:%M:%SZ}",
        "BillingPeriodEnd": f"{period.end:%Y-%m-%dT%H:%M:%SZ}",
        "ChargePeriodStart": _field(row, "usage_start_time"),
        "ChargePeriodEnd": _field(row, "usage_end_time"),
        "AvailabilityZone": _field(row, "location.zone"),
        "RegionId": _field(row, "location.region"),
        "ResourceId": resource_id(name) or _field(row, "resource.name"),
        "ResourceName": _field(row, "resource.name"),
        "ServiceName": service,
        "ServiceCategory": SERVICE_CATEGORIES.get(service or "", "Other"),
        "SkuId": _field(row, "sku.id"),
        "SkuMeter": _field(row, "sku.description"),
        "SubAccountId": _field(row, "project.id"),
        "SubAccountName": _field(row, "project.name"),
        "SubAccountType": "Project" if _field(row, "project.id") else None,
        "Tags": json.dumps(dict(sorted(tags.items()))),
    }


def _unit_price(row: Mapping[str, Any]) -> str | None:
    """The price of one pricing unit; of a price for many of them there is no exact one to be had."""
    quantity = _amount(_value(row, "price.pricing_unit_quantity"))
    single = quantity is not None and Decimal(quantity) == 1
    return _amount(_value(row, "price.effective_price")) if single else None


def _focus_charge(row: Mapping[str, Any]) -> Charge:
    charge: Charge = {}
    for name, value in row.items():
        own = name if name in _FOCUS_NAMES or name.startswith("x_") else f"x_{name}"
        charge[own] = _text(value)
    if isinstance(row.get("Tags"), list):
        charge["Tags"] = json.dumps(dict(sorted((tag["key"], tag.get("value")) for tag in row["Tags"])))
    charge["x_ResourceGlobalName"] = charge.get("ResourceId")
    charge["ResourceId"] = resource_id(charge.get("ResourceId"))
    return charge


def _value(row: Mapping[str, Any], path: str) -> Any:
    value: Any = row
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _field(row: Mapping[str, Any], path: str) -> str | None:
    return _text(_value(row, path))


def _text(value: Any) -> str | None:
    if value is None or value in ("", [], {}):
        return None
    return str(value) if isinstance(value, str) else json.dumps(value)


def _amount(value: Any) -> str | None:
    """The printed digits of a number; BigQuery prints 64-bit and exact numbers as text, too."""
    return None if value in (None, "") else str(value)
