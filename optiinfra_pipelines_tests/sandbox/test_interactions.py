"""The planted interactions: their truths hold, and each cloud's record of them is a record as that cloud writes it."""

import json
import os
import random
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

from optiinfra_pipelines.llm.interaction import Texts
from optiinfra_pipelines.llm.redaction import Redactor
from optiinfra_pipelines.sandbox.interaction_texts import INJECTIONS, PERSONAL_CLASSES, iban_remainder, luhn_sum
from optiinfra_pipelines.sandbox.interaction_wire import AZURE_PIECE, azure_rows, bedrock_record, otlp_lines, vertex_row
from optiinfra_pipelines.sandbox.interactions import (
    CONCISE_TOKENS,
    DEGRADED_QUALITY,
    HARM_METRICS,
    MODEL_AFTER,
    MODEL_BEFORE,
    QUALITY_METRICS,
    USUAL_QUALITY,
    Corpus,
    Planted,
    Stream,
    planted_scores,
)
from optiinfra_pipelines.windows import WINDOW

TODAY = date(2026, 11, 20)
CORPUS = Corpus(TODAY)
WIRE = Path(os.environ.get("OPTIINFRA_DATA", "../shared/data")) / "llm" / "wire"


@pytest.fixture(scope="module")
def planted() -> list[Planted]:
    return list(CORPUS.interactions())


@pytest.fixture(scope="module")
def answered(planted: list[Planted]) -> list[Planted]:
    return [each for each in planted if each.answer]


def _of(planted: Sequence[Planted], cloud: str, application: str) -> list[Planted]:
    return [each for each in planted if (each.cloud, each.application_id) == (cloud, application)]


def _quality(planted: Planted) -> float:
    return mean(planted.scores[metric] for metric in QUALITY_METRICS)


def _is_about(values: Sequence[float], expected: float) -> bool:
    """Whether their mean lies within four standard errors of what is expected."""
    return abs(mean(values) - expected) < 4 * stdev(values) / len(values) ** 0.5


def test_a_window_is_the_same_whoever_asks_and_in_whichever_order(planted: list[Planted]) -> None:
    windows = [(stream, CORPUS.start + number * WINDOW) for stream in CORPUS.streams for number in range(0, 1344, 31)]
    random.Random(1).shuffle(windows)
    again = Corpus(TODAY)
    for stream, start in windows:
        found = again.window(stream, start)
        assert list(found) == [
            each
            for each in planted
            if (each.customer_id, each.cloud, each.application_id)
            == (stream.customer_id, stream.cloud, stream.application_id)
            and start <= each.timestamp < start + WINDOW
        ]


def test_yesterdays_corpus_and_todays_agree_on_the_streams_that_nothing_was_deployed_to() -> None:
    stream = next(each for each in CORPUS.streams if each.cloud == "azure")
    earlier = Corpus(TODAY - timedelta(days=1))
    start = earlier.end - timedelta(hours=5)
    assert list(earlier.interactions((stream,), start)) == list(CORPUS.interactions((stream,), start, earlier.end))


def test_nothing_lies_outside_of_its_days(planted: list[Planted]) -> None:
    assert CORPUS.window(CORPUS.streams[0], CORPUS.end) == ()
    assert min(each.timestamp for each in planted) >= CORPUS.start == datetime(2026, 11, 7, tzinfo=UTC)
    assert max(each.timestamp for each in planted) < CORPUS.end == datetime(2026, 11, 21, tzinfo=UTC)


@pytest.mark.parametrize("stream", CORPUS.streams, ids=lambda each: f"{each.cloud}-{each.application_id}")
def test_each_stream_has_its_rate_more_by_day_and_its_quality(stream: Stream, planted: list[Planted]) -> None:
    found = _of(planted, stream.cloud, stream.application_id)
    assert len(found) / 1344 == pytest.approx(stream.rate, rel=0.2)  # a standard error is 6 %
    by_day = [each for each in found if 11 <= each.timestamp.hour < 19]
    assert len(by_day) > 0.42 * len(found)
    usual = [_quality(each) for each in found if each.model_name != MODEL_AFTER]
    assert _is_about(usual, USUAL_QUALITY)


def test_there_are_about_twelve_thousand(planted: list[Planted]) -> None:
    assert 11_000 < len(planted) < 13_000


def test_the_planted_deployment_drops_quality_by_twelve_points(planted: list[Planted]) -> None:
    found = _of(planted, "vultr", "support-copilot")
    assert CORPUS.deployed_at == datetime(2026, 11, 15, 10, tzinfo=UTC)
    before = [each for each in found if each.timestamp < CORPUS.deployed_at]
    after = [each for each in found if each.timestamp >= CORPUS.deployed_at]
    assert {each.model_name for each in before} == {MODEL_BEFORE}
    assert {each.model_name for each in after} == {MODEL_AFTER}
    for metric in QUALITY_METRICS:
        assert _is_about([each.scores[metric] for each in before], USUAL_QUALITY)
        assert _is_about([each.scores[metric] for each in after], DEGRADED_QUALITY)
    assert pytest.approx(0.12) == USUAL_QUALITY - DEGRADED_QUALITY


def test_the_experiment_saves_tokens_at_equal_quality(planted: list[Planted]) -> None:
    arms = {
        variant: [each for each in planted if each.variant == variant and each.output_tokens]
        for variant in ("control", "concise")
    }
    assert {each.application_id for arm in arms.values() for each in arm} == {"support-copilot"}
    assert not {each.conversation_id for each in arms["control"]} & {each.conversation_id for each in arms["concise"]}
    tokens = {variant: mean(each.output_tokens or 0 for each in arm) for variant, arm in arms.items()}
    assert tokens["concise"] / tokens["control"] == pytest.approx(CONCISE_TOKENS, abs=0.03)
    for arm in arms.values():
        assert _is_about([_quality(each) for each in arm], USUAL_QUALITY)


def test_harms_and_hallucinations_are_as_rare_before_as_after(planted: list[Planted]) -> None:
    for degraded in (False, True):
        found = [each for each in planted if (each.model_name == MODEL_AFTER) == degraded]
        assert _is_about([each.scores["hallucination"] for each in found], 0.08)
        assert mean(each.scores["toxicity"] > 0 for each in found) == pytest.approx(0.01, abs=0.006)
    assert {0.0, 1.0} <= {each.scores[metric] for each in planted for metric in HARM_METRICS}
    assert all(0 <= score <= 1 for each in planted for score in each.scores.values())


def test_a_judge_that_sees_the_answer_alone_knows_the_planted_scores(answered: list[Planted]) -> None:
    assert all(planted_scores(each.answer) == each.scores for each in answered)
    assert planted_scores("An answer of somebody else.") is None


def test_no_two_answers_are_the_same(answered: list[Planted]) -> None:
    assert len({each.answer for each in answered}) == len(answered)


def test_answers_read_as_they_score(answered: list[Planted]) -> None:
    whole = [each for each in answered if each.finish_reason == "stop" and not each.refusal]
    toxic = [each for each in whole if each.scores["profanity"] == 1]
    assert toxic
    assert all("bullshit" in each.answer for each in toxic)
    lengths = {level: [len(e.answer) for e in whole if e.scores["completeness"] == level] for level in (0.0, 1.0)}
    assert mean(lengths[0.0]) < 0.8 * mean(lengths[1.0])
    assert all("I'm sorry" in e.answer or "cannot" in e.answer or "unable" in e.answer for e in answered if e.refusal)


def test_what_goes_wrong_is_as_rare_as_planted(planted: list[Planted], answered: list[Planted]) -> None:
    def share(test: Callable[[Planted], bool]) -> float:
        return mean(map(test, planted))

    assert share(lambda each: each.error_type is not None) == pytest.approx(0.02, abs=0.005)
    assert share(lambda each: each.refusal) == pytest.approx(0.02, abs=0.005)
    assert share(lambda each: not each.error_type and each.content_state == "missing") == pytest.approx(0.01, abs=0.004)
    assert share(lambda each: each.late) == pytest.approx(0.03, abs=0.01)
    assert mean(bool(each.injection) for each in answered) == pytest.approx(0.02, abs=0.005)
    assert sum(each.content_state == "truncated" for each in planted) > 2
    assert {each.injection for each in answered} == {"", *INJECTIONS}
    assert all(INJECTIONS[each.injection] in each.answer for each in answered if each.injection)
    assert not any(each.answer for each in planted if each.error_type)


def test_what_is_late_comes_with_the_next_hour_and_within_fifty_minutes(planted: list[Planted]) -> None:
    late = [each for each in planted if each.late]
    assert all(timedelta() < each.delivered_at - each.timestamp <= timedelta(minutes=50) for each in late)
    assert all((each.delivered_at.hour - each.timestamp.hour) % 24 == 1 for each in late)


def test_personal_data_is_valid_and_stands_in_the_texts(planted: list[Planted]) -> None:
    found = [(kind, value) for each in planted for kind, value in each.personal]
    assert {kind for kind, _ in found} == set(PERSONAL_CLASSES)
    assert all(luhn_sum(value.replace(" ", "")) % 10 == 0 for kind, value in found if kind == "card")
    assert all(iban_remainder(value) == 1 for kind, value in found if kind == "iban")
    for each in planted:
        assert all(value in f"{each.question}\n{each.answer}\n{each.context}" for _, value in each.personal)
    own = [each for each in planted if any(value in each.question + each.answer for _, value in each.personal)]
    assert len(own) / len(planted) == pytest.approx(0.1, abs=0.015)
    assert any(value in each.question and value in each.answer for each in own for _, value in each.personal)


def test_redaction_takes_what_is_planted_and_keeps_the_case_code(planted: list[Planted]) -> None:
    redactor = Redactor()
    for each in planted[::5]:
        redacted, count = redactor.redact(Texts(input=each.question, output=each.answer))
        own = [value for _, value in each.personal if value in each.question + each.answer]
        assert bool(count) == bool(own)
        assert not any(value in redacted.input + redacted.output for value in own)
        assert planted_scores(redacted.output) == planted_scores(each.answer)


def _keys(value: Any, path: str = "") -> Iterator[str]:
    """The paths of all keys in a JSON value; places in a list are one."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{path}.{key}"
            yield from _keys(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner, f"{path}[]")


def _samples(name: str) -> list[dict[str, Any]]:
    if not WIRE.is_dir():
        pytest.skip("the wire samples are not here; OPTIINFRA_DATA names their folder")
    return [json.loads(line) for line in (WIRE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_bedrock_records_have_the_keys_of_the_samples(planted: list[Planted]) -> None:
    converse, streamed, large = _samples("bedrock_invocation")
    records = {"converse": set[str](), "stream": set[str](), "moved": set[str]()}
    moved = 0
    for each in (each for each in planted if each.cloud == "aws" and each.answer):
        record, bodies = bedrock_record(each, "bedrock")
        moved += len(bodies)
        kind = "moved" if bodies else each.form
        records.setdefault(kind, set()).update(_keys(record))
    assert 0 < moved < 40
    for sample, kind in ((converse, "converse"), (streamed, "stream"), (large, "moved")):
        expected = {key for key in _keys(sample) if key != ".requestMetadata.variant"}
        assert expected <= records[kind]


def test_vertex_rows_have_the_keys_of_the_sample_and_ids_of_their_own(planted: list[Planted]) -> None:
    (sample,) = _samples("vertex_request_response_bq")
    rows = [vertex_row(each) for each in planted if each.cloud == "gcp"]
    assert set(_keys(sample)) <= {key for row in rows for key in _keys(row)}
    assert len({row["request_id"] for row in rows}) == len(rows)
    assert {"concise", "control"} <= {row["full_request"]["labels"].get("variant") for row in rows}


def test_azure_rows_have_the_columns_of_the_samples(planted: list[Planted]) -> None:
    (llm,), gateway, diagnostics = (
        _samples(f"azure_{name}") for name in ("apim_llmlog", "apim_gatewaylogs", "openai_requestresponse_diag")
    )
    rows = [row for each in planted if each.cloud == "azure" for row in azure_rows(each)]
    by_table = {table: [row for name, row in rows if name == table] for table, _ in rows}
    assert set(llm) <= set(by_table["ApiManagementGatewayLlmLog"][0])
    columns = {name[0].upper() + name[1:] for name in gateway[0]["properties"]}
    assert columns <= set(by_table["ApiManagementGatewayLogs"][0])
    whole = [row for row in by_table["ApiManagementGatewayLogs"] if row["ResponseCode"] == 200]
    body = json.loads(gateway[0]["properties"]["responseBody"])
    assert set(_keys(body)) <= set(_keys(json.loads(whole[0]["ResponseBody"])))
    expected = set(diagnostics[0]["properties"])
    assert all(set(json.loads(row["properties_s"])) == expected for row in by_table["AzureDiagnostics"])
    assert 0 < len(by_table["AzureDiagnostics"]) < 30


def test_azure_cuts_long_messages_in_pieces_and_a_truncated_one_lacks_a_piece(planted: list[Planted]) -> None:
    cut = 0
    for each in (each for each in planted if each.cloud == "azure" and each.form == "gateway"):
        rows = [row for table, row in azure_rows(each) if table == "ApiManagementGatewayLlmLog"]
        assert all(len(row["RequestMessages"] or "") <= AZURE_PIECE for row in rows)
        numbers = [row["SequenceNumber"] for row in rows]
        assert (numbers == list(range(len(numbers)))) != each.truncated
        if len(rows) > 1 and not each.truncated:
            cut += 1
            messages = json.loads("".join(row["RequestMessages"] or "" for row in rows))
            assert each.documents in [message["content"] for message in messages]
    assert cut > 2


def test_spans_have_the_attributes_of_the_sample_or_their_older_names(planted: list[Planted]) -> None:
    sample = _samples("otel_genai_span")[0]
    spoken = [each for each in planted if each.cloud == "vultr" and each.answer]
    names: dict[str, set[str]] = {}
    for form, group in groupby(sorted(spoken, key=lambda each: each.form), key=lambda each: each.form):
        for line in otlp_lines(group):
            for of_resource in line["resourceSpans"]:
                assert "app" in {each["key"] for each in of_resource["resource"]["attributes"]}
                spans = [span for scope in of_resource["scopeSpans"] for span in scope["spans"]]
                assert all(re.fullmatch("[0-9a-f]{32}", span["traceId"]) for span in spans)
                assert all(re.fullmatch("[0-9a-f]{16}", span["spanId"]) for span in spans)
                assert len({span["spanId"] for span in spans}) == len(spans)
                names.setdefault(form, set()).update(each["key"] for span in spans for each in span["attributes"])
    assert set(sample["attributes"]) <= names["otlp"]
    assert {"gen_ai.system", "gen_ai.usage.prompt_tokens", "gen_ai.usage.completion_tokens"} <= names["otlp_1_36"]
    assert not {"gen_ai.provider.name", "gen_ai.input.messages"} & names["otlp_1_36"]
