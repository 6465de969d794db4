"""Records of Bedrock's invocation log: the samples field by field, and the documented bodies of every family."""

import gzip
import json
from collections.abc import Mapping
from dataclasses import astuple
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optiinfra_pipelines.llm.bedrock import Bodies, logged_at, parse
from optiinfra_pipelines.llm.interaction import Interaction, Texts, Unreadable
from optiinfra_pipelines.places import LlmSource
from optiinfra_pipelines_tests.llm.bedrock_bodies import (
    ANTHROPIC,
    CHAT,
    CLAUDE,
    DEEPSEEK,
    FAMILIES,
    LLAMA,
    converse,
    record,
    user,
)

PLACE = LlmSource(location="s3://bucket/prefix", format="bedrock")
AT = datetime(2026, 8, 1, 10, 0, 2, tzinfo=UTC)


def no_bodies(uri: str) -> bytes | None:
    return None


def read(wire: Mapping[str, Any], bodies: Bodies = no_bodies, place: LlmSource = PLACE) -> Interaction:
    found = parse(wire, place, bodies)
    assert isinstance(found, Interaction), found
    return found


def test_the_samples_are_read_field_by_field(data: Path) -> None:
    lines = (data / "llm" / "wire" / "bedrock_invocation.jsonl").read_text().splitlines()
    whole = Interaction(
        native_id="0b1c2d3e-0000-4000-8000-000000000001",
        timestamp=AT,
        model_name=CLAUDE,
        texts=Texts(
            system="You are a support agent.",
            input="How do I reset my password?",
            output="Open Settings, choose Security, then Reset password.",
        ),
        application="support-bot",
        variant="B",
        operation="chat",
        account_id="111122223333",
        region="us-east-1",
        input_tokens=25,
        output_tokens=14,
        latency_ms=812.0,
        finish_reason="stop",
        details={"modelId": CLAUDE, "operation": "Converse", "role": "app-role"},
    )
    streamed = Interaction(
        native_id="0b1c2d3e-0000-4000-8000-000000000002",
        timestamp=AT,
        model_name=CLAUDE,
        texts=Texts(input="Name the largest planet.", output="Jupiter."),
        operation="chat",
        account_id="111122223333",
        region="us-east-1",
        input_tokens=12,
        output_tokens=4,
        finish_reason="stop",
        details={"modelId": CLAUDE, "operation": "InvokeModelWithResponseStream", "role": "app-role"},
    )
    moved = Interaction(
        native_id="0b1c2d3e-0000-4000-8000-000000000003",
        timestamp=AT,
        model_name=CLAUDE,
        texts=Texts(output="Open Settings, choose Security, then Reset password."),
        application="support-bot",
        variant="B",
        operation="chat",
        account_id="111122223333",
        region="us-east-1",
        input_tokens=41000,
        output_tokens=14,
        latency_ms=812.0,
        finish_reason="stop",
        details={"modelId": CLAUDE, "operation": "Converse", "role": "app-role"},
    )
    assert [parse(json.loads(line), PLACE, no_bodies) for line in lines] == [whole, streamed, moved]
    assert [each.content_state for each in (whole, streamed, moved)] == ["full", "full", "missing"]


@pytest.mark.parametrize("pack", [gzip.compress, bytes], ids=["gzipped", "plain"])
def test_a_body_that_was_moved_to_s3_is_read_from_there(pack: Any) -> None:
    path = "s3://bucket/prefix/AWSLogs/1/BedrockModelInvocationLogs/us-east-1/2026/08/01/10/data/x_input.json.gz"
    body = pack(json.dumps({"messages": [user({"text": "A long question?"})]}).encode())
    wire = record(answered=converse({"text": "Yes."}), input={"inputBodyS3Path": path, "inputTokenCount": 41000})
    assert read(wire, {path: body}.get).texts == Texts(input="A long question?", output="Yes.")
    for broken in (body[:-9], b"\x89PNG", b""):
        assert read(wire, {path: broken}.get).texts == Texts(output="Yes.")


def test_a_stream_that_was_moved_to_s3_is_joined() -> None:
    events = [{"generation": "Ju"}, {"generation": "piter.", "stop_reason": "stop"}]
    wire = record({"prompt": "Largest?"}, output={"outputBodyS3Path": "s3://bucket/y_output.json.gz"})
    assert read(wire, lambda _: json.dumps(events).encode()).texts.output == "Jupiter."


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_models_is_read_alike(family: str) -> None:
    asked, whole, events, operation = FAMILIES[family]
    for answered in (whole, events):
        found = read(record(asked, answered))
        assert found.texts == Texts("" if family == "titan" else "Be brief.", "", "Largest?", "Jupiter.")
        assert (found.operation, found.finish_reason) == (operation, "stop")
        assert (found.input_tokens, found.output_tokens) in ((7, 3), (None, None))
    assert (found.input_tokens, found.output_tokens) == (7, 3), "a stream ends with Bedrock's own counts"
    assert (found.latency_ms, found.time_to_first_token_ms) == (640.0, 210.0)


def test_a_stream_of_converse_tells_tools_latency_and_caching() -> None:
    events = [
        {"messageStart": {"role": "assistant"}},
        {"contentBlockDelta": {"delta": {"reasoningContent": {"text": "Weather? A tool."}}, "contentBlockIndex": 0}},
        {"contentBlockDelta": {"delta": {"text": "Let me look."}, "contentBlockIndex": 1}},
        {"contentBlockStart": {"start": {"toolUse": {"toolUseId": "1", "name": "weather"}}, "contentBlockIndex": 2}},
        {"contentBlockDelta": {"delta": {"toolUse": {"input": '{"city": '}}, "contentBlockIndex": 2}},
        {"contentBlockDelta": {"delta": {"toolUse": {"input": '"Köln"}'}}, "contentBlockIndex": 2}},
        {"messageStop": {"stopReason": "tool_use"}},
        {
            "metadata": {
                "usage": {"inputTokens": 10, "outputTokens": 5, "cacheReadInputTokens": 80, "cacheWriteInputTokens": 9},
                "metrics": {"latencyMs": 501},
            }
        },
    ]
    found = read(record({"messages": [user({"text": "Weather in Köln?"})]}, events, "ConverseStream"))
    assert found.texts.output == 'Let me look.\n[tool_call] weather({"city": "Köln"})'
    assert (found.finish_reason, found.latency_ms) == ("tool_calls", 501.0)
    assert (found.input_tokens, found.cached_tokens, found.output_tokens) == (99, 80, 5)
    assert found.details["cacheWriteInputTokens"] == 9


@pytest.mark.parametrize(
    ("whole", "events"),
    [
        (
            {"content": [{"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}}], "stop_reason": "tool_use"},
            [
                {"content_block": {"type": "tool_use", "id": "1", "name": "f", "input": {}}},
                {"delta": {"type": "input_json_delta", "partial_json": '{"a": '}},
                {"delta": {"type": "input_json_delta", "partial_json": "1}"}},
                {"delta": {"stop_reason": "tool_use"}},
            ],
        ),
        (
            {"text": "", "tool_calls": [{"name": "f", "parameters": {"a": 1}}], "finish_reason": "tool_calls"},
            [
                {"event_type": "tool-calls-chunk", "text": "I call f."},
                {"event_type": "tool-calls-generation", "tool_calls": [{"name": "f", "parameters": {"a": 1}}]},
                {
                    "event_type": "stream-end",
                    "finish_reason": "tool_calls",
                    "response": {"text": "", "tool_calls": [{"name": "f", "parameters": {"a": 1}}]},
                },
            ],
        ),
        (
            {
                "choices": [
                    {
                        "message": {
                            "content": None,
                            "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}],
                        },
                        "stop_reason": "tool_calls",
                    }
                ]
            },
            [
                {"choices": [{"delta": {"tool_calls": [{"function": {"name": "f", "arguments": ""}}]}}]},
                {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": '{"a": '}}]}}]},
                {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "1}"}}]}}]},
                {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
            ],
        ),
    ],
    ids=["anthropic", "command r", "openai"],
)
def test_calls_of_tools_read_alike_whole_and_streamed(whole: Any, events: Any) -> None:
    for answered in (whole, events):
        found = read(record({"messages": []}, answered))
        assert (found.texts.output, found.finish_reason) == ('[tool_call] f({"a": 1})', "tool_calls")


@pytest.mark.parametrize(
    "messages",
    [
        [
            user({"text": "Rain?"}),
            {"role": "assistant", "content": [{"toolUse": {"toolUseId": "1", "name": "sky", "input": {"at": "K"}}}]},
            user({"toolResult": {"toolUseId": "1", "content": [{"json": {"mm": 3}}, {"text": "wet"}]}}),
        ],
        [
            {"role": "user", "content": "Rain?"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "sky", "input": {"at": "K"}}]},
            user(
                {
                    "type": "tool_result",
                    "tool_use_id": "1",
                    "content": [{"type": "text", "text": '{"mm": 3}'}, {"type": "text", "text": "wet"}],
                }
            ),
        ],
        [
            {"role": "user", "content": "Rain?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"function": {"name": "sky", "arguments": '{"at": "K"}'}}],
            },
            {"role": "tool", "tool_call_id": "1", "content": '{"mm": 3}\nwet'},
        ],
    ],
    ids=["converse", "anthropic", "mistral"],
)
def test_results_of_tools_are_context_of_the_question_before(messages: Any) -> None:
    texts = read(record({"messages": messages}, converse({"text": "3 mm."}))).texts
    assert texts.input == "Rain?"
    assert texts.context == 'assistant: [tool_call] sky({"at": "K"})\n\ntool: {"mm": 3}\nwet'


def test_documents_are_context_and_pictures_are_named() -> None:
    blocks: list[Mapping[str, Any]] = [
        {"image": {"format": "png", "source": {"bytes": "iVBOR"}}},
        {"document": {"name": "terms", "format": "txt", "source": {"text": "Returns within 30 days."}}},
        {"document": {"name": "scan", "format": "pdf", "source": {"bytes": "JVBER"}}},
        {"searchResult": {"source": "s", "title": "FAQ", "content": [{"text": "Free returns."}]}},
        {"guardContent": {"text": {"text": "May I return it?"}}},
        {"cachePoint": {"type": "default"}},
    ]
    texts = read(record({"messages": [user(*blocks)]}, converse({"text": "Yes."}), "Converse")).texts
    assert texts.input == "[image]\nMay I return it?"
    assert texts.context == (
        "document: terms\nReturns within 30 days.\n\ndocument: [document] scan\n\ndocument: FAQ\nFree returns."
    )
    typed: list[Mapping[str, Any]] = [
        {"type": "document", "title": "terms", "source": {"type": "text", "data": "Returns within 30 days."}},
        {"type": "image", "source": {"type": "base64", "data": "iVBOR"}},
        {"type": "text", "text": "May I return it?"},
    ]
    texts = read(record({"messages": [user(*typed)]}, None)).texts
    assert texts == Texts("", "document: terms\nReturns within 30 days.", "[image]\nMay I return it?", "")
    pictured = read(record({"prompt": LLAMA, "images": ["iVBOR"]}, {"generation": "A planet."})).texts
    assert pictured.input == "[image]\n\nLargest?"


def test_command_r_has_its_history_documents_and_results_as_context() -> None:
    asked = {
        "chat_history": [{"role": "USER", "message": "Hi"}, {"role": "CHATBOT", "message": "Hello"}],
        "documents": [{"title": "FAQ", "snippet": "Free returns."}],
        "message": "Returns?",
        "tool_results": [{"call": {"name": "f", "parameters": {}}, "outputs": [{"text": "30 days"}]}],
    }
    texts = read(record(asked, {"text": "Yes."})).texts
    assert texts == Texts(
        "",
        'user: Hi\n\nassistant: Hello\n\ndocument: FAQ\nFree returns.\n\ntool: [{"text": "30 days"}]',
        "Returns?",
        "Yes.",
    )


def test_turns_of_a_template_are_told_apart_and_a_prompt_without_one_is_whole() -> None:
    turns = "<s>[INST] Salt? [/INST] A pinch.</s> [INST] Pepper? [/INST]"
    texts = read(record({"prompt": turns}, {"outputs": [{"text": " None."}]})).texts
    assert texts == Texts("", "user: Salt?\n\nassistant: A pinch.", "Pepper?", " None.")
    assert read(record({"prompt": "  Name <s> tags.\n"}, None)).texts.input == "  Name <s> tags.\n"


def test_reasoning_is_left_out_even_where_it_was_cut() -> None:
    def output(text: str, stop: str = "stop", **asked: Any) -> str:
        return read(record(asked or CHAT, {"choices": [{"text": text, "finish_reason": stop}]})).texts.output

    assert output("<reasoning>The user asks.</reasoning>Jupiter.") == "Jupiter."
    assert output("<think>Hm") == ""
    assert output("Hm, it is", stop="length", prompt=DEEPSEEK) == ""
    assert output("Jupiter.", prompt=DEEPSEEK) == "Jupiter."
    assert output("Write <think>x</think>.") == "Write <think>x</think>."


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("MAX_TOKENS", "length"),
        ("LENGTH", "length"),
        ("tool_use", "tool_calls"),
        ("content_filtered", "content_filter"),
        ("CONTENT_FILTERED", "content_filter"),
        ("guardrail_intervened", "content_filter"),
        ("ERROR_TOXIC", "content_filter"),
        ("refusal", "content_filter"),
        ("malformed_model_output", "malformed_model_output"),
        ("", None),
    ],
)
def test_stop_reasons_are_opentelemetrys_words(said: str, word: str | None) -> None:
    assert read(record(answered=converse(stop=said))).finish_reason == word


def test_a_guardrail_that_stepped_in_is_a_filter() -> None:
    answered = {"generation": "Sorry.", "stop_reason": "stop", "amazon-bedrock-guardrailAction": "INTERVENED"}
    assert read(record({"prompt": "x"}, answered)).finish_reason == "content_filter"


def test_the_records_own_counts_go_first_and_hold_what_was_cached() -> None:
    wire = record(
        ANTHROPIC, {"content": [], "usage": {"input_tokens": 1, "output_tokens": 1, "cache_read_input_tokens": 1}}
    )
    wire["input"] |= {"inputTokenCount": 10, "cacheReadInputTokenCount": 80, "cacheWriteInputTokenCount": 9}
    wire["output"]["outputTokenCount"] = 5
    found = read(wire)
    assert (found.input_tokens, found.cached_tokens, found.output_tokens) == (99, 80, 5)
    reasoning = {"usage": {"prompt_tokens": 1, "completion_tokens_details": {"reasoning_tokens": 64}}}
    assert read(record(CHAT, reasoning)).reasoning_tokens == 64


def test_labels_role_and_metadata_are_where_they_belong() -> None:
    place = LlmSource(location="s3://b", format="bedrock", application_label="service", variant_label="arm")
    wire = record(
        identity={"arn": "arn:aws:sts::111122223333:assumed-role/app-role/jane@example.com"},
        requestMetadata={"service": "shop", "arm": "A", "team": "web"},
        inferenceRegion="us-west-2",
        modelId="arn:aws:bedrock:us-east-1:111122223333:inference-profile/us.anthropic.claude-sonnet-4-20250514-v1:0",
    )
    found = read(wire, place=place)
    assert (found.application, found.variant) == ("shop", "A")
    assert found.model_name == "us.anthropic.claude-sonnet-4-20250514-v1:0"
    assert found.details == {
        "modelId": wire["modelId"],
        "operation": "InvokeModel",
        "inferenceRegion": "us-west-2",
        "role": "app-role",
        "requestMetadata": {"team": "web"},
    }
    assert "role" not in read(record(identity={"arn": "arn:aws:iam::111122223333:user/jane"})).details
    assert read(record(identity={"arn": "arn:aws:iam::1:role/path/batch"})).details["role"] == "batch"
    assert read(record(modelId="arn:aws:bedrock:us-east-1:1:provisioned-model/abc")).model_name == "abc"
    assert read(record(modelId=None)).model_name == "unknown"


def test_errors_are_named() -> None:
    assert read(record({"messages": []}, errorCode="ThrottlingException")).error_type == "ThrottlingException"
    broken = [{"generation": "Ju"}, {"modelStreamErrorException": {"message": "..."}}]
    assert read(record({"prompt": "x"}, broken)).error_type == "modelStreamErrorException"
    overloaded = [{"type": "error", "error": {"type": "overloaded_error", "message": "..."}}]
    assert read(record(ANTHROPIC, overloaded)).error_type == "overloaded_error"


@pytest.mark.parametrize(
    ("model", "asked", "answered"),
    [
        ("amazon.titan-embed-text-v2:0", {"inputText": "One\nTwo"}, {"embedding": [0.1], "inputTextTokenCount": 4}),
        ("cohere.embed-english-v3", {"texts": ["One", "Two"], "input_type": "x"}, {"embeddings": [[0.1], [0.2]]}),
        ("arn:aws:bedrock:us-east-1:1:provisioned-model/abc", {"texts": ["One", "Two"]}, None),
    ],
)
def test_embeddings_have_no_output(model: str, asked: Any, answered: Any) -> None:
    found = read(record(asked, answered, modelId=model))
    assert (found.operation, found.texts.output, found.content_state) == ("embeddings", "", "missing")
    assert found.texts.input.split() == ["One", "Two"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schemaType": "Other"}, "schemaType is not ModelInvocationLog"),
        ({"requestId": None}, "requestId is missing"),
        ({"timestamp": "2026-08-01T10:00:02"}, "timestamp is no time with a zone"),
        ({"timestamp": 1785578402}, "timestamp is no time with a zone"),
        ({"timestamp": "0001-01-01T00:00:00+14:00"}, "timestamp is no time with a zone"),
    ],
)
def test_what_is_no_record_says_why(change: Mapping[str, Any], reason: str) -> None:
    wire = record() | dict(change)
    assert parse(wire, PLACE, no_bodies) == Unreadable(wire, reason)


def test_the_time_of_a_record_is_utc() -> None:
    assert logged_at({"timestamp": "2026-08-01T12:00:02+02:00"}) == AT


WORDS = (
    *("messages", "role", "content", "text", "type", "tool_use", "toolUse", "toolResult", "input", "output", "message"),
    *("choices", "delta", "usage", "metadata", "metrics", "prompt", "outputs", "results", "system", "documents"),
    *("contentBlockDelta", "messageStop", "stopReason", "document", "source", "tool_calls", "function", "response"),
)
WIRE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8) | st.just("\ud800"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.just("\udfff"), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(asked=WIRE, answered=WIRE, metadata=WIRE, side=WIRE)
def test_no_body_of_whatever_shape_stops_the_parser(asked: Any, answered: Any, metadata: Any, side: Any) -> None:
    of_bodies = read(record(asked, answered, requestMetadata=metadata))
    of_sides = read(record(input=side, output=side, identity=side, modelId=side, operation=side, errorCode=side))
    for found in (of_bodies, of_sides):
        assert (found.native_id, found.timestamp) == (record()["requestId"], AT)
        told = (*astuple(found.texts), found.application, found.variant, found.model_name)
        told += (found.finish_reason or "", found.error_type or "")
        assert [each.encode().decode() for each in told] == list(told)
        assert json.loads(json.dumps(found.details, ensure_ascii=False).encode()) == found.details
    assert of_bodies.model_name == CLAUDE
