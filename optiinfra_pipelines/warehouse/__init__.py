"""The warehouse: one protocol, two engines. Nothing outside this package knows which engine answers."""

from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.warehouse.protocol import Warehouse


def open_warehouse(settings: Settings, run_id: str = "") -> Warehouse:
    """The warehouse that `settings` names; nothing is contacted yet. `run_id` traces its statements and loads."""
    from optiinfra_pipelines.settings import ClickHouseAddress

    address = settings.warehouse_address
    if isinstance(address, ClickHouseAddress):
        from optiinfra_pipelines.warehouse.clickhouse import ClickHouseWarehouse

        return ClickHouseWarehouse(address, run_id=run_id, keep_loads=settings.retention_loads)
    from optiinfra_pipelines.warehouse.duckdb import DuckDBWarehouse

    return DuckDBWarehouse(
        address.path,
        run_id=run_id,
        memory_limit=settings.duckdb_memory_limit,
        lock_timeout=settings.duckdb_lock_timeout,
        keep_loads=settings.retention_loads,
    )
