"""The marts of the small bills on each engine, at each step of a history of loads and dbt builds.

One history per engine serves every test of this folder: a dbt command takes seconds to start.
"""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from optiinfra_pipelines.sandbox.clickhouse_server import serve_clickhouse
from optiinfra_pipelines.settings import ClickHouseAddress
from optiinfra_pipelines.tables import ALL_TABLES
from optiinfra_pipelines.tables.operations import COLLECTION_RUNS, CONNECTIONS
from optiinfra_pipelines.warehouse.clickhouse import ClickHouseWarehouse
from optiinfra_pipelines.warehouse.duckdb import DuckDBWarehouse
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines_tests.conftest import address_of
from optiinfra_pipelines_tests.dbt_project.bills import load_all, write_first, write_restated
from optiinfra_pipelines_tests.dbt_project.dbt_runs import Dbt

Rows = list[dict[str, Any]]
