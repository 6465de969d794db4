"""Contracts of the billing tables: the FOCUS columns and where each row came from. One table per source family."""

from optiinfra_pipelines.tables.contract import Column, Kind, Table, Type
from optiinfra_pipelines.tables.focus import FOCUS_COLUMNS

LINEAGE = (
    Column("x_customer_id", Type.STRING, "Customer the bill belongs to.", nullable=False, low_cardinality=True),
    Column(
        "x_provider",
        Type.STRING,
        "Cloud in this project's vocabulary: aws, gcp, azure, vultr, or the provider's own name in lower case.",
        nullable=False,
        low_cardinality=True,
    ),
    Column(
        "x_connection_id", Type.STRING, "Connection of customers.yaml that delivered the row.", False, None, (), True
    ),
    Column("x_source", Type.STRING, "URI of the file that the row was read from.", False, None, (), True),
    Column("x_row_number", Type.INTEGER, "Position of the row in its file, counted from 1.", nullable=False),
    Column("x_focus_version", Type.STRING, "Layout the file was in: 1.0 to 1.3, or cur.", False, None, (), True),
    Column("x_extra", Type.JSON, "Columns of the file that FOCUS does not know, as a JSON object; null when none."),
    Column("x_load_id", Type.STRING, "Load that brought the row; see raw.loads.", False, None, (), True),
    Column("x_collected_at", Type.TIMESTAMP, "When the load began.", nullable=False, unit="UTC"),
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
