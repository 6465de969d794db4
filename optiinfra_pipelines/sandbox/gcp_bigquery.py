"""The sandbox's BigQuery: billing export tables of the fleet's bills, the log of what models were asked and answered,
and the two job calls that read them.

GoogleSQL is translated by sqlglot and answered by DuckDB, which the tables live in; one database a server.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from threading import Lock
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa

from optiinfra_pipelines.sandbox.fleet import Fleet, Resource, account_of
from optiinfra_pipelines.sandbox.fleet_bills import FleetCharge, bill_periods, charges
from optiinfra_pipelines.sandbox.gcp_wire import REGION, ZONE
from optiinfra_pipelines.sandbox.interaction_wire import vertex_row
from optiinfra_pipelines.sandbox.interactions import Corpus
from optiinfra_pipelines.windows import BillingPeriod

BYTES_READ = 31_457_280
_PACIFIC = ZoneInfo("America/Los_Angeles")
_PAGE = 1000
_TYPES = {
    "VARCHAR": "STRING",
    "BIGINT": "INTEGER",
    "DOUBLE": "FLOAT",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
    "DECIMAL(38,0)": "NUMERIC",
    "JSON": "JSON",
    "VARCHAR[]": "STRING",
}
LLM_LOG = "request_response_logging"
# The columns of https://cloud.google.com/billing/docs/how-to/export-data-bigquery-tables/detailed-usage
_PAIRS = "STRUCT(key VARCHAR, value VARCHAR)[]"
_DETAILED = f"""
billing_account_id VARCHAR, invoice STRUCT("month" VARCHAR, publisher_type VARCHAR), cost_type VARCHAR,
service STRUCT(id VARCHAR, description VARCHAR), sku STRUCT(id VARCHAR, description VARCHAR),
usage_start_time TIMESTAMPTZ, usage_end_time TIMESTAMPTZ,
project STRUCT(id VARCHAR, number VARCHAR, "name" VARCHAR, labels {_PAIRS}),
labels {_PAIRS}, system_labels {_PAIRS},
"location" STRUCT("location" VARCHAR, country VARCHAR, region VARCHAR, "zone" VARCHAR),
resource STRUCT("name" VARCHAR, global_name VARCHAR),
price STRUCT(effective_price DOUBLE, tier_start_amount DOUBLE, unit VARCHAR, pricing_unit_quantity DOUBLE),
cost DOUBLE, cost_at_list DOUBLE, currency VARCHAR, currency_conversion_rate DOUBLE,
"usage" STRUCT(amount DOUBLE, unit VARCHAR, amount_in_pricing_units DOUBLE, pricing_unit VARCHAR),
credits STRUCT("name" VARCHAR, amount DOUBLE, full_name VARCHAR, id VARCHAR, "type" VARCHAR)[],
adjustment_info STRUCT(id VARCHAR, description VARCHAR, mode VARCHAR, "type" VARCHAR),
export_time TIMESTAMPTZ, _PARTITIONTIME TIMESTAMPTZ
"""
# Some columns of https://cloud.google.com/billing/docs/how-to/export-data-bigquery-tables/focus-export
_FOCUS = """
BillingAccountId VARCHAR, BillingCurrency VARCHAR, BillingPeriodStart TIMESTAMPTZ, BillingPeriodEnd TIMESTAMPTZ,
ChargeCategory VARCHAR, ChargeDescription VARCHAR, ChargePeriodStart TIMESTAMPTZ, ChargePeriodEnd TIMESTAMPTZ,
BilledCost DECIMAL(38,18), EffectiveCost DECIMAL(38,18), ListCost DECIMAL(38,18), ContractedCost DECIMAL(38,18),
ProviderName VARCHAR, PublisherName VARCHAR, InvoiceIssuerName VARCHAR, ServiceName VARCHAR, ServiceCategory VARCHAR,
SubAccountId VARCHAR, RegionId VARCHAR, ResourceId VARCHAR, ResourceName VARCHAR, SkuId VARCHAR,
Tags STRUCT(key VARCHAR, value VARCHAR)[], x_InvoiceMonth VARCHAR, x_ExportTime TIMESTAMPTZ
"""
# https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/request-response-logging; the last one is our own: a
# row is there from then on.
_LOGGED = """
endpoint VARCHAR, deployed_model_id VARCHAR, logging_time TIMESTAMPTZ, request_id DECIMAL(38,0),
request_payload VARCHAR[], response_payload VARCHAR[], model VARCHAR, model_version VARCHAR, api_method VARCHAR,
full_request JSON, full_response JSON, metadata JSON, otel_log JSON, delivered_at TIMESTAMPTZ
"""
_LOGGED_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("endpoint", "deployed_model_id", "model", "model_version", "api_method")),
        *((name, pa.string()) for name in ("full_request", "full_response", "metadata", "otel_log")),
        *((name, pa.list_(pa.string())) for name in ("request_payload", "response_payload")),
        *((name, pa.timestamp("us", "UTC")) for name in ("logging_time", "delivered_at")),
        ("request_id", pa.decimal128(38, 0)),
    ]
)


class QueryRefused(Exception):
    """A statement or job that BigQuery would refuse."""


class BigQuery:
    """The tables of every customer of the fleet, and the results of the queries asked of them."""

    def __init__(self, fleet: Fleet, dataset: str, detailed: str, focus: str) -> None:
        self._fleet, self._dataset, self._tables = fleet, dataset, (detailed, focus)
        self._lock = Lock()
        self._jobs: dict[str, tuple[list[dict[str, str]], list[Any]]] = {}
        self._database = duckdb.connect()
        self._database.execute("SET TimeZone = 'UTC'")
        self._written: set[str] = set()
        self._logged: set[str] = set()
        self._fault = ""

    def answer(self, method: str, project: str, rest: str, query: Mapping[str, str], body: bytes, fault: str) -> Any:
        """The decoded answer to a call below /bigquery/v2/projects/{project}/; QueryRefused where it is none.

        `fault` may be partial_page, endless_cursor or repeated_page: it concerns the results of the next query.
        """
        asked = json.loads(body) if body else {}
        with self._lock:
            self._fault = fault or self._fault
            self._write(project)
            if method == "POST" and rest == "jobs" and asked["configuration"].get("dryRun"):
                self._run(project, asked["configuration"]["query"])
                return _dry_run(project, asked)
            if method == "POST" and rest == "queries":
                job = f"job_{len(self._jobs)}"
                self._jobs[job] = self._run(project, asked)
                fault, self._fault = self._fault, ""
                size = 1 if fault == "partial_page" else asked.get("maxResults", _PAGE)
                answer = self._results(project, job, {"maxResults": size})
                if fault in ("endless_cursor", "repeated_page"):
                    answer["pageToken"] = f"{fault}|0"
                return answer | {"kind": "bigquery#queryResponse"}
            known = re.fullmatch(r"jobs/(\w+)", rest)
            if method == "GET" and known and known[1] in self._jobs:
                return _job(project, known[1])
            results = re.fullmatch(r"queries/(\w+)", rest)
            if method == "GET" and results and results[1] in self._jobs:
                return self._results(project, results[1], query) | {"kind": "bigquery#getQueryResultsResponse"}
        raise QueryRefused(f"{method} {rest} is no call of this sandbox")

    def _run(self, project: str, asked: Mapping[str, Any]) -> tuple[list[dict[str, str]], list[Any]]:
        import sqlglot

        given = {each["name"]: each["parameterValue"]["value"] for each in asked.get("queryParameters") or ()}
        try:
            tree = sqlglot.parse_one(asked["query"], read="bigquery")
            names = {each.catalog for each in tree.find_all(sqlglot.exp.Table) if each.catalog}
            if names - {project}:
                raise QueryRefused(f"Access Denied: Project {sorted(names)[0]}")
            for table in tree.find_all(sqlglot.exp.Table):
                if table.name == LLM_LOG:
                    self._write_log(project)
                table.set("catalog", None)
                table.set("db", sqlglot.exp.to_identifier(project, quoted=True) if table.db else None)
            cursor = self._database.execute(tree.sql(dialect="duckdb"), given)
        except (sqlglot.errors.SqlglotError, duckdb.Error) as error:
            raise QueryRefused(str(error)) from error
        fields = [_field(name, str(type_)) for name, type_, *_ in cursor.description or ()]
        return fields, [{"f": [{"v": _cell(value)} for value in row]} for row in cursor.fetchall()]

    def _results(self, project: str, job: str, query: Mapping[str, Any]) -> dict[str, Any]:
        fields, rows = self._jobs[job]
        fault, _, token = str(query.get("pageToken", "")).rpartition("|")
        start = int(token or query.get("startIndex") or 0)
        size = min(int(query.get("maxResults", _PAGE)), _PAGE)
        found = rows[start : start + size]
        answer: dict[str, Any] = {
            "schema": {"fields": fields},
            "jobReference": {"projectId": project, "jobId": job, "location": "US"},
            "jobComplete": True,
            "totalRows": str(len(rows)),
            "totalBytesProcessed": str(BYTES_READ),
            "cacheHit": False,
        }
        answer |= {"rows": found} if found else {}
        if fault == "endless_cursor":
            return answer | {"pageToken": f"{fault}|0"}
        return answer | ({"pageToken": str(start + size)} if start + size < len(rows) else {})

    def _write(self, project: str) -> None:
        """Make the tables of `project`, on the first call for it: one DuckDB schema a project."""
        if project in self._written:
            return
        customer = next(each for each in self._fleet.customers if account_of(each, "gcp") == project)
        rows = [row for period in bill_periods(self._fleet.today) for row in _rows(self._fleet, customer, period)]
        self._database.execute(f'CREATE SCHEMA "{project}"')
        for name, columns, written in zip(
            self._tables, (_DETAILED, _FOCUS), (rows, [_focus(row) for row in _unnested(rows)]), strict=True
        ):
            self._database.execute(f'CREATE TABLE "{project}"."{name}" ({columns})')
            # as Arrow: of a parameter {"key": ..., "value": ...} whose two texts are of one length DuckDB makes a map
            self._database.register("written", pa.Table.from_pylist(written))
            self._database.execute(f'INSERT INTO "{project}"."{name}" BY NAME SELECT * FROM written')
            self._database.unregister("written")
        self._written.add(project)

    def _write_log(self, project: str) -> None:
        """Make the log of models of `project`, on the first query of it: what is delivered later is not there yet."""
        if project in self._logged:
            return
        customer = next(each for each in self._fleet.customers if account_of(each, "gcp") == project)
        corpus = Corpus(self._fleet.today, customers=self._fleet.customers)
        self._database.execute(f'CREATE TABLE "{project}"."delivered" ({_LOGGED})')
        logged = corpus.interactions(corpus.of(customer, "gcp"))
        rows = [_as_text(vertex_row(each)) | {"delivered_at": each.delivered_at} for each in logged]
        self._database.register("written", pa.Table.from_pylist(rows, _LOGGED_SCHEMA))
        self._database.execute(f'INSERT INTO "{project}"."delivered" BY NAME SELECT * FROM written')
        self._database.unregister("written")
        self._database.execute(
            f'CREATE VIEW "{project}"."{LLM_LOG}" AS SELECT * EXCLUDE (delivered_at) FROM "{project}"."delivered"'
            " WHERE greatest(delivered_at, logging_time) <= now()"
        )
        self._logged.add(project)


def _as_text(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its objects as JSON."""
    return {name: json.dumps(cell) if isinstance(cell, dict) else cell for name, cell in row.items()}


def _field(name: str, type_: str) -> dict[str, str]:
    """A column of DuckDB as BigQuery's schemas have it."""
    return {
        "name": name,
        "type": _TYPES.get(type_, "STRING"),
        "mode": "REPEATED" if type_ == "VARCHAR[]" else "NULLABLE",
    }


def _dry_run(project: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kind": "bigquery#job",
        "configuration": asked["configuration"],
        "jobReference": {"projectId": project, "location": "US"},
        "statistics": {
            "totalBytesProcessed": str(BYTES_READ),
            "query": {"totalBytesProcessed": str(BYTES_READ), "statementType": "SELECT"},
        },
        "status": {"state": "DONE"},
    }


def _job(project: str, job: str) -> dict[str, Any]:
    return {
        "kind": "bigquery#job",
        "configuration": {"jobType": "QUERY", "query": {"query": "", "useLegacySql": False}},
        "jobReference": {"projectId": project, "jobId": job, "location": "US"},
        "statistics": {"query": {"totalBytesProcessed": str(BYTES_READ), "statementType": "SELECT"}},
        "status": {"state": "DONE"},
    }


def _cell(value: Any) -> str | list[dict[str, Any]] | None:
    if value is None:
        return None
    if isinstance(value, list):
        return [{"v": _cell(each)} for each in value]
    if isinstance(value, datetime):
        return str(int(value.timestamp() * 1_000_000))
    # DuckDB's JSON has times as its own text has them
    return re.sub(r"\"(\d{4}-\d\d-\d\d) ([0-9:.]+)\+00\"", r'"\1T\2Z"', str(value))


def _rows(fleet: Fleet, customer: str, period: BillingPeriod) -> Iterator[dict[str, Any]]:
    """The month's rows of the detailed export; a credit stands inside the last row of usage."""
    found = list(charges(fleet, customer, "gcp", period))
    last = next((charge for charge in reversed(found) if charge.category == "Usage"), None)
    credits = [_credit(charge) for charge in found if charge.category == "Credit"]
    project = account_of(customer, "gcp")
    for charge in found:
        if charge.category != "Credit":
            yield _row(project, charge, period, credits if charge is last else [])


def _credit(charge: FleetCharge) -> dict[str, Any]:
    return {
        "name": charge.description,
        "amount": float(charge.cost),
        "full_name": charge.description,
        "id": "promo-2026",
        "type": "PROMOTION",
    }


def _row(project: str, charge: FleetCharge, period: BillingPeriod, credits: list[dict[str, Any]]) -> dict[str, Any]:
    resource, tax = charge.resource, charge.category == "Tax"
    exported = charge.end + timedelta(hours=12)
    row: dict[str, Any] = {
        "billing_account_id": "0123AB-4567CD-89EF01",
        "invoice": {"month": period.key.replace("-", ""), "publisher_type": "GOOGLE"},
        "cost_type": "tax" if tax else "regular",
        "service": _service(resource),
        "sku": {"id": "TAX" if tax else "CF4E-A0C7-E3BF", "description": charge.description},
        "usage_start_time": charge.start,
        "usage_end_time": charge.end,
        "labels": [{"key": key, "value": value} for key, value in (resource.tags.items() if resource else ())],
        "cost": float(charge.cost),
        "cost_at_list": float(charge.cost),
        "currency": "USD",
        "currency_conversion_rate": 1.0,
        "usage": {
            "amount": float(charge.quantity * 3600),
            "unit": "seconds",
            "amount_in_pricing_units": float(charge.quantity),
            "pricing_unit": "hour",
        },
        "credits": credits,
        "export_time": exported,
        "_PARTITIONTIME": exported.astimezone(_PACIFIC).replace(hour=0, minute=0),
    }
    if resource is None:
        return row | {"usage": None}
    price = {"effective_price": float(charge.price), "tier_start_amount": 0.0, "unit": "hour"}
    return row | {
        "project": {"id": project, "number": "628364681111", "name": project, "labels": []},
        "location": {"location": ZONE, "country": "US", "region": REGION, "zone": ZONE},
        "resource": {"name": resource.name, "global_name": _global_name(resource)},
        "price": price | {"pricing_unit_quantity": 1.0},
    }


def _service(resource: Resource | None) -> dict[str, str]:
    if resource is None:
        return {"id": "4AEA-4A3D-2A44", "description": "Invoice"}
    if resource.resource_type == "database":
        return {"id": "9662-B51E-5089", "description": "Cloud SQL"}
    return {"id": "6F81-5844-456A", "description": "Compute Engine"}


def _global_name(resource: Resource) -> str:
    project = resource.account_id
    if resource.resource_type == "database":
        return f"//cloudsql.googleapis.com/projects/{project}/instances/{resource.name}"
    return f"//compute.googleapis.com/projects/{project}/zones/{ZONE}/instances/{resource.resource_id}"


def _unnested(rows: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any], float]]:
    """(category, row, amount): each charge, and after it each of its credits, as the FOCUS table has rows."""
    for row in rows:
        yield ("Tax" if row["cost_type"] == "tax" else "Usage"), row, row["cost"]
        for credit in row["credits"]:
            yield "Credit", row | {"sku": {"id": None, "description": credit["name"]}}, credit["amount"]


def _focus(charge: tuple[str, dict[str, Any], float]) -> dict[str, Any]:
    category, row, amount = charge
    month = row["invoice"]["month"]
    period = BillingPeriod(f"{month[:4]}-{month[4:]}")
    resource, project = row.get("resource") or {}, row.get("project") or {}
    return {
        **dict.fromkeys(("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"), Decimal(repr(amount))),
        **dict.fromkeys(("ProviderName", "PublisherName", "InvoiceIssuerName"), "Google Cloud"),
        "BillingAccountId": row["billing_account_id"],
        "BillingCurrency": row["currency"],
        "BillingPeriodStart": period.start.replace(tzinfo=_PACIFIC),
        "BillingPeriodEnd": period.end.replace(tzinfo=_PACIFIC),
        "ChargeCategory": category,
        "ChargeDescription": row["sku"]["description"],
        "ChargePeriodStart": row["usage_start_time"],
        "ChargePeriodEnd": row["usage_end_time"],
        "ServiceName": row["service"]["description"],
        "ServiceCategory": {"Compute Engine": "Compute", "Cloud SQL": "Databases"}.get(row["service"]["description"]),
        "SubAccountId": project.get("id"),
        "RegionId": (row.get("location") or {}).get("region"),
        "ResourceId": resource.get("global_name"),
        "ResourceName": resource.get("name"),
        "SkuId": row["sku"]["id"],
        "Tags": row["labels"],
        "x_InvoiceMonth": month,
        "x_ExportTime": row["export_time"],
    }
