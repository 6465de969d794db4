"""The sandbox's ClickHouse server, through clickhouse-connect and, where the wire itself is meant, through sockets."""

import gzip
import json
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import clickhouse_connect
import pyarrow as pa
import pytest
from clickhouse_connect.driver import Client
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError, StreamFailureError

from optiinfra_pipelines.sandbox.clickhouse_server import ServerFailed, serve_clickhouse


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve_clickhouse(tmp_path_factory.mktemp("clickhouse")) as url:
        yield url


def connect(url: str, **options: Any) -> Client:
    address = urlsplit(url)
    return clickhouse_connect.get_client(host=address.hostname, port=address.port, **options)


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with connect(url) as client:
        yield client


@pytest.fixture
def table(client: Client) -> str:
    name = f"t_{uuid.uuid4().hex}"
    client.command(f"CREATE TABLE {name} (id Int64, name String) ENGINE = MergeTree ORDER BY id")
    return name


def post(url: str, body: bytes = b"", headers: dict[str, str] | None = None, **params: str) -> tuple[int, Any, bytes]:
    request = urllib.request.Request(f"{url}/?{urlencode(params)}", body, headers or {}, method="POST")
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def arm(url: str, **fault: Any) -> None:
    urllib.request.urlopen(f"{url}/sandbox/faults", json.dumps(fault).encode()).close()


@contextmanager
def sent(url: str, text: bytes) -> Iterator[socket.socket]:
    """A raw connection on which `text` has been sent."""
    with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=30) as connection:
        connection.sendall(text)
        yield connection


# --- statements, results, types


def test_the_server_answers_ping_and_presents_the_engines_version(url: str, client: Client) -> None:
    assert urllib.request.urlopen(f"{url}/ping").read() == b"Ok.\n"
    assert client.ping()
    assert client.command("SELECT version()") == client.server_version
    assert str(client.server_tz) == "UTC"


TYPED: dict[str, tuple[str, list[Any]]] = {
    "amount": (
        "Decimal(38, 21)",
        [Decimal("0.000000000000000000001"), Decimal("-12345678901234567.123456789012345678901")],
    ),
    "at": ("DateTime64(6, 'UTC')", [datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), datetime(1970, 1, 1, tzinfo=UTC)]),
    "label": ("LowCardinality(Nullable(String))", ["größe 'x' \t\n\\", None]),
    "flag": ("Bool", [True, False]),
    "count": ("Int64", [2**63 - 1, -(2**63)]),
    "ratio": ("Float64", [0.1, -1e300]),
}


def typed_table(client: Client) -> str:
    columns = ", ".join(f"{name} {type}" for name, (type, _) in TYPED.items())
    name = f"typed_{uuid.uuid4().hex}"
    client.command(f"CREATE TABLE {name} (id Int8, {columns}) ENGINE = MergeTree ORDER BY id")
    return name


def test_rows_come_back_as_they_went_in(client: Client) -> None:
    name = typed_table(client)
    rows = [(id, *(values[id] for _, values in TYPED.values())) for id in (0, 1)]

    client.insert(name, rows, column_names=["id", *TYPED])

    assert client.query(f"SELECT * FROM {name} ORDER BY id", tz_mode="aware").result_rows == rows


@pytest.mark.parametrize("compress", ["lz4", "zstd", "gzip", False])
def test_arrow_tables_come_back_as_they_went_in(url: str, compress: str | bool) -> None:
    with connect(url, compress=compress) as client:
        name = typed_table(client)
        types = [pa.decimal128(38, 21), pa.timestamp("us", "UTC"), pa.string(), pa.bool_(), pa.int64(), pa.float64()]
        columns = {c: pa.array(v, t) for (c, (_, v)), t in zip(TYPED.items(), types, strict=True)}
        rows = pa.table({"id": pa.array([0, 1], pa.int8()), **columns})

        client.insert_arrow(name, rows)

        back = client.query_arrow(f"SELECT * FROM {name} ORDER BY id", use_strings=True)
        assert back.cast(rows.schema).to_pylist() == rows.to_pylist()


def test_decimal_sums_are_exact(client: Client) -> None:
    name = typed_table(client)
    digits = [Decimal("0.1"), Decimal("0.2"), Decimal("0.000000000000000000003")]
    client.insert(name, [[i, d] for i, d in enumerate(digits)], column_names=["id", "amount"])
    assert client.query(f"SELECT sum(amount) FROM {name}").first_row == (Decimal("0.300000000000000000003"),)


def test_query_parameters_are_bound_by_the_engine(client: Client) -> None:
    values = {"n": 7, "s": "it's\t\\ $x {y:String}", "d": datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC), "l": ["a", "b'c"]}
    row = client.query(
        "SELECT {n:Int64}, {s:String}, {d:DateTime64(6, 'UTC')}, {l:Array(String)}", values, tz_mode="aware"
    ).first_row
    assert row == tuple(values.values())


def test_large_query_parameters_arrive_as_a_form(client: Client) -> None:
    text = "x" * 100_000
    assert client.query("SELECT length({s:String})", {"s": text}).first_row == (100_000,)


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("", b"INSERT INTO {t} FORMAT CSV\n1,a\n2,b\n"),
        ("", b"/* FORMAT x */ insert into {t} (id, name) -- VALUES\n SETTINGS max_threads = 1 format CSV\n1,a\n2,b\n"),
        ("INSERT INTO {t} FORMAT CSV", b"1,a\n2,b\n"),
        ("INSERT INTO {t} (id, name)\nFORMAT JSONEachRow\n", b'{"id":1,"name":"a"} {"id":2,"name":"b"}'),
        ("INSERT INTO {t} FORMAT CSV 1,a", b"2,b\n"),
        ("INSERT INTO {t} VALUES", b"(1, 'a'), (1 + 1, lower('B'))"),
        ("", b"INSERT INTO {t} VALUES (1, 'a'), (2, 'b');"),
        ("", b"INSERT INTO {t} SELECT number + 1, char(97 + number) FROM numbers(2)"),
    ],
)
def test_an_insert_may_stand_in_the_url_in_the_body_or_in_both(
    url: str, client: Client, table: str, query: str, body: bytes
) -> None:
    status, headers, _ = post(url, body.replace(b"{t}", table.encode()), query=query.replace("{t}", table))

    assert status == 200
    assert json.loads(headers["X-ClickHouse-Summary"])["written_rows"] == "2"
    assert client.query(f"SELECT * FROM {table} ORDER BY id").result_rows == [(1, "a"), (2, "b")]


def test_compressed_requests_are_unpacked(url: str, client: Client, table: str) -> None:
    body = gzip.compress(f"INSERT INTO {table} FORMAT CSV\n1,a\n".encode()) + gzip.compress(b"2,b\n")
    assert post(url, body, {"Content-Encoding": "gzip"})[0] == 200
    assert client.command(f"SELECT count() FROM {table}") == 2


def test_results_take_the_format_asked_for(url: str) -> None:
    assert post(url, b"SELECT 1 AS a, 'x' AS b")[2] == b"1\tx\n"
    assert post(url, b"SELECT 1 AS a, 'x' AS b", default_format="JSONEachRow")[2] == b'{"a":1,"b":"x"}\n'
    _, headers, body = post(url, b"SELECT 1 AS a FORMAT CSVWithNames SETTINGS max_threads = 1", default_format="TSV")
    assert (headers["X-ClickHouse-Format"], body) == ("CSVWithNames", b'"a"\n1\n')


def test_a_long_result_streams_while_other_clients_are_served(url: str, client: Client) -> None:
    with urllib.request.urlopen(f"{url}/?query={quote('SELECT number FROM numbers(100000000)')}") as stream:
        assert stream.readline() == b"0\n"  # the rest, 888 MB, fits no buffer: the statement is still running
        assert urllib.request.urlopen(f"{url}/ping").read() == b"Ok.\n"
        assert client.command("SELECT 1") == 1


def test_clients_write_and_read_at_the_same_time(url: str, client: Client, table: str) -> None:
    def write(part: int) -> int:
        with connect(url) as writer:
            writer.insert(table, [[part * 1000 + i, "x"] for i in range(1000)], column_names=["id", "name"])
            sql = f"SELECT count() FROM {table} WHERE intDiv(id, 1000) = {part}"
            return int(writer.query(sql).result_rows[0][0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(write, range(16))) == [1000] * 16
    assert client.command(f"SELECT uniqExact(id) FROM {table}") == 16_000


def test_what_dbt_and_the_warehouse_rely_on_works(client: Client, table: str) -> None:
    client.command("CREATE DATABASE IF NOT EXISTS swaps ENGINE = Atomic")
    for name, value in (("old", 1), ("new", 2)):
        client.command(f"CREATE OR REPLACE TABLE swaps.{name} (x Int64) ENGINE = MergeTree ORDER BY x")
        client.command(f"INSERT INTO swaps.{name} VALUES ({value})")
    client.command("EXCHANGE TABLES swaps.old AND swaps.new")
    assert client.command("SELECT x FROM swaps.old") == 2

    client.insert(table, [[1, "a"], [2, "b"]], column_names=["id", "name"])
    client.command(f"DELETE FROM {table} WHERE id = 1")
    client.command(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS extra Nullable(String)")
    client.command(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS extra Nullable(String)")
    assert client.query(f"SELECT * FROM {table}").result_rows == [(2, "b", None)]

    client.command("CREATE OR REPLACE TABLE swaps.r (k Int8, v Int8) ENGINE = ReplacingMergeTree(v) ORDER BY k")
    client.command("INSERT INTO swaps.r VALUES (1, 1)")
    client.command("INSERT INTO swaps.r VALUES (1, 2)")
    assert client.query("SELECT * FROM swaps.r FINAL").result_rows == [(1, 2)]


# --- sessions, settings, log


def test_a_session_keeps_its_temporary_tables_and_settings_to_itself(url: str, client: Client) -> None:
    client.command("CREATE TEMPORARY TABLE mine (x Int8)")
    client.command("SET max_threads = 3", settings={"max_block_size": 1000})
    assert client.command("EXISTS TEMPORARY TABLE mine") == 1
    assert client.command("SELECT getSetting('max_threads')") == 3
    with connect(url) as other:
        assert other.command("EXISTS TEMPORARY TABLE mine") == 0
        assert other.command("SELECT getSetting('max_threads')") != 3


def test_the_settings_of_a_request_end_with_it(client: Client) -> None:
    read = "SELECT getSetting('max_threads'), getSetting('log_comment')"
    client.command("SET max_threads = 5")
    assert client.query(read, settings={"max_threads": 2, "log_comment": "it's mine"}).first_row == (2, "it's mine")
    assert client.query(read).first_row == (5, "")


def test_the_database_of_a_request_is_the_one_it_names(url: str, client: Client) -> None:
    client.command("CREATE DATABASE IF NOT EXISTS elsewhere")
    assert post(url, b"SELECT currentDatabase()", database="elsewhere")[2] == b"elsewhere\n"
    assert post(url, b"SELECT currentDatabase()")[2] == b"default\n"
    assert post(url, b"SELECT 1", database="nowhere")[0] == 404


def test_a_session_serves_one_request_at_a_time(url: str) -> None:
    query = f"query={quote('SELECT number FROM numbers(100000000)')}&session_id=busy"
    with urllib.request.urlopen(f"{url}/?{query}") as stream:
        stream.readline()
        status, headers, _ = post(url, b"SELECT 1", session_id="busy")
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (500, "373")


def test_every_statement_is_found_in_the_query_log_by_its_comment(client: Client, table: str) -> None:
    comment = {"log_comment": f"run {uuid.uuid4()}"}
    client.raw_insert(table, insert_block="1,a", fmt="CSV", settings=comment)
    client.query(f"SELECT * FROM {table}", settings=comment)
    with pytest.raises(DatabaseError):
        client.query("SELECT * FROM missing", settings=comment)
    client.command("SYSTEM FLUSH LOGS")

    logged = client.query(
        "SELECT query_kind, type, written_rows, exception_code FROM system.query_log "
        "WHERE log_comment = {log_comment:String} AND type != 'QueryStart' ORDER BY event_time_microseconds",
        comment,
    )
    assert logged.result_rows == [
        ("Insert", "QueryFinish", 1, 0),
        ("Select", "QueryFinish", 0, 0),
        ("Select", "ExceptionBeforeStart", 0, 60),
    ]


# --- errors


@pytest.mark.parametrize(
    ("sql", "status", "code", "name"),
    [
        ("SELECT * FROM missing", 404, 60, "UNKNOWN_TABLE"),
        ("SELECT missing FROM system.one", 404, 47, "UNKNOWN_IDENTIFIER"),
        ("SELEC 1", 400, 62, "SYNTAX_ERROR"),
        ("SELECT 1; SELECT 2", 400, 62, "SYNTAX_ERROR"),
        ("SELECT throwIf(1)", 500, 395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
        ("INSERT INTO missing FORMAT CSV\n1", 404, 60, "UNKNOWN_TABLE"),
        ("CREATE TABLE r (x Int8) ENGINE = ReplicatedMergeTree('/r', 'a') ORDER BY x", 500, 225, "NO_ZOOKEEPER"),
    ],
)
def test_errors_carry_the_servers_status_code_and_name(url: str, sql: str, status: int, code: int, name: str) -> None:
    answered, headers, body = post(url, sql.encode())
    assert (answered, headers["X-ClickHouse-Exception-Code"]) == (status, str(code))
    assert body.decode().startswith(f"Code: {code}. DB::Exception: ")
    assert f"({name}) (version " in body.decode()


def test_the_client_reads_code_and_name_of_an_error(client: Client) -> None:
    with pytest.raises(DatabaseError) as raised:
        client.query("SELECT * FROM missing")
    assert (raised.value.code, raised.value.name) == (60, "UNKNOWN_TABLE")


def test_an_unknown_setting_is_refused_and_the_session_goes_on(url: str) -> None:
    status, headers, _ = post(url, b"SELECT 1", session_id="typo", max_treads="1")
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (404, "115")
    assert post(url, b"SELECT 1", session_id="typo")[2] == b"1\n"


def test_an_error_in_the_middle_of_a_stream_reaches_the_client(client: Client) -> None:
    sql = "SELECT throwIf(number = 3000000), number FROM numbers(4000000)"
    with pytest.raises(StreamFailureError) as raised, client.query_rows_stream(sql) as rows:
        for _ in rows:
            pass
    assert raised.value.code == 395


def test_get_only_reads(url: str, client: Client, table: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(f"{url}/?query={quote(f'DROP TABLE {table}')}")
    assert raised.value.headers["X-ClickHouse-Exception-Code"] == "164"
    assert client.command(f"EXISTS TABLE {table}") == 1


# --- a client that goes away


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 1000\r\n\r\n1,a\n2,b\n",
        b"Transfer-Encoding: chunked\r\n\r\n8\r\n1,a\n2,b\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n8\r\n1,a\n2,b\n\r\n100\r\n3,c\n",
        b"Transfer-Encoding: chunked\r\n\r\n8\r\n1,a\n2,b\n\r\n0\r\n",
    ],
    ids=["short of its length", "no terminator", "inside a chunk", "inside the terminator"],
)
def test_an_insert_cut_short_does_not_run(url: str, client: Client, table: str, framing: bytes) -> None:
    query = quote(f"INSERT INTO {table} FORMAT CSV")
    with sent(url, f"POST /?query={query} HTTP/1.1\r\nHost: x\r\n".encode() + framing) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""  # the server has given the request up, without an answer
    assert client.command(f"SELECT count() FROM {table}") == 0


def test_a_killed_client_leaves_no_rows(url: str, client: Client, table: str) -> None:
    writer = f"""
import sys, clickhouse_connect
def rows():
    for id in range(200_000):
        yield b"%d,x\\n" % id
    print("sent", flush=True)
    sys.stdin.read()
client = clickhouse_connect.get_client(host="127.0.0.1", port={urlsplit(url).port})
client.raw_insert("{table}", insert_block=rows(), fmt="CSV")
"""
    command = [sys.executable, "-c", writer]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "sent\n"
        process.kill()
    assert client.command(f"SELECT count() FROM {table}") == 0
    assert client.insert(table, [[1, "after"]], column_names=["id", "name"]).written_rows == 1
    assert client.query(f"SELECT * FROM {table}").result_rows == [(1, "after")]


# --- faults


@pytest.mark.parametrize(
    ("code", "name", "status"),
    [
        (202, "TOO_MANY_SIMULTANEOUS_QUERIES", 500),
        (209, "SOCKET_TIMEOUT", 503),
        (241, "MEMORY_LIMIT_EXCEEDED", 500),
        (252, "TOO_MANY_PARTS", 500),
    ],
)
def test_a_fault_fails_the_statements_it_matches_as_often_as_asked(
    url: str, client: Client, table: str, code: int, name: str, status: int
) -> None:
    arm(url, code=code, times=2, match=f"INSERT INTO {table}")
    insert = f"INSERT INTO {table} FORMAT CSV\n1,a\n".encode()

    assert client.command(f"SELECT count() FROM {table}") == 0  # does not match
    for _ in range(2):
        answered, headers, body = post(url, insert)
        assert (answered, headers["X-ClickHouse-Exception-Code"]) == (status, str(code))
        assert f"({name})" in body.decode()
    assert post(url, insert)[0] == 200
    assert client.command(f"SELECT count() FROM {table}") == 1


def test_a_fault_may_carry_another_status(url: str, client: Client) -> None:
    arm(url, code=202, status=503, match="fault 503")
    assert client.query("SELECT 'fault 503'").first_row == ("fault 503",)  # clickhouse-connect retries reads on a 503
    assert json.loads(urllib.request.urlopen(f"{url}/sandbox/faults").read()) == []


@pytest.mark.parametrize(("drop", "rows"), [("before", 0), ("after", 1)])
def test_a_connection_drops_before_or_after_the_statement_ran(
    url: str, client: Client, table: str, drop: str, rows: int
) -> None:
    arm(url, drop=drop, match=f"INSERT INTO {table}")
    with pytest.raises(ConnectionError):
        post(url, f"INSERT INTO {table} FORMAT CSV\n1,a\n".encode())
    assert client.command(f"SELECT count() FROM {table}") == rows


def test_faults_are_disarmed_and_nonsense_is_refused(url: str, client: Client) -> None:
    arm(url, code=252, match="never mind")
    urllib.request.urlopen(urllib.request.Request(f"{url}/sandbox/faults", method="DELETE")).close()
    assert client.command("SELECT 'never mind'") == "never mind"
    for nonsense in ({}, {"code": 252, "tmes": 2}, {"drop": "sometimes"}, {"code": 252, "match": "("}):
        with pytest.raises(urllib.error.HTTPError, match="400"):
            arm(url, **nonsense)


# --- the process


def test_data_outlives_a_restart(tmp_path: Path) -> None:
    with serve_clickhouse(tmp_path) as url, connect(url) as client:
        client.command("CREATE DATABASE kept")
        client.command("CREATE TABLE kept.t (x Int64) ENGINE = MergeTree ORDER BY x")
        client.insert("kept.t", [[1], [2]], column_names=["x"])
    with serve_clickhouse(tmp_path) as url, connect(url) as client:
        assert client.query("SELECT x FROM kept.t ORDER BY x").result_rows == [(1,), (2,)]


def test_a_password_is_asked_of_every_client(tmp_path: Path) -> None:
    with serve_clickhouse(tmp_path, password="s3cret") as url:
        with connect(url, username="loader", password="s3cret") as client:
            assert client.command("SELECT 1") == 1
        assert post(url, b"SELECT 1", {"X-ClickHouse-User": "loader", "X-ClickHouse-Key": "s3cret"})[0] == 200
        status, headers, body = post(url, b"SELECT 1", {"X-ClickHouse-User": "loader", "X-ClickHouse-Key": "guess"})
        assert (status, headers["X-ClickHouse-Exception-Code"]) == (403, "516")
        assert b"(AUTHENTICATION_FAILED)" in body
        assert post(url, b"SELECT 1")[0] == 403
        with pytest.raises(DatabaseError, match="AUTHENTICATION_FAILED"):
            connect(url, password="guess")


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with (
        serve_clickhouse(tmp_path),
        pytest.raises(ServerFailed, match="Another server instance in same directory is already running"),
        serve_clickhouse(tmp_path),
    ):
        pass


def test_stopping_does_not_wait_for_a_running_statement(tmp_path: Path) -> None:
    def run() -> None:
        with pytest.raises(OperationalError):
            other.query("SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))")

    with serve_clickhouse(tmp_path) as url, connect(url) as client, connect(url) as other:
        running = threading.Thread(target=run)
        running.start()
        while not client.command(
            "SELECT count() FROM system.processes WHERE query LIKE 'SELECT count() FROM numbers%'"
        ):
            pass
    running.join(timeout=30)
    assert not running.is_alive()


def test_the_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    starter = f"""
import pathlib, sys
from optiinfra_pipelines.sandbox.clickhouse_server import serve_clickhouse
with serve_clickhouse(pathlib.Path({str(tmp_path)!r})) as url:
    print(url, flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", starter]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        with sent(process.stdout.readline().strip(), b"") as connection:
            process.kill()
            with suppress(ConnectionResetError):  # or, where the server had read all it was sent, an ordinary end
                assert connection.recv(1) == b""
