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
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import httpx
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.clouds.collection import TABLES, Attempt, Kind, collect_day
from optiinfra_pipelines.clouds.rest import trusted
from optiinfra_pipelines.customers import Customers
from optiinfra_pipelines.errors import ErrorKind
from optiinfra_pipelines.sandbox import aws_server, azure_server, gcp_server, prometheus_server, vultr_server
from optiinfra_pipelines.sandbox.clouds import Clouds, serve_clouds
from optiinfra_pipelines.sandbox.fleet import Fleet, FleetCloud
from optiinfra_pipelines.sandbox.gate import FAULTS_PATH, Fault
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.tables import ALL_TABLES
from optiinfra_pipelines.tables.cloud import CloudProvider
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
# Which cells are judged one after the other, over the same servers.
LANES: Mapping[tuple[FleetCloud, ...], tuple[str, ...]] = {
    ("aws", "azure"): ("aws", "azure"),
    ("gcp", "vultr"): ("gcp", "vultr", "prometheus"),
}
KINDS: tuple[Kind, ...] = ("inventory", "metrics")
NOW = datetime(2026, 11, 20, 0, 46, tzinfo=UTC)  # an hour before, on another day, all was listed: metrics know of it
NEXT = NOW + WINDOW
# Of these faults each hits one service or place; what the others tell is kept.
NARROW = ("partial_page", "endless_cursor", "repeated_page", "empty_zone", "permission_denied", "region_not_enabled")
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
        yield "failed without an error kind"
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


class Lane:
    """Two clouds whose cells are judged one after the other: their running servers, with credentials in the
    environment, and what their warehouse holds where there is no fault. Files go to `folder`."""

    def __init__(self, clouds: Clouds, folder: Path, attempts: int) -> None:
        self._urls = clouds.urls
        self._hurried = Settings(api_timeout=0.7, api_attempts=attempts)  # an answer that hangs takes 2 s
        self._hit, self._other = names = clouds.fleet.customers
        content = [{"id": each, "name": each, "connections": clouds.connections(each)} for each in names]
        self._customers = Customers.model_validate({"customers": content})
        self._template, self._file = folder / "template.duckdb", folder / "cell.duckdb"
        self._targets: list[Target] = list(product(names, clouds.fleet.clouds, KINDS))
        listed = DuckDBWarehouse(self._template)
        listed.create_tables(ALL_TABLES)
        for target in self._targets:
            if target[2] == "inventory":
                self._collect(listed, target, NOW - timedelta(hours=1))
        self._whole = []
        warehouse = self._fresh()
        for now in (NOW, NEXT):
            for target in self._targets:
                self._collect(warehouse, target, now)
            self._whole.append(read(warehouse, self._targets))

    def cell(self, fault: str, server: str) -> Cell:
        """What becomes of one fault of one server."""
        planned = SERVERS[server].FAULTS[fault]
        if planned is None:
            return Cell(fault, server, "absent", SERVERS[server].ABSENT[fault])
        cloud = "vultr" if server == "prometheus" else server
        hit = [each for each in self._targets if each[:2] == (self._hit, cloud)]
        seen = [each for each in self._targets if self._hit == each[0] or cloud == each[1]]
        warehouse = self._fresh()
        met = {target: self._met(planned, self._urls[server], warehouse, target) for target in hit}
        for target in seen:
            if target not in hit:
                self._collect(warehouse, target, NOW)
        found, whole = read(warehouse, seen), self._whole[0]
        wrong = {each: list(under_fault(fault, met.get(each, False), found[each], whole[each])) for each in seen}
        for target in hit:
            self._collect(warehouse, target, NEXT)
        filled, whole = read(warehouse, hit), self._whole[1]
        for target in hit:
            wrong[target] += after_fault(target[2], filled[target], whole[target])
            again = self._collect(warehouse, target, NEXT + timedelta(minutes=1))
            wrong[target] += ["it is still due after that"] if again.windows or again.requests else []
        said = [f"{' '.join(target)}: {each}" for target, all_wrong in wrong.items() for each in all_wrong]
        said += [] if any(met.values()) else ["the fault met no request"]
        recorded = [f"{target[2]} {error}" for target in hit for error in found[target].errors if error]
        outcome: Outcome = "failed" if said else "recorded" if recorded else "recovered"
        return Cell(fault, server, outcome, "; ".join(said or recorded))

    def _fresh(self) -> Warehouse:
        shutil.copyfile(self._template, self._file)
        return DuckDBWarehouse(self._file)

    def _met(self, fault: Fault, url: str, warehouse: Warehouse, target: Target) -> bool:
        """Collect `target` under the fault; whether a request met it."""
        with httpx.Client(base_url=url, verify=trusted()) as sandbox:
            sandbox.post(FAULTS_PATH, json=asdict(fault)).raise_for_status()
            self._collect(warehouse, target, NOW, self._hurried)
            left = sum(each["times"] for each in sandbox.get(FAULTS_PATH).json())
            sandbox.delete(FAULTS_PATH).raise_for_status()
        return bool(left < fault.times)

    def _collect(self, warehouse: Warehouse, target: Target, now: datetime, settings: Settings = _PATIENT) -> Attempt:
        customer, cloud, kind = target
        day = Window(floor_day(now), floor_day(now) + DAY)
        [attempt] = collect_day(warehouse, settings, self._customers.customer(customer), cloud, kind, day, now)
        return attempt


def read(warehouse: Warehouse, targets: Iterable[Target]) -> dict[Target, Held]:
    """What the warehouse holds of each target."""
    with warehouse.session() as held:
        return {target: _read(held, *target) for target in targets}


def _read(warehouse: Warehouse, customer: str, cloud: CloudProvider, kind: Kind) -> Held:
    table = TABLES[kind][cloud]
    names = ", ".join(each.name for each in table.columns if each.name not in ("snapshot_at", "collected_at"))
    rows = warehouse.query(
        f"SELECT {names} FROM {warehouse.current(table)} t WHERE customer_id = $customer", {"customer": customer}
    )
    tries = warehouse.query(
        "SELECT window_start, CASE WHEN status = 'failed' THEN coalesce(error_kind, 'unknown') END AS error"
        f" FROM {warehouse.name(COLLECTION_RUNS)} r"
        " WHERE customer_id = $customer AND provider = $cloud AND kind = $kind AND window_start >= $day",
        {"customer": customer, "cloud": cloud, "kind": kind, "day": naive_utc(floor_day(NOW))},
    ).to_pylist()
    runs: dict[datetime, list[str | None]] = {}
    for each in tries:
        runs.setdefault(each["window_start"], []).append(each["error"])
    return Held(Counter(zip(*(column.to_pylist() for column in rows.columns), strict=True)), runs)


def judge_lane(clouds: tuple[FleetCloud, ...], cells: Sequence[tuple[str, str]], attempts: int) -> list[Cell]:
    """The given (fault, server) of two clouds, over servers of their own."""
    with serve_clouds(Fleet(NOW.date(), clouds=clouds)) as running, TemporaryDirectory() as folder:
        os.environ.update(running.environment())
        lane = Lane(running, Path(folder), attempts)
        return [lane.cell(*each) for each in cells]


def judge(faults: Sequence[str], servers: Sequence[str], attempts: int = 2) -> list[Cell]:
    """The cells of these faults and servers, in that order; a process for each pair of clouds."""
    wanted = list(product(faults, servers))
    with ProcessPoolExecutor(len(LANES)) as pool:
        lanes = [
            pool.submit(judge_lane, clouds, mine, attempts)
            for clouds, own in LANES.items()
            if (mine := [each for each in wanted if each[1] in own])
        ]
        found = {(cell.fault, cell.server): cell for lane in lanes for cell in lane.result()}
    return [found[each] for each in wanted]


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
    parser.add_argument("--attempts", type=int, default=2, help="how often a request is sent at most (2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line, and no table")
    options = parser.parse_args(arguments)
    cells = judge(options.fault, options.server, options.attempts)
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
