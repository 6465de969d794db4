"""Bodies of Claude, of chats in OpenAI's form and of deployed models in Vertex AI's request-response log."""

import json
from typing import Any

import pytest

from optiinfra_pipelines.llm.interaction import Interaction, Texts
from optiinfra_pipelines_tests.llm.test_vertex import LOGGED, interaction

CLAUDE = "publishers/anthropic/models/claude-sonnet-4-5"
ASKED_CLAUDE: dict[str, Any] = {
    "anthropic_version": "vertex-2023-10-16",
    "max_tokens": 512,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Where?", "signature": "c2ln"},
                {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Bern"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "21 degrees"}]},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}},
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Bern is sunny."}},
                {"type": "text", "text": "And tomorrow?"},
            ],
        },
    ],
}
ANSWER_CLAUDE: dict[str, Any] = {
    "id": "msg_vrtx_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "22 degrees."}],
    "stop_reason": "end_turn",
    "usage": {
        "input_tokens": 12,
        "cache_creation_input_tokens": 30,
        "cache_read_input_tokens": 100,
        "output_tokens": 25,
    },
}
EVENTS_CLAUDE: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": ANSWER_CLAUDE
        | {"content": [], "stop_reason": None, "usage": ANSWER_CLAUDE["usage"] | {"output_tokens": 1}},
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "22 "}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "degrees."}},
    {"type": "content_block_stop", "index": 1},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 25},
    },
    {"type": "message_stop"},
]


@pytest.mark.parametrize(
    "response",
    [
        ANSWER_CLAUDE,
        EVENTS_CLAUDE,
        "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in EVENTS_CLAUDE),
    ],
)
def test_an_answer_of_claude_is_read_whole_or_streamed(response: Any) -> None:
    endpoint = f"projects/acme/locations/us-east5/{CLAUDE}"
    assert interaction(ASKED_CLAUDE, response, endpoint=endpoint, model=CLAUDE, api_method="RawPredict") == Interaction(
        native_id="5374205265901353984",
        timestamp=LOGGED,
        model_name="claude-sonnet-4-5-20250929",
        texts=Texts(
            system="Be brief.",
            context='user: Weather?\n\nassistant: [tool_call] weather({"city": "Bern"})\n\ntool: 21 degrees',
            input="[image]\n\nBern is sunny.\n\nAnd tomorrow?",
            output="22 degrees.",
        ),
        operation="chat",
        account_id="acme",
        region="us-east5",
        input_tokens=142,
        output_tokens=25,
        cached_tokens=100,
        latency_ms=840.5,
        finish_reason="stop",
        details={"api_method": "RawPredict", "response_id": "msg_vrtx_1"},
    )


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
    ],
)
def test_stop_reasons_of_claude_are_told_in_the_words_of_opentelemetry(reason: str, word: str) -> None:
    assert interaction(ASKED_CLAUDE, ANSWER_CLAUDE | {"stop_reason": reason}).finish_reason == word


def test_a_tool_that_claude_calls_in_a_stream_is_its_answer() -> None:
    tool = {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}
    events = [
        {"type": "message_start", "message": {"type": "message", "model": "claude", "usage": {"input_tokens": 5}}},
        {"type": "content_block_start", "index": 0, "content_block": tool},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"city":'}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": ' "Bern"}'}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
    ]
    found = interaction(ASKED_CLAUDE, events)
    assert (found.texts.output, found.finish_reason) == ('[tool_call] weather({"city": "Bern"})', "tool_calls")
    assert (found.input_tokens, found.output_tokens) == (5, 9)


ASKED_OPENAI: dict[str, Any] = {
    "model": "meta/llama-3.3-70b-instruct-maas",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
    ],
    "metadata": {"app": "greeter", "conversation_id": "c-1"},
}
ANSWER_OPENAI: dict[str, Any] = {
    "id": "chat-1",
    "object": "chat.completion",
    "model": "meta/llama-3.3-70b-instruct-maas",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi there"}, "finish_reason": "length"}],
    "usage": {
        "prompt_tokens": 20,
        "completion_tokens": 8,
        "total_tokens": 28,
        "prompt_tokens_details": {"cached_tokens": 16},
        "completion_tokens_details": {"reasoning_tokens": 3},
    },
}
CHUNKS_OPENAI = [
    ANSWER_OPENAI
    | {
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": reason}],
        "usage": use,
    }
    for text, reason, use in (("Hi", None, None), (" there", "length", None), ("", None, ANSWER_OPENAI["usage"]))
]


@pytest.mark.parametrize("response", [ANSWER_OPENAI, CHUNKS_OPENAI, json.dumps(CHUNKS_OPENAI)])
def test_a_chat_in_openais_form_is_read_whole_or_streamed(response: Any) -> None:
    endpoint = "projects/acme/locations/us-central1/endpoints/openapi"
    assert interaction(ASKED_OPENAI, response, endpoint=endpoint, model=None, api_method=None) == Interaction(
        native_id="5374205265901353984",
        timestamp=LOGGED,
        model_name="meta/llama-3.3-70b-instruct-maas",
        texts=Texts(system="Be brief.", input="Hello", output="Hi there"),
        application="greeter",
        conversation_id="c-1",
        operation="chat",
        account_id="acme",
        region="us-central1",
        input_tokens=20,
        output_tokens=8,
        cached_tokens=16,
        reasoning_tokens=3,
        latency_ms=840.5,
        finish_reason="length",
        details={"response_id": "chat-1"},
    )


def test_a_deployed_model_has_its_bodies_in_payloads() -> None:
    asked = {"instances": [{"@requestFormat": "chatCompletions", **ASKED_OPENAI}]}
    bodies = {
        "request_payload": [json.dumps(asked)],
        "response_payload": [json.dumps({"predictions": ANSWER_OPENAI})],
        "deployed_model_id": "8217365",
    }
    found = interaction(None, None, endpoint="projects/1/locations/us-central1/endpoints/2", model=None, **bodies)
    assert found.texts == Texts(system="Be brief.", input="Hello", output="Hi there")
    assert found.model_name == "meta/llama-3.3-70b-instruct-maas"
    assert found.details["deployed_model_id"] == "8217365"
    plain = bodies | {"request_payload": [json.dumps(ASKED_OPENAI)], "response_payload": [json.dumps(ANSWER_OPENAI)]}
    assert interaction(None, None, **plain).texts == found.texts
