"""Traces in files and buckets: which files are read, what is told twice, and what cannot be read."""

import gzip
import json
import os
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.llm.interaction import Unreadable
from optiinfra_pipelines.llm.opentelemetry import opentelemetry_interactions
from optiinfra_pipelines.places import LlmSource
from optiinfra_pipelines.windows import Window
from optiinfra_pipelines_tests.buckets import SECRET, Bucket
from optiinfra_pipelines_tests.llm.traces import (
    ANSWERED,
    ASKED,
    AT,
    CHAT,
    DAY,
    events,
    interactions,
    lines,
    otlp_event,
    otlp_span,
    read_folder,
    source,
    span_id,
    spans,
)

QUARTER = Window(AT, AT + timedelta(minutes=15))
SHORT = {name: value for name, value in CHAT.items() if not name.endswith("messages")}


def numbers(folder: Path, span: Window = DAY, **fields: str) -> list[int]:
    """The numbers of the spans that are found there."""
    return [int(each.span_id or "", 16) for each in interactions(read_folder(folder, span, **fields))]


def test_files_of_all_kinds_are_read_and_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "a.json").write_text(json.dumps(spans(otlp_span(CHAT, 1))))
    (tmp_path / "b.jsonl").write_text(lines(spans(otlp_span(CHAT, 2)), spans(otlp_span(CHAT, 3))))
    (tmp_path / "deep" / "er" / "c.JSONL.gz").write_bytes(gzip.compress(lines(spans(otlp_span(CHAT, 4))).encode()))
    (tmp_path / "pretty.json").write_text(json.dumps([spans(otlp_span(CHAT, 5))], indent=2) + "\n")
    (tmp_path / "notes.txt").write_text("no traces")
    assert sorted(numbers(tmp_path)) == [1, 2, 3, 4, 5]
    assert numbers(tmp_path / "a.json") == [1]


def test_calls_that_began_in_the_window_are_given_and_no_others(tmp_path: Path) -> None:
    before, last = AT - timedelta(microseconds=1), QUARTER.end - timedelta(microseconds=1)
    moments = (before, AT, last, QUARTER.end)
    each = [otlp_span(CHAT, number, at=at) for number, at in enumerate(moments, 1)]
    (tmp_path / "traces.json").write_text(lines(spans(*each)))
    assert sorted(numbers(tmp_path, QUARTER)) == [2, 3]


def test_a_span_and_an_event_in_different_files_are_one_interaction(tmp_path: Path) -> None:
    details = {"gen_ai.input.messages": ASKED, "gen_ai.output.messages": ANSWERED}
    event = otlp_event("gen_ai.client.inference.operation.details", details, at=AT + timedelta(seconds=2))
    (tmp_path / "logs.json").write_text(lines(events(event)))
    (tmp_path / "traces.json").write_text(lines(spans(otlp_span(SHORT), service__name="shop")))
    (found,) = interactions(read_folder(tmp_path))
    assert (found.texts.input, found.texts.output, found.application) == ("Capital of France?", "Paris.", "shop")


def test_an_event_after_the_window_belongs_to_the_call_that_began_in_it(tmp_path: Path) -> None:
    event = otlp_event("gen_ai.client.inference.operation.details", CHAT, at=QUARTER.end + timedelta(seconds=9))
    began = QUARTER.end - timedelta(seconds=1)
    (tmp_path / "traces.json").write_text(lines(events(event), spans(otlp_span(SHORT, at=began, seconds=10))))
    (found,) = interactions(read_folder(tmp_path, QUARTER))
    assert (found.timestamp, found.texts.output) == (began, "Paris.")
    assert numbers(tmp_path, Window(QUARTER.end, QUARTER.end + timedelta(minutes=15))) == []


def test_the_event_of_a_call_that_began_earlier_is_no_interaction_of_its_own(tmp_path: Path) -> None:
    began = AT - timedelta(seconds=5)
    event = otlp_event("gen_ai.client.inference.operation.details", CHAT, at=AT + timedelta(seconds=2))
    (tmp_path / "traces.json").write_text(lines(events(event), spans(otlp_span(SHORT, at=began, seconds=8))))
    assert numbers(tmp_path, QUARTER) == []
    assert numbers(tmp_path, Window(AT - timedelta(minutes=15), AT)) == [1]


def test_what_is_told_twice_is_given_once(tmp_path: Path) -> None:
    chosen = [
        otlp_event("gen_ai.user.message", {}, body={"content": "Hi"}),
        otlp_event("gen_ai.choice", {}, body={"message": {"content": "Hello."}}),
    ]
    told = lines(spans(otlp_span(SHORT)), events(*chosen))
    unfinished = otlp_span(SHORT, endTimeUnixNano="0")
    (tmp_path / "first.jsonl").write_text(lines(spans(unfinished)) + told + lines(spans(otlp_span(SHORT))))
    (tmp_path / "sent-again.jsonl").write_text(told)
    (found,) = interactions(read_folder(tmp_path))
    assert (found.texts.input, found.texts.output, found.latency_ms) == ("Hi", "Hello.", 1200.0)


def test_the_messages_of_an_agent_are_no_call_of_a_model(tmp_path: Path) -> None:
    choice = otlp_event("gen_ai.choice", {}, body={"message": {"content": "Done."}})
    agent = otlp_span({"gen_ai.operation.name": "invoke_agent"})
    (tmp_path / "traces.json").write_text(lines(events(choice), spans(agent)))
    assert read_folder(tmp_path) == []
    (tmp_path / "traces.json").write_text(lines(events(choice)))
    assert [each.texts.output for each in interactions(read_folder(tmp_path))] == ["Done."]


def test_a_line_that_is_no_json_is_unreadable_and_the_others_are_read(tmp_path: Path) -> None:
    good = json.dumps(spans(otlp_span(CHAT)))
    bad = ('{"resourceSpans": [', "\ufeff?", "[" * 100_000, '"text"')
    (tmp_path / "traces.jsonl").write_text("\n".join((good, *bad, "", good)))
    found = read_folder(tmp_path)
    refused = [each for each in found if isinstance(each, Unreadable)]
    assert [each.reason for each in refused] == ["is no JSON", "is no JSON", "is no JSON", "is no JSON object"]
    assert refused[0].record == {
        "file": str(tmp_path / "traces.jsonl"),
        "line": 2,
        "text": '{"resourceSpans": [\n',
    }
    assert len(str(refused[2].record["text"])) == 2000
    assert len(found) == 5


def test_a_line_that_is_still_being_written_says_so(tmp_path: Path) -> None:
    told = lines(spans(otlp_span(CHAT, 1)), spans(otlp_span(CHAT, 2)))
    (tmp_path / "traces.json").write_text(told[:-20])
    first, second = read_folder(tmp_path)
    assert isinstance(first, Unreadable)
    assert first.reason == "is no JSON as far as it goes: the file ends within the line"
    assert not isinstance(second, Unreadable)


def test_a_gzip_file_that_ends_early_is_unreadable_and_keeps_what_came_before(tmp_path: Path) -> None:
    whole = gzip.compress(lines(*(spans(otlp_span(CHAT, number)) for number in range(1, 400))).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-200])
    (tmp_path / "none.json.gz").write_text("{}")
    found = read_folder(tmp_path)
    refused = [each.reason for each in found if isinstance(each, Unreadable)]
    assert refused == ["is no whole gzip file (EOFError)", "is no whole gzip file (BadGzipFile)"]
    assert len(found) > 2


def test_with_folders_by_the_hour_only_those_of_the_window_and_the_hour_after_are_read(tmp_path: Path) -> None:
    for hour in range(24):
        folder = tmp_path / f"2026/08/01/{hour:02}"
        folder.mkdir(parents=True)
        (folder / "traces.json").write_text(lines(spans(otlp_span(CHAT, hour + 1, at=AT))))  # all began at 10:00
    found = numbers(tmp_path, QUARTER, folders="%Y/%m/%d/%H")
    assert sorted(found) == [11, 12]
    late = Window(AT + timedelta(minutes=45), AT + timedelta(hours=1))
    (tmp_path / "2026/08/01/11/traces.json").write_text(lines(spans(otlp_span(CHAT, 77, at=late.start))))
    assert numbers(tmp_path, late, folders="/%Y/%m/%d/%H/") == [77]
    assert numbers(tmp_path, DAY, folders="year=%Y") == []


def test_files_that_were_last_changed_before_the_window_are_not_read(tmp_path: Path) -> None:
    for name, changed in (("old.json", AT - timedelta(seconds=1)), ("new.json", AT)):
        (tmp_path / name).write_text("no JSON")
        os.utime(tmp_path / name, (changed.timestamp(),) * 2)
    assert len(read_folder(tmp_path, DAY)) == 2
    refused = read_folder(tmp_path, QUARTER)
    assert [each.record["file"] for each in refused if isinstance(each, Unreadable)] == [str(tmp_path / "new.json")]


def test_memory_stays_flat_as_files_grow(tmp_path: Path) -> None:
    long = CHAT | {"gen_ai.prompt.name": "x" * 20_000}
    with (tmp_path / "traces.jsonl").open("w") as file:
        for number in range(1, 1_501):  # 30 MB
            file.write(lines(spans(otlp_span(long, number))))
    place = LlmSource(location=str(tmp_path), format="opentelemetry")
    tracemalloc.start()
    count = sum(1 for _ in opentelemetry_interactions(source(place), place, DAY))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 1_500
    assert peak < 4 << 20


def bucket_place(bucket: Bucket, prefix: str = "otel") -> LlmSource:
    return LlmSource(location=f"s3://{bucket.name}/{prefix}", format="opentelemetry", endpoint_url=bucket.url)


def test_a_bucket_is_read_as_a_folder_is(bucket: Bucket) -> None:
    bucket.put_all(
        {
            "otel/10/traces.json.gz": gzip.compress(lines(spans(otlp_span(CHAT, 1))).encode()),
            "otel/10/logs.json": lines(events(otlp_event("gen_ai.choice", {}, 1, body={"index": 0}))).encode(),
            "otel/11/traces.json": lines(spans(otlp_span(CHAT, 2, at=AT + timedelta(hours=1)))).encode(),
            "other/traces.json": b"no JSON",
        }
    )
    place = bucket_place(bucket)
    opened = source(place, access_key_id="AKIATEST", secret_access_key=SECRET)
    found = interactions(opentelemetry_interactions(opened, place, DAY))
    assert [each.span_id for each in found] == [span_id(1), span_id(2)]
    by_hour = place.model_copy(update={"folders": "%H"})
    assert len(interactions(opentelemetry_interactions(opened, by_hour, QUARTER))) == 1
    year_later = Window(datetime(2100, 1, 1, tzinfo=UTC), datetime(2100, 1, 2, tzinfo=UTC))
    assert list(opentelemetry_interactions(opened, place, year_later)) == []


def test_a_place_that_cannot_be_read_fails_as_a_whole(bucket: Bucket, tmp_path: Path) -> None:
    place = bucket_place(bucket)
    bucket.fault(f"GET /{bucket.name}", status=403, times=100)
    opened = source(place, access_key_id="AKIATEST", secret_access_key=SECRET)
    with pytest.raises(CollectionError) as refused:
        list(opentelemetry_interactions(opened, place, DAY))
    assert refused.value.kind == "auth"
    assert SECRET not in str(refused.value)
    with pytest.raises(CollectionError) as absent:
        read_folder(tmp_path / "absent")
    assert absent.value.kind == "not_configured"
