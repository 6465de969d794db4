"""`python -m optiinfra_pipelines.sandbox.fault_matrix`: every fault of every cloud's API, against the product.

A cell is one fault on one server: a customer's inventory and metrics are collected under it, then without it, and the
warehouse is held against one that never met a fault. What each fault does to a server is that server's (`FAULTS`).
"""

import argparse
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast, get_args

import httpx
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table as Grid

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.clouds.collection import TABLES, Attempt, Kind, collect_day
from optiinfra_pipelines.customers import Customers
from optiinfra_pipelines.errors import ErrorKind
from optiinfra_pipelines.sandbox import aws_server, azure_server, gcp_server, prometheus_server, vultr_server
from optiinfra_pipelines.sandbox.clouds import Clouds, serve_clouds
from optiinfra_pipelines.sandbox.fleet import Fleet
from optiinfra_pipelines.sandbox.gate import FAULTS_PATH, Fault
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.tables import ALL_TABLES
from optiinfra_pipelines.tables.cloud import CLOUD_PROVIDERS, CloudProvider
from optiinfra_pipelines.tables.operations import COLLECTION_RUNS
from optiinfra_pipelines.warehouse.duckdb import DuckDBWarehouse
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import DAY, WINDOW, Window, floor_day

SERVERS: Mapping[str, Any] = {
    "aws": aws_server,
    "gcp": gcp_server,
    "azure": azure_server,
    "vultr": vultr_server,
    "prometheus": prometheus_server,
}
FAULT_NAMES = tuple(aws_server.FAULTS)
KINDS: tuple[Kind, ...] = ("inventory", "metrics")
NOW = datetime(2026, 11, 20, 0, 46, tzinfo=UTC)  # an hour before, on another day, all was listed: metrics know of it
# Of these faults each hits one service or place; what the others tell is kept.
NARROW = ("partial_page", "endless_cursor", "repeated_page", "empty_zone", "permission_denied", "region_not_enabled")
_HURRIED = Settings(api_timeout=0.7, api_attempts=2)  # an answer that hangs takes 2 s
_PATIENT = Settings(api_timeout=30, api_attempts=5)

Outcome = Literal["recovered", "recorded", "absent", "failed"]
Target = tuple[str, CloudProvider, Kind]


@dataclass(frozen=True)
class Cell:
    """How one fault of one server ended. `detail`: which kinds were recorded as failed and how, why there is no such
    fault, or what is wrong."""

    fault: str
    server: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True)
class Held:
    """What a warehouse holds of one target: its rows, without times of collecting and with `source` last, and of each
    window that was tried the error kinds, None for a success."""

    rows: Counter[tuple[Any, ...]]
    runs: Mapping[datetime, Sequence[str | None]]

    @property
    def errors(self) -> set[str | None]:
        """The error kinds of all attempts; None among them where one succeeded."""
        return {error for tries in self.runs.values() for error in tries}


def under_fault(fault: str, hit: bool, held: Held, whole: Held) -> Iterator[str]:
    """What is wrong after the tick under `fault`, which hit this target's requests or did not: nothing where all is as
    in `whole`, which met no fault, or where what was hit is recorded as failed."""
    lost, untrue = whole.rows - held.rows, held.rows - whole.rows
    if held.runs.keys() != whole.runs.keys():
        yield f"{len(held.runs)} windows are recorded and not {len(whole.runs)}"
    if untrue:
        yield f"{untrue.total()} rows are not true, such as {next(iter(untrue))}"
    failed = held.errors != {None}
    if failed and not hit:
        yield f"failed ({held.errors}) though the fault did not hit it"
    if held.errors - {None, *get_args(ErrorKind)}:
        yield f"failed without an error kind"
    if lost and not failed:
        yield f"succeeded, and {lost.total()} rows are missing"
    sources = {row[-1] for row in lost}
    if fault in NARROW and len(sources) > 1:
        yield f"lost more than one service's rows: {', '.join(sorted(sources))}"


def after_fault(kind: Kind, held: Held, whole: Held) -> Iterator[str]:
    """What is wrong after the tick that followed without a fault: nothing where all gaps are filled, once."""
    if held.rows != whole.rows:
        missing, untrue = (whole.rows - held.rows).total(), (held.rows - whole.rows).total()
        yield f"the gap is not filled: {missing} rows are missing and {untrue} not true"
    for window in whole.runs:
        succeeded = sum(error is None for error in held.runs.get(window, ()))
        if succeeded > 1 or (succeeded == 0 and kind == "metrics"):  # inventory is only to be had of now
            yield f"the window of {window:%H:%M} was collected {succeeded} times"


class FaultMatrix:
    """Judges cells over the running `clouds` of two customers, whose credentials are in the environment; warehouses
    are files in `folder`."""

    def __init__(self, clouds: Clouds, folder: Path) -> None:
        self._urls = clouds.urls
        self._hit, self._other = clouds.fleet.customers
        content = [
            {"id": each, "name": each, "connections": clouds.connections(each)} for each in (self._hit, self._other)
        ]
        self._customers = Customers.model_validate({"customers": content})
        self._file, self._template = folder / "warehouse.duckdb", folder / "template.duckdb"
        listed = DuckDBWarehouse(self._template)
        listed.create_tables(ALL_TABLES)
        targets = [
            (customer, cloud, kind)
            for customer in clouds.fleet.customers
            for cloud in CLOUD_PROVIDERS
            for kind in KINDS
        ]
        for target in targets:
            if target[2] == "inventory":
                self._collect(listed, target, NOW - timedelta(hours=1))
        self._whole: list[dict[Target, Held]] = []
        warehouse = self._fresh()
        for now in (NOW, NOW + WINDOW):
            for target in targets:
                self._collect(warehouse, target, now)
            self._whole.append({target: read(warehouse, target) for target in targets})

    def cell(self, fault: str, server: str) -> Cell:
        """What becomes of one fault of one server."""
        planned = SERVERS[server].FAULTS[fault]
        if planned is None:
            return Cell(fault, server, "absent", SERVERS[server].ABSENT[fault])
        cloud: CloudProvider = "vultr" if server == "prometheus" else cast(CloudProvider, server)
        hit: list[Target] = [(self._hit, cloud, kind) for kind in KINDS]
        beside: CloudProvider = "gcp" if cloud == "vultr" else "vultr"
        others: list[Target] = [(*each, kind) for each in ((self._hit, beside), (self._other, cloud)) for kind in KINDS]
        wrong: list[str] = []
        warehouse = self._fresh()
        met = {target: self._under(planned, self._urls[server], warehouse, target) for target in hit}
        for target in others:
            self._collect(warehouse, target, NOW)
        if not any(met.values()):
            wrong.append("the fault hit no request")
        found = {target: read(warehouse, target) for target in (*hit, *others)}
        for target, held in found.items():
            wrong += _of(target, under_fault(fault, met.get(target, False), held, self._whole[0][target]))
        for target in hit:
            self._collect(warehouse, target, NOW + WINDOW)
            wrong += _of(target, after_fault(target[2], read(warehouse, target), self._whole[1][target]))
            again = self._collect(warehouse, target, NOW + WINDOW + timedelta(minutes=1))
            if again.windows or again.requests:
                wrong += _of(target, [f"{len(again.windows)} windows are still due"])
        recorded = [f"{target[2]} {error}" for target in hit for error in found[target].errors if error]
        outcome: Outcome = "failed" if wrong else "recorded" if recorded else "recovered"
        return Cell(fault, server, outcome, "; ".join(wrong or recorded))

    def _fresh(self) -> Warehouse:
        shutil.copyfile(self._template, self._file)
        return DuckDBWarehouse(self._file)

    def _under(self, fault: Fault, url: str, warehouse: Warehouse, target: Target) -> bool:
        """Collect `target` under the fault; whether it met the fault."""
        httpx.post(url + FAULTS_PATH, json=asdict(fault)).raise_for_status()
        self._collect(warehouse, target, NOW, _HURRIED)
        left = sum(each["times"] for each in httpx.get(url + FAULTS_PATH).json())
        httpx.delete(url + FAULTS_PATH).raise_for_status()
        return bool(left < fault.times)

    def _collect(self, warehouse: Warehouse, target: Target, now: datetime, settings: Settings = _PATIENT) -> Attempt:
        customer, cloud, kind = target
        day = Window(floor_day(now), floor_day(now) + DAY)
        [attempt] = collect_day(warehouse, settings, self._customers.customer(customer), cloud, kind, day, now)
        return attempt


def _of(target: Target, wrong: Iterable[str]) -> list[str]:
    return [f"{' '.join(target)}: {each}" for each in wrong]


def read(warehouse: Warehouse, target: Target) -> Held:
    """What the warehouse holds of one target."""
    customer, cloud, kind = target
    table = TABLES[kind][cloud]
    names = ", ".join(each.name for each in table.columns if each.name not in ("snapshot_at", "collected_at"))
    rows = warehouse.query(
        f"SELECT {names} FROM {warehouse.current(table)} t WHERE customer_id = $customer", {"customer": customer}
    )
    tries = warehouse.query(
        "SELECT window_start, CASE WHEN status = 'failed' THEN coalesce(error_kind, 'none') END AS error"
        f" FROM {warehouse.name(COLLECTION_RUNS)} r"
        " WHERE customer_id = $customer AND provider = $cloud AND kind = $kind AND window_start >= $day",
        {"customer": customer, "cloud": cloud, "kind": kind, "day": naive_utc(floor_day(NOW))},
    ).to_pylist()
    runs: dict[datetime, list[str | None]] = {}
    for each in tries:
        runs.setdefault(each["window_start"], []).append(each["error"])
    return Held(Counter(zip(*(column.to_pylist() for column in rows.columns), strict=True)), runs)


def table_of(cells: Sequence[Cell]) -> Grid:
    """Faults as rows, servers as columns."""
    styles = {"recovered": "green", "recorded": "green", "absent": "dim", "failed": "bold red"}
    servers = list(dict.fromkeys(each.server for each in cells))
    grid = Grid("fault", *servers, title="faults by server", title_justify="left", title_style="bold")
    for fault in dict.fromkeys(each.fault for each in cells):
        by_server = {each.server: each for each in cells if each.fault == fault}
        grid.add_row(
            fault, *(f"[{styles[cell.outcome]}]{_shown(cell)}" for cell in map(by_server.get, servers) if cell)
        )
    return grid


def _shown(cell: Cell) -> str:
    return {"absent": "-", "failed": f"FAILED: {escape(cell.detail)}"}.get(cell.outcome, cell.outcome)


def main(arguments: list[str] | None = None) -> int:
    """Judge the cells that are asked for and print them; 0 where none failed."""
    parser = argparse.ArgumentParser(
        prog="python -m optiinfra_pipelines.sandbox.fault_matrix", description=(__doc__ or "").split("\n\n")[1]
    )
    parser.add_argument("--fault", nargs="+", choices=FAULT_NAMES, default=FAULT_NAMES, help="these faults alone")
    parser.add_argument("--server", nargs="+", choices=SERVERS, default=tuple(SERVERS), help="these servers alone")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line, and no table")
    options = parser.parse_args(arguments)
    wanted = [(fault, server) for fault in options.fault for server in options.server]
    with serve_clouds(Fleet(NOW.date())) as clouds, TemporaryDirectory() as folder:
        os.environ.update(clouds.environment())
        matrix = FaultMatrix(clouds, Path(folder))
        told = Console(stderr=True)
        cells = [matrix.cell(*each) for each in track(wanted, "faults", console=told, transient=True)]
    if options.json:
        for cell in cells:
            print(json.dumps(asdict(cell)))
    else:
        console = Console()
        console.print(table_of(cells))
        for cell in cells:
            if cell.outcome == "absent":
                console.print(
                    f"- {cell.server} {cell.fault}: {cell.detail}", style="dim", markup=False, highlight=False
                )
    return 1 if any(cell.outcome == "failed" for cell in cells) else 0


if __name__ == "__main__":
    sys.exit(main())
