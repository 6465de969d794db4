"""Contracts of the tables by which the project accounts for itself: loads, attempts, rejected rows, source totals."""

from optiinfra_pipelines.tables.columns import count, figure, flag, json, label, money, text, time
from optiinfra_pipelines.tables.contract import Kind, Table

LOADS = Table(
    schema="raw",
    name="loads",
    description=(
        "The load ledger, one row an event. A slice's newest committed load is the one readers see; "
        "older ones are the history of what was believed."
    ),
    kind=Kind.APPENDED,
    columns=(
        label("load_id", "Identifier of the load; sorts by time."),
        label("table_name", "Table the load is for, as schema.table."),
        label("slice", "Restatable set that the load replaces, for example acme/aws-main/2026-10."),
        label("state", "What happened.", allowed=("started", "committed", "discarded")),
        count("rows", "Rows in the table from this load.", "rows"),
        count("rows_read", "Rows in the source: accepted + rejected.", "rows"),
        count("rows_rejected", "Rows that went to raw.rejected_rows.", "rows"),
        label("fingerprint", "Hash over names, sizes and versions of the source objects; equal: nothing to load."),
        json("details", "Objects read with their sizes, and the columns that the source had.", nullable=True),
        label("run_id", "Dagster run that loaded."),
        time("recorded_at", "When the event was written."),
    ),
    order_by=("table_name", "slice", "load_id"),
)

COLLECTION_RUNS = Table(
    schema="raw",
    name="collection_runs",
    description="One row is one attempt to collect one window (for billing: one period) of one connection.",
    kind=Kind.APPENDED,
    columns=(
        label("customer_id", "Customer."),
        label("provider", "Cloud: aws, gcp, azure, vultr, or focus for a mixed location."),
        label("connection_id", "Connection of customers.yaml."),
        label("kind", "What was collected.", allowed=("billing", "metrics", "inventory", "prices", "llm_interactions")),
        time("window_start", "Start of the window or billing period."),
        time("window_end", "Exclusive end of it."),
        label("status", "How it ended.", allowed=("succeeded", "unchanged", "failed")),
        count("rows", "Rows accepted.", "rows"),
        count("rows_rejected", "Rows rejected.", "rows"),
        label("error_kind", "auth, throttled, transient, malformed, not_configured, budget, conflict.", nullable=True),
        text("error", "What happened, to what, and what to do.", nullable=True),
        figure("duration_seconds", "Wall time of the attempt.", "s", nullable=False),
        label("run_id", "Dagster run."),
        time("started_at", "When the attempt began."),
    ),
    order_by=("customer_id", "kind", "window_start"),
)

CONNECTIONS = Table(
    schema="raw",
    name="connections",
    description="One row is one connection of customers.yaml as last seen: what is expected to be collected.",
    kind=Kind.KEYED,
    columns=(
        label("customer_id", "Customer."),
        label("connection_id", "Connection of customers.yaml."),
        label("provider", "Cloud, or focus for a mixed location."),
        label("collects", "Kinds collected, comma-separated."),
        flag("active", "False once customers.yaml no longer names it."),
        time("collected_at", "When it was last seen."),
    ),
    key=("customer_id", "connection_id"),
    order_by=("customer_id", "connection_id"),
)

REJECTED_ROWS = Table(
    schema="raw",
    name="rejected_rows",
    description="One row is one source row that its table's contract refused, with the reason. Current with its load.",
    kind=Kind.SLICED,
    columns=(
        label("customer_id", "Customer."),
        label("connection_id", "Connection of customers.yaml."),
        label("table_name", "Table that refused it, as schema.table."),
        label("source", "URI of the file or endpoint."),
        count("row_number", "Position in the source, counted from 1."),
        label("reason", "Column and what is wrong with it, without the value: reasons can be counted."),
        json("payload", "The row as it was read."),
        label("load_id", "Load that met it."),
        time("collected_at", "When the load began."),
    ),
    order_by=("customer_id", "load_id"),
)

SOURCE_TOTALS = Table(
    schema="raw",
    name="source_totals",
    description=(
        "One row is what a bill's own printed digits add up to, per invoice and currency: summed while reading, "
        "by other code than the casts, over accepted and rejected rows. Current with its load."
    ),
    kind=Kind.SLICED,
    columns=(
        label("customer_id", "Customer."),
        label("connection_id", "Connection of customers.yaml."),
        label("table_name", "Billing table, as schema.table."),
        label("provider_name", "ProviderName as printed.", nullable=True),
        label("billing_period", "Billing period as YYYY-MM."),
        label("invoice_id", "InvoiceId as printed.", nullable=True),
        label("currency", "BillingCurrency as printed.", nullable=True),
        count("rows", "Rows summed.", "rows"),
        money("billed_cost", "Sum of BilledCost.", "currency"),
        money(
            "effective_cost",
            "Sum of EffectiveCost; null where the layout prints none (CUR).",
            "currency",
            nullable=True,
        ),
        label("load_id", "Load that summed."),
        time("collected_at", "When the load began."),
    ),
    order_by=("customer_id", "load_id"),
)

API_CALLS = Table(
    schema="raw",
    name="api_calls",
    description="One row is the calls of one kind that one attempt made to a cloud's API, and what the cloud charges.",
    kind=Kind.APPENDED,
    columns=(
        label("customer_id", "Customer."),
        label("provider", "Cloud: aws, gcp, azure, vultr."),
        label("connection_id", "Connection of customers.yaml."),
        label("kind", "What was collected: billing, metrics, inventory, prices, llm_interactions."),
        label("service", "Service that was called, such as cloudwatch."),
        label("operation", "Call, such as GetMetricData."),
        count("calls", "Requests sent, retries among them.", "requests"),
        count("units", "What the cloud charges by, such as metrics asked for; 0 where free."),
        money("price", "List price of these calls.", "USD"),
        label("run_id", "Dagster run."),
        time("called_at", "When the attempt began."),
    ),
    order_by=("customer_id", "called_at"),
)

OPERATION_TABLES = (LOADS, COLLECTION_RUNS, CONNECTIONS, REJECTED_ROWS, SOURCE_TOTALS, API_CALLS)
