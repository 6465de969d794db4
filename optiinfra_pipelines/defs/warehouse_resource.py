"""The resources `warehouse` and `customers`: settings and files are read when a run asks, never at import."""

import dagster as dg

from optiinfra_pipelines.customers import Customers, load_customers
from optiinfra_pipelines.settings import DuckDBAddress, Settings, load_settings
from optiinfra_pipelines.tables import ALL_TABLES
from optiinfra_pipelines.warehouse import open_warehouse
from optiinfra_pipelines.warehouse.protocol import Warehouse

_prepared: set[str] = set()  # warehouses whose tables this process has seen to; a run opens its own many times


class WarehouseResource(dg.ConfigurableResource):
    """Opens the warehouse that OPTIINFRA_WAREHOUSE names."""

    def settings(self) -> Settings:
        """The settings of this process; SettingsError lists every mistake."""
        return load_settings()

    def open(self, run_id: str = "") -> Warehouse:
        """The warehouse with all tables as their contracts say; statements and loads carry `run_id`."""
        settings = self.settings()
        warehouse, address = open_warehouse(settings, run_id), settings.warehouse_address
        gone = isinstance(address, DuckDBAddress) and not address.path.exists()
        if gone or str(address) not in _prepared:
            warehouse.create_tables(ALL_TABLES)
            _prepared.add(str(address))
        return warehouse

    def open_briefly(self) -> Warehouse:
        """The warehouse for a question between two ticks: WarehouseBusy soon where another process holds it."""
        return open_warehouse(self.settings().model_copy(update={"duckdb_lock_timeout": 2.0}))


class CustomersResource(dg.ConfigurableResource):
    """Reads the file that OPTIINFRA_CUSTOMERS names."""

    def load(self) -> Customers:
        """The customers; CustomersFileError lists every mistake with its line."""
        return load_customers(load_settings().customers)
