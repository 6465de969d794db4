"""The parsers over recorded answers of the real AWS."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from optiinfra_pipelines.clouds.aws.parser import Listing, rows
from optiinfra_pipelines.clouds.aws.series import Query, listed_queries, metric_rows
from optiinfra_pipelines.clouds.aws.vocabulary import LISTED_METRICS
from optiinfra_pipelines.windows import Window
from optiinfra_pipelines_tests.clouds.aws.conftest import Recording

ACCOUNT = "644160558196"


def _rows(**listed: Any) -> dict[str, dict[str, Any]]:
    return {row["resource_id"]: row for row in rows(Listing(ACCOUNT, "us-east-1", **listed))}


def _details(row: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(row["details"]))


def test_instances_of_2026_are_read_with_the_moment_they_were_made(recording: Recording) -> None:
    answer = recording("test_ec2_compute_optimizer_no_params/ec2.DescribeInstances_1")
    found = _rows(reservations=answer["Reservations"])
    machine = found["i-039b21b80b9602a24"]
    assert machine["created_at"] == datetime(2026, 1, 8, 20, 3, 3)
    assert machine["state"] == "running"
    assert machine["native_type"] == answer["Reservations"][0]["Instances"][0]["InstanceType"]
    assert _details(machine)["volumes"] == ["vol-0e3d7917c67a719e4"]
    assert machine["vcpus"] is None, "the types were not described"


def test_a_terminated_instance_is_listed_as_such(recording: Recording) -> None:
    answer = recording("test_ec2_attached_ebs_filter/ec2.DescribeInstances_1")
    found = _rows(reservations=answer["Reservations"])
    assert found["i-b2d2a876"]["state"] == "terminated"
    assert found["i-b2d2a876"]["name"] == "Packer Builder"
    assert len(found) == sum(len(each["Instances"]) for each in answer["Reservations"])


@pytest.mark.parametrize(
    "path",
    [
        "cost_opt_hub_ebs/ec2.DescribeVolumes_1",
        "test_ebs_metrics_percent_filter/ec2.DescribeVolumes_1",
        "test_ebs_volume_snapshots_filter/ec2.DescribeVolumes_1",
        "test_ec2_attached_ebs_filter/ec2.DescribeVolumes_1",
    ],
)
def test_every_recorded_volume_becomes_a_row(recording: Recording, path: str) -> None:
    volumes = recording(path)["Volumes"]
    found = _rows(volumes=volumes)
    assert set(found) == {each["VolumeId"] for each in volumes}
    for volume in volumes:
        row = found[volume["VolumeId"]]
        assert row["state"] == ("attached" if volume["State"] == "in-use" else "unattached")
        assert (row["attached_to"] is None) == (not volume["Attachments"])
        assert (row["storage_gib"], row["native_type"]) == (volume["Size"], volume["VolumeType"])
        assert row["created_at"].tzinfo is None
        assert _details(row)["iops"] == volume["Iops"]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_every_recorded_address_becomes_a_row(recording: Recording, number: int) -> None:
    addresses = recording(f"test_address_disassociate/ec2.DescribeAddresses_{number}")["Addresses"]
    found = _rows(addresses=addresses)
    for address in addresses:
        row = found[address["AllocationId"]]
        assert row["state"] == ("attached" if "AssociationId" in address else "unattached")
        assert row["attached_to"] == (address.get("InstanceId") or address.get("NetworkInterfaceId"))


def test_an_address_on_an_interface_alone_is_in_use(recording: Recording) -> None:
    found = _rows(addresses=recording("test_address_disassociate/ec2.DescribeAddresses_2")["Addresses"])
    assert found["eipalloc-01a0fe3d323ee5a8c"]["attached_to"] == "eni-0a97f5badf0f2b1db"
    assert _details(found["eipalloc-01a0fe3d323ee5a8c"])["stack"] == "devsecops-sandbox-vpc-1"


@pytest.mark.parametrize("number", [1, 2])
def test_a_snapshot_used_by_an_image_or_a_template_says_so(recording: Recording, number: int) -> None:
    folder = "test_ebs_snapshot_unused"
    found = _rows(
        snapshots=recording(f"{folder}/ec2.DescribeSnapshots_{number}")["Snapshots"],
        images=recording(f"{folder}/ec2.DescribeImages_{number}")["Images"],
        template_versions=recording(f"{folder}/ec2.DescribeLaunchTemplateVersions_{number}")["LaunchTemplateVersions"],
    )
    assert _details(found["snap-0b80955e4f7052f72"])["used_by_images"] == ["ami-008c67c239389d171"]
    assert _details(found["snap-0b818bbec5eebac4c"])["used_by_launch_templates"] == ["lt-0f4a39147cc7881b9"]
    assert "used_by_images" not in _details(found["snap-0bf9e1af959fbdddf"])
    assert found["ami-008c67c239389d171"]["attached_to"] == "snap-0b80955e4f7052f72"
    assert found["ami-008c67c239389d171"]["created_at"] == datetime(2019, 3, 8, 16, 7, 13)


def test_snapshots_with_times_as_text_are_read(recording: Recording) -> None:
    snapshots = recording("test_ebs_volume_snapshots_filter/ec2.DescribeSnapshots_1")["Snapshots"]
    found = _rows(snapshots=snapshots)
    assert len(found) == len(snapshots)
    assert found["snap-053a2754a57c25283"]["created_at"] == datetime(2024, 1, 30, 10, 33, 22, 36000)


@pytest.mark.parametrize("number", [1, 2])
def test_recorded_token_counts_of_bedrock_become_rows(recording: Recording, number: int) -> None:
    folder = "bedrock_inference_profile_token_metrics"
    [result] = recording(f"{folder}/monitoring.GetMetricData_{number}")["MetricDataResults"]
    model = recording(f"{folder}/bedrock.ListInferenceProfiles_1")["inferenceProfileSummaries"][0]["inferenceProfileId"]
    query = Query(
        LISTED_METRICS["AWS/Bedrock InputTokenCount"], ACCOUNT, model, (("ModelId", model),), "sum", scale=1.0
    )
    span = Window(datetime(2026, 7, 21, 14, tzinfo=UTC), datetime(2026, 7, 21, 15, tzinfo=UTC))
    [row] = metric_rows([query], [{**result, "Id": "q0"}], span).to_pylist()
    assert (row["value"], row["unit"], row["window_start"]) == (15.0, "tokens", datetime(2026, 7, 21, 14, 13))


def test_a_metric_of_prompt_sizes_counts_the_same_calls_only_once() -> None:
    model = {"Name": "ModelId", "Value": "anthropic.claude-sonnet-4"}
    listed = [
        {"Namespace": "AWS/Bedrock", "MetricName": "Invocations", "Dimensions": dimensions}
        for dimensions in ([model], [model, {"Name": "ContextWindow", "Value": "200K"}])
    ]
    assert len(list(listed_queries(listed, ACCOUNT, []))) == 1
