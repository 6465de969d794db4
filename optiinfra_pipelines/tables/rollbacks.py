"""Contract of the rollback requests that rejected deployments lead to. Sending them is in `gate/rollback.py`."""

from optiinfra_pipelines.tables.contract import Column, Kind, Table, Type

STATUSES = ("in_flight", "delivered", "failed", "logged")


def _text(name: str, description: str, *, nullable: bool = False, allowed: tuple[str, ...] = ()) -> Column:
    return Column(name, Type.STRING, description, nullable=nullable, allowed=allowed, low_cardinality=True)


def _id(name: str, description: str) -> Column:
    return Column(name, Type.STRING, description, nullable=False)


def _time(name: str, description: str, *, nullable: bool = False) -> Column:
    return Column(name, Type.TIMESTAMP, description, nullable=nullable, unit="UTC")


ROLLBACK_REQUESTS = Table(
    schema="quality",
    name="rollback_requests",
    description=(
        "One row is the one rollback request of a rejected deployment, written before it is sent and settled after."
    ),
    kind=Kind.KEYED,
    columns=(
        _id("idempotency_key", "UUIDv5 of customer, application, deployment and judge; a repetition carries it again."),
        _text("customer_id", "Customer."),
        _text("application_id", "Application that is to go back."),
        _id("deployment_id", "Deployment that was rejected."),
        _id("verdict_id", "Verdict that rejected it."),
        _text("webhook_host", "Host that is asked; null where the request is only logged.", nullable=True),
        _text("webhook_digest", "Hash of its address and secret: tells whether either was changed.", nullable=True),
        _text("status", "How it stands; delivered and logged are final.", allowed=STATUSES),
        Column(
            "attempts",
            Type.INTEGER,
            "Requests sent, the one in flight among them; those that a killed run repeated count once.",
            nullable=False,
            unit="requests",
        ),
        Column("http_status", Type.INTEGER, "Status of the last answer; null where none came."),
        _text("error_kind", "transient: sent again later; refused, expired: for a person.", nullable=True),
        Column("error", Type.STRING, "What happened, to what, and what to do; holds no address and no secret."),
        Column("payload", Type.JSON, "The body, byte for byte as it is sent; it holds no secret.", nullable=False),
        _text("run_id", "Dagster run that wrote the row last."),
        _time("requested_at", "When it was first written ahead."),
        _time("delivered_at", "When the receiver took it, or when it was logged.", nullable=True),
        _time("collected_at", "When the row was written; of two rows with one key the later one is current."),
    ),
    key=("idempotency_key",),
    order_by=("customer_id", "application_id", "requested_at", "idempotency_key"),
)
