"""What every warehouse engine promises: the Warehouse protocol, a Load in progress, and the errors they raise."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

import pyarrow as pa

from optiinfra_pipelines.tables.contract import Table

Engine = Literal["duckdb", "clickhouse"]
Params = Mapping[str, str | int | float | bool | datetime | None]


class WarehouseError(Exception):
    """A warehouse could not do what was asked; the message says what, to which table, and what to do next."""


class SchemaConflict(WarehouseError):
    """A contract changed in a way that no added column can express. Nothing was altered."""


class WarehouseBusy(WarehouseError):
    """Another process holds the embedded warehouse, or the server refused for lack of room; try again later."""


class LoadConflict(WarehouseError):
    """Another load of the same slice began meanwhile and took a load's place: nothing of the load is seen."""


@dataclass
class LoadSummary:
    """What a load will say of itself in raw.loads when it commits; the loader fills it while it reads."""

    rows_read: int = 0
    rows_rejected: int = 0
    fingerprint: str = ""
    details: dict[str, Any] = field(default_factory=dict)


class Load(Protocol):
    """One load in progress. Readers see nothing of it until its `with` block ends without an exception."""

    load_id: str
    started_at: datetime
    summary: LoadSummary

    def insert(
        self, rows: pa.Table | pa.RecordBatchReader | None, *, into: Table | None = None, select: str | None = None
    ) -> int:
        """Write rows into the load's table (or `into`, another SLICED table) and return how many.

        `select` is DuckDB SQL that shapes `rows`, the relation `source`, into the contract's columns without the
        load's id and time; it may read local files instead, then `rows` is None. Both engines run it in DuckDB, so
        casts mean the same on both. Without `select`, `rows` has those columns already.
        """
        ...


class Warehouse(Protocol):
    """Tables under contract on one engine. Outside of a session nothing is held between calls."""

    engine: Engine
    run_id: str  # of the Dagster run that the statements and loads are traced to

    def session(self) -> "AbstractContextManager[Warehouse]":
        """The same warehouse with one connection for all calls in the block: many small calls cost one opening. The
        embedded engine lets nobody else in meanwhile, so no block waits for anything else."""
        ...

    def create_tables(self, tables: Iterable[Table]) -> None:
        """Create what is missing and add missing columns; SchemaConflict, and no change, where that is not enough."""
        ...

    def upsert(self, table: Table, rows: pa.Table) -> int:
        """Write facts of a KEYED table; the newest row of a key wins, the same rows again change nothing."""
        ...

    def append(self, table: Table, rows: pa.Table) -> int:
        """Write rows of an APPENDED table."""
        ...

    def replace_slice(self, table: Table, slice: str) -> AbstractContextManager[Load]:
        """Swap one restatable set whole: on leaving the block the load becomes the one that readers see."""
        ...

    def query(self, sql: str, params: Params | None = None) -> pa.Table:
        """Run one statement with named parameters, written `$name` on both engines; Arrow table, times in UTC."""
        ...

    def name(self, table: Table) -> str:
        """The table's name in this engine's SQL."""
        ...

    def database(self, schema: str) -> str:
        """How this engine calls `schema`, such as staging or marts."""
        ...

    def current(self, table: Table) -> str:
        """A parenthesised SELECT of the table's current rows, to stand after FROM."""
        ...
