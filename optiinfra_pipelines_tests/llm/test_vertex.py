"""Rows of Vertex AI's request-response log, in the shapes that its documents and samples show, made interactions."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optiinfra_pipelines.llm.interaction import Interaction, Texts, Unreadable
from optiinfra_pipelines.llm.vertex import LATENESS, logged_at, parse
from optiinfra_pipelines.places import LlmSource

PLACE = LlmSource(location="bigquery://acme/logs/gemini", format="vertex")
LOGGED = datetime(2026, 8, 1, 10, 0, 22, 248000, tzinfo=UTC)
ASKED = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
GEMINI = "publishers/google/models/gemini-2.5-flash"


def row(request: Any = ASKED, response: Any = None, **columns: Any) -> dict[str, Any]:
    """A row of the table; `columns` change others than the bodies."""
    return {
        "endpoint": f"projects/acme/locations/europe-west4/{GEMINI}",
        "deployed_model_id": None,
        "logging_time": LOGGED,
        "request_id": 5374205265901353984,
        "request_payload": [],
        "response_payload": [],
        "model": GEMINI,
        "model_version": "default",
        "api_method": "GenerateContent",
        "full_request": request,
        "full_response": response,
        "metadata": {"request_latency": 840.5},
    } | columns


def answer(*parts: Any, **fields: Any) -> dict[str, Any]:
    """An answer of Gemini with one candidate."""
    return {"candidates": [{"content": {"role": "model", "parts": list(parts)}} | fields]}


def interaction(request: Any = ASKED, response: Any = None, **columns: Any) -> Interaction:
    found = parse(row(request, response, **columns), PLACE)
    assert isinstance(found, Interaction)
    return found


def test_the_sample_of_the_wire_is_exactly_this_interaction(data: Path) -> None:
    path = data / "llm" / "wire" / "vertex_request_response_bq.jsonl"
    if not path.exists():
        pytest.skip(f"the sample is not at {path}; set OPTIINFRA_DATA to the shared data")
    assert [parse(json.loads(line), PLACE) for line in path.read_text().splitlines()] == [
        Interaction(
            native_id="5374205265901353984",
            timestamp=datetime(2026, 8, 1, 10, 0, 11, 34753, tzinfo=UTC),
            model_name="gemini-2.5-flash",
            texts=Texts(system="", context="", input="Summarise: the sky is blue.", output="The sky is blue."),
            truncated=False,
            application="summariser",
            application_name="",
            variant="",
            conversation_id=None,
            operation="generate_content",
            account_id="p",
            region="us-central1",
            input_tokens=9,
            output_tokens=45,
            cached_tokens=None,
            reasoning_tokens=40,
            latency_ms=1225.994,
            time_to_first_token_ms=None,
            finish_reason="stop",
            error_type=None,
            trace_id=None,
            span_id=None,
            details={"api_method": "GenerateContent", "response_id": "r-1", "traffic_type": "ON_DEMAND"},
        )
    ]


CAMEL = {
    "candidates": [
        {"content": {"role": "model", "parts": [{"text": "Hi"}]}, "finishReason": "MAX_TOKENS", "avgLogprobs": -3.6}
    ],
    "createTime": "2026-08-01T10:00:21.500000Z",
    "modelVersion": "gemini-2.5-pro",
    "responseId": "y0S_",
    "usageMetadata": {
        "promptTokenCount": 3,
        "candidatesTokenCount": 29,
        "thoughtsTokenCount": 901,
        "totalTokenCount": 933,
        "trafficType": "ON_DEMAND",
    },
}
SNAKE = json.loads(re.sub(r"(?<=[a-z])[A-Z](?=\w*\":)", lambda capital: f"_{capital[0].lower()}", json.dumps(CAMEL)))
SYSTEM = {"parts": [{"text": "Be brief."}]}


@pytest.mark.parametrize("written", [lambda body: body, json.dumps, lambda body: json.dumps(json.dumps(body))])
@pytest.mark.parametrize(("system", "response"), [("system_instruction", SNAKE), ("systemInstruction", CAMEL)])
def test_both_ways_to_write_names_and_json_as_text_read_the_same(written: Any, system: str, response: Any) -> None:
    asked = {**ASKED, system: SYSTEM, "labels": {"app": "greeter", "variant": "b"}}
    found = interaction(written(asked), written(response), metadata=written({"request_latency": 748.25}))
    assert found.texts == Texts(system="Be brief.", input="Hello", output="Hi")
    assert (found.application, found.variant) == ("greeter", "b")
    assert (found.model_name, found.finish_reason, found.latency_ms) == ("gemini-2.5-pro", "length", 748.25)
    assert (found.input_tokens, found.output_tokens, found.reasoning_tokens) == (3, 930, 901)
    assert found.timestamp == datetime(2026, 8, 1, 10, 0, 21, 500000, tzinfo=UTC)
    assert found.details == {"api_method": "GenerateContent", "response_id": "y0S_", "traffic_type": "ON_DEMAND"}


def test_other_labels_name_the_application_where_the_place_says_so() -> None:
    place = PLACE.model_copy(update={"application_label": "team", "variant_label": "arm"})
    found = parse(row(ASKED | {"labels": {"app": "no", "team": "yes", "arm": "b", "n": 1}}), place)
    assert isinstance(found, Interaction)
    assert (found.application, found.variant, found.conversation_id) == ("yes", "b", None)


def test_the_conversation_is_a_label_of_that_name() -> None:
    assert interaction(ASKED | {"labels": {"conversation_id": "c-1"}}).conversation_id == "c-1"


def test_earlier_turns_are_context_and_what_is_no_text_is_named() -> None:
    request = {
        "contents": [
            {"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": "iVBO"}}, {"text": "What?"}]},
            {"role": "model", "parts": [{"text": "A cat.", "thoughtSignature": "c2ln"}]},
            {
                "role": "user",
                "parts": [
                    {"file_data": {"mime_type": "video/mp4", "file_uri": "gs://acme/a.mp4"}},
                    {"fileData": {"mimeType": "application/pdf", "fileUri": "gs://acme/a.pdf"}},
                    {"inline_data": {"mime_type": "audio/wav", "data": "UklG"}},
                    {"text": "And these?"},
                ],
            },
        ]
    }
    assert interaction(request).texts == Texts(
        context="user: [image]\n\nWhat?\n\nassistant: A cat.", input="[video]\n\n[file]\n\n[audio]\n\nAnd these?"
    )


def test_calls_of_functions_and_their_answers_are_told_and_the_question_stays_the_input() -> None:
    call = {"functionCall": {"name": "weather", "args": {"city": "Zürich"}}}
    request = {
        "contents": [
            {"role": "user", "parts": [{"text": "Weather in Zürich?"}]},
            {"role": "model", "parts": [call]},
            {
                "role": "user",
                "parts": [{"functionResponse": {"name": "weather", "response": {"celsius": 21}}}],
            },
        ]
    }
    done = interaction(request, answer({"text": "21 degrees."}, finishReason="STOP"))
    assert done.texts == Texts(
        context='assistant: [tool_call] weather({"city": "Zürich"})\n\ntool: {"celsius": 21}',
        input="Weather in Zürich?",
        output="21 degrees.",
    )
    assert done.finish_reason == "stop"
    step = interaction({"contents": request["contents"][:1]}, answer(call, finishReason="STOP"))
    assert (step.texts.output, step.finish_reason) == ('[tool_call] weather({"city": "Zürich"})', "tool_calls")


def test_thoughts_are_left_out_and_the_first_of_several_candidates_counts() -> None:
    response = {
        "candidates": [
            {
                "content": {"parts": [{"text": "Hm.", "thought": True}, {"text": "One"}, {"text": " two."}]},
                "finishReason": "STOP",
            },
            {"index": 1, "content": {"parts": [{"text": "Another."}]}, "finishReason": "SAFETY"},
        ]
    }
    found = interaction(ASKED, response)
    assert (found.texts.output, found.finish_reason) == ("One two.", "stop")


def test_code_that_the_model_ran_and_what_it_printed_are_part_of_the_answer() -> None:
    parts = [
        {"executableCode": {"language": "PYTHON", "code": "print(6 * 7)"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "42"}},
        {"text": "It is 42."},
    ]
    assert interaction(ASKED, answer(*parts)).texts.output == "print(6 * 7)\n\n42\n\nIt is 42."


def test_documents_that_an_answer_was_grounded_on_are_context() -> None:
    grounding = {
        "groundingChunks": [
            {"retrievedContext": {"uri": "gs://acme/1", "title": "Sky", "text": "The sky is blue."}},
            {"web": {"uri": "https://example.org", "title": "Example"}},
        ]
    }
    found = interaction(ASKED, answer({"text": "Blue."}, groundingMetadata=grounding))
    assert found.texts.context == "document: The sky is blue."


STREAM = [
    {
        "candidates": [{"content": {"role": "model", "parts": [{"text": "The sky"}]}}],
        "usageMetadata": {"trafficType": "ON_DEMAND"},
        "modelVersion": "gemini-2.5-flash",
        "createTime": "2026-08-01T10:00:20Z",
        "responseId": "r-2",
    },
    {"candidates": [{"content": {"role": "model", "parts": [{"text": " is blue."}]}}], "responseId": "r-2"},
    {
        "candidates": [
            {
                "content": {"role": "model", "parts": [{"text": ""}]},
                "finishReason": "STOP",
                "safetyRatings": [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}],
            }
        ],
        "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 5, "trafficType": "ON_DEMAND"},
        "createTime": "2026-08-01T10:00:20Z",
    },
]


@pytest.mark.parametrize(
    "streamed",
    [
        STREAM,
        json.dumps(STREAM),
        [json.dumps(chunk) for chunk in STREAM],
        "".join(f"data: {json.dumps(chunk)}\r\n\r\n" for chunk in STREAM),
    ],
)
def test_the_chunks_of_a_stream_are_one_answer(streamed: Any) -> None:
    found = interaction(ASKED, streamed, api_method="StreamGenerateContent")
    assert (found.texts.output, found.finish_reason, found.model_name) == (
        "The sky is blue.",
        "stop",
        "gemini-2.5-flash",
    )
    assert (found.input_tokens, found.output_tokens, found.reasoning_tokens) == (9, 5, None)
    assert found.timestamp == datetime(2026, 8, 1, 10, 0, 20, tzinfo=UTC)
    assert found.details == {
        "api_method": "StreamGenerateContent",
        "response_id": "r-2",
        "traffic_type": "ON_DEMAND",
        "safety_ratings": [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}],
    }


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        *((each, "content_filter") for each in ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII")),
        ("MALFORMED_FUNCTION_CALL", "malformed_function_call"),
        ("OTHER", "other"),
        ("FINISH_REASON_UNSPECIFIED", None),
        (None, None),
    ],
)
def test_finish_reasons_are_told_in_the_words_of_opentelemetry(reason: str | None, word: str | None) -> None:
    assert interaction(ASKED, answer({"text": "Hi"}, finishReason=reason)).finish_reason == word


def test_an_answer_that_safety_stopped_has_its_ratings() -> None:
    ratings = [
        {
            "category": "HARM_CATEGORY_HATE_SPEECH",
            "probability": "HIGH",
            "probabilityScore": 0.94,
            "severity": "HARM_SEVERITY_HIGH",
            "severityScore": 0.81,
            "blocked": True,
        }
    ]
    found = interaction(ASKED, {"candidates": [{"finishReason": "SAFETY", "safetyRatings": ratings}]})
    assert (found.finish_reason, found.content_state) == ("content_filter", "missing")
    assert found.details["safety_ratings"] == ratings


def test_a_blocked_prompt_has_no_answer_and_says_why() -> None:
    ratings = [{"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "HIGH", "blocked": True}]
    feedback = {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "...", "safetyRatings": ratings}
    found = interaction(ASKED, {"promptFeedback": feedback, "usageMetadata": {"promptTokenCount": 4}})
    assert (found.finish_reason, found.content_state, found.error_type) == ("content_filter", "missing", None)
    assert (found.input_tokens, found.output_tokens) == (4, None)
    assert found.details == {
        "api_method": "GenerateContent",
        "block_reason": "PROHIBITED_CONTENT",
        "prompt_safety_ratings": ratings,
    }


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (
            {"error": {"code": 429, "message": "Resource exhausted.", "status": "RESOURCE_EXHAUSTED"}},
            "RESOURCE_EXHAUSTED",
        ),
        ([{"error": {"code": 400, "message": "...", "status": "INVALID_ARGUMENT"}}], "INVALID_ARGUMENT"),
        ({"error": {"code": 503, "message": "..."}}, "503"),
        ({"code": 8, "message": "Resource exhausted."}, "8"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "overloaded_error"),
    ],
)
def test_a_request_that_failed_has_the_code_of_its_error_and_not_its_message(response: Any, code: str) -> None:
    found = interaction(ASKED, response)
    assert (found.error_type, found.texts.input, found.content_state) == (code, "Hello", "missing")
    assert found.details == {"api_method": "GenerateContent"}


def test_cached_tokens_and_those_that_tools_put_into_the_prompt_are_input() -> None:
    usage = {
        "promptTokenCount": 100,
        "cachedContentTokenCount": 80,
        "toolUsePromptTokenCount": 20,
        "candidatesTokenCount": "7",
        "totalTokenCount": 127,
    }
    found = interaction(ASKED, answer({"text": "Hi"}) | {"usageMetadata": usage})
    assert (found.input_tokens, found.cached_tokens, found.output_tokens) == (120, 80, 7)
    assert found.reasoning_tokens is None


@pytest.mark.parametrize(
    ("created", "timestamp"),
    [
        ("2026-08-01T10:00:11.034753Z", datetime(2026, 8, 1, 10, 0, 11, 34753, tzinfo=UTC)),
        ("2026-08-01T12:00:11+02:00", datetime(2026, 8, 1, 10, 0, 11, tzinfo=UTC)),
        ((LOGGED - LATENESS).isoformat(), LOGGED - LATENESS),
        ((LOGGED - LATENESS - timedelta(microseconds=1)).isoformat(), LOGGED),
        ((LOGGED + timedelta(microseconds=1)).isoformat(), LOGGED),
        ("2026-08-01T10:00:11", LOGGED),
        ("yesterday", LOGGED),
        (None, LOGGED),
    ],
)
def test_the_time_is_when_the_request_was_made_or_else_logged(created: Any, timestamp: datetime) -> None:
    found = interaction(ASKED, answer({"text": "Hi"}) | {"createTime": created})
    assert (found.timestamp, found.timestamp.tzinfo) == (timestamp, UTC)


@pytest.mark.parametrize(
    ("columns", "model", "account", "region"),
    [
        ({}, "gemini-2.5-flash", "acme", "europe-west4"),
        ({"model": "publishers/google/models/gemini-2.5-pro"}, "gemini-2.5-pro", "acme", "europe-west4"),
        ({"model": "gemini-2.5-pro"}, "gemini-2.5-flash", "acme", "europe-west4"),
        ({"endpoint": "", "model": "gemini-2.5-pro"}, "gemini-2.5-pro", "", None),
        ({"endpoint": "projects/1/locations/global/endpoints/2", "model": None}, "unknown", "1", "global"),
        (
            {
                "endpoint": None,
                "full_request": ASKED | {"model": f"projects/elsewhere/locations/us-central1/{GEMINI}"},
            },
            "gemini-2.5-flash",
            "elsewhere",
            "us-central1",
        ),
    ],
)
def test_project_location_and_model_come_from_whichever_path_has_them(
    columns: dict[str, Any], model: str, account: str, region: str | None
) -> None:
    found = interaction(**columns)
    assert (found.model_name, found.account_id, found.region) == (model, account, region)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"request_id": None}, "request_id is missing"),
        ({"logging_time": None}, "logging_time is no time with a zone"),
        ({"logging_time": datetime(2026, 8, 1)}, "logging_time is no time with a zone"),
        ({"full_request": None}, "the request holds neither contents nor messages"),
        ({"full_request": {"instances": [{"x": 1.5}]}}, "the request holds neither contents nor messages"),
        ({"full_request": '{"contents": ['}, "a body is no JSON that can be read"),
        ({"full_response": "upstream error"}, "a body is no JSON that can be read"),
        ({"full_request": None, "request_payload": ["What is AI?"]}, "a body is no JSON that can be read"),
        ({"full_response": "[" * 5000 + "]" * 5000}, "a body is no JSON that can be read"),
    ],
)
def test_a_row_that_cannot_be_read_says_why_without_its_values(columns: dict[str, Any], reason: str) -> None:
    given_row = row(**columns)
    assert parse(given_row, PLACE) == Unreadable(given_row, reason)


@pytest.mark.parametrize("value", [5374205265901353984, "5374205265901353984", "5374205265901353984.000000000"])
def test_the_id_is_the_request_id_in_all_its_digits(value: Any) -> None:
    assert interaction(request_id=value).native_id == "5374205265901353984"


@pytest.mark.parametrize("latency", [-1, None, "840", True, float("nan"), 10**400])
def test_a_latency_that_is_none_is_left_out(latency: Any) -> None:
    assert interaction(metadata={"request_latency": latency}).latency_ms is None
    assert interaction(metadata=None).latency_ms is None


def test_halves_of_surrogate_pairs_do_not_reach_the_warehouse() -> None:
    found = interaction('{"contents": [{"parts": [{"text": "a\\ud83d"}]}], "labels": {"app": "x\\udc00"}}')
    assert found.texts.input.encode() == b"a?"
    assert found.application == "x?"


WORDS = """contents parts text role content candidates index finishReason usageMetadata promptTokenCount error code
status messages anthropic_version type message delta content_block usage model choices tool_calls function_call args
labels app systemInstruction createTime promptFeedback groundingMetadata groundingChunks"""
NAMES = st.sampled_from(WORDS.split())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
BODIES = st.dictionaries(NAMES, JSON, max_size=5)


@given(BODIES | st.none(), BODIES | st.lists(BODIES, max_size=3), JSON)
def test_any_json_is_an_interaction_or_has_a_reason(request_body: Any, response: Any, metadata: Any) -> None:
    found = parse(row(request_body, response, metadata=metadata), PLACE)
    if isinstance(found, Interaction):
        assert all(isinstance(text, str) for text in (found.texts.input, found.texts.output, found.model_name))
        assert timedelta(0) <= LOGGED - found.timestamp <= LATENESS
        json.dumps(found.details)
    else:
        assert found.reason


def test_when_a_row_was_logged_is_told_in_utc() -> None:
    assert logged_at({"logging_time": "2026-08-01 12:00:22.248+02"}) == LOGGED
    assert logged_at({}) is None
