"""Warehouses for measurements: empty ones of either engine, named by an address that a task in another process opens.

An address is the path of a DuckDB file, or the URL of a ClickHouse server.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from pydantic import SecretStr

from optiinfra_pipelines.sandbox.clickhouse_server import serve_clickhouse
from optiinfra_pipelines.settings import ClickHouseAddress
from optiinfra_pipelines.tables import ALL_TABLES
from optiinfra_pipelines.warehouse.clickhouse import ClickHouseWarehouse
from optiinfra_pipelines.warehouse.duckdb import DuckDBWarehouse
from optiinfra_pipelines.warehouse.protocol import Engine, Warehouse


@contextmanager
def empty_warehouse(engine: Engine) -> Iterator[str]:
    """The address of a new warehouse with the project's tables, gone after the block. ClickHouse is the sandbox's."""
    with TemporaryDirectory(prefix="optiinfra-bench-") as folder:
        if engine == "duckdb":
            yield create_tables(f"{folder}/warehouse.duckdb")
        else:
            with serve_clickhouse(Path(folder)) as url:
                yield create_tables(url)


def create_tables(address: str) -> str:
    """Create the project's tables in the warehouse at `address`, which is returned."""
    warehouse_at(address).create_tables(ALL_TABLES)
    return address


def warehouse_at(address: str) -> Warehouse:
    """The warehouse with that address, opened with the product's defaults."""
    if not address.startswith("http"):
        return DuckDBWarehouse(Path(address))
    return ClickHouseWarehouse(clickhouse_address(address))


def clickhouse_address(url: str) -> ClickHouseAddress:
    """The settings' form of a sandbox server's URL."""
    parts = urlsplit(url)
    return ClickHouseAddress(str(parts.hostname), int(parts.port or 0), "default", SecretStr(""), False, None)
