"""Rule expressions as SQL predicates for DuckDB and ClickHouse. Text building only: nothing here runs a query.

Names are checked against the table contract and quoted, values become typed literals, so that an untrusted model
file can put nothing into the SQL but names that exist and values of the column's own type.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

from optiinfra_pipelines.clouds.focus import rule_formats as formats
from optiinfra_pipelines.tables.contract import MONEY_PRECISION, MONEY_SCALE, Type
from optiinfra_pipelines.tables.rule import (
    And,
    AtLeast,
    Before,
    Expr,
    Format,
    HasFormat,
    HasType,
    Implies,
    Is,
    IsNot,
    NotSame,
    OneOf,
    Or,
    Product,
    Same,
    Scalar,
    Undecidable,
)
from optiinfra_pipelines.warehouse.protocol import Engine

_KINDS = {
    "string": frozenset({Type.STRING, Type.JSON}),
    "decimal": frozenset({Type.MONEY, Type.INTEGER, Type.FLOAT}),
    "datetime": frozenset({Type.TIMESTAMP}),
}
_PATTERNS: Mapping[Format, str] = {
    "unit": formats.UNIT,
    "sku_keys": formats.SKU_KEYS,
    "sku_types": formats.SKU_TYPES,
    "sku_case": formats.SKU_CASE,
}
# AWS rounds to the tenth decimal, Azure and GCP later: each factor and the result may be off by half of the tenth
# (all 941 products of the FOCUS sample's AWS rows agree by that). The relative part covers sums and doubles.
_PRINTED, _RELATIVE = "5e-11", "1e-9"
_LAST_DIGIT = Decimal(1).scaleb(-MONEY_SCALE)
_NOT_UNICODE = "%\ufffd%"
_NOT_IN_SQL = re.compile("[\0\ud800-\udfff]")  # ends a statement early, or cannot be encoded


class NotDecidable(Exception):
    """A rule cannot be decided from the rows; the message says why."""


@dataclass(frozen=True)
class Dialect:
    """What differs between the engines: templates with the SQL of the operands for {}."""

    engine: Engine
    escaped: tuple[tuple[str, str], ...]  # what a string literal has to escape
    text: str
    real: str
    decimal: str
    timestamp: str
    matches: str
    keys: str  # of a JSON object
    unique: str  # that a list repeats nothing
    field: str  # one member, {0} its position and {1} its value
    record: str

    def literal(self, text: str) -> str:
        """`text` as a string literal."""
        for character, escape in self.escaped:
            text = text.replace(character, escape)
        return f"'{text}'"

    def record_of(self, expressions: Iterable[str]) -> str:
        """One value made of several; comes out of Arrow as a mapping in their order."""
        return self.record.format(", ".join(self.field.format(i, sql) for i, sql in enumerate(expressions)))


DUCKDB = Dialect(
    engine="duckdb",
    escaped=(("'", "''"),),
    text="CAST({} AS VARCHAR)",
    real="CAST({} AS DOUBLE)",
    decimal=f"CAST({{}} AS DECIMAL({MONEY_PRECISION},{MONEY_SCALE}))",
    timestamp="CAST({} AS TIMESTAMP)",
    matches="regexp_matches({}, {})",
    keys="json_keys({})",
    unique="len(list_distinct({0})) = len({0})",
    field="f{0} := {1}",
    record="struct_pack({})",
)
CLICKHOUSE = Dialect(
    engine="clickhouse",
    escaped=(("\\", "\\\\"), ("'", "\\'"), ("$", "\\x24")),  # a dollar would mark a parameter of the warehouse
    text="toString({})",
    real="toFloat64({})",
    decimal=f"toDecimal128({{}}, {MONEY_SCALE})",
    timestamp="toDateTime64({}, 6, 'UTC')",
    matches="match({}, {})",
    keys="JSONExtractKeys(coalesce({}, ''))",
    unique="length(arrayDistinct({0})) = length({0})",
    field="{1}",
    record="tuple({})",
)
DIALECTS: Mapping[Engine, Dialect] = {"duckdb": DUCKDB, "clickhouse": CLICKHOUSE}


def identifier(name: str) -> str:
    """`name` as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True)
class Predicates:
    """Renders expressions over the columns of one table contract, `types`, in one dialect."""

    dialect: Dialect
    types: Mapping[str, Type]

    def of(self, expr: Expr) -> str:
        """A boolean SQL expression, null where unknown. NotDecidable where rows cannot tell."""
        match expr:
            case And(items):
                return self._joined(" AND ", items, "TRUE")
            case Or(items):
                return self._joined(" OR ", items, "FALSE")
            case Implies(condition, requirement):
                return f"(NOT coalesce({self.of(condition)}, FALSE) OR {self.of(requirement)})"
            case Is(column, value):
                return self._compared(column, value, "=")
            case IsNot(column, value):
                differs = self._compared(column, value, "<>")
                return differs if value is None else f"({self.column(column)} IS NULL OR {differs})"
            case OneOf(column, values):
                return f"{self.column(column)} IN ({', '.join(self._value(column, value) for value in values)})"
            case AtLeast(column, value):
                return f"{self.column(column)} >= {self._value(column, value)}"
            case Same(left, right):
                return self._pair(left, "=", right)
            case NotSame(left, right):
                return self._pair(left, "<>", right)
            case Before(earlier, later):
                return self._pair(earlier, "<", later)
            case Product(left, right, result):
                return self._product(left, right, result)
            case HasType(column, kind):
                return self._constant(column, self._type(column) in _KINDS[kind])
            case HasFormat(column, format):
                return self._format(column, format)
            case Undecidable(reason):
                raise NotDecidable(reason)
            case _:  # Present, DistinctCount, SumsEqual
                raise NotDecidable("a check of the source or of groups of rows stands inside a check of single rows")

    def column(self, name: str) -> str:
        """The quoted column; NotDecidable where the contract has none of that name."""
        self._type(name)
        return identifier(name)

    def is_number(self, name: str) -> bool:
        """Whether the column holds numbers."""
        return self._type(name) in _KINDS["decimal"]

    def near(self, left: str, right: str, slack: str) -> str:
        """That two doubles differ by no more than printed digits explain."""
        return f"abs({left} - {right}) <= {_RELATIVE} * abs({right}) + {_PRINTED} * ({slack})"

    def _type(self, name: str) -> Type:
        if name not in self.types:
            raise NotDecidable(f"column {name} is not in the contract")
        return self.types[name]

    def _joined(self, word: str, items: tuple[Expr, ...], empty: str) -> str:
        return f"({word.join(self.of(item) for item in items)})" if items else empty

    def _constant(self, column: str, true: bool) -> str:
        """What the contract decides for every value of a column; null stays unknown."""
        return "TRUE" if true else f"{self.column(column)} IS NULL"

    def _compared(self, column: str, value: Scalar, operator: str) -> str:
        if value is None:
            return f"{self.column(column)} IS {'' if operator == '=' else 'NOT '}NULL"
        return f"{self.column(column)} {operator} {self._value(column, value)}"

    def _pair(self, left: str, operator: str, right: str) -> str:
        sql = f"{self.column(left)} {operator} {self.column(right)}"
        if not any({self._type(left), self._type(right)} <= kinds for kinds in _KINDS.values()):
            raise NotDecidable(f"columns {left} and {right} hold different types")
        return sql

    def _value(self, column: str, value: Scalar) -> str:
        """`value` as a literal of the column's type; NotDecidable where it is none."""
        kind = self._type(column)
        wrong = NotDecidable(f"column {column} is of type {kind.value}, which {value!r} is not")
        if kind in _KINDS["string"]:
            if not isinstance(value, str) or _NOT_IN_SQL.search(value):
                raise wrong
            return self.dialect.literal(value)
        if kind in _KINDS["decimal"]:
            try:
                number = Decimal(str(value))
            except InvalidOperation as error:
                raise wrong from error
            if not number.is_finite() or number.adjusted() >= MONEY_PRECISION - MONEY_SCALE or number % _LAST_DIGIT:
                raise wrong
            return self.dialect.decimal.format(f"'{number:f}'")
        if kind is Type.TIMESTAMP:
            try:
                moment = datetime.fromisoformat(str(value))
            except ValueError as error:
                raise wrong from error
            if moment.tzinfo:
                moment = moment.astimezone(UTC)
            return self.dialect.timestamp.format(f"'{moment:%Y-%m-%d %H:%M:%S.%f}'")
        raise wrong

    def _real(self, column: str) -> str:
        if not self.is_number(column):
            raise NotDecidable(f"column {column} is of type {self._type(column).value}, not a number")
        return self.dialect.real.format(identifier(column))

    def _product(self, left: str, right: str, result: str) -> str:
        a, b, product = self._real(left), self._real(right), self._real(result)
        return self.near(f"{a} * {b}", product, f"1 + abs({a}) + abs({b})")

    def _format(self, column: str, format: Format) -> str:
        kind = self._type(column)
        if format in ("numeric", "datetime"):
            if kind in _KINDS["decimal" if format == "numeric" else "datetime"]:
                return "TRUE"  # a typed column holds nothing else
            pattern = formats.NUMERIC if format == "numeric" else formats.DATETIME
            return self._matches(column, pattern)
        if kind not in _KINDS["string"]:
            return self._constant(column, False)
        name = self.column(column)
        match format:
            case "string":
                return f"{name} NOT LIKE {self.dialect.literal(_NOT_UNICODE)}"
            case "filled":
                return f"trim({name}) NOT IN ({self._list(formats.PLACEHOLDERS)})"
            case "national_currency":
                return f"{name} IN ({self._list(formats.NATIONAL_CURRENCIES)})"
            case "currency":
                virtual = (
                    f"{self._matches(column, formats.VISIBLE)} AND NOT {self._matches(column, formats.THREE_LETTERS)}"
                )
                return f"({self._matches(column, formats.CURRENCY_CODE)} OR {virtual})"
            case "key_value":
                flat = self._matches(column, formats.KEY_VALUE)
                unique = self.dialect.unique.format(self.dialect.keys.format(name))
                return f"CASE WHEN {flat} THEN {unique} ELSE {flat} END"
            case _:
                return self._matches(column, _PATTERNS[format])

    def _matches(self, column: str, pattern: str) -> str:
        if self._type(column) not in _KINDS["string"]:
            return self._constant(column, False)
        return self.dialect.matches.format(self.column(column), self.dialect.literal(pattern))

    def _list(self, words: tuple[str, ...]) -> str:
        return ", ".join(self.dialect.literal(word) for word in words)
