"""Vultr's API v2 on loopback for the sandbox: the fleet and its bills as the OpenAPI document and recordings have them.

Run as `python -m optiinfra_pipelines.sandbox.vultr_server --port 0 --today YYYY-MM-DD`; it keeps no state. Vultr has
no images, no tags on volumes, snapshots and addresses, one tag on a database, and no metrics but bytes by UTC day.
"""

import argparse
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qs

from optiinfra_pipelines.sandbox import prometheus_server
from optiinfra_pipelines.sandbox import vultr_wire as wire
from optiinfra_pipelines.sandbox.fleet import Fleet, Resource, Series, window_starts
from optiinfra_pipelines.sandbox.fleet_bills import FleetCharge, bill_periods, charges
from optiinfra_pipelines.sandbox.gate import FAULT_IN_ENVIRON, Fault, Gate, answer_json, serve, serve_apart
from optiinfra_pipelines.sandbox.prometheus_server import PARTIAL
from optiinfra_pipelines.sandbox.vultr_wire import Content
from optiinfra_pipelines.windows import DAY

ENDLESS, REPEAT = "endless", "repeat"
LINGERING = "lingering"  # pending charges are listed on although their month's invoice is made
FAULTS: Mapping[str, Fault | None] = {
    "throttled": Fault(status=429, times=2),  # Vultr sends no Retry-After
    "server_error_500": Fault(status=500, times=2),
    "server_error_503": Fault(status=503, times=2),
    "connection_reset": Fault(kind="reset", times=2),
    "timeout": Fault(kind="hang", seconds=2, times=1),
    "truncated_json": Fault(kind="cut", times=2),
    "partial_page": Fault(kind=PARTIAL, match="/v2/instances?", times=1),
    "endless_cursor": Fault(kind=ENDLESS, match="/v2/instances?", times=100),
    "repeated_page": Fault(kind=REPEAT, match="/v2/instances?", times=2),
    "token_expiry": None,
    "clock_skew": None,
    "empty_zone": None,
    "permission_denied": Fault(status=403, match="/v2/databases", times=1),  # a sub-user without that right
    "region_not_enabled": None,
}
ABSENT: Mapping[str, str] = {  # why there is no such fault
    "token_expiry": "an API key is not renewed by a program: it works, or a person has to make another one",
    "clock_skew": "no request carries a time, and nothing is signed",
    "empty_zone": "lists are of the whole account: there are no zones",
    "region_not_enabled": "every region is open to every account",
}
_MESSAGES = {
    400: "Invalid cursor.",
    401: "Invalid API token.",
    403: "You do not have permission to perform that action.",
    404: "Invalid route.",
    429: "Rate limit exceeded.",
    500: "Server error.",
    503: "Service unavailable.",
}


class _Snapshot(Resource):
    """A snapshot as Vultr tells of it: without a region."""

    @property
    def region(self) -> None:  # type: ignore[override]
        return None


def shown_resources(fleet: Fleet, customer_id: str) -> list[Resource]:
    """The fleet's resources as far as Vultr's API can tell of them: no images; tags of machines, one of a database;
    no region of a snapshot; no date of an address.

    With the tags goes what a rule could know by them: Vultr does not say that a volume is a replica's.
    """
    found: list[Resource] = []
    for each in fleet.of(customer_id, "vultr"):
        if each.resource_type == "machine":
            found.append(each)
        elif each.resource_type == "database":
            found.append(replace(each, tags=dict(list(each.tags.items())[:1])))
        elif each.resource_type == "volume":
            found.append(replace(each, tags={}, guard="" if each.guard == "replica" else each.guard))
        elif each.resource_type == "snapshot":
            found.append(_Snapshot(**{field.name: getattr(each, field.name) for field in fields(each)} | {"tags": {}}))
        elif each.resource_type == "ip_address":
            found.append(replace(each, tags={}, created_at=None))  # type: ignore[arg-type]
    return found


def shown_series(fleet: Fleet, customer_id: str) -> Iterator[Series]:
    """The series of 15-minute windows: those of the connection's Prometheus, for Vultr's own are of days."""
    return prometheus_server.shown_series(fleet, customer_id, "vultr")


def daily_series(fleet: Fleet, customer_id: str) -> Iterator[Series]:
    """The series of machines whose sum over each UTC day the API shows; see `day_value`."""
    for machine in fleet.of(customer_id, "vultr", "machine"):
        if machine.measured:
            yield from (Series(machine, f"network_{way}_bytes", "sum") for way in ("in", "out"))


def day_value(series: Series, day: datetime) -> float | None:
    """The series' sum over the UTC day that begins at `day`; None where the machine was not yet there."""
    values = [value for at in window_starts(day, day + DAY) if (value := series.value(at)) is not None]
    return sum(values) if values else None


def invoice_number(invoice_id: str) -> int:
    """The id that Vultr gives an invoice of the fleet's bills: a number."""
    return int.from_bytes(blake2b(invoice_id.encode(), digest_size=3).digest()) + 10_000_000


class VultrServer:
    """The WSGI application."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._machines = {
            (each.customer_id, each.resource_id): each for each in fleet.resources if each.cloud == "vultr"
        }

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        key = environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ")
        path = environ["PATH_INFO"].removeprefix("/v2")
        public = path in ("/plans", "/plans-metal")  # the two that ask for no key
        customer = next((each for each in self._fleet.customers if _key(each) == key), None)
        if customer is None and not public:
            return _refused(start_response, 401)
        asked = {name: values[0] for name, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
        parts = path.strip("/").split("/")
        if parts[0] == "instances" and parts[2:] == ["bandwidth"]:
            machine = self._machines.get((customer or "", parts[1]))
            return answer_json(start_response, self._bandwidth(machine)) if machine else _refused(start_response, 404)
        found = self._list(customer or "", path)
        if found is None:
            return _refused(start_response, 404)
        fault = environ.get(FAULT_IN_ENVIRON)
        if fault is not None and fault.kind == LINGERING:
            found = found[0], found[1] + self._invoiced(customer or "")
        try:
            page = _page(found[0], found[1], asked, fault)
        except ValueError:
            return _refused(start_response, 400)
        return answer_json(start_response, page)

    def _list(self, customer: str, path: str) -> tuple[str, list[Content]] | None:
        """The list at `path`: its name in the answer and all its items; None for no such path."""
        lists: Mapping[str, tuple[str, str, Callable[[Resource], Content]]] = {
            "/instances": ("instances", "machine", wire.instance),
            "/blocks": ("blocks", "volume", wire.block),
            "/snapshots": ("snapshots", "snapshot", wire.snapshot),
            "/reserved-ips": ("reserved_ips", "ip_address", wire.reserved_ip),
            "/databases": ("databases", "database", wire.database),
        }
        if path in lists:
            name, kind, write = lists[path]
            return name, [write(each) for each in shown_resources(self._fleet, customer) if each.resource_type == kind]
        others: Mapping[str, tuple[str, Callable[[], list[Content]]]] = {
            "/bare-metals": ("bare_metals", list),
            "/blocks/snapshots": ("snapshots", list),
            "/inference": ("subscriptions", list),
            "/plans": ("plans", lambda: wire.PLANS),
            "/plans-metal": ("plans_metal", lambda: wire.PLANS_METAL),
            "/databases/plans": ("plans", lambda: wire.DATABASE_PLANS),
            "/billing/invoices": ("billing_invoices", lambda: list(self._invoices(customer))),
            "/billing/pending-charges": ("pending_charges", lambda: self._items(customer, None)),
        }
        if path in others:
            name, items = others[path]
            return name, items()
        parts = path.strip("/").split("/")
        if parts[:2] == ["billing", "invoices"] and parts[3:] == ["items"] and parts[2].isdigit():
            return "invoice_items", self._items(customer, int(parts[2]))
        return None

    def _bandwidth(self, machine: Resource) -> Content:
        """Fourteen days up to yesterday, newest last; a machine that is off has none."""
        today = datetime.combine(self._fleet.today, time(), UTC)
        days: dict[str, Content] = {}
        if machine.measured:
            both = [Series(machine, f"network_{way}_bytes", "sum") for way in ("in", "out")]
            for ago in range(14, 0, -1):
                incoming, outgoing = (day_value(each, today - ago * DAY) for each in both)
                if incoming is not None and outgoing is not None:
                    figures = {"incoming_bytes": int(incoming), "outgoing_bytes": int(outgoing)}
                    days[f"{today - ago * DAY:%Y-%m-%d}"] = figures
        return {"bandwidth": days}

    def _charges(self, customer: str, invoice: int | None) -> list[FleetCharge]:
        return [
            charge
            for period in bill_periods(self._fleet.today)
            for charge in charges(self._fleet, customer, "vultr", period)
            if (None if charge.invoice_id is None else invoice_number(charge.invoice_id)) == invoice
        ]

    def _items(self, customer: str, invoice: int | None) -> list[Content]:
        return [wire.invoice_item(charge) for charge in self._charges(customer, invoice)]

    def _invoiced(self, customer: str) -> list[Content]:
        return [item for invoice in self._invoices(customer) for item in self._items(customer, invoice["id"])]

    def _invoices(self, customer: str) -> Iterator[Content]:
        previous, _ = bill_periods(self._fleet.today)
        closed = [each for each in charges(self._fleet, customer, "vultr", previous) if each.invoice_id]
        if closed and closed[0].invoice_id:
            number = invoice_number(closed[0].invoice_id)
            amount = sum((each.cost for each in closed), Decimal(0)).quantize(Decimal("0.01"))
            yield {
                "id": number,
                "date": f"{previous.end:%Y-%m-%d}T00:30:05+00:00",
                "description": f"Invoice #{number}",
                "amount": float(amount),
                "balance": -497.65,
            }


def _page(name: str, items: list[Content], asked: Mapping[str, str], fault: Fault | None) -> Content:
    """One page of `items`; ValueError for a cursor that is none."""
    size = min(int(asked.get("per_page", 100)), 500)
    start = int(urlsafe_b64decode(asked["cursor"]).removeprefix(b"next__").split(b".")[0]) if "cursor" in asked else 0
    end = start + size
    shown = items[start:end]
    following = _cursor(end) if end < len(items) else ""
    if fault is not None:
        if fault.kind == PARTIAL:
            shown = shown[: len(shown) // 2]
        elif fault.kind == ENDLESS:
            following = _cursor(start, fault.times)  # another one each time, to the same page
        elif fault.kind == REPEAT:
            following = _cursor(start)
    if name == "subscriptions":
        return {name: shown}
    previous = _cursor(max(start - size, 0)) if start else ""
    return {name: shown, "meta": {"total": len(items), "links": {"next": following, "prev": previous}}}


def _cursor(offset: int, mark: int = 0) -> str:
    return urlsafe_b64encode(f"next__{offset}.{mark}".encode()).decode()


def _refused(start_response: Any, status: int) -> Iterable[bytes]:
    return answer_json(start_response, {"error": _MESSAGES[status], "status": status}, status)


def _error_body(status: int, environ: Mapping[str, Any]) -> tuple[str, bytes]:
    return "application/json", json.dumps({"error": _MESSAGES.get(status, ""), "status": status}).encode()


def _key(customer_id: str) -> str:
    return f"canary-vultr-{customer_id}-api-key"


def _variable(customer_id: str) -> str:
    return f"{customer_id.upper().replace('-', '_')}_VULTR_API_KEY"


def serve_vultr(
    today: date, customers: tuple[str, ...] = ("acme", "globex"), machines: int = 0, latency: float = 0.0
) -> AbstractContextManager[str]:
    """The server in a process of its own; yields its URL."""
    options = ("--today", f"{today}", "--customers", ",".join(customers), "--machines", f"{machines}")
    return serve_apart("optiinfra_pipelines.sandbox.vultr_server", *options, "--latency", f"{latency}")


def connection(customer_id: str, url: str) -> Content:
    """An entry of `connections` in customers.yaml. `prometheus_server` says how machines are measured."""
    return {
        "id": "vultr-api",
        "provider": "vultr",
        "collect": ["billing", "metrics", "inventory", "prices"],
        "billing": {"location": "vultr://invoices"},
        "endpoints": {"api": url},
        "credentials": {"api_key": _variable(customer_id)},
    }


def environment(customer_ids: Iterable[str]) -> dict[str, str]:
    """The environment variables that the connections name."""
    return {_variable(each): _key(each) for each in customer_ids}


def main(arguments: list[str] | None = None) -> None:
    """Command line of the server."""
    parser = argparse.ArgumentParser(prog="python -m optiinfra_pipelines.sandbox.vultr_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0, the default, takes a free one")
    parser.add_argument("--today", type=date.fromisoformat, required=True, help="UTC day that ages are counted from")
    parser.add_argument("--customers", default="acme,globex", help="ids of the customers, parted by commas")
    parser.add_argument("--machines", type=int, default=0, help="plain machines to add to each customer and cloud")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds to wait before each answer")
    options = parser.parse_args(arguments)
    fleet = Fleet(options.today, tuple(options.customers.split(",")), options.machines)
    serve(Gate(VultrServer(fleet), _error_body, (PARTIAL, ENDLESS, REPEAT, LINGERING), options.latency), options.port)


if __name__ == "__main__":
    main()
