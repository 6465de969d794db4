"""The sandbox's S3 server answers boto3 and Arrow as S3 does, refuses wrong keys and fails on demand."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionError, HTTPClientError, ResponseStreamingError
from pyarrow import fs

from optiinfra_pipelines.sandbox.s3_server import serve_s3

KEY = "AKIATHERIGHTKEY00000"
BODY = b"0123456789" * 100


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of a server that accepts KEY and holds s3://bills/october/part-1."""
    with serve_s3(KEY) as url:
        client = _client(url)
        client.create_bucket(Bucket="bills")
        client.put_object(Bucket="bills", Key="october/part-1", Body=BODY)
        yield url


@pytest.fixture
def url(server: str) -> Iterator[str]:
    """The server's URL, without faults before and after."""
    yield server
    _faults(server, "DELETE")


def _client(url: str, access_key: str = KEY) -> Any:
    config = Config(retries={"total_max_attempts": 1})
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key="any",
        config=config,
    )


def _arrow(url: str, access_key: str = KEY) -> fs.S3FileSystem:
    return fs.S3FileSystem(
        endpoint_override=url.removeprefix("http://"),
        scheme="http",
        region="us-east-1",
        access_key=access_key,
        secret_key="any",
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
    )


def _faults(url: str, method: str, **fault: object) -> Any:
    body = json.dumps(fault).encode() if fault else None
    request = urllib.request.Request(f"{url}/sandbox/faults", data=body, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def _get(url: str) -> bytes:
    return _client(url).get_object(Bucket="bills", Key="october/part-1")["Body"].read()


def test_boto3_and_arrow_list_and_read_the_same_object(url: str) -> None:
    assert _get(url) == BODY
    listed = _arrow(url).get_file_info(fs.FileSelector("bills", recursive=True))
    (found,) = (info for info in listed if info.is_file)
    assert (found.path, found.size) == ("bills/october/part-1", len(BODY))
    assert _arrow(url).open_input_stream(found.path).read() == BODY


def test_a_wrong_access_key_is_refused_as_s3_refuses_it(url: str) -> None:
    with pytest.raises(ClientError) as refused:
        _client(url, "AKIASOMEONEELSE00000").list_objects_v2(Bucket="bills")
    assert refused.value.response["Error"]["Code"] == "InvalidAccessKeyId"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    with pytest.raises(OSError, match="INVALID_ACCESS_KEY_ID"):
        _arrow(url, "AKIASOMEONEELSE00000").get_file_info(fs.FileSelector("bills"))


def test_an_unsigned_request_is_denied(url: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{url}/bills/october/part-1")
    assert refused.value.code == 403
    assert b"<Code>AccessDenied</Code>" in refused.value.read()


def test_without_an_access_key_given_any_key_will_do() -> None:
    with serve_s3() as url:
        client = _client(url, "AKIASOMEONEELSE00000")
        client.create_bucket(Bucket="anyone")
        assert [each["Name"] for each in client.list_buckets()["Buckets"]] == ["anyone"]


def test_a_status_fault_lasts_for_as_many_requests_as_it_says(url: str) -> None:
    _faults(url, "POST", status=503, times=2, match="GET /bills")
    for _ in range(2):
        with pytest.raises(ClientError) as failed:
            _get(url)
        assert failed.value.response["Error"]["Code"] == "SlowDown"
        assert failed.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert _get(url) == BODY


def test_a_fault_spares_requests_that_it_does_not_match(url: str) -> None:
    _faults(url, "POST", status=500, times=1, match="GET /bills/september")
    assert _get(url) == BODY
    assert _faults(url, "GET") == [{"kind": "status", "status": 500, "times": 1, "match": "GET /bills/september"}]


def test_faults_are_met_in_the_order_in_which_they_were_added(url: str) -> None:
    _faults(url, "POST", status=500, match="GET /bills")
    _faults(url, "POST", status=403, match="GET /bills")
    codes = []
    for _ in range(2):
        with pytest.raises(ClientError) as failed:
            _get(url)
        codes.append(failed.value.response["Error"]["Code"])
    assert codes == ["InternalError", "AccessDenied"]


def test_a_reset_connection_gives_no_answer_at_all(url: str) -> None:
    _faults(url, "POST", kind="reset", match="GET /bills")
    with pytest.raises((ConnectionError, HTTPClientError)):
        _get(url)
    assert _get(url) == BODY


def test_a_truncated_body_is_noticed_by_both_clients(url: str) -> None:
    _faults(url, "POST", kind="truncate", times=2, match="GET /bills/october/part-1")
    with pytest.raises(ResponseStreamingError, match="500 bytes read, 500 more expected"):
        _get(url)
    with pytest.raises(OSError, match="500 bytes missing"):
        _arrow(url).open_input_stream("bills/october/part-1").read()


@pytest.mark.parametrize("fault", [{"kind": "earthquake"}, {"colour": "red"}, {"status": 999}])
def test_a_fault_that_is_none_is_refused(url: str, fault: dict[str, object]) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        _faults(url, "POST", **fault)
    assert refused.value.code == 400
    assert _faults(url, "GET") == []


def test_the_server_is_gone_after_its_block() -> None:
    with serve_s3() as url:
        pass
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/sandbox/faults")
