"""Contracts of the tables by which the project accounts for itself: loads, attempts, rejected rows, source totals."""

from optiinfra_pipelines.tables.contract import Column, Kind, Table, Type


def _text(name: str, description: str, *, nullable: bool = False, allowed: tuple[str, ...] = ()) -> Column:
    return Column(name, Type.STRING, description, nullable=nullable, allowed=allowed, low_cardinality=True)


LOADS = Table(
    schema="raw",
    name="loads",
    description=(
        "The load ledger, one row an event. A slice's newest committed load is the one readers see; "
        "older ones are the history of what was believed."
    ),
    kind=Kind.APPENDED,
    columns=(
        _text("load_id", "Identifier of the load; sorts by time."),
        _text("table_name", "Table the load is for, as schema.table."),
        _text("slice", "Restatable set that the load replaces, for example acme/aws-main/2026-10."),
        _text("state", "What happened.", allowed=("started", "committed", "discarded")),
        Column("rows", Type.INTEGER, "Rows in the table from this load.", nullable=False, unit="rows"),
        Column("rows_read", Type.INTEGER, "Rows in the source: accepted + rejected.", nullable=False, unit="rows"),
        Column("rows_rejected", Type.INTEGER, "Rows that went to raw.rejected_rows.", nullable=False, unit="rows"),
        _text("fingerprint", "Hash over names, sizes and versions of the source objects; equal: nothing to load."),
        Column("details", Type.JSON, "Objects read with their sizes, and the columns that the source had."),
        _text("run_id", "Dagster run that loaded."),
        Column("recorded_at", Type.TIMESTAMP, "When the event was written.", nullable=False, unit="UTC"),
    ),
    order_by=("table_name", "slice", "load_id"),
)

COLLECTION_RUNS = Table(
    schema="raw",
    name="collection_runs",
    description="One row is one attempt to collect one window (for billing: one period) of one connection.",
    kind=Kind.APPENDED,
    columns=(
        _text("customer_id", "Customer."),
        _text("provider", "Cloud: aws, gcp, azure, vultr, or focus for a mixed location."),
        _text("connection_id", "Connection of customers.yaml."),
        _text("kind", "What was collected.", allowed=("billing", "metrics", "inventory", "prices", "llm_interactions")),
        Column("window_start", Type.TIMESTAMP, "Start of the window or billing period.", nullable=False, unit="UTC"),
        Column("window_end", Type.TIMESTAMP, "Exclusive end of it.", nullable=False, unit="UTC"),
        _text("status", "How it ended.", allowed=("succeeded", "unchanged", "failed")),
        Column("rows", Type.INTEGER, "Rows accepted.", nullable=False, unit="rows"),
        Column("rows_rejected", Type.INTEGER, "Rows rejected.", nullable=False, unit="rows"),
        _text("error_kind", "auth, throttled, transient, malformed, not_configured, budget, conflict.", nullable=True),
        Column("error", Type.STRING, "What happened, to what, and what to do."),
        Column("duration_seconds", Type.FLOAT, "Wall time of the attempt.", nullable=False, unit="s"),
        _text("run_id", "Dagster run."),
        Column("started_at", Type.TIMESTAMP, "When the attempt began.", nullable=False, unit="UTC"),
    ),
    order_by=("customer_id", "kind", "window_start"),
)

CONNECTIONS = Table(
    schema="raw",
    name="connections",
    description="One row is one connection of customers.yaml as last seen: what is expected to be collected.",
    kind=Kind.KEYED,
    columns=(
        _text("customer_id", "Customer."),
        _text("connection_id", "Connection of customers.yaml."),
        _text("provider", "Cloud, or focus for a mixed location."),
        _text("collects", "Kinds collected, comma-separated."),
        Column("active", Type.BOOLEAN, "False once customers.yaml no longer names it.", nullable=False),
        Column("collected_at", Type.TIMESTAMP, "When it was last seen.", nullable=False, unit="UTC"),
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
        _text("customer_id", "Customer."),
        _text("connection_id", "Connection of customers.yaml."),
        _text("table_name", "Table that refused it, as schema.table."),
        _text("source", "URI of the file or endpoint."),
        Column("row_number", Type.INTEGER, "Position in the source, counted from 1.", nullable=False),
        _text("reason", "Column and what is wrong with it, without the value: reasons can be counted."),
        Column("payload", Type.JSON, "The row as it was read.", nullable=False),
        _text("load_id", "Load that met it."),
        Column("collected_at", Type.TIMESTAMP, "When the load began.", nullable=False, unit="UTC"),
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
        _text("customer_id", "Customer."),
        _text("connection_id", "Connection of customers.yaml."),
        _text("table_name", "Billing table, as schema.table."),
        _text("provider_name", "ProviderName as printed.", nullable=True),
        Column("billing_period", Type.STRING, "Billing period as YYYY-MM.", nullable=False, low_cardinality=True),
        _text("invoice_id", "InvoiceId as printed.", nullable=True),
        _text("currency", "BillingCurrency as printed.", nullable=True),
        Column("rows", Type.INTEGER, "Rows summed.", nullable=False, unit="rows"),
        Column("billed_cost", Type.MONEY, "Sum of BilledCost.", nullable=False, unit="currency"),
        Column(
            "effective_cost",
            Type.MONEY,
            "Sum of EffectiveCost; null where the layout prints none (CUR).",
            unit="currency",
        ),
        _text("load_id", "Load that summed."),
        Column("collected_at", Type.TIMESTAMP, "When the load began.", nullable=False, unit="UTC"),
    ),
    order_by=("customer_id", "load_id"),
)

API_CALLS = Table(
    schema="raw",
    name="api_calls",
    description="One row is the calls of one kind that one attempt made to a cloud's API, and what the cloud charges.",
    kind=Kind.APPENDED,
    columns=(
        _text("customer_id", "Customer."),
        _text("provider", "Cloud: aws, gcp, azure, vultr."),
        _text("connection_id", "Connection of customers.yaml."),
        _text("kind", "What was collected: billing, metrics, inventory, prices, llm_interactions."),
        _text("service", "Service that was called, such as cloudwatch."),
        _text("operation", "Call, such as GetMetricData."),
        Column("calls", Type.INTEGER, "Requests sent, retries among them.", nullable=False, unit="requests"),
        Column(
            "units", Type.INTEGER, "What the cloud charges by, such as metrics asked for; 0 where free.", nullable=False
        ),
        Column("price", Type.MONEY, "List price of these calls.", nullable=False, unit="USD"),
        _text("run_id", "Dagster run."),
        Column("called_at", Type.TIMESTAMP, "When the attempt began.", nullable=False, unit="UTC"),
    ),
    order_by=("customer_id", "called_at"),
)

OPERATION_TABLES = (LOADS, COLLECTION_RUNS, CONNECTIONS, REJECTED_ROWS, SOURCE_TOTALS, API_CALLS)
