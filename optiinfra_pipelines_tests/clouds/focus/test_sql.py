"""What a bill prints becomes a contract value exactly, or is refused with what is wrong; nothing changes in silence."""

import re
import struct
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Context, Decimal, localcontext
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from optiinfra_pipelines.clouds.focus.sql import OWN, Value, literal, money, one_of, required, text, timestamp
from optiinfra_pipelines.tables.contract import MONEY_PRECISION, MONEY_SCALE

NO_NUMBER = "is not a number with at most 17 digits before the point"
TOO_LONG = "has more than 21 decimals"
NO_DATE = "is not a date of a bill"
EXACT = Context(prec=400)
TEXT = pa.string()
Outcome = tuple[Any, str | None]

contract_numbers = st.integers(1 - 10**MONEY_PRECISION, 10**MONEY_PRECISION - 1).map(
    lambda digits: Decimal(digits).scaleb(-MONEY_SCALE, EXACT)
)


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        yield con


def read(con: duckdb.DuckDBPyConnection, value: Value, given: pa.Array) -> list[Outcome]:
    """What `value` makes of each element of `given`, its column c0: the value, and what is wrong with it."""
    cases = "".join(f" WHEN {condition.replace(OWN, 'value')} THEN {literal(what)}" for condition, what in value.refuse)
    wrong = f"CASE{cases} END" if cases else "NULL"
    source = pa.table({"c0": given, "position": range(len(given))})
    con.register("source", source)
    rows = con.execute(
        f"SELECT value, {wrong} FROM (SELECT *, {value.sql} AS value FROM source) ORDER BY position"
    ).fetchall()
    return [(None, wrong) if wrong else (value, None) for value, wrong in rows]


def read_money(con: duckdb.DuckDBPyConnection, given: Sequence[Any], kind: pa.DataType = TEXT) -> list[Outcome]:
    return read(con, money("c0", kind), pa.array(given, kind))


def read_times(con: duckdb.DuckDBPyConnection, given: Sequence[Any], kind: pa.DataType = TEXT) -> list[Outcome]:
    return read(con, timestamp("c0", kind), pa.array(given, kind))


def fits(number: Decimal) -> bool:
    with localcontext(EXACT):
        return abs(number) < 10 ** (MONEY_PRECISION - MONEY_SCALE) and number == round(number, MONEY_SCALE)


# Money as text


def forms_of(number: Decimal) -> list[str]:
    """The ways in which programs print `number`."""
    plain = f"{number:f}"
    with localcontext(EXACT):
        short = f"{number.normalize():f}"
        scientific = [f"{number.normalize():e}", f"{number:E}", str(number)]
    dressed = [f"${number:,f}".replace("$-", "-$"), f"${number:,f} ".replace("$-", "-$"), f" {plain} ", f"{plain}\t"]
    return [plain, short, f"{plain}0000", f"+{plain}".replace("+-", "-"), *scientific, *dressed]


@settings(max_examples=150)
@example(Decimal("0.0028165478379095776"))
@example(Decimal("7.0E-10"))
@example(Decimal("1234.50"))
@example(Decimal("-0.000000000000000000001"))
@example(Decimal("99999999999999999.999999999999999999999"))
@example(Decimal(0))
@given(contract_numbers)
def test_every_number_that_fits_the_contract_survives_every_way_to_print_it(
    con: duckdb.DuckDBPyConnection, number: Decimal
) -> None:
    assert read_money(con, forms_of(number)) == [(number, None)] * len(forms_of(number))


@settings(max_examples=100)
@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**45), max_value=10**45))
def test_a_number_that_does_not_fit_is_refused_with_its_reason_and_never_rounded(
    con: duckdb.DuckDBPyConnection, number: Decimal
) -> None:
    for value, wrong in read_money(con, [f"{number:f}", f"{number:E}"]):
        if fits(number):
            assert (value, wrong) == (number, None)
        else:
            assert value is None
            assert wrong in (NO_NUMBER, TOO_LONG)


NUMBER = re.compile(r"[+-]?(\d+\.?(?P<fraction>\d*)|\.(?P<only>\d+))([eE](?P<exponent>[+-]?\d+))?", re.ASCII)
DRESSED = re.compile(r"-?\$\d{1,3}(,\d{3})*(\.\d+)?|-?\d{1,3}(,\d{3})+\.\d+", re.ASCII)


def understood(printed: str) -> Decimal | None:
    """The number that `printed` is, by a reading of its own; None where it is none or does not fit."""
    plain = printed.strip()
    if DRESSED.fullmatch(plain):
        plain = plain.replace("$", "").replace(",", "")
    if not (found := NUMBER.fullmatch(plain)) or abs(int(found["exponent"] or 0)) > 1000:
        return None
    decimals = len((found["fraction"] or found["only"] or "").rstrip("0")) - int(found["exponent"] or 0)
    number = EXACT.create_decimal(plain)
    return number if fits(number) and decimals <= MONEY_SCALE else None


@settings(max_examples=300)
@example("1_000")
@example("1,234")
@example("1e-99999999999")
@example("1e-30")
@example("nan")
@example("-Infinity")
@example("0x1F")
@example("(5.00)")
@example("1.234,50")
@example("１２")
@example("")
@given(st.text("0123456789.,eE+-_$ ", max_size=30))
def test_a_text_is_read_as_the_number_it_is_or_refused(con: duckdb.DuckDBPyConnection, printed: str) -> None:
    [(value, wrong)] = read_money(con, [printed])
    if printed == "":
        assert (value, wrong) == (None, None)
    else:
        assert value == understood(printed)
        assert (value is None) == (wrong is not None)


def test_what_is_wrong_with_a_number_is_said(con: duckdb.DuckDBPyConnection) -> None:
    said = {
        "a lot": NO_NUMBER,
        "1_000": NO_NUMBER,
        "1,234": NO_NUMBER,  # a thousand and more in New York, one and a bit in Berlin
        "100000000000000000": NO_NUMBER,
        "0.0000000000000000000001": TOO_LONG,
        "1e-22": TOO_LONG,
    }
    assert read_money(con, list(said)) == [(None, wrong) for wrong in said.values()]


# Money in types of its own


@settings(max_examples=150)
@given(st.data())
def test_decimals_of_any_precision_are_exact_or_refused(con: duckdb.DuckDBPyConnection, data: st.DataObject) -> None:
    precision = data.draw(st.integers(1, 38))
    scale = data.draw(st.integers(0, precision))
    digits = data.draw(st.lists(st.integers(1 - 10**precision, 10**precision - 1), min_size=1, max_size=5))
    numbers = [Decimal(each).scaleb(-scale, EXACT) for each in digits]
    for number, (value, wrong) in zip(numbers, read_money(con, numbers, pa.decimal128(precision, scale)), strict=True):
        assert value == (number if fits(number) else None)
        assert wrong in ((None,) if fits(number) else (NO_NUMBER, TOO_LONG))


def test_decimals_too_wide_for_duckdb_are_refused_because_it_reads_them_as_doubles(
    con: duckdb.DuckDBPyConnection,
) -> None:
    doubles = pa.array([None, 1.5])
    [missing, present] = read(con, money("c0", pa.decimal256(50, 30)), doubles)
    assert missing == (None, None)
    assert present == (None, "is stored as a decimal of more than 38 digits, which cannot be read exactly")


@settings(max_examples=400)
@example(1.2345678901234567e-05)
@example(9.999999999999999e-06)
@example(0.1 + 0.2)
@example(-0.0)
@example(5e-324)
@example(999.9999999999999)
@example(5e-13)
@given(
    st.floats()
    | st.builds(lambda digits, places: digits / 10**places, st.integers(-(10**15), 10**15), st.integers(0, 15))
)
def test_a_double_is_the_shortest_text_that_means_it_or_refused(con: duckdb.DuckDBPyConnection, number: float) -> None:
    printed = Decimal(repr(number))
    [(value, wrong)] = read_money(con, [number], pa.float64())
    if printed.is_finite() and fits(printed):
        assert (value, wrong) == (printed, None)
    else:
        assert value is None
        assert wrong in (NO_NUMBER, TOO_LONG)


@settings(max_examples=100)
@given(st.floats(width=32, min_value=2**-10, max_value=2**20))
def test_a_single_precision_number_is_the_shortest_text_that_means_it(
    con: duckdb.DuckDBPyConnection, number: float
) -> None:
    [(value, wrong)] = read_money(con, [number], pa.float32())
    assert wrong is None
    assert struct.pack("f", float(value)) == struct.pack("f", number)
    assert len(value.normalize().as_tuple().digits) <= 9  # nine digits tell any two of them apart


@settings(max_examples=100)
@given(st.integers(-(2**63), 2**64 - 1))
@example(10**17)
@example(10**17 - 1)
def test_an_integer_is_exact_or_refused(con: duckdb.DuckDBPyConnection, number: int) -> None:
    kind = pa.int64() if number < 2**63 else pa.uint64()
    expected = (Decimal(number), None) if abs(number) < 10**17 else (None, NO_NUMBER)
    assert read_money(con, [number], kind) == [expected]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.float64(), pa.int32(), pa.decimal128(10, 2)])
def test_no_number_is_null_whatever_the_type(con: duckdb.DuckDBPyConnection, kind: pa.DataType) -> None:
    assert read_money(con, [None], kind) == [(None, None)]


# Times

OCTOBER = datetime(2026, 10, 1)


@pytest.mark.parametrize(
    ("printed", "meant"),
    [
        ("2026-10-01", OCTOBER),
        ("2026-10-01T00:00:00Z", OCTOBER),
        ("2026-10-01 00:00:00", OCTOBER),
        ("2026-10-01T00:00:00", OCTOBER),
        ("2026-10-01T00:00Z", OCTOBER),
        ("2026-10-01 00:00", OCTOBER),
        ("2026-10-01T00:00:00.000Z", OCTOBER),
        ("2026-10-01 00:00:00 UTC", OCTOBER),
        ("2026-10-01T02:00:00+02:00", OCTOBER),
        ("2026-10-01T02:00:00+0200", OCTOBER),
        ("2026-10-01T02:00:00+02", OCTOBER),
        ("2026-10-01 02:00+02:00", OCTOBER),
        ("2026-10-01T02:00+02", OCTOBER),  # as long as a time without an offset
        ("2026-09-30T19:00-05", OCTOBER),
        ("2026-09-30T17:00:00.000-0700", OCTOBER),
        ("10/1/26", OCTOBER),
        ("10/01/2026", OCTOBER),
        ("10/1/2026 0:00", OCTOBER),
        ("10/01/2026 00:00:00", OCTOBER),
        ("5/1/25", datetime(2025, 5, 1)),
        ("2026-10-01T00:00:00.123456789Z", datetime(2026, 10, 1, 0, 0, 0, 123456)),
        ("", None),
        (None, None),
    ],
)
def test_a_time_is_read_as_utc(con: duckdb.DuckDBPyConnection, printed: str | None, meant: datetime | None) -> None:
    assert read_times(con, [printed]) == [(meant, None)]


@pytest.mark.parametrize(
    "printed",
    [
        "2023-02-01T30:00:00Z", "2026-13-01", "2026-02-30", "31/12/2026", "5-1-25", "0005-05-01", "2026-10", "202610",
        "20261001", "yesterday", "now", "epoch", "infinity", "1970-01-01", "1999-12-31T23:59:59Z", "2200-01-01",
        "45931", "America/New_York",
    ],
)  # fmt: skip
def test_what_is_no_time_of_a_bill_is_refused(con: duckdb.DuckDBPyConnection, printed: str) -> None:
    assert read_times(con, [printed]) == [(None, NO_DATE)]


@settings(max_examples=150)
@given(
    moment=st.datetimes(datetime(2000, 1, 2), datetime(2199, 12, 30)),
    offset=st.integers(-14 * 4, 14 * 4).map(lambda quarters: timezone(timedelta(minutes=15 * quarters))),
    separator=st.sampled_from("T "),
    precision=st.sampled_from(["minutes", "seconds", "milliseconds", "microseconds"]),
)
def test_any_offset_is_the_same_moment_in_utc(
    con: duckdb.DuckDBPyConnection, moment: datetime, offset: timezone, separator: str, precision: str
) -> None:
    printed = moment.replace(tzinfo=offset).isoformat(separator, precision)
    meant = datetime.fromisoformat(printed).astimezone(UTC).replace(tzinfo=None)
    plain = meant.isoformat(separator, precision)
    assert read_times(con, [printed, plain, f"{plain}Z"]) == [(meant, None)] * 3


def test_typed_times_and_dates_are_taken_as_they_are(con: duckdb.DuckDBPyConnection) -> None:
    for kind in (pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("ns")):
        assert read_times(con, [OCTOBER, None], kind) == [(OCTOBER, None), (None, None)]
    assert read_times(con, [OCTOBER.date()], pa.date32()) == [(OCTOBER, None)]
    assert read_times(con, [datetime(5, 5, 1), datetime(9999, 12, 31)], pa.timestamp("us")) == [(None, NO_DATE)] * 2
    assert read_times(con, [date(1999, 12, 31)], pa.date32()) == [(None, NO_DATE)]


# Text


@pytest.mark.parametrize(
    ("kind", "given", "read_as"),
    [
        (pa.string(), ["a'b\\\"c", "", None], ["a'b\\\"c", None, None]),
        (pa.large_string(), ["x", ""], ["x", None]),
        (pa.int64(), [42], ["42"]),
        (pa.bool_(), [True], ["true"]),
        (pa.map_(pa.string(), pa.string()), [[("team", 'a"b')], None], ['{"team":"a\\"b"}', None]),
        (pa.list_(pa.string()), [["a", "b"]], ['["a","b"]']),
        (pa.struct([("a", pa.int64())]), [{"a": 1}], ['{"a":1}']),
    ],
)
def test_text_is_null_when_empty_and_nested_values_are_json(
    con: duckdb.DuckDBPyConnection, kind: pa.DataType, given: list[Any], read_as: list[str | None]
) -> None:
    assert read(con, text("c0", kind), pa.array(given, kind)) == [(each, None) for each in read_as]


def test_enumerations_are_spelt_as_focus_spells_them_and_unknown_ones_kept_unless_strict(
    con: duckdb.DuckDBPyConnection,
) -> None:
    given = pa.array(["Usage", "usage", " PURCHASE ", "Gift", None, ""])
    value = text("c0", pa.string())
    lenient = read(con, one_of(value, ("Usage", "Purchase"), strict=False), given)
    assert [each for each, _ in lenient] == ["Usage", "Usage", "Purchase", "Gift", None, None]
    strict = read(con, one_of(value, ("Usage", "Purchase"), strict=True), given)
    assert strict[:3] == lenient[:3]
    assert strict[3] == (None, "is not a value that FOCUS knows")
    assert strict[4:] == [(None, None)] * 2


def test_a_required_value_is_missed(con: duckdb.DuckDBPyConnection) -> None:
    value = required(text("c0", pa.string()))
    assert read(con, value, pa.array(["a", "", None])) == [("a", None), (None, "is missing"), (None, "is missing")]
