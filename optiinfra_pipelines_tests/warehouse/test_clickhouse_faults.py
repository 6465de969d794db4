"""A ClickHouse server that has a bad day: what passes is sent again and written once, what does not is explained."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pyarrow as pa
import pytest

from optiinfra_pipelines.sandbox.clickhouse_server import serve_clickhouse
from optiinfra_pipelines.tables import ALL_TABLES
from optiinfra_pipelines.tables.operations import CONNECTIONS, LOADS, REJECTED_ROWS
from optiinfra_pipelines.warehouse.clickhouse import TRANSIENT, ClickHouseWarehouse
from optiinfra_pipelines.warehouse.protocol import Warehouse, WarehouseBusy, WarehouseError
from optiinfra_pipelines_tests.conftest import address_of, connect
from optiinfra_pipelines_tests.focus_files import focus_row, load, values, write_csv, write_parquet
from optiinfra_pipelines_tests.warehouse.test_loads import rows, seen

PASSWORD = "correct-horse"


@pytest.fixture(scope="module")
def sandbox_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose faults can be switched, that asks for a password and whose clock is in New York."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        with serve_clickhouse(tmp_path_factory.mktemp("faulty"), password=PASSWORD) as url:
            ClickHouseWarehouse(address_of(url, PASSWORD)).create_tables(ALL_TABLES)
            yield url


@pytest.fixture
def faults(sandbox_url: str) -> Iterator["Faults"]:
    faults = Faults(sandbox_url)
    yield faults
    faults.clear()


@pytest.fixture
def faulty(sandbox_url: str, faults: "Faults") -> ClickHouseWarehouse:
    """A warehouse on that server, with empty tables."""
    warehouse = ClickHouseWarehouse(address_of(sandbox_url, PASSWORD), run_id="run-1")
    with connect(sandbox_url.replace("//", f"//default:{PASSWORD}@")) as client:
        for table in (CONNECTIONS, LOADS, REJECTED_ROWS):
            client.command(f"TRUNCATE TABLE {warehouse.name(table)}")
    return warehouse


class Faults:
    """The sandbox's control of faults."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/sandbox/faults"

    def add(self, match: str, times: int = 1, **fault: Any) -> None:
        httpx.post(self._url, json={"match": match, "times": times, **fault}).raise_for_status()

    def left(self) -> int:
        """Times that armed faults would still strike."""
        return sum(fault["times"] for fault in httpx.get(self._url).json())

    def clear(self) -> None:
        httpx.delete(self._url)


def upsert(warehouse: Warehouse, customer: str = "acme") -> None:
    at = datetime(2026, 10, 25, 5, 30)
    row = {"customer_id": customer, "connection_id": "main", "provider": "aws", "collects": "x", "active": True}
    warehouse.upsert(CONNECTIONS, pa.Table.from_pylist([row | {"collected_at": at}], schema=CONNECTIONS.arrow_schema))


def stored(warehouse: Warehouse) -> int:
    """Rows in raw.connections, every version of a key counted."""
    return int(warehouse.query(f"SELECT count(*) AS n FROM {warehouse.name(CONNECTIONS)} c")["n"][0].as_py())


@pytest.mark.parametrize("code", TRANSIENT)
def test_a_passing_error_is_tried_again(faulty: ClickHouseWarehouse, faults: Faults, code: int) -> None:
    faults.add("INSERT INTO optiinfra_raw.connections", code=code)
    upsert(faulty)
    assert (stored(faulty), faults.left()) == (1, 0)


@pytest.mark.parametrize("code", [16, 53, 60, 62, 164, 241, 497])
def test_any_other_error_is_final_and_said_at_once(faulty: ClickHouseWarehouse, faults: Faults, code: int) -> None:
    faults.add("INSERT INTO optiinfra_raw.connections", times=2, code=code)
    with pytest.raises(WarehouseError, match=f"Code: {code}") as refused:
        upsert(faulty)
    assert not isinstance(refused.value, WarehouseBusy)
    assert faults.left() == 1


def test_a_server_that_answers_503_for_a_while_is_waited_for(faulty: ClickHouseWarehouse, faults: Faults) -> None:
    faults.add("INSERT INTO optiinfra_raw.connections", times=3, code=202, status=503)
    upsert(faulty)
    assert (stored(faulty), faults.left()) == (1, 0)


def test_a_server_that_stays_busy_is_given_up_with_advice(faulty: ClickHouseWarehouse, faults: Faults) -> None:
    faults.add("INSERT INTO optiinfra_raw.connections", times=99, code=202)
    with pytest.raises(WarehouseBusy, match=r"ClickHouse at 127\.0\.0\.1:\d+ .* after 6 attempts; try again later"):
        upsert(faulty)
    assert stored(faulty) == 0


@pytest.mark.parametrize("drop", ["before", "after"])
def test_an_insert_whose_connection_dropped_is_written_once(
    faulty: ClickHouseWarehouse, faults: Faults, drop: str
) -> None:
    faults.add("INSERT INTO optiinfra_raw.connections", times=2, drop=drop)
    upsert(faulty)
    assert (stored(faulty), faults.left()) == (1, 0)


@pytest.mark.parametrize("drop", ["before", "after"])
def test_a_load_through_dropped_connections_is_whole_and_written_once(
    faulty: ClickHouseWarehouse, faults: Faults, drop: str
) -> None:
    for match in ("INSERT INTO optiinfra_raw.rejected_rows", "INSERT INTO optiinfra_raw.loads", "SELECT count"):
        faults.add(match, drop=drop)
    with faulty.replace_slice(REJECTED_ROWS, "acme/main/2026-10") as load:
        load.insert(rows("first", 3))
        load.insert(rows("second", 4))
    assert seen(faulty) == {"first": 3, "second": 4}
    assert faults.left() == 0
    states = faulty.query(f"SELECT state FROM {faulty.name(LOADS)} ORDER BY recorded_at")["state"].to_pylist()
    assert states == ["started", "committed"]


def test_a_load_that_loses_its_server_for_good_is_not_seen(faulty: ClickHouseWarehouse, faults: Faults) -> None:
    with faulty.replace_slice(REJECTED_ROWS, "acme/main/2026-10") as load:
        load.insert(rows("old", 3))

    def lose_the_server_before_committing() -> None:
        with faulty.replace_slice(REJECTED_ROWS, "acme/main/2026-10") as load:
            load.insert(rows("new", 4))
            faults.add("INSERT INTO optiinfra_raw.loads", times=99, drop="before")

    with pytest.raises(WarehouseBusy):
        lose_the_server_before_committing()
    faults.clear()
    assert seen(faulty) == {"old": 3}


def test_a_full_server_says_what_to_do(faulty: ClickHouseWarehouse, faults: Faults) -> None:
    faults.add("INSERT INTO", code=243)
    with pytest.raises(WarehouseError, match="has no room left: free disk space and run again"):
        upsert(faulty)


def test_a_wrong_password_names_the_server_and_the_settings_and_not_the_password(sandbox_url: str) -> None:
    with pytest.raises(WarehouseError) as refused:
        ClickHouseWarehouse(address_of(sandbox_url, "hunter2-secret")).query("SELECT 1")
    said = str(refused.value)
    assert sandbox_url.removeprefix("http://") in said
    assert "check OPTIINFRA_WAREHOUSE and its password" in said
    assert "hunter2" not in said


def test_an_address_where_nothing_listens_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(WarehouseBusy, match=f"ClickHouse at 127.0.0.1:{port} did not answer"):
        ClickHouseWarehouse(address_of(f"http://127.0.0.1:{port}")).query("SELECT 1")


@contextmanager
def proxy(upstream: str, status: int, failures: int) -> Iterator[str]:
    """A proxy before the server whose first `failures` answers are an error page of its own."""
    left = [failures]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if left[0] > 0:
                left[0] -= 1
                answer, code, headers = b"<html>not now</html>", status, {}
            else:
                through = http.client.HTTPConnection(upstream.removeprefix("http://"))
                through.request(self.command, self.path, body, dict(self.headers))
                response = through.getresponse()
                answer, code, headers = response.read(), response.status, dict(response.headers)
            self.send_response(code)
            for name, value in headers.items():
                if name not in ("Content-Length", "Transfer-Encoding", "Connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("status", [502, 503, 504, 429])
def test_a_proxy_that_answers_for_its_server_is_waited_for(sandbox_url: str, status: int) -> None:
    with proxy(sandbox_url, status, failures=3) as url:
        warehouse = ClickHouseWarehouse(address_of(url, PASSWORD))
        assert warehouse.query("SELECT $n AS n", {"n": 1}).to_pylist() == [{"n": 1}]


def test_statements_and_loads_are_traced_to_their_run(faulty: ClickHouseWarehouse, sandbox_url: str) -> None:
    warehouse = ClickHouseWarehouse(address_of(sandbox_url, PASSWORD), run_id="run-'42'")
    with warehouse.replace_slice(REJECTED_ROWS, "acme/main/2026-10") as load:
        load.insert(rows("new", 1))
    with connect(sandbox_url.replace("//", f"//default:{PASSWORD}@")) as client:
        client.command("SYSTEM FLUSH LOGS")
    logged = faulty.query(
        "SELECT DISTINCT log_comment FROM system.query_log WHERE query_kind = 'Insert' AND has(tables, $name)",
        {"name": "optiinfra_raw.rejected_rows"},
    )["log_comment"].to_pylist()
    assert {"app": "optiinfra_pipelines", "run_id": "run-'42'"} in [json.loads(each) for each in logged]
    runs = faulty.query(f"SELECT DISTINCT run_id FROM {faulty.name(LOADS)} l")["run_id"].to_pylist()
    assert runs == ["run-'42'"]


def test_a_server_in_another_time_zone_holds_the_same_times(
    faulty: ClickHouseWarehouse, clickhouse_warehouse: ClickHouseWarehouse, tmp_path: Path
) -> None:
    assert faulty.query("SELECT serverTimezone() AS zone").to_pylist() == [{"zone": "America/New_York"}]
    printed = ["2026-10-25T05:30:00Z", "2026-10-25 06:30:00", "2026-10-31T23:59:59.999999+00:00", "10/1/26 4:00"]
    write_csv(tmp_path / "2026-10/a.csv", [focus_row(ChargePeriodStart=each) for each in printed])
    moments = pa.array([datetime(2026, 10, 25, 6, 30, tzinfo=UTC)], pa.timestamp("us", tz="America/New_York"))
    write_parquet(tmp_path / "2026-10/b.parquet", [focus_row()], ChargePeriodStart=moments)
    expected = [
        datetime(2026, 10, 25, 5, 30, tzinfo=UTC),
        datetime(2026, 10, 25, 6, 30, tzinfo=UTC),
        datetime(2026, 10, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 10, 1, 4, tzinfo=UTC),
        datetime(2026, 10, 25, 6, 30, tzinfo=UTC),
    ]
    for warehouse in (faulty, clickhouse_warehouse):
        load(warehouse, tmp_path)
        assert values(warehouse, "ChargePeriodStart") == expected
    upsert(faulty)
    found = faulty.query(
        f"SELECT collected_at FROM {faulty.current(CONNECTIONS)} c WHERE collected_at = $at",
        {"at": datetime(2026, 10, 25, 5, 30)},
    )
    assert found.to_pylist() == [{"collected_at": datetime(2026, 10, 25, 5, 30, tzinfo=UTC)}]
