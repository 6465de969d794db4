"""Partitions: customer x month for bills, customer x day for all else. Customers are dynamic; months and days begin at
the retention horizons."""

from datetime import UTC, datetime

import dagster as dg

from optiinfra_pipelines.windows import DAY, BillingPeriod, Window

# The horizon of bills: the oldest month that can be loaded or backfilled.
BILLING_START = "2023-01-01"
# The horizon of metrics and inventory. Clouds keep 15-minute metrics for 63 days at most (CloudWatch): no earlier day
# could be backfilled.
DAYS_START = "2026-08-01"

CUSTOMERS = dg.DynamicPartitionsDefinition(name="customer")
MONTHS = dg.MonthlyPartitionsDefinition(start_date=BILLING_START, end_offset=1)
DAYS = dg.DailyPartitionsDefinition(start_date=DAYS_START, end_offset=1)
CUSTOMER_DAYS = dg.MultiPartitionsDefinition({"customer": CUSTOMERS, "day": DAYS})
CUSTOMER_MONTHS = dg.MultiPartitionsDefinition({"customer": CUSTOMERS, "month": MONTHS})


def customer_and_period(partition_key: str) -> tuple[str, BillingPeriod]:
    """`acme|2026-10-01` -> the customer's id and the billing period."""
    customer, month = partition_key.split("|")
    return customer, BillingPeriod(month[:7])


def partition_key(customer_id: str, period: BillingPeriod) -> dg.MultiPartitionKey:
    """The key of one customer's month; dimensions in alphabetical order, as Dagster joins them."""
    return dg.MultiPartitionKey({"customer": customer_id, "month": f"{period}-01"})


def customer_and_day(partition_key: str) -> tuple[str, Window]:
    """`acme|2026-10-31` -> the customer's id and the UTC day."""
    customer, day = partition_key.split("|")
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    return customer, Window(start, start + DAY)


def day_key(customer_id: str, at: datetime) -> dg.MultiPartitionKey:
    """The key of the UTC day that `at` lies in, of one customer."""
    return dg.MultiPartitionKey({"customer": customer_id, "day": f"{at.astimezone(UTC):%Y-%m-%d}"})
