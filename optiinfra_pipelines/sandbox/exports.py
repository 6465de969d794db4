"""The bills as export objects in the layouts that AWS, Azure and Google write, and their publication to S3.

Each layout turns the charges of a bill into objects and says which of them make up the current bill. Object bytes
depend on scenario and stage alone. `python -m optiinfra_pipelines.sandbox.exports --endpoint URL --stage 1` publishes.
"""

import argparse
import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from hashlib import md5, sha256
from itertools import pairwise
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from optiinfra_pipelines.sandbox.bills import Charge, focus_charges, late_charges
from optiinfra_pipelines.sandbox.line_items import COLUMN_NAMES, line_items
from optiinfra_pipelines.sandbox.scenario import ACCESS_KEY_ID, SECRET_ACCESS_KEY, Bill, Period, Scenario
from optiinfra_pipelines.sandbox.truths import DataFile, Truths, truths
from optiinfra_pipelines.tables.contract import Type
from optiinfra_pipelines.tables.focus import FOCUS_1_2

TINY_OBJECTS = 1271  # more than one page of an S3 listing, which ends at 1,000 objects
_MAP = pa.map_(pa.string(), pa.string())
_MONEY_COLUMNS = [column.name for column in FOCUS_1_2 if column.type is Type.MONEY]
_AZURE_COLUMNS = [
    column.name
    for column in FOCUS_1_2
    if (column.since == "1.0" or column.name in ("BillingAccountType", "SubAccountType"))
    and column.name != "AvailabilityZone"
]
_AZURE_EXTRA_COLUMNS = [
    "x_AccountName", "x_BillingExchangeRate", "x_BillingProfileId", "x_InvoiceId", "x_PricingCurrency",
    "x_ResourceGroupName", "x_SkuMeterName", "x_SkuServiceFamily",
]  # fmt: skip


@dataclass
class Export:
    """Every object of one or more bills by bucket and key, and the files among them that are current."""

    objects: dict[tuple[str, str], bytes] = field(default_factory=dict)
    files: list[DataFile] = field(default_factory=list)

    def add_file(self, bill: Bill, period: Period, key: str, charges: Sequence[Charge], body: bytes) -> None:
        """A data file of the current bill."""
        self.objects[bill.bucket, key] = body
        self.files.append(DataFile(f"s3://{bill.bucket}/{key}", bill, period.month, list(charges)))

    def add_object(self, bill: Bill, key: str, body: bytes | dict[str, Any]) -> None:
        """A manifest, given as its JSON document, or a data file that is not current."""
        self.objects[bill.bucket, key] = body if isinstance(body, bytes) else json.dumps(body, indent=2).encode()


def export(scenario: Scenario, stage: int) -> Export:
    """All export objects as they lie in the buckets at `stage` (1 or 2), and which of them are current."""
    layouts: dict[str, Callable[[Export, Scenario, Bill, Period, int], None]] = {
        "aws_data_export": _aws_data_export,
        "aws_cur": _aws_cur,
        "azure_export": _azure_export,
        "files": _gcp_files,
    }
    result = Export()
    with localcontext(prec=60):  # products and sums keep every digit
        for bill in scenario.bills:
            for period in scenario.periods:
                layouts[bill.layout](result, scenario, bill, period, stage)
    return result


def publish(endpoint: str, stage: int, scenario: Scenario | None = None) -> Truths:
    """Bring the buckets of the S3 server at `endpoint` to `stage` and return its truths.

    Only objects whose bytes differ from what lies there are written, so stage 2 after stage 1 touches what changed.
    """
    import boto3
    from botocore.config import Config

    scenario = scenario or Scenario()
    result = export(scenario, stage)
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY_ID,
        aws_secret_access_key=SECRET_ACCESS_KEY,
        config=Config(max_pool_connections=8),
    )
    present: dict[tuple[str, str], str] = {}
    for bucket in dict.fromkeys(bill.bucket for bill in scenario.bills):
        client.create_bucket(Bucket=bucket)
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            present |= {(bucket, item["Key"]): item["ETag"].strip('"') for item in page.get("Contents", [])}
    changed = [place for place, body in result.objects.items() if present.get(place) != etag(body)]
    with ThreadPoolExecutor(8) as pool:
        puts = [
            pool.submit(client.put_object, Bucket=place[0], Key=place[1], Body=result.objects[place])
            for place in changed
        ]
        for put in puts:
            put.result()
    return truths(scenario, stage, result.files)


def etag(body: bytes) -> str:
    """The ETag that S3 gives an object uploaded in one part."""
    return md5(body, usedforsecurity=False).hexdigest()


def _guid(*names: object) -> str:
    return str(UUID(sha256("/".join(map(str, names)).encode()).hexdigest()[:32]))


def _parts(charges: Sequence[Charge], count: int) -> list[Sequence[Charge]]:
    """`charges` in `count` pieces of almost equal length, none of them empty."""
    count = min(count, len(charges))
    ends = [len(charges) * number // count for number in range(count + 1)]
    return [charges[start:end] for start, end in pairwise(ends)]


# AWS Data Exports: overwrite mode, Parquet with doubles


def _aws_data_export(result: Export, scenario: Scenario, bill: Bill, period: Period, stage: int) -> None:
    name = bill.location.rsplit("/", 1)[1]
    folder = f"BILLING_PERIOD={period.month}"
    schema = _aws_schema(with_new_column=period == scenario.periods[-1])
    keys = []
    for number, charges in enumerate(_parts(focus_charges(scenario, bill, period, stage), 3), start=1):
        keys.append(f"{bill.location}/data/{folder}/{name}-{number:05}.snappy.parquet")
        rows = [_aws_row(charge.values) for charge in charges]
        result.add_file(bill, period, keys[-1], charges, _parquet(pa.Table.from_pylist(rows, schema)))
    result.add_object(
        bill,
        f"{bill.location}/metadata/{folder}/{name}-Manifest.json",
        {
            "executionId": _guid(bill.location, period.month, scenario.restated(bill, period, stage)),
            "exportArn": f"arn:aws:bcm-data-exports:us-east-1:{bill.account}:export/{name}-{_guid(name)}",
            "columns": [{"name": column.name, "type": str(column.type)} for column in schema],
            "dataFiles": [f"s3://{bill.bucket}/{key}" for key in keys],
        },
    )


def _aws_schema(*, with_new_column: bool) -> pa.Schema:
    types = {Type.MONEY: pa.float64(), Type.TIMESTAMP: pa.timestamp("ms"), Type.JSON: _MAP}
    columns = [pa.field(column.name, types.get(column.type, pa.string())) for column in FOCUS_1_2]
    columns.append(pa.field("x_Discounts", _MAP))
    columns += [pa.field(name, pa.string()) for name in ("x_Operation", "x_ServiceCode", "x_UsageType")]
    if with_new_column:
        columns.append(pa.field("x_CostCategories", _MAP))
    return pa.schema(columns)


def _aws_row(values: dict[str, Any]) -> dict[str, Any]:
    service = values["ServiceName"].replace(" ", "")
    return (
        values
        | {name: _double(values[name]) for name in _MONEY_COLUMNS}
        | {
            "Tags": values["Tags"] or {},
            "x_CostCategories": {"team": (values["Tags"] or {}).get("application", "shared")},
            "x_Discounts": {},
            "x_Operation": values["ChargeCategory"],
            "x_ServiceCode": service,
            "x_UsageType": f"USE1-{values['SkuMeter'] or service}".replace(" ", "-"),
        }
    )


def _double(value: Decimal | None) -> float | None:
    """The double that prints as `value`; ValueError where none does, for then the truths would not hold."""
    if value is None:
        return None
    if Decimal(repr(float(value))) != value:
        raise ValueError(f"{value} has more digits than a double keeps")
    return float(value)


def _parquet(table: pa.Table) -> bytes:
    """A small Parquet file without what only Arrow writes: the clouds write theirs with other libraries."""
    sink = io.BytesIO()
    pq.write_table(table, sink, use_dictionary=False, write_statistics=False, store_schema=False)
    return sink.getvalue()


# AWS Cost and Usage Report: create-new mode, CSV in gzip files of several members


def _aws_cur(result: Export, scenario: Scenario, bill: Bill, period: Period, stage: int) -> None:
    """Each delivery has its own assembly folder; the manifest above them names the newest, the others lie about."""
    name = bill.location.rsplit("/", 1)[1]
    folder = f"{bill.location}/{period.start:%Y%m%d}-{period.end:%Y%m%d}"
    final = stage == 2 and period == scenario.periods[-1]
    first = line_items(scenario, bill, period, 1)
    assemblies = [("first", first[: len(first) * 2 // 3]), ("second", first)]
    if final:
        assemblies.append(("third", line_items(scenario, bill, period, 2)))
    charges = assemblies[-1][1]
    for delivery, delivered in assemblies:
        assembly_id = _guid(bill.location, period.month, delivery)
        keys = []
        for number, part in enumerate(_parts(delivered, 2), start=1):
            keys.append(f"{folder}/{assembly_id}/{name}-{number}.csv.gz")
            body = _gzip_members(_csv(part, COLUMN_NAMES, _cur_cell))
            if delivered is charges:
                result.add_file(bill, period, keys[-1], part, body)
            else:
                result.add_object(bill, keys[-1], body)
        manifest = _cur_manifest(bill, period, name, assembly_id, keys)
        for place in (f"{folder}/{assembly_id}", folder):
            result.add_object(bill, f"{place}/{name}-Manifest.json", manifest)


def _cur_manifest(bill: Bill, period: Period, name: str, assembly_id: str, keys: list[str]) -> dict[str, Any]:
    columns = [column.split("/", 1) for column in COLUMN_NAMES]
    return {
        "assemblyId": assembly_id,
        "account": bill.account,
        "columns": [{"category": category, "name": column, "type": "String"} for category, column in columns],
        "charset": "UTF-8",
        "compression": "GZIP",
        "contentType": "text/csv",
        "reportId": sha256(name.encode()).hexdigest(),
        "reportName": name,
        "billingPeriod": {"start": f"{period.start:%Y%m%d}T000000.000Z", "end": f"{period.end:%Y%m%d}T000000.000Z"},
        "bucket": bill.bucket,
        "reportKeys": keys,
        "additionalArtifactKeys": [],
    }


def _cur_cell(_: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%S.000Z}"
    return _as_java_prints(value) if isinstance(value, Decimal) else value


def _as_java_prints(value: Decimal) -> str:
    """The number as Java's Double.toString writes it, which is what reports hold: 12.0, 0.001, 8.0E-10."""
    if value == 0 or Decimal("0.001") <= abs(value) < 10**7:
        text = f"{value.normalize():f}"
        return text if "." in text else f"{text}.0"
    sign, digits, _ = value.normalize().as_tuple()
    tail = "".join(map(str, digits[1:])) or "0"
    return f"{'-' if sign else ''}{digits[0]}.{tail}E{value.adjusted()}"


def _gzip_members(text: str) -> bytes:
    """Two gzip members, the second beginning in the middle of a line."""
    whole = text.encode()
    half = len(whole) // 2
    return gzip.compress(whole[:half], mtime=0) + gzip.compress(whole[half:], mtime=0)


def _csv(charges: Iterable[Charge], columns: Sequence[str], cell: Callable[[str, Any], Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    for charge in charges:
        line = [cell(column, charge.values.get(column)) for column in columns]
        ragged = charge.flaw is not None and charge.flaw.reason == "ragged_line"
        writer.writerow(line[:-3] if ragged else line)
    return text.getvalue()


# Azure Cost Management: one folder a run, CSV with a byte order mark, the same at both stages


def _azure_export(result: Export, scenario: Scenario, bill: Bill, period: Period, _: int) -> None:
    """Each run has its own folder with a manifest; an older run of the same month lies beside the newest."""
    zipped = bill.customer_id == "globex"
    charges = focus_charges(scenario, bill, period, 1)
    runs = {"older": charges[: len(charges) // 2], "newest": charges}
    for run, covered in runs.items():
        run_id = _guid(bill.location, period.month, run)
        folder = f"{bill.location}/{period.start:%Y%m%d}-{period.end - timedelta(days=1):%Y%m%d}/{run_id}"
        blobs = []
        for number, part in enumerate(_parts(covered, 3 if zipped else 1), start=1):
            key = f"{folder}/part_{number - 1}_0001.csv{'.gz' if zipped else ''}"
            columns = [*_AZURE_COLUMNS, *_AZURE_EXTRA_COLUMNS]
            text = "\ufeff" + _csv([_azure_charge(bill, charge) for charge in part], columns, _azure_cell(bill, period))
            body = gzip.compress(text.encode(), mtime=0) if zipped else text.encode()
            if covered is charges:
                result.add_file(bill, period, key, part, body)
            else:
                result.add_object(bill, key, body)
            blobs.append({"blobName": key, "byteCount": len(body), "dataRowCount": len(part)})
        last_day = period.end - timedelta(days=1) if run == "newest" else period.start + timedelta(days=14)
        result.add_object(bill, f"{folder}/manifest.json", _azure_manifest(bill, period, run_id, last_day, blobs))


def _azure_charge(bill: Bill, charge: Charge) -> Charge:
    values = charge.values
    extra = {
        "x_AccountName": values["SubAccountName"],
        "x_BillingExchangeRate": Decimal(1),
        "x_BillingProfileId": values["BillingAccountId"],
        "x_InvoiceId": values["InvoiceId"],
        "x_PricingCurrency": bill.currency,
        "x_ResourceGroupName": (values["ResourceId"] or "/////").split("/")[4] or None,
        "x_SkuMeterName": values["SkuMeter"],
        "x_SkuServiceFamily": values["ServiceCategory"],
    }
    return Charge(values | extra, charge.flaw)


def _azure_cell(bill: Bill, period: Period) -> Callable[[str, Any], Any]:
    """Times in the three spellings that exports have been seen with: one a customer, and one month of acme's."""
    pattern = "%Y-%m-%dT%H:%M:%SZ" if bill.customer_id == "globex" else "%Y-%m-%dT%H:%MZ"
    american = bill.customer_id == "acme" and period.month.endswith("09")

    def cell(_: str, value: Any) -> Any:
        if isinstance(value, datetime):
            return f"{value.month}/{value.day}/{value.year}" if american else value.strftime(pattern)
        return json.dumps(value) if isinstance(value, dict) else value

    return cell


def _azure_manifest(
    bill: Bill, period: Period, run_id: str, last_day: datetime, blobs: list[dict[str, Any]]
) -> dict[str, Any]:
    directory, name = bill.location.rsplit("/", 1)
    subscription = f"/subscriptions/{bill.account}"
    return {
        "manifestVersion": "2024-04-01",
        "byteCount": sum(blob["byteCount"] for blob in blobs),
        "blobCount": len(blobs),
        "dataRowCount": sum(blob["dataRowCount"] for blob in blobs),
        "exportConfig": {
            "exportName": name,
            "resourceId": f"{subscription}/providers/Microsoft.CostManagement/exports/{name}",
            "dataVersion": "1.0r2",
            "apiVersion": "2023-07-01-preview",
            "type": "FocusCost",
            "timeFrame": "MonthToDate",
            "granularity": "Daily",
        },
        "deliveryConfig": {
            "partitionData": True,
            "dataOverwriteBehavior": "CreateNewReport",
            "fileFormat": "Csv",
            "compressionMode": "Gzip" if blobs[0]["blobName"].endswith(".gz") else "None",
            "containerUri": f"{subscription}/resourceGroups/finops/providers/Microsoft.Storage/storageAccounts/exports",
            "rootFolderPath": directory,
        },
        "runInfo": {
            "executionType": "Scheduled",
            "submittedTime": f"{last_day + timedelta(hours=30):%Y-%m-%dT%H:%M:%S}.5234447Z",
            "runId": run_id,
            "startDate": f"{period.start:%Y-%m-%dT%H:%M:%S}",
            "endDate": f"{last_day:%Y-%m-%dT%H:%M:%S}Z",
        },
        "blobs": blobs,
    }


# Google Cloud: FOCUS rows exported from BigQuery as Parquet files, no manifest


def _gcp_files(result: Export, scenario: Scenario, bill: Bill, period: Period, stage: int) -> None:
    """Two files a month, save for the last month of globex: one row a file, and a late file at stage 2."""
    last_of_globex = bill.customer_id == "globex" and period == scenario.periods[-1]
    charges = focus_charges(scenario, bill, period, 1)
    parts = _parts(charges, TINY_OBJECTS if last_of_globex else 2)
    if last_of_globex and stage == 2:
        parts.append(late_charges(scenario, bill, period))
    times_as_text = bill.customer_id == "globex"
    table = pa.Table.from_pylist(
        [_gcp_row(charge.values, times_as_text) for part in parts for charge in part], _gcp_schema(times_as_text)
    )
    offset = 0
    for number, part in enumerate(parts):
        rows = table.slice(offset, len(part))
        offset += len(part)
        body = _parquet(rows)
        result.add_file(bill, period, f"{bill.location}/{period.month}/focus-{number:012}.parquet", part, body)


def _gcp_schema(times_as_text: bool) -> pa.Schema:
    types = {
        Type.MONEY: pa.decimal128(38, 18),
        Type.TIMESTAMP: pa.string() if times_as_text else pa.timestamp("us", "UTC"),
    }
    columns = [pa.field(column.name, types.get(column.type, pa.string())) for column in FOCUS_1_2]
    return pa.schema([*columns, pa.field("x_ServiceId", pa.string())])


def _gcp_row(values: dict[str, Any], times_as_text: bool) -> dict[str, Any]:
    row = values | {"x_ServiceId": etag(values["ServiceName"].encode())[:12].upper()}
    for name, value in row.items():
        if isinstance(value, dict):
            row[name] = json.dumps(value)
        elif isinstance(value, datetime) and times_as_text:
            row[name] = f"{value:%Y-%m-%d %H:%M:%S}"
    return row


def main(arguments: list[str] | None = None) -> None:
    """Command line: publish to a running S3 server."""
    parser = argparse.ArgumentParser(prog="python -m optiinfra_pipelines.sandbox.exports", description=__doc__)
    parser.add_argument("--endpoint", required=True, help="URL of the S3 server, such as http://127.0.0.1:9000")
    parser.add_argument("--stage", type=int, choices=(1, 2), default=1, help="1: first delivery; 2: restated and late")
    parser.add_argument("--scale", type=int, default=1, help="multiplies the number of resources")
    parser.add_argument("--truths", help="file to write the manifest of planted truths to")
    options = parser.parse_args(arguments)
    manifest = publish(options.endpoint, options.stage, Scenario(scale=options.scale))
    if options.truths:
        with open(options.truths, "w", encoding="utf-8") as file:
            file.write(manifest.to_json())
    print(f"published stage {options.stage}: {len(manifest.files)} files, {sum(f.rows for f in manifest.files)} rows")


if __name__ == "__main__":
    main()
