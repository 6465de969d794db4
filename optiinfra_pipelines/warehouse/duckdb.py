"""The embedded engine: one DuckDB file, opened per call, written in one transaction per load."""

import re
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock, RLock
from types import TracebackType

import duckdb
import pyarrow as pa
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from optiinfra_pipelines.tables.contract import Column, Kind, Table
from optiinfra_pipelines.tables.operations import LOADS
from optiinfra_pipelines.warehouse import schema
from optiinfra_pipelines.warehouse.ledger import (
    SUPERSEDED,
    VISIBLE_LOADS,
    discarded_event,
    ledger_event,
    new_load_id,
)
from optiinfra_pipelines.warehouse.protocol import Engine, Load, LoadSummary, Params, WarehouseBusy, WarehouseError
from optiinfra_pipelines.warehouse.results import in_utc
from optiinfra_pipelines.warehouse.schema import Found

_LOCKS: "dict[Path, RLock]" = {}
_LOCKS_LOCK = Lock()


class DuckDBWarehouse:
    """`memory_limit` bounds what DuckDB keeps in memory; `lock_timeout` is how long, in seconds, to wait for
    another process to let go of the file; `keep_loads` is how many superseded loads of a slice stay as history."""

    engine: Engine = "duckdb"

    def __init__(
        self,
        path: Path,
        *,
        run_id: str = "",
        memory_limit: str = "1GB",
        lock_timeout: float = 120,
        keep_loads: int = 5,
    ) -> None:
        self.path = path
        self.run_id = run_id
        self.keep_loads = keep_loads
        self._lock_timeout = lock_timeout
        self._held: duckdb.DuckDBPyConnection | None = None
        self._config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory_limit,
            "preserve_insertion_order": "false",
        }

    def name(self, table: Table) -> str:
        return table.full_name

    def database(self, schema: str) -> str:
        return schema

    def current(self, table: Table) -> str:
        if table.kind is not Kind.SLICED:
            return f"(SELECT * FROM {table.full_name})"
        visible = VISIBLE_LOADS.format(loads=LOADS.full_name)
        return f"(SELECT * FROM {table.full_name} WHERE {schema.load_column(table)} IN ({visible}))"

    @contextmanager
    def session(self) -> Iterator["DuckDBWarehouse"]:
        with self._connection(read_only=False) as con:
            held = copy(self)
            held._held = con
            yield held

    def create_tables(self, tables: Iterable[Table]) -> None:
        tables = list(tables)
        with self._transaction() as con:
            found = {table.full_name: self._columns(con, table) for table in tables}
            additions = schema.plan(tables, found, lambda column: column.type.duckdb)
            for name in sorted({table.schema for table in tables}):
                con.execute(f"CREATE SCHEMA IF NOT EXISTS {name}")
            for table in tables:
                con.execute(create_statement(table))
                con.execute(f"COMMENT ON TABLE {table.full_name} IS {schema.quoted(table.description)}")
                for column in additions.get(table.full_name, ()):
                    con.execute(f'ALTER TABLE {table.full_name} ADD COLUMN "{column.name}" {column.type.duckdb}')

    def upsert(self, table: Table, rows: pa.Table) -> int:
        schema.require_kind(table, Kind.KEYED)
        schema.require_columns(table, rows.schema.names)
        keys = ", ".join(f'"{name}"' for name in table.key)
        with self._transaction() as con:
            con.register("source", rows.append_column("=position", pa.array(range(rows.num_rows), pa.int64())))
            con.execute(
                'CREATE OR REPLACE TEMP TABLE incoming AS SELECT * EXCLUDE ("=position", newest) FROM (SELECT *,'
                f' row_number() OVER (PARTITION BY {keys} ORDER BY collected_at DESC, "=position" DESC) AS newest'
                " FROM source) WHERE newest = 1"
            )
            same = " AND ".join(f'held."{name}" = incoming."{name}"' for name in table.key)
            near = _near(con, table)
            con.execute(
                f"DELETE FROM {table.full_name} held USING incoming"
                f" WHERE {near} AND {same} AND held.collected_at <= incoming.collected_at"
            )
            con.execute(
                f"INSERT INTO {table.full_name} BY NAME SELECT * FROM incoming"
                f" ANTI JOIN (SELECT {keys} FROM {table.full_name} held WHERE {near}) h USING ({keys})"
            )
            con.unregister("source")
        return rows.num_rows

    def append(self, table: Table, rows: pa.Table) -> int:
        schema.require_kind(table, Kind.APPENDED)
        schema.require_columns(table, rows.schema.names)
        with self._transaction() as con:
            _insert(con, table, rows, "SELECT * FROM source")
        return rows.num_rows

    @contextmanager
    def replace_slice(self, table: Table, slice: str) -> Iterator[Load]:
        schema.require_kind(table, Kind.SLICED)
        with self._transaction() as con:
            con.execute(schema.LOAD_SETTINGS)
            load = _DuckDBLoad(con, table, self.path)
            yield load
            event = ledger_event(load, table, slice, "committed", load.rows, self.run_id)
            _insert(con, LOADS, event, "SELECT * FROM source")
            self._forget_superseded(con, table, slice)

    def query(self, sql: str, params: Params | None = None) -> pa.Table:
        with self._connection(read_only=True) as con:
            return in_utc(con.sql(sql, params=dict(params or {})).to_arrow_table())

    def _forget_superseded(self, con: duckdb.DuckDBPyConnection, table: Table, slice: str) -> None:
        sql = SUPERSEDED.format(loads=LOADS.full_name, keep=self.keep_loads + 1)
        old = con.execute(sql, {"table_name": table.full_name, "slice": slice}).fetchall()
        for (load_id,) in old:
            for each in schema.tables_of_a_load(table):
                con.execute(f"DELETE FROM {each.full_name} WHERE {schema.load_column(each)} = $id", {"id": load_id})
            _insert(con, LOADS, discarded_event(load_id, table, slice, self.run_id), "SELECT * FROM source")

    def _columns(self, con: duckdb.DuckDBPyConnection, table: Table) -> dict[str, Found]:
        rows = con.execute(
            "SELECT column_name, data_type, is_nullable, column_default FROM information_schema.columns"
            " WHERE table_schema = $schema AND table_name = $name AND table_catalog = current_database()",
            {"schema": table.schema, "name": table.name},
        ).fetchall()
        return {name: Found(type, nullable == "YES" or default is not None) for name, type, nullable, default in rows}

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._connection(read_only=False) as con, _Transaction(con):
            yield con

    @contextmanager
    def _connection(self, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        if self._held is not None:
            with self._explained():
                yield self._held
            return
        with self._alone(), closing(self._open(read_only=read_only and self.path.exists())) as con, self._explained():
            yield con

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            raise WarehouseError(_advice(self.path, error)) from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One thread at a time, as one process at a time: a file that one thread closes while another opens it is
        found half there."""
        with _LOCKS_LOCK:
            lock = _LOCKS.setdefault(self.path, RLock())
        if not lock.acquire(timeout=self._lock_timeout):
            raise WarehouseBusy(f"{self.path} is in use by another thread of this process; run again")
        try:
            yield
        finally:
            lock.release()

    def _open(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        patiently = Retrying(
            retry=retry_if_exception_type((_Locked, *_OPENED_HERE)),
            stop=stop_after_delay(self._lock_timeout),
            wait=wait_random_exponential(multiplier=0.05, max=2),
            reraise=True,
        )
        try:
            return patiently(self._try_open, read_only=read_only)
        except _Locked as error:
            raise WarehouseBusy(f"{self.path} is in use by {error.holder}; close it and run again") from error
        except _OPENED_HERE as error:
            raise WarehouseBusy(f"{self.path} is in use by another part of this process: {error}") from error

    def _try_open(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        try:
            con = duckdb.connect(str(self.path), read_only=read_only, config=self._config)
        except duckdb.IOException as error:
            if "Could not set lock" not in str(error):
                raise WarehouseError(_advice(self.path, error)) from error
            raise _Locked(str(error)) from error
        con.execute("SET TimeZone = 'UTC'")
        return con


# Another thread has the file open in another way, or is just closing it.
_OPENED_HERE = (duckdb.ConnectionException, duckdb.ResourceInUseException)


class _Locked(Exception):
    @property
    def holder(self) -> str:
        held = re.search(r"held in (.+?) \(PID (\d+)\)(?: by user (\S+?))?[.,;]?(?: |$)", str(self))
        return f"{held[1]} (process {held[2]})" if held else "another process"


class _Transaction:
    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con

    def __enter__(self) -> None:
        self._con.begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._con.commit()
        elif not isinstance(error, duckdb.FatalException):
            self._con.rollback()


class _DuckDBLoad:
    def __init__(self, con: duckdb.DuckDBPyConnection, table: Table, path: Path) -> None:
        self.started_at = datetime.now(UTC)
        self.load_id = new_load_id(self.started_at)
        self.summary = LoadSummary()
        self.rows = 0
        self._con = con
        self._table = table
        self._path = path

    def insert(
        self, rows: pa.Table | pa.RecordBatchReader | None, *, into: Table | None = None, select: str | None = None
    ) -> int:
        table = into or self._table
        shaped = schema.with_lineage(table, select, self.load_id, self.started_at)
        try:
            written = _insert(self._con, table, rows, shaped)
        except duckdb.Error as error:
            raise WarehouseError(_advice(self._path, error)) from error
        if table is self._table:
            self.rows += written
        return written


def _near(con: duckdb.DuckDBPyConnection, table: Table) -> str:
    """Where rows of the incoming keys can lie, in literals: those let DuckDB pass over row groups, a join does not."""
    if not table.near:
        return "true"
    low, high = con.execute(
        f'SELECT min("{table.near}") - INTERVAL 1 HOUR, max("{table.near}") + INTERVAL 1 HOUR FROM incoming'
    ).fetchall()[0]
    return f"held.\"{table.near}\" BETWEEN TIMESTAMP '{low}' AND TIMESTAMP '{high}'" if low else "true"


def _insert(
    con: duckdb.DuckDBPyConnection, table: Table, rows: pa.Table | pa.RecordBatchReader | None, select: str
) -> int:
    if rows is not None:
        con.register("source", rows)
    try:
        written = con.execute(f"INSERT INTO {table.full_name} BY NAME {select}").fetchone()
    finally:
        if rows is not None:
            con.unregister("source")
    return int(written[0]) if written else 0


def create_statement(table: Table) -> str:
    """CREATE TABLE IF NOT EXISTS for `table`; keyed tables get no index: upserts delete and insert."""

    def line(column: Column) -> str:
        return f'    "{column.name}" {column.type.duckdb}{"" if column.nullable else " NOT NULL"}'

    return f"CREATE TABLE IF NOT EXISTS {table.full_name} (\n" + ",\n".join(map(line, table.columns)) + "\n)"


def _advice(path: Path, error: duckdb.Error) -> str:
    text = str(error).splitlines()[0]
    if re.search(r"No space left|Disk full|File too large|could not allocate|out of disk", text, re.I):
        return f"no room left for {path}: free disk space and run again; nothing of this load was kept ({text})"
    return f"{path}: {text}"
