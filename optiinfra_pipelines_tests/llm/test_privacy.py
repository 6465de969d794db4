"""Planted personal data never reaches the judge, a log or a table: hundreds of values, collected from Bedrock's log
over HTTP and put before a judge that keeps every body it is sent and quotes what it can."""

import gzip
import json
import logging
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from optiinfra_pipelines.clouds.collection import collect_day
from optiinfra_pipelines.customers import Customer
from optiinfra_pipelines.llm.evaluation import evaluate
from optiinfra_pipelines.llm.interaction import Texts
from optiinfra_pipelines.llm.redaction import Redactor
from optiinfra_pipelines.llm.rubric import LEVELS
from optiinfra_pipelines.sandbox.interaction_wire import bedrock_record
from optiinfra_pipelines.sandbox.interactions import Corpus, Planted
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.tables import ALL_TABLES
from optiinfra_pipelines.tables.contract import Table
from optiinfra_pipelines.tables.llm import JUDGE_CALLS, LLM_INTERACTIONS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import DAY, Window
from optiinfra_pipelines_tests.buckets import SECRET, Bucket

MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
THE_DAY = Window(MIDNIGHT, MIDNIGHT + DAY)
NOW = THE_DAY.end + timedelta(hours=2)
CORPUS = Corpus(date(2026, 11, 20))
WANTED = 640  # interactions with personal data
FOLDER = f"bedrock/AWSLogs/111122223333/BedrockModelInvocationLogs/us-east-1/{MIDNIGHT:%Y/%m/%d}"
_JUDGED = re.compile(r"<judged-[^>]+>\n(.*)\n</judged-", re.DOTALL)


@dataclass
class Recorder:
    """An OpenAI-compatible judge on loopback that keeps every raw body, and quotes the texts wherever it can.

    Each ninth request is refused with all of what was asked as the reason, each tenth is answered with no JSON.
    """

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)

    def __call__(self, request: Request) -> Response:
        body = request.get_data()
        self.bodies.append(body)
        asked = json.loads(body)["messages"][-1]["content"]
        found = _JUDGED.search(asked)
        judged = json.loads(found[1]) if found else {}
        said = {name: levels[0] for name, levels in LEVELS.items()} | {"instructions_to_judge": "no"}
        said |= {"reasoning": f"{judged['question']} {judged['context']}", "evidence": judged["answer"]}
        if len(self.bodies) % 9 == 0:
            refusal = {"error": {"message": asked, "type": "invalid_request_error", "code": asked}}
            return Response(json.dumps(refusal), 400, content_type="application/json")
        content = asked if len(self.bodies) % 10 == 0 else json.dumps(said)
        completion = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "openai/gpt-oss-20b",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"},
            ],
            "usage": {"prompt_tokens": 1200, "completion_tokens": 200, "total_tokens": 1400},
        }
        return Response(json.dumps(completion), content_type="application/json")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    recorder = Recorder()
    server = make_server("127.0.0.1", 0, Request.application(recorder), threaded=True)
    running = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    running.start()
    recorder.url = f"http://127.0.0.1:{server.server_port}"
    for name, value in {"GROQ_API_KEY": "gsk_x", "GROQ_BASE_URL": recorder.url, "LLM_CONCURRENCY": "8"}.items():
        monkeypatch.setenv(name, value)
    yield recorder
    server.shutdown()
    running.join()
    server.server_close()


@pytest.fixture(scope="module")
def personal() -> list[Planted]:
    """Interactions each with a value of its own, of all streams and classes, as Bedrock's log would tell of them."""
    seen: set[str] = set()
    found: list[Planted] = []
    for each in CORPUS.interactions():
        if each.answer and not each.truncated and any(value not in seen for _, value in each.personal):
            seen.update(value for _, value in each.personal)
            at = MIDNIGHT + timedelta(seconds=30 + 5 * len(found))
            found.append(replace(each, cloud="aws", form="converse", timestamp=at))
        if len(found) == WANTED:
            break
    return found


@pytest.fixture
def values(personal: list[Planted]) -> set[str]:
    """Every planted value."""
    found = {value for each in personal for _, value in each.personal}
    assert len(found) >= 500
    assert {kind for each in personal for kind, _ in each.personal} == {
        *("email", "phone", "card", "iban", "ip_address", "api_key")
    }
    return found


@pytest.fixture
def customer(bucket: Bucket, personal: list[Planted], monkeypatch: pytest.MonkeyPatch) -> Customer:
    """A customer whose log holds those interactions; every eighth cannot be read, for it has lost its id."""
    objects: dict[str, bytes] = {}
    hours: dict[int, list[str]] = {}
    for number, each in enumerate(personal):
        line, large = bedrock_record(each, f"{FOLDER}/{each.timestamp:%H}")
        line["requestMetadata"] |= {"user": each.personal[0][1], each.personal[-1][1]: "owner"}
        line["requestMetadata"] |= {"conversation_id": each.personal[0][1]} if number % 3 == 0 else {}
        line |= {"requestId": "", "note": each.question} if number % 8 == 0 else {}
        hours.setdefault(each.timestamp.hour, []).append(json.dumps(line))
        objects |= {key: gzip.compress(json.dumps(body).encode()) for key, body in large.items()}
    objects |= {
        f"{FOLDER}/{hour:02}/log.json.gz": gzip.compress("\n".join(them).encode()) for hour, them in hours.items()
    }
    bucket.put_all(objects)
    monkeypatch.setenv("LOG_KEY", "AKIATEST")
    monkeypatch.setenv("LOG_SECRET", SECRET)
    place = {"location": f"s3://{bucket.name}/bedrock", "format": "bedrock", "endpoint_url": bucket.url}
    connection = {
        "id": "aws-logs",
        "provider": "aws",
        "collect": ["llm_interactions"],
        "llm": [place],
        "credentials": {"access_key_id": "LOG_KEY", "secret_access_key": "LOG_SECRET"},
    }
    return Customer.model_validate({"id": "acme", "name": "Acme", "connections": [connection]})


def collect_and_judge(warehouse: Warehouse, customer: Customer, settings: Settings) -> None:
    [attempt] = collect_day(warehouse, settings, customer, "aws", "llm_interactions", THE_DAY, NOW)
    assert (attempt.error, attempt.rows, attempt.rows_rejected) == (None, WANTED * 7 // 8, WANTED // 8)
    done = evaluate(warehouse, settings, customer, THE_DAY, NOW)
    assert done.judged > WANTED // 2
    failed = warehouse.query(f"SELECT error_kind FROM {warehouse.current(JUDGE_CALLS)} c WHERE status = 'failed'")
    assert failed.num_rows > 50


def content(warehouse: Warehouse, table: Table) -> str:
    return "\n".join(map(str, warehouse.query(f"SELECT * FROM {warehouse.name(table)} t").to_pylist()))


def leaked(values: set[str], text: str) -> list[str]:
    return [each for each in sorted(values) if each in text]


def reached(values: set[str], recorder: Recorder) -> float:
    """The share of the values that stand in no body the judge was sent."""
    assert len(recorder.bodies) > WANTED * 0.8
    return 1 - len(leaked(values, b"\n".join(recorder.bodies).decode())) / len(values)


def test_no_planted_value_is_sent_logged_or_written(
    warehouse: Warehouse,
    customer: Customer,
    recorder: Recorder,
    values: set[str],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    record_property: Any,
) -> None:
    caplog.set_level(logging.DEBUG)
    collect_and_judge(warehouse, customer, Settings())
    record_property("kept from the judge", f"{reached(values, recorder):.4%} of {len(values)} values")
    assert reached(values, recorder) == 1
    said = capfd.readouterr()
    assert len(caplog.text) > 10_000
    assert leaked(values, f"{caplog.text}\n{said.out}\n{said.err}") == []
    assert {
        table.full_name: found for table in ALL_TABLES if (found := leaked(values, content(warehouse, table)))
    } == {}


def test_where_the_warehouse_keeps_texts_as_they_were_the_judge_logs_and_scores_still_see_none(
    warehouse: Warehouse,
    customer: Customer,
    recorder: Recorder,
    values: set[str],
    caplog: pytest.LogCaptureFixture,
    record_property: Any,
) -> None:
    caplog.set_level(logging.DEBUG)
    collect_and_judge(warehouse, customer, Settings(keep_unredacted_text=True))
    kept = content(warehouse, LLM_INTERACTIONS["aws"])
    assert len(leaked(values, kept)) > len(values) * 0.8  # but for the records that could not be read
    record_property("kept from the judge", f"{reached(values, recorder):.4%} of {len(values)} values")
    assert reached(values, recorder) == 1
    assert leaked(values, caplog.text) == []
    others = [table for table in ALL_TABLES if table is not LLM_INTERACTIONS["aws"]]
    assert {table.full_name: found for table in others if (found := leaked(values, content(warehouse, table)))} == {}


def test_nearly_every_text_without_personal_data_is_left_as_it_is() -> None:
    redactor, looked_at, altered = Redactor(), 0, list[Texts]()
    for each in Corpus(date(2026, 11, 20), days=4).interactions():
        if each.personal or not each.question:
            continue
        texts = Texts(each.system, each.context, each.question, each.answer)
        looked_at += 1
        altered += [texts] if redactor.redact(texts)[0] != texts else []
    assert looked_at > 2_000
    assert len(altered) <= looked_at * 0.01, altered[:3]
