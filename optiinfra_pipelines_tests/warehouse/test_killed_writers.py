"""Writers killed at random moments: no reader sees half a load, and the next run leaves no duplicate and no loss."""

import os
import random
import select
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

KILLS = 20


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
        self._stdin, self._stdout = cast(TextIO, self.process.stdin), cast(TextIO, self.process.stdout)

    def load(self, folder: Path, kill_after: float | None = None) -> int:
        """Load `folder`, and kill the child after `kill_after` seconds; its exit status (9: it was killed)."""
        self._stdin.write(f"{folder}\n")
        child = int(self._stdout.readline())
        if kill_after is not None and not select.select([self._stdout], [], [], kill_after)[0]:
            os.kill(child, signal.SIGKILL)
        return int(self._stdout.readline())


@contextmanager
def writer(address: str) -> Iterator[Writer]:
    writing = Writer(address)
    try:
        yield writing
    finally:
        writing.process.communicate()


def bill(folder: Path, rows: int, cost: str) -> Seen:
    """Write a bill of three sets of columns with rows that are refused; what a reader has to see of it."""
    good = [focus_row(BilledCost=cost, InvoiceId=str(number % 3)) for number in range(rows)]
    bad = [focus_row(BilledCost="a lot"), focus_row(ChargeCategory="Gift")]
    write_parquet(folder / "2026-10/a.parquet", good)
    write_parquet(folder / "2026-10/b.parquet", [{**row, "x_Team": "blue"} for row in [*good, *bad]])
    write_csv(folder / "2026-10/c.csv", [*good[: rows // 2], *bad], extra="1,2,3\n")
    accepted = 2 * rows + rows // 2
    return Seen(accepted, Decimal(cost) * accepted, 5, accepted + 4)


def read(warehouse: Warehouse) -> Seen:
    """What a reader sees now, each table read by one statement; it fails on a row that stands twice."""
    [rows] = warehouse.query(
        "SELECT count(*) AS n, count(DISTINCT concat(x_source, ' ', CAST(x_row_number AS VARCHAR))) AS places,"
        f" sum(BilledCost) AS billed FROM {warehouse.current(FOCUS_BILLING)} b"
    ).to_pylist()
    [rejected] = warehouse.query(f"SELECT count(*) AS n FROM {warehouse.current(REJECTED_ROWS)} r").to_pylist()
    [totals] = warehouse.query(f"SELECT sum(rows) AS n FROM {warehouse.current(SOURCE_TOTALS)} t").to_pylist()
    assert rows["places"] == rows["n"]
    return Seen(rows["n"], rows["billed"], rejected["n"], int(totals["n"]))


def settle(warehouse: Warehouse) -> None:
    """Let a server finish the statements that the killed writer had sent whole."""
    running = "SELECT count() AS n FROM system.processes WHERE position(query, 'system.processes') = 0"
    while warehouse.engine == "clickhouse" and warehouse.query(running)["n"][0].as_py():
        pass


def kill_writers(address: str, folder: Path, kills: int, seed: int) -> None:
    """Restate October again and again, each time with a writer that is killed and then with one that is not."""
    draw = random.Random(seed)
    warehouse = open_writer(address)
    folders = [folder / "one", folder / "two"]
    bills = [bill(folders[0], 700, "0.000000000000000000001"), bill(folders[1], 900, "12345.678901234567890123")]
    with writer(address) as writing:
        assert [writing.load(each) for each in folders] == [0, 0]
        seconds = median(measure(writing, folders[turn % 2]) for turn in range(4))
        old, killed = 1, 0
        for _ in range(2 * kills):
            new = 1 - old
            status = writing.load(folders[new], kill_after=draw.uniform(0, seconds))
            settle(warehouse)
            assert read(warehouse) in (bills[old], bills[new])
            assert writing.load(folders[new]) == 0
            assert read(warehouse) == bills[new]
            killed += status == signal.SIGKILL
            old = new
            if killed == kills:
                break
        assert killed == kills
    assert loads_held(warehouse) <= 1 + KEPT


def measure(writing: Writer, folder: Path) -> float:
    began = monotonic()
    assert writing.load(folder) == 0
    return monotonic() - began


def loads_held(warehouse: Warehouse) -> int:
    """Loads that have rows in the table, seen or not."""
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
