"""A month of a bill, from its files into either warehouse: whole, exact, once, and traced to where it came from."""

import json
import os
import shutil
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optiinfra_pipelines.clouds.focus.loader import Bill, LoadedPeriod, load_period, newest_load, periods_of
from optiinfra_pipelines.customers import BillingSource
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.tables.billing import AWS_BILLING, FOCUS_BILLING
from optiinfra_pipelines.tables.operations import LOADS, REJECTED_ROWS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import BillingPeriod
from optiinfra_pipelines_tests.buckets import Bucket
from optiinfra_pipelines_tests.clouds.focus.test_sql import EXACT
from optiinfra_pipelines_tests.focus_files import (
    OCTOBER,
    bill_of,
    billing,
    focus_row,
    load,
    reasons,
    rejected,
    source_totals,
    values,
    write_csv,
    write_parquet,
)

SEPTEMBER = OCTOBER.previous


def september(**changes: str) -> dict[str, str]:
    return focus_row(BillingPeriodStart="2026-09-01", BillingPeriodEnd="2026-10-01", **changes)


def committed(warehouse: Warehouse) -> list[dict[str, Any]]:
    """The ledger's committed loads, oldest first, details read."""
    sql = f"SELECT * FROM {warehouse.current(LOADS)} l WHERE state = 'committed' ORDER BY recorded_at"
    return [row | {"details": json.loads(row["details"])} for row in warehouse.query(sql).to_pylist()]


# Once, and whole


def test_what_was_read_is_accepted_or_rejected_and_the_ledger_says_so(warehouse: Warehouse, tmp_path: Path) -> None:
    good, bad = [focus_row()] * 4, [focus_row(BilledCost="much"), focus_row(ChargeCategory="Gift")]
    one = write_csv(tmp_path / "2026-10/a.csv", [*good[:2], bad[0], *good[2:], bad[1]], extra="1,2,3\n")
    two = write_parquet(tmp_path / "2026-10/b.parquet", [bad[0], *good])
    loaded = load(warehouse, tmp_path)
    assert loaded == LoadedPeriod("succeeded", loaded.load_id, 8, 12, 4, 2)
    assert [(row["x_source"], row["x_row_number"]) for row in billing(warehouse, "x_source", "x_row_number")] == [
        *((str(one), number) for number in (1, 2, 4, 5)),
        *((str(two), number) for number in (2, 3, 4, 5)),
    ]
    [entry] = committed(warehouse)
    assert (entry["load_id"], entry["slice"], entry["run_id"]) == (loaded.load_id, "acme/main/2026-10", "run-1")
    assert (entry["rows"], entry["rows_read"], entry["rows_rejected"]) == (8, 12, 4)
    assert entry["details"] == {
        "columns_present": sorted(focus_row()),
        "layouts": ["1.0"],
        "objects": [{"uri": str(each), "bytes": each.stat().st_size} for each in (one, two)],
        "object_count": 2,
    }


def test_rejected_rows_keep_their_source_their_reason_and_what_was_read(warehouse: Warehouse, tmp_path: Path) -> None:
    bad = focus_row(BilledCost="much", x_Note='it\'s "new" \\ 😀')
    path = write_csv(tmp_path / "2026-10/a.csv", [focus_row(x_Note=""), bad], extra="only,three,fields\n")
    loaded = load(warehouse, tmp_path, connection_id="side")
    number, line = rejected(warehouse)
    known = {"customer_id": "acme", "connection_id": "side", "table_name": "raw.focus_billing", "source": str(path)}
    assert number == known | {
        "row_number": 2,
        "reason": "BilledCost: is not a number with at most 17 digits before the point",
        "payload": bad,
        "load_id": loaded.load_id,
        "collected_at": number["collected_at"],
    }
    assert line == number | {
        "row_number": 3,
        "reason": "line: has more or fewer fields than the header",
        "payload": {"line": "only,three,fields", "fields_expected": len(bad), "fields_found": 3},
    }


def test_every_row_carries_its_load_its_time_and_its_source(warehouse: Warehouse, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "2026-10/a.csv", [focus_row()] * 2)
    before = datetime.now(UTC)
    loaded = load(warehouse, tmp_path)
    for row in billing(warehouse, "x_load_id", "x_collected_at", "x_source", "x_customer_id", "x_connection_id"):
        assert before <= row.pop("x_collected_at") <= datetime.now(UTC)
        assert row == {
            "x_load_id": loaded.load_id,
            "x_source": str(path),
            "x_customer_id": "acme",
            "x_connection_id": "main",
        }


def test_the_same_files_again_change_nothing(warehouse: Warehouse, tmp_path: Path) -> None:
    write_csv(tmp_path / "2026-10/a.csv", [focus_row()])
    first = load(warehouse, tmp_path)
    assert load(warehouse, tmp_path) == LoadedPeriod("unchanged", files=1)
    assert values(warehouse, "x_load_id") == [first.load_id]
    assert len(committed(warehouse)) == 1


def test_a_restated_bill_replaces_the_old_one_which_stays_as_history(warehouse: Warehouse, tmp_path: Path) -> None:
    write_csv(tmp_path / "2026-10/a.csv", [focus_row(BilledCost="1"), focus_row(BilledCost="nothing")])
    write_csv(tmp_path / "2026-09/a.csv", [september(BilledCost="9")])
    old, other = load(warehouse, tmp_path), load(warehouse, tmp_path, SEPTEMBER)
    write_csv(tmp_path / "2026-10/a.csv", [focus_row(BilledCost="2"), focus_row(BilledCost="3")])
    new = load(warehouse, tmp_path)
    assert values(warehouse, "BilledCost") == [Decimal(9), Decimal(2), Decimal(3)]
    assert rejected(warehouse) == []
    assert source_totals(warehouse, "billing_period", "billed_cost") == [
        ("2026-09", Decimal(9)),
        ("2026-10", Decimal(5)),
    ]
    found = warehouse.query(
        f"SELECT x_load_id, sum(BilledCost) AS billed FROM {warehouse.name(FOCUS_BILLING)} GROUP BY x_load_id"
    ).to_pylist()
    believed = {row["x_load_id"]: row["billed"] for row in found}
    assert believed == {old.load_id: Decimal(1), other.load_id: Decimal(9), new.load_id: Decimal(5)}
    newest = newest_load(warehouse, FOCUS_BILLING, "acme/main/2026-10")
    assert newest is not None
    assert (newest["load_id"], newest["rows"]) == (new.load_id, 2)


def test_other_defaults_read_the_same_files_anew(warehouse: Warehouse, tmp_path: Path) -> None:
    write_csv(tmp_path / "2026-10/a.csv", [focus_row(BillingCurrency="")])
    assert load(warehouse, tmp_path).rows_rejected == 1
    assert load(warehouse, tmp_path, defaults={"BillingCurrency": "EUR"}).rows == 1
    assert values(warehouse, "BillingCurrency") == ["EUR"]
    assert rejected(warehouse) == []


def test_connections_and_tables_do_not_disturb_each_other(warehouse: Warehouse, tmp_path: Path) -> None:
    write_csv(tmp_path / "2026-10/a.csv", [focus_row()])
    load(warehouse, tmp_path)
    load(warehouse, tmp_path, connection_id="second")
    load_period(warehouse, AWS_BILLING, bill_of(tmp_path, provider="aws"), OCTOBER)
    assert sorted(values(warehouse, "x_connection_id")) == ["main", "second"]
    found = warehouse.query(f"SELECT x_provider, BilledCost FROM {warehouse.current(AWS_BILLING)} b").to_pylist()
    assert found == [{"x_provider": "aws", "BilledCost": Decimal("1.5")}]


def test_a_new_column_may_appear_in_the_middle_of_a_month(warehouse: Warehouse, tmp_path: Path) -> None:
    write_parquet(tmp_path / "2026-10/01.parquet", [focus_row()])
    write_parquet(tmp_path / "2026-10/02.parquet", [focus_row(ListCost="2", x_Team="blue")])
    write_csv(tmp_path / "2026-10/03.csv", [focus_row(x_Team="red", ServiceName="Mail")])
    write_csv(tmp_path / "2026-10/04.csv", [{"x_Late": "1", **focus_row()}])
    assert load(warehouse, tmp_path).rows == 4
    assert values(warehouse, "ListCost") == [None, Decimal(2), None, None]
    assert values(warehouse, "ServiceName") == [None, None, "Mail", None]
    assert [json.loads(each or "null") for each in values(warehouse, "x_extra")] == [
        None,
        {"x_Team": "blue"},
        {"x_Team": "red"},
        {"x_Late": "1"},
    ]
    assert {"ListCost", "ServiceName"} <= set(committed(warehouse)[0]["details"]["columns_present"])


def test_a_month_of_many_small_files_is_one_load(warehouse: Warehouse, tmp_path: Path) -> None:
    text = write_csv(tmp_path / "row.csv", [focus_row(BilledCost="0.000000000000000000001")]).read_text()
    (tmp_path / "bill/2026-10").mkdir(parents=True)
    for number in range(1200):
        (tmp_path / f"bill/2026-10/{number:04}.csv").write_text(text)
    loaded = load(warehouse, tmp_path / "bill")
    assert (loaded.rows, loaded.files) == (1200, 1200)
    assert source_totals(warehouse, "rows", "billed_cost") == [(1200, Decimal("0.0000000000000000012"))]
    [entry] = committed(warehouse)
    assert (len(entry["details"]["objects"]), entry["details"]["object_count"]) == (1000, 1200)


# Nothing, or not all


def test_files_without_rows_are_a_bill_of_nothing(warehouse: Warehouse, tmp_path: Path) -> None:
    header = write_csv(tmp_path / "2026-10/a.csv", [focus_row()])
    header.write_text(header.read_text().splitlines()[0])
    empty = pa.table({name: pa.array([], pa.string()) for name in focus_row()})
    pq.write_table(empty, tmp_path / "2026-10/b.parquet")
    loaded = load(warehouse, tmp_path)
    assert (loaded.status, loaded.rows, loaded.rows_rejected, loaded.files) == ("succeeded", 0, 0, 2)
    assert load(warehouse, tmp_path).status == "unchanged"
    assert billing(warehouse, "BilledCost") == []


def test_a_month_that_is_not_there_yet_is_left_alone(warehouse: Warehouse, tmp_path: Path) -> None:
    assert load(warehouse, tmp_path) == LoadedPeriod("unchanged")
    assert committed(warehouse) == []


@pytest.mark.parametrize("content", ["parquet", "csv"])
def test_a_file_of_which_every_row_is_rejected_is_loaded_as_such(
    warehouse: Warehouse, tmp_path: Path, content: str
) -> None:
    write = write_parquet if content == "parquet" else write_csv
    write(tmp_path / f"2026-10/a.{content}", [{"team": "blue", "points": str(number)} for number in range(3)])
    loaded = load(warehouse, tmp_path)
    assert (loaded.rows, loaded.rows_read, loaded.rows_rejected) == (0, 3, 3)
    assert reasons(warehouse) == ["BilledCost: is missing"] * 3
    assert source_totals(warehouse, "billing_period", "rows", "billed_cost") == [("unknown", 3, Decimal(0))]


@pytest.mark.parametrize("gone", ["folder", "file"])
def test_an_export_that_vanished_is_reported_and_the_loaded_rows_stay(
    warehouse: Warehouse, tmp_path: Path, gone: str
) -> None:
    path = write_csv(tmp_path / "bill/2026-10/a.csv", [focus_row()])
    load(warehouse, tmp_path / "bill")
    if gone == "folder":
        shutil.rmtree(tmp_path / "bill")
    else:
        path.unlink()
    with pytest.raises(CollectionError) as error:
        load(warehouse, tmp_path / "bill")
    assert error.value.kind == "not_configured"
    assert str(tmp_path / "bill") in str(error.value)
    assert len(values(warehouse, "BilledCost")) == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("z.parquet", b"PAR1 and then nothing", "is not a Parquet file or is truncated"),
        ("z.csv", b"\xff\xfe", "is not a CSV file in UTF-8"),
        ("z.csv", ",".join(focus_row()).encode() + b"\n" + b"1,\xff" * 9 + b"\n", "is not a CSV file in UTF-8"),
        ("z.csv", b"BilledCost,BilledCost\n1,2\n", "names BilledCost twice"),
    ],
)
def test_a_broken_file_among_good_ones_leaves_the_old_month_as_it_was(
    warehouse: Warehouse, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    write_csv(tmp_path / "2026-10/a.csv", [focus_row(BilledCost="1")])
    write_parquet(tmp_path / "2026-10/b.parquet", [focus_row(BilledCost="2")])
    load(warehouse, tmp_path)
    write_csv(tmp_path / "2026-10/a.csv", [focus_row(BilledCost="10")])
    (tmp_path / "2026-10" / name).write_bytes(content)
    with pytest.raises(CollectionError) as error:
        load(warehouse, tmp_path)
    assert error.value.kind == "malformed"
    assert f"{tmp_path / '2026-10' / name}" in str(error.value)
    assert said in str(error.value)
    assert values(warehouse, "BilledCost") == [Decimal(1), Decimal(2)]
    (tmp_path / "2026-10" / name).unlink()
    load(warehouse, tmp_path)
    assert values(warehouse, "BilledCost") == [Decimal(10), Decimal(2)]


def test_a_text_that_breaks_off_late_in_a_large_file_is_named_as_such(warehouse: Warehouse, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "2026-10/a.csv", [focus_row(Tags="x" * 400)] * 9000)  # more than one block
    with path.open("ab") as file:
        file.write(b"\xff" * 20 + b"," * (len(focus_row())) + b"\n")
    with pytest.raises(CollectionError, match=r"a\.csv is not a CSV file in UTF-8 or is truncated") as error:
        load(warehouse, tmp_path)
    assert error.value.kind == "malformed"
    assert billing(warehouse, "BilledCost") == []


# Files that hold several months


def test_files_whose_paths_name_no_month_are_split_by_their_rows(warehouse: Warehouse, tmp_path: Path) -> None:
    rows = [
        september(BilledCost="1"),
        focus_row(BilledCost="2"),
        september(BilledCost="much"),
        focus_row(BilledCost="4"),
    ]
    write_csv(tmp_path / "a.csv", rows)
    write_parquet(tmp_path / "b.parquet", rows)
    write_csv(tmp_path / "2026-10/c.csv", [focus_row(BilledCost="8"), september(BilledCost="16")])
    assert periods_of(bill_of(tmp_path)) == [SEPTEMBER, OCTOBER]
    first, second = load(warehouse, tmp_path, SEPTEMBER), load(warehouse, tmp_path)
    assert (first.rows, first.rows_rejected, second.rows, second.rows_rejected) == (2, 2, 6, 0)
    slices = {row["load_id"]: row["slice"] for row in committed(warehouse)}
    of_month: dict[str, set[Decimal]] = {}
    for row in billing(warehouse, "x_load_id", "BilledCost"):
        of_month.setdefault(slices[row["x_load_id"]], set()).add(row["BilledCost"])
    # A file that lies in a month's folder is of that month, late corrections of another one included.
    assert of_month == {"acme/main/2026-09": {Decimal(1)}, "acme/main/2026-10": {Decimal(n) for n in (2, 4, 8, 16)}}
    assert source_totals(warehouse, "billing_period", "rows", "billed_cost") == [
        ("2026-09", 1, Decimal(16)),
        ("2026-09", 4, Decimal(2)),
        ("2026-10", 5, Decimal(20)),
    ]


def test_rows_of_no_month_are_counted_once_however_many_months_are_loaded(warehouse: Warehouse, tmp_path: Path) -> None:
    lost = [focus_row(BillingPeriodStart=each) for each in ("soon", "", "5-1-25", "2026-13-01")]
    november = focus_row(BillingPeriodStart="2026-11-01", BillingPeriodEnd="2026-12-01")
    write_csv(tmp_path / "a.csv", [september(), focus_row(), november, *lost], extra="1,2\n")
    write_parquet(tmp_path / "b.parquet", lost)
    write_csv(tmp_path / "c.csv", [{"team": "blue"}])
    loads = [load(warehouse, tmp_path, period) for period in periods_of(bill_of(tmp_path))]
    assert [(each.rows, each.rows_rejected) for each in loads] == [(1, 10), (1, 0), (1, 0)]
    assert len(rejected(warehouse)) == 10
    assert len({(row["source"], row["row_number"]) for row in rejected(warehouse)}) == 10
    assert source_totals(warehouse, "billing_period", "rows") == [
        ("2026-09", 1),
        ("2026-10", 1),
        ("2026-11", 1),
        ("unknown", 1),
        ("unknown", 8),
    ]
    assert [load(warehouse, tmp_path, each).status for each in periods_of(bill_of(tmp_path))] == ["unchanged"] * 3


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    starts=st.lists(
        st.sampled_from(
            [
                "2026-09-01",
                "9/1/26",
                "2026-10-01T00:00:00Z",
                "2026-10-01T00:00:00+02:00",
                "2026-11-01 00:00",
                "soon",
                "",
            ]
        ),
        min_size=1,
        max_size=12,
    ),
    bad=st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_no_row_of_a_mixed_file_is_lost_or_taken_twice(
    duckdb_warehouse: Warehouse, tmp_path_factory: pytest.TempPathFactory, starts: list[str], bad: list[bool]
) -> None:
    folder = tmp_path_factory.mktemp("mixed")
    rows = [focus_row(BillingPeriodStart=start) for start in starts]
    for row, broken in zip(rows, bad, strict=False):
        row["BilledCost"] = "much" if broken else "1"
    write_csv(folder / "a.csv", rows)
    bill = bill_of(folder, connection_id=folder.name)
    if set(starts) <= {"soon", ""}:
        with pytest.raises(CollectionError, match="not one row"):
            periods_of(bill)
        return
    for period in periods_of(bill):
        load_period(duckdb_warehouse, FOCUS_BILLING, bill, period)
    path = str(folder / "a.csv")
    accepted = [
        row["x_row_number"] for row in billing(duckdb_warehouse, "x_row_number", "x_source") if row["x_source"] == path
    ]
    refused = [row["row_number"] for row in rejected(duckdb_warehouse) if row["source"] == path]
    assert sorted(accepted + refused) == list(range(1, len(rows) + 1))


def test_mixed_files_of_which_no_row_has_a_month_are_refused_by_name(warehouse: Warehouse, tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [focus_row(BillingPeriodStart="soon")])
    for act in (lambda: periods_of(bill_of(tmp_path)), lambda: load(warehouse, tmp_path)):
        with pytest.raises(CollectionError, match="not one row") as error:
            act()
        assert error.value.kind == "malformed"
        assert str(tmp_path) in str(error.value)


def test_a_default_may_give_mixed_files_their_month(warehouse: Warehouse, tmp_path: Path) -> None:
    row = {name: value for name, value in focus_row().items() if name != "BillingPeriodStart"}
    write_csv(tmp_path / "a.csv", [row])
    defaults = {"BillingPeriodStart": "2026-10-01"}
    assert periods_of(bill_of(tmp_path, defaults=defaults)) == [OCTOBER]
    assert load(warehouse, tmp_path, defaults=defaults).rows == 1


def test_a_mixed_file_that_dropped_an_old_month_does_not_empty_it(warehouse: Warehouse, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rolling.csv", [september(), focus_row()])
    for period in (SEPTEMBER, OCTOBER):
        load(warehouse, tmp_path, period)
    write_csv(path, [focus_row(), focus_row()])
    with pytest.raises(CollectionError, match="has nothing of 2026-09 any more; the 1 rows loaded before stay visible"):
        load(warehouse, tmp_path, SEPTEMBER)
    assert load(warehouse, tmp_path).rows == 2
    assert len(values(warehouse, "BilledCost")) == 3


# Exact


NUMBERS = [
    "0.0028165478379095776",
    "7.0E-10",
    "-0.000000000000000000001",
    "99999999999999999.999999999999999999999",
    "-12345678901234567.123456789012345678901",
    "$1,234.50 ",
    "1e-21",
    "100000",
    "0",
]


def exact_sum(numbers: list[Decimal]) -> Decimal:
    with localcontext(EXACT):
        return sum(numbers, Decimal(0))


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_every_printed_digit_arrives(warehouse: Warehouse, tmp_path: Path, name: str) -> None:
    write = write_csv if name.endswith("csv") else write_parquet
    write(tmp_path / "2026-10" / name, [focus_row(BilledCost=each, EffectiveCost="0") for each in NUMBERS])
    load(warehouse, tmp_path)
    expected = [Decimal(each.strip(" $").replace(",", "")) for each in NUMBERS]
    assert values(warehouse, "BilledCost") == expected
    [[billed]] = source_totals(warehouse, "billed_cost")
    assert billed == exact_sum(expected)


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.integers(-(10**34), 10**34).map(lambda digits: Decimal(digits).scaleb(-21, EXACT)),
            st.integers(-(10**15), 10**15).map(lambda digits: digits / 10**10),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_sums_in_the_warehouse_equal_sums_of_printed_digits(
    warehouse: Warehouse, tmp_path_factory: pytest.TempPathFactory, costs: list[tuple[Decimal, float]]
) -> None:
    folder, connection = tmp_path_factory.mktemp("sums"), f"c{len(committed(warehouse))}"
    decimals, doubles = [cost for cost, _ in costs], [cost for _, cost in costs]
    rows = [focus_row(BilledCost=str(cost), EffectiveCost=repr(double)) for cost, double in costs]
    write_csv(folder / "2026-10/text.csv", rows)
    write_parquet(
        folder / "2026-10/typed.parquet",
        rows,
        BilledCost=pa.array(decimals, pa.decimal128(38, 21)),
        EffectiveCost=pa.array(doubles),
    )
    assert load(warehouse, folder, connection_id=connection).rows == 2 * len(costs)
    [found] = warehouse.query(
        f"SELECT sum(BilledCost) AS billed, sum(EffectiveCost) AS effective FROM {warehouse.current(FOCUS_BILLING)} b"
        " WHERE x_connection_id = $connection",
        {"connection": connection},
    ).to_pylist()
    printed = [Decimal(repr(double)) for double in doubles]
    expected = {"billed": exact_sum(decimals * 2), "effective": exact_sum(printed * 2)}
    assert found == expected
    totals = source_totals(warehouse, "connection_id", "rows", "billed_cost", "effective_cost")
    assert [row[1:] for row in totals if row[0] == connection] == [(2 * len(costs), *expected.values())]


def test_source_totals_keep_invoices_and_currencies_apart_and_count_rejected_rows(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    rows = [
        focus_row(InvoiceId="I-1"),
        focus_row(InvoiceId="I-1", BilledCost="-0.5"),
        focus_row(InvoiceId="I-1", BillingCurrency="EUR"),
        focus_row(InvoiceId="I-2", ChargeCategory="Gift"),
    ]
    write_parquet(tmp_path / "2026-10/a.parquet", rows[:2])
    write_csv(tmp_path / "2026-10/b.csv", rows[2:])
    load(warehouse, tmp_path)
    assert source_totals(warehouse, "invoice_id", "currency", "rows", "billed_cost", "effective_cost") == [
        ("I-1", "EUR", 1, Decimal("1.5"), Decimal("1.25")),
        ("I-1", "USD", 2, Decimal(1), Decimal("2.5")),
        ("I-2", "USD", 1, Decimal("1.5"), Decimal("1.25")),
    ]


def test_costs_that_no_sum_can_hold_are_refused_as_such(warehouse: Warehouse, tmp_path: Path) -> None:
    write_csv(tmp_path / "2026-10/a.csv", [focus_row(BilledCost="99999999999999999")] * 2)
    with pytest.raises(CollectionError, match="add up to more than a warehouse can hold"):
        load(warehouse, tmp_path)
    assert billing(warehouse, "BilledCost") == []


def test_typed_parquet_is_read_as_what_it_holds(warehouse: Warehouse, tmp_path: Path) -> None:
    moment = datetime(2026, 10, 5, 4, tzinfo=UTC)
    write_parquet(
        tmp_path / "2026-10/a.parquet",
        [focus_row(), focus_row()],
        Tags=pa.array([[("team", "bl'ue")], None], pa.map_(pa.string(), pa.string())),
        ChargePeriodStart=pa.array([moment, moment], pa.timestamp("ms", tz="America/New_York")),
        BillingPeriodStart=pa.array([datetime(2026, 10, 1).date()] * 2, pa.date32()),
        ListCost=pa.nulls(2),
        ServiceName=pa.array(["Mail", ""]).dictionary_encode(),
        ConsumedQuantity=pa.array([3, None], pa.int32()),
        ListUnitPrice=pa.array([0.1, 1e-7]),
        PricingQuantity=pa.array([Decimal("0.5"), None], pa.decimal128(7, 3)),
        SkuId=pa.array([7, 8]),
    )
    load(warehouse, tmp_path)
    first, second = billing(
        warehouse, "Tags", "ChargePeriodStart", "ListCost", "ServiceName", "ConsumedQuantity", "ListUnitPrice", "SkuId"
    )
    assert first == {
        "Tags": '{"team":"bl\'ue"}',
        "ChargePeriodStart": moment,
        "ListCost": None,
        "ServiceName": "Mail",
        "ConsumedQuantity": Decimal(3),
        "ListUnitPrice": Decimal("0.1"),
        "SkuId": "7",
    }
    assert second == first | {
        "Tags": None,
        "ServiceName": None,
        "ConsumedQuantity": None,
        "ListUnitPrice": Decimal("1e-7"),
        "SkuId": "8",
    }


def test_decimals_wider_than_can_be_read_exactly_are_rejected_and_not_rounded(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    wide = pa.array([Decimal("0.1234567890123456789012345")], pa.decimal256(60, 30))
    write_parquet(tmp_path / "2026-10/a.parquet", [focus_row()], BilledCost=wide)
    assert load(warehouse, tmp_path).rows_rejected == 1
    [reason] = reasons(warehouse)
    assert "cannot be read exactly" in reason


# From S3, as clouds deliver


def s3_bill(bucket: Bucket) -> Bill:
    source = BillingSource(
        location=f"s3://{bucket.name}/exports/focus", layout="aws_data_export", endpoint_url=bucket.url
    )
    return Bill("acme", "main", "aws", source, bucket.location("exports/focus"))


def publish(bucket: Bucket, folder: Path, **files: list[dict[str, str]]) -> None:
    """Put Parquet files into the bucket, and the manifest that makes them October's bill."""
    keys = {f"exports/focus/data/BILLING_PERIOD=2026-10/{name}.parquet": rows for name, rows in files.items()}
    objects = {key: write_parquet(folder / Path(key).name, rows).read_bytes() for key, rows in keys.items()}
    bucket.put_all(objects)
    manifest = json.dumps({"dataFiles": [f"s3://{bucket.name}/{key}" for key in keys]}).encode()
    bucket.put_all({"exports/focus/metadata/BILLING_PERIOD=2026-10/focus-Manifest.json": manifest})


def test_an_export_in_a_bucket_is_loaded_restated_and_never_mixed_with_leftovers(
    warehouse: Warehouse, bucket: Bucket, tmp_path: Path
) -> None:
    publish(bucket, tmp_path, a=[focus_row(BilledCost="1")], b=[focus_row(BilledCost="2")] * 2)
    bill = s3_bill(bucket)
    assert load_period(warehouse, FOCUS_BILLING, bill, OCTOBER).rows == 3
    assert load_period(warehouse, FOCUS_BILLING, bill, OCTOBER).status == "unchanged"
    publish(bucket, tmp_path, c=[focus_row(BilledCost="5"), focus_row(BilledCost="much")])
    assert load_period(warehouse, FOCUS_BILLING, bill, OCTOBER).rows == 1
    source = f"s3://{bucket.name}/exports/focus/data/BILLING_PERIOD=2026-10/c.parquet"
    assert billing(warehouse, "BilledCost", "x_source") == [{"BilledCost": Decimal(5), "x_source": source}]
    assert [row["source"] for row in rejected(warehouse)] == [source]


def test_a_download_that_breaks_off_leaves_the_old_bill_and_the_next_run_mends_it(
    warehouse: Warehouse, bucket: Bucket, tmp_path: Path
) -> None:
    publish(bucket, tmp_path, a=[focus_row(BilledCost="1")])
    bill = s3_bill(bucket)
    load_period(warehouse, FOCUS_BILLING, bill, OCTOBER)
    publish(bucket, tmp_path, a=[focus_row(BilledCost="2")] * 2, b=[focus_row(BilledCost="3")])
    bucket.fault(f"GET /{bucket.name}/exports/focus/data/BILLING_PERIOD=2026-10/b", kind="status", status=403, times=9)
    with pytest.raises(CollectionError) as error:
        load_period(warehouse, FOCUS_BILLING, bill, OCTOBER)
    assert error.value.kind == "auth"
    assert "b.parquet" in str(error.value)
    assert values(warehouse, "BilledCost") == [Decimal(1)]
    bucket.heal()
    load_period(warehouse, FOCUS_BILLING, bill, OCTOBER)
    assert values(warehouse, "BilledCost") == [Decimal(2), Decimal(2), Decimal(3)]


def test_both_engines_give_the_same_rows_for_the_same_files(
    duckdb_warehouse: Warehouse, clickhouse_warehouse: Warehouse, tmp_path: Path
) -> None:
    note, printed = 'it\'s \\ "é"\n', (*NUMBERS[4:], "much", "")
    rows = [focus_row(BilledCost=each, InvoiceId=each, Tags="{}", x_Note=note) for each in printed]
    write_csv(tmp_path / "2026-10/a.csv", rows, extra="1,2\n")
    write_parquet(tmp_path / "2026-10/b.parquet", rows, ListCost=pa.array([0.1 * n for n in range(len(rows))]))
    both = (duckdb_warehouse, clickhouse_warehouse)
    for warehouse in both:
        load(warehouse, tmp_path)
    columns = [name for name in FOCUS_BILLING.column_names if name not in ("x_load_id", "x_collected_at")]
    first, second = (billing(warehouse, *columns) for warehouse in both)
    assert first == second
    assert len(first) == 2 * len(NUMBERS[4:])
    kept = [name for name in REJECTED_ROWS.column_names if name not in ("load_id", "collected_at")]
    refused = [[{name: row[name] for name in kept} for row in rejected(warehouse)] for warehouse in both]
    assert refused[0] == refused[1]
    assert len(refused[0]) == 5
    totals = [source_totals(warehouse, "invoice_id", "rows", "billed_cost", "effective_cost") for warehouse in both]
    assert totals[0] == totals[1]


def test_a_period_that_a_file_was_touched_in_is_read_again_and_counts_the_same(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "2026-10/a.csv", [focus_row()])
    first = load(warehouse, tmp_path)
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    second = load(warehouse, tmp_path)
    assert (second.status, second.rows) == ("succeeded", 1)
    assert values(warehouse, "x_load_id") == [second.load_id]
    assert first.load_id != second.load_id


def test_a_period_of_the_bill_is_named_by_customer_connection_and_month(tmp_path: Path) -> None:
    assert bill_of(tmp_path, connection_id="side").slice(BillingPeriod("2026-01")) == "acme/side/2026-01"
