"""Contracts of the billing tables: the FOCUS columns and where each row came from. One table per source family."""

from optiinfra_pipelines.tables.columns import count, json, label, time
from optiinfra_pipelines.tables.contract import Kind, Table
from optiinfra_pipelines.tables.focus import FOCUS_COLUMNS

LINEAGE = (
    label("x_customer_id", "Customer the bill belongs to."),
    label(
        "x_provider",
        "Cloud in this project's vocabulary: aws, gcp, azure, vultr, or the provider's own name in lower case.",
    ),
    label("x_connection_id", "Connection of customers.yaml that delivered the row."),
    label("x_source", "URI of the file that the row was read from."),
    count("x_row_number", "Position of the row in its file, counted from 1."),
    label("x_focus_version", "Layout the file was in: 1.0 to 1.3, or cur."),
    json("x_extra", "Columns of the file that FOCUS does not know, as a JSON object; null when none.", nullable=True),
    label("x_load_id", "Load that brought the row; see raw.loads."),
    time("x_collected_at", "When the load began."),
)


def _billing(name: str, description: str) -> Table:
    return Table(
        schema="raw",
        name=name,
        description=description,
        kind=Kind.SLICED,
        columns=FOCUS_COLUMNS + LINEAGE,
        order_by=("x_customer_id", "x_load_id"),
    )


AWS_BILLING = _billing(
    "aws_billing", "One row is one charge of an AWS bill, from FOCUS or Cost and Usage exports in S3, or Cost Explorer."
)
GCP_BILLING = _billing("gcp_billing", "One row is one charge of a Google Cloud bill, from BigQuery exports or files.")
AZURE_BILLING = _billing("azure_billing", "One row is one charge of an Azure bill, from exports or Cost Management.")
VULTR_BILLING = _billing("vultr_billing", "One row is one item of a Vultr invoice or one charge still pending.")
FOCUS_BILLING = _billing("focus_billing", "One row is one charge of any provider's bill, from FOCUS files anywhere.")

BILLING_TABLES = (AWS_BILLING, GCP_BILLING, AZURE_BILLING, VULTR_BILLING, FOCUS_BILLING)
