"""The sandbox's Vultr answers in the recorded shapes: names, types, pages, refusals."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from optiinfra_pipelines.customers import Connection
from optiinfra_pipelines.sandbox.vultr_server import FAULTS, connection, environment, serve_vultr, shown_resources
from optiinfra_pipelines_tests.clouds.vultr.recordings import examples, fixture
from optiinfra_pipelines_tests.clouds.vultr.sandbox import FLEET, TODAY

NAMES = (
    *("throttled", "server_error_500", "server_error_503", "connection_reset", "timeout", "truncated_json"),
    *("partial_page", "endless_cursor", "repeated_page", "token_expiry", "clock_skew", "empty_zone"),
    *("permission_denied", "region_not_enabled"),
)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """A client of the API with acme's key."""
    [key] = [value for name, value in environment(["acme"]).items() if "VULTR" in name]
    with (
        serve_vultr(TODAY) as url,
        httpx.Client(base_url=f"{url}/v2", headers={"Authorization": f"Bearer {key}"}) as client,
    ):
        yield client


def kinds(item: dict[str, Any]) -> dict[str, str]:
    """JSON types by name; a number is a number, with or without a point."""
    names = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return {name: names.get(type(value), "number") for name, value in item.items()}


@pytest.mark.parametrize(
    ("path", "name", "file"),
    [
        ("/instances", "instances", "instance"),
        ("/blocks", "blocks", "block_storage"),
        ("/snapshots", "snapshots", "snapshot"),
        ("/reserved-ips", "reserved_ips", "reserved_ip"),
        ("/billing/invoices", "billing_invoices", "billing"),
        ("/billing/pending-charges", "pending_charges", "billing"),
        ("/plans", "plans", "plans"),
        ("/plans-metal", "plans_metal", "plans"),
        ("/databases", "databases", "database"),
    ],
)
def test_items_have_the_recorded_names_and_types(
    client: httpx.Client, data: Path, path: str, name: str, file: str
) -> None:
    item = client.get(path).json()[name][0]
    recorded = kinds(fixture(data, file, path)[name][0])
    shared = {field: kind for field, kind in kinds(item).items() if field in recorded}
    assert shared == {field: recorded[field] for field in shared}
    assert len(shared) >= 0.6 * len(recorded)


def test_invoice_items_and_bandwidth_have_the_recorded_names_and_types(client: httpx.Client, data: Path) -> None:
    [invoice] = client.get("/billing/invoices").json()["billing_invoices"]
    item = client.get(f"/billing/invoices/{invoice['id']}/items").json()["invoice_items"][0]
    assert kinds(item) == kinds(fixture(data, "billing", "/items")["invoice_items"][0])
    machine = client.get("/instances").json()["instances"][0]["id"]
    days = client.get(f"/instances/{machine}/bandwidth").json()["bandwidth"]
    [recorded] = examples(data, "/instances/{instance-id}/bandwidth")
    assert [kinds(day) for day in days.values()] == [kinds(recorded["bandwidth"]["2020-07-25"])] * 14
    assert list(days) == sorted(days)


def test_pages_are_as_long_as_asked_and_end_with_an_empty_cursor(client: httpx.Client) -> None:
    found: list[str] = []
    cursors: list[str] = []
    cursor = ""
    while True:
        page = client.get("/instances", params={"per_page": 4, **({"cursor": cursor} if cursor else {})}).json()
        found += [each["id"] for each in page["instances"]]
        assert page["meta"]["total"] == 6
        cursor = page["meta"]["links"]["next"]
        if not cursor:
            break
        cursors.append(cursor)
    machines = [each.resource_id for each in shown_resources(FLEET, "acme") if each.resource_type == "machine"]
    assert found == machines
    assert len(cursors) == 1
    assert not cursors[0].isdigit()


def test_refusals_are_in_vultrs_words(client: httpx.Client) -> None:
    wrong = client.get("/instances", headers={"Authorization": "Bearer x"})
    assert (wrong.status_code, wrong.json()) == (401, {"error": "Invalid API token.", "status": 401})
    assert client.get("/nothing").status_code == 404
    assert client.get("/instances", params={"cursor": "none"}).status_code == 400
    assert client.get("/plans", headers={"Authorization": ""}).status_code == 200


def test_the_connection_is_one_that_customers_yaml_may_hold() -> None:
    entry = connection("acme", "http://127.0.0.1:1")
    model = Connection.model_validate(entry)
    assert (model.id, model.provider) == ("vultr-api", "vultr")
    assert set(entry["credentials"].values()) == set(environment(["acme"]))
    assert all(value.startswith("canary-") for value in environment(["acme"]).values())


def test_every_fault_of_the_matrix_is_there_or_said_not_to_be() -> None:
    assert tuple(FAULTS) == NAMES
