"""Totals: the source's own digits, summed exactly by code that shares no cast with the loading of rows."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal, localcontext
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optiinfra_pipelines.clouds.focus.totals import Invoice, Total, Totals, total_columns
from optiinfra_pipelines_tests.clouds.focus.test_normaliser import LINE
from optiinfra_pipelines_tests.clouds.focus.test_sql import EXACT, forms_of, understood
from optiinfra_pipelines_tests.focus_files import focus_row

ACME = Invoice("Acme Cloud", "2026-10", None, "USD")


def totals_of(*batches: pa.RecordBatch, **defaults: str) -> dict[Invoice, Total]:
    totals = Totals(batches[0].schema.names, defaults)
    totals.add_all(batches)
    return totals.by_invoice


def text_batch(*rows: Mapping[str, str | None]) -> pa.RecordBatch:
    return pa.record_batch({name: pa.array([row[name] for row in rows], pa.string()) for name in rows[0]})


def costs(printed: Sequence[Any], kind: pa.DataType) -> pa.RecordBatch:
    """A batch of one invoice whose billed costs are `printed`, in a type of their own."""
    table = text_batch(*[focus_row()] * len(printed)).drop_columns(["BilledCost"])
    return table.append_column("BilledCost", pa.array(printed, kind))


@settings(max_examples=50)
@given(
    st.lists(
        st.integers(-(10**35), 10**35).map(lambda digits: Decimal(digits).scaleb(-21, EXACT)), min_size=1, max_size=8
    ),
    st.randoms(),
)
def test_sums_equal_those_of_the_printed_digits(numbers: list[Decimal], draw: Random) -> None:
    batch = costs([draw.choice(forms_of(number)) for number in numbers], pa.string())
    with localcontext(EXACT):
        expected = Total(len(numbers), sum(numbers, Decimal(0)), Decimal("1.25") * len(numbers))
    split = len(numbers) // 2
    for batches in ([batch], [batch.slice(0, split), batch.slice(split)]):
        assert totals_of(*batches) == {ACME: expected}


@settings(max_examples=100)
@given(st.lists(st.text("0123456789.,eE+-_$ ", max_size=12), min_size=1, max_size=5))
def test_a_text_that_is_no_number_adds_nothing_and_its_row_counts(printed: list[str]) -> None:
    [total] = totals_of(costs(printed, pa.string())).values()
    numbers = [understood(each) for each in printed]
    assert (total.rows, total.billed_cost) == (len(printed), sum((each for each in numbers if each), Decimal(0)))


@pytest.mark.parametrize(
    ("printed", "kind", "expected"),
    [
        ([0.1, 0.2, 7e-10], pa.float64(), "0.3000000007"),
        ([0.1, float("nan"), float("inf"), 5e-324], pa.float64(), "0.1"),
        ([3, None, 4], pa.int64(), "7"),
        ([2**63, 5], pa.uint64(), "5"),
        ([Decimal("1.5"), Decimal("2.25")], pa.decimal128(10, 2), "3.75"),
        ([Decimal("0.1"), Decimal("1e-28")], pa.decimal128(38, 28), "0.1"),
        ([Decimal("0.1"), None], pa.decimal256(60, 30), "0.1"),
        (["1.5", None, ""], pa.large_string(), "1.5"),
    ],
)
def test_every_type_is_summed_by_its_shortest_digits(printed: list[Any], kind: pa.DataType, expected: str) -> None:
    [total] = totals_of(costs(printed, kind)).values()
    assert (total.rows, total.billed_cost) == (len(printed), Decimal(expected))


def test_there_is_one_total_for_each_provider_period_invoice_and_currency() -> None:
    rows = [
        focus_row(InvoiceId=""),
        focus_row(InvoiceId="I-1"),
        focus_row(InvoiceId="I-1", BilledCost="-0.5", EffectiveCost=""),
        focus_row(InvoiceId="I-1", BillingCurrency="EUR"),
        focus_row(InvoiceId="I-1", BillingPeriodStart="2026-09-01"),
        focus_row(InvoiceId="I-1", BillingPeriodStart="soon"),
        focus_row(InvoiceId="I-1", ProviderName=""),
    ]
    total, nothing = Total(1, Decimal("1.5"), Decimal("1.25")), Total(2, Decimal(1), Decimal("1.25"))
    assert totals_of(text_batch(*rows)) == {
        ACME: total,
        Invoice("Acme Cloud", "2026-10", "I-1", "USD"): nothing,
        Invoice("Acme Cloud", "2026-10", "I-1", "EUR"): total,
        Invoice("Acme Cloud", "2026-09", "I-1", "USD"): total,
        Invoice("Acme Cloud", None, "I-1", "USD"): total,
        Invoice(None, "2026-10", "I-1", "USD"): total,
    }


def test_defaults_stand_for_what_is_not_printed() -> None:
    rows = [focus_row(BillingCurrency="", ProviderName=""), focus_row()]
    batch = text_batch(*rows).drop_columns(["BillingPeriodStart"])
    found = totals_of(batch, BillingCurrency="EUR", ProviderName="Own", BillingPeriodStart="10/1/2026")
    assert set(found) == {Invoice("Own", "2026-10", None, "EUR"), Invoice("Acme Cloud", "2026-10", None, "USD")}


@pytest.mark.parametrize(
    ("kind", "start", "month"),
    [
        (pa.string(), "2026-11-01T00:30:00+02:00", "2026-10"),
        (pa.string(), "10/1/26", "2026-10"),
        (pa.string(), "0005-05-01", None),
        (pa.timestamp("us", tz="Europe/Berlin"), datetime(2026, 11, 1, tzinfo=timezone(timedelta(hours=1))), "2026-10"),
        (pa.timestamp("ns"), datetime(2026, 10, 31, 23, 59, 59), "2026-10"),
        (pa.date32(), datetime(2026, 10, 1).date(), "2026-10"),
        (pa.dictionary(pa.int8(), pa.string()), "2026-10-01", "2026-10"),
        (pa.timestamp("us"), datetime(9999, 1, 1), None),
    ],
)
def test_the_month_is_that_of_the_moment_in_utc(kind: pa.DataType, start: Any, month: str | None) -> None:
    batch = text_batch(focus_row()).drop_columns(["BillingPeriodStart"])
    [invoice] = totals_of(batch.append_column("BillingPeriodStart", pa.array([start], kind)))
    assert invoice.billing_period == month


def test_a_file_that_has_none_of_the_columns_still_has_its_rows_counted() -> None:
    batch = pa.record_batch({"something": ["a", "b"]})
    assert totals_of(batch) == {Invoice(None, None, None, None): Total(2)}


def test_a_report_has_its_own_names_and_no_effective_cost() -> None:
    [(invoice, total)] = totals_of(text_batch(LINE, LINE)).items()
    assert invoice == Invoice("AWS", "2026-10", "I-1", "USD")
    assert total == Total(2, Decimal("1.4E-9"), None)
    assert set(total_columns(LINE)) == {"InvoiceId", "BillingCurrency", "BillingPeriodStart", "BilledCost"}


def test_totals_of_totals_keep_every_digit() -> None:
    total = Total(1, Decimal("12345678901234567.000000000000000000001"))
    total.add(Total(1, Decimal("0.000000000000000000002"), Decimal("0.1")))
    assert total == Total(2, Decimal("12345678901234567.000000000000000000003"), Decimal("0.1"))
