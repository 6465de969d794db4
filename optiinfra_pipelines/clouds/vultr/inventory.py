"""What Vultr's lists say of resources, as rows of raw inventory. Pure: decoded items in, rows out.

Passwords, console links and keys that the API sends along are never taken over. What Vultr calls GB is GiB: a 40 GB
snapshot has 42,949,672,960 bytes. Columns that Vultr has no word for (account, zone, region of a snapshot) stay empty.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.clouds.vultr.prices import hourly_price, plan_gpu
from optiinfra_pipelines.clouds.vultr.vocabulary import STATES

Item = Mapping[str, Any]
Row = dict[str, Any]
_DATES = ("%Y-%m-%d %H:%M:%S", "%d-%m-%Y", "%Y-%m-%d")
_GIB = 1024**3


def created(written: str | None) -> datetime | None:
    """A date of any endpoint as naive UTC: "2013-12-19 14:45:41" and "01-01-1960" name no zone and are UTC, the
    third form is ISO 8601. None for none, and for what is no date."""
    if not written:
        return None
    try:
        at = datetime.fromisoformat(written)
        return naive_utc(at if at.tzinfo else at.replace(tzinfo=UTC))
    except ValueError:
        pass
    for form in _DATES:
        try:
            return datetime.strptime(written, form)
        except ValueError:
            continue
    return None


def tags_of(tags: list[str]) -> str:
    """Vultr's tags are words: "key=value" and "key:value" become a key with its value, another word one without."""
    found = {}
    for tag in tags:
        key, _, value = re.sub(r"[=:]", "\0", tag, count=1).partition("\0")
        if key:
            found[key] = value
    return json.dumps(dict(sorted(found.items())))


def instance(item: Item, plans: Mapping[str, Item]) -> Row:
    """A virtual machine; `plans` by id gives GPU and price."""
    plan = plans.get(item["plan"], {})
    model, count = plan_gpu(plan)
    return (
        _row("machine", item["id"], "instances")
        | _named(item)
        | {
            "native_type": item["plan"],
            "state": _machine_state(item),
            "region": _region(item),
            "vcpus": float(item["vcpu_count"]),
            "memory_gib": item["ram"] / 1024,
            "gpu_model": model,
            "gpu_count": count,
            "storage_gib": float(item["disk"]),
            "tags": tags_of(item.get("tags") or []),
            **_price(plan, item),
            "details": _details(
                item, ("hostname", "os", "server_status", "allowed_bandwidth", "features", "image_id", "snapshot_id")
            )
            | _addresses(item)
            | {"kind": "instance"},
        }
    )


def bare_metal(item: Item, plans: Mapping[str, Item]) -> Row:
    """A bare-metal server: `ram` and `disk` are text such as "65536 MB" and "2x 240 GB SSD"."""
    plan = plans.get(item["plan"], {})
    model, count = plan_gpu(plan or {"id": item["plan"]})
    memory = re.match(r"\d+", str(item["ram"]))
    return (
        _row("machine", item["id"], "bare-metals")
        | _named(item)
        | {
            "native_type": item["plan"],
            "state": STATES["machine"].state(item.get("status")),
            "region": _region(item),
            "vcpus": float(plan.get("cpu_threads") or item["cpu_count"]),
            "memory_gib": int(memory[0]) / 1024 if memory else None,
            "gpu_model": model,
            "gpu_count": count,
            "storage_gib": _disks(item["disk"]),
            "tags": tags_of(item.get("tags") or []),
            **_price(plan, item),
            "details": _details(item, ("os", "features", "image_id")) | _addresses(item) | {"kind": "bare_metal"},
        }
    )


def block(item: Item) -> Row:
    """A block storage volume; `cost` is its list price in USD a month."""
    attached = item.get("attached_to_instance") or None
    status = STATES["volume"].state(item.get("status"))
    if status == "active":
        status = "attached" if attached else "unattached"
    return (
        _row("volume", item["id"], "blocks")
        | _named(item)
        | {
            "native_type": item.get("block_type") or None,
            "state": status,
            "region": _region(item),
            "storage_gib": float(item["size_gb"]),
            "attached_to": attached,
            "details": _details(item, ("mount_id", "bootable", "snapshot_id"))
            | {"monthly_price": str(item["cost"]), "price_currency": "USD"},
        }
    )


def snapshot(item: Item) -> Row:
    """A snapshot of a machine's disk; `size` is in bytes and billed, `compressed_size` is what is stored."""
    return _row("snapshot", item["id"], "snapshots") | {
        "name": item.get("description") or None,
        "state": STATES["snapshot"].state(item.get("status")),
        "storage_gib": item["size"] / _GIB,
        "created_at": created(item.get("date_created")),
        "details": _details(item, ("compressed_size", "os_id", "app_id")) | {"kind": "instance"},
    }


def block_snapshot(item: Item) -> Row:
    """A snapshot of a block storage volume."""
    return _row("snapshot", item["id"], "blocks/snapshots") | {
        "name": item.get("description") or None,
        "state": STATES["snapshot"].state(item.get("state")),
        "storage_gib": item["size"] / _GIB,
        "created_at": created(item.get("added_at")),
        "details": _details(item, ("next_invoice_date", "next_invoice_price"))
        | {"kind": "block", "volume_id": item.get("block_id")},
    }


def reserved_ip(item: Item) -> Row:
    """A reserved address; the API does not say when it was reserved."""
    attached = item.get("instance_id") or None
    return _row("ip_address", item["id"], "reserved-ips") | {
        "name": item.get("label") or item["subnet"],
        "state": "attached" if attached else "unattached",
        "region": _region(item),
        "attached_to": attached,
        "details": _details(item, ("ip_type", "subnet_size")) | {"public_ips": [item["subnet"]]},
    }


def databases(item: Item, primary: str | None = None) -> list[Row]:
    """A managed database and, each a row of its own, its read replicas."""
    details = _details(item, ("database_engine", "database_engine_version", "plan_replicas", "vpc_id"))
    row = (
        _row("database", item["id"], "databases")
        | _named(item)
        | {
            "native_type": item["plan"],
            "state": STATES["database"].state(item.get("status")),
            "region": _region(item),
            "vcpus": float(item["plan_vcpus"]),
            "memory_gib": item["plan_ram"] / 1024,
            "storage_gib": float(item["plan_disk"]),
            "tags": tags_of([item["tag"]] if item.get("tag") else []),
            "details": details | ({"replica_of": primary} if primary else {}),
        }
    )
    replicas = [row for each in item.get("read_replicas") or [] for row in databases(each, item["id"])]
    return [row, *replicas]


def inference(item: Item, usage: Item) -> Row:
    """A serverless inference subscription; `usage` holds running totals of the month."""
    return _row("model", item["id"], "inference") | _named(item) | {"details": {"usage": usage}}


def as_rows(rows: list[Row]) -> list[Row]:
    """The rows with `details` as JSON text; one row an id, where the API lists a replica beside its primary as well."""
    unique = {(row["resource_type"], row["resource_id"]): row for row in rows}
    return [row | {"details": json.dumps(row["details"], sort_keys=True, default=str)} for row in unique.values()]


def _row(resource_type: str, resource_id: str, path: str) -> Row:
    return {
        "account_id": "",
        "resource_id": resource_id,
        "resource_type": resource_type,
        "tags": "{}",
        "source": f"vultr:/v2/{path}",
    }


def _named(item: Item) -> Row:
    return {"name": item.get("label") or None, "created_at": created(item.get("date_created"))}


def _region(item: Item) -> str | None:
    return (item.get("region") or "").lower() or None  # databases write EWR for ewr


def _machine_state(item: Item) -> str | None:
    word = item.get("status")
    if word == "active":
        booting = item.get("server_status") == "installingbooting"
        word = "installingbooting" if booting else item.get("power_status")
    return STATES["machine"].state(word)


def _price(plan: Item, item: Item) -> Row:
    price = hourly_price(plan, _region(item) or "")
    return {"hourly_price": price, "price_currency": None if price is None else "USD"}


def _addresses(item: Item) -> Row:
    public = [item.get("main_ip"), item.get("v6_main_ip")]
    private = [item.get("internal_ip")]
    return {"public_ips": _present(public), "private_ips": _present(private)}


def _present(addresses: list[str | None]) -> list[str]:
    return [each for each in addresses if each and each != "0.0.0.0"]  # what a machine has before it has an address


def _details(item: Item, names: tuple[str, ...]) -> Row:
    return {name: item[name] for name in names if item.get(name) not in (None, "", [])}


def _disks(written: str) -> float | None:
    """GiB in "2x 240 GB SSD" or "2x 240GB SSD"; None where it says none."""
    found = re.match(r"(?:(\d+)\s*x\s*)?([\d.]+)\s*(GB|TB)", str(written))
    if not found:
        return None
    count, size, unit = found.groups()
    return float(Decimal(count or 1) * Decimal(size) * (1024 if unit == "TB" else 1))
