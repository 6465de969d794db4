"""Partitions: customer x month for bills. Customers are dynamic; months begin at the retention horizon."""

import dagster as dg

from optiinfra_pipelines.windows import BillingPeriod

# The horizon of bills: the oldest month that can be loaded or backfilled.
BILLING_START = "2023-01-01"

CUSTOMERS = dg.DynamicPartitionsDefinition(name="customer")
MONTHS = dg.MonthlyPartitionsDefinition(start_date=BILLING_START, end_offset=1)
CUSTOMER_MONTHS = dg.MultiPartitionsDefinition({"customer": CUSTOMERS, "month": MONTHS})


def customer_and_period(partition_key: str) -> tuple[str, BillingPeriod]:
    """`acme|2026-10-01` -> the customer's id and the billing period."""
    customer, month = partition_key.split("|")
    return customer, BillingPeriod(month[:7])


def partition_key(customer_id: str, period: BillingPeriod) -> dg.MultiPartitionKey:
    """The key of one customer's month; dimensions in alphabetical order, as Dagster joins them."""
    return dg.MultiPartitionKey({"customer": customer_id, "month": f"{period}-01"})
