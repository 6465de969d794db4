"""What Vultr's plans say of prices, as rows of raw prices. Pure: decoded plans in, rows out.

The API lists plans of machines, bare metal and databases; block storage, snapshots and reserved addresses have no list.
"""

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Literal

from optiinfra_pipelines.clouds.vocabulary import gpu_model
from optiinfra_pipelines.clouds.vultr.vocabulary import GPU_CARDS, GPU_PLANS, MACHINE_MONTH_HOURS, METAL_MONTH_HOURS

Plan = Mapping[str, Any]
Row = dict[str, Any]
PlanKind = Literal["machine", "bare_metal", "database"]
_GPU_IN_ID = re.compile(r"(?:-(\d+))?-([a-z0-9]+)-gpu$")  # vbm-256c-2048gb-8-mi300x-gpu, vbm-72c-480gb-gh200-gpu
_PATHS = {"machine": "plans", "bare_metal": "plans-metal", "database": "databases/plans"}


def plan_gpu(plan: Plan) -> tuple[str | None, float | None]:
    """The GPU of a plan and how many of it, a fraction where a card is shared; (None, 0) without, (None, None) where
    the plan is of dedicated GPUs (vdm) and neither its fields nor this project's tables say which."""
    plan_id = plan.get("id", "")
    if plan_id in GPU_PLANS:
        whole, count = GPU_PLANS[plan_id]
        return whole, float(count)
    written = plan.get("gpu_type")
    if written:
        model, memory = GPU_CARDS.get(written, (gpu_model(written), None))
        vram = plan.get("gpu_vram_gb")
        return model, float(vram / memory) if vram and memory else None
    if found := _GPU_IN_ID.search(plan_id):
        return gpu_model(found[2]), float(found[1] or 1)
    return None, None if plan_id.startswith("vdm") or not plan_id else 0.0


def hourly_price(plan: Plan, region: str, preemptible: bool = False) -> Decimal | None:
    """List price of an hour in `region`, in USD; None where the API gives none."""
    return _cost(plan, region, "hourly_cost_preemptible" if preemptible else "hourly_cost")


def price_rows(plans: list[dict[str, Any]], kind: PlanKind, regions: tuple[str, ...] = ()) -> Iterator[Row]:
    """A row for each plan and place where it is sold, on demand and, where there is such a price, preemptible.

    `regions` empty: all. Plans of 0 USD (the free tier) are no price to compare by and are left out. A plan without
    an hourly price has a row with that of the month.
    """
    for plan in plans:
        shape = _shape(plan, kind)
        for region in plan.get("locations") or []:
            if regions and region not in regions:
                continue
            for price_type, suffix in (("on_demand", ""), ("spot", "_preemptible")):
                hourly, monthly = (_cost(plan, region, f"{term}_cost{suffix}") for term in ("hourly", "monthly"))
                price = hourly if hourly is not None else monthly
                if price:
                    unit = "hour" if hourly is not None else "month"
                    details = shape["details"] | ({} if monthly is None else {"monthly_price": str(monthly)})
                    yield shape | {
                        "region": region,
                        "price": price,
                        "unit": unit,
                        "price_type": price_type,
                        "details": json.dumps(details, sort_keys=True, default=str),
                    }


def _cost(plan: Plan, region: str, name: str) -> Decimal | None:
    """What `region` costs where its price differs from the plan's own."""
    local = (plan.get("location_cost") or {}).get(region) or {}
    value = local.get(name, plan.get(name))
    return None if value is None else Decimal(value)


def _shape(plan: Plan, kind: PlanKind) -> Row:
    model, count = plan_gpu(plan)
    kept = ("type", "bandwidth", "cpu_model", "disk_count", "gpu_vram_gb", "number_of_nodes", "supported_engines")
    details = {name: plan[name] for name in kept if plan.get(name) not in (None, "")}
    vcpus = plan.get("cpu_threads") if kind == "bare_metal" else plan.get("vcpu_count")
    disk = plan.get("disk")
    return {
        "sku": plan["id"],
        "kind": "database" if kind == "database" else "machine",
        "native_type": plan["id"],
        "vcpus": None if vcpus is None else float(vcpus),
        "memory_gib": None if plan.get("ram") is None else plan["ram"] / 1024,
        "gpu_model": model,
        "gpu_count": count,
        "storage_gib": None if disk is None else float(disk) * (plan.get("disk_count") or 1),
        "currency": "USD",
        "month_hours": METAL_MONTH_HOURS if kind == "bare_metal" else MACHINE_MONTH_HOURS,
        "tier_start": Decimal(0),
        "details": details | {"kind": kind},
        "source": f"vultr:/v2/{_PATHS[kind]}",
    }
