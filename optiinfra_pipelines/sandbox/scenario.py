"""The simulated world: customers, their bills on each cloud, what they run, and when. Deterministic, no I/O.

How charges arise from it is in `bills.py` and `line_items.py`; how they are delivered is in `exports.py`.
"""

import calendar
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import product
from random import Random
from typing import Any, Literal, NamedTuple

import yaml

from optiinfra_pipelines.tables.focus import SERVICE_CATEGORY_OF

ACCESS_KEY_ID = "AKIASANDBOXSANDBOX00"
SECRET_ACCESS_KEY = "sandbox-secret-access-key"
CREDENTIAL_VARIABLES = {
    "access_key_id": "SANDBOX_AWS_ACCESS_KEY_ID",
    "secret_access_key": "SANDBOX_AWS_SECRET_ACCESS_KEY",
}
RESTATED_BILL = ("acme", "aws", "2026-09")  # stage 2 delivers it again with other figures
RESTATED_QUANTITY = Decimal("1.03")  # what stage 2 makes of its tokens

CUSTOMER_NAMES = {"acme": "Acme Robotics", "globex": "Globex Insurance"}
APPLICATIONS = {"acme": ("support-copilot", "document-search"), "globex": ("claims-assistant", "code-review")}
ACCOUNTS = {
    ("acme", "aws"): "111122223333",
    ("acme", "azure"): "2f6b1c9e-55aa-4a0e-9b1b-0d3c6f1a4471",
    ("acme", "gcp"): "acme-llm-prod-4471",
    ("globex", "aws"): "444455556666",
    ("globex", "azure"): "9d0e7c44-1b7f-4c58-8f7e-6c2a9be38852",
    ("globex", "gcp"): "globex-ml-8852",
}
REGIONS = {
    "aws": ("us-east-1", "US East (N. Virginia)"),
    "azure": ("westeurope", "West Europe"),
    "gcp": ("us-central1", "Iowa"),
}

Cloud = Literal["aws", "azure", "gcp"]
Layout = Literal["aws_data_export", "aws_cur", "azure_export", "files"]


@dataclass(frozen=True)
class Sku:
    """What is metered and at which list price; `daily` is the mean quantity of a production resource."""

    meter: str
    service: str
    subcategory: str
    unit: str
    list_price: Decimal
    daily: Decimal
    resource_type: str

    @property
    def category(self) -> str:
        return SERVICE_CATEGORY_OF[self.subcategory]

    @property
    def machine(self) -> bool:
        return self.unit == "Hours"


@dataclass(frozen=True)
class Resource:
    """One billed resource of one application in one environment."""

    name: str
    application: str
    environment: str
    sku: Sku
    hourly: bool = False

    @property
    def tags(self) -> dict[str, str]:
        return {"application": self.application, "environment": self.environment}


class Usage(NamedTuple):
    """What one resource used from `start` to the exclusive `end`, in its SKU's unit."""

    start: datetime
    end: datetime
    quantity: Decimal


@dataclass(frozen=True)
class Commitment:
    """A commitment of 24 hours of `meter` a day at `price` each; it covers one resource of that meter.

    It is paid with each bill for the days of that bill, or once for all days of the scenario when `upfront`.
    """

    id: str
    name: str
    type: str
    category: Literal["Spend", "Usage"]
    meter: str
    price: Decimal
    upfront: bool = False


@dataclass(frozen=True)
class Period:
    """One calendar month of billing, and the days of it that lie in the scenario."""

    start: datetime
    end: datetime
    days: tuple[date, ...]

    @property
    def month(self) -> str:
        return f"{self.start:%Y-%m}"


@dataclass(frozen=True)
class Bill:
    """One customer's bill of one cloud and the export that delivers it; `location` is the folder inside `bucket`."""

    customer_id: str
    cloud: Cloud
    layout: Layout
    location: str
    resource_count: int
    commitments: tuple[Commitment, ...]
    currency: str = "USD"
    hourly_resources: int = 0

    @property
    def connection_id(self) -> str:
        return f"{self.cloud}-main"

    @property
    def bucket(self) -> str:
        return f"{self.customer_id}-billing"

    @property
    def account(self) -> str:
        """The AWS account, Azure subscription or GCP project that everything runs in."""
        return ACCOUNTS[self.customer_id, self.cloud]

    @property
    def region(self) -> tuple[str, str]:
        """Id and name of the one region that is used."""
        return REGIONS[self.cloud]

    @property
    def contracted_factor(self) -> Decimal:
        """Negotiated price divided by list price."""
        return {"aws": Decimal(1), "azure": Decimal("0.95"), "gcp": Decimal("0.97")}[self.cloud]


# cloud; meter; service; FOCUS service subcategory; unit; list price; units a day in production; resource type
_SKU_TABLE = """
aws; Claude input tokens; Amazon Bedrock; Generative AI; Tokens; 0.000003; 2400000; Inference profile
aws; Claude output tokens; Amazon Bedrock; Generative AI; Tokens; 0.000015; 410000; Inference profile
aws; g5.xlarge; Amazon Elastic Compute Cloud; Virtual Machines; Hours; 1.006; 24; Instance
aws; db.r6g.large; Amazon Relational Database Service; Relational Databases; Hours; 0.225; 24; DB instance
aws; TimedStorage; Amazon Simple Storage Service; Object Storage; GB-Months; 0.023; 41; Bucket
aws; DataTransfer-Out; AWS Data Transfer; Network Connectivity; GB; 0.09; 17; Gateway
aws; Lambda duration; AWS Lambda; Serverless Compute; Milliseconds; 0.0000000008; 3; Function
aws; m7i.large; Amazon Elastic Compute Cloud; Virtual Machines; Hours; 0.1008; 24; Instance
azure; gpt-4o input tokens; Azure OpenAI; Generative AI; Tokens; 0.0000025; 3100000; Azure OpenAI
azure; gpt-4o output tokens; Azure OpenAI; Generative AI; Tokens; 0.00001; 620000; Azure OpenAI
azure; NC24ads_A100_v4; Virtual Machines; Virtual Machines; Hours; 3.673; 24; Virtual machine
azure; D4ds_v5; Azure Database for PostgreSQL; Relational Databases; Hours; 0.356; 24; Flexible server
azure; Hot LRS data stored; Storage Accounts; Object Storage; GB-Months; 0.0184; 38; Storage account
azure; Standard data transfer out; Bandwidth; Network Connectivity; GB; 0.087; 22; Public IP address
azure; Functions execution time; Azure Functions; Serverless Compute; Milliseconds; 0.0000000016; 2; Function app
gcp; Gemini input characters; Vertex AI; Generative AI; Characters; 0.000000125; 9000000; Endpoint
gcp; Gemini output characters; Vertex AI; Generative AI; Characters; 0.000000375; 2100000; Endpoint
gcp; a2-highgpu-1g; Compute Engine; Virtual Machines; Hours; 3.673385; 24; Instance
gcp; db-custom-4-16384; Cloud SQL; Relational Databases; Hours; 0.2016; 24; Database instance
gcp; Standard storage; Cloud Storage; Object Storage; GB-Months; 0.02; 55; Bucket
gcp; Internet egress; Networking; Network Connectivity; GB; 0.085; 12; Address
gcp; Run functions time; Cloud Run Functions; Serverless Compute; Milliseconds; 0.0000000025; 4; Function
"""


def _skus(cloud: Cloud) -> tuple[Sku, ...]:
    found = []
    for line in _SKU_TABLE.strip().splitlines():
        of, meter, service, subcategory, unit, price, daily, resource_type = line.split("; ")
        if of == cloud:
            found.append(Sku(meter, service, subcategory, unit, Decimal(price), Decimal(daily), resource_type))
    return tuple(found)


SKUS: dict[Cloud, tuple[Sku, ...]] = {"aws": _skus("aws"), "azure": _skus("azure"), "gcp": _skus("gcp")}

_SAVINGS_PLAN = Commitment(
    "arn:aws:savingsplans::{account}:savingsplan/5f8d9a2e",
    "gpu-compute",
    "Compute Savings Plan",
    "Spend",
    "g5.xlarge",
    Decimal("0.664"),
)
_DATABASE_RESERVATION = Commitment(
    "arn:aws:rds:us-east-1:{account}:ri:orders-db",
    "orders-db",
    "Reserved Instance",
    "Usage",
    "db.r6g.large",
    Decimal("0.1485"),
)
_GPU_RESERVATION = Commitment(
    "/providers/microsoft.capacity/reservationorders/0c8b4a1d/reservations/7e11",
    "a100-reservation",
    "Reservation",
    "Usage",
    "NC24ads_A100_v4",
    Decimal("2.3507"),
    upfront=True,
)
_COMMITTED_USE = Commitment(
    "projects/{account}/regions/us-central1/commitments/a2-one-year",
    "a2-one-year",
    "Resource-based committed use discount",
    "Usage",
    "a2-highgpu-1g",
    Decimal("2.314"),
)

BILLS = (
    Bill("acme", "aws", "aws_data_export", "exports/acme-focus", 16, (_SAVINGS_PLAN,), hourly_resources=1),
    Bill("acme", "azure", "azure_export", "azure/acme-focus-cost", 12, (_GPU_RESERVATION,)),
    Bill("acme", "gcp", "files", "gcp/focus", 12, (_COMMITTED_USE,)),
    Bill("globex", "aws", "aws_cur", "cur/globex-cur", 14, (_SAVINGS_PLAN, _DATABASE_RESERVATION)),
    Bill("globex", "azure", "azure_export", "azure/globex-focus-cost", 12, (_GPU_RESERVATION,), currency="EUR"),
    Bill("globex", "gcp", "files", "gcp/focus", 41, (_COMMITTED_USE,)),
)


@dataclass(frozen=True)
class Scenario:
    """The knobs: `seed` of all randomness, last day, number of days, and `scale`, which multiplies the resources."""

    seed: int = 7
    end_date: date = date(2026, 10, 31)
    days: int = 90
    scale: int = 1
    bills: tuple[Bill, ...] = field(default=BILLS, repr=False)

    @property
    def periods(self) -> tuple[Period, ...]:
        """The billing periods that the days fall into, oldest first; the first is usually a partial one."""
        months: dict[tuple[int, int], list[date]] = {}
        for back in range(self.days - 1, -1, -1):
            day = self.end_date - timedelta(days=back)
            months.setdefault((day.year, day.month), []).append(day)
        return tuple(
            Period(
                datetime(year, month, 1),
                datetime(year, month, 1) + timedelta(days=calendar.monthrange(year, month)[1]),
                tuple(days),
            )
            for (year, month), days in months.items()
        )

    def random(self, *names: object) -> Random:
        """A stream of its own for what is named: what one bill draws never moves another."""
        return Random("/".join(str(name) for name in (self.seed, *names)))

    def resources(self, bill: Bill) -> tuple[Resource, ...]:
        """The bill's resources: every SKU for each application and environment in turn until the count is reached."""
        combinations = list(product(("production", "staging"), APPLICATIONS[bill.customer_id], SKUS[bill.cloud]))
        found = []
        for number in range(bill.resource_count * self.scale):
            environment, application, sku = combinations[number % len(combinations)]
            short = "".join(word[0] for word in sku.meter.replace("-", " ").replace(".", " ").split()).lower()
            name = f"{application}-{short}-{number:03}"
            found.append(Resource(name, application, environment, sku, number < bill.hourly_resources))
        return tuple(found)

    def restated(self, bill: Bill, period: Period, stage: int) -> bool:
        """Whether stage 2 delivers this bill again with other figures."""
        return stage == 2 and (bill.customer_id, bill.cloud, period.month) == RESTATED_BILL

    def invoice_id(self, bill: Bill, period: Period, stage: int) -> str | None:
        """The invoice of a billing period.

        AWS names none before it closes a period: None for the last one, which stage 2 closes in the legacy report.
        """
        closed = period != self.periods[-1] or (stage == 2 and bill.layout == "aws_cur")
        if bill.cloud == "aws" and not closed:
            return None
        prefix = {"aws": "22", "azure": "G0", "gcp": "50"}[bill.cloud]
        return f"{prefix}{bill.account[-4:]}{period.month.replace('-', '')}"

    def covering(self, bill: Bill) -> dict[str, Commitment]:
        """Which resource, by name, is covered by which commitment: the first resource of the commitment's meter."""
        first: dict[str, str] = {}
        for resource in self.resources(bill):
            first.setdefault(resource.sku.meter, resource.name)
        return {first[commitment.meter]: commitment for commitment in bill.commitments}

    def usage(self, bill: Bill, resource: Resource, period: Period, stage: int) -> Iterator[Usage]:
        """What the resource used in the period: one entry a day, or one an hour for an hourly resource."""
        random = self.random(bill.customer_id, bill.cloud, resource.name, period.month)
        restated = self.restated(bill, period, stage)
        slots = 24 if resource.hourly else 1
        for day in period.days:
            for slot in range(slots):
                start = datetime.combine(day, time()) + timedelta(hours=24 * slot // slots)
                quantity = _quantity(random, bill, resource, day, slots)
                if restated and resource.sku.unit == "Tokens":
                    quantity = (quantity * RESTATED_QUANTITY).to_integral_value()
                yield Usage(start, start + timedelta(hours=24 // slots), quantity)


def _quantity(random: Random, bill: Bill, resource: Resource, day: date, slots: int) -> Decimal:
    share = random.uniform(0.8, 1.2) * (1.0 if resource.environment == "production" else 0.35) / slots
    if resource.sku.machine:
        runs_all_day = resource.environment == "production" and random.random() < 0.8
        return Decimal(24) if runs_all_day else Decimal(random.randint(60000, 239999)).scaleb(-4)
    if not resource.sku.unit.startswith("GB"):
        weekend = 0.6 if day.weekday() >= 5 else 1.0
        return Decimal(max(1, round(float(resource.sku.daily) * share * weekend)))
    decimals = 6 if bill.layout == "aws_data_export" else 13  # AWS writes doubles: 15 digits survive them
    return Decimal(round(float(resource.sku.daily) * share * 10**decimals)).scaleb(-decimals)


def customers_yaml(
    s3_endpoint: str,
    scenario: Scenario | None = None,
    connections: Callable[[str], list[dict[str, Any]]] = lambda customer_id: [],
    applications: Callable[[str], list[dict[str, Any]]] = lambda customer_id: [],
) -> str:
    """The customers file that makes the product collect these bills from the S3 server at `s3_endpoint`, and what
    further `connections`, and which `applications`, each customer id has."""
    scenario = scenario or Scenario()
    customers = []
    for customer_id, name in CUSTOMER_NAMES.items():
        bills = [bill for bill in scenario.bills if bill.customer_id == customer_id]
        own = [*(_connection(bill, s3_endpoint) for bill in bills), *connections(customer_id)]
        described = {"applications": found} if (found := applications(customer_id)) else {}
        customers.append({"id": customer_id, "name": name, "connections": own, **described})
    return yaml.safe_dump({"customers": customers}, sort_keys=False)


def _connection(bill: Bill, s3_endpoint: str) -> dict[str, object]:
    connection: dict[str, object] = {
        "id": bill.connection_id,
        "provider": "aws" if bill.cloud == "aws" else "focus",
        "collect": ["billing"],
        "billing": {
            "location": f"s3://{bill.bucket}/{bill.location}",
            "layout": bill.layout,
            "endpoint_url": s3_endpoint,
            "region": "us-east-1",
        },
        "credentials": dict(CREDENTIAL_VARIABLES),
    }
    if bill.cloud == "aws":
        connection["accounts"] = [bill.account]
    return connection


def environment() -> dict[str, str]:
    """The environment variables that the customers file names, with the sandbox's own credentials."""
    values = {"access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET_ACCESS_KEY}
    return {variable: values[name] for name, variable in CREDENTIAL_VARIABLES.items()}
