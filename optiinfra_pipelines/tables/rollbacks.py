"""Contract of the rollback requests that rejected deployments lead to. Sending them is in `gate/rollback.py`."""

from optiinfra_pipelines.tables.columns import count, json, label, text, time
from optiinfra_pipelines.tables.contract import Kind, Table

STATUSES = ("in_flight", "delivered", "failed", "logged")

ROLLBACK_REQUESTS = Table(
    schema="quality",
    name="rollback_requests",
    description=(
        "One row is the one rollback request of a rejected deployment, written before it is sent and settled after."
    ),
    kind=Kind.KEYED,
    columns=(
        text(
            "idempotency_key", "UUIDv5 of customer, application, deployment and judge; a repetition carries it again."
        ),
        label("customer_id", "Customer."),
        label("application_id", "Application that is to go back."),
        text("deployment_id", "Deployment that was rejected."),
        text("verdict_id", "Verdict that rejected it."),
        label("webhook_host", "Host that is asked; null where the request is only logged.", nullable=True),
        label("webhook_digest", "Hash of its address and secret: tells whether either was changed.", nullable=True),
        label("status", "How it stands; delivered and logged are final.", allowed=STATUSES),
        count(
            "attempts",
            "Requests sent, the one in flight among them; those that a killed run repeated count once.",
            "requests",
        ),
        count("http_status", "Status of the last answer; null where none came.", nullable=True),
        label("error_kind", "transient: sent again later; refused, expired: for a person.", nullable=True),
        text("error", "What happened, to what, and what to do; holds no address and no secret.", nullable=True),
        json("payload", "The body, byte for byte as it is sent; it holds no secret."),
        label("run_id", "Dagster run that wrote the row last."),
        time("requested_at", "When it was first written ahead."),
        time("delivered_at", "When the receiver took it, or when it was logged.", nullable=True),
        time("collected_at", "When the row was written; of two rows with one key the later one is current."),
    ),
    key=("idempotency_key",),
    order_by=("customer_id", "application_id", "requested_at", "idempotency_key"),
)
