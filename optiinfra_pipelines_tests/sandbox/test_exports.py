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
from concurrent.futures import ThreadPoolExecutor
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
from optiinfra_pipelines.sandbox.flaws import REASONS
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
            delivery.etags |= {f"s3://{bucket}/{item['Key']}": item["ETag"].strip('"') for item in page["Contents"]}

    def body(uri: str) -> bytes:
        if before and before.etags.get(uri) == delivery.etags[uri]:
            return before.objects[uri]
        bucket, key = uri.removeprefix("s3://").split("/", 1)
        return client.get_object(Bucket=bucket, Key=key)["Body"].read()

    with ThreadPoolExecutor(8) as pool:
        delivery.objects |= zip(delivery.etags, pool.map(body, delivery.etags), strict=True)
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
    assert {row.reason for row in truths.rejected} == set(REASONS)
    assert sum(truths.rejected_by_file().values()) == len(problems)


def test_the_same_seed_gives_the_same_bytes_in_another_process(deliveries: dict[int, Delivery]) -> None:
    here = exports.export(scenario.Scenario(), 1).objects
    assert deliveries[1].etags == {f"s3://{bucket}/{key}": exports.etag(body) for (bucket, key), body in here.items()}


def test_the_truths_survive_a_round_trip_through_json(deliveries: dict[int, Delivery]) -> None:
    truths = deliveries[1].truths
    assert Truths.from_json(truths.to_json()) == truths
    assert (truths.seed, truths.end_date, truths.days, truths.scale, truths.stage) == (7, "2026-10-31", 90, 1, 1)


def test_provider_totals_and_file_rows_add_up_to_the_invoices(deliveries: dict[int, Delivery]) -> None:
    for delivery in deliveries.values():
        truths = delivery.truths
        with localcontext(prec=60):
            for total in truths.providers:
                invoices = [
                    invoice
                    for invoice in truths.invoices
                    if (invoice.customer_id, invoice.provider) == (total.customer_id, total.provider)
                ]
                assert total.rows == sum(invoice.rows for invoice in invoices)
                assert Decimal(total.billed_cost) == sum(Decimal(invoice.billed_cost) for invoice in invoices)
                assert Decimal(total.effective_cost) == sum(Decimal(invoice.effective_cost) for invoice in invoices)
        assert sum(file.rows for file in truths.files) == sum(total.rows for total in truths.providers)
        assert sum(file.rows_rejected for file in truths.files) == len(truths.rejected)


def test_each_bill_has_its_own_currency(deliveries: dict[int, Delivery]) -> None:
    currencies = {(t.customer_id, t.provider): t.currency for t in deliveries[1].truths.providers}
    assert len(currencies) == 6
    assert {bill for bill, currency in currencies.items() if currency != "USD"} == {("globex", "azure")}


def test_older_assemblies_and_runs_lie_in_the_buckets_but_not_in_the_truths(deliveries: dict[int, Delivery]) -> None:
    for delivery, assemblies in ((deliveries[1], 2), (deliveries[2], 3)):
        current = {file.uri for file in delivery.truths.files}
        october = delivery.keys(r"/cur/globex-cur/20261001-20261101/[^/]+/[^/]+\.csv\.gz$")
        assert len({uri.rsplit("/", 2)[1] for uri in october}) == assemblies
        assert len(set(october) & current) == 2
        for customer in ("acme", "globex"):
            runs = delivery.keys(rf"/{customer}-focus-cost/20261001-20261031/[^/]+/manifest\.json$")
            named = [{blob["blobName"] for blob in json.loads(delivery.objects[uri])["blobs"]} for uri in runs]
            bucket = f"s3://{customer}-billing/"
            assert sorted({f"{bucket}{name}" in current for name in names} == {True} for names in named) == [
                False,
                True,
            ]


def test_a_folder_holds_more_objects_than_one_listing_page(deliveries: dict[int, Delivery], server: str) -> None:
    folder = "gcp/focus/2026-10/"
    client = _client(server)
    first = client.list_objects_v2(Bucket="globex-billing", Prefix=folder)
    assert (first["KeyCount"], first["IsTruncated"]) == (1000, True)
    arrow = fs.S3FileSystem(
        endpoint_override=server.removeprefix("http://"),
        scheme="http",
        region="us-east-1",
        access_key=scenario.ACCESS_KEY_ID,
        secret_key=scenario.SECRET_ACCESS_KEY,
    )
    infos = arrow.get_file_info(fs.FileSelector(f"globex-billing/{folder}", recursive=True))
    listed = {f"s3://{info.path}": info.size for info in infos if info.is_file}
    assert len(listed) > 1_200
    assert listed == {
        uri: len(body) for uri, body in deliveries[2].objects.items() if folder in uri and "globex" in uri
    }
    late = max(listed)
    assert pq.read_table(late.removeprefix("s3://"), filesystem=arrow).num_rows == 2


def test_stage_two_restates_one_bill_adds_a_late_file_and_a_new_assembly(deliveries: dict[int, Delivery]) -> None:
    first, second = deliveries[1].etags, deliveries[2].etags
    changed = {uri for uri, etag in second.items() if first.get(uri) not in (None, etag)}
    added = set(second) - set(first)
    assert set(first) <= set(second)
    restated = {uri for uri in second if "/exports/acme-focus/" in uri and "BILLING_PERIOD=2026-09" in uri}
    assert len(restated) == 4
    assert changed == restated | {"s3://globex-billing/cur/globex-cur/20261001-20261101/globex-cur-Manifest.json"}
    assert len([uri for uri in added if "/gcp/focus/2026-10/" in uri]) == 1
    assert len([uri for uri in added if "/cur/globex-cur/20261001-20261101/" in uri]) == 3
    assert len(added) == 4
    one, two = ({_bill_and_period(t): t for t in deliveries[stage].truths.invoices} for stage in (1, 2))
    assert {key for key in one if one[key] != two[key]} == {
        ("acme", "aws", "2026-09"),
        ("globex", "aws", "2026-10"),
        ("globex", "gcp", "2026-10"),
    }


def _bill_and_period(invoice: Any) -> tuple[str, str, str]:
    return invoice.customer_id, invoice.provider, invoice.billing_period


def test_an_open_aws_period_has_no_invoice_until_it_is_closed(deliveries: dict[int, Delivery]) -> None:
    def open_bills(stage: int) -> set[tuple[str, str, str]]:
        return {_bill_and_period(t) for t in deliveries[stage].truths.invoices if t.invoice_id is None}

    assert open_bills(1) == {("acme", "aws", "2026-10"), ("globex", "aws", "2026-10")}
    assert open_bills(2) == {("acme", "aws", "2026-10")}


def test_the_data_export_gains_a_column_in_its_last_month(deliveries: dict[int, Delivery]) -> None:
    objects = deliveries[1].objects
    for uri in deliveries[1].keys(r"/metadata/BILLING_PERIOD="):
        manifest = json.loads(objects[uri])
        for file in manifest["dataFiles"]:
            schema = pq.read_schema(io.BytesIO(objects[file]))
            assert schema.names == [column["name"] for column in manifest["columns"]]
            assert ("x_CostCategories" in schema.names) == ("2026-10" in file)
            assert str(schema.field("BilledCost").type) == "double"
            assert str(schema.field("Tags").type).startswith("map<string, string")


def test_the_report_is_gzip_of_several_members(deliveries: dict[int, Delivery]) -> None:
    for uri in deliveries[1].keys(r"\.csv\.gz$"):
        if "/cur/" in uri:
            first = zlib.decompressobj(wbits=31)
            text = first.decompress(deliveries[1].objects[uri])
            assert text.startswith(b"identity/LineItemId,")
            assert not text.endswith(b"\n")
            assert first.unused_data.startswith(b"\x1f\x8b")


def test_the_report_prints_small_amounts_as_java_does(deliveries: dict[int, Delivery]) -> None:
    files = [file.uri for file in deliveries[1].truths.files if "/cur/" in file.uri]
    records = [record for uri in files for record in _records(uri, deliveries[1].objects[uri]) if record]
    flawed = {row.printed for row in deliveries[1].truths.rejected}
    printed = {record["lineItem/UnblendedCost"] for record in records} - flawed
    assert "8.0E-10" in printed
    assert all("." in amount for amount in printed)


def test_an_azure_run_is_described_by_its_manifest(deliveries: dict[int, Delivery]) -> None:
    objects = deliveries[1].objects
    manifests = deliveries[1].keys(r"/azure/.*/manifest\.json$")
    assert len(manifests) == 12
    for uri in manifests:
        manifest = json.loads(objects[uri])
        blobs = manifest["blobs"]
        assert uri.split("/")[-2] == manifest["runInfo"]["runId"]
        assert manifest["blobCount"] == len(blobs)
        assert manifest["byteCount"] == sum(blob["byteCount"] for blob in blobs)
        assert manifest["dataRowCount"] == sum(blob["dataRowCount"] for blob in blobs)
        for blob in blobs:
            file = f"s3://{uri.split('/')[2]}/{blob['blobName']}"
            assert len(objects[file]) == blob["byteCount"]
            assert len(list(_records(file, objects[file]))) == blob["dataRowCount"]


def test_azure_files_begin_with_a_byte_order_mark_and_spell_times_in_three_ways(
    deliveries: dict[int, Delivery],
) -> None:
    spellings = set()
    for uri in deliveries[1].keys(r"/azure/.*\.csv(\.gz)?$"):
        body = deliveries[1].objects[uri]
        text = gzip.decompress(body) if uri.endswith(".gz") else body
        assert text.startswith(b"\xef\xbb\xbfBilledCost,")
        for record in _records(uri, body):
            if record:
                json.loads(record["Tags"] or "{}")
                spellings.add(re.sub(r"\d+", "9", record["BillingPeriodStart"]))
    assert spellings == {"9-9-9T9:9Z", "9-9-9T9:9:9Z", "9/9/9"}


def test_google_files_hold_decimals_and_one_customer_has_times_without_a_zone(deliveries: dict[int, Delivery]) -> None:
    times = set()
    for customer in ("acme", "globex"):
        (uri,) = deliveries[1].keys(rf"{customer}-billing/gcp/focus/2026-09/focus-000000000000\.parquet$")
        schema = pq.read_schema(io.BytesIO(deliveries[1].objects[uri]))
        assert str(schema.field("EffectiveCost").type) == "decimal128(38, 18)"
        times.add((customer, str(schema.field("ChargePeriodStart").type)))
    assert times == {("acme", "timestamp[us, tz=UTC]"), ("globex", "string")}


def test_planted_values_stand_where_the_truths_say(deliveries: dict[int, Delivery]) -> None:
    truths, objects = deliveries[1].truths, deliveries[1].objects
    planted = [(row.uri, row.row_number, row.column, row.printed) for row in truths.rejected if row.column]
    planted += [(value.uri, value.row_number, value.column, value.printed) for value in truths.normalised]
    for uri, number, column, printed in planted:
        record = list(_records(uri, objects[uri]))[number - 1]
        assert record is not None
        assert (record[column] or None) == printed
    assert all(value.printed.lower() == value.expected.lower() for value in truths.normalised)
    assert {value.expected for value in truths.normalised} == {"Usage", "Usage-Based", "Standard"}
    assert len({violation.rule_id for violation in truths.violations}) == 7


def test_the_customers_file_leads_to_the_exports_and_holds_no_secret(deliveries: dict[int, Delivery]) -> None:
    document = scenario.customers_yaml("http://127.0.0.1:9000")
    assert scenario.SECRET_ACCESS_KEY not in document
    assert scenario.ACCESS_KEY_ID not in document
    customers = yaml.safe_load(document)["customers"]
    assert [customer["id"] for customer in customers] == ["acme", "globex"]
    for customer in customers:
        assert [c["id"] for c in customer["connections"]] == ["aws-main", "azure-main", "gcp-main"]
        for connection in customer["connections"]:
            location = connection["billing"]["location"]
            assert any(uri.startswith(f"{location}/") for uri in deliveries[1].objects)
            assert set(connection["credentials"].values()) == set(scenario.environment())


def test_more_resources_do_not_mean_more_tiny_objects() -> None:
    short = scenario.Scenario(days=31, scale=3)
    tiny = [file for file in exports.export(short, 1).files if "globex-billing/gcp" in file.uri]
    assert len(tiny) == exports.TINY_OBJECTS
    assert sum(len(file.charges) for file in tiny) > 3_000
