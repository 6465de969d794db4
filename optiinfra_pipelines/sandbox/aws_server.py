"""AWS on loopback: STS, EC2, RDS, Lambda, tagging, CloudWatch, Price List and Cost Explorer over the sandbox's fleet.

`python -m optiinfra_pipelines.sandbox.aws_server --port 0 --today YYYY-MM-DD`. One address serves every service and
region: a request's signature names both, and its access key the customer. The first part of the path is for people
and faults only.
"""

import argparse
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, timedelta
from functools import cache
from hashlib import blake2b
from itertools import count
from typing import Any

from optiinfra_pipelines.sandbox import aws_bill, aws_listings, aws_measures
from optiinfra_pipelines.sandbox.aws_listings import ENABLED_REGIONS, shown_resources
from optiinfra_pipelines.sandbox.aws_measures import shown_series
from optiinfra_pipelines.sandbox.aws_wire import (
    Refusal,
    Request,
    Signature,
    read_request,
    signature_of,
    signed_with,
    write_answer,
    write_error,
)
from optiinfra_pipelines.sandbox.fleet import PLACES, Fleet, account_of
from optiinfra_pipelines.sandbox.gate import FAULT_IN_ENVIRON, Fault, Gate, answer, read_body, serve, serve_apart

__all__ = ["ABSENT", "FAULTS", "connection", "environment", "serve_aws", "shown_resources", "shown_series"]

SERVICES = ("ec2", "rds", "lambda", "cloudwatch", "sts", "pricing", "ce", "resourcegroupstaggingapi")
_KINDS = ("throttled", "partial", "endless", "repeated", "expired", "skewed", "denied", "closed_region")
FAULTS: Mapping[str, Fault | None] = {
    "throttled": Fault("throttled", match="/ec2"),  # EC2 sends no header that says how long to wait
    "server_error_500": Fault("status", status=500, match="/ec2"),
    "server_error_503": Fault("status", status=503, match="/ec2"),
    "connection_reset": Fault("reset", match="/ec2"),
    "timeout": Fault("hang", seconds=2, match="/ec2"),
    "truncated_json": Fault("truncate", match="/ec2"),
    "partial_page": Fault("partial", match="/cloudwatch", times=4),  # ListMetrics thrice, then GetMetricData
    # two pages of the region that holds something; empty ones of the other region may repeat, and meet it as well
    "endless_cursor": Fault("endless", match="/rds", times=20),
    "repeated_page": Fault("repeated", match="/rds", times=20),
    "token_expiry": Fault("expired", match="/rds"),
    "clock_skew": Fault("skewed", match="/rds"),
    "empty_zone": None,
    "permission_denied": Fault("denied", match="/rds"),
    "region_not_enabled": Fault("closed_region", match="/ec2"),
}
ABSENT: Mapping[str, str] = {  # why there is no such fault
    "empty_zone": "a region with nothing in it answers an empty list: eu-west-1 always does here",
}
# Cursor in the answer, cursor and page size in the request, items of a page where none is asked for (None: all).
_PAGING: Mapping[str, tuple[str, str, str, int | None]] = {
    "ec2": ("NextToken", "NextToken", "MaxResults", None),
    "rds": ("Marker", "Marker", "MaxRecords", 100),
    "lambda": ("NextMarker", "Marker", "MaxItems", 50),
    "resourcegroupstaggingapi": ("PaginationToken", "PaginationToken", "ResourcesPerPage", 100),
    "cloudwatch": ("NextToken", "NextToken", "", 500),
    "pricing": ("NextToken", "NextToken", "MaxResults", 100),
    "ce": ("NextPageToken", "NextPageToken", "", 500),
}
_REFUSALS: Mapping[str, tuple[int, str, str]] = {
    "throttled": (503, "RequestLimitExceeded", "Request limit exceeded."),
    "expired": (403, "ExpiredToken", "The security token included in the request is expired"),
    "skewed": (
        403,
        "SignatureDoesNotMatch",
        "Signature expired: 20261001T000000Z is now earlier than 20261001T001500Z",
    ),
    "denied": (403, "AccessDenied", "User: arn:aws:sts::role/optiinfra is not authorized to perform this action"),
}
Lists = Callable[[Fleet, str], list[dict[str, Any]]]
_LISTS: Mapping[tuple[str, str], tuple[str, Lists]] = {
    ("ec2", "DescribeInstances"): ("Reservations", aws_listings.reservations),
    ("ec2", "DescribeVolumes"): ("Volumes", aws_listings.volumes),
    ("ec2", "DescribeSnapshots"): ("Snapshots", aws_listings.snapshots),
    ("ec2", "DescribeImages"): ("Images", aws_listings.images),
    ("ec2", "DescribeLaunchTemplateVersions"): ("LaunchTemplateVersions", lambda fleet, customer: []),
    ("ec2", "DescribeAddresses"): ("Addresses", aws_listings.addresses),
    ("rds", "DescribeDBInstances"): ("DBInstances", aws_listings.databases),
    ("lambda", "ListFunctions"): ("Functions", aws_listings.functions),
    ("resourcegroupstaggingapi", "GetResources"): ("ResourceTagMappingList", aws_listings.function_tags),
}


def serve_aws(
    today: date, customers: Sequence[str] = ("acme", "globex"), machines: int = 0, latency: float = 0.0
) -> AbstractContextManager[str]:
    """A server in a process of its own, for as long as the context lasts; yields its URL."""
    return serve_apart(
        __name__,
        *("--today", today.isoformat(), "--customers", ",".join(customers)),
        *("--machines", str(machines), "--latency", str(latency)),
    )


def connection(customer_id: str, url: str) -> dict[str, Any]:
    """The entry of customers.yaml that reaches the customer's account on the server at `url`."""
    return {
        "id": "aws-api",
        "provider": "aws",
        "accounts": [account_of(customer_id, "aws")],
        "assume_role": "arn:aws:iam::{account}:role/optiinfra-reader",
        "collect": ["billing", "metrics", "inventory", "prices"],
        "billing": {"location": "cost-explorer://account"},
        "endpoints": {service: f"{url}/{service}" for service in SERVICES},
        "credentials": {
            "access_key_id": f"{_variable(customer_id)}_ACCESS_KEY_ID",
            "secret_access_key": f"{_variable(customer_id)}_SECRET_ACCESS_KEY",
        },
    }


def environment(customer_ids: Sequence[str]) -> dict[str, str]:
    """The variables that `connection` names, with their values."""
    found = {}
    for each in customer_ids:
        found[f"{_variable(each)}_ACCESS_KEY_ID"] = _key_id(each, "AKIA")
        found[f"{_variable(each)}_SECRET_ACCESS_KEY"] = f"canary-aws-{each}-secret-access-key"
    return found


class AwsApplication:
    """The WSGI application over one fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._measures = cache(lambda customer: aws_measures.measures(fleet, customer))
        self._listed = cache(lambda lists, customer: lists(fleet, customer))
        self._turns = count()
        self._secrets = {
            key: (customer, secret)
            for customer in fleet.customers
            for key, secret in (
                (_key_id(customer, "AKIA"), f"canary-aws-{customer}-secret-access-key"),
                (_key_id(customer, "ASIA"), f"canary-aws-{customer}-role-secret"),
            )
        }

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body, signature = read_body(environ), signature_of(environ)
        fault = environ.get(FAULT_IN_ENVIRON)
        try:
            if signature is None:
                raise Refusal(403, "MissingAuthenticationToken", "Request is missing Authentication Token")
            customer = self._customer(signature, environ, body)
            request = read_request(environ, body, signature)
            if fault and fault.kind in _REFUSALS:
                raise Refusal(*_REFUSALS[fault.kind])
            content = self._content(request, customer, fault)
        except Refusal as refusal:
            written, headers = write_error(signature, refusal)
            return answer(start_response, refusal.status, written, headers.pop("Content-Type"), headers)
        written, headers = write_answer(request, content)
        return answer(start_response, 200, written, headers.pop("Content-Type"), headers)

    def _customer(self, signature: Signature, environ: Mapping[str, Any], body: bytes) -> str:
        query = signature.service in ("ec2",)
        if signature.access_key_id not in self._secrets:
            unknown = (401, "AuthFailure", "AWS was not able to validate the provided access credentials")
            other = (403, "InvalidClientTokenId", "The security token included in the request is invalid.")
            raise Refusal(*(unknown if query else other))
        customer, secret = self._secrets[signature.access_key_id]
        token = environ.get("HTTP_X_AMZ_SECURITY_TOKEN")
        expected = _session_token(customer) if signature.access_key_id.startswith("ASIA") else None
        if not signed_with(environ, body, secret) or token != expected:
            raise Refusal(
                403,
                "AuthFailure" if query else "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided.",
            )
        if signature.region not in (*ENABLED_REGIONS, "us-east-1"):
            closed = "AuthFailure" if query else "UnrecognizedClientException"
            raise Refusal(401 if query else 403, closed, f"{signature.region} is not enabled for this account")
        return customer

    def _content(self, request: Request, customer: str, fault: Fault | None) -> dict[str, Any]:
        service, operation, asked = request.signature.service, request.operation, request.parameters
        here = request.signature.region == PLACES["aws"][0]
        if (service, operation) in _LISTS:
            name, lists = _LISTS[service, operation]
            return self._page(request, name, self._listed(lists, customer) if here else [], fault)
        if service == "sts":
            return _token(operation, asked, customer)
        if operation == "DescribeRegions":
            return {"Regions": aws_listings.regions(bool(fault and fault.kind == "closed_region"))}
        if operation == "DescribeInstanceTypes":
            names = [asked[key] for key in asked if key.startswith("Filter.1.Value.")]
            return self._page(request, "InstanceTypes", aws_listings.instance_types(names), fault)
        if operation == "ListMetrics":
            found = self._measures(customer) if here else {}
            return self._page(request, "Metrics", aws_measures.listed(found, asked["Namespace"]), fault)
        if operation == "GetMetricData":
            return self._metric_data(request, self._measures(customer) if here else {}, fault)
        if operation == "GetProducts":
            wanted = {each["Field"]: each["Value"] for each in asked.get("Filters", ())}
            page = self._page(request, "PriceList", aws_bill.products(self._fleet, asked["ServiceCode"], wanted), fault)
            return {"FormatVersion": "aws_v1", **page}
        if operation == "GetCostAndUsage":
            results = aws_bill.cost_and_usage(self._fleet, customer, asked)
            page = self._page(request, "ResultsByTime", results, fault)
            return {**page, "GroupDefinitions": asked.get("GroupBy", []), "DimensionValueAttributes": []}
        raise Refusal(400, "InvalidAction", f"The action {operation} is not valid for this web service.")

    def _page(self, request: Request, name: str, items: Sequence[Any], fault: Fault | None) -> dict[str, Any]:
        said, asked, size_name, default = _PAGING[request.signature.service]
        size = int(request.parameters.get(size_name) or default or max(len(items), 1))
        first = _offset(request, asked)
        if fault and fault.kind == "endless":
            return {name: list(items), said: _cursor(request.operation, 1)}
        if fault and fault.kind == "repeated":
            return {name: list(items), said: _cursor(f"{request.operation}{next(self._turns)}", 0)}
        rest = {said: _cursor(request.operation, first + size)} if first + size < len(items) else {}
        return {name: list(items[first : first + size]), **rest}

    def _metric_data(
        self, request: Request, found: Mapping[aws_measures.Key, aws_measures.Measure], fault: Fault | None
    ) -> dict[str, Any]:
        asked = request.parameters
        if len(asked["MetricDataQueries"]) > 500:
            raise Refusal(400, "ValidationError", "The parameter MetricDataQueries must hold at most 500 members.")
        start, end = (datetime.fromtimestamp(asked[name], UTC) for name in ("StartTime", "EndTime"))
        series = [
            (query["Id"], list(aws_measures.points(found, query, start, end))) for query in asked["MetricDataQueries"]
        ]
        first, size = _offset(request, "NextToken"), int(asked.get("MaxDatapoints") or 100_800)
        results, passed = [], 0
        for identity, points in series:
            if asked.get("ScanBy") != "TimestampAscending":
                points.reverse()
            begin, stop = max(first - passed, 0), min(first + size - passed, len(points))
            passed += len(points)
            if (begin < stop or not points) and not (first and not points):
                shown = points[begin:stop]
                cut = stop < len(points) or bool(fault)
                shown = shown[: len(shown) // 2] if fault else shown
                results.append(
                    {
                        "Id": identity,
                        "Label": identity,
                        "Timestamps": [at for at, _ in shown],
                        "Values": [value for _, value in shown],
                        "StatusCode": "PartialData" if cut else "Complete",
                    }
                )
        rest = {"NextToken": _cursor("GetMetricData", first + size)} if first + size < passed else {}
        return {"MetricDataResults": results, "Messages": [], **rest}


def _token(operation: str, asked: Mapping[str, Any], customer: str) -> dict[str, Any]:
    account = account_of(customer, "aws")
    if operation == "GetCallerIdentity":
        return {"UserId": "AIDA", "Account": account, "Arn": f"arn:aws:iam::{account}:user/optiinfra"}
    if operation != "AssumeRole":
        raise Refusal(400, "InvalidAction", f"The action {operation} is not valid for this web service.")
    role = str(asked.get("RoleArn"))
    if not role.startswith(f"arn:aws:iam::{account}:role/"):
        raise Refusal(403, "AccessDenied", f"not authorized to perform: sts:AssumeRole on resource: {role}")
    return {
        "Credentials": {
            "AccessKeyId": _key_id(customer, "ASIA"),
            "SecretAccessKey": f"canary-aws-{customer}-role-secret",
            "SessionToken": _session_token(customer),
            "Expiration": datetime.now(UTC) + timedelta(hours=1),
        },
        "AssumedRoleUser": {"AssumedRoleId": "AROA:optiinfra", "Arn": role},
    }


def _variable(customer_id: str) -> str:
    return f"{customer_id.upper().replace('-', '_')}_AWS_API"


def _key_id(customer_id: str, prefix: str) -> str:
    return prefix + blake2b(f"{customer_id}/{prefix}".encode(), digest_size=8).hexdigest().upper()


def _session_token(customer_id: str) -> str:
    return f"canary-aws-{customer_id}-session-token"


def _cursor(operation: str, offset: int) -> str:
    return urlsafe_b64encode(json.dumps([operation, offset]).encode()).decode()


def _offset(request: Request, name: str) -> int:
    """Where the page begins that the request's cursor asks for; Refusal for a cursor of something else."""
    cursor = request.parameters.get(name)
    if not cursor:
        return 0
    try:
        operation, offset = json.loads(urlsafe_b64decode(cursor))
    except ValueError:
        raise Refusal(400, "InvalidNextToken", "The token is not valid") from None
    if not str(operation).startswith(request.operation):
        raise Refusal(400, "InvalidNextToken", "The token is of another call")
    return int(offset)


def _error(status: int, environ: Mapping[str, Any]) -> tuple[str, bytes]:
    code = "ServiceUnavailable" if status == 503 else "InternalError"
    body, headers = write_error(signature_of(environ), Refusal(status, code, "An internal error has occurred"))
    return headers["Content-Type"], body


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--today", type=date.fromisoformat, required=True)
    parser.add_argument("--customers", default="acme,globex")
    parser.add_argument("--machines", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0)
    return parser.parse_args()


if __name__ == "__main__":
    arguments = _arguments()
    fleet = Fleet(arguments.today, tuple(arguments.customers.split(",")), arguments.machines, ("aws",))
    serve(Gate(AwsApplication(fleet), _error, _KINDS, arguments.latency), arguments.port)
