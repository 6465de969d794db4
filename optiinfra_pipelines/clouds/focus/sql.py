"""DuckDB SQL that turns what a bill prints into a contract value, exactly or not at all. Pure text building.

Each function returns a Value: an expression, and the conditions under which a row has to be rejected.
"""

from dataclasses import dataclass

import pyarrow as pa

from optiinfra_pipelines.tables.contract import MONEY_PRECISION, MONEY_SCALE

MONEY = f"DECIMAL({MONEY_PRECISION},{MONEY_SCALE})"
# Below this a double's shortest text can need more than 21 decimals; at or above, 17 digits end by the 21st.
_SMALLEST_SHORT_DOUBLE = "1e-5"
# Bills lie within these years; a date outside is a misread format (DuckDB reads '5/1/25' as the year 5).
_FIRST, _LAST = "TIMESTAMP '2000-01-01'", "TIMESTAMP '2200-01-01'"
# $1,234 and 1,234.56 can be read in one way only; 1,234 alone could be a decimal comma.
_DRESSED = r"-?\$\d{1,3}(,\d{3})*(\.\d+)?|-?\d{1,3}(,\d{3})+\.\d+"
_NO_DATE = "is not a date of a bill"
_MONTH_FIRST = "['%m/%d/%y', '%m/%d/%Y', '%m/%d/%y %H:%M', '%m/%d/%Y %H:%M', '%m/%d/%Y %H:%M:%S']"


# Stands, in a condition, for the value's own column: it is computed once and the condition only looks at it.
OWN = '"="'


@dataclass(frozen=True)
class Value:
    """An SQL expression over `source`, and what must not hold of a row: (condition, what is wrong) pairs.

    Conditions see the source's columns and, as OWN, the value.
    """

    sql: str
    refuse: tuple[tuple[str, str], ...] = ()

    def part(self) -> "Value":
        """The value as part of another one: its conditions then spell it out, for it has no column of its own."""
        return Value(
            self.sql, tuple((condition.replace(OWN, f"({self.sql})"), what) for condition, what in self.refuse)
        )


NULL = Value("NULL")


def identifier(name: str) -> str:
    """`name` as a quoted SQL identifier: column names come from files and are not trusted."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """`text` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def text(column: str, kind: pa.DataType) -> Value:
    """A string; empty is null. Nested values (maps, structs, lists) become JSON, null when empty."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return Value(f"nullif({column}, '')")
    if pa.types.is_nested(kind):
        return Value(f"CASE WHEN {column} IS NOT NULL THEN to_json({column})::VARCHAR END")
    return Value(f"CAST({column} AS VARCHAR)")


def money(column: str, kind: pa.DataType) -> Value:
    """An exact DECIMAL(38,21): refused when it is no number, or has more digits than fit."""
    if pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and _fits(kind)):
        return Value(f"CAST({column} AS {MONEY})")
    if pa.types.is_floating(kind):
        printed = f"CAST({column} AS VARCHAR)"
        maybe_long = f"abs({column}) < {_SMALLEST_SHORT_DOUBLE} AND {column} <> 0"
        return Value(f"TRY_CAST({printed} AS {MONEY})", _refuse_numbers(column, maybe_long, printed))
    printed = column if pa.types.is_string(kind) else f"CAST({column} AS VARCHAR)"
    dressed = f"TRY_CAST(regexp_replace(trim({printed}), '[$,]', '', 'g') AS {MONEY})"
    looks_dressed = f"regexp_full_match(trim({printed}), '{_DRESSED}')"
    number = f"coalesce(TRY_CAST({printed} AS {MONEY}), CASE WHEN {looks_dressed} THEN {dressed} END)"
    # A short text without an exponent cannot have more decimals than fit: most rows stop here.
    maybe_long = f"(length({printed}) > {MONEY_SCALE + 1} OR contains({printed}, 'e') OR contains({printed}, 'E'))"
    return Value(number, _refuse_numbers(f"nullif({printed}, '')", maybe_long, printed))


def _refuse_numbers(given: str, maybe_long: str, printed: str) -> tuple[tuple[str, str], ...]:
    return (
        (f"{given} IS NOT NULL AND {OWN} IS NULL", "is not a number with at most 17 digits before the point"),
        (f"{maybe_long} AND {_decimals(printed)} > {MONEY_SCALE}", f"has more than {MONEY_SCALE} decimals"),
    )


def _fits(kind: pa.DataType) -> bool:
    return kind.scale <= MONEY_SCALE and kind.precision - kind.scale <= MONEY_PRECISION - MONEY_SCALE


def _decimals(printed: str) -> str:
    """How many decimals the number `printed` needs once scientific notation is written out."""
    fraction = rf"length(rtrim(regexp_extract({printed}, '\.([0-9]*)', 1), '0'))"
    exponent = rf"coalesce(TRY_CAST(regexp_extract({printed}, '[eE]([+-]?[0-9]+)', 1) AS INTEGER), 0)"
    return f"({fraction} - {exponent})"


def timestamp(column: str, kind: pa.DataType) -> Value:
    """A UTC time: ISO 8601 with or without zone (none: UTC), or m/d/y. Typed times arrive as UTC already."""
    outside = (f"{OWN} NOT BETWEEN {_FIRST} AND {_LAST}", _NO_DATE)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return Value(f"CAST({column} AS TIMESTAMP)", (outside,))
    printed = column if pa.types.is_string(kind) else f"CAST({column} AS VARCHAR)"
    moment = (
        f"CASE WHEN contains({printed}, '/') THEN try_strptime(trim({printed}), {_MONTH_FIRST})"
        f" WHEN length({printed}) > 19 AND right({printed}, 1) <> 'Z'"
        f" THEN timezone('UTC', TRY_CAST({printed} AS TIMESTAMPTZ))"
        f" ELSE TRY_CAST({printed} AS TIMESTAMP) END"
    )
    return Value(moment, ((f"nullif({printed}, '') IS NOT NULL AND {OWN} IS NULL", _NO_DATE), outside))


def one_of(value: Value, allowed: tuple[str, ...], *, strict: bool) -> Value:
    """`value` in the spelling of `allowed` whatever its case; other values are kept, or refused when `strict`."""
    known = ", ".join(map(literal, allowed))
    spelt = " ".join(f"WHEN {literal(each.lower())} THEN {literal(each)}" for each in allowed)
    sql = (
        f"CASE WHEN {value.sql} IN ({known}) THEN {value.sql} "
        f"ELSE CASE lower(trim({value.sql})) {spelt} ELSE {value.sql} END END"
    )
    refuse = (*value.refuse, (f"{OWN} NOT IN ({known})", "is not a value that FOCUS knows")) if strict else value.refuse
    return Value(sql, refuse)


def required(value: Value) -> Value:
    """`value`, with the row refused where there is none."""
    return Value(value.sql, (*value.refuse, (f"{OWN} IS NULL", "is missing")))
