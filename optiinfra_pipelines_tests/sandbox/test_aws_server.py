"""The sandbox's AWS, asked by botocore itself: who may ask, how pages end, how it refuses."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from optiinfra_pipelines.sandbox.aws_server import FAULTS, connection, environment, serve_aws, shown_series
from optiinfra_pipelines.sandbox.fleet import Fleet, account_of

TODAY = date(2026, 11, 21)
FLEET = Fleet(TODAY, clouds=("aws",))
FAULT_NAMES = (
    *("throttled", "server_error_500", "server_error_503", "connection_reset", "timeout", "truncated_json"),
    *("partial_page", "endless_cursor", "repeated_page", "token_expiry", "clock_skew", "empty_zone"),
    *("permission_denied", "region_not_enabled"),
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve_aws(TODAY) as address:
        yield address


def _client(url: str, service: str, customer: str = "acme", region: str = "us-east-1", secret: str = "") -> Any:
    keys = dict(zip(connection(customer, url)["credentials"], environment([customer]).values(), strict=True))
    return botocore.session.Session().create_client(
        service,
        region_name=region,
        endpoint_url=f"{url}/{service}",
        aws_access_key_id=keys["access_key_id"],
        aws_secret_access_key=secret or keys["secret_access_key"],
        config=Config(retries={"total_max_attempts": 1}),
    )


def _refusal(client: Any, operation: str, **parameters: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as refused:
        getattr(client, operation)(**parameters)
    answer = refused.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def test_pages_are_as_small_as_asked_and_end(url: str) -> None:
    ec2 = _client(url, "ec2")
    pages = list(ec2.get_paginator("describe_volumes").paginate(MaxResults=3))
    ids = [volume["VolumeId"] for page in pages for volume in page["Volumes"]]
    assert [len(page["Volumes"]) for page in pages] == [3, 1]
    assert ids == [each.resource_id for each in FLEET.of("acme", "aws", "volume")]
    assert _refusal(ec2, "describe_volumes", NextToken="made-up") == (400, "InvalidNextToken")


def test_a_page_of_instances_counts_reservations(url: str) -> None:
    page = _client(url, "ec2").describe_instances(MaxResults=2)
    assert sum(len(each["Instances"]) for each in page["Reservations"]) == 4


def test_each_customer_sees_its_own_account(url: str) -> None:
    for customer in ("acme", "globex"):
        assert _client(url, "sts", customer).get_caller_identity()["Account"] == account_of(customer, "aws")
        found = _client(url, "rds", customer).describe_db_instances()["DBInstances"]
        assert [each["DBInstanceArn"] for each in found] == [
            each.resource_id for each in FLEET.of(customer, "aws", "database")
        ]


def test_a_wrong_secret_is_refused_as_each_service_refuses_it(url: str) -> None:
    assert _refusal(_client(url, "ec2", secret="wrong"), "describe_regions") == (403, "AuthFailure")
    assert _refusal(_client(url, "lambda", secret="wrong"), "list_functions") == (403, "SignatureDoesNotMatch")


def test_a_role_of_another_account_is_not_to_be_had(url: str) -> None:
    role = f"arn:aws:iam::{account_of('globex', 'aws')}:role/optiinfra-reader"
    assert _refusal(_client(url, "sts"), "assume_role", RoleArn=role, RoleSessionName="test") == (403, "AccessDenied")


def test_a_region_not_opted_into_refuses_and_an_empty_one_is_empty(url: str) -> None:
    assert _refusal(_client(url, "ec2", region="ap-east-1"), "describe_volumes") == (401, "AuthFailure")
    assert _client(url, "ec2", region="eu-west-1").describe_volumes()["Volumes"] == []


def test_metric_data_comes_newest_first_and_in_pages_of_points(url: str) -> None:
    cloudwatch = _client(url, "cloudwatch")
    machine = next(each.resource for each in shown_series(FLEET, "acme"))
    metric = {
        "Namespace": "AWS/EC2",
        "MetricName": "CPUUtilization",
        "Dimensions": [{"Name": "InstanceId", "Value": machine.resource_id}],
    }
    asked = {
        "MetricDataQueries": [
            {"Id": f"q{stat.lower()}", "MetricStat": {"Metric": metric, "Period": 900, "Stat": stat}}
            for stat in ("Average", "Maximum")
        ],
        "StartTime": datetime(2026, 11, 20, 10, tzinfo=UTC),
        "EndTime": datetime(2026, 11, 20, 11, tzinfo=UTC),
    }
    whole = cloudwatch.get_metric_data(**asked)["MetricDataResults"]
    assert [each["Timestamps"] for each in whole] == [sorted(each["Timestamps"], reverse=True) for each in whole]
    first = cloudwatch.get_metric_data(**asked, MaxDatapoints=6)
    second = cloudwatch.get_metric_data(**asked, MaxDatapoints=6, NextToken=first["NextToken"])
    assert [each["StatusCode"] for each in first["MetricDataResults"]] == ["Complete", "PartialData"]
    assert "NextToken" not in second
    halves = [first["MetricDataResults"][1], second["MetricDataResults"][0]]
    assert [value for each in halves for value in each["Values"]] == whole[1]["Values"]


def test_there_is_a_fault_of_every_name() -> None:
    assert set(FAULTS) == set(FAULT_NAMES)
