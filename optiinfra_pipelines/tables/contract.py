"""The words a table contract is written in: Type, Column, Table. Contracts themselves live beside this file."""

from dataclasses import dataclass, field
from enum import Enum

import pyarrow as pa

MONEY_PRECISION = 38
MONEY_SCALE = 21  # the most decimals seen in a real bill (AWS CUR); 17 digits remain before the point


class Type(Enum):
    """Logical column types, each with one form per engine and one in Arrow. Times are UTC."""

    STRING = "string"
    JSON = "json"
    MONEY = "money"
    INTEGER = "integer"
    FLOAT = "float"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"

    @property
    def arrow(self) -> pa.DataType:
        return _ARROW[self]

    @property
    def duckdb(self) -> str:
        return _DUCKDB[self]

    @property
    def clickhouse(self) -> str:
        return _CLICKHOUSE[self]


_ARROW = {
    Type.STRING: pa.string(),
    Type.JSON: pa.string(),
    Type.MONEY: pa.decimal128(MONEY_PRECISION, MONEY_SCALE),
    Type.INTEGER: pa.int64(),
    Type.FLOAT: pa.float64(),
    Type.BOOLEAN: pa.bool_(),
    Type.TIMESTAMP: pa.timestamp("us"),
}
_DUCKDB = {
    Type.STRING: "VARCHAR",
    Type.JSON: "VARCHAR",
    Type.MONEY: f"DECIMAL({MONEY_PRECISION},{MONEY_SCALE})",
    Type.INTEGER: "BIGINT",
    Type.FLOAT: "DOUBLE",
    Type.BOOLEAN: "BOOLEAN",
    Type.TIMESTAMP: "TIMESTAMP",
}
_CLICKHOUSE = {
    Type.STRING: "String",
    Type.JSON: "String",
    Type.MONEY: f"Decimal({MONEY_PRECISION}, {MONEY_SCALE})",
    Type.INTEGER: "Int64",
    Type.FLOAT: "Float64",
    Type.BOOLEAN: "Bool",
    Type.TIMESTAMP: "DateTime64(6, 'UTC')",
}


class Kind(Enum):
    """How a table takes rows, and therefore how a reader finds the current ones."""

    KEYED = "keyed"  # facts with a natural key: the newest row of a key is the current one
    SLICED = "sliced"  # restatable sets: the newest committed load of a slice is the current one
    APPENDED = "appended"  # a log: every row stays current


@dataclass(frozen=True)
class Column:
    """One column: what it holds, in which unit, whether null is allowed, and which values are."""

    name: str
    type: Type
    description: str
    nullable: bool = True
    unit: str | None = None
    allowed: tuple[str, ...] = ()
    low_cardinality: bool = False  # few distinct values: ClickHouse stores a dictionary

    @property
    def arrow(self) -> pa.Field:
        return pa.field(self.name, self.type.arrow, nullable=self.nullable)


@dataclass(frozen=True)
class Table:
    """One table of the warehouse, `schema.name`: its columns in order, its kind and its natural key.

    `key` identifies a row of a KEYED table; `order_by` is the sort order that readers profit from. `near` names a time
    column in which two rows of one key never lie more than an hour apart: an upsert looks for the old row only there.
    """

    schema: str
    name: str
    description: str
    kind: Kind
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    order_by: tuple[str, ...] = field(default=())
    near: str = ""

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def arrow_schema(self) -> pa.Schema:
        return pa.schema([column.arrow for column in self.columns])

    def column(self, name: str) -> Column:
        """The column called `name`; KeyError where the contract has none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"{self.full_name} has no column {name}")
