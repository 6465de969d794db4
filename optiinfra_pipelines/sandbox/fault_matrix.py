"""`python -m optiinfra_pipelines.sandbox.fault_matrix`: every fault of every cloud's API, against the product.

A cell is one fault of one server: a customer's inventory and metrics are collected under it, then without it, and the
warehouse is held against one that never met a fault. What a fault does is in each server's FAULTS.
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
from importlib import import_module
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import httpx
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.clouds.collection import TABLES, Attempt, Kind, collect_day
from optiinfra_pipelines.clouds.rest import trusted
from optiinfra_pipelines.customers import Customers
from optiinfra_pipelines.errors import ErrorKind
from optiinfra_pipelines.sandbox.clouds import Clouds, serve_clouds
from optiinfra_pipelines.sandbox.fleet import Fleet, FleetCloud
from optiinfra_pipelines.sandbox.gate import FAULTS_PATH, Fault
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.tables import ALL_TABLES
from optiinfra_pipelines.tables.operations import COLLECTION_RUNS
from optiinfra_pipelines.warehouse.duckdb import DuckDBWarehouse
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import DAY, WINDOW, Window, floor_day

NAMES = ("aws", "gcp", "azure", "vultr", "prometheus")
SERVERS: Mapping[str, Any] = {each: import_module(f"optiinfra_pipelines.sandbox.{each}_server") for each in NAMES}
FAULT_NAMES: Sequence[str] = tuple(SERVERS["aws"].FAULTS)
# The clouds of one process, whose cells are judged one after the other, and which servers that judges.
LANES: Mapping[tuple[FleetCloud, FleetCloud], Sequence[str]] = {
    ("aws", "azure"): ("aws", "azure"),
    ("gcp", "vultr"): ("gcp", "vultr", "prometheus"),
}
KINDS: tuple[Kind, ...] = ("inventory", "metrics")
NOW = datetime(2026, 11, 20, 0, 46, tzinfo=UTC)  # an hour before, on the day before, all was listed and is known
NEXT = NOW + WINDOW
# Each of these faults hits one service or place; what the others tell is kept.
NARROW = ("partial_page", "endless_cursor", "repeated_page", "empty_zone", "permission_denied", "region_not_enabled")
_PATIENT = Settings(api_timeout=30, api_attempts=5)

Outcome = Literal["recovered", "recorded", "absent", "failed"]
Target = tuple[str, FleetCloud, Kind]


@dataclass(frozen=True)
class Cell:
    """How one fault of one server ended. `detail`: what was recorded as failed and as which error kind, why there is
    no such fault, or what is wrong."""

    fault: str
    server: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True)
class Held:
    """What a warehouse holds of one customer, cloud and kind: rows without the times of collecting, `source` last, and
    how each try of each window ended: the error kind, None for a success."""

    rows: Counter[tuple[Any, ...]]
    runs: Mapping[datetime, Sequence[str | None]]

    @property
    def endings(self) -> set[str | None]:
        return {ending for tries in self.runs.values() for ending in tries}


def under_fault(fault: str, hit: bool, held: Held, whole: Held) -> Iterator[str]:
    """What is wrong after the tick under `fault`, whether that `hit` a request or not: nothing where all is as in
    `whole`, which met no fault, or where what was hit is recorded as failed."""
    lost, untrue = whole.rows - held.rows, held.rows - whole.rows
    failed, sources = held.endings != {None}, {row[-1] for row in lost}
    if held.runs.keys() != whole.runs.keys():
        yield f"{len(held.runs)} windows are recorded and not {len(whole.runs)}"
    if untrue:
        yield f"{untrue.total()} rows are not true, such as {next(iter(untrue))}"
    if failed and not hit:
        yield f"it failed ({held.endings}) though the fault did not hit it"
    if held.endings - {None, *get_args(ErrorKind)}:
        yield "it failed without an error kind"
    if lost and not failed:
        yield f"it succeeded, and {lost.total()} rows are missing"
    if fault in NARROW and len(sources) > 1:
        yield f"rows of more than one source are lost: {', '.join(sorted(sources))}"


def after_fault(kind: Kind, held: Held, whole: Held) -> Iterator[str]:
    """What is wrong after the tick that followed without a fault: nothing where all gaps are filled, once."""
    if held.rows != whole.rows:
        missing, untrue = (whole.rows - held.rows).total(), (held.rows - whole.rows).total()
        yield f"the next tick left the gap: {missing} rows are missing and {untrue} not true"
    for window in whole.runs:
        succeeded = sum(ending is None for ending in held.runs.get(window, ()))
        if succeeded > 1 or (succeeded == 0 and kind == "metrics"):  # inventory is only to be had of now
            yield f"the window of {window:%H:%M} was collected {succeeded} times"


class Lane:
    """Running servers, with credentials in the environment, and what a warehouse holds where they have no fault; files
    go to `folder`."""

    def __init__(self, clouds: Clouds, folder: Path, attempts: int) -> None:
        self._urls = clouds.urls
        self._hurried = Settings(api_timeout=1.2, api_attempts=attempts)  # an answer that hangs takes 2 s
        names = clouds.fleet.customers
        content = [{"id": each, "name": each, "connections": clouds.connections(each)} for each in names]
        self._customers = Customers.model_validate({"customers": content})
        self._targets: list[Target] = list(product(names, clouds.fleet.clouds, KINDS))
        self._template, self._file = folder / "template.duckdb", folder / "cell.duckdb"
        listed = DuckDBWarehouse(self._template)
        listed.create_tables(ALL_TABLES)
        for target in self._targets:
            if target[2] == "inventory":
                self._collect(listed, target, NOW - timedelta(hours=1))
        warehouse = self._fresh()
        self._whole = [self._tick(warehouse, now) for now in (NOW, NEXT)]

    def cell(self, fault: str, server: str) -> Cell:
        """What becomes of one fault of one server."""
        planned = SERVERS[server].FAULTS[fault]
        if planned is None:
            return Cell(fault, server, "absent", SERVERS[server].ABSENT[fault])
        customer, cloud = self._targets[0][0], "vultr" if server == "prometheus" else server
        hit = [each for each in self._targets if each[:2] == (customer, cloud)]
        beside = [each for each in self._targets if (each[0] == customer) != (each[1] == cloud)]
        warehouse = self._fresh()
        met = {target: self._meets(planned, self._urls[server], warehouse, target) for target in hit}
        found = self._tick(warehouse, NOW, beside) | read(warehouse, hit)
        filled = self._tick(warehouse, NEXT, hit)
        wrong = [] if any(met.values()) else ["no request met the fault"]
        for target, held in found.items():
            whole = self._whole[0][target]
            wrong += _said(target, under_fault(fault, met.get(target, False), held, whole))
        for target, held in filled.items():
            wrong += _said(target, after_fault(target[2], held, self._whole[1][target]))
            if self._collect(warehouse, target, NEXT + timedelta(minutes=1)).windows:
                wrong += _said(target, ["a third collection finds something due"])
        recorded = [f"{target[2]} {ending}" for target in hit for ending in found[target].endings if ending]
        outcome: Outcome = "failed" if wrong else "recorded" if recorded else "recovered"
        return Cell(fault, server, outcome, "; ".join(wrong or recorded))

    def _fresh(self) -> Warehouse:
        shutil.copyfile(self._template, self._file)
        return DuckDBWarehouse(self._file)

    def _tick(self, warehouse: Warehouse, now: datetime, targets: Sequence[Target] = ()) -> dict[Target, Held]:
        for target in targets or self._targets:
            self._collect(warehouse, target, now)
        return read(warehouse, targets or self._targets)

    def _meets(self, fault: Fault, url: str, warehouse: Warehouse, target: Target) -> bool:
        """Collect under the fault; whether a request met it."""
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


def _said(target: Target, wrong: Iterable[str]) -> list[str]:
    return [f"{' '.join(target)}: {each}" for each in wrong]


def read(warehouse: Warehouse, targets: Iterable[Target]) -> dict[Target, Held]:
    """What the warehouse holds of each target."""
    with warehouse.session() as held:
        return {target: _read(held, *target) for target in targets}


def _read(warehouse: Warehouse, customer: str, cloud: FleetCloud, kind: Kind) -> Held:
    table = TABLES[kind][cloud]
    names = ", ".join(each.name for each in table.columns if each.name not in ("snapshot_at", "collected_at"))
    rows = warehouse.query(
        f"SELECT {names} FROM {warehouse.current(table)} t WHERE customer_id = $customer", {"customer": customer}
    )
    tries = warehouse.query(
        "SELECT window_start, CASE WHEN status = 'failed' THEN coalesce(error_kind, 'none') END AS ending"
        f" FROM {warehouse.name(COLLECTION_RUNS)} r"
        " WHERE customer_id = $customer AND provider = $cloud AND kind = $kind AND window_start >= $day",
        {"customer": customer, "cloud": cloud, "kind": kind, "day": naive_utc(floor_day(NOW))},
    ).to_pylist()
    runs: dict[datetime, list[str | None]] = {}
    for each in tries:
        runs.setdefault(each["window_start"], []).append(each["ending"])
    return Held(Counter(zip(*(column.to_pylist() for column in rows.columns), strict=True)), runs)


def judge(faults: Sequence[str], servers: Sequence[str], attempts: int = 3) -> list[Cell]:
    """The cells of these faults and servers, in that order. A request is sent `attempts` times at most."""
    wanted = list(product(faults, servers))
    with ProcessPoolExecutor(len(LANES)) as pool:
        lanes = [
            pool.submit(_judge_lane, clouds, own, attempts)
            for clouds, judged in LANES.items()
            if (own := [each for each in wanted if each[1] in judged])
        ]
        found = {(cell.fault, cell.server): cell for lane in lanes for cell in lane.result()}
    return [found[each] for each in wanted]


def _judge_lane(clouds: tuple[FleetCloud, ...], wanted: Sequence[tuple[str, str]], attempts: int) -> list[Cell]:
    with serve_clouds(Fleet(NOW.date(), clouds=clouds)) as running, TemporaryDirectory() as folder:
        os.environ.update(running.environment())
        lane = Lane(running, Path(folder), attempts)
        return [lane.cell(*each) for each in wanted]


def print_table(cells: Sequence[Cell], console: Console) -> None:
    """Print faults as rows and servers as columns, and below it why some are absent."""
    styles = {"recovered": "green", "recorded": "green", "absent": "dim", "failed": "bold red"}
    grid = Grid(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    grid.add_column("fault", no_wrap=True, min_width=len(max(FAULT_NAMES, key=len)))
    for name in dict.fromkeys(each.server for each in cells):
        grid.add_column(name)
    for fault in dict.fromkeys(each.fault for each in cells):
        row = [each for each in cells if each.fault == fault]
        said = [
            {"absent": "-", "failed": f"FAILED: {escape(each.detail)}"}.get(each.outcome, each.outcome) for each in row
        ]
        grid.add_row(fault, *(f"[{styles[each.outcome]}]{what}[/]" for each, what in zip(row, said, strict=True)))
    console.print(grid)
    for each in cells:
        if each.outcome == "absent":
            console.print(
                f"- {each.fault} of {each.server}: {each.detail}", style="dim", highlight=False, soft_wrap=True
            )


def main(arguments: list[str] | None = None) -> int:
    """Judge the cells that are asked for and print them; 0 where none failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", nargs="+", choices=FAULT_NAMES, default=FAULT_NAMES, help="these faults alone")
    parser.add_argument("--server", nargs="+", choices=NAMES, default=NAMES, help="these servers alone")
    parser.add_argument("--attempts", type=int, default=3, help="how often a request is sent at most (3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line and no table")
    options = parser.parse_args(arguments)
    cells = judge(options.fault, options.server, options.attempts)
    if options.json:
        for cell in cells:
            print(json.dumps(asdict(cell)))
    else:
        print_table(cells, Console())
    return 1 if any(cell.outcome == "failed" for cell in cells) else 0


if __name__ == "__main__":
    sys.exit(main())
