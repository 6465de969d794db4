"""A customer's day of interactions collected from the sandbox's four clouds over real HTTP: what is due, each once,
redacted, under its application's name, and what cannot be read kept aside."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import pytest

from optiinfra_pipelines.clouds.collection import Attempt, collect_day
from optiinfra_pipelines.customers import Customer
from optiinfra_pipelines.llm.interaction import Texts
from optiinfra_pipelines.llm.redaction import Redactor
from optiinfra_pipelines.sandbox.clouds import Clouds, serve_clouds
from optiinfra_pipelines.sandbox.fleet import FLEET_CLOUDS, Fleet
from optiinfra_pipelines.sandbox.gate import FAULTS_PATH
from optiinfra_pipelines.sandbox.interaction_logs import llm_places, publish_interactions
from optiinfra_pipelines.sandbox.interaction_truths import interaction_differences, native_id
from optiinfra_pipelines.sandbox.interactions import Corpus, Planted
from optiinfra_pipelines.sandbox.s3_server import serve_s3
from optiinfra_pipelines.sandbox.scenario import ACCESS_KEY_ID, CREDENTIAL_VARIABLES, environment
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.tables.llm import LLM_INTERACTIONS
from optiinfra_pipelines.tables.operations import COLLECTION_RUNS, REJECTED_ROWS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import DAY, Window
from optiinfra_pipelines_tests.buckets import Bucket

TODAY = date(2026, 11, 20)
MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
THE_DAY = Window(MIDNIGHT, MIDNIGHT + DAY)
SETTLED = THE_DAY.end + timedelta(minutes=75)  # from when on no window of the day is read again
CORPUS = Corpus(TODAY, days=1)
TEXTS = ("system", "context", "input", "output")
EMAIL, CARD = "jane.roe41@example.com", "4111 1111 1111 1111"
FOLDER = f"bedrock/AWSLogs/111122223333/BedrockModelInvocationLogs/us-east-1/{MIDNIGHT:%Y/%m/%d}"


@pytest.fixture(scope="module")
def clouds() -> Iterator[Clouds]:
    with serve_s3(ACCESS_KEY_ID) as logs, serve_clouds(Fleet(TODAY), logs=logs) as running:
        publish_interactions(logs, CORPUS, CORPUS.end + DAY)
        yield running


@pytest.fixture(autouse=True)
def healed(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in (clouds.environment() | environment()).items():
        monkeypatch.setenv(name, value)
    yield
    for url in (*clouds.urls.values(), clouds.logs):
        httpx.delete(f"{url}{FAULTS_PATH}")


@pytest.fixture
def bucket(clouds: Clouds) -> Bucket:
    """An empty bucket on the server that holds the logs."""
    return Bucket(str(clouds.logs), ACCESS_KEY_ID)


def customer_of(clouds: Clouds, customer_id: str = "acme", **more: Any) -> Customer:
    """A customer with its connections that collect interactions: one on each cloud."""
    connections = [each for each in clouds.connections(customer_id) if "llm_interactions" in each["collect"]]
    return Customer.model_validate({"id": customer_id, "name": customer_id, "connections": connections, **more})


def bedrock_customer(bucket: Bucket, places: tuple[dict[str, Any], ...] = (), **more: Any) -> Customer:
    """A customer whose one connection reads Bedrock's logs in the bucket, and those other places."""
    place = {"location": f"s3://{bucket.name}/bedrock", "format": "bedrock", "endpoint_url": bucket.url}
    connection = {
        "id": "aws-logs",
        "provider": "aws",
        "collect": ["llm_interactions"],
        "llm": [place, *places],
        "credentials": CREDENTIAL_VARIABLES,
    }
    return Customer.model_validate({"id": "acme", "name": "Acme", "connections": [connection], **more})


def collect(warehouse: Warehouse, customer: Customer, now: datetime = SETTLED, **given: Any) -> list[Attempt]:
    settings = Settings(api_attempts=1, api_timeout=20, **given)
    return [
        attempt
        for cloud in FLEET_CLOUDS
        for attempt in collect_day(warehouse, settings, customer, cloud, "llm_interactions", THE_DAY, now)
    ]


def held(warehouse: Warehouse) -> list[dict[str, Any]]:
    """Every interaction that readers see, in an order of its own."""
    rows = [
        row
        for table in LLM_INTERACTIONS.values()
        for row in warehouse.query(f"SELECT * FROM {warehouse.current(table)} t").to_pylist()
    ]
    return sorted(rows, key=lambda row: (row["customer_id"], row["provider"], row["native_id"], row["source"]))


def rejected(warehouse: Warehouse) -> list[dict[str, Any]]:
    return warehouse.query(f"SELECT * FROM {warehouse.current(REJECTED_ROWS)} t").to_pylist()


def starts(attempt: Attempt) -> list[str]:
    return [f"{window.start:%H:%M}" for window in attempt.windows]


def record(number: int, *, at: datetime = MIDNIGHT, said: str = "Hello.", **more: Any) -> dict[str, Any]:
    """A line of Bedrock's log, of a Converse call without metadata."""
    asked = {"messages": [{"role": "user", "content": [{"text": said}]}]}
    answered = {"output": {"message": {"role": "assistant", "content": [{"text": f"Answer {number}."}]}}}
    return {
        "schemaType": "ModelInvocationLog",
        "timestamp": f"{at:%Y-%m-%dT%H:%M:%SZ}",
        "accountId": "111122223333",
        "region": "us-east-1",
        "requestId": f"request-{number}",
        "operation": "Converse",
        "modelId": "amazon.nova-lite-v1:0",
        "input": {"inputContentType": "application/json", "inputBodyJson": asked},
        "output": {"outputContentType": "application/json", "outputBodyJson": answered},
        **more,
    }


def put_lines(bucket: Bucket, *lines: Any, hour: int = 0, name: str = "log") -> None:
    """One object of Bedrock's log; what is no text is written as JSON."""
    written = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    bucket.put_all({f"{FOLDER}/{hour:02}/{name}.json.gz": gzip.compress(written.encode())})


def test_a_day_of_two_customers_on_four_clouds_is_as_planted_and_a_second_collection_changes_nothing(
    warehouse: Warehouse, clouds: Clouds
) -> None:
    """Every interaction once, with its facts, its customer's alone; and the parts of the backfill make up the day."""
    both = [customer_of(clouds, each) for each in clouds.fleet.customers]
    attempts = [attempt for customer in both for attempt in collect(warehouse, customer)]
    assert [(each.connection_id, each.error, each.rows_rejected) for each in attempts if each.error] == []
    assert {len(each.windows) for each in attempts} == {96}
    rows = held(warehouse)
    assert len(rows) == sum(each.rows for each in attempts) == len(list(CORPUS.interactions())) > 500
    # nothing is scored here, and the differences say that alone
    assert list(interaction_differences(warehouse, CORPUS, SETTLED)) == [
        f"{len(rows)} interactions lie in raw, and 0 are accounted for"
    ]
    own = {(each.customer_id, each.cloud, native_id(each)) for each in CORPUS.interactions()}
    assert {(row["customer_id"], row["provider"], row["native_id"]) for row in rows} == own
    assert len({row["interaction_id"] for row in rows}) == len(rows)
    _assert_windows_add_up(warehouse)
    again = [attempt for customer in both for attempt in collect(warehouse, customer, SETTLED + timedelta(hours=1))]
    assert [(each.windows, each.requests) for each in again] == [([], 0)] * len(attempts)
    assert held(warehouse) == rows


def _assert_windows_add_up(warehouse: Warehouse) -> None:
    runs = warehouse.query(
        "SELECT customer_id, provider, count(*) AS windows, count(DISTINCT window_start) AS starts, sum(rows) AS kept"
        f" FROM {warehouse.name(COLLECTION_RUNS)} r GROUP BY customer_id, provider"
    ).to_pylist()
    planted = Counter((each.customer_id, each.cloud) for each in CORPUS.interactions())
    told = {(row["customer_id"], row["provider"]): (row["windows"], row["starts"], row["kept"]) for row in runs}
    assert told == {key: (96, 96, count) for key, count in planted.items()}


def test_texts_are_kept_as_the_redactor_leaves_them_and_each_placeholder_is_counted(
    warehouse: Warehouse, clouds: Clouds
) -> None:
    collect(warehouse, customer_of(clouds))
    rows = {(row["provider"], row["native_id"]): row for row in held(warehouse)}
    redactor, redacted = Redactor(), 0
    for planted in CORPUS.interactions():
        if planted.customer_id != "acme" or planted.content_state not in ("full", "redacted"):
            continue
        row = rows[planted.cloud, native_id(planted)]
        said = Texts(planted.system, planted.context, planted.question, planted.answer)
        texts, count = redactor.redact(said)
        assert tuple(row[name] or "" for name in TEXTS) == (texts.system, texts.context, texts.input, texts.output)
        assert (row["redactions"], row["redactor_version"]) == (count, redactor.version)
        redacted += count > 0
    assert redacted > 20


def test_windows_are_due_five_minutes_after_they_end_and_once_more_when_they_settled(
    warehouse: Warehouse, clouds: Clouds
) -> None:
    acme = customer_of(clouds)
    acme = acme.model_copy(update={"connections": tuple(each for each in acme.connections if each.provider == "vultr")})
    noon = MIDNIGHT + timedelta(hours=12)
    asked = {
        minutes: starts(collect(warehouse, acme, noon + timedelta(minutes=minutes))[0])
        for minutes in (19, 20, 29, 30, 35, 74, 75)
    }
    assert (len(asked.pop(19)), asked) == (
        48,  # until 12:00
        {20: ["12:00"], 29: [], 30: ["11:15"], 35: ["12:15"], 74: ["11:30", "11:45", "12:30", "12:45"], 75: ["12:00"]},
    )


def test_a_window_that_is_read_again_doubles_and_changes_nothing(warehouse: Warehouse, clouds: Clouds) -> None:
    acme = customer_of(clouds)
    collect(warehouse, acme, MIDNIGHT + timedelta(hours=6, minutes=5))
    before = held(warehouse)
    [*again] = collect(warehouse, acme, MIDNIGHT + timedelta(hours=7))
    assert {tuple(starts(each)[:4]) for each in again} == {("05:00", "05:15", "05:30", "05:45")}
    after = [row for row in held(warehouse) if row["window_start"] < MIDNIGHT + timedelta(hours=6)]
    read_again = [row for row in after if row["collected_at"] == MIDNIGHT + timedelta(hours=7)]
    assert len(read_again) > 5
    known = ({**row, "collected_at": None} for row in before)
    assert [{**row, "collected_at": None} for row in after] == list(known)


def test_what_is_delivered_late_arrives_once(warehouse: Warehouse, clouds: Clouds) -> None:
    """In S3, where what is there is what was delivered: collected every half hour while the log grows."""
    with serve_s3(ACCESS_KEY_ID) as logs:
        acme = customer_of(replace(clouds, logs=logs))
        of_s3 = tuple(each for each in acme.connections if each.provider in ("aws", "vultr"))
        acme = acme.model_copy(update={"connections": of_s3})
        for half_hours in range(25, 31):
            now = MIDNIGHT + timedelta(minutes=30 * half_hours)
            publish_interactions(logs, CORPUS, now)
            collect(warehouse, acme, now)
            present = [each for each in _delivered(now) if each.timestamp < now - timedelta(minutes=20)]
            found = Counter(row["native_id"] for row in held(warehouse))
            assert set(found.values()) == {1}
            on_time = [native_id(each) for each in present if not each.late]
            assert [each for each in on_time if each not in found] == []
        late = [each for each in present if each.late and each.timestamp > MIDNIGHT + timedelta(hours=12)]
        assert len(late) >= 3
        settled = [each for each in late if each.timestamp < now - timedelta(minutes=75)]
        assert [native_id(each) for each in settled if native_id(each) not in found] == []


def _delivered(until: datetime) -> list[Planted]:
    streams = (*CORPUS.of("acme", "aws"), *CORPUS.of("acme", "vultr"))
    return [each for each in CORPUS.interactions(streams, end=until) if each.delivered_at < until]


def test_a_place_that_fails_leaves_the_others_whole_and_its_windows_due(warehouse: Warehouse, clouds: Clouds) -> None:
    acme, now = customer_of(clouds), MIDNIGHT + timedelta(hours=4, minutes=5)
    early = [each for each in CORPUS.interactions(end=MIDNIGHT + timedelta(hours=4)) if each.customer_id == "acme"]
    fault = {"kind": "status", "status": 503, "times": 1000, "match": "/logs/v1/workspaces/"}
    httpx.post(f"{clouds.urls['azure']}{FAULTS_PATH}", json=fault).raise_for_status()
    broken = {each.connection_id: each.error for each in collect(warehouse, acme, now)}
    [failed] = [name for name, error in broken.items() if error]
    assert (failed, getattr(broken[failed], "kind", "")) == ("azure-api", "transient")
    others = [native_id(each) for each in early if each.cloud != "azure"]
    assert Counter(row["native_id"] for row in held(warehouse)) == Counter(others)
    httpx.delete(f"{clouds.urls['azure']}{FAULTS_PATH}")
    again = collect(warehouse, acme, now + timedelta(minutes=5))
    assert {each.connection_id: len(each.windows) for each in again if each.windows} == {"azure-api": 16}
    assert Counter(row["native_id"] for row in held(warehouse)) == Counter(map(native_id, early))


def test_one_of_two_places_of_a_connection_may_fail_and_the_other_is_kept(
    warehouse: Warehouse, clouds: Clouds, bucket: Bucket
) -> None:
    put_lines(bucket, record(1), record(2))
    acme = bedrock_customer(bucket, tuple(llm_places("acme", "vultr", bucket.url)))
    bucket.fault("/acme-llm-traces", kind="status", status=403, times=1000)
    early = MIDNIGHT + timedelta(hours=2)
    [attempt] = collect(warehouse, acme, early)
    assert (getattr(attempt.error, "kind", ""), attempt.rows, len(attempt.windows)) == ("auth", 2, 7)
    bucket.heal()
    [attempt] = collect(warehouse, acme, early + timedelta(minutes=1))
    streams = CORPUS.of("acme", "vultr")
    traced = [
        each for each in CORPUS.interactions(streams, end=early) if each.timestamp < early - timedelta(minutes=15)
    ]
    assert (attempt.error, len(attempt.windows), len(held(warehouse))) == (None, 7, 2 + len(traced))


def test_what_cannot_be_read_is_kept_aside_redacted_and_accepted_and_rejected_make_what_was_read(
    warehouse: Warehouse, bucket: Bucket
) -> None:
    nameless = record(3, said=f"Write to {EMAIL}", requestMetadata={EMAIL: "owner", "cards": [CARD]}) | {
        "requestId": ""
    }
    other = {
        "schemaType": "Other",
        "note": f"card {CARD}",
        "password": "hunter2-Zq81",
        "number": int(CARD.replace(" ", "")),
    }
    put_lines(bucket, record(1), record(2), nameless, other, f'{{"cut": "{EMAIL}', f'["{EMAIL}"]')
    [attempt] = collect(warehouse, bedrock_customer(bucket))
    aside = rejected(warehouse)
    assert (attempt.error, attempt.rows, attempt.rows_rejected, len(aside)) == (None, 2, 4, 4)
    assert Counter(row["reason"] for row in aside) == {
        "requestId is missing": 1,
        "schemaType is not ModelInvocationLog": 1,
        "the line is no JSON that can be read": 1,
        "the line is no JSON object": 1,
    }
    told = str(aside)
    assert [each for each in (EMAIL, CARD, CARD.replace(" ", ""), "hunter2-Zq81") if each in told] == []
    assert ("[EMAIL_1]" in told, "[CARD_1]" in told, "[KEY_1]" in told) == (True, True, True)
    [run] = warehouse.query(
        f"SELECT sum(rows) AS kept, sum(rows_rejected) AS refused FROM {warehouse.name(COLLECTION_RUNS)} r"
    ).to_pylist()
    assert (run["kept"], run["refused"]) == (2, 4)


def test_a_line_that_tells_no_time_is_refused_with_its_hour_by_one_part_of_a_backfill(
    warehouse: Warehouse, bucket: Bucket
) -> None:
    put_lines(bucket, record(1), "no JSON", hour=4)  # the parts before and after 04:00 both look into its folder
    [attempt] = collect(warehouse, bedrock_customer(bucket))
    assert (attempt.rows, attempt.rows_rejected) == (1, 1)
    assert [row["reason"] for row in rejected(warehouse)] == ["the line is no JSON that can be read"]


def test_what_cannot_be_read_is_refused_as_its_window_ends_and_settles_and_not_between(
    warehouse: Warehouse, bucket: Bucket
) -> None:
    nameless = record(2, at=MIDNIGHT + timedelta(hours=4, minutes=20)) | {"requestId": ""}
    put_lines(bucket, record(1), "no JSON", nameless, hour=4)
    refused = {
        minutes: collect(warehouse, bedrock_customer(bucket), MIDNIGHT + timedelta(minutes=minutes))[0].rows_rejected
        for minutes in range(230, 365, 15)
    }
    assert {minutes: rows for minutes, rows in refused.items() if rows} == {260: 1, 275: 1, 320: 1, 335: 1}


def test_what_no_warehouse_can_hold_costs_no_other_record(warehouse: Warehouse, bucket: Bucket) -> None:
    """Halves of surrogate pairs, numbers that fit no column, times beyond the calendar."""
    wild = record(
        2, said="half \ud83d", modelId="half \ud83d", requestMetadata={"half \ud83d": "half \ud83d", "app": "\ud83d"}
    )
    wild["output"]["outputTokenCount"] = 2**80
    wild["input"]["inputTokenCount"] = -1
    put_lines(
        bucket,
        record(1),
        wild,
        record(3) | {"requestId": "half \ud83d"},
        record(4) | {"timestamp": "9999-12-31T23:59:59+00:00"},
    )
    [attempt] = collect(warehouse, bedrock_customer(bucket))
    assert attempt.error is None
    assert [row["native_id"] for row in held(warehouse)][-1] == "request-2"
    assert attempt.rows == 3
    [row] = [row for row in held(warehouse) if row["native_id"] == "request-2"]
    assert (row["input_tokens"], row["output_tokens"]) == (None, None)


def test_a_place_names_application_and_variant_where_a_record_does_not_and_customers_yaml_names_them_for_people(
    warehouse: Warehouse, bucket: Bucket
) -> None:
    labelled = [
        record(2, requestMetadata={"app": "search", "variant": "concise"}),
        record(3, requestMetadata={"app": "nobody-named"}),
    ]
    put_lines(bucket, record(1), *labelled)
    acme = bedrock_customer(bucket, applications=[{"id": "search", "name": "Document Search"}])
    names = {"application": "help", "application_name": "Help Desk", "variant": "control"}
    [connection] = acme.connections
    place = connection.llm[0].model_copy(update=names)
    named = acme.model_copy(update={"connections": (connection.model_copy(update={"llm": (place,)}),)})
    collect(warehouse, named)
    told = [(row["application_id"], row["application_name"], row["variant"]) for row in held(warehouse)]
    assert told == [
        ("help", "Help Desk", "control"),
        ("search", "Document Search", "concise"),
        ("nobody-named", "nobody-named", "control"),
    ]
    collect(warehouse, acme, SETTLED)
    assert {row["application_id"] for row in held(warehouse)} == {"help", "search", "nobody-named"}


def test_a_record_that_nobody_names_is_of_an_unknown_application(warehouse: Warehouse, bucket: Bucket) -> None:
    put_lines(bucket, record(1))
    collect(warehouse, bedrock_customer(bucket))
    assert [(row["application_id"], row["application_name"]) for row in held(warehouse)] == [("unknown", "unknown")]


def test_a_conversation_named_after_a_person_is_kept_apart_without_the_name(
    warehouse: Warehouse, bucket: Bucket
) -> None:
    names = (EMAIL, EMAIL, "john.doe7@example.com", "session-4711")
    lines = [record(number, requestMetadata={"conversation_id": name}) for number, name in enumerate(names)]
    put_lines(bucket, *lines)
    collect(warehouse, bedrock_customer(bucket))
    [first, same, other, plain] = [row["conversation_id"] for row in held(warehouse)]
    assert (first == same, first == other, plain) == (True, False, "session-4711")
    assert "@" not in first + other


def test_details_are_redacted_in_any_case_and_texts_unless_the_settings_keep_them(
    warehouse: Warehouse, bucket: Bucket
) -> None:
    put_lines(bucket, record(1, said=f"Write to {EMAIL}.", requestMetadata={"owner": EMAIL, "cost center": "4711"}))
    acme = bedrock_customer(bucket)
    collect(warehouse, acme)
    [row] = held(warehouse)
    assert (row["input"], row["content_state"], row["redactions"]) == ("Write to [EMAIL_1].", "redacted", 1)
    assert json.loads(row["details"])["requestMetadata"] == {"owner": "[EMAIL_1]", "cost center": "4711"}
    assert EMAIL not in str(row)
    other = bedrock_customer(bucket).model_copy(update={"id": "globex"})
    collect(warehouse, other, keep_unredacted_text=True)
    [kept] = [row for row in held(warehouse) if row["customer_id"] == "globex"]
    assert (kept["input"], kept["content_state"], kept["redactions"]) == (f"Write to {EMAIL}.", "full", 0)
    assert (kept["redactor_version"], kept["details"]) == ("", row["details"])
