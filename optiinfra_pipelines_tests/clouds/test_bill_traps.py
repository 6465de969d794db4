"""What a naive collector gets wrong of bills in files, each trap loaded through the public way in. Which other tests
prove the traps of that list is in `test_traps.py`."""

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from optiinfra_pipelines.clouds.aws.bill import charge_rows
from optiinfra_pipelines.clouds.focus.loader import Bill, load_period
from optiinfra_pipelines.customers import BillingSource
from optiinfra_pipelines.tables.billing import FOCUS_BILLING
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import BillingPeriod, days, windows
from optiinfra_pipelines_tests.buckets import Bucket
from optiinfra_pipelines_tests.focus_files import (
    OCTOBER,
    billing,
    focus_row,
    load,
    reasons,
    source_totals,
    values,
    write_csv,
    write_parquet,
)

PACIFIC = ZoneInfo("America/Los_Angeles")
LINE = {
    "bill/PayerAccountId": "111122223333",
    "bill/BillingPeriodStartDate": "2026-10-01T00:00:00Z",
    "bill/BillingPeriodEndDate": "2026-11-01T00:00:00Z",
    "bill/InvoiceId": "I-1",
    "lineItem/LineItemType": "Usage",
    "lineItem/UsageAccountId": "444455556666",
    "lineItem/ResourceId": "i-1",
    "lineItem/UsageStartDate": "2026-10-01T00:00:00Z",
    "lineItem/UsageEndDate": "2026-10-01T01:00:00Z",
    "lineItem/UnblendedCost": "0",
    "lineItem/CurrencyCode": "USD",
    "reservation/EffectiveCost": "",
    "reservation/UnusedAmortizedUpfrontFeeForBillingPeriod": "",
    "reservation/UnusedRecurringFee": "",
    "reservation/ReservationARN": "",
    "savingsPlan/SavingsPlanEffectiveCost": "",
    "savingsPlan/TotalCommitmentToDate": "",
    "savingsPlan/UsedCommitment": "",
}


def line(kind: str, cost: str, **changes: str) -> dict[str, str]:
    """A line of a Cost and Usage Report; `changes` go by the ends of column names."""
    named = {name: value for end, value in changes.items() for name in LINE if name.endswith(f"/{end}")}
    return LINE | {"lineItem/LineItemType": kind, "lineItem/UnblendedCost": cost} | named


def sums(warehouse: Warehouse) -> tuple[Decimal, Decimal]:
    """What was billed and what is effective, of all current rows."""
    rows = billing(warehouse, "BilledCost", "EffectiveCost")
    return sum(row["BilledCost"] for row in rows), sum(row["EffectiveCost"] for row in rows)


def test_a_listing_of_more_than_1000_objects_is_read_to_its_end(
    duckdb_warehouse: Warehouse, bucket: Bucket, tmp_path: Path
) -> None:
    text = write_csv(tmp_path / "row.csv", [focus_row(BilledCost="1")]).read_bytes()
    bucket.put_all({f"bills/2026-10/{number:04}.csv": text for number in range(1001)})
    source = BillingSource(location=f"s3://{bucket.name}/bills", endpoint_url=bucket.url)
    loaded = load_period(
        duckdb_warehouse, FOCUS_BILLING, Bill("acme", "main", "focus", source, bucket.location("bills")), OCTOBER
    )
    assert (loaded.files, loaded.rows) == (1001, 1001)
    assert sums(duckdb_warehouse)[0] == 1001


def test_left_over_files_of_an_older_assembly_are_not_counted_beside_those_of_the_manifest(
    warehouse: Warehouse, bucket: Bucket, tmp_path: Path
) -> None:
    month = "report/20261001-20261101"
    keys = {name: f"{month}/assembly-{name}/cur-1.csv" for name in ("old", "new")}
    for name, cost in (("old", "5"), ("new", "7")):
        bucket.put_all({keys[name]: write_csv(tmp_path / f"{name}.csv", [line("Usage", cost)]).read_bytes()})
    manifest = json.dumps({"reportKeys": [keys["new"]]}).encode()
    older = json.dumps({"reportKeys": [keys["old"]]}).encode()
    bucket.put_all(
        {f"{month}/cur-Manifest.json": manifest, f"{month}/assembly-new/cur-Manifest.json": manifest}
        | {f"{month}/assembly-old/cur-Manifest.json": older}
    )
    source = BillingSource(location=f"s3://{bucket.name}/report", layout="aws_cur", endpoint_url=bucket.url)
    bill = Bill("acme", "main", "aws", source, bucket.location("report"))
    assert load_period(warehouse, FOCUS_BILLING, bill, OCTOBER).rows == 1
    assert values(warehouse, "BilledCost") == [Decimal(7)]


def test_a_gzip_file_of_several_members_is_not_read_after_its_first_one_only(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    header, *lines = (
        write_csv(tmp_path / "a.csv", [focus_row(BilledCost=each) for each in "123"]).read_text().splitlines()
    )
    members = (f"{header}\n{lines[0][:3]}", f"{lines[0][3:]}\n{lines[1]}\n", f"{lines[2]}\n")
    (tmp_path / "bill/2026-10").mkdir(parents=True)
    (tmp_path / "bill/2026-10/a.csv.gz").write_bytes(b"".join(gzip.compress(each.encode()) for each in members))
    load(warehouse, tmp_path / "bill")
    assert values(warehouse, "BilledCost") == [Decimal(each) for each in "123"]


def test_null_minus_2_and_unassigned_are_no_values(warehouse: Warehouse, tmp_path: Path) -> None:
    row = focus_row(SkuId="-2", RegionName="Unassigned", SubAccountName="NULL", ListCost="NULL", ResourceId="vm-2")
    write_csv(tmp_path / "2026-10/a.csv", [row, row | {"SkuId": "Unassigned", "RegionName": "-2"}])
    assert load(warehouse, tmp_path).rows_rejected == 0
    for found in billing(warehouse, "SkuId", "RegionName", "SubAccountName", "ListCost", "ResourceId"):
        assert found == dict.fromkeys(("SkuId", "RegionName", "SubAccountName", "ListCost")) | {"ResourceId": "vm-2"}


def test_after_a_bom_m_d_yy_is_read_and_d_m_yy_is_refused_instead_of_misread(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    month_first = {"BillingPeriodStart": "10/1/26", "BillingPeriodEnd": "11/1/26", "ChargePeriodStart": "10/5/26"}
    october = {"BillingPeriodStart": "1/10/26", "BillingPeriodEnd": "1/11/26", "ChargePeriodStart": "5/10/26"}
    january = {"BillingPeriodStart": "1/1/26", "BillingPeriodEnd": "1/2/26", "ChargePeriodStart": "5/1/26"}
    path = write_csv(tmp_path / "2026-10/a.csv", [focus_row(**each) for each in (month_first, october, january)])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load(warehouse, tmp_path).rows == 1
    [row] = billing(warehouse, "BilledCost", "BillingPeriodStart", "ChargePeriodStart")
    assert row["BilledCost"] == Decimal("1.5"), "the first column is not named after the mark"
    assert row["BillingPeriodStart"] == OCTOBER.start
    assert row["ChargePeriodStart"] == OCTOBER.start + timedelta(days=4)
    assert len(reasons(warehouse)) == 2
    assert all("begins within January, or is day/month/year" in reason for reason in reasons(warehouse))


def test_signs_of_tax_credit_and_refund_are_those_of_the_bill(warehouse: Warehouse, tmp_path: Path) -> None:
    lines = [line("Usage", "100"), line("Tax", "6.25"), line("Credit", "-20"), line("Refund", "-3.5")]
    write_csv(tmp_path / "2026-10/a.csv", lines)
    load(warehouse, tmp_path)
    found = billing(warehouse, "ChargeCategory", "ChargeClass", "BilledCost")
    assert [tuple(row.values()) for row in found] == [
        ("Usage", None, Decimal(100)),
        ("Tax", None, Decimal("6.25")),
        ("Credit", None, Decimal(-20)),
        ("Credit", "Correction", Decimal("-3.5")),
    ]
    assert source_totals(warehouse, "billed_cost") == [(sums(warehouse)[0],)] == [(Decimal("82.75"),)]


BOUGHT = ("BilledCost", "CommitmentDiscountId")
RESERVED = {"ReservationARN": "arn:ri"}
COMMITMENTS = {  # lines, what was billed, what is effective
    "a reservation paid up front": (
        [line("Fee", "720", **RESERVED), line("DiscountedUsage", "0", EffectiveCost="0.5", **RESERVED)],
        ("720", "0.5"),
    ),
    "a reservation paid by the month": (
        [
            line("RIFee", "30", UnusedRecurringFee="4", UnusedAmortizedUpfrontFeeForBillingPeriod="0", **RESERVED),
            line("DiscountedUsage", "0", EffectiveCost="26", **RESERVED),
        ],
        ("30", "30"),
    ),
    "a savings plan": (
        [
            line("SavingsPlanRecurringFee", "10", TotalCommitmentToDate="10", UsedCommitment="7"),
            line("SavingsPlanCoveredUsage", "9", SavingsPlanEffectiveCost="7"),
            line("SavingsPlanNegation", "-9", SavingsPlanEffectiveCost="0"),
        ],
        ("10", "10"),
    ),
}


@pytest.mark.parametrize("commitment", COMMITMENTS)
def test_a_commitments_purchase_and_the_amortised_usage_it_covers_are_not_summed(
    warehouse: Warehouse, tmp_path: Path, commitment: str
) -> None:
    lines, (billed, effective) = COMMITMENTS[commitment]
    write_csv(tmp_path / "2026-10/a.csv", [*lines, line("Fee", "2")])  # the last one is no reservation's
    load(warehouse, tmp_path)
    assert sums(warehouse) == (Decimal(billed) + 2, Decimal(effective) + 2)
    bought = {row["BilledCost"]: row["CommitmentDiscountId"] for row in billing(warehouse, *BOUGHT)}
    assert bought.get(Decimal(720), "arn:ri") == "arn:ri"
    assert bought[Decimal(2)] is None


def test_covered_usage_whose_unblended_cost_is_0_has_its_effective_cost(warehouse: Warehouse, tmp_path: Path) -> None:
    write_csv(tmp_path / "2026-10/a.csv", [line("DiscountedUsage", "0", EffectiveCost="1.25", **RESERVED)])
    load(warehouse, tmp_path)
    assert billing(warehouse, "BilledCost", "EffectiveCost") == [
        {"BilledCost": Decimal(0), "EffectiveCost": Decimal("1.25")}
    ]
    amounts = {"UnblendedCost": "0", "AmortizedCost": "1.25", "UsageQuantity": "1"}
    group = {
        "Keys": ["Amazon Elastic Compute Cloud - Compute", "BoxUsage:m5.large"],
        "Metrics": {name: {"Amount": amount, "Unit": "USD"} for name, amount in amounts.items()},
    }
    result = {"TimePeriod": {"Start": "2026-10-01", "End": "2026-10-02"}, "Groups": [group]}
    [row] = charge_rows(result, ("SERVICE", "USAGE_TYPE"), OCTOBER)
    assert (row["BilledCost"], row["EffectiveCost"]) == ("0", "1.25")


def test_account_rows_without_a_resource_or_subscription_are_loaded_like_any_other(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    write_csv(tmp_path / "2026-10/cur.csv", [line("Tax", "5", ResourceId="", UsageAccountId="")])
    write_csv(tmp_path / "2026-10/focus.csv", [focus_row(ResourceId="", SubAccountId="", RegionId="")])
    assert load(warehouse, tmp_path).rows_rejected == 0
    found = billing(warehouse, "BilledCost", "ResourceId", "SubAccountId")
    assert [tuple(row.values()) for row in found] == [(Decimal(5), None, None), (Decimal("1.5"), None, None)]


def test_estimated_costs_say_so_and_give_way_to_the_final_ones(warehouse: Warehouse, tmp_path: Path) -> None:
    write_csv(tmp_path / "2026-10/a.csv", [focus_row(BilledCost="1.4", x_Estimated="true", InvoiceId="")] * 2)
    load(warehouse, tmp_path)
    assert {json.loads(each)["x_Estimated"] for each in values(warehouse, "x_extra")} == {"true"}
    write_csv(tmp_path / "2026-10/a.csv", [focus_row(BilledCost="1.5", x_Estimated="false", InvoiceId="I-1")])
    load(warehouse, tmp_path)
    [row] = billing(warehouse, "BilledCost", "InvoiceId", "x_extra")
    assert (row["BilledCost"], row["InvoiceId"]) == (Decimal("1.5"), "I-1")
    assert json.loads(row["x_extra"])["x_Estimated"] == "false"


def test_exclusive_ends_of_focus_stay_exclusive(warehouse: Warehouse, tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [focus_row(ChargePeriodStart="2026-10-31", ChargePeriodEnd="2026-11-01")])
    load(warehouse, tmp_path)
    load(warehouse, tmp_path, BillingPeriod("2026-11"))
    [row] = billing(warehouse, "ChargePeriodEnd", "BillingPeriodEnd")
    assert row["ChargePeriodEnd"] == row["BillingPeriodEnd"] == OCTOBER.end


def hours_of(day: datetime) -> Iterator[datetime]:
    """The hours of a day in Pacific time, each in its own offset from UTC."""
    at = day.astimezone(UTC)
    while at.astimezone(PACIFIC).date() == day.date():
        yield at.astimezone(PACIFIC)
        at += timedelta(hours=1)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(("month", "day", "count"), [(3, 8, 23), (11, 1, 25), (10, 5, 24)])
def test_days_of_23_and_25_hours_keep_every_hour_once(
    warehouse: Warehouse, tmp_path: Path, month: int, day: int, count: int, kind: str
) -> None:
    hours = list(hours_of(datetime(2026, month, day, tzinfo=PACIFIC)))
    period = BillingPeriod(f"2026-{month:02}")
    rows: list[dict[str, Any]] = [
        focus_row(
            BilledCost="1",
            BillingPeriodStart=f"{period.start:%Y-%m-%d}",
            BillingPeriodEnd=f"{period.end:%Y-%m-%d}",
            ChargePeriodStart=each.isoformat(),
            ChargePeriodEnd=(each.astimezone(UTC) + timedelta(hours=1)).isoformat(),
        )
        for each in hours
    ]
    if kind == "csv":
        write_csv(tmp_path / "a.csv", rows)
    else:
        typed = pa.array(hours, pa.timestamp("us", tz="America/Los_Angeles"))
        write_parquet(tmp_path / "a.parquet", rows, ChargePeriodStart=typed)
    assert load(warehouse, tmp_path, period).rows == count
    starts = values(warehouse, "ChargePeriodStart")
    assert len(set(starts)) == count
    assert max(starts) - min(starts) == timedelta(hours=count - 1)
    assert all(
        row["ChargePeriodEnd"] - row["ChargePeriodStart"] == timedelta(hours=1)
        for row in billing(warehouse, "ChargePeriodStart", "ChargePeriodEnd")
    )
    assert {len(list(windows(*each))) for each in days(hours[0], hours[-1])} == {96}
