"""Rows of API Management's and Azure OpenAI's logs become one interaction a request, whatever tables tell of it."""

import json
import os
from dataclasses import astuple
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optiinfra_pipelines.llm.azure_openai import DIAGNOSTICS, GATEWAY_LOG, LLM_LOG, requests_of
from optiinfra_pipelines.llm.interaction import Found, Interaction, Texts, Unreadable

WIRE = Path(os.environ.get("OPTIINFRA_DATA", Path(__file__).parents[3] / "shared" / "data")) / "llm" / "wire"
on_wire = pytest.mark.skipif(not WIRE.exists(), reason="samples of the wire are not in OPTIINFRA_DATA")
AT = "2026-08-01T10:00:31.5Z"
SAFE = {"filtered": False, "severity": "safe"}
QUESTION = [{"role": "user", "content": "Capital of France?"}]


def wire(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (WIRE / name).read_text().splitlines() if line.strip()]


def found(*rows: tuple[str, dict[str, Any]]) -> list[Found]:
    return requests_of(rows, "app", "variant")


def one(*rows: tuple[str, dict[str, Any]]) -> Interaction:
    (only,) = found(*rows)
    assert isinstance(only, Interaction)
    return only


def piece(number: int = 0, **columns: Any) -> tuple[str, dict[str, Any]]:
    return LLM_LOG, {"TimeGenerated": AT, "CorrelationId": "c-9", "SequenceNumber": number, **columns}


def gateway(asked: Any = None, answered: Any = None, **columns: Any) -> tuple[str, dict[str, Any]]:
    url = "https://x.azure-api.net/openai/deployments/chat-prod/chat/completions?api-version=1&subscription-key=canary"
    bodies = {
        name: each if isinstance(each, str) or each is None else json.dumps(each)
        for name, each in (("RequestBody", asked), ("ResponseBody", answered))
    }
    return GATEWAY_LOG, {"TimeGenerated": AT, "CorrelationId": "c-9", "Url": url, **bodies, **columns}


def chat(content: Any, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **more}
    return {"model": "gpt-4o-2024-08-06", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def streamed(*events: Any) -> str:
    return "".join(f"data: {each if isinstance(each, str) else json.dumps(each)}\n\n" for each in events)


@on_wire
def test_a_row_of_the_log_of_language_models_tells_texts_tokens_and_deployment() -> None:
    (row,) = wire("azure_apim_llmlog.jsonl")
    assert one((LLM_LOG, row)) == Interaction(
        native_id="c-3",
        timestamp=datetime(2026, 8, 1, 10, 0, 31, tzinfo=UTC),
        model_name="gpt-4o",
        texts=Texts(input="Capital of France?", output="The capital of France is Paris."),
        operation="chat",
        region="eastus",
        input_tokens=14,
        output_tokens=8,
        details={
            "deployment": "chat-prod",
            "api_version": "2024-10-21",
            "request_id": "req-1",
            "streamed": False,
            "tables": ["ApiManagementGatewayLlmLog"],
        },
    )


@on_wire
def test_a_row_of_the_gateway_s_log_tells_bodies_latency_and_what_the_content_filter_thought() -> None:
    answered, _ = wire("azure_apim_gatewaylogs.jsonl")
    assert one((GATEWAY_LOG, answered)) == Interaction(
        native_id="c-3",
        timestamp=datetime(2026, 8, 1, 10, 0, 31, 446590, tzinfo=UTC),
        model_name="gpt-4o-2024-08-06",
        texts=Texts(input="Capital of France?", output="The capital of France is Paris."),
        input_tokens=14,
        output_tokens=8,
        latency_ms=176.0,
        finish_reason="stop",
        details={
            "deployment": "chat-prod",
            "api_id": "azure-openai-service-api",
            "operation_id": "ChatCompletions_Create",
            "url": "https://x.azure-api.net/deployments/chat-prod/chat/completions",
            "status": 200,
            "backend_status": 200,
            "backend_ms": 170.0,
            "content_filter": {
                "answer": {
                    **dict.fromkeys(("hate", "self_harm", "sexual", "violence"), SAFE),
                    "profanity": {"filtered": False, "detected": False},
                }
            },
            "tables": ["ApiManagementGatewayLogs"],
        },
    )


@on_wire
def test_a_request_that_the_content_filter_refused_says_so_and_has_no_answer() -> None:
    _, refused = wire("azure_apim_gatewaylogs.jsonl")
    interaction = one((GATEWAY_LOG, refused))
    assert interaction == Interaction(
        native_id="c-4",
        timestamp=datetime(2026, 8, 1, 10, 0, 31, 446590, tzinfo=UTC),
        texts=Texts(input="Capital of France?"),
        latency_ms=176.0,
        finish_reason="content_filter",
        error_type="content_filter",
        details={
            "deployment": "chat-prod",
            "api_id": "azure-openai-service-api",
            "operation_id": "ChatCompletions_Create",
            "url": "https://x.azure-api.net/deployments/chat-prod/chat/completions",
            "status": 400,
            "backend_status": 400,
            "backend_ms": 170.0,
            "content_filter": {"prompt": {"violence": {"filtered": True, "severity": "high"}}},
            "tables": ["ApiManagementGatewayLogs"],
        },
    )
    assert interaction.content_state == "missing"


@on_wire
def test_diagnostics_have_no_texts_whether_properties_are_an_object_or_json_text() -> None:
    rows = wire("azure_openai_requestresponse_diag.jsonl")
    assert [type(row["properties"]) for row in rows] == [dict, str]
    for row, native_id in zip(rows, ("c-1", "c-2"), strict=True):
        interaction = one((DIAGNOSTICS, row))
        assert interaction == Interaction(
            native_id=native_id,
            timestamp=datetime(2026, 8, 1, 10, 0, 2, 435000, tzinfo=UTC),
            model_name="gpt-4o-2024-08-06",
            region="eastus",
            latency_ms=1021.0,
            details={
                "deployment": "chat-prod",
                "api_version": "2024-10-21",
                "streamed": False,
                "status": 200,
                "tables": ["AzureDiagnostics"],
            },
        )
        assert interaction.content_state == "missing"


@on_wire
def test_a_negative_duration_of_the_diagnostics_is_no_latency() -> None:
    row = wire("azure_openai_requestresponse_diag.jsonl")[0] | {"durationMs": -7}
    assert one((DIAGNOSTICS, row)).latency_ms is None


@on_wire
def test_one_request_in_three_tables_is_one_interaction_that_knows_what_each_of_them_knows() -> None:
    (llm,) = wire("azure_apim_llmlog.jsonl")
    seen = wire("azure_apim_gatewaylogs.jsonl")[0]
    diagnostic = wire("azure_openai_requestresponse_diag.jsonl")[0] | {"correlationId": "c-3"}
    interaction = one((DIAGNOSTICS, diagnostic), (GATEWAY_LOG, seen), (LLM_LOG, llm))
    assert interaction.native_id == "c-3"
    assert interaction.timestamp == datetime(2026, 8, 1, 10, 0, 2, 435000, tzinfo=UTC)
    assert interaction.model_name == "gpt-4o-2024-08-06"
    assert (interaction.input_tokens, interaction.output_tokens) == (14, 8)
    assert (interaction.latency_ms, interaction.finish_reason, interaction.region) == (176.0, "stop", "eastus")
    assert interaction.content_state == "full"
    assert interaction.details["request_id"] == "req-1"
    assert interaction.details["api_id"] == "azure-openai-service-api"
    assert interaction.details["tables"] == [LLM_LOG, GATEWAY_LOG, DIAGNOSTICS]


def test_pieces_of_text_are_joined_by_their_number_and_tokens_stand_in_a_row_of_their_own() -> None:
    asked, answered = json.dumps([{"role": "system", "content": "Be brief."}, *QUESTION]), '[{"content":"Paris."}]'
    interaction = one(
        piece(3, ResponseMessages=answered),
        piece(2, RequestMessages=asked[20:]),
        piece(1, RequestMessages=asked[:20], PromptTokens=0, CompletionTokens=0),
        piece(0, PromptTokens=14, CompletionTokens=8, ModelName="gpt-4o", RequestId="req-1", ResponseMessages=""),
    )
    assert interaction.texts == Texts(system="Be brief.", input="Capital of France?", output="Paris.")
    assert (interaction.truncated, interaction.input_tokens, interaction.output_tokens) == (False, 14, 8)
    assert interaction.model_name == "gpt-4o"


def test_pieces_that_are_arrays_go_on_in_the_message_that_the_last_one_ended_with() -> None:
    interaction = one(
        piece(0, RequestMessages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capi"}]),
        piece(1, RequestMessages='[{"role": "user", "content": "tal?"}]'),
        piece(2, ResponseMessages=[{"role": "assistant", "content": "Pa"}]),
        piece(3, ResponseMessages=[{"role": "assistant", "content": "ris."}]),
    )
    assert interaction.texts == Texts(system="Be brief.", input="Capital?", output="Paris.")
    assert interaction.content_state == "full"


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_piece_makes_the_interaction_truncated(missing: int) -> None:
    text = json.dumps([{"role": "user", "content": "abcdefghijklmnopqrstuvwxyz"}])
    pieces = [piece(0, RequestMessages=text[:40]), piece(1, RequestMessages=text[40:50])]
    pieces += [piece(2, RequestMessages=text[50:]), piece(3, ResponseMessages='[{"content":"Yes."}]')]
    interaction = one(*(each for number, each in enumerate(pieces) if number != missing))
    assert interaction.truncated
    assert interaction.texts.output == "Yes."
    assert "abcdefghijklmnopqrstuvwxyz".startswith(interaction.texts.input)


@given(st.lists(st.integers(1, 400), max_size=6), st.text(min_size=1).filter(str.strip))
def test_a_conversation_is_the_same_however_its_text_is_cut_into_pieces(cuts: list[int], said: str) -> None:
    asked = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    asked.append({"role": "user", "content": said})
    text = json.dumps(asked)
    edges = sorted({0, *(cut for cut in cuts if cut < len(text)), len(text)})
    pieces = [text[start:end] for start, end in pairwise(edges)]
    rows = [piece(number, RequestMessages=each) for number, each in enumerate(pieces)]
    interaction = one(*rows, piece(len(rows), ResponseMessages=[{"role": "assistant", "content": "Sure."}]))
    whole = one(piece(0, RequestMessages=asked, ResponseMessages=[{"role": "assistant", "content": "Sure."}]))
    assert interaction.texts == whole.texts
    assert interaction.content_state == "full"


def test_several_requests_of_one_correlation_are_told_apart_and_share_what_is_true_of_both() -> None:
    body = {"messages": QUESTION, "metadata": {"app": "shop"}}
    first, second = found(
        piece(0, RequestId="r1", RequestMessages=QUESTION, ResponseMessages=[{"content": "Paris."}]),
        piece(0, RequestId="r2", RequestMessages=QUESTION, ResponseMessages=[{"content": "Rome."}]),
        gateway(body, chat("Rome."), TotalTime=900, ApiId="chat"),
    )
    assert isinstance(first, Interaction)
    assert isinstance(second, Interaction)
    assert (first.native_id, first.texts.output) == ("c-9/r1", "Paris.")
    assert (second.native_id, second.texts.output) == ("c-9/r2", "Rome.")
    for each in (first, second):
        assert (each.application, each.details["api_id"], each.latency_ms) == ("shop", "chat", None)


def test_a_row_that_belongs_to_none_of_several_requests_is_unreadable() -> None:
    rows = [piece(0, RequestId="r1"), piece(0, RequestId="r2"), piece(1, ResponseMessages="[]")]
    *_, odd = found(*rows)
    assert odd == Unreadable(rows[2][1], "names no RequestId, and its CorrelationId holds several")


def test_application_and_variant_are_the_request_s_metadata_and_nothing_else() -> None:
    body = {"messages": QUESTION, "user": "u-1", "metadata": {"app": "shop", "variant": "B", "conversation_id": "t-1"}}
    labelled = one(gateway(body, chat("Paris."), ApimSubscriptionId="team-a", ProductId="gold", ApiId="chat"))
    assert (labelled.application, labelled.variant, labelled.conversation_id) == ("shop", "B", "t-1")
    plain = one(gateway({"messages": QUESTION}, chat("Paris."), ApimSubscriptionId="team-a", ProductId="gold"))
    assert (plain.application, plain.variant, plain.conversation_id) == ("", "", None)
    assert (plain.details["subscription_id"], plain.details["product_id"]) == ("team-a", "gold")


def test_details_hold_no_key_of_the_address_and_no_text() -> None:
    answer = chat("Paris.") | {
        "prompt_filter_results": [
            {
                "content_filter_results": {
                    "custom_blocklists": [{"filtered": True, "id": "b"}],
                    "hate": SAFE | {"x": "y"},
                }
            }
        ]
    }
    details = one(gateway({"messages": QUESTION}, answer)).details
    assert "canary" not in json.dumps(details)
    assert details["content_filter"] == {"prompt": {"hate": SAFE}}


def test_a_stream_is_joined_and_tells_usage_cached_and_reasoning_tokens() -> None:
    usage = {
        "prompt_tokens": 14,
        "completion_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    stream = streamed(
        {"choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {"hate": SAFE}}]},
        {"model": "gpt-4o-2024-08-06", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"index": 0, "delta": {"content": "Pa"}}, {"index": 1, "delta": {"content": "Rome"}}]},
        {"choices": [{"index": 0, "delta": {"content": "ris."}, "content_filter_results": {"violence": SAFE}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": usage},
        "[DONE]",
    )
    interaction = one(gateway({"messages": QUESTION, "stream": True}, stream))
    assert interaction.texts == Texts(input="Capital of France?", output="Paris.")
    assert (interaction.content_state, interaction.finish_reason) == ("full", "stop")
    assert interaction.model_name == "gpt-4o-2024-08-06"
    assert (interaction.input_tokens, interaction.cached_tokens) == (14, 4)
    assert (interaction.output_tokens, interaction.reasoning_tokens) == (8, 3)
    assert interaction.details["content_filter"] == {"prompt": {"hate": SAFE}, "answer": {"violence": SAFE}}


def test_a_stream_that_was_cut_keeps_what_came_and_is_truncated() -> None:
    stream = streamed(
        {"choices": [{"index": 0, "delta": {"content": "Par"}}]}, '{"choices": [{"index": 0, "delta": {"co'
    )
    interaction = one(gateway({"messages": QUESTION}, stream))
    assert (interaction.texts.output, interaction.content_state) == ("Par", "truncated")


def test_the_responses_api_is_read_whole_and_streamed() -> None:
    asked = {
        "model": "gpt-5",
        "instructions": "Be brief.",
        "conversation": {"id": "conv_1"},
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}, {"type": "input_image"}]},
            {"type": "reasoning", "summary": []},
            {"type": "function_call", "name": "weather", "arguments": '{"city":"Paris"}'},
            {"type": "function_call_output", "output": "sunny"},
        ],
    }
    answered = {
        "model": "gpt-5-2025-08-07",
        "status": "incomplete",
        "incomplete_details": {"reason": "max_output_tokens"},
        "output": [
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It is sunny"}]},
        ],
        "usage": {
            "input_tokens": 20,
            "input_tokens_details": {"cached_tokens": 5},
            "output_tokens": 9,
            "output_tokens_details": {"reasoning_tokens": 6},
        },
        "error": None,
    }
    url = "https://x.azure-api.net/openai/v1/responses"
    stream = streamed(
        {"type": "response.created", "response": {"model": "gpt-5-2025-08-07", "status": "in_progress"}},
        {"type": "response.output_text.delta", "delta": "It is "},
        {"type": "response.incomplete", "response": answered},
    )
    for each in (answered, "event: response.created\n" + stream):
        interaction = one(gateway(asked, each, Url=url))
        assert interaction.texts == Texts(
            system="Be brief.",
            context='assistant: [tool_call] weather({"city":"Paris"})\n\ntool: sunny',
            input="Weather?\n[image]",
            output="It is sunny",
        )
        assert (interaction.operation, interaction.conversation_id) == ("chat", "conv_1")
        assert (interaction.model_name, interaction.finish_reason) == ("gpt-5-2025-08-07", "length")
        assert (interaction.input_tokens, interaction.cached_tokens) == (20, 5)
        assert (interaction.output_tokens, interaction.reasoning_tokens) == (9, 6)
        assert interaction.content_state == "full"


def test_a_call_of_a_tool_is_the_answer_whether_whole_or_streamed() -> None:
    call = {"function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
    whole = chat(None, tool_calls=[{"id": "1", **call}])
    stream = streamed(
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": "weather", "arguments": ""}}]}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '"Paris"}'}}]}}]},
        {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
    )
    for each in (whole, stream):
        assert one(gateway({"messages": QUESTION}, each)).texts.output == '[tool_call] weather({"city":"Paris"})'


def test_completions_and_embeddings_are_operations_of_their_own() -> None:
    completion = one(
        gateway(
            {"prompt": "Once upon"},
            {"model": "gpt-35-turbo-instruct", "choices": [{"text": " a time", "index": 0, "finish_reason": "length"}]},
            Url="https://x.azure-api.net/openai/deployments/d/completions",
        )
    )
    assert (completion.operation, completion.finish_reason) == ("text_completion", "length")
    assert completion.texts == Texts(input="Once upon", output=" a time")
    embedding = one(
        gateway(
            {"input": ["first", "second"]},
            {"model": "text-embedding-3-small", "data": [{"embedding": [0.1]}], "usage": {"prompt_tokens": 2}},
            Url="https://x.azure-api.net/openai/deployments/d/embeddings",
        )
    )
    assert (embedding.operation, embedding.input_tokens, embedding.content_state) == ("embeddings", 2, "missing")
    assert embedding.texts == Texts(input="first\nsecond")


def test_what_the_gateway_serves_besides_models_is_left_out() -> None:
    survey = {"Url": "https://x.azure-api.net/survey/responses", "OperationId": "answers", "Method": "POST"}
    assert found(gateway('{"age": 7}', "{}", **survey)) == []
    assert found(gateway(Url="https://x.azure-api.net/orders", OperationId="orders")) == []
    assert found(gateway(Url="https://x.azure-api.net/openai/v1/responses", Method="GET")) == []
    secrets = {"TimeGenerated": AT, "CorrelationId": "c-9", "Category": "AuditEvent", "OperationName": "SecretGet"}
    assert found((DIAGNOSTICS, secrets)) == []
    speech = {"TimeGenerated": AT, "CorrelationId": "c-9", "Category": "RequestResponse", "OperationName": "Transcribe"}
    assert found((DIAGNOSTICS, speech)) == []


def test_a_refused_request_without_a_body_has_its_status_for_an_error() -> None:
    assert one(gateway({"messages": QUESTION}, None, ResponseCode=429)).error_type == "429"
    error = {"error": {"code": "DeploymentNotFound", "message": "no such"}}
    assert one(gateway({"messages": QUESTION}, error, ResponseCode=404)).error_type == "DeploymentNotFound"


def test_whole_texts_of_the_gateway_stand_in_for_pieces_that_are_missing() -> None:
    rows = [piece(1, RequestMessages=QUESTION, ModelName="gpt-4o"), gateway({"messages": QUESTION}, chat("Paris."))]
    interaction = one(*rows)
    assert interaction.content_state == "full"
    assert interaction.texts.output == "Paris."
    assert interaction.model_name == "gpt-4o-2024-08-06"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"TimeGenerated": AT}, "has no CorrelationId"),
        ({"CorrelationId": "c"}, "has no TimeGenerated that can be read"),
        ({"CorrelationId": "c", "TimeGenerated": "yesterday"}, "has no TimeGenerated that can be read"),
        ({"CorrelationId": "c", "TimeGenerated": AT, "properties_s": "{"}, "its properties are no JSON object"),
        ({"CorrelationId": "c", "TimeGenerated": AT, "properties_s": "[1]"}, "its properties are no JSON object"),
    ],
)
def test_a_row_that_cannot_be_read_is_handed_on_with_the_reason(row: dict[str, Any], reason: str) -> None:
    assert found((DIAGNOSTICS, row)) == [Unreadable(row, reason)]


@given(st.integers(0, 600), st.text(min_size=1).filter(str.strip))
def test_a_body_cut_anywhere_keeps_a_beginning_of_its_text_and_nothing_else(length: int, said: str) -> None:
    asked = json.dumps({"messages": [{"role": "user", "content": said}], "metadata": {"app": "shop"}})
    answered = json.dumps(chat(said))
    interaction = one(gateway(asked[:length], answered[:length], ResponseCode=200))
    known = said.encode("utf-8", "replace").decode()
    assert known.startswith(interaction.texts.input.rstrip("?"))
    assert known.startswith(interaction.texts.output.rstrip("?"))
    assert interaction.truncated == (0 < length < max(len(asked), len(answered)))
    json.dumps(interaction.details)
    interaction.texts.output.encode()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "messages",
                        "choices",
                        "message",
                        "content",
                        "usage",
                        "error",
                        "metadata",
                        "input",
                        "output",
                        "tool_calls",
                        "delta",
                        "function",
                        "innererror",
                        "code",
                        "role",
                        "text",
                        "type",
                        "index",
                        "prompt_tokens",
                    ]
                ),
                inner,
            )
        ),
        max_leaves=20,
    )
)
def test_a_body_of_any_shape_is_one_request_with_texts_and_details_that_can_be_written(value: Any) -> None:
    body = json.dumps(value)
    through_gateway = one(gateway(body, body)), one(gateway(body, streamed(value)))
    for read in (*through_gateway, one(piece(0, RequestMessages=body, ResponseMessages=value))):
        assert (read.native_id, read.timestamp) == ("c-9", datetime.fromisoformat(AT))
        told = (*astuple(read.texts), read.model_name, read.finish_reason or "", read.error_type or "")
        assert [each.encode().decode() for each in told] == list(told)
        assert json.loads(json.dumps(read.details, allow_nan=False)) == read.details
    assert [read.details["deployment"] for read in through_gateway] == ["chat-prod", "chat-prod"]
