"""A process whose children load bills and can be killed: it has everything imported, so a child begins at once.

`python -m optiinfra_pipelines_tests.warehouse.writer ADDRESS` reads lines of seconds and a folder. It loads that
folder's October in a forked child, kills the child where it is not done by then, and prints its exit status.
"""

import os
import select
import signal
import sys
from pathlib import Path

import clickhouse_connect  # noqa: F401
import pyarrow.csv
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet  # noqa: F401

from optiinfra_pipelines.warehouse.clickhouse import ClickHouseWarehouse
from optiinfra_pipelines.warehouse.duckdb import DuckDBWarehouse
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines_tests.conftest import address_of
from optiinfra_pipelines_tests.focus_files import load

KEPT = 1  # superseded loads: few, so that most loads remove an old one too


def open_writer(address: str) -> Warehouse:
    """The warehouse at `address`, a path or a server's URL, as the writer opens it."""
    if address.startswith("http"):
        return ClickHouseWarehouse(address_of(address), run_id="writer", keep_loads=KEPT)
    return DuckDBWarehouse(Path(address), run_id="writer", keep_loads=KEPT)


def main() -> None:
    """Serve until standard input closes."""
    address = sys.argv[1]
    for line in sys.stdin:
        seconds, folder = line.strip().split(" ", 1)
        child = os.fork()
        if child == 0:
            load(open_writer(address), folder)
            os._exit(0)
        running = os.pidfd_open(child)
        if not select.select([running], [], [], float(seconds))[0]:
            os.kill(child, signal.SIGKILL)  # which nobody has waited for: the id is still the child's
        os.close(running)
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main()
