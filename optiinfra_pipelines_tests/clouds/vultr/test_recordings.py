"""The parsers read what Vultr's API was recorded to answer, and what its OpenAPI document says it does."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from optiinfra_pipelines.clouds.vultr import inventory
from optiinfra_pipelines.clouds.vultr.bill import charge_row, invoice_period, pending_period
from optiinfra_pipelines.clouds.vultr.metrics import days_that_end, parse_bandwidth
from optiinfra_pipelines.clouds.vultr.prices import hourly_price, plan_gpu, price_rows
from optiinfra_pipelines.windows import WINDOW, BillingPeriod, Window
from optiinfra_pipelines_tests.clouds.vultr.recordings import examples, fixture, fixture_answers, gpu_plans


def test_a_recorded_instance_becomes_a_running_machine(data: Path) -> None:
    [item] = fixture(data, "instance", "/instances")["instances"]
    row = inventory.instance(item, {})
    assert row | {"details": None} == {
        "account_id": "",
        "resource_id": "14b3e7d6-ffb5-4994-8502-57fcd9db3b33",
        "resource_type": "machine",
        "name": "my new server",
        "native_type": "vc2-1c-2gb",
        "state": "running",
        "region": "ewr",
        "vcpus": 2.0,
        "memory_gib": 2.0,
        "gpu_model": None,
        "gpu_count": None,
        "storage_gib": 60.0,
        "created_at": datetime(2013, 12, 19, 14, 45, 41),
        "tags": '{"my tag": ""}',
        "hourly_price": None,
        "price_currency": None,
        "details": None,
        "source": "vultr:/v2/instances",
    }
    assert row["details"]["private_ips"] == ["10.99.0.10"]
    assert row["details"]["public_ips"] == ["123.123.123.123", "fd11:1111:1112:1c02:0200:00ff:fe00:0000"]


def test_an_instance_of_the_openapi_document_has_both_tags(data: Path) -> None:
    rows = [inventory.instance(item, {}) for answer in examples(data, "/instances") for item in answer["instances"]]
    assert [(row["tags"], row["created_at"]) for row in rows] == [
        ('{"a tag": "", "another": ""}', datetime(2020, 10, 10, 1, 56, 20))
    ]


def test_bare_metal_with_sizes_as_text_becomes_numbers(data: Path) -> None:
    items = fixture(data, "bare_metal_server", "/bare-metals")["bare_metals"]
    items += [fixture(data, "bare_metal_server", "/bare-metals/abc123")["bare_metal"]]
    items += [item for answer in examples(data, "/bare-metals") for item in answer["bare_metals"]]
    rows = [inventory.bare_metal(item, {}) for item in items]
    assert [(row["memory_gib"], row["storage_gib"], row["vcpus"], row["state"]) for row in rows] == [
        (64.0, 480.0, 1.0, "running"),
        (64.0, 480.0, 1.0, "running"),
        (32.0, 480.0, 4.0, "running"),
    ]


def test_a_block_without_an_instance_is_unattached_and_its_cost_is_of_a_month(data: Path) -> None:
    items = fixture(data, "block_storage", "/blocks")["blocks"]
    items += [fixture(data, "block_storage", "/blocks/123456")["block"]]
    items += [item for answer in examples(data, "/blocks") for item in answer["blocks"]]
    rows = [inventory.block(item) for item in items]
    assert [(row["state"], row["attached_to"], row["storage_gib"], row["created_at"]) for row in rows] == [
        ("unattached", None, 100.0, datetime(1960, 1, 1)),
        ("unattached", None, 100.0, datetime(1960, 1, 1)),
        ("creating", "742c9913-d088-4d67-bc61-5a10e922fbd1", 50.0, datetime(2020, 10, 10, 1, 56, 20)),
    ]
    assert [row["details"]["monthly_price"] for row in rows] == ["10", "10", "5"]


def test_snapshots_have_their_size_in_gib_and_their_dates(data: Path) -> None:
    items = fixture(data, "snapshot", "/snapshots")["snapshots"]
    items += [fixture(data, "snapshot", "/snapshots/5359435d28b9a")["snapshot"]]
    items += [item for answer in examples(data, "/snapshots") for item in answer["snapshots"]]
    rows = [inventory.snapshot(item) for item in items]
    rows += [
        inventory.block_snapshot(each) for each in fixture(data, "block_storage", "/blocks/snapshots")["snapshots"]
    ]
    assert [(row["storage_gib"], row["state"], row["created_at"]) for row in rows] == [
        (40.0, "available", datetime(2014, 4, 18, 12, 40, 40)),
        (40.0, "available", datetime(2014, 4, 18, 12, 40, 40)),
        (40.0, "available", datetime(2020, 10, 10, 1, 56, 20)),
        (10.0, "available", datetime(2026, 7, 17, 16, 46, 5)),
        (100.0, "available", datetime(2026, 7, 17, 16, 46, 5)),
    ]


def test_reserved_addresses_are_attached_where_an_instance_has_them(data: Path) -> None:
    items = fixture(data, "reserved_ip", "/reserved-ips")["reserved_ips"]
    items += [item for answer in examples(data, "/reserved-ips") for item in answer["reserved_ips"]]
    rows = [inventory.reserved_ip(item) for item in items]
    assert [(row["state"], row["details"]["public_ips"]) for row in rows] == [
        ("attached", ["10.234.22.53"]),
        ("attached", ["192.0.2.123"]),
        ("attached", ["2001:0db8:5:5157::"]),
    ]
    assert inventory.reserved_ip(items[0] | {"instance_id": ""})["state"] == "unattached"


def test_a_database_and_its_replica_are_two_rows_in_the_region_that_machines_name(data: Path) -> None:
    [item] = fixture(data, "database", "/databases")["databases"]
    primary, replica = inventory.databases(item)
    assert (primary["state"], primary["region"], primary["vcpus"], primary["memory_gib"]) == (
        "running",
        "ewr",
        2.0,
        4.0,
    )
    assert (primary["storage_gib"], primary["tags"]) == (80.0, '{"bing bong": ""}')
    assert replica["details"]["replica_of"] == primary["resource_id"]
    assert "replica_of" not in primary["details"]


def test_a_replica_that_is_listed_twice_is_one_row(data: Path) -> None:
    [item] = fixture(data, "database", "/databases")["databases"]
    listed = [row for each in (item, *item["read_replicas"]) for row in inventory.databases(each)]
    assert len(listed) == 3
    assert len(inventory.as_rows(listed)) == 2


def test_inference_shows_its_usage_and_never_its_key(data: Path) -> None:
    [item] = fixture(data, "inference", "/inference")["subscriptions"]
    usage = fixture(data, "inference", "/usage")["usage"]
    [row] = inventory.as_rows([inventory.inference(item, usage)])
    assert json.loads(row["details"])["usage"]["chat"]["current_tokens"] == 654732
    assert row["resource_type"] == "model"
    assert "REDACTED" not in json.dumps(row, default=str)


@pytest.mark.parametrize(
    ("written", "at"),
    [
        ("2014-04-18 12:40:40", datetime(2014, 4, 18, 12, 40, 40)),
        ("01-01-1960", datetime(1960, 1, 1)),
        ("2020-10-10T01:56:20+00:00", datetime(2020, 10, 10, 1, 56, 20)),
        ("2020-10-10T01:56:20+02:00", datetime(2020, 10, 9, 23, 56, 20)),
        ("", None),
        (None, None),
        ("yesterday", None),
    ],
)
def test_dates_of_three_formats_by_endpoint(written: str | None, at: datetime | None) -> None:
    assert inventory.created(written) == at


def test_bandwidth_is_a_figure_of_a_utc_day_and_an_absent_day_is_no_row(data: Path) -> None:
    [answer] = examples(data, "/instances/{instance-id}/bandwidth")
    wanted = [datetime(2020, 7, day, tzinfo=UTC) for day in (25, 27)]
    rows = parse_bandwidth(answer, "m", wanted, "test")
    assert [(row["metric_name"], row["value"], row["window_start"], row["window_seconds"]) for row in rows] == [
        ("network_in_bytes", 15989787.0, datetime(2020, 7, 25), 86400),
        ("network_out_bytes", 25327729.0, datetime(2020, 7, 25), 86400),
    ]
    for name in ("instance", "bare_metal_server"):
        recorded = fixture(data, name, "/bandwidth")
        assert len(parse_bandwidth(recorded, "m", [datetime(2017, 4, 1, tzinfo=UTC)], "test")) == 2


def test_a_day_is_asked_for_with_its_last_window_alone() -> None:
    midnight = datetime(2026, 11, 20, tzinfo=UTC)
    day = datetime(2026, 11, 19, tzinfo=UTC)
    assert days_that_end(Window(midnight - WINDOW, midnight)) == [day]
    assert days_that_end(Window(midnight - 2 * WINDOW, midnight - WINDOW)) == []
    assert days_that_end(Window(midnight, midnight + WINDOW)) == []
    assert days_that_end(Window(day, midnight + WINDOW)) == [day]


def test_recorded_plans_have_prices_of_an_hour_and_shares_of_a_gpu(data: Path) -> None:
    plans = gpu_plans(data)
    rows = list(price_rows(plans["vm_instances"]["plans"], "machine"))
    rows += price_rows(plans["bare_metal"]["plans_metal"], "bare_metal")
    assert [(row["sku"], row["gpu_model"], row["gpu_count"], row["price"], row["price_type"]) for row in rows] == [
        ("vcg-a100-1c-6g-4vram", "NVIDIA A100 80GB", 0.05, Decimal("0.123"), "on_demand"),
        ("vcg-a100-12c-120g-80vram", "NVIDIA A100 80GB", 1.0, Decimal("2.397"), "on_demand"),
        ("vcg-a100-6c-60g-40vram", "NVIDIA A100 80GB", 0.5, Decimal("1.397"), "on_demand"),
        ("vbm-256c-2048gb-8-mi300x-gpu", "AMD MI300X 192GB", 8.0, Decimal("17.52"), "on_demand"),
        ("vbm-256c-2048gb-8-mi300x-gpu", "AMD MI300X 192GB", 8.0, Decimal("14.72"), "spot"),
        ("vbm-112c-2048gb-8-h100-gpu", "NVIDIA H100 80GB", 8.0, Decimal("23.92"), "on_demand"),
        ("vbm-112c-2048gb-8-h100-gpu", "NVIDIA H100 80GB", 8.0, Decimal("18.4"), "spot"),
    ]


def test_a_month_of_bare_metal_is_672_hours_and_one_of_a_machine_730(data: Path) -> None:
    plans = gpu_plans(data)
    for row in price_rows(plans["bare_metal"]["plans_metal"], "bare_metal"):
        assert row["price"] * row["month_hours"] == Decimal(json.loads(row["details"])["monthly_price"])
    [machine] = price_rows([plans["vm_instances"]["plans"][1]], "machine")
    assert machine["month_hours"] == 730
    assert round(machine["price"] * 730, -1) == 1750


def test_plans_of_old_recordings_without_an_hourly_price_have_that_of_the_month(data: Path) -> None:
    rows = list(price_rows(fixture(data, "plans", "/plans")["plans"], "machine"))
    rows += price_rows(fixture(data, "plans", "/plans-metal")["plans_metal"], "bare_metal")
    rows += [row for each in examples(data, "/plans") for row in price_rows(each["plans"], "machine")]
    rows += [row for each in examples(data, "/plans-metal") for row in price_rows(each["plans_metal"], "bare_metal")]
    assert [(row["sku"], row["unit"], row["price"], row["vcpus"]) for row in rows] == [
        ("vc2-16c-64gb", "month", 320, 16.0),
        ("vbm-4c-32gb", "month", 300, 8.0),
        ("vhf-8c-32gb", "month", 192, 8.0),
        ("vbm-4c-32gb", "month", 300, 8.0),
    ]


def test_a_place_with_its_own_price_overrides_that_of_the_plan() -> None:
    plan = {
        "id": "vc2-1c-1gb",
        "hourly_cost": Decimal("0.007"),
        "location_cost": {"sao": {"hourly_cost": Decimal("0.01")}},
    }
    assert hourly_price(plan, "ewr") == Decimal("0.007")
    assert hourly_price(plan, "sao") == Decimal("0.01")
    assert hourly_price({"id": "vc2-1c-1gb"}, "ewr") is None


def test_the_free_plan_is_no_price_to_compare_by() -> None:
    plan = {"id": "vc2-1c-0.5gb-free", "hourly_cost": 0, "monthly_cost": 0, "locations": ["ewr"]}
    assert list(price_rows([plan], "machine")) == []


def test_plans_whose_gpu_is_not_in_their_fields() -> None:
    assert plan_gpu({"id": "vbm-64c-2048gb-8-l40-gpu"}) == ("NVIDIA L40S 48GB", 8.0)
    assert plan_gpu({"id": "vbm-72c-480gb-gh200-gpu"}) == ("NVIDIA GH200 96GB", 1.0)
    assert plan_gpu({"id": "vc2-1c-1gb"}) == (None, 0.0)
    assert plan_gpu({"id": "vdm-8c-unheard-of"}) == (None, None)
    assert plan_gpu({"id": "vcg-x", "gpu_type": "NVIDIA_X1", "gpu_vram_gb": 8}) == ("NVIDIA_X1", None)


def test_a_recorded_invoice_item_keeps_its_digits_and_says_what_is_not_known(data: Path) -> None:
    [invoice] = fixture(data, "billing", "/billing/invoices")["billing_invoices"]
    [item] = fixture(data, "billing", "/items")["invoice_items"]
    assert invoice_period(invoice) == BillingPeriod("2018-03")
    row = charge_row(item, BillingPeriod("2018-03"), invoice)
    assert {name: value for name, value in row.items() if value is not None} == {
        "BilledCost": "2.35",
        "EffectiveCost": "2.35",
        "BillingCurrency": "USD",
        "BillingPeriodStart": "2018-03-01T00:00:00+00:00",
        "BillingPeriodEnd": "2018-04-01T00:00:00+00:00",
        "ChargeCategory": "Usage",
        "ChargeDescription": "1.1.1.1 (1024 MB)",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": "2018-03-18T21:57:58+00:00",
        "ChargePeriodEnd": "2018-04-01T00:00:00+00:00",
        "ConsumedQuantity": "315",
        "ConsumedUnit": "Hours",
        "InvoiceId": "5317720",
        "InvoiceIssuerName": "Vultr",
        "PricingQuantity": "315",
        "PricingUnit": "Hours",
        "ProviderName": "Vultr",
        "PublisherName": "Vultr",
        "ServiceCategory": "Compute",
        "ServiceName": "Vultr Cloud Compute",
        "ServiceSubcategory": "Virtual Machines",
        "x_ResourceHint": "1.1.1.1",
        "x_UnitPrice": "0.0074",
        "x_CurrencyNote": "the API names no currency; Vultr bills in USD",
        "x_InvoiceDate": "2018-04-01T00:30:05+00:00",
        "x_InvoiceAmount": "2.35",
    }


def test_a_recorded_pending_charge_is_estimated_and_on_no_invoice(data: Path) -> None:
    [item] = fixture(data, "billing", "/pending-charges")["pending_charges"]
    row = charge_row(item, pending_period(item))
    assert (row["InvoiceId"], row["x_Estimated"], row["BilledCost"]) == (None, "true", "10")
    assert row["x_ResourceHint"] == "my-loadbalancer"
    assert row["BillingPeriodStart"] == "2020-10-01T00:00:00+00:00"


def test_invoices_and_items_of_the_openapi_document(data: Path) -> None:
    [invoices] = examples(data, "/billing/invoices")
    assert [str(invoice_period(each)) for each in invoices["billing_invoices"]] == ["2021-10"]
    [items] = examples(data, "/billing/invoices/{invoice-id}/items")
    rows = [charge_row(item, BillingPeriod("2021-09")) for item in items["invoice_items"]]
    assert [(row["BilledCost"], row["x_ResourceHint"]) for row in rows] == [
        ("10", "my-loadbalancer"),
        ("22.09", "my-instance"),
    ]
    assert len(fixture_answers(data, "billing", "/billing/history")) == 1


@pytest.mark.parametrize(
    ("made", "month"),
    [
        ("2021-11-01T00:00:00+00:00", "2021-10"),
        ("2021-11-02T00:48:13+00:00", "2021-10"),
        ("2021-11-15T09:00:00+00:00", "2021-11"),
    ],
)
def test_an_invoice_made_in_the_first_days_is_of_the_month_before(made: str, month: str) -> None:
    assert invoice_period({"id": 1, "date": made}) == BillingPeriod(month)


def test_signs_of_tax_credit_and_refund_are_kept() -> None:
    period = BillingPeriod("2026-10")
    tax = charge_row({"description": "Sales tax", "product": "Sales Tax", "total": Decimal("1.20")}, period)
    credit = charge_row({"description": "Refund", "product": "Account Credit", "total": Decimal("-3.5")}, period)
    assert (tax["ChargeCategory"], tax["BilledCost"]) == ("Tax", "1.20")
    assert (credit["ChargeCategory"], credit["BilledCost"]) == ("Credit", "-3.5")
    assert (credit["ChargePeriodStart"], credit["ChargePeriodEnd"]) == (
        "2026-10-01T00:00:00+00:00",
        "2026-11-01T00:00:00+00:00",
    )


def test_float_drift_has_no_way_in() -> None:
    item = {"description": "x", "product": "Cloud GPU", "unit_type": "hours", "units": Decimal("7E-10")}
    row = charge_row(
        item | {"total": Decimal("0.30000000000000000004"), "unit_price": Decimal("1E-7")}, BillingPeriod("2026-10")
    )
    assert row["BilledCost"] == "0.30000000000000000004"
    assert (row["ConsumedQuantity"], row["x_UnitPrice"]) == ("0.0000000007", "0.0000001")


def test_words_that_no_table_knows_are_kept() -> None:
    item = {"id": "1", "plan": "vc2-1c-1gb", "vcpu_count": 1, "ram": 1024, "disk": 25, "status": "resizing"}
    assert inventory.instance(item, {})["state"] == "resizing"
    stopped = item | {"status": "active", "power_status": "stopped", "server_status": "ok"}
    assert inventory.instance(stopped, {})["state"] == "stopped"
    booting = item | {"status": "active", "power_status": "running", "server_status": "installingbooting"}
    assert inventory.instance(booting, {})["state"] == "starting"


def test_tags_of_words_become_keys_and_values() -> None:
    assert inventory.tags_of(["env=prod", "team:ml=x", "plain", ""]) == '{"env": "prod", "plain": "", "team": "ml=x"}'
