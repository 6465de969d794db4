"""Queries: named parameters mean the same on both engines, and so do the values that come back."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from optiinfra_pipelines.warehouse.protocol import Warehouse, WarehouseError


@pytest.mark.parametrize(
    "value",
    [
        "it's",
        'say "x"',
        "C:\\new\\table",
        "a\nb\tc\rd",
        "",
        "$value and {value:String} and %s and %(value)s",
        "\\N",
        "NULL",
        "é 😀",
        "'; DROP TABLE raw.loads; --",
        None,
        True,
        False,
        0,
        -(2**63),
        2**63 - 1,
        1.5,
        1e-300,
        datetime(2026, 10, 25, 1, 30, 0, 123456, tzinfo=UTC),
    ],
)
def test_a_parameter_arrives_as_it_was_given(warehouse: Warehouse, value: Any) -> None:
    assert warehouse.query("SELECT $value AS value", {"value": value}).to_pylist() == [{"value": value}]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (datetime(2026, 10, 25, 1, 30), datetime(2026, 10, 25, 1, 30, tzinfo=UTC)),
        (
            datetime(2026, 10, 25, 1, 30, 0, 5, tzinfo=timezone(timedelta(hours=2))),
            datetime(2026, 10, 24, 23, 30, 0, 5, tzinfo=UTC),
        ),
    ],
)
def test_a_time_without_a_zone_is_utc_and_one_with_a_zone_is_the_same_moment(
    warehouse: Warehouse, given: datetime, meant: datetime
) -> None:
    assert warehouse.query("SELECT $at AS at", {"at": given}).to_pylist() == [{"at": meant}]


def test_a_parameter_may_stand_several_times(warehouse: Warehouse) -> None:
    sql = "SELECT $n + $n AS doubled, concat($word, '!') AS loud"
    assert warehouse.query(sql, {"n": 4, "word": "hey"}).to_pylist() == [{"doubled": 8, "loud": "hey!"}]


def test_a_dollar_inside_a_literal_a_name_or_a_comment_is_only_a_dollar(warehouse: Warehouse) -> None:
    sql = """
        SELECT '$n costs it''s $5' AS literal, $n AS "$n", /* $gone */ 'a' LIKE '%a%' AS alike -- and $gone
    """
    [row] = warehouse.query(sql, {"n": 1}).to_pylist()
    assert (row["literal"], row["$n"], bool(row["alike"])) == ("$n costs it's $5", 1, True)


def test_a_statement_without_parameters_may_hold_percent_signs_and_braces(warehouse: Warehouse) -> None:
    [row] = warehouse.query("""SELECT 'a' LIKE '%a' AS alike, '{"a":"b"}' AS braces""").to_pylist()
    assert (bool(row["alike"]), row["braces"]) == (True, '{"a":"b"}')


@pytest.mark.parametrize("params", [{}, {"other": 1}, {"n": 1, "other": 1}])
def test_parameters_that_do_not_match_the_statement_are_refused(warehouse: Warehouse, params: dict[str, int]) -> None:
    with pytest.raises(WarehouseError, match="param"):
        warehouse.query("SELECT $n AS n", params)


def test_a_wrong_statement_is_a_warehouse_error_that_says_what_is_wrong(warehouse: Warehouse) -> None:
    with pytest.raises(WarehouseError, match="no_such_table"):
        warehouse.query("SELECT * FROM no_such_table")


def test_text_is_plain_text_and_times_are_microseconds_in_utc(warehouse: Warehouse) -> None:
    table = warehouse.query(
        "SELECT 'a' AS word, CAST('1.000000000000000000001' AS DECIMAL(38,21)) AS money, $at AS at",
        {"at": datetime(2026, 10, 1)},
    )
    assert table.schema.field("word").type == pa.string()
    assert table.schema.field("at").type == pa.timestamp("us", tz="UTC")
    assert table["money"].to_pylist() == [Decimal("1.000000000000000000001")]
