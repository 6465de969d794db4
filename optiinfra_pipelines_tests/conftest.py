"""What many tests share: the real data, the sandbox's servers, and an empty warehouse on each engine for every test.

ClickHouse is the sandbox's server, one for each pytest process, or the one at CLICKHOUSE_URL, which must hold no
databases of this project: tests empty them.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from hypothesis import settings
from pydantic import SecretStr

from optiinfra_pipelines.sandbox.clickhouse_server import serve_clickhouse
from optiinfra_pipelines.sandbox.s3_server import serve_s3
from optiinfra_pipelines.settings import ClickHouseAddress
from optiinfra_pipelines.tables import ALL_TABLES
from optiinfra_pipelines.warehouse.clickhouse import DATABASE_PREFIX, ClickHouseWarehouse
from optiinfra_pipelines.warehouse.duckdb import DuckDBWarehouse
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines_tests.buckets import Bucket

settings.register_profile("suite", derandomize=True, deadline=None)  # the same examples every time
settings.load_profile("suite")

_OWN_DATABASES = f"SELECT name FROM system.databases WHERE startsWith(name, '{DATABASE_PREFIX}')"
_FILLED_TABLES = (
    f"SELECT concat(database, '.', name) AS name FROM system.tables WHERE startsWith(database, '{DATABASE_PREFIX}')"
    " AND total_rows > 0"
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker runs the whole of a module, or of a group that it names: what its tests share is made once."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def address_of(url: str, password: str = "") -> ClickHouseAddress:
    """The warehouse address of a ClickHouse server's URL; a password in the URL wins."""
    parts = urlsplit(url)
    return ClickHouseAddress(
        host=parts.hostname or "",
        port=parts.port or 8123,
        user=unquote(parts.username or "default"),
        password=SecretStr(unquote(parts.password or password)),
        secure=parts.scheme == "https",
        cluster=None,
    )


def connect(url: str) -> Client:
    """A plain client of the server, for what is no warehouse's business."""
    address = address_of(url)
    return clickhouse_connect.get_client(
        host=address.host,
        port=address.port,
        username=address.user,
        password=address.password.get_secret_value(),
        secure=address.secure,
        autogenerate_session_id=False,
    )


@pytest.fixture(autouse=True)
def no_instance_of_another_test() -> Iterator[None]:
    """Dagster asks the newest instance of the process for state while it resolves definitions: not one that is gone."""
    yield
    if "dagster" in sys.modules:
        from dagster._core.storage.defs_state.base import _current_storage

        _current_storage.set(None)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of shared real data: OPTIINFRA_DATA, or ../shared/data beside the repository."""
    folder = Path(os.environ.get("OPTIINFRA_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the shared data is not at {folder}; set OPTIINFRA_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def clickhouse_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a ClickHouse server with this project's tables, for this pytest process alone."""
    given = os.environ.get("CLICKHOUSE_URL")
    if given is None:
        with serve_clickhouse(tmp_path_factory.mktemp("clickhouse")) as url:
            ClickHouseWarehouse(address_of(url)).create_tables(ALL_TABLES)
            yield url
        return
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.fail("the server at CLICKHOUSE_URL serves one pytest process: run pytest with -n 0", pytrace=False)
    warehouse = ClickHouseWarehouse(address_of(given))
    held = warehouse.query(_OWN_DATABASES)["name"].to_pylist()
    if held:
        pytest.fail(f"CLICKHOUSE_URL has {', '.join(held)}, which tests would empty: use another server", pytrace=False)
    warehouse.create_tables(ALL_TABLES)
    yield given
    with connect(given) as client:
        for name in warehouse.query(_OWN_DATABASES)["name"].to_pylist():
            client.command(f"DROP DATABASE {name}")


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """URL of an S3 server, for this pytest process alone."""
    with serve_s3() as url:
        yield url


@pytest.fixture
def bucket(s3_url: str) -> Iterator[Bucket]:
    """An empty bucket of a name of its own."""
    bucket = Bucket(s3_url)
    yield bucket
    bucket.heal()


@pytest.fixture(scope="session")
def duckdb_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DuckDB file with this project's tables, empty."""
    path = tmp_path_factory.mktemp("duckdb") / "template.duckdb"
    DuckDBWarehouse(path).create_tables(ALL_TABLES)
    return path


@pytest.fixture
def duckdb_warehouse(duckdb_template: Path, tmp_path: Path) -> DuckDBWarehouse:
    """An empty embedded warehouse in a file of its own."""
    path = tmp_path / "warehouse.duckdb"
    shutil.copyfile(duckdb_template, path)
    return DuckDBWarehouse(path, run_id="run-1", lock_timeout=20)


@pytest.fixture
def clickhouse_warehouse(clickhouse_url: str) -> ClickHouseWarehouse:
    """The ClickHouse warehouse of this pytest process, emptied."""
    with connect(clickhouse_url) as client:
        for (name,) in client.query(_FILLED_TABLES).result_rows:
            client.command(f"TRUNCATE TABLE {name}")
    return ClickHouseWarehouse(address_of(clickhouse_url), run_id="run-1")


@pytest.fixture(params=["duckdb", "clickhouse"])
def warehouse(request: pytest.FixtureRequest) -> Warehouse:
    """An empty warehouse, on one engine and then on the other."""
    return request.getfixturevalue(f"{request.param}_warehouse")
