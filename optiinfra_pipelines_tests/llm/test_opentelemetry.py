"""What a span and its events tell of a call of a model, in every vocabulary of attributes."""

import json
import re
from dataclasses import astuple
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optiinfra_pipelines.llm.interaction import Interaction, Texts
from optiinfra_pipelines_tests.llm.traces import (
    ANSWERED,
    ASKED,
    AT,
    CHAT,
    events,
    found_in,
    only,
    otlp_event,
    otlp_span,
    spans,
)

SPOKEN = Texts("Be brief.", "user: Hello\n\nassistant: Hi", "Capital of France?", "Paris.")
TURNS = [("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi"), ("user", "Capital of France?")]


def test_the_flat_sample_is_an_interaction_with_every_fact_it_tells(data: Path) -> None:
    lines = (data / "llm" / "wire" / "otel_genai_span.jsonl").read_text().splitlines()
    found = only(*map(json.loads, lines))  # its second line is an evaluation, and none
    assert found == Interaction(
        native_id="4bf92f3577b34da6a3ce929d0e0e4736:00f067aa0ba902b7",
        timestamp=AT,
        model_name="gpt-4o-2024-08-06",
        texts=Texts(input="Capital of France?", output="Paris."),
        conversation_id="conv-1",
        input_tokens=14,
        output_tokens=8,
        latency_ms=1200.0,
        finish_reason="stop",
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
        span_id="00f067aa0ba902b7",
        details={
            "gen_ai.provider.name": "azure.ai.openai",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.response.id": "chatcmpl-1",
            "span": "chat gpt-4o",
        },
    )


def test_every_example_of_the_published_conventions_is_read_whole(data: Path) -> None:
    page = (data / "llm" / "otel_genai_v1.41.1" / "examples-llm-calls.md").read_text()
    blocks = [
        json.loads(re.sub(r"^\s*//.*$", "", block, flags=re.MULTILINE))
        for block in re.findall(r"```jsonc?\n(.*?)```", page, re.DOTALL)
    ]
    conversations = [each for each in blocks if isinstance(each, list) and "parts" in each[0]]
    assert len(conversations) > 10
    for messages in conversations:
        texts = only(spans(otlp_span(CHAT | {"gen_ai.input.messages": messages}))).texts
        said = "\n".join((texts.system, texts.context, texts.input))
        for part in (part for message in messages for part in message["parts"]):
            if part["type"] in ("text", "reasoning"):
                assert (part["content"] in said) is (part["type"] == "text")
            elif part["type"] == "tool_call":
                assert f"[tool call {part['name']}(" in said
            elif part["type"] in ("blob", "uri", "file"):
                assert f"[{part.get('modality', 'file')}]" in said


def test_an_otlp_span_tells_tokens_times_labels_and_where_it_ran() -> None:
    told = CHAT | {
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.usage.input_tokens": 14,
        "gen_ai.usage.output_tokens": 8,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.reasoning.output_tokens": 3,
        "gen_ai.response.finish_reasons": ["length"],
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.conversation.id": "conv-7",
        "variant": "b",
    }
    request = spans(otlp_span(told), service__name="shop", cloud__region="eu-west-1", cloud__account__id="123")
    found = only(request)
    assert (found.input_tokens, found.output_tokens, found.cached_tokens, found.reasoning_tokens) == (14, 8, 4, 3)
    assert (found.latency_ms, found.time_to_first_token_ms) == (1200.0, 250.0)
    assert (found.application, found.variant, found.conversation_id) == ("shop", "b", "conv-7")
    assert (found.account_id, found.region, found.finish_reason) == ("123", "eu-west-1", "length")
    assert (found.model_name, found.operation, found.error_type) == ("gpt-4o-2024-08-06", "chat", None)
    assert found.content_state == "full"


def test_messages_may_be_arrays_and_instructions_stand_apart() -> None:
    told = CHAT | {
        "gen_ai.system_instructions": [{"type": "text", "content": "Be brief."}],
        "gen_ai.input.messages": [
            {"role": role, "parts": [{"type": "text", "content": text}]} for role, text in TURNS[1:]
        ],
        "gen_ai.output.messages": ANSWERED,
    }
    assert only(spans(otlp_span(told))).texts == SPOKEN


def test_tool_calls_images_and_files_are_words_in_brackets_and_reasoning_is_left_out() -> None:
    call = {"type": "tool_call", "id": "c", "name": "weather", "arguments": {"city": "Zürich"}}
    asked = [
        {
            "role": "user",
            "parts": [
                {"type": "text", "content": "Look at this"},
                {"type": "blob", "modality": "image", "mime_type": "image/png", "content": "aGk="},
                {"type": "uri", "mime_type": "video/mp4", "uri": "gs://b/v.mp4"},
                {"type": "file", "file_id": "f-1"},
            ],
        },
        {"role": "assistant", "parts": [{"type": "reasoning", "content": "Hm."}, call]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c", "response": {"degrees": 21}}]},
    ]
    answered = [{"role": "assistant", "parts": [{"type": "reasoning", "content": "Hm."}, call]}]
    found = only(spans(otlp_span(CHAT | {"gen_ai.input.messages": asked, "gen_ai.output.messages": answered})))
    assert found.texts == Texts(
        context='assistant: [tool call weather({"city": "Zürich"})]\n\ntool: {"degrees": 21}',
        input="Look at this\n[image]\n[video]\n[file]",
        output='[tool call weather({"city": "Zürich"})]',
    )


def test_of_several_choices_the_first_with_a_text_is_the_answer() -> None:
    choices = [{"role": "assistant", "parts": []}, *ANSWERED, *ANSWERED]
    found = only(spans(otlp_span(CHAT | {"gen_ai.output.messages": json.dumps(choices)})))
    assert (found.texts.output, found.finish_reason, found.details["choices"]) == ("Paris.", "stop", 3)


def test_a_span_and_its_events_of_one_message_each_are_one_interaction() -> None:
    """As opentelemetry-instrumentation-openai-v2 writes them by default: conventions up to 1.36."""
    told = {
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.prompt_tokens": 14,
        "gen_ai.usage.completion_tokens": 8,
    }
    call = [{"id": "c", "type": "function", "function": {"name": "where", "arguments": "{}"}}]
    logs = [
        otlp_event("gen_ai.system.message", {}, body={"content": "Be brief."}),
        otlp_event("gen_ai.user.message", {}, body={"content": [{"type": "text", "text": "Near me?"}]}),
        otlp_event("gen_ai.assistant.message", {}, body={"tool_calls": call}),
        otlp_event("gen_ai.tool.message", {}, body={"content": "Paris", "id": "c"}),
        otlp_event(
            "gen_ai.choice",
            {},
            at=AT + timedelta(seconds=1),
            body={"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "The Louvre."}},
        ),
    ]
    found = only(events(*logs), spans(otlp_span(told)))
    assert found.texts == Texts(
        "Be brief.", "assistant: [tool call where({})]\n\ntool: Paris", "Near me?", "The Louvre."
    )
    assert (found.input_tokens, found.output_tokens, found.finish_reason) == (14, 8, "stop")
    assert found.details["gen_ai.system"] == "openai"


def test_messages_may_be_events_within_the_span() -> None:
    within = [
        ("gen_ai.user.message", 0.0, {"gen_ai.event.content": '{"role": "user", "content": "Capital of France?"}'}),
        ("gen_ai.choice", 1.0, {"message": "Paris.", "finish_reason": "stop"}),
    ]
    told = {"gen_ai.operation.name": "chat", "gen_ai.system": "az.ai.inference"}
    found = only(spans(otlp_span(told, events=within)))
    assert (found.texts, found.finish_reason) == (Texts(input="Capital of France?", output="Paris."), "stop")
    prompt = [("gen_ai.content.prompt", 0.0, {"gen_ai.prompt": json.dumps([{"role": "user", "content": "Hi"}])})]
    completion = [("gen_ai.content.completion", 1.0, {"gen_ai.completion": json.dumps([{"content": "Hello."}])})]
    assert only(spans(otlp_span(told, events=prompt + completion))).texts == Texts(input="Hi", output="Hello.")


def test_a_span_without_texts_gets_them_from_the_event_with_the_details_of_its_call() -> None:
    told = {name: value for name, value in CHAT.items() if not name.endswith("messages")}
    detailed = {"gen_ai.input.messages": ASKED, "gen_ai.output.messages": ANSWERED, "gen_ai.request.model": "other"}
    details = otlp_event("gen_ai.client.inference.operation.details", detailed, at=AT + timedelta(seconds=1))
    found = only(spans(otlp_span(told)), events(details))
    assert found.texts == Texts(input="Capital of France?", output="Paris.")
    assert (found.model_name, found.timestamp, found.latency_ms) == ("gpt-4o", AT, 1200.0)


def test_an_event_without_a_span_is_an_interaction_named_by_its_response() -> None:
    told = CHAT | {"gen_ai.response.id": "chatcmpl-9"}
    record = otlp_event("gen_ai.client.inference.operation.details", told, traceId="", spanId="")
    found = only(events(record, service__name="shop"))
    assert (found.native_id, found.trace_id, found.span_id) == ("chatcmpl-9", None, None)
    assert (found.timestamp, found.latency_ms, found.application) == (AT, None, "shop")
    assert found.texts == Texts(input="Capital of France?", output="Paris.")


def openinference(prefix: str, turns: list[tuple[str, str]]) -> dict[str, str]:
    told = {}
    for number, (role, text) in enumerate(turns):
        told[f"llm.{prefix}.{number}.message.role"] = role
        told[f"llm.{prefix}.{number}.message.content"] = text
    return told


def test_openinference_is_understood() -> None:
    told = {
        "openinference.span.kind": "LLM",
        "llm.model_name": "gpt-4o-2024-08-06",
        **openinference("input_messages", TURNS),
        **openinference("output_messages", [("assistant", "Paris.")]),
        "llm.token_count.prompt": 14,
        "llm.token_count.total": 22,
        "llm.token_count.prompt_details.cache_read": 4,
        "llm.token_count.completion_details.reasoning": 3,
        "llm.finish_reason": "stop",
        "session.id": "s-1",
        "metadata": '{"app": "helpdesk"}',
    }
    found = only(spans(otlp_span(told, events=[("First Token Stream Event", 0.5, {})]), service__name="shop"))
    assert found.texts == SPOKEN
    assert (found.input_tokens, found.output_tokens, found.cached_tokens, found.reasoning_tokens) == (14, 8, 4, 3)
    assert (found.time_to_first_token_ms, found.finish_reason) == (500.0, "stop")
    assert (found.model_name, found.conversation_id, found.application) == ("gpt-4o-2024-08-06", "s-1", "helpdesk")


def test_openinference_parts_and_calls_of_tools_are_understood() -> None:
    contents = "llm.input_messages.0.message.contents"
    call = "llm.output_messages.0.message.tool_calls.0.tool_call.function"
    told = {
        "openinference.span.kind": "LLM",
        "llm.input_messages.0.message.role": "user",
        f"{contents}.0.message_content.type": "text",
        f"{contents}.0.message_content.text": "Weather?",
        f"{contents}.1.message_content.type": "image",
        f"{contents}.1.message_content.image.image.url": "data:image/png;base64,AAAA",
        "llm.output_messages.0.message.role": "assistant",
        f"{call}.name": "weather",
        f"{call}.arguments": '{"city": "Paris"}',
    }
    assert only(spans(otlp_span(told))).texts == Texts(
        input="Weather?\n[image]", output='[tool call weather({"city": "Paris"})]'
    )


def test_where_openinference_has_no_messages_the_raw_request_and_answer_are_read() -> None:
    asked = {"model": "m", "messages": [{"role": role, "content": text} for role, text in TURNS]}
    answered = {"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "Paris."}}]}
    bodies = {
        "openinference.span.kind": "LLM",
        "input.value": json.dumps(asked),
        "output.value": json.dumps(answered),
        "llm.invocation_parameters": '{"model": "gpt-4o"}',
    }
    found = only(spans(otlp_span(bodies)))
    assert (found.texts, found.finish_reason, found.model_name) == (SPOKEN, "stop", "gpt-4o")
    plain = {"openinference.span.kind": "LLM", "input.value": "Capital of France?", "output.value": "Paris."}
    assert only(spans(otlp_span(plain))).texts == Texts(input="Capital of France?", output="Paris.")


def test_texts_that_openinference_was_told_to_hide_are_missing() -> None:
    told = {
        "openinference.span.kind": "LLM",
        **openinference("input_messages", [("user", "__REDACTED__")]),
        "output.value": "__REDACTED__",
    }
    found = only(spans(otlp_span(told)))
    assert (found.texts, found.content_state) == (Texts(), "missing")


def test_openllmetry_is_understood() -> None:
    told: dict[str, Any] = {
        "llm.request.type": "chat",
        "gen_ai.system": "OpenAI",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.completion.0.role": "assistant",
        "gen_ai.completion.0.content": "Paris.",
        "gen_ai.completion.0.finish_reason": "stop",
        "gen_ai.usage.prompt_tokens": 14,
        "llm.usage.total_tokens": 22,
        "traceloop.association.properties.app": "helpdesk",
        "traceloop.association.properties.variant": "b",
        "traceloop.association.properties.session_id": "s-2",
    }
    for number, (role, text) in enumerate(TURNS):
        told |= {f"gen_ai.prompt.{number}.role": role, f"gen_ai.prompt.{number}.content": text}
    found = only(spans(otlp_span(told), app="of-the-resource"))
    assert (found.texts, found.finish_reason) == (SPOKEN, "stop")
    assert (found.input_tokens, found.output_tokens, found.operation) == (14, 8, "chat")
    assert (found.application, found.variant, found.conversation_id) == ("helpdesk", "b", "s-2")


def test_openllmetry_parts_and_calls_of_tools_are_understood() -> None:
    parts = [{"type": "text", "text": "Weather?"}, {"type": "image_url", "image_url": {"url": "data:..."}}]
    told = {
        "llm.request.type": "chat",
        "gen_ai.prompt.0.role": "user",
        "gen_ai.prompt.0.content": json.dumps(parts),
        "gen_ai.prompt.10.role": "tool",
        "gen_ai.prompt.10.content": "Paris",
        "gen_ai.prompt.9.role": "assistant",
        "gen_ai.prompt.9.tool_calls.0.name": "where",
        "gen_ai.prompt.9.tool_calls.0.arguments": "{}",
        "gen_ai.completion.0.content": '[{"a list": "in JSON"}]',
    }
    assert only(spans(otlp_span(told))).texts == Texts(
        context="assistant: [tool call where({})]\n\ntool: Paris",
        input="Weather?\n[image]",
        output='[{"a list": "in JSON"}]',
    )


def test_a_span_of_vllm_tells_tokens_and_seconds_and_no_text() -> None:
    told = {
        "gen_ai.response.model": "meta-llama/Llama-3.1-8B-Instruct",
        "gen_ai.request.id": "chatcmpl-77",
        "gen_ai.usage.prompt_tokens": 128,
        "gen_ai.usage.completion_tokens": 512,
        "gen_ai.latency.time_in_queue": 0.01,
        "gen_ai.latency.time_to_first_token": 0.045,
        "gen_ai.latency.e2e": 2.1,
    }
    found = only(spans(otlp_span(told, name="llm_request", endTimeUnixNano="0"), service__name="vllm-server"))
    assert (found.input_tokens, found.output_tokens, found.content_state) == (128, 512, "missing")
    assert (found.latency_ms, found.time_to_first_token_ms) == (2100.0, 45.0)
    assert found.details["gen_ai.request.id"] == "chatcmpl-77"


@pytest.mark.parametrize(
    "told",
    [
        {"gen_ai.operation.name": "invoke_agent", "gen_ai.usage.input_tokens": 14},
        {"gen_ai.operation.name": "execute_tool"},
        {"gen_ai.operation.name": "retrieval"},
        {"gen_ai.operation.name": "invoke_workflow"},
        {"openinference.span.kind": "CHAIN", "input.value": "Capital of France?", "output.value": "Paris."},
        {"openinference.span.kind": "RETRIEVER", "retrieval.documents.0.document.content": "Paris is ..."},
        {"traceloop.span.kind": "workflow", "traceloop.entity.input": "Capital of France?"},
        {"http.request.method": "POST"},
    ],
)
def test_agents_tools_retrievals_and_workflows_are_no_interactions(told: dict[str, Any]) -> None:
    assert found_in(spans(otlp_span(told))) == []


def test_embeddings_are_interactions_without_an_answer() -> None:
    told = {
        "openinference.span.kind": "EMBEDDING",
        "embedding.model_name": "emb-1",
        "embedding.embeddings.0.embedding.text": "hello",
        "llm.token_count.prompt": 3,
        "llm.token_count.total": 3,
    }
    found = only(spans(otlp_span(told)))
    assert (found.operation, found.model_name, found.texts.input) == ("embeddings", "emb-1", "hello")
    assert (found.input_tokens, found.output_tokens, found.content_state) == (3, None, "missing")


def test_the_labels_that_a_place_names_tell_application_and_variant() -> None:
    request = spans(otlp_span(CHAT | {"team.app": "desk"}), service__name="shop", arm="b")
    found = only(request, application_label="team.app", variant_label="arm")
    assert (found.application, found.variant) == ("desk", "b")
    unnamed = spans(otlp_span(CHAT), service__name="unknown_service:python")
    assert (only(unnamed).application, only(unnamed).variant) == ("", "")


def test_where_one_side_of_the_tokens_is_not_told_it_is_the_rest_of_the_total() -> None:
    def tokens(**told: int) -> tuple[int | None, int | None]:
        found = only(spans(otlp_span(CHAT | {f"gen_ai.usage.{name}": value for name, value in told.items()})))
        return found.input_tokens, found.output_tokens

    assert tokens(total_tokens=22, input_tokens=14) == (14, 8)
    assert tokens(total_tokens=22, output_tokens=8) == (14, 8)
    assert tokens(total_tokens=22) == (None, None)
    assert tokens(total_tokens=5, input_tokens=14) == (14, None)
    assert tokens(input_tokens=-1, output_tokens=0) == (None, 0)


def test_a_failed_call_tells_what_went_wrong() -> None:
    failed = {"code": 2, "message": "no"}
    assert only(spans(otlp_span(CHAT | {"error.type": "timeout"}, status=failed))).error_type == "timeout"
    raised = [("exception", 1.0, {"exception.type": "openai.BadRequestError"})]
    assert only(spans(otlp_span(CHAT, status=failed, events=raised))).error_type == "openai.BadRequestError"
    assert only(spans(otlp_span(CHAT, status={"code": "STATUS_CODE_ERROR"}))).error_type == "ERROR"
    assert only(spans(otlp_span(CHAT, events=raised))).error_type is None  # it was handled


def test_a_text_that_the_sdk_cut_is_kept_as_far_as_it_goes_and_marked() -> None:
    cut = json.dumps(ANSWERED)[: json.dumps(ANSWERED).index("ris.") + 2]
    found = only(spans(otlp_span(CHAT | {"gen_ai.output.messages": cut})))
    assert (found.texts.output, found.content_state) == ("Pari", "truncated")
    dropped = only(spans(otlp_span(CHAT, droppedAttributesCount=3)))
    assert (dropped.texts.output, dropped.content_state) == ("Paris.", "truncated")


@pytest.mark.parametrize(
    "text",
    ["[INST] Hi", "{name} asks", "[", "{", "{}", "null", '{"a": 1}', '[{"type": "circle"}]', '{"question": "?"}'],
)
def test_a_text_that_is_json_or_looks_like_it_stays_a_whole_text(text: str) -> None:
    numbered = {"llm.request.type": "chat", "gen_ai.prompt.0.content": text, "gen_ai.completion.0.content": text}
    whole = {"gen_ai.operation.name": "text_completion", "gen_ai.prompt": text, "gen_ai.completion": text}
    raw = {"openinference.span.kind": "LLM", "input.value": text, "output.value": text}
    for told in (numbered, whole, raw):
        found = only(spans(otlp_span(told)))
        assert (found.texts, found.content_state) == (Texts(input=text, output=text), "full")


roles = st.sampled_from(["system", "user", "assistant", "tool"])
turns = st.lists(st.tuples(roles, st.text('abc {}[]"\\\n0', min_size=1)), min_size=1, max_size=12)


@given(turns, st.text('abc {}[]"\\\n0', min_size=1))
def test_a_conversation_reads_the_same_in_every_vocabulary(said: list[tuple[str, str]], answer: str) -> None:
    def parts(role: str, text: str) -> dict[str, Any]:
        return {"role": role, "parts": [{"type": "text", "content": text}]}

    numbered = {"llm.request.type": "chat", "gen_ai.completion.0.content": answer}
    for number, (role, text) in enumerate(said):
        numbered |= {f"gen_ai.prompt.{number}.role": role, f"gen_ai.prompt.{number}.content": text}
    whole = {
        "gen_ai.operation.name": "chat",
        "gen_ai.input.messages": json.dumps([parts(*each) for each in said]),
        "gen_ai.output.messages": [parts("assistant", answer)],
    }
    inferred = {
        "openinference.span.kind": "LLM",
        **openinference("input_messages", said),
        **openinference("output_messages", [("assistant", answer)]),
    }
    told = {"gen_ai.operation.name": "chat", "gen_ai.system": "openai"}
    logs = [otlp_event(f"gen_ai.{role}.message", {}, body={"content": text}) for role, text in said]
    logs.append(otlp_event("gen_ai.choice", {}, body={"index": 0, "message": {"content": answer}}))
    readings = [only(spans(otlp_span(each))).texts for each in (whole, inferred, numbered)]
    readings.append(only(spans(otlp_span(told)), events(*logs)).texts)
    assert len(set(readings)) == 1
    assert readings[0].output == answer


names = st.sampled_from(
    [
        *CHAT,
        "gen_ai.prompt",
        "gen_ai.prompt.0.content",
        "gen_ai.prompt.0.content.1",
        "gen_ai.completion.0.tool_calls.0.name",
        "gen_ai.system_instructions",
        "gen_ai.response.finish_reasons",
        "gen_ai.usage.input_tokens",
        "gen_ai.response.time_to_first_chunk",
        "openinference.span.kind",
        "llm.input_messages.0.message.contents.0.message_content",
        "llm.output_messages.0.message",
        "input.value",
        "output.value",
        "metadata",
    ]
)
keys = st.sampled_from(["role", "parts", "content", "type", "text", "tool_calls", "function", "message", "arguments"])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["tool_call", "LLM"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(names, values | values.map(json.dumps), max_size=6), values)
def test_whatever_attributes_hold_is_an_interaction_with_texts_or_none(told: dict[str, Any], body: Any) -> None:
    span = {"name": "s", "trace_id": "1" * 32, "span_id": "2" * 16, "start": AT.isoformat(), "attributes": told}
    choice = {"event_name": "gen_ai.choice", "trace_id": "1" * 32, "span_id": "2" * 16, "body": {"message": body}}
    read = [each for each in found_in(span, choice, body) if isinstance(each, Interaction)]
    assert len(read) <= 1
    for found in read:
        assert (found.native_id, found.timestamp) == (f"{'1' * 32}:{'2' * 16}", AT)
        assert [each.encode().decode() for each in astuple(found.texts)] == list(astuple(found.texts))
        assert json.loads(json.dumps(found.details, allow_nan=False)) == found.details
