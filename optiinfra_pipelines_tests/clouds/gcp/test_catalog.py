"""SKUs of the Cloud Billing Catalog as prices."""

import json
from decimal import Decimal
from typing import Any

import pytest

from optiinfra_pipelines.clouds.gcp.catalog import machine_price_rows, money, price_rows


def _sku(text: str, group: str, usage: str = "OnDemand", unit: str = "h", service: str = "Compute Engine") -> Any:
    amount = {"currencyCode": "USD", "units": "0", "nanos": 31_611_000}
    expression = {"usageUnit": unit, "tieredRates": [{"startUsageAmount": Decimal(0), "unitPrice": amount}]}
    return {
        "skuId": f"{text}/{usage}",
        "description": text,
        "category": {"serviceDisplayName": service, "resourceGroup": group, "usageType": usage},
        "serviceRegions": ["us-central1", "europe-west4"],
        "pricingInfo": [{"pricingExpression": expression}],
    }


CORE, RAM = (
    _sku("N2 Instance Core running in Iowa", "CPU"),
    _sku("N2 Instance Ram running in Iowa", "RAM", unit="GiBy.h"),
)
TYPE = {"name": "n2-standard-2", "guestCpus": 2, "memoryMb": 8192, "zone": "us-central1-a"}


@pytest.mark.parametrize(
    ("amount", "exact"),
    [
        ({"units": "0", "nanos": 31_611_000}, "0.031611"),
        ({"units": "2", "nanos": 933_908_000}, "2.933908"),
        ({"units": "-1", "nanos": -750_000_000}, "-1.75"),
        ({"nanos": 1}, "0.000000001"),
        ({"units": "3"}, "3"),
    ],
)
def test_units_and_nanos_are_an_exact_amount(amount: dict[str, Any], exact: str) -> None:
    assert money(amount) == Decimal(exact)


def test_a_sku_is_a_price_in_each_of_its_regions() -> None:
    rows = list(price_rows([CORE], frozenset()))
    assert [(row["region"], row["kind"], row["price"], row["unit"]) for row in rows] == [
        ("us-central1", "vcpu", Decimal("0.031611"), "hour"),
        ("europe-west4", "vcpu", Decimal("0.031611"), "hour"),
    ]
    assert len(list(price_rows([CORE], frozenset({"europe-west4"})))) == 1


def test_spot_and_committed_prices_are_told_from_those_on_demand() -> None:
    words = ("OnDemand", "Preemptible", "Commit1Yr", "SomethingNew")
    rows = price_rows(
        [_sku("N2 Instance Core running in Iowa", "CPU", each) for each in words], frozenset({"us-central1"})
    )
    assert [row["price_type"] for row in rows] == ["on_demand", "spot", "reserved", "somethingnew"]


def test_a_database_sku_says_its_size_where_it_is_a_whole_machine() -> None:
    text = "Cloud SQL for PostgreSQL: Zonal - 4 vCPU + 15GB RAM in Iowa"
    (row,) = price_rows([_sku(text, "SQLGen2InstancesN1Standard", service="Cloud SQL")], frozenset({"us-central1"}))
    assert (row["kind"], row["vcpus"], row["memory_gib"]) == ("database", 4.0, 15.0)


def test_one_missing_price_aborts_nothing_but_the_type_that_it_belongs_to() -> None:
    gpu_type = {
        "name": "a2-highgpu-1g", "guestCpus": 12, "memoryMb": 87040, "zone": "us-central1-a",
        "accelerators": [{"guestAcceleratorType": "nvidia-tesla-a100", "guestAcceleratorCount": 1}],
    }  # fmt: skip
    prices = list(price_rows([CORE, RAM], frozenset({"us-central1"})))
    rows = list(machine_price_rows(prices, [gpu_type, TYPE]))
    assert [(row["native_type"], row["price"]) for row in rows] == [("n2-standard-2", Decimal("0.31611"))]
    assert json.loads(rows[0]["details"])["family"] == "n2"


def test_what_the_contract_has_no_kind_for_is_no_row() -> None:
    assert list(price_rows([_sku("Licensing Fee for Windows", "Google")], frozenset())) == []
