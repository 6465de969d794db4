"""Spans of real instrumentations: an OpenAI client asks a model on loopback, and what each of three instrumentations
exports of that is read from files. Nobody here writes attributes by hand."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openai
import pytest
from google.protobuf.json_format import MessageToDict
from openinference.instrumentation.openai import OpenAIInstrumentor as OpenInference
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor as GenAI
from opentelemetry.instrumentation.openai import OpenAIInstrumentor as OpenLLMetry
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from optiinfra_pipelines.llm.interaction import Interaction, Texts
from optiinfra_pipelines.windows import Window
from optiinfra_pipelines_tests.llm.traces import interactions, lines, read_folder

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi"},
    {"role": "user", "content": "Capital of France?"},
]
SPOKEN = Texts("Be brief.", "user: Hello\n\nassistant: Hi", "Capital of France?", "Paris, said the model.")
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call-1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
USAGE = {
    "prompt_tokens": 14,
    "completion_tokens": 8,
    "total_tokens": 22,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
OF_ALL = {"id": "chatcmpl-1", "created": 1, "model": "m-1-0806"}


@Request.application
def model(request: Request) -> Response:
    """Answers as OpenAI's API does: whole, as a stream, with a call of a tool, or with an error for the model `bad`."""
    asked = json.loads(request.data)
    if asked["model"] == "bad":
        return Response(json.dumps({"error": {"message": "no"}}), status=400, content_type="application/json")
    if asked.get("stream"):
        return Response(_stream(), content_type="text/event-stream")
    message: dict[str, Any] = {"role": "assistant", "content": "Paris, said the model."}
    if asked.get("tools"):
        message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    choice = {"index": 0, "finish_reason": "tool_calls" if asked.get("tools") else "stop", "message": message}
    answer = OF_ALL | {"object": "chat.completion", "usage": USAGE, "choices": [choice]}
    return Response(json.dumps(answer), content_type="application/json")


def _stream() -> Iterator[str]:
    for content, finish in (("Paris, said ", None), ("the model.", None), (None, "stop")):
        choice = {"index": 0, "delta": {"role": "assistant", "content": content}, "finish_reason": finish}
        yield _chunk(choices=[choice])
    yield _chunk(choices=[], usage=USAGE)
    yield "data: [DONE]\n\n"


def _chunk(**fields: Any) -> str:
    return f"data: {json.dumps(OF_ALL | {'object': 'chat.completion.chunk'} | fields)}\n\n"


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    server = make_server("127.0.0.1", 0, model, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with openai.OpenAI(
            api_key="none", base_url=f"http://127.0.0.1:{server.server_port}/v1", max_retries=0
        ) as opened:
            yield opened
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Exported:
    """What an instrumented application exports, as OTLP/JSON in a folder."""

    def __init__(self, folder: Path) -> None:
        resource = Resource.create({"service.name": "shop", "app": "helpdesk"})
        self.folder, self.began = folder, datetime.now(UTC)
        self._spans, self._logs = InMemorySpanExporter(), InMemoryLogRecordExporter()
        self.tracers, self.loggers = TracerProvider(resource=resource), LoggerProvider(resource=resource)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.loggers.add_log_record_processor(SimpleLogRecordProcessor(self._logs))

    def read(self) -> list[Interaction]:
        requests = [MessageToDict(encode_spans(self._spans.get_finished_spans()))]
        if logs := self._logs.get_finished_logs():
            requests.append(MessageToDict(encode_logs(logs)))
        (self.folder / "telemetry.jsonl").write_text(lines(*requests))
        day = Window(self.began - timedelta(seconds=1), datetime.now(UTC) + timedelta(seconds=1))
        return interactions(read_folder(self.folder, day))


@pytest.fixture
def exported(tmp_path: Path) -> Exported:
    return Exported(tmp_path)


@pytest.fixture
def genai(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """OpenTelemetry's own instrumentation, with the content of messages where it is told to put it."""
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental")
    instrumentation = GenAI()

    def instrument(content: str) -> None:
        monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", content)
        monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_EMIT_EVENT", "true" if "event" in content else "false")
        instrumentation.instrument(tracer_provider=exported.tracers, logger_provider=exported.loggers)

    yield instrument
    instrumentation.uninstrument()


@pytest.fixture
def openinference(exported: Exported) -> Iterator[None]:
    instrumentation = OpenInference()
    instrumentation.instrument(tracer_provider=exported.tracers)
    yield
    instrumentation.uninstrument()


@pytest.fixture
def openllmetry(exported: Exported) -> Iterator[None]:
    instrumentation = OpenLLMetry()
    instrumentation.instrument(tracer_provider=exported.tracers, logger_provider=exported.loggers)
    yield
    instrumentation.uninstrument()


def converse(client: openai.OpenAI) -> None:
    """A whole answer, a streamed one, and a refusal, in this order."""
    turns: Any = TURNS
    client.chat.completions.create(model="m-1", messages=turns)
    stream = client.chat.completions.create(
        model="m-1", messages=turns, stream=True, stream_options={"include_usage": True}
    )
    assert "".join(each.choices[0].delta.content or "" for each in stream if each.choices) == SPOKEN.output
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="bad", messages=turns)


def use_a_tool(client: openai.OpenAI) -> None:
    messages: Any = [
        {"role": "user", "content": "Weather where I am?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [CALL | {"function": {"name": "where", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "call-1", "content": "Paris"},
    ]
    tools: Any = [TOOL]
    client.chat.completions.create(model="m-1", messages=messages, tools=tools)


def check(told: Iterable[Interaction], reasoning_streamed: int | None = 3) -> None:
    """Texts, tokens, times and names of what `converse` did."""
    whole, streamed, refused = told
    for each in (whole, streamed):
        assert (each.texts, each.content_state) == (SPOKEN, "full")
        assert (each.input_tokens, each.output_tokens, each.cached_tokens) == (14, 8, 4)
        assert (each.model_name, each.finish_reason, each.error_type) == ("m-1-0806", "stop", None)
    assert (whole.reasoning_tokens, streamed.reasoning_tokens) == (3, reasoning_streamed)
    assert streamed.time_to_first_token_ms is not None
    assert streamed.latency_ms is not None
    assert 0 < streamed.time_to_first_token_ms <= streamed.latency_ms < 60_000
    assert (refused.texts.input, refused.texts.output, refused.model_name) == ("Capital of France?", "", "bad")
    assert (refused.error_type or "").endswith("BadRequestError")
    assert {(each.application, each.operation) for each in told} == {("helpdesk", "chat")}
    assert len({each.native_id for each in told}) == 3


@pytest.mark.parametrize("content", ["span_only", "event_only", "span_and_event"])
def test_opentelemetrys_own_instrumentation_is_read_wherever_it_puts_messages(
    content: str, client: openai.OpenAI, genai: Callable[[str], None], exported: Exported
) -> None:
    genai(content)
    converse(client)
    check(exported.read())


def test_openinferences_instrumentation_is_read(client: openai.OpenAI, openinference: None, exported: Exported) -> None:
    converse(client)
    check(exported.read())


def test_openllmetrys_instrumentation_is_read(client: openai.OpenAI, openllmetry: None, exported: Exported) -> None:
    converse(client)
    check(exported.read(), reasoning_streamed=None)  # it does not say it of a stream


def test_without_messages_opentelemetrys_instrumentation_tells_tokens_and_times_alone(
    client: openai.OpenAI, genai: Callable[[str], None], exported: Exported
) -> None:
    genai("no_content")
    converse(client)
    told = exported.read()
    assert [each.content_state for each in told] == ["missing"] * 3
    assert [each.input_tokens for each in told] == [14, 14, None]


@pytest.mark.parametrize("instrumentation", ["genai", "openinference", "openllmetry"])
def test_calls_of_tools_read_the_same_by_every_instrumentation(
    instrumentation: str, client: openai.OpenAI, exported: Exported, request: pytest.FixtureRequest
) -> None:
    instrument = request.getfixturevalue(instrumentation)
    if instrument is not None:
        instrument("span_only")
    use_a_tool(client)
    (told,) = exported.read()
    assert told.texts == Texts(
        context="assistant: [tool call where({})]\n\ntool: Paris",
        input="Weather where I am?",
        output='[tool call weather({"city": "Paris"})]',
    )
    assert (told.finish_reason or "").removesuffix("s") == "tool_call"
