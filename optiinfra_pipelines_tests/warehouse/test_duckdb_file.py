"""The embedded warehouse as a file: locked by others, short of room, damaged, not there yet."""

import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, cast

import pytest

from optiinfra_pipelines.tables import ALL_TABLES
from optiinfra_pipelines.tables.operations import LOADS, REJECTED_ROWS
from optiinfra_pipelines.warehouse.duckdb import DuckDBWarehouse
from optiinfra_pipelines.warehouse.protocol import WarehouseBusy, WarehouseError
from optiinfra_pipelines_tests.focus_files import focus_row, load, values, write_csv
from optiinfra_pipelines_tests.warehouse.test_loads import SLICE, replace, rows, seen

HOLDER = """
import sys, duckdb
held = duckdb.connect(sys.argv[1], read_only=len(sys.argv) > 2)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_by_another_process(path: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(path), *options]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with holder, cast(TextIO, holder.stdin):
        assert cast(TextIO, holder.stdout).readline() == "held\n"
        yield holder


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """As on a full disk, writing past `size` bytes of a file fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_another_process_holds_is_named_with_that_process(duckdb_warehouse: DuckDBWarehouse) -> None:
    impatient = DuckDBWarehouse(duckdb_warehouse.path, lock_timeout=0)
    with held_by_another_process(impatient.path) as holder:
        for act in (lambda: impatient.query("SELECT 1"), lambda: replace(impatient, "new", 1)):
            with pytest.raises(WarehouseBusy) as busy:
                act()
            assert str(impatient.path) in str(busy.value)
            assert f"(process {holder.pid}); close it and run again" in str(busy.value)
    replace(impatient, "new", 1)
    assert seen(impatient) == {"new": 1}


def test_a_file_is_waited_for_until_its_holder_lets_go(duckdb_warehouse: DuckDBWarehouse) -> None:
    with held_by_another_process(duckdb_warehouse.path) as holder, ThreadPoolExecutor(1) as beside:
        writing = beside.submit(replace, duckdb_warehouse, "new", 1)
        with pytest.raises(TimeoutError):
            writing.result(timeout=0.2)
        cast(TextIO, holder.stdin).close()
    assert writing.exception() is None
    assert seen(duckdb_warehouse) == {"new": 1}


def test_readers_in_other_processes_do_not_keep_each_other_out(duckdb_warehouse: DuckDBWarehouse) -> None:
    replace(duckdb_warehouse, "new", 1)
    impatient = DuckDBWarehouse(duckdb_warehouse.path, lock_timeout=0)
    with held_by_another_process(impatient.path, "read_only"):
        assert seen(impatient) == {"new": 1}


def test_on_a_full_disk_a_load_is_given_up_with_advice_and_nothing_of_it_is_kept(
    duckdb_warehouse: DuckDBWarehouse, tmp_path: Path
) -> None:
    old = write_csv(tmp_path / "old/2026-10/a.csv", [focus_row(BilledCost="1")])
    new = write_csv(tmp_path / "new/2026-10/a.csv", [focus_row(Tags=f"{number:x}" * 300) for number in range(20_000)])
    load(duckdb_warehouse, old.parents[1])
    room = duckdb_warehouse.path.stat().st_size + (256 << 10)
    with no_file_larger_than(room), pytest.raises(WarehouseError) as refused:
        load(duckdb_warehouse, new.parents[1])
    assert "free disk space and run again; nothing of this load was kept" in str(refused.value)
    assert str(duckdb_warehouse.path) in str(refused.value)
    assert len(values(duckdb_warehouse, "BilledCost")) == 1
    load(duckdb_warehouse, new.parents[1])
    assert len(values(duckdb_warehouse, "BilledCost")) == 20_000


@pytest.mark.parametrize("kilobytes", [1, 4, 16, 64, 256, 512, 1024, 2048, 4096, 8192])
def test_wherever_the_disk_fills_up_a_reader_sees_the_old_load_or_the_new(
    duckdb_warehouse: DuckDBWarehouse, kilobytes: int
) -> None:
    replace(duckdb_warehouse, "old", 2)
    with no_file_larger_than(kilobytes << 10), ThreadPoolExecutor(1) as beside:
        error = beside.submit(replace, duckdb_warehouse, "new", 50_000).exception()
    if error is None:
        assert seen(duckdb_warehouse) == {"new": 50_000}
    else:
        assert kilobytes < 8192
        assert "free disk space" in str(error)
        assert seen(duckdb_warehouse) in ({"old": 2}, {"new": 50_000})
    replace(duckdb_warehouse, "next", 3)
    assert seen(duckdb_warehouse) == {"next": 3}


def test_a_file_that_is_no_warehouse_is_named(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    path.write_text("customer,cost\n" * 1000)
    with pytest.raises(WarehouseError, match=re.escape(str(path))):
        DuckDBWarehouse(path).create_tables(ALL_TABLES)
    assert path.read_text().startswith("customer,cost\n")


def test_a_warehouse_that_is_not_there_yet_is_made_with_its_folders(tmp_path: Path) -> None:
    warehouse = DuckDBWarehouse(tmp_path / "new/folder/warehouse.duckdb")
    warehouse.create_tables([LOADS, REJECTED_ROWS])
    replace(warehouse, "new", 1)
    assert seen(warehouse) == {"new": 1}


def test_a_load_larger_than_memory_stays_within_its_limit(duckdb_warehouse: DuckDBWarehouse) -> None:
    warehouse = DuckDBWarehouse(duckdb_warehouse.path, memory_limit="60MB")
    with warehouse.replace_slice(REJECTED_ROWS, SLICE) as load:
        written = load.insert(
            rows("new", 1),
            select="SELECT s.* EXCLUDE (payload, row_number), n AS row_number, repeat(md5(n::VARCHAR), 20) AS payload"
            " FROM source s, range(150000) t(n)",
        )
    assert written == 150_000
    assert seen(warehouse) == {"new": 150_000}
