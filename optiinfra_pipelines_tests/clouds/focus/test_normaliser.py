"""Columns as bills happen to have them become the contract's, and every row is accepted or rejected with a reason."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from optiinfra_pipelines.clouds.focus.normaliser import Normalisation, Origin, normalise, period_of_path
from optiinfra_pipelines.tables.billing import FOCUS_BILLING
from optiinfra_pipelines.tables.contract import Type
from optiinfra_pipelines.tables.focus import FOCUS_COLUMNS
from optiinfra_pipelines.windows import BillingPeriod
from optiinfra_pipelines_tests.focus_files import focus_row

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        yield con


class Bill:
    """Rows as a file has them, normalised."""

    def __init__(self, con: duckdb.DuckDBPyConnection, table: pa.Table, **origin: Any) -> None:
        known = {"customer_id": "acme", "connection_id": "main", "provider": "focus"}
        self.plan: Normalisation = normalise(table.schema, Origin(**(known | origin)))
        source = table.rename_columns([f"c{index}" for index in range(table.num_columns)])
        source = source.append_column("x_source", pa.array(["file"] * len(table), pa.string()))
        con.register("source", source.append_column("x_row_number", pa.array(range(1, len(table) + 1), pa.int64())))
        self._con = con

    def _rows(self, select: str) -> Rows:
        return self._con.sql(f"SELECT * FROM ({select}) ORDER BY ALL").to_arrow_table().to_pylist()

    @property
    def accepted(self) -> Rows:
        return sorted(self._rows(self.plan.accepted), key=lambda row: row["x_row_number"])

    @property
    def rejected(self) -> list[tuple[int, str]]:
        return sorted((row["row_number"], row["reason"]) for row in self._rows(self.plan.rejected))

    @property
    def unplaced(self) -> list[int]:
        return sorted(row["row_number"] for row in self._rows(self.plan.unplaced))

    @property
    def payloads(self) -> Rows:
        return [json.loads(row["payload"], parse_constant=pytest.fail) for row in self._rows(self.plan.rejected)]


def bill(con: duckdb.DuckDBPyConnection, *rows: Mapping[str, str | None], **origin: Any) -> Bill:
    columns = {name: pa.array([row[name] for row in rows], pa.string()) for name in rows[0]}
    return Bill(con, pa.table(columns), **origin)


def test_a_row_has_every_column_of_the_contract_but_those_of_its_load(con: duckdb.DuckDBPyConnection) -> None:
    [row] = bill(con, focus_row()).accepted
    assert set(row) == set(FOCUS_BILLING.column_names) - {"x_load_id", "x_collected_at"}
    assert (row["BilledCost"], row["EffectiveCost"], row["ListCost"]) == (Decimal("1.5"), Decimal("1.25"), None)
    assert row["ChargePeriodEnd"] == datetime(2026, 10, 2)
    assert (row["x_customer_id"], row["x_connection_id"], row["x_source"], row["x_row_number"]) == (
        "acme",
        "main",
        "file",
        1,
    )


def test_columns_are_known_in_any_case_and_by_their_older_names(con: duckdb.DuckDBPyConnection) -> None:
    renamed = {f" {name.upper()} ": value for name, value in focus_row().items() if name != "ProviderName"}
    found = bill(con, renamed | {"Provider": "Acme", "x_InvoiceId": "I-1", "Publisher": "Books", "Region": "Mars"})
    [row] = found.accepted
    names = ("BilledCost", "ProviderName", "InvoiceId", "PublisherName", "RegionName", "x_extra")
    assert [row[name] for name in names] == [Decimal("1.5"), "Acme", "I-1", "Books", "Mars", None]
    assert {"BilledCost", "InvoiceId"} <= set(found.plan.columns_present)
    assert "ListCost" not in found.plan.columns_present


def test_a_column_under_its_own_name_wins_over_an_older_name_which_is_kept_aside(
    con: duckdb.DuckDBPyConnection,
) -> None:
    [row] = bill(con, {"Provider": "Old", **focus_row(ProviderName="New")}).accepted
    assert (row["ProviderName"], json.loads(row["x_extra"])) == ("New", {"Provider": "Old"})


def test_columns_that_differ_in_case_alone_keep_their_own_values(con: duckdb.DuckDBPyConnection) -> None:
    [row] = bill(con, focus_row(billedcost="7", x_team="a", x_Team="b", X_TEAM="c")).accepted
    assert row["BilledCost"] == Decimal("1.5")
    assert json.loads(row["x_extra"]) == {"billedcost": "7", "x_team": "a", "x_Team": "b", "X_TEAM": "c"}


def test_names_of_columns_are_only_names(con: duckdb.DuckDBPyConnection) -> None:
    hostile = {
        'a"; DROP TABLE x; --': "1",
        "it's": "2",
        "=": "3",
        "=BilledCost": "4",
        '"="': "5",
        "x_source": "6",
        "x_row_number": "7",
        "x_reason": "8",
        "c0": "9",
        "": "10",
        "a.b": "11",
        "{x}": "12",
    }
    [row] = bill(con, focus_row(**hostile)).accepted
    assert json.loads(row["x_extra"]) == hostile
    assert (row["x_source"], row["x_row_number"], row["BilledCost"]) == ("file", 1, Decimal("1.5"))
    [payload] = bill(con, focus_row(**hostile) | {"BilledCost": "much"}).payloads
    assert payload == focus_row(**hostile) | {"BilledCost": "much"}


def test_text_of_customers_is_only_text(con: duckdb.DuckDBPyConnection) -> None:
    text = "O'Neil \"&\" Sons'; DROP TABLE x; -- \\ \n😀"
    [row] = bill(con, focus_row(Tags=text, ChargeDescription=text), customer_id="o'neil", connection_id="a'b").accepted
    assert (row["Tags"], row["ChargeDescription"]) == (text, text)
    assert (row["x_customer_id"], row["x_connection_id"]) == ("o'neil", "a'b")


def test_columns_that_focus_does_not_know_are_kept_where_they_have_a_value(con: duckdb.DuckDBPyConnection) -> None:
    first, second = bill(con, focus_row(x_a="1", x_b="2"), focus_row(x_a="3") | {"x_b": None}).accepted
    assert [json.loads(row["x_extra"]) for row in (first, second)] == [{"x_a": "1", "x_b": "2"}, {"x_a": "3"}]
    [row] = bill(con, focus_row() | {"x_a": None}).accepted
    assert row["x_extra"] is None


def test_numbers_and_nested_values_among_unknown_columns_stay_json(con: duckdb.DuckDBPyConnection) -> None:
    known = pa.Table.from_pylist([focus_row()] * 2)
    unknown = {
        "x_double": pa.array([0.1, float("nan")]),
        "x_decimal": pa.array([Decimal("0.123456789012345678901234567"), None], pa.decimal128(38, 27)),
        "x_map": pa.array([[("k", "v")], None], pa.map_(pa.string(), pa.string())),
        "x_none": pa.nulls(2),
    }
    for name, column in unknown.items():
        known = known.append_column(name, column)
    first, second = Bill(con, known).accepted
    expected = {"x_double": 0.1, "x_decimal": "0.123456789012345678901234567", "x_map": {"k": "v"}}
    assert json.loads(first["x_extra"]) == expected
    assert json.loads(second["x_extra"], parse_constant=pytest.fail) == {"x_double": "nan"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"BilledCost": "much"}, "BilledCost: is not a number with at most 17 digits before the point"),
        ({"BilledCost": ""}, "BilledCost: is missing"),
        ({"BillingCurrency": None}, "BillingCurrency: is missing"),
        ({"ChargeCategory": "Gift"}, "ChargeCategory: is not a value that FOCUS knows"),
        ({"ChargePeriodEnd": "2026-10-01T30:00:00Z"}, "ChargePeriodEnd: is not a date of a bill"),
        ({"BillingPeriodStart": "5-1-25"}, "BillingPeriodStart: is not a date of a bill"),
        ({"EffectiveCost": "0.0000000000000000000001"}, "EffectiveCost: has more than 21 decimals"),
    ],
)
def test_a_row_without_a_place_in_a_sum_is_rejected_and_kept_as_it_was_read(
    con: duckdb.DuckDBPyConnection, changes: dict[str, str | None], reason: str
) -> None:
    found = bill(con, focus_row() | changes)
    assert found.accepted == []
    assert found.rejected == [(1, reason)]
    assert found.payloads == [focus_row() | changes]


@pytest.mark.parametrize("name", ["BilledCost", "BillingPeriodStart", "ChargeCategory"])
def test_a_file_without_a_required_column_has_all_its_rows_rejected(con: duckdb.DuckDBPyConnection, name: str) -> None:
    row = {key: value for key, value in focus_row().items() if key != name}
    assert bill(con, row, row).rejected == [(1, f"{name}: is missing"), (2, f"{name}: is missing")]


def test_a_payload_is_json_even_where_a_number_is_none(con: duckdb.DuckDBPyConnection) -> None:
    table = pa.Table.from_pylist([focus_row()] * 2).drop_columns(["BilledCost"])
    found = Bill(con, table.append_column("BilledCost", pa.array([float("nan"), float("-inf")])))
    assert [row["BilledCost"] for row in found.payloads] == ["nan", "-inf"]


def test_defaults_fill_what_a_file_lacks_and_hide_nothing(con: duckdb.DuckDBPyConnection) -> None:
    defaults = {"BillingCurrency": "EUR", "ServiceName": "It's a service", "EffectiveCost": "2.5"}
    rows = [focus_row(), focus_row(BillingCurrency=""), focus_row(EffectiveCost="much"), focus_row(EffectiveCost="")]
    found = bill(con, *rows, defaults=defaults)
    assert found.rejected == [(3, "EffectiveCost: is not a number with at most 17 digits before the point")]
    taken = [(row["BillingCurrency"], row["ServiceName"], row["EffectiveCost"]) for row in found.accepted]
    service = "It's a service"
    assert taken == [
        ("USD", service, Decimal("1.25")),
        ("EUR", service, Decimal("1.25")),
        ("USD", service, Decimal("2.5")),
    ]


def test_a_default_that_cannot_be_read_rejects_the_rows_that_need_it(con: duckdb.DuckDBPyConnection) -> None:
    found = bill(con, focus_row(), defaults={"ListCost": "much"})
    assert found.rejected == [(1, "ListCost: is not a number with at most 17 digits before the point")]


@pytest.mark.parametrize("placeholder", ["-2", "Unassigned"])
def test_what_azure_prints_for_none_is_none(con: duckdb.DuckDBPyConnection, placeholder: str) -> None:
    [row] = bill(con, focus_row(SkuId=placeholder, RegionName=placeholder, ServiceName=placeholder)).accepted
    assert (row["SkuId"], row["RegionName"], row["ServiceName"]) == (None, None, placeholder)


def test_identifiers_stored_as_numbers_are_text(con: duckdb.DuckDBPyConnection) -> None:
    table = pa.Table.from_pylist([focus_row()] * 2)
    found = Bill(con, table.append_column("SkuId", pa.array([77, -2])))
    assert [row["SkuId"] for row in found.accepted] == ["77", None]


def test_enumerations_in_another_case_are_set_right_and_unknown_services_are_kept(
    con: duckdb.DuckDBPyConnection,
) -> None:
    [row] = bill(
        con,
        focus_row(ChargeCategory="usage", ServiceCategory="Quantum", PricingCategory="STANDARD", ChargeFrequency=""),
    ).accepted
    names = ("ChargeCategory", "ServiceCategory", "PricingCategory", "ChargeFrequency")
    assert [row[name] for name in names] == ["Usage", "Quantum", "Standard", None]


@pytest.mark.parametrize(
    ("printed", "provider"),
    [
        ("AWS", "aws"),
        ("Amazon Web Services, Inc.", "aws"),
        ("Microsoft", "azure"),
        ("Microsoft Azure", "azure"),
        ("Google Cloud", "gcp"),
        ("GCP", "gcp"),
        ("Oracle", "oracle"),
        ("", "unknown"),
    ],
)
def test_the_provider_of_a_mixed_location_is_told_by_its_rows(
    con: duckdb.DuckDBPyConnection, printed: str, provider: str
) -> None:
    [row] = bill(con, focus_row(ProviderName=printed)).accepted
    assert row["x_provider"] == provider
    [row] = bill(con, focus_row(ProviderName=printed), provider="aws").accepted
    assert row["x_provider"] == "aws"


@pytest.mark.parametrize("version", ["1.1", "1.2", "1.3"])
def test_the_version_of_a_file_is_the_newest_of_whose_columns_it_has_half(
    con: duckdb.DuckDBPyConnection, version: str
) -> None:
    own = [column.name for column in FOCUS_COLUMNS if column.since == version and column.type is Type.STRING]
    few, half = focus_row(**{own[0]: "x"}), focus_row(**dict.fromkeys(own, "x"))
    assert [bill(con, row).accepted[0]["x_focus_version"] for row in (few, half)] == ["1.0", version]


def test_a_period_takes_its_own_rows_and_leaves_those_of_no_month_to_be_taken_once(
    con: duckdb.DuckDBPyConnection,
) -> None:
    rows = [
        focus_row(BillingPeriodStart="2026-09-01T00:00:00Z"),
        focus_row(BillingPeriodStart="2026-10-01T00:00:00Z"),
        focus_row(BillingPeriodStart="2026-11-01T00:00:00+02:00"),  # October, 22 o'clock
        focus_row(BillingPeriodStart="2026-10-01", BilledCost="much"),
        focus_row(BillingPeriodStart="2026-11-01", BilledCost="much"),
        focus_row(BillingPeriodStart="soon"),
        focus_row(BillingPeriodStart=""),
        focus_row(BillingPeriodStart="5-1-25"),
    ]
    found = bill(con, *rows, period=BillingPeriod("2026-10"))
    assert [row["x_row_number"] for row in found.accepted] == [2, 3]
    assert [number for number, _ in found.rejected] == [4]
    assert found.unplaced == [6, 7, 8]


@pytest.mark.parametrize(
    ("path", "period"),
    [
        ("exports/data/BILLING_PERIOD=2026-10/file.parquet", "2026-10"),
        ("exports/billing_period=2026-10", "2026-10"),
        ("report/20261001-20261101/file.csv", "2026-10"),
        ("export/20261001-20261031/run/part.csv", "2026-10"),
        ("folder/2026-10/file.csv", "2026-10"),
        ("2026-10/file.csv", "2026-10"),
        ("folder/bill-2026-10.csv", None),
        ("folder/2026-13/file.csv", None),
        ("folder/1026-10/file.csv", None),
        ("folder/20261301-20261401/file.csv", None),
        ("file.csv", None),
    ],
)
def test_a_path_may_name_a_period(path: str, period: str | None) -> None:
    assert period_of_path(path) == period


# Cost and Usage Reports

LINE = {
    "bill/PayerAccountId": "111122223333",
    "bill/BillingPeriodStartDate": "2026-10-01T00:00:00Z",
    "bill/BillingPeriodEndDate": "2026-11-01T00:00:00Z",
    "bill/InvoiceId": "I-1",
    "lineItem/LineItemType": "Usage",
    "lineItem/UsageStartDate": "2026-10-01T00:00:00Z",
    "lineItem/UsageEndDate": "2026-10-01T01:00:00Z",
    "lineItem/ProductCode": "AmazonEC2",
    "lineItem/UnblendedCost": "7.0E-10",
    "lineItem/UnblendedRate": "0.5",
    "lineItem/UsageAmount": "2",
    "lineItem/CurrencyCode": "USD",
    "pricing/unit": "Hrs",
    "savingsPlan/SavingsPlanEffectiveCost": "3",
    "savingsPlan/TotalCommitmentToDate": "10",
    "savingsPlan/UsedCommitment": "4",
    "savingsPlan/SavingsPlanARN": "arn:sp",
    "reservation/EffectiveCost": "5",
    "reservation/UnusedAmortizedUpfrontFeeForBillingPeriod": "1",
    "reservation/UnusedRecurringFee": "2",
    "reservation/ReservationARN": "arn:ri",
    "product/region": "us-east-1",
    "resourceTags/user:Team": "blue",
    "resourceTags/user:team": "red",
    "resourceTags/aws:createdBy": "",
    "lineItem/BlendedCost": "9",
}


def test_a_cost_and_usage_report_becomes_focus_rows(con: duckdb.DuckDBPyConnection) -> None:
    found = bill(con, LINE)
    [row] = found.accepted
    assert (found.plan.layout, row["x_focus_version"], row["x_provider"]) == ("cur", "cur", "aws")
    assert row["BilledCost"] == row["EffectiveCost"] == row["ListCost"] == Decimal("7.0E-10")
    names = ("BillingAccountId", "InvoiceId", "ServiceCategory", "ConsumedUnit", "RegionId", "ProviderName")
    assert [row[name] for name in names] == ["111122223333", "I-1", "Compute", "Hrs", "us-east-1", "AWS"]
    assert json.loads(row["Tags"]) == {"user:Team": "blue", "user:team": "red"}
    assert json.loads(row["x_extra"]) == {"lineItem/BlendedCost": "9"}


@pytest.mark.parametrize(
    ("kind", "category", "effective", "commitment"),
    [
        ("Usage", "Usage", "7.0E-10", None),
        ("SavingsPlanCoveredUsage", "Usage", "3", "arn:sp"),
        ("SavingsPlanNegation", "Adjustment", "0", "arn:sp"),
        ("SavingsPlanUpfrontFee", "Purchase", "0", "arn:sp"),
        ("SavingsPlanRecurringFee", "Purchase", "6", "arn:sp"),
        ("DiscountedUsage", "Usage", "5", "arn:ri"),
        ("RIFee", "Purchase", "3", "arn:ri"),
        ("Tax", "Tax", "7.0E-10", None),
        ("Credit", "Credit", "7.0E-10", None),
        ("Refund", "Credit", "7.0E-10", None),
    ],
)
def test_each_type_of_line_item_has_its_category_and_amortised_cost(
    con: duckdb.DuckDBPyConnection, kind: str, category: str, effective: str, commitment: str | None
) -> None:
    [row] = bill(con, LINE | {"lineItem/LineItemType": kind}).accepted
    assert (row["ChargeCategory"], row["EffectiveCost"]) == (category, Decimal(effective))
    assert (row["BilledCost"], row["CommitmentDiscountId"]) == (Decimal("7.0E-10"), commitment)
    assert row["ChargeClass"] == ("Correction" if kind == "Refund" else None)


def test_a_report_with_types_and_columns_without_any_value_is_read_too(con: duckdb.DuckDBPyConnection) -> None:
    table = pa.table(
        {
            "bill_billing_period_start_date": pa.array([datetime(2026, 10, 1)]),
            "bill_billing_period_end_date": pa.array([datetime(2026, 11, 1)]),
            "line_item_usage_start_date": pa.array([datetime(2026, 10, 1)]),
            "line_item_usage_end_date": pa.array([datetime(2026, 10, 2)]),
            "line_item_line_item_type": ["Usage"],
            "line_item_unblended_cost": pa.array([0.1 + 0.2]),
            "line_item_currency_code": ["USD"],
            "savings_plan_savings_plan_effective_cost": pa.nulls(1),
            "resource_tags_user_team": pa.nulls(1),
            "resource_tags_user_cost_center": pa.array([42]),
        }
    )
    [row] = Bill(con, table, provider="aws").accepted
    assert row["BilledCost"] == Decimal("0.30000000000000004")
    assert json.loads(row["Tags"]) == {"resource_tags_user_cost_center": "42"}


def test_a_report_of_the_newer_kind_has_its_tags_in_one_map(con: duckdb.DuckDBPyConnection) -> None:
    table = pa.Table.from_pylist([{name: value for name, value in LINE.items() if "resourceTags" not in name}])
    tags = pa.array([[("user_team", "blue")]], pa.map_(pa.string(), pa.string()))
    [row] = Bill(con, table.append_column("resource_tags", tags)).accepted
    assert json.loads(row["Tags"]) == {"user_team": "blue"}


def test_a_number_that_cannot_be_read_rejects_the_line_whose_amortised_cost_needs_it_and_no_other(
    con: duckdb.DuckDBPyConnection,
) -> None:
    line = LINE | {"savingsPlan/UsedCommitment": "None"}
    found = bill(con, line, line | {"lineItem/LineItemType": "SavingsPlanRecurringFee"})
    assert [row["x_row_number"] for row in found.accepted] == [1]
    assert found.rejected == [(2, "EffectiveCost: is not a number with at most 17 digits before the point")]
