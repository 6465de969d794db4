"""DuckDB SQL that turns what a bill prints into a contract value, exactly or not at all. Pure text building.

Each function returns a Value: an expression, and the conditions under which a row has to be rejected.
"""

from dataclasses import dataclass

import pyarrow as pa

from optiinfra_pipelines.tables.contract import MONEY_PRECISION, MONEY_SCALE

MONEY = f"DECIMAL({MONEY_PRECISION},{MONEY_SCALE})"
# Below this a double's shortest text can need more than 21 decimals; at or above, 17 digits end by the 21st.
_SMALLEST_SHORT_DOUBLE = "1e-5"
# Bills lie within these years; a date outside is a misread format (DuckDB reads '5-1-25' as the year 5).
_FIRST, _LAST = "TIMESTAMP '2000-01-01'", "TIMESTAMP '2200-01-01'"  # _LAST is the first moment outside
# $1,234 and 1,234.56 can be read in one way only; 1,234 alone could be a decimal comma.
_DRESSED = r"-?\$\d{1,3}(,\d{3})*(\.\d+)?|-?\d{1,3}(,\d{3})+\.\d+"
_NO_DATE = "is not a date of a bill"
_NO_NUMBER = "is not a number with at most 17 digits before the point"
_TOO_WIDE = f"is stored as a decimal of more than {MONEY_PRECISION} digits, which cannot be read exactly"
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


def column(schema: pa.Schema, name: str) -> str:
    """The column of `source` that holds the file's column `name`. It goes by its position there: names of files may
    differ in case alone, which SQL does not see, or be those of other columns of `source`."""
    return f"c{schema.get_field_index(name)}"


def identifier(name: str) -> str:
    """`name` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """`text` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def text(column: str, kind: pa.DataType) -> Value:
    """A string; empty is null. Nested values (maps, structs, lists) become JSON."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return Value(f"nullif({column}, '')")
    if pa.types.is_nested(kind):
        return Value(f"CASE WHEN {column} IS NOT NULL THEN to_json({column})::VARCHAR END")
    return Value(f"CAST({column} AS VARCHAR)")


def money(column: str, kind: pa.DataType) -> Value:
    """An exact DECIMAL(38,21): refused when it is no number, or has more digits than fit."""
    if pa.types.is_decimal(kind) and _fits(kind):
        return Value(f"CAST({column} AS {MONEY})")
    if pa.types.is_decimal(kind) and kind.precision > MONEY_PRECISION:  # which DuckDB reads as doubles
        return Value(f"CAST(NULL AS {MONEY})", ((f"{column} IS NOT NULL", _TOO_WIDE),))
    if pa.types.is_integer(kind):
        return Value(f"TRY_CAST({column} AS {MONEY})", ((f"{column} IS NOT NULL AND {OWN} IS NULL", _NO_NUMBER),))
    if pa.types.is_floating(kind):
        printed = f"CAST({column} AS VARCHAR)"
        short = _short_doubles(column) if pa.types.is_float64(kind) else ()
        quick = " ".join(f"WHEN {condition} THEN {value}" for condition, value in short)
        number = f"TRY_CAST({printed} AS {MONEY})"
        number = f"CASE {quick} ELSE {number} END" if short else number
        maybe_long = f"abs({column}) < {_SMALLEST_SHORT_DOUBLE} AND {column} <> 0"
        maybe_long += f" AND NOT ({short[0][0]})" if short else ""
        return Value(number, _refuse_numbers(column, maybe_long, printed))
    printed = column if pa.types.is_string(kind) else f"CAST({column} AS VARCHAR)"
    dressed = f"TRY_CAST(regexp_replace(trim({printed}), '[$,]', '', 'g') AS {MONEY})"
    looks_dressed = f"regexp_full_match(trim({printed}), '{_DRESSED}')"
    number = f"coalesce(TRY_CAST({printed} AS {MONEY}), CASE WHEN {looks_dressed} THEN {dressed} END)"
    # A short text without an exponent cannot have more decimals than fit: most rows stop here.
    maybe_long = f"(length({printed}) > {MONEY_SCALE + 1} OR contains({printed}, 'e') OR contains({printed}, 'E'))"
    # DuckDB reads 1_000 as 1000, as its own SQL is written; in a bill it is no number.
    return Value(
        number,
        ((f"contains({printed}, '_')", _NO_NUMBER), *_refuse_numbers(f"nullif({printed}, '')", maybe_long, printed)),
    )


def _short_doubles(column: str) -> tuple[tuple[str, str], ...]:
    """(condition, exact decimal) for doubles whose shortest text is short, by arithmetic: 20 times as fast as by text.

    With n = round(d * 10^k) below 10^15, both n and 10^k are exact doubles, so n / 10^k = d says that the decimal
    n * 10^-k reads as d. It has at most 15 digits, of which no two decimals read as one double: d's shortest text is
    that decimal.
    """
    found = []
    for decimals, below in ((12, "1e3"), (9, "1e6")):
        whole = f"round({column} * 1e{decimals})"
        unit = f"CAST('1e-{decimals}' AS DECIMAL({decimals + 1},{decimals}))"
        found.append(
            (
                f"abs({column}) < {below} AND {whole} / 1e{decimals} = {column}",
                f"CAST(CAST({whole} AS DECIMAL(18,0)) * {unit} AS {MONEY})",
            )
        )
    return tuple(found)


def _refuse_numbers(given: str, maybe_long: str, printed: str) -> tuple[tuple[str, str], ...]:
    return (
        (f"{given} IS NOT NULL AND {OWN} IS NULL", _NO_NUMBER),
        # not AND, both sides of which are computed for every row
        (
            f"CASE WHEN {maybe_long} THEN {_decimals(printed)} > {MONEY_SCALE} ELSE false END",
            f"has more than {MONEY_SCALE} decimals",
        ),
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
    outside = (f"NOT {within_bills(OWN)}", _NO_DATE)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return Value(f"CAST({column} AS TIMESTAMP)", (outside,))
    printed = column if pa.types.is_string(kind) else f"CAST({column} AS VARCHAR)"
    # A cast to TIMESTAMP passes over an offset in silence, so only texts without one go there: date, date and time, Z.
    plain = (
        f"right({printed}, 1) = 'Z' OR length({printed}) = 10"
        f" OR (length({printed}) = 19 AND substr({printed}, 17, 1) = ':')"
    )
    moment = (
        f"CASE WHEN contains({printed}, '/') THEN try_strptime(trim({printed}), {_MONTH_FIRST})"
        f" WHEN {plain} THEN TRY_CAST({printed} AS TIMESTAMP)"
        f" ELSE timezone('UTC', TRY_CAST({printed} AS TIMESTAMPTZ)) END"
    )
    return Value(moment, ((f"nullif({printed}, '') IS NOT NULL AND {OWN} IS NULL", _NO_DATE), outside))


def within_bills(moment: str) -> str:
    """A condition: the TIMESTAMP `moment` lies in the years that bills are of."""
    return f"({moment} >= {_FIRST} AND {moment} < {_LAST})"


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
