"""The production engine: ClickHouse over HTTP. Rows are appended under a load's id, and one ledger row makes them seen.

A statement that failed for a passing reason is sent again; inserts carry a token, so sending twice writes once.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import duckdb
import pyarrow as pa
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from optiinfra_pipelines.settings import ClickHouseAddress
from optiinfra_pipelines.tables.contract import Column, Kind, Table, Type
from optiinfra_pipelines.tables.operations import LOADS
from optiinfra_pipelines.warehouse import schema
from optiinfra_pipelines.warehouse.ledger import (
    SUPERSEDED,
    VISIBLE_LOADS,
    discarded_event,
    ledger_event,
    new_load_id,
)
from optiinfra_pipelines.warehouse.protocol import (
    Engine,
    Load,
    LoadConflict,
    LoadSummary,
    Params,
    WarehouseBusy,
    WarehouseError,
)
from optiinfra_pipelines.warehouse.results import in_utc
from optiinfra_pipelines.warehouse.schema import Found

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

Result = TypeVar("Result")

DATABASE_PREFIX = "optiinfra_"
# Sent as one insert: enough for ClickHouse to write few parts, little enough for it to hold in memory.
_FILE_BYTES = 32 << 20
# Rows that DuckDB gathers, per thread, before it writes them: a quarter of its default. With the default wide rows
# outgrew its memory limit, and spilling them took as long again as all the rest.
_ROW_GROUP = 30_720
_SENDERS = 2  # one insert keeps about one core of the server busy
_LOOK_SECONDS = 0.05  # between looks for files that are ready to be sent

# Codes after which the same statement may succeed. Others are final: sending them again changes nothing.
TRANSIENT = {
    159: "TIMEOUT_EXCEEDED: the server was slower than its limit",
    202: "TOO_MANY_SIMULTANEOUS_QUERIES: wait for others to end",
    203: "NO_FREE_CONNECTION: wait for others to end",
    209: "SOCKET_TIMEOUT between servers",
    210: "NETWORK_ERROR between servers",
    242: "TABLE_IS_READ_ONLY while Keeper is away",
    252: "TOO_MANY_PARTS: merges are behind",
    319: "UNKNOWN_STATUS_OF_INSERT: the token makes sending again safe",
    425: "SYSTEM_ERROR of the host",
    999: "KEEPER_EXCEPTION",
    1000: "POCO_EXCEPTION: a connection broke inside the server",
}
_ATTEMPTS = 6


class ClickHouseWarehouse:
    """`keep_loads` is how many superseded loads of a slice stay as history."""

    engine: Engine = "clickhouse"

    def __init__(self, address: ClickHouseAddress, *, run_id: str = "", keep_loads: int = 5) -> None:
        self.run_id = run_id
        self.keep_loads = keep_loads
        self._address = address

    def name(self, table: Table) -> str:
        return f"{DATABASE_PREFIX}{table.schema}.{table.name}"

    def database(self, schema: str) -> str:
        return f"{DATABASE_PREFIX}{schema}"

    def current(self, table: Table) -> str:
        if table.kind is Kind.KEYED:
            return f"(SELECT * FROM {self.name(table)} FINAL)"
        if table.kind is Kind.APPENDED:
            return f"(SELECT * FROM {self.name(table)})"
        visible = VISIBLE_LOADS.format(loads=self.name(LOADS))
        return f"(SELECT * FROM {self.name(table)} WHERE {schema.load_column(table)} IN ({visible}))"

    @contextmanager
    def session(self) -> Iterator["ClickHouseWarehouse"]:
        yield self  # its client keeps its connections anyway

    def create_tables(self, tables: Iterable[Table]) -> None:
        tables = list(tables)
        additions = schema.plan(tables, {each.full_name: self._columns(each) for each in tables}, column_type)
        for name in sorted({each.schema for each in tables}):
            self._command(f"CREATE DATABASE IF NOT EXISTS {DATABASE_PREFIX}{name}{self._on_cluster}")
        for table in tables:
            for statement in create_statements(table, self._address.cluster):
                self._command(statement)
            for column in additions.get(table.full_name, ()):
                for name in stored_names(table, self._address.cluster):
                    self._command(
                        f"ALTER TABLE {name}{self._on_cluster} ADD COLUMN IF NOT EXISTS"
                        f" `{column.name}` {column_type(column)}"
                    )

    def upsert(self, table: Table, rows: pa.Table) -> int:
        schema.require_kind(table, Kind.KEYED)
        self._insert_table(table, rows)
        return rows.num_rows

    def append(self, table: Table, rows: pa.Table) -> int:
        schema.require_kind(table, Kind.APPENDED)
        self._insert_table(table, rows)
        return rows.num_rows

    @contextmanager
    def replace_slice(self, table: Table, slice: str) -> Iterator[Load]:
        schema.require_kind(table, Kind.SLICED)
        self._clear_leftovers(table, slice)
        load = _ClickHouseLoad(self, table)
        self.append(LOADS, ledger_event(load, table, slice, "started", 0, self.run_id))
        yield load
        load.verify()
        self.append(LOADS, ledger_event(load, table, slice, "committed", load.rows, self.run_id))
        if self._count(LOADS, load.load_id, "AND state = 'discarded'"):
            raise load.conflict("another run loaded the same slice")
        self._forget_superseded(table, slice)

    def query(self, sql: str, params: Params | None = None) -> pa.Table:
        bound = dict(params or {})
        statement = _with_types(sql, bound)
        return in_utc(
            self._patiently(lambda: self._client.query_arrow(statement, parameters=bound, settings=_READ_SETTINGS))
        )

    def _clear_leftovers(self, table: Table, slice: str) -> None:
        """Remove what loads of this slice left that began and never committed: their writer was killed.

        They are called discarded before their rows go, and again after: a writer that lives and commits meanwhile
        is not seen, and one that is killed between the two leaves the rest to the next load.
        """
        found = self.query(
            f"SELECT load_id FROM {self.name(LOADS)} WHERE table_name = $table_name AND slice = $slice"
            " GROUP BY load_id HAVING countIf(state = 'committed') = 0 AND countIf(state = 'discarded') < 2",
            {"table_name": table.full_name, "slice": slice},
        )
        leftovers = found["load_id"].to_pylist()
        for load_id in leftovers:
            self._note_discarded(table, slice, load_id)
        self._discard(table, slice, leftovers)

    def _forget_superseded(self, table: Table, slice: str) -> None:
        sql = SUPERSEDED.format(loads=self.name(LOADS), keep=self.keep_loads + 1)
        found = self.query(sql, {"table_name": table.full_name, "slice": slice})
        self._discard(table, slice, found["load_id"].to_pylist())

    def _discard(self, table: Table, slice: str, load_ids: list[str]) -> None:
        for load_id in load_ids:
            for each in schema.tables_of_a_load(table):
                for name in stored_names(each, self._address.cluster)[:1]:
                    column = schema.load_column(each)
                    # Nobody sees these rows any more, so nobody has to wait until they are gone.
                    self._command(
                        f"DELETE FROM {name}{self._on_cluster} WHERE {column} = '{load_id}'"
                        " SETTINGS lightweight_deletes_sync = 0"
                    )
            self._note_discarded(table, slice, load_id)

    def _note_discarded(self, table: Table, slice: str, load_id: str) -> None:
        self.append(LOADS, discarded_event(load_id, table, slice, self.run_id))

    def _count(self, table: Table, load_id: str, condition: str = "") -> int:
        column = schema.load_column(table)
        found = self.query(
            f"SELECT count() AS n FROM {self.name(table)} WHERE {column} = $id {condition}", {"id": load_id}
        )
        return int(found["n"][0].as_py())

    def insert_file(self, table: Table, file: Path, token: str) -> None:
        """Insert a Parquet file's rows into a SLICED table; the same `token` again writes nothing again."""
        import pyarrow.parquet as pq

        columns = pq.read_schema(file).names
        schema.require_columns(table, columns)

        def send() -> object:
            with file.open("rb") as body:
                return self._raw_insert(table, columns, body, "Parquet", token)

        self._patiently(send)

    def _insert_table(self, table: Table, rows: pa.Table) -> None:
        schema.require_columns(table, rows.schema.names)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
        body, token = sink.getvalue().to_pybytes(), new_load_id(datetime.now(UTC))
        self._patiently(lambda: self._raw_insert(table, rows.schema.names, body, "ArrowStream", token))

    def _raw_insert(self, table: Table, columns: list[str], body: bytes | BinaryIO, format: str, token: str) -> object:
        return self._client.raw_insert(
            self.name(table),
            column_names=[f"`{name}`" for name in columns],
            insert_block=body,
            fmt=format,
            settings={**_WRITE_SETTINGS, "insert_deduplication_token": token},
        )

    def _columns(self, table: Table) -> dict[str, Found]:
        rows = self.query(
            "SELECT name, type, default_kind FROM system.columns WHERE database = $database AND table = $name",
            {"database": DATABASE_PREFIX + table.schema, "name": table.name},
        ).to_pylist()
        # A column that an insert leaves out gets its type's default here: none is required.
        return {row["name"]: Found(row["type"], optional=True) for row in rows}

    def _command(self, statement: str) -> None:
        self._patiently(lambda: self._client.command(statement))

    def _patiently(self, act: Callable[[], Result]) -> Result:
        attempts = Retrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.1, max=10),
            reraise=True,
        )
        from clickhouse_connect.driver.exceptions import ClickHouseError

        try:
            return attempts(act)
        except ClickHouseError as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> WarehouseError:
        at = f"ClickHouse at {self._address.host}:{self._address.port}"
        code = error_code(error)
        text = str(error).splitlines()[0][:500]
        if code in TRANSIENT or code is None:
            return WarehouseBusy(f"{at} did not answer after {_ATTEMPTS} attempts; try again later: {text}")
        if code in (192, 193, 194, 516):
            return WarehouseError(
                f"{at} refused the user or password; check OPTIINFRA_WAREHOUSE and its password: {text}"
            )
        if code == 243:
            return WarehouseError(f"{at} has no room left: free disk space and run again; nothing of this load is seen")
        return WarehouseError(f"{at}: {text}")

    @property
    def _on_cluster(self) -> str:
        return f" ON CLUSTER {self._address.cluster}" if self._address.cluster else ""

    @cached_property
    def _client(self) -> "Client":
        import clickhouse_connect

        address = self._address
        settings = {"log_comment": json.dumps({"app": "optiinfra_pipelines", "run_id": self.run_id})}
        if address.cluster:
            settings["distributed_product_mode"] = "global"  # IN (SELECT ...) looks at every shard's loads
        return clickhouse_connect.get_client(
            host=address.host,
            port=address.port,
            username=address.user,
            password=address.password.get_secret_value(),
            secure=address.secure,
            autogenerate_session_id=False,
            client_name="optiinfra_pipelines",
            query_retries=0,
            settings=settings,
        )


_READ_SETTINGS = {"output_format_arrow_string_as_string": 1, "output_format_arrow_low_cardinality_as_dictionary": 0}
_WRITE_SETTINGS = {
    "insert_deduplicate": 1,
    # A token stands for equal blocks only if the same file is cut into the same blocks each time it is sent.
    "input_format_parquet_preserve_order": 1,
    "max_insert_threads": 1,
    "input_format_null_as_default": 0,  # a null that the contract forbids is an error, not an empty string
    "async_insert": 0,  # when the insert returns, the rows are there to be counted,
    "distributed_foreground_insert": 1,  # on every shard
}


class _ClickHouseLoad:
    def __init__(self, warehouse: ClickHouseWarehouse, table: Table) -> None:
        self.started_at = datetime.now(UTC)
        self.load_id = new_load_id(self.started_at)
        self.summary = LoadSummary()
        self._warehouse = warehouse
        self._table = table
        self._written: dict[str, tuple[Table, int]] = {}
        self._blocks = 0

    @property
    def rows(self) -> int:
        return self._written.get(self._table.full_name, (self._table, 0))[1]

    def insert(
        self, rows: pa.Table | pa.RecordBatchReader | None, *, into: Table | None = None, select: str | None = None
    ) -> int:
        table = into or self._table
        shaped = schema.with_lineage(table, select, self.load_id, self.started_at)
        with TemporaryDirectory(prefix="optiinfra-load-") as scratch:
            try:
                written = self._shape_and_send(table, shaped, rows, Path(scratch) / "rows")
            except duckdb.Error as error:
                raise WarehouseError(
                    f"rows for {table.full_name} could not be prepared in {scratch}: {error}"
                ) from error
        before = self._written.get(table.full_name, (table, 0))[1]
        self._written[table.full_name] = (table, before + written)
        return written

    def _shape_and_send(
        self, table: Table, select: str, rows: pa.Table | pa.RecordBatchReader | None, folder: Path
    ) -> int:
        """Send the files of `select`'s rows while DuckDB still writes the next ones; how many rows there were."""
        with _shaper() as con, ThreadPoolExecutor(1 + _SENDERS) as threads:
            shaping = threads.submit(_shape_into_files, con, select, rows, folder)
            sent: list[Future[None]] = []
            try:
                for file in _whole_files(folder, shaping):
                    self._blocks += 1
                    sent.append(threads.submit(self._send, table, file, f"{self.load_id}/{self._blocks}"))
                    for each in sent:
                        if each.done():
                            each.result()
                for each in sent:
                    each.result()
            finally:  # where one failed, the others need not go on
                con.interrupt()
                threads.shutdown(cancel_futures=True)
            return shaping.result()

    def _send(self, table: Table, file: Path, token: str) -> None:
        self._warehouse.insert_file(table, file, token)
        file.unlink()

    def verify(self) -> None:
        """LoadConflict where the server does not hold what was sent: another load of the slice cleared it."""
        for table, sent in self._written.values():
            held = self._warehouse._count(table, self.load_id)
            if held != sent:
                raise self.conflict(f"{sent} rows were sent to {table.full_name} and the server holds {held}")

    def conflict(self, said: str) -> LoadConflict:
        return LoadConflict(
            f"load {self.load_id} of {self._table.full_name}: {said}; another run loaded the same slice, or the server "
            "lost a part. Nothing of it is seen; run again"
        )


@contextmanager
def _shaper() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:", config={"preserve_insertion_order": "false", "memory_limit": "1GB"}) as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute(schema.LOAD_SETTINGS)
        yield con


def _shape_into_files(
    con: duckdb.DuckDBPyConnection, select: str, rows: pa.Table | pa.RecordBatchReader | None, folder: Path
) -> int:
    """Run `select` in DuckDB and leave its rows in `folder` as Parquet files; how many there were.

    Parquet, because its dictionaries are what LowCardinality columns are made of: a tenth of the bytes of Arrow,
    and ClickHouse reads it in half the time.
    """
    if rows is not None:
        con.register("source", rows)
    copied = con.execute(
        f"COPY ({select}) TO {schema.quoted(str(folder))} (FORMAT parquet, COMPRESSION lz4_raw,"
        f" WRITE_BLOOM_FILTER false, ROW_GROUP_SIZE {_ROW_GROUP}, FILE_SIZE_BYTES {_FILE_BYTES})"
    ).fetchone()
    return int(copied[0]) if copied else 0


def _whole_files(folder: Path, shaping: Future[int]) -> Iterator[Path]:
    """The files in `folder`, each once it is complete, until `shaping` ends; what it failed of is raised."""
    given: set[Path] = set()
    over = False
    while not over:
        over = bool(wait([shaping], _LOOK_SECONDS).done)
        if over:
            shaping.result()
        for file in sorted(set(folder.glob("*.parquet")) - given):
            if over or _is_whole(file):
                given.add(file)
                yield file


def _is_whole(file: Path) -> bool:
    """Whether the Parquet file has its footer, which is written last."""
    import pyarrow.parquet as pq

    try:
        pq.read_metadata(file)
    except pa.ArrowInvalid:
        return False
    return True


def error_code(error: BaseException) -> int | None:
    """The server's error code; None where it never answered."""
    found = re.search(r"Code: (\d+)\.|error code (\d+)", str(error))
    return int(found[1] or found[2]) if found else None


def _may_pass(error: BaseException) -> bool:
    from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError

    if not isinstance(error, ClickHouseError):
        return False
    code = error_code(error)
    if code is not None:
        return code in TRANSIENT
    return isinstance(error, OperationalError) or "HTTP status 502" in str(error)  # a proxy without its server


# A parameter, or a literal, a quoted name or a comment, in which a dollar is only a dollar.
_PARAMETER = re.compile(
    r"""'(?:\\.|''|[^'\\])*'|"(?:\\.|""|[^"\\])*"|`(?:\\.|``|[^`\\])*`|--[^\n]*|/\*.*?\*/|\$(?P<name>[A-Za-z_]\w*)""",
    re.DOTALL,
)


def _with_types(sql: str, params: Params) -> str:
    """`sql` with each `$name` as ClickHouse spells it; WarehouseError where names and `params` differ."""
    used = {match["name"] for match in _PARAMETER.finditer(sql) if match["name"]}
    if used != set(params):
        raise WarehouseError(f"the statement uses the parameters {sorted(used)} and was given {sorted(params)}: {sql}")

    def typed(match: re.Match[str]) -> str:
        name = match["name"]
        return f"{{{name}:{_parameter_type(params[name])}}}" if name else match[0]

    return _PARAMETER.sub(typed, sql)


def _parameter_type(value: object) -> str:
    if isinstance(value, bool):
        return "Bool"
    for kind, name in ((int, "Int64"), (float, "Float64"), (datetime, "DateTime64(6, 'UTC')"), (str, "String")):
        if isinstance(value, kind):
            return name
    return "Nullable(String)"


def column_type(column: Column) -> str:
    """The ClickHouse type of `column`, as system.columns prints it."""
    name = column.type.clickhouse
    if column.nullable:
        name = f"Nullable({name})"
    return f"LowCardinality({name})" if column.low_cardinality and column.type is Type.STRING else name


def stored_names(table: Table, cluster: str | None) -> list[str]:
    """The table's name, and on a cluster first the name of the replicated table behind the distributed one."""
    name = f"{DATABASE_PREFIX}{table.schema}.{table.name}"
    return [f"{name}_local", name] if cluster else [name]


def create_statements(table: Table, cluster: str | None = None) -> list[str]:
    """CREATE TABLE IF NOT EXISTS for `table`; on a cluster a replicated table and the distributed one over it.

    Rows go to shards by what they are ordered by: versions of one key meet, and a block sent again goes where it went.
    """
    columns = ",\n".join(
        f"    `{each.name}` {column_type(each)} COMMENT {schema.quoted(each.description)}" for each in table.columns
    )
    order = ", ".join(f"`{name}`" for name in table.key or table.order_by)
    place = ["'/clickhouse/tables/{shard}/{database}/{table}'", "'{replica}'"] if cluster else []
    newest = ["`collected_at`"] if table.kind is Kind.KEYED else []
    family = f"{'Replicated' if cluster else ''}{'Replacing' if newest else ''}MergeTree"
    engine = f"{family}({', '.join(place + newest)})"
    names = stored_names(table, cluster)
    on = f" ON CLUSTER {cluster}" if cluster else ""
    # The window lets a plain MergeTree recognise a block that is sent again; replicated tables do by themselves.
    window = "" if cluster else ", non_replicated_deduplication_window = 1000"
    statements = [
        f"CREATE TABLE IF NOT EXISTS {names[0]}{on} (\n{columns}\n) ENGINE = {engine} ORDER BY ({order})"
        f" SETTINGS index_granularity = 8192{window} COMMENT {schema.quoted(table.description)}"
    ]
    if cluster:
        database, local = names[0].split(".")
        statements.append(
            f"CREATE TABLE IF NOT EXISTS {names[1]}{on} AS {names[0]}"
            f" ENGINE = Distributed('{cluster}', '{database}', '{local}', cityHash64({order}))"
        )
    return statements
