"""The published exports have the providers' layouts, and the truths are what an independent reading of them gives.

The reading here is plain csv, gzip, json and pyarrow over real HTTP; nothing of the product's readers is used.
"""

import csv
import gzip
import io
import json
import re
import subprocess
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation, localcontext
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest
import yaml
from pyarrow import fs

from optiinfra_pipelines.sandbox import exports, scenario
from optiinfra_pipelines.sandbox.s3_server import serve_s3
from optiinfra_pipelines.sandbox.truths import Truths

BUCKETS = ("acme-billing", "globex-billing")
CATEGORIES = {"usage", "purchase", "tax", "credit", "adjustment"}
TIME_FORMATS = ("%Y-%m-%dT%H:%MZ", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.%fZ", "%m/%d/%Y", "%Y-%m-%d %H:%M:%S")


@dataclass
class Delivery:
    """What lies on the server after one stage, by URI, with the truths of the stage."""

    objects: dict[str, bytes]
    etags: dict[str, str]
    truths: Truths

    def keys(self, pattern: str) -> list[str]:
        return sorted(uri for uri in self.objects if re.search(pattern, uri))


@dataclass
class Row:
    """One row as an independent reader understands it; `problem` is why it cannot be loaded."""

    uri: str
    number: int
    key: tuple[str | None, ...]
    billed_cost: Decimal = Decimal(0)
    effective_cost: Decimal = Decimal(0)
    problem: str | None = None


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serve_s3(scenario.ACCESS_KEY_ID) as url:
        yield url


@pytest.fixture(scope="module")
def deliveries(server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Delivery]:
    """Both stages, published one after the other by the command line, each downloaded whole."""
    found: dict[int, Delivery] = {}
    for stage in (1, 2):
        manifest = tmp_path_factory.mktemp("truths") / "truths.json"
        command = [sys.executable, "-m", "optiinfra_pipelines.sandbox.exports", "--endpoint", server]
        subprocess.run([*command, "--stage", str(stage), "--truths", manifest], check=True, capture_output=True)
        before = found.get(1)
        found[stage] = _download(server, Truths.from_json(Path(manifest).read_text()), before)
    return found


def _client(server: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=server,
        region_name="us-east-1",
        aws_access_key_id=scenario.ACCESS_KEY_ID,
        aws_secret_access_key=scenario.SECRET_ACCESS_KEY,
    )


def _download(server: str, truths: Truths, before: Delivery | None) -> Delivery:
    client = _client(server)
    delivery = Delivery({}, {}, truths)
    for bucket in BUCKETS:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for item in page["Contents"]:
                uri = f"s3://{bucket}/{item['Key']}"
                delivery.etags[uri] = item["ETag"].strip('"')
                if before and before.etags.get(uri) == delivery.etags[uri]:
                    delivery.objects[uri] = before.objects[uri]
                else:
                    delivery.objects[uri] = client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
    return delivery


# An independent reading


def _current_files(delivery: Delivery) -> Iterator[tuple[str, str, str, str]]:
    """(uri, customer, cloud, month) of every file that belongs to a current bill, found through the manifests."""
    for uri in delivery.keys(r"/metadata/BILLING_PERIOD=.*-Manifest\.json$"):
        month = uri.split("BILLING_PERIOD=")[1][:7]
        yield from ((file, "acme", "aws", month) for file in json.loads(delivery.objects[uri])["dataFiles"])
    for uri in delivery.keys(r"/cur/[^/]+/\d{8}-\d{8}/[^/]+-Manifest\.json$"):
        manifest = json.loads(delivery.objects[uri])
        start = manifest["billingPeriod"]["start"]
        month = f"{start[:4]}-{start[4:6]}"
        yield from ((f"s3://{manifest['bucket']}/{key}", "globex", "aws", month) for key in manifest["reportKeys"])
    runs: dict[str, dict[str, Any]] = {}
    for uri in delivery.keys(r"/azure/.*/manifest\.json$"):
        manifest = json.loads(delivery.objects[uri]) | {"bucket": uri.split("/")[2]}
        folder = uri.rsplit("/", 2)[0]
        newest = runs.setdefault(folder, manifest)
        if manifest["runInfo"]["submittedTime"] > newest["runInfo"]["submittedTime"]:
            runs[folder] = manifest
    for folder, manifest in runs.items():
        customer, start = manifest["bucket"].split("-")[0], folder.rsplit("/", 1)[1]
        for blob in manifest["blobs"]:
            yield f"s3://{manifest['bucket']}/{blob['blobName']}", customer, "azure", f"{start[:4]}-{start[4:6]}"
    for uri in delivery.keys(r"/gcp/focus/.*\.parquet$"):
        yield uri, uri.split("/")[2].split("-")[0], "gcp", uri.split("/")[5]


def _records(uri: str, body: bytes) -> Iterator[dict[str, Any] | None]:
    """The rows of a file as dictionaries; None for a line that has not as many fields as the header."""
    if uri.endswith(".parquet"):
        yield from pq.read_table(io.BytesIO(body)).to_pylist()
        return
    text = (gzip.decompress(body) if uri.endswith(".gz") else body).decode("utf-8-sig")
    header, *lines = csv.reader(io.StringIO(text, newline=""))
    for line in lines:
        yield dict(zip(header, line, strict=True)) if len(line) == len(header) else None


def _money(value: Any) -> Decimal:
    if value in (None, ""):
        raise ValueError("missing_value")
    try:
        amount = Decimal(repr(value) if isinstance(value, float) else str(value))
    except InvalidOperation:
        raise ValueError("not_a_number") from None
    if -int(amount.as_tuple().exponent) > 21:
        raise ValueError("too_many_decimals")
    return amount


def _check_time(value: Any) -> None:
    if isinstance(value, datetime):
        return
    for pattern in TIME_FORMATS:
        try:
            datetime.strptime(value, pattern)
        except ValueError:
            continue
        return
    raise ValueError("invalid_date")


def _focus_amounts(record: dict[str, Any]) -> tuple[Decimal, Decimal]:
    amounts = _money(record["BilledCost"]), _money(record["EffectiveCost"])
    for column in ("BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd"):
        _check_time(record[column])
    if record["ChargeCategory"].lower() not in CATEGORIES:
        raise ValueError("unknown_value")
    return amounts


def _report_amounts(record: dict[str, Any]) -> tuple[Decimal, Decimal]:
    billed = _money(record["lineItem/UnblendedCost"])
    _check_time(record["lineItem/UsageStartDate"])
    kind, zero = record["lineItem/LineItemType"], Decimal(0)
    if kind == "SavingsPlanCoveredUsage":
        return billed, _money(record["savingsPlan/SavingsPlanEffectiveCost"])
    if kind == "SavingsPlanNegation":
        return billed, zero
    if kind == "SavingsPlanRecurringFee":
        return billed, _money(record["savingsPlan/TotalCommitmentToDate"]) - _money(
            record["savingsPlan/UsedCommitment"]
        )
    if kind == "DiscountedUsage":
        return billed, _money(record["reservation/EffectiveCost"])
    if kind == "RIFee":
        upfront = _money(record["reservation/UnusedAmortizedUpfrontFeeForBillingPeriod"])
        return billed, upfront + _money(record["reservation/UnusedRecurringFee"])
    return billed, billed


def _rows(delivery: Delivery) -> Iterator[Row]:
    for uri, customer, cloud, month in _current_files(delivery):
        for number, record in enumerate(_records(uri, delivery.objects[uri]), start=1):
            if record is None:
                yield Row(uri, number, (), problem="ragged_line")
                continue
            report = "lineItem/UnblendedCost" in record
            invoice = record["bill/InvoiceId"] if report else record.get("InvoiceId") or record.get("x_InvoiceId")
            currency = record["lineItem/CurrencyCode" if report else "BillingCurrency"]
            row = Row(uri, number, (customer, cloud, month, invoice or None, currency))
            try:
                row.billed_cost, row.effective_cost = (_report_amounts if report else _focus_amounts)(record)
            except ValueError as error:
                row.problem = str(error)
            yield row


# The tests


@pytest.mark.parametrize("stage", [1, 2])
def test_an_independent_reading_of_the_exports_gives_the_truths(deliveries: dict[int, Delivery], stage: int) -> None:
    sums: dict[tuple[str | None, ...], list[Any]] = defaultdict(lambda: [0, Decimal(0), Decimal(0)])
    problems = []
    with localcontext(prec=60):
        for row in _rows(deliveries[stage]):
            if row.problem:
                problems.append((row.uri, row.number, row.problem))
            else:
                total = sums[row.key]
                total[0] += 1
                total[1] += row.billed_cost
                total[2] += row.effective_cost
    truths = deliveries[stage].truths
    assert dict(sums) == {
        (truth.customer_id, truth.provider, truth.billing_period, truth.invoice_id, truth.currency): [
            truth.rows,
            Decimal(truth.billed_cost),
            Decimal(truth.effective_cost),
        ]
        for truth in truths.invoices
    }
    assert sorted(problems) == sorted((row.uri, row.row_number, row.reason) for row in truths.rejected)
    assert {row.reason for row in truths.rejected} == set(exports_reasons())


def exports_reasons() -> tuple[str, ...]:
    from optiinfra_pipelines.sandbox.flaws import REASONS

    return REASONS


def test_the_same_seed_gives_the_same_bytes_in_another_process(deliveries: dict[int, Delivery]) -> None:
    here = exports.export(scenario.Scenario(), 1).objects
    assert deliveries[1].etags == {f"s3://{bucket}/{key}": exports.etag(body) for (bucket, key), body in here.items()}
