"""Traps of AWS's inventory that no recording holds, and the price list's."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from optiinfra_pipelines.clouds.aws import price_list
from optiinfra_pipelines.clouds.aws.parser import Listing, rows, specifications
from optiinfra_pipelines.errors import CollectionError


def _machine(**more: Any) -> dict[str, Any]:
    instance = {"InstanceId": "i-1", "InstanceType": "m5.large", "State": {"Name": "running"}, **more}
    [row] = rows(Listing("111122223333", "us-east-1", reservations=[{"Instances": [instance]}]))
    return row


def test_a_machine_started_again_is_as_old_as_its_first_interface() -> None:
    made, started = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 11, 20, tzinfo=UTC)
    interface = {"Attachment": {"AttachTime": made, "DeviceIndex": 0}}
    assert _machine(LaunchTime=started, NetworkInterfaces=[interface])["created_at"] == datetime(2026, 1, 2)
    assert _machine(LaunchTime=started)["created_at"] == datetime(2026, 11, 20)


def test_spot_and_cluster_machines_say_so() -> None:
    tags = [{"Key": "kubernetes.io/cluster/prod", "Value": "owned"}, {"Key": "eks:nodegroup-name", "Value": "gpu"}]
    details = json.loads(_machine(InstanceLifecycle="spot", Tags=tags)["details"])
    assert (details["lifecycle"], details["kubernetes_cluster"]) == ("spot", "prod")


def test_a_volume_of_disaster_recovery_is_a_replica() -> None:
    tags = [{"Key": "AWSElasticDisasterRecoveryManaged", "Value": "drs.amazonaws.com"}]
    volume = {"VolumeId": "vol-1", "State": "available", "Attachments": [], "Size": 8, "Tags": tags}
    [row] = rows(Listing("111122223333", "us-east-1", volumes=[volume]))
    assert json.loads(row["details"])["replica"] is True


def test_an_unknown_state_is_kept_as_it_was_written() -> None:
    assert _machine(State={"Name": "Hibernating"})["state"] == "hibernating"


def test_a_part_of_a_gpu_is_a_fraction() -> None:
    gpu = {"Name": "L4", "Manufacturer": "NVIDIA", "Count": 1, "LogicalGpuCount": 1, "GpuPartitionSize": 0.125}
    found = specifications({"GpuInfo": {"Gpus": [gpu]}})
    assert (found["gpu_model"], found["gpu_count"]) == ("NVIDIA L4 24GB", 0.125)


def test_a_product_with_tiers_is_a_row_a_tier() -> None:
    tiers = {
        f"t{begin}": {"unit": "GB-Mo", "beginRange": begin, "endRange": "Inf", "pricePerUnit": {"USD": price}}
        for begin, price in (("0", "0.0230000000"), ("51200", "0.0220000000"))
    }
    product = {
        "product": {"sku": "S", "attributes": {"usagetype": "TimedStorage", "regionCode": "us-east-1"}},
        "terms": {"OnDemand": {"S.J": {"priceDimensions": tiers}}},
    }
    found = list(price_list.rows(json.dumps(product), "volume"))
    assert [(row["tier_start"], row["price"]) for row in found] == [
        (Decimal(0), Decimal("0.023")),
        (Decimal(51200), Decimal("0.022")),
    ]


def test_a_product_that_cannot_be_read_is_malformed() -> None:
    with pytest.raises(CollectionError, match="cannot be read"):
        list(price_list.rows('{"product": {}}', "machine"))
