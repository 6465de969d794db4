"""Bills as they should not be: told apart from good ones row by row, and powerless to do more than be rejected."""

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.tables import ALL_TABLES
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines_tests.focus_files import (
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

WRITERS: dict[str, Callable[..., Path]] = {"csv": write_csv, "parquet": write_parquet}
HOSTILE = "'; DROP TABLE raw.focus_billing; DELETE FROM optiinfra_raw.loads; -- \" \\ $x {y:String} %s"


@pytest.fixture(params=WRITERS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def test_sql_in_values_names_and_paths_is_stored_and_never_run(warehouse: Warehouse, tmp_path: Path, kind: str) -> None:
    good = focus_row(ChargeDescription=HOSTILE, Tags=HOSTILE, ServiceName=HOSTILE) | {f"x_{HOSTILE}": HOSTILE}
    bad = good | {"ChargeCategory": HOSTILE}
    folder = tmp_path / "it's; DROP TABLE x --"
    path = WRITERS[kind](folder / f"2026-10/{HOSTILE.replace('/', '')}.{kind}", [good, bad])
    load(warehouse, folder)
    [row] = billing(warehouse, "ChargeDescription", "Tags", "ServiceName", "x_extra", "x_source")
    assert row == {
        "ChargeDescription": HOSTILE,
        "Tags": HOSTILE,
        "ServiceName": HOSTILE,
        "x_extra": row["x_extra"],
        "x_source": str(path),
    }
    assert json.loads(row["x_extra"]) == {f"x_{HOSTILE}": HOSTILE}
    [refused] = rejected(warehouse)
    assert (refused["payload"], refused["source"]) == (bad, str(path))
    assert load(warehouse, folder).status == "unchanged"
    warehouse.create_tables(ALL_TABLES)


def test_columns_called_like_the_loaders_own_do_not_confuse_it(warehouse: Warehouse, tmp_path: Path, kind: str) -> None:
    names = ["x_source", "x_row_number", "x_load_id", "x_extra", "source", "c0", "=BilledCost", '"="', "billedcost"]
    path = WRITERS[kind](tmp_path / f"2026-10/a.{kind}", [focus_row() | dict.fromkeys(names, "mine")])
    loaded = load(warehouse, tmp_path)
    [row] = billing(warehouse, "x_source", "x_row_number", "x_load_id", "x_extra", "BilledCost")
    assert json.loads(row.pop("x_extra")) == dict.fromkeys(names, "mine")
    assert row == {
        "x_source": str(path),
        "x_row_number": 1,
        "x_load_id": loaded.load_id,
        "BilledCost": Decimal("1.5"),
    }


def test_each_bad_row_is_rejected_with_its_first_fault_and_the_good_ones_are_loaded(
    warehouse: Warehouse, tmp_path: Path, kind: str
) -> None:
    faults = {
        "BilledCost: is missing": {"BilledCost": "NULL"},
        "BilledCost: is not a number with at most 17 digits before the point": {"BilledCost": "1_000"},
        "BilledCost: has more than 21 decimals": {"BilledCost": "1e-22"},
        "EffectiveCost: is not a number with at most 17 digits before the point": {
            "EffectiveCost": "100000000000000000"
        },
        "BillingCurrency: is missing": {"BillingCurrency": ""},
        "BillingPeriodStart: is not a date of a bill": {"BillingPeriodStart": "5-1-25"},
        "BillingPeriodEnd: is missing": {"BillingPeriodEnd": ""},
        "ChargePeriodEnd: is not a date of a bill": {"ChargePeriodEnd": "2023-02-01T30:00:00Z"},
        "ChargePeriodStart: is missing": {"ChargePeriodStart": ""},
        "ChargeCategory: is not a value that FOCUS knows": {"ChargeCategory": "Gift"},
    }
    if kind == "parquet":
        faults["BilledCost: is missing"] = {"BilledCost": ""}  # a text in Parquet is what it is, NULL included
    rows = [row for fault in faults.values() for row in (focus_row(**fault), focus_row())]
    WRITERS[kind](tmp_path / f"2026-10/a.{kind}", rows)
    loaded = load(warehouse, tmp_path)
    assert reasons(warehouse) == list(faults)
    assert [row["row_number"] for row in rejected(warehouse)] == list(range(1, 2 * len(faults), 2))
    assert (loaded.rows, loaded.rows_read, loaded.rows_rejected) == (len(faults), 2 * len(faults), len(faults))
    [counted] = source_totals(warehouse, "rows")[:1]
    assert sum(rows for (rows,) in source_totals(warehouse, "rows")) == 2 * len(faults), counted


def test_ways_to_write_the_same_are_read_as_the_same(warehouse: Warehouse, tmp_path: Path, kind: str) -> None:
    ways = [
        {"ChargePeriodStart": "2026-10-05T04:00:00Z"},
        {"ChargePeriodStart": "2026-10-05 04:00:00"},
        {"ChargePeriodStart": "2026-10-05T06:00:00+02:00"},
        {"ChargePeriodStart": "2026-10-04T23:00-05"},
        {"ChargePeriodStart": "10/5/26 4:00"},
        {"ChargePeriodStart": "10/05/2026 04:00:00"},
        {"BilledCost": " 1.50 "},
        {"BilledCost": "$1.50"},
        {"BilledCost": "15E-1"},
        {"ChargeCategory": "USAGE"},
        {"ChargeCategory": " usage "},
    ]
    rows = [focus_row(ChargePeriodStart="2026-10-05T04:00:00Z") | way for way in ways]
    WRITERS[kind](tmp_path / f"2026-10/a.{kind}", rows)
    assert load(warehouse, tmp_path).rows_rejected == 0
    for row in billing(warehouse, "ChargePeriodStart", "BilledCost", "ChargeCategory"):
        assert row == {
            "ChargePeriodStart": datetime(2026, 10, 5, 4, tzinfo=UTC),
            "BilledCost": Decimal("1.5"),
            "ChargeCategory": "Usage",
        }


def test_values_that_focus_does_not_know_are_kept_where_no_sum_depends_on_them(
    warehouse: Warehouse, tmp_path: Path, kind: str
) -> None:
    row = focus_row(ServiceCategory="Quantum", PricingCategory="haggled", BillingCurrency="TOKENS", ServiceName="null ")
    WRITERS[kind](tmp_path / f"2026-10/a.{kind}", [row])
    load(warehouse, tmp_path)
    found = billing(warehouse, "ServiceCategory", "PricingCategory", "BillingCurrency", "ServiceName")
    assert found == [
        {
            "ServiceCategory": "Quantum",
            "PricingCategory": "haggled",
            "BillingCurrency": "TOKENS",
            "ServiceName": "null ",
        }
    ]


def test_the_words_for_nothing_in_a_csv_file_are_nothing(warehouse: Warehouse, tmp_path: Path) -> None:
    rows = [focus_row(ServiceName=each, ListCost=each, CommitmentDiscountId=each) for each in ("", "NULL", "null")]
    path = write_csv(tmp_path / "2026-10/a.csv", rows)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    load(warehouse, tmp_path)
    columns = ("ServiceName", "ListCost", "CommitmentDiscountId")
    assert billing(warehouse, *columns) == [dict.fromkeys(columns)] * 3
    assert values(warehouse, "BilledCost") == [Decimal("1.5")] * 3


def test_ragged_lines_are_kept_under_their_own_numbers_beside_rejected_rows(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    header, good = write_csv(tmp_path / "row.csv", [focus_row(Tags="one\nline more")]).read_text().split("\n", 1)
    bad = good.replace("1.5", "much", 1)
    text = f"{header}\n{good}too,few\n\n{good}{bad}{good.rstrip()},too many\n{good}"
    for name, content in (("a.csv", text.encode()), ("b.csv.gz", gzip.compress(text.encode()))):
        (tmp_path / "bill/2026-10").mkdir(parents=True, exist_ok=True)
        (tmp_path / "bill/2026-10" / name).write_bytes(content)
    loaded = load(warehouse, tmp_path / "bill")
    assert (loaded.rows, loaded.rows_rejected) == (6, 6)
    found = [(Path(row["source"]).name, row["row_number"], row["reason"].split(":")[0]) for row in rejected(warehouse)]
    assert found == [
        (name, *each) for name in ("a.csv", "b.csv.gz") for each in ((2, "line"), (4, "BilledCost"), (5, "line"))
    ]
    assert values(warehouse, "x_row_number") == [1, 3, 6] * 2


def test_a_parquet_file_with_a_damaged_page_is_refused_and_the_old_month_stays(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    path = write_parquet(tmp_path / "2026-10/a.parquet", [focus_row(Tags=f"{number}" * 50) for number in range(5000)])
    load(warehouse, tmp_path)
    content = bytearray(path.read_bytes())
    pages = pq.read_metadata(path).row_group(0).column(0)
    damaged = pages.data_page_offset + 20
    content[damaged : damaged + 200] = b"\xff" * 200
    path.write_bytes(content)
    with pytest.raises(CollectionError) as error:
        load(warehouse, tmp_path)
    assert error.value.kind == "malformed"
    assert len(values(warehouse, "BilledCost")) == 5000
