"""Where the sandbox's interactions lie: their publication to S3, and what customers.yaml says of each cloud's log.

BigQuery (`gcp_bigquery.py`) and Log Analytics (`log_analytics.py`) hold theirs themselves. What records look like is
in `interaction_wire.py`.
"""

import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from optiinfra_pipelines.sandbox.fleet import PLACES, FleetCloud, account_of
from optiinfra_pipelines.sandbox.gcp_bigquery import LLM_LOG
from optiinfra_pipelines.sandbox.interaction_wire import bedrock_record, log_bucket, otlp_lines
from optiinfra_pipelines.sandbox.interactions import STREAMS, Corpus, Planted
from optiinfra_pipelines.sandbox.log_analytics import workspace_id
from optiinfra_pipelines.sandbox.scenario import ACCESS_KEY_ID, CREDENTIAL_VARIABLES, SECRET_ACCESS_KEY
from optiinfra_pipelines.windows import WINDOW

Objects = Mapping[tuple[str, str], bytes]
"""Bytes by bucket and key."""

LLM_DATASET = "vertex_logs"
HOURS = "%Y/%m/%d/%H"
_UPLOADS = 16  # at once


def trace_bucket(customer_id: str) -> str:
    """The bucket of a customer's traces."""
    return f"{customer_id}-llm-traces"


def llm_places(customer_id: str, cloud: FleetCloud, s3_endpoint: str) -> list[dict[str, Any]]:
    """The entries under `llm` of a connection of that cloud; `s3_endpoint` is where `publish_interactions` published.

    GCP's and Azure's are read with the endpoints and credentials of the cloud's own connection, those in S3 with
    `llm_credentials`. Empty where the customer has no application there.
    """
    if not any((each.customer_id, each.cloud) == (customer_id, cloud) for each in STREAMS):
        return []
    common = {"application_label": "app", "variant_label": "variant"}
    of_s3 = common | {"endpoint_url": s3_endpoint, "region": PLACES["aws"][0]}
    project = account_of(customer_id, "gcp")
    by_cloud: Mapping[FleetCloud, dict[str, Any]] = {
        "aws": of_s3
        | {
            "location": f"s3://{log_bucket(customer_id)}/bedrock",
            "format": "bedrock",
            "application": _LABELLESS[customer_id],  # InvokeModel has no metadata
        },
        "gcp": common | {"location": f"bigquery://{project}/{LLM_DATASET}/{LLM_LOG}", "format": "vertex"},
        "azure": common
        | {
            "location": f"log-analytics://{workspace_id(customer_id)}",
            "format": "azure",
            "application": _LABELLESS[customer_id],  # diagnostics have none either
        },
        "vultr": of_s3
        | {"location": f"s3://{trace_bucket(customer_id)}/otlp", "format": "opentelemetry", "folders": HOURS},
    }
    return [by_cloud[cloud]]


_LABELLESS = {"acme": "support-copilot", "globex": "claims-assistant"}


def llm_credentials(cloud: FleetCloud) -> dict[str, str]:
    """The credentials that `llm_places` needs beyond those of the cloud's own connection, each with its variable;
    `scenario.environment` has their values."""
    return dict(CREDENTIAL_VARIABLES) if cloud in ("aws", "vultr") else {}


def publish_interactions(endpoint: str, corpus: Corpus, until: datetime | None = None) -> int:
    """Upload to the S3 server at `endpoint` what was delivered before `until` (now); gives the number of objects."""
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=PLACES["aws"][0],
        aws_access_key_id=ACCESS_KEY_ID,
        aws_secret_access_key=SECRET_ACCESS_KEY,
        config=Config(max_pool_connections=_UPLOADS, request_checksum_calculation="when_required"),
    )
    objects = log_objects(corpus, until or datetime.now(UTC))
    for bucket in sorted({bucket for bucket, _ in objects}):
        client.create_bucket(Bucket=bucket)
    with ThreadPoolExecutor(_UPLOADS) as pool:
        puts = [
            pool.submit(client.put_object, Bucket=bucket, Key=key, Body=body) for (bucket, key), body in objects.items()
        ]
        for put in puts:
            put.result()
    return len(objects)


def log_objects(corpus: Corpus, until: datetime) -> Objects:
    """The objects that hold Bedrock's invocation logs and the traces, of what was delivered before `until`.

    One for each hour in which something was delivered and, of what was late, another one of that hour.
    """
    folders: dict[tuple[str, FleetCloud, datetime, bool], list[Planted]] = defaultdict(list)
    streams = tuple(each for each in corpus.streams if each.cloud in ("aws", "vultr"))
    for planted in corpus.interactions(streams, end=until + WINDOW):
        if planted.delivered_at < until:
            hour = planted.delivered_at.replace(minute=0, second=0, microsecond=0)
            folders[planted.customer_id, planted.cloud, hour, planted.late].append(planted)
    objects: dict[tuple[str, str], bytes] = {}
    for (customer, cloud, hour, late), found in folders.items():
        written = _bedrock_objects if cloud == "aws" else _trace_objects
        objects |= written(customer, hour, "late" if late else "main", found)
    return objects


def _bedrock_objects(customer: str, hour: datetime, name: str, found: Iterable[Planted]) -> Objects:
    """An hour's log as https://docs.aws.amazon.com/bedrock/latest/userguide/model-invocation-logging.html has it."""
    account, region = account_of(customer, "aws"), PLACES["aws"][0]
    folder = f"bedrock/AWSLogs/{account}/BedrockModelInvocationLogs/{region}/{hour:{HOURS}}"
    bucket = log_bucket(customer)
    objects: dict[tuple[str, str], bytes] = {}
    lines = []
    for planted in found:
        record, bodies = bedrock_record(planted, folder)
        lines.append(record)
        objects |= {(bucket, key): _gzipped([body]) for key, body in bodies.items()}
    written = hour + (timedelta(minutes=59) if name == "main" else timedelta(minutes=40))
    return objects | {(bucket, f"{folder}/{written:%Y%m%dT%H%M%S}000Z_{name}.json.gz"): _gzipped(lines)}


def _trace_objects(customer: str, hour: datetime, name: str, found: Iterable[Planted]) -> Objects:
    """An hour's traces: a line for each batch of a window."""
    lines = []
    for _, window in groupby(found, key=lambda each: each.timestamp.minute // 15):
        lines += otlp_lines(window)
    return {(trace_bucket(customer), f"otlp/{hour:{HOURS}}/traces_{name}.jsonl.gz"): _gzipped(lines)}


def _gzipped(lines: Iterable[Any]) -> bytes:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return gzip.compress(text.encode(), compresslevel=3, mtime=0)
