"""Writers killed at random moments: no reader sees half a load, and the next run leaves no duplicate and no loss."""

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from statistics import median
from time import monotonic
from typing import TextIO, cast

import pytest

from optiinfra_pipelines.tables.billing import FOCUS_BILLING
from optiinfra_pipelines.tables.operations import REJECTED_ROWS, SOURCE_TOTALS
from optiinfra_pipelines.warehouse.clickhouse import ClickHouseWarehouse
from optiinfra_pipelines.warehouse.duckdb import DuckDBWarehouse
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines_tests.focus_files import focus_row, write_csv, write_parquet
from optiinfra_pipelines_tests.warehouse.writer import KEPT, open_writer

KILLS = 200
HANGS = 100  # seconds after which a load that nobody was to kill is given up


@dataclass(frozen=True)
class Seen:
    """What a reader sees of October in the three tables that one load writes."""

    rows: int
    billed_cost: Decimal
    rejected: int
    counted_by_source: int


class Writer:
    """The writing process; each load is a child of its own."""

    def __init__(self, address: str) -> None:
        command = [sys.executable, "-m", "optiinfra_pipelines_tests.warehouse.writer", address]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def load(self, folder: Path, kill_after: float = HANGS) -> int:
        """Load `folder`, and kill the child after `kill_after` seconds; its exit status (9: it was killed)."""
        cast(TextIO, self.process.stdin).write(f"{kill_after} {folder}\n")
        return int(cast(TextIO, self.process.stdout).readline())


@contextmanager
def writer(address: str) -> Iterator[Writer]:
    writing = Writer(address)
    try:
        yield writing
    finally:
        writing.process.communicate()


def bill(folder: Path, rows: int, cost: str) -> Seen:
    """Write a bill of two sets of columns, some rows of it refused; what a reader has to see of it."""
    good = [focus_row(BilledCost=cost, InvoiceId=str(number % 3)) for number in range(rows)]
    bad = [focus_row(BilledCost="a lot"), focus_row(ChargeCategory="Gift")]
    write_parquet(folder / "2026-10/a.parquet", [{**row, "x_Team": "blue"} for row in good])
    write_csv(folder / "2026-10/b.csv", [*good, *bad], extra="1,2,3\n")
    return Seen(2 * rows, Decimal(cost) * 2 * rows, 3, 2 * rows + 2)


def read(warehouse: Warehouse) -> Seen:
    """What a reader sees now; it fails on a row that stands twice."""
    [seen] = warehouse.query(
        f"SELECT b.rows AS rows, b.places AS places, b.billed AS billed, r.rows AS rejected, t.rows AS counted FROM"
        " (SELECT count(*) AS rows, count(DISTINCT concat(x_source, CAST(x_row_number AS VARCHAR))) AS places,"
        f" sum(BilledCost) AS billed FROM {warehouse.current(FOCUS_BILLING)} b) b"
        f" CROSS JOIN (SELECT count(*) AS rows FROM {warehouse.current(REJECTED_ROWS)} r) r"
        f" CROSS JOIN (SELECT sum(rows) AS rows FROM {warehouse.current(SOURCE_TOTALS)} t) t"
    ).to_pylist()
    assert seen["places"] == seen["rows"]
    return Seen(seen["rows"], seen["billed"], seen["rejected"], int(seen["counted"]))


def settle(warehouse: Warehouse) -> None:
    """Let a server finish the statements that the killed writer had sent whole."""
    wait_until_none(warehouse, "system.processes WHERE position(query, 'system.processes') = 0")


def wait_until_none(warehouse: Warehouse, rows: str) -> None:
    while warehouse.engine == "clickhouse" and warehouse.query(f"SELECT count() AS n FROM {rows}")["n"][0].as_py():
        pass


def kill_writers(address: str, folder: Path, kills: int, seed: int) -> None:
    """Restate October again and again by writers that are killed, one to five of them, then by one that is not."""
    draw = random.Random(seed)
    warehouse = open_writer(address)
    folders = [folder / "one", folder / "two"]
    bills = [bill(folders[0], 1400, "0.000000000000000000001"), bill(folders[1], 1800, "12345.678901234567890123")]
    with writer(address) as writing:
        assert [writing.load(each) for each in folders] == [0, 0]
        seconds = median(measure(writing, folders[turn % 2]) for turn in range(6))
        seen, killed = 1, 0
        while killed < kills:
            for _ in range(draw.randint(1, 5)):
                other = 1 - seen
                killed += writing.load(folders[other], kill_after=draw.uniform(0, seconds)) == signal.SIGKILL
                settle(warehouse)
                seen = bills.index(read(warehouse))
            seen = 1 - seen
            assert writing.load(folders[seen]) == 0
            assert read(warehouse) == bills[seen]
    assert loads_held(warehouse) == 1 + KEPT


def measure(writing: Writer, folder: Path) -> float:
    began = monotonic()
    assert writing.load(folder) == 0
    return monotonic() - began


def loads_held(warehouse: Warehouse) -> int:
    """Loads that have rows in the table, seen or not, once what was to be removed is."""
    wait_until_none(warehouse, "system.mutations WHERE NOT is_done")
    sql = f"SELECT count(DISTINCT x_load_id) AS n FROM {warehouse.name(FOCUS_BILLING)} b"
    return int(warehouse.query(sql)["n"][0].as_py())


@pytest.mark.xdist_group("killed duckdb")
def test_killing_the_writer_of_duckdb_leaves_no_half_load_no_duplicate_and_no_loss(
    duckdb_warehouse: DuckDBWarehouse, tmp_path: Path
) -> None:
    kill_writers(str(duckdb_warehouse.path), tmp_path / "bills", KILLS, seed=1)


@pytest.mark.xdist_group("killed clickhouse")
def test_killing_the_writer_of_clickhouse_leaves_no_half_load_no_duplicate_and_no_loss(
    clickhouse_warehouse: ClickHouseWarehouse, clickhouse_url: str, tmp_path: Path
) -> None:
    kill_writers(clickhouse_url, tmp_path / "bills", KILLS, seed=2)
