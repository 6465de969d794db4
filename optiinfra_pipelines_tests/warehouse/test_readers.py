"""Readers beside a writer: while bills are restated again and again, every reader sees one of them whole."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from optiinfra_pipelines.tables.billing import FOCUS_BILLING
from optiinfra_pipelines.tables.operations import REJECTED_ROWS, SOURCE_TOTALS
from optiinfra_pipelines.warehouse.clickhouse import ClickHouseWarehouse
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines_tests.conftest import address_of
from optiinfra_pipelines_tests.focus_files import load
from optiinfra_pipelines_tests.warehouse.test_killed_writers import Seen, bill

LOADS = 6


def poll(warehouse: Warehouse, sql: str, done: Event) -> set[int]:
    """Every answer to `sql`, a single number, until `done`."""
    answers: set[int] = set()
    while not done.is_set():
        answers.add(int(warehouse.query(sql)["n"][0].as_py()))
    return answers


def test_readers_polling_while_loads_commit_never_see_a_part_of_one(
    clickhouse_warehouse: ClickHouseWarehouse, clickhouse_url: str, tmp_path: Path
) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    bills = [bill(folders[0], 700, "0.5"), bill(folders[1], 900, "0.25")]
    clickhouse_warehouse.keep_loads = 1
    load(clickhouse_warehouse, folders[1])
    expected: dict[str, Callable[[Seen], int]] = {
        f"SELECT count(*) AS n FROM {clickhouse_warehouse.current(FOCUS_BILLING)} b": lambda seen: seen.rows,
        f"SELECT count(*) AS n FROM {clickhouse_warehouse.current(REJECTED_ROWS)} r": lambda seen: seen.rejected,
        f"SELECT sum(rows) AS n FROM {clickhouse_warehouse.current(SOURCE_TOTALS)} t": lambda seen: (
            seen.counted_by_source
        ),
    }
    done = Event()
    with ThreadPoolExecutor(len(expected)) as readers:
        polls = {
            sql: readers.submit(poll, ClickHouseWarehouse(address_of(clickhouse_url)), sql, done) for sql in expected
        }
        try:
            for turn in range(LOADS):
                load(clickhouse_warehouse, folders[turn % 2])
        finally:
            done.set()
    for sql, polled in polls.items():
        assert polled.result() == {expected[sql](each) for each in bills}
