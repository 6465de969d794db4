"""Bedrock's logs in a folder and in a bucket: which are read, each record once, large bodies, what is broken."""

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from optiinfra_pipelines.clouds.aws.interactions import bedrock_interactions
from optiinfra_pipelines.clouds.collecting import Calls, Source
from optiinfra_pipelines.customers import Connection
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.llm.interaction import Found, Interaction, Unreadable
from optiinfra_pipelines.places import LlmSource
from optiinfra_pipelines.windows import Window
from optiinfra_pipelines_tests.buckets import SECRET, Bucket

TEN = datetime(2026, 8, 1, 10, tzinfo=UTC)
SPAN = Window(TEN, TEN + timedelta(minutes=15))
LOGS = "AWSLogs/111122223333/BedrockModelInvocationLogs/us-east-1"
HOUR = f"{LOGS}/2026/08/01/10"
REGIONS = ("eu-west-1", "us-east-1")


class Store:
    """A folder or a bucket that logs are put in, under the prefix `logs`, and the reader over it."""

    def __init__(self, location: str, put: Callable[[Mapping[str, bytes]], None], endpoint_url: str | None) -> None:
        self.put, self.calls, self.location, self._endpoint = put, Calls(), location, endpoint_url

    def read(self, below: str = "", span: Window = SPAN, **connection: Any) -> list[Found]:
        llm = {"format": "bedrock", "location": f"{self.location}/logs{below}", "endpoint_url": self._endpoint}
        place = LlmSource.model_validate(llm)
        entry = {"id": "main", "provider": "aws", "collect": ["llm_interactions"], "llm": [llm], **connection}
        keys = {"access_key_id": SecretStr("AKIATEST"), "secret_access_key": SecretStr(SECRET)}
        secrets = keys | {"account_key": SecretStr("another kind")}
        source = Source("acme", Connection.model_validate(entry), secrets, self.calls)
        return list(bedrock_interactions(source, place, span))

    def ids(self, *arguments: Any, **more: Any) -> list[str]:
        found = self.read(*arguments, **more)
        assert all(isinstance(each, Interaction) for each in found), found
        return [each.native_id for each in found if isinstance(each, Interaction)]


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store of each kind."""
    if request.param == "bucket":
        bucket: Bucket = request.getfixturevalue("bucket")
        yield Store(
            f"s3://{bucket.name}",
            lambda objects: bucket.put_all({f"logs/{key}": body for key, body in objects.items()}),
            bucket.url,
        )
        return

    def put(objects: Mapping[str, bytes]) -> None:
        for key, body in objects.items():
            path = tmp_path / "logs" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)

    yield Store(str(tmp_path), put, None)


def line(request_id: str, at: datetime = TEN, **more: Any) -> dict[str, Any]:
    return {
        "schemaType": "ModelInvocationLog",
        "timestamp": at.isoformat(),
        "requestId": request_id,
        "operation": "Converse",
        "modelId": "amazon.nova-lite-v1:0",
        "input": {"inputBodyJson": {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}},
        "output": {"outputBodyJson": {"output": {"message": {"content": [{"text": "Hello"}]}}}},
    } | more


def packed(*lines: Mapping[str, Any] | str) -> bytes:
    written = (each if isinstance(each, str) else json.dumps(each) for each in lines)
    return gzip.compress("\n".join(written).encode())


def hour_of(at: datetime, logs: str = LOGS) -> str:
    return f"{logs}/{at:%Y/%m/%d/%H}"


def test_the_samples_are_found_with_or_without_awslogs_in_the_location(store: Store, data: Path) -> None:
    samples = (data / "llm" / "wire" / "bedrock_invocation.jsonl").read_text().splitlines()
    store.put({f"{HOUR}/20260801T1000Z_a.json.gz": packed(*samples)})
    found = store.read()
    assert [each.native_id[-1] for each in found if isinstance(each, Interaction)] == ["1", "2", "3"]
    assert found == store.read("/AWSLogs")


def test_what_lies_in_the_span_is_given_and_its_end_is_not_in_it(store: Store) -> None:
    moments = {"before": -1, "first": 0, "last": 899, "end": 900}
    lines = [line(name, TEN + timedelta(seconds=seconds)) for name, seconds in moments.items()]
    store.put({f"{HOUR}/a.json.gz": packed(*lines)})
    assert store.ids() == ["first", "last"]
    assert store.ids(span=Window(TEN, TEN)) == []


def test_records_written_late_are_found_up_to_an_hour_after_the_span(store: Store) -> None:
    hours = [TEN + timedelta(hours=number) for number in range(-1, 4)]
    store.put({f"{hour_of(at)}/a.json.gz": packed(line(f"{at:%H}")) for at in hours})
    assert store.ids() == ["10", "11"]
    assert store.ids(span=Window(TEN, TEN + timedelta(hours=1))) == ["10", "11"]
    assert store.ids(span=Window(TEN, TEN + timedelta(hours=1, seconds=1))) == ["10", "11", "12"]


def test_only_the_folders_of_the_hours_that_matter_are_listed(store: Store) -> None:
    many = {f"{hour_of(TEN - timedelta(hours=number))}/a.json.gz": b"not read" for number in range(1, 200)}
    store.put(many | {f"{HOUR}/a.json.gz": packed(line("1"))})
    assert store.ids() == ["1"]
    calls = {operation: count for (_, operation), (count, _, _) in store.calls.made.items()}
    # the folders of accounts, of regions, and two hours
    assert calls in ({}, {"ListObjectsV2": 4, "GetObject": 1})


def test_the_turn_of_a_year_is_crossed(store: Store) -> None:
    eve = datetime(2026, 12, 31, 23, 59, tzinfo=UTC)
    after = eve + timedelta(minutes=1)
    store.put({f"{hour_of(at)}/a.json.gz": packed(line(f"{at:%Y}", at)) for at in (eve, after)})
    assert store.ids(span=Window(eve, after + timedelta(minutes=1))) == ["2026", "2027"]


def test_a_record_that_came_twice_is_given_once(store: Store) -> None:
    store.put(
        {
            f"{HOUR}/a.json.gz": packed(line("1"), line("2"), line("1")),
            f"{HOUR}/b.json.gz": packed(line("2"), line("3")),
            f"{hour_of(TEN + timedelta(hours=1))}/a.json.gz": packed(line("3"), line("4")),
        }
    )
    assert store.ids() == ["1", "2", "3", "4"]


def test_all_accounts_and_regions_are_read_or_those_that_the_connection_names(store: Store) -> None:
    places = [(account, region) for account in ("111122223333", "444455556666") for region in REGIONS]
    store.put(
        {
            f"{hour_of(TEN, f'AWSLogs/{account}/BedrockModelInvocationLogs/{region}')}/a.json.gz": packed(
                line(f"{account[0]}-{region}")
            )
            for account, region in places
        }
        | {"AWSLogs/777788889999/CloudTrail/us-east-1/2026/08/01/a.json.gz": b"another log"}
    )
    assert store.ids() == ["1-eu-west-1", "1-us-east-1", "4-eu-west-1", "4-us-east-1"]
    assert store.ids(accounts=["444455556666"]) == ["4-eu-west-1", "4-us-east-1"]
    assert store.ids(regions=["us-east-1"]) == ["1-us-east-1", "4-us-east-1"]
    assert store.ids(accounts=["111122223333"], regions=["eu-west-1"]) == ["1-eu-west-1"]


def test_bodies_and_tries_of_permission_are_no_logs(store: Store) -> None:
    store.put(
        {
            f"{HOUR}/a.json.gz": packed(line("1")),
            f"{HOUR}/data/x_input.json.gz": packed({"messages": []}),
            f"{HOUR}/amazon-bedrock-logs-permission-check": b"",
            "AWSLogs/111122223333/BedrockModelInvocationLogs/amazon-bedrock-logs-permission-check": b"",
            f"{LOGS}/amazon-bedrock-logs-permission-check": b"",
        }
    )
    assert store.ids() == ["1"]


@pytest.mark.parametrize("bucket_name", ["of-another-account", None])
def test_large_bodies_are_fetched_where_the_logs_lie(store: Store, bucket_name: str | None) -> None:
    """The log may name the bucket that it was copied from."""
    name = bucket_name or store.location.rpartition("/")[2]
    uri = f"s3://{name}/logs/{HOUR}/data/1_input.json.gz"
    asked = {"messages": [{"role": "user", "content": [{"text": "A long question"}]}]}
    store.put(
        {
            f"{HOUR}/a.json.gz": packed(line("1", input={"inputBodyS3Path": uri, "inputTokenCount": 41000})),
            f"{HOUR}/data/1_input.json.gz": packed(asked),
        }
    )
    [found] = store.read()
    assert isinstance(found, Interaction)
    assert (found.texts.input, found.texts.output, found.input_tokens) == ("A long question", "Hello", 41000)


@pytest.mark.parametrize("uri", [f"s3://gone/logs/{HOUR}/data/1.json.gz", "s3://gone/x", "s3://b/AWSLogs/../../x", "?"])
def test_a_large_body_that_cannot_be_had_is_a_missing_text(store: Store, uri: str) -> None:
    store.put({f"{HOUR}/a.json.gz": packed(line("1", input={"inputBodyS3Path": uri, "inputTokenCount": 41000}))})
    [found] = store.read()
    assert isinstance(found, Interaction)
    assert (found.content_state, found.texts.output, found.input_tokens) == ("missing", "Hello", 41000)


def test_bodies_of_records_outside_the_span_are_not_fetched(store: Store) -> None:
    uri = f"s3://b/logs/{HOUR}/data/1.json.gz"
    store.put({f"{HOUR}/a.json.gz": packed(line("1", SPAN.end, input={"inputBodyS3Path": uri}))})
    assert store.read() == []
    assert ("s3", "HeadObject") not in store.calls.made


def test_each_bad_line_is_told_and_the_others_are_read(store: Store) -> None:
    whole = packed(*(line(str(number)) for number in range(3)))
    store.put(
        {
            f"{HOUR}/a.json.gz": packed(line("a"), '{"cut', "", "[" * 100_000, '"text"', line("b"), {"requestId": "x"}),
            f"{HOUR}/b.json.gz": b"no gzip at all",
            f"{HOUR}/c.json.gz": whole[:-12],
            f"{HOUR}/d.json": json.dumps(line("d")).encode(),
        }
    )
    found = store.read()
    good = [each.native_id for each in found if isinstance(each, Interaction)]
    assert good[:2] == ["a", "b"]
    assert good[-1] == "d"
    bad = [(str(each.record.get("object"))[-9:], each.reason) for each in found if isinstance(each, Unreadable)]
    assert bad == [
        ("a.json.gz", "the line is no JSON that can be read"),
        ("a.json.gz", "the line is no JSON that can be read"),
        ("a.json.gz", "the line is no JSON object"),
        ("None", "schemaType is not ModelInvocationLog"),
        ("b.json.gz", "the object's gzip is broken from here on"),
        ("c.json.gz", "the object's gzip is broken from here on"),
    ]
    assert [each.record["line"] for each in found if isinstance(each, Unreadable) and "line" in each.record][:3] == [
        2,
        4,
        5,
    ]


def test_a_body_nested_too_deeply_is_told(store: Store) -> None:
    block = '{"toolResult": {"content": ' * 400 + '{"text": "x"}' + "}}" * 400
    written = json.dumps(line("1")).replace('{"text": "Hi"}', block)
    store.put({f"{HOUR}/a.json.gz": packed(written, line("2"))})
    bad, good = store.read()
    assert isinstance(bad, Unreadable)
    assert bad.reason == "a body is nested too deeply to be read"
    assert isinstance(good, Interaction)


def test_a_location_without_such_logs_says_what_to_check(store: Store) -> None:
    for written in ({"other/a.json.gz": b""}, {"AWSLogs/111122223333/CloudTrail/us-east-1/a.json.gz": b""}):
        store.put(written)
        with pytest.raises(CollectionError, match=r"has no AWSLogs/<account>/Bedrock.*check the location") as error:
            store.read()
        assert error.value.kind == "not_configured"
    with pytest.raises(CollectionError) as error:
        store.read("/typo/AWSLogs")
    assert error.value.kind == "not_configured"


def test_an_hour_without_requests_is_no_error(store: Store) -> None:
    store.put({f"{LOGS}/amazon-bedrock-logs-permission-check": b""})
    assert store.read() == []


def test_a_bucket_that_cannot_be_read_is_an_error_and_no_empty_log(bucket: Bucket) -> None:
    store = Store(f"s3://{bucket.name}", lambda _: None, bucket.url)
    bucket.put_all({f"logs/{HOUR}/a.json.gz": packed(line("1"))})
    bucket.fault("GET", kind="status", status=403, times=99)
    with pytest.raises(CollectionError) as error:
        store.read()
    assert error.value.kind == "auth"
    assert SECRET not in str(error.value)
    bucket.heal()
    assert store.ids() == ["1"]


def test_a_passing_failure_of_a_body_is_not_taken_for_its_absence(bucket: Bucket) -> None:
    store = Store(f"s3://{bucket.name}", lambda _: None, bucket.url)
    uri = f"s3://{bucket.name}/logs/{HOUR}/data/1.json.gz"
    bucket.put_all(
        {
            f"logs/{HOUR}/a.json.gz": packed(line("1", input={"inputBodyS3Path": uri})),
            f"logs/{HOUR}/data/1.json.gz": packed({"messages": []}),
        }
    )
    bucket.fault(f"GET /{bucket.name}/logs/{HOUR}/data/1", kind="status", status=503, times=99)
    with pytest.raises(CollectionError) as error:
        store.read()
    assert error.value.kind in ("throttled", "transient")


@pytest.mark.parametrize("status", [301, 400, 403, 404])
def test_a_body_in_a_bucket_of_another_region_is_a_missing_text(bucket: Bucket, status: int) -> None:
    store = Store(f"s3://{bucket.name}", lambda _: None, bucket.url)
    asked = {"inputBodyS3Path": "s3://elsewhere/1.json.gz"}
    bucket.put_all({f"logs/{HOUR}/a.json.gz": packed(line("1", input=asked))})
    bucket.fault("HEAD /elsewhere", kind="status", status=status, times=99)
    [found] = store.read()
    assert isinstance(found, Interaction)
    assert (found.content_state, found.texts.output) == ("missing", "Hello")
