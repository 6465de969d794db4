"""The planted interactions as each cloud's own records: Bedrock's invocation log, Vertex AI's request-response log,
Azure's rows of three tables, OpenTelemetry's spans. Pure; where records lie is in `interaction_logs.py`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID

from optiinfra_pipelines.sandbox.fleet import PLACES, account_of
from optiinfra_pipelines.sandbox.interactions import Planted

Record = dict[str, Any]

BEDROCK_INLINE = 100_000  # bytes of a body that Bedrock's log holds itself
AZURE_PIECE = 32_768  # bytes of messages that one row of API Management's log of language models holds
AZURE_BODY = 8_192  # bytes of a body that API Management's log of the gateway holds
_BEDROCK_REGION = PLACES["aws"][0]


def labels(planted: Planted) -> dict[str, str]:
    """What applications tell about a request, by the keys of places' default labels."""
    variant = {"variant": planted.variant} if planted.variant else {}
    return {"app": planted.application_id, **variant, "conversation_id": planted.conversation_id}


def _messages(planted: Planted) -> list[tuple[str, str]]:
    """Roles and texts of what was sent, the question last; none where no text is told."""
    return [*planted.turns, ("user", planted.question)] if planted.question else []


# Amazon Bedrock: https://docs.aws.amazon.com/bedrock/latest/userguide/model-invocation-logging.html


def bedrock_record(planted: Planted, prefix: str) -> tuple[Record, dict[str, Record]]:
    """The invocation's log record, and the bodies too large for it by the key of their own object below `prefix`."""
    account = account_of(planted.customer_id, "aws")
    record: Record = {
        "schemaType": "ModelInvocationLog",
        "schemaVersion": "1.0",
        "timestamp": f"{planted.timestamp:%Y-%m-%dT%H:%M:%SZ}",
        "accountId": account,
        "region": _BEDROCK_REGION,
        "requestId": str(planted.uuid),
        "operation": _BEDROCK_OPERATIONS[planted.form],
        "modelId": planted.model_name,
        "identity": {"arn": f"arn:aws:sts::{account}:assumed-role/{planted.application_id}/session"},
        "input": {"inputContentType": "application/json"},
    }
    if planted.form == "converse":
        record["requestMetadata"] = labels(planted)
    if planted.input_tokens is not None:
        record["input"]["inputTokenCount"] = planted.input_tokens
    large: dict[str, Record] = {}
    if planted.question:
        asked = _converse_request(planted) if planted.form == "converse" else _anthropic_request(planted)
        if len(json.dumps(asked)) > BEDROCK_INLINE:
            key = f"{prefix}/data/{planted.uuid}_input.json.gz"
            large[key] = asked
            record["input"]["inputBodyS3Path"] = f"s3://{log_bucket(planted.customer_id)}/{key}"
        else:
            record["input"]["inputBodyJson"] = asked
    if planted.error_type:
        return record | {"errorCode": planted.error_type}, large
    record["output"] = {"outputContentType": "application/json", "outputTokenCount": planted.output_tokens}
    if planted.answer:
        answered = {"converse": _converse_answer, "invoke": _anthropic_answer, "stream": _anthropic_events}
        record["output"]["outputBodyJson"] = answered[planted.form](planted)
    return record, large


def log_bucket(customer_id: str) -> str:
    """The bucket of a customer's invocation logs."""
    return f"{customer_id}-llm-logs"


_BEDROCK_OPERATIONS = {"converse": "Converse", "invoke": "InvokeModel", "stream": "InvokeModelWithResponseStream"}
_ANTHROPIC_REASONS = {"stop": "end_turn", "length": "max_tokens"}


def _converse_request(planted: Planted) -> Record:
    return {
        "messages": [{"role": role, "content": [{"text": text}]} for role, text in _messages(planted)],
        "system": [{"text": planted.system}],
        "inferenceConfig": {"maxTokens": 512},
    }


def _converse_answer(planted: Planted) -> Record:
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": planted.answer}]}},
        "stopReason": _ANTHROPIC_REASONS[planted.finish_reason or "stop"],
        "usage": {
            "inputTokens": planted.input_tokens,
            "outputTokens": planted.output_tokens,
            "totalTokens": (planted.input_tokens or 0) + (planted.output_tokens or 0),
        },
        "metrics": {"latencyMs": int(planted.latency_ms or 0)},
    }


def _anthropic_request(planted: Planted) -> Record:
    return {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 512,
        "system": planted.system,
        "messages": [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in _messages(planted)],
    }


def _anthropic_answer(planted: Planted) -> Record:
    return {
        "id": f"msg_bdrk_{planted.case}",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-20250514",
        "content": [{"type": "text", "text": planted.answer}],
        "stop_reason": _ANTHROPIC_REASONS[planted.finish_reason or "stop"],
        "stop_sequence": None,
        "usage": {"input_tokens": planted.input_tokens, "output_tokens": planted.output_tokens},
    }


def _anthropic_events(planted: Planted) -> list[Record]:
    """The events of a stream, its text in pieces of 40 characters."""
    message = _anthropic_answer(planted)
    started: Record = {
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": planted.input_tokens, "output_tokens": 1},
    }
    pieces = [planted.answer[at : at + 40] for at in range(0, len(planted.answer), 40)]
    return [
        {"type": "message_start", "message": message | started},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": each}}
            for each in pieces
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": message["stop_reason"], "stop_sequence": None},
            "usage": {"output_tokens": planted.output_tokens},
        },
        {"type": "message_stop"},
    ]


# Vertex AI: https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/request-response-logging

_GEMINI_REASONS = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
_GOOGLE_CODES = {"RESOURCE_EXHAUSTED": 429, "INTERNAL": 500}


def vertex_row(planted: Planted) -> Record:
    """The row of the log table. It is logged when the answer was whole; a failure has no other time than that."""
    project = account_of(planted.customer_id, "gcp")
    model = f"publishers/google/models/{planted.model_name}"
    took = timedelta(milliseconds=0 if planted.error_type else planted.latency_ms or 0)
    return {
        "endpoint": f"projects/{project}/locations/us-central1/{model}",
        "deployed_model_id": None,
        "logging_time": planted.timestamp + took,
        "request_id": planted.uuid.int % 10**19,
        "request_payload": None,
        "response_payload": None,
        "model": model,
        "model_version": "default",
        "api_method": "GenerateContent",
        "full_request": _gemini_request(planted),
        "full_response": _gemini_answer(planted),
        "metadata": {"request_latency": planted.latency_ms},
        "otel_log": None,
    }


def _gemini_request(planted: Planted) -> Record:
    roles = {"assistant": "model"}
    request: Record = {
        "contents": [{"role": roles.get(role, role), "parts": [{"text": text}]} for role, text in _messages(planted)],
        "systemInstruction": {"parts": [{"text": planted.system}]},
        "generationConfig": {"maxOutputTokens": 512, "temperature": 0.2},
        "labels": labels(planted),
    }
    if planted.documents:
        request["tools"] = [{"retrieval": {"vertexAiSearch": {"datastore": "projects/p/locations/eu/dataStores/d"}}}]
    return request


def _gemini_answer(planted: Planted) -> Record:
    if planted.error_type:
        code = _GOOGLE_CODES[planted.error_type]
        return {"error": {"code": code, "message": f"Answered with {code}.", "status": planted.error_type}}
    candidate: Record = {"finishReason": _GEMINI_REASONS[planted.finish_reason or "stop"], "avgLogprobs": -0.21}
    if planted.answer:
        candidate["content"] = {"role": "model", "parts": [{"text": planted.answer}]}
    if planted.documents:
        chunk = {"retrievedContext": {"uri": "gs://documents/handbook", "title": "handbook", "text": planted.documents}}
        candidate["groundingMetadata"] = {"groundingChunks": [chunk]}
    thoughts = planted.reasoning_tokens or 0
    usage = {
        "promptTokenCount": planted.input_tokens,
        "candidatesTokenCount": (planted.output_tokens or 0) - thoughts,
        "thoughtsTokenCount": thoughts,
        "totalTokenCount": (planted.input_tokens or 0) + (planted.output_tokens or 0),
        "trafficType": "ON_DEMAND",
    }
    if planted.cached_tokens is not None:
        usage["cachedContentTokenCount"] = planted.cached_tokens
    return {
        "candidates": [candidate],
        "createTime": f"{planted.timestamp:%Y-%m-%dT%H:%M:%S.%fZ}",
        "modelVersion": planted.model_name,
        "responseId": planted.uuid.hex[:22],
        "usageMetadata": usage,
    }


# Azure Monitor: https://learn.microsoft.com/azure/azure-monitor/reference/tables/apimanagementgatewayllmlog, of the
# gateway .../apimanagementgatewaylogs, and of Azure OpenAI .../azurediagnostics

_DEPLOYMENT, _API_VERSION, _OPERATION = "chat-prod", "2024-10-21", "ChatCompletions_Create"


def azure_rows(planted: Planted) -> list[tuple[str, Record]]:
    """The rows of the interaction, each with the name of its table."""
    if planted.form == "diagnostics":
        return [("AzureDiagnostics", _diagnostics_row(planted))]
    rows = [("ApiManagementGatewayLlmLog", each) for each in _llm_rows(planted)]
    return [*rows, ("ApiManagementGatewayLogs", _gateway_row(planted))]


def _azure_time(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S.%f}0Z"


def _chat_messages(planted: Planted) -> list[Record]:
    messages: list[Record] = [{"role": role, "content": text} for role, text in _messages(planted)]
    if planted.documents:
        call = {"id": "call_1", "type": "function", "function": {"name": "search", "arguments": "{}"}}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": "call_1", "content": planted.documents})
    return [{"role": "system", "content": planted.system}, *messages]


def _llm_rows(planted: Planted) -> list[Record]:
    """One row; where the messages are more than a piece, one with the facts and one for each piece of the text.

    Of a truncated interaction the second piece was lost.
    """
    common = {
        "TimeGenerated": _azure_time(planted.timestamp),
        "CorrelationId": str(planted.uuid),
        "OperationName": _OPERATION,
        "ApiVersion": _API_VERSION,
        "Region": "West Europe",
        "RequestId": f"req-{planted.uuid.hex[:12]}",
        "IsStreamCompletion": False,
    }
    facts = {
        "DeploymentName": _DEPLOYMENT,
        "ModelName": planted.model_name,
        "PromptTokens": planted.input_tokens,
        "CompletionTokens": planted.output_tokens,
        "TotalTokens": (planted.input_tokens or 0) + (planted.output_tokens or 0) or None,
    }
    nothing: Record = {**dict.fromkeys(facts), "DeploymentName": "", "ModelName": ""}
    asked = json.dumps(_chat_messages(planted), ensure_ascii=False)
    answered = json.dumps([{"role": "assistant", "content": planted.answer}]) if planted.answer else None
    if len(asked) <= AZURE_PIECE:
        return [common | facts | {"SequenceNumber": 0, "RequestMessages": asked, "ResponseMessages": answered}]
    pieces = [(asked[at : at + AZURE_PIECE], None) for at in range(0, len(asked), AZURE_PIECE)]
    texts = [(None, None), *pieces, (None, answered)]
    rows = [
        common
        | (nothing if number else facts)
        | {"SequenceNumber": number, "RequestMessages": said, "ResponseMessages": heard}
        for number, (said, heard) in enumerate(texts)
    ]
    return [row for row in rows if not (planted.truncated and row["SequenceNumber"] == 2)]


def _gateway_row(planted: Planted) -> Record:
    status = int(planted.error_type) if planted.error_type else 200
    request = {"metadata": labels(planted), "messages": _chat_messages(planted), "max_tokens": 512}
    response: Record = {
        "choices": [
            {
                "content_filter_results": _filter_results(planted),
                "finish_reason": planted.finish_reason,
                "index": 0,
                "logprobs": None,
                "message": {"role": "assistant", "content": planted.answer},
            }
        ],
        "created": int(planted.timestamp.timestamp()),
        "id": f"chatcmpl-{planted.uuid.hex[:24]}",
        "model": planted.model_name,
        "object": "chat.completion",
        "usage": {
            "prompt_tokens": planted.input_tokens,
            "completion_tokens": planted.output_tokens,
            "total_tokens": (planted.input_tokens or 0) + (planted.output_tokens or 0),
        },
    }
    if planted.error_type:
        response = {"statusCode": status, "message": "Too many requests" if status == 429 else "Internal server error"}
    return {
        "TimeGenerated": _azure_time(planted.timestamp),
        "CorrelationId": str(planted.uuid),
        "ApiId": "azure-openai-service-api",
        "ApimSubscriptionId": planted.application_id,
        "ProductId": "models",
        "OperationId": _OPERATION,
        "Method": "POST",
        "Url": f"https://{planted.customer_id}.azure-api.net/openai/deployments/{_DEPLOYMENT}/chat/completions",
        "Region": "West Europe",
        "IsRequestSuccess": status < 400,
        "ResponseCode": status,
        "BackendResponseCode": status,
        "TotalTime": int(planted.latency_ms or 0),
        "BackendTime": int(planted.latency_ms or 0) - 4,
        "RequestBody": json.dumps(request)[:AZURE_BODY],
        "ResponseBody": json.dumps(response)[:AZURE_BODY],
        "BackendRequestBody": "",
        "BackendResponseBody": "",
        "TraceRecords": json.dumps([{"source": "app", "severity": "information", "metadata": labels(planted)}]),
    }


def _filter_results(planted: Planted) -> Record:
    harms = {"hate": "hate_speech", "violence": "violence"}
    results: Record = {
        name: {"filtered": False, "severity": "medium" if planted.answer and planted.scores[harm] else "safe"}
        for name, harm in harms.items()
    }
    if planted.finish_reason == "content_filter":
        results["violence"] = {"filtered": True, "severity": "high"}
    results |= {name: {"filtered": False, "severity": "safe"} for name in ("self_harm", "sexual")}
    return results | {"profanity": {"filtered": False, "detected": bool(planted.scores["profanity"])}}


def _diagnostics_row(planted: Planted) -> Record:
    model, _, version = planted.model_name.partition("-2024")
    took = int((planted.latency_ms or 0) * 10_000)
    ticks = int((planted.timestamp - datetime(1, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)) * 10
    properties = {
        "apiName": f"Azure OpenAI API version {_API_VERSION}",
        "requestTime": ticks,
        "requestLength": 128,
        "responseTime": ticks + took,
        "responseLength": 1411,
        "objectId": "",
        "streamType": "Non-Streaming",
        "modelDeploymentName": _DEPLOYMENT,
        "modelName": model,
        "modelVersion": f"2024{version}",
    }
    return {
        "TimeGenerated": _azure_time(planted.timestamp),
        "Category": "RequestResponse",
        "CorrelationId": str(planted.uuid),
        "OperationName": _OPERATION,
        "DurationMs": int(planted.latency_ms or 0),
        "ResultSignature": "200",
        "ResourceProvider": "MICROSOFT.COGNITIVESERVICES",
        "properties_s": json.dumps(properties),
    }


# OpenTelemetry: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding and the GenAI conventions in 1.41 and,
# for what instrumentations write that have not moved, in 1.36


def otlp_lines(interactions: Iterable[Planted]) -> list[Record]:
    """One ExportTraceServiceRequest for each application and schema, as the Collector's file exporter writes lines."""

    def batch(planted: Planted) -> tuple[str, str]:
        return planted.application_id, planted.form

    lines = []
    for (application, form), batched in groupby(sorted(interactions, key=batch), key=batch):
        resource = {"service.name": "llm-gateway", "app": application, "deployment.environment.name": "production"}
        version = "1.41.1" if form == "otlp" else "1.36.0"
        scope = {
            "scope": {"name": "opentelemetry.instrumentation.openai_v2", "version": "2.3b0"},
            "spans": [_span(each) for each in batched],
            "schemaUrl": f"https://opentelemetry.io/schemas/{version}",
        }
        lines.append({"resourceSpans": [{"resource": {"attributes": _attributes(resource)}, "scopeSpans": [scope]}]})
    return lines


def _span(planted: Planted) -> Record:
    end = planted.timestamp + timedelta(milliseconds=planted.latency_ms or 0)
    current = planted.form == "otlp"
    facts = _span_facts(planted) if current else _span_facts_1_36(planted)
    return {
        "traceId": planted.uuid.hex,
        "spanId": UUID(int=planted.uuid.int ^ (1 << 100)).hex[:16],
        "name": f"chat {planted.model_name}",
        "kind": 3,
        "startTimeUnixNano": _nanoseconds(planted.timestamp),
        "endTimeUnixNano": _nanoseconds(end),
        "attributes": _attributes(facts),
        "events": [] if current else _events_1_36(planted),
        "status": {"code": 2, "message": f"answered {planted.error_type}"} if planted.error_type else {},
    }


def _nanoseconds(at: datetime) -> str:
    return str(int((at - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)) * 1000)


def _shared_facts(planted: Planted) -> Record:
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": planted.model_name,
        "gen_ai.response.model": None if planted.error_type else planted.model_name,
        "gen_ai.response.id": None if planted.error_type else f"chatcmpl-{planted.uuid.hex[:24]}",
        "gen_ai.response.finish_reasons": [planted.finish_reason] if planted.finish_reason else None,
        "gen_ai.conversation.id": planted.conversation_id,
        "error.type": planted.error_type,
        "gen_ai.response.time_to_first_chunk": (
            planted.time_to_first_token_ms / 1000 if planted.time_to_first_token_ms is not None else None
        ),
    }


def _span_facts(planted: Planted) -> Record:
    said = [{"role": role, "parts": [{"type": "text", "content": text}]} for role, text in _messages(planted)]
    heard = {"role": "assistant", "parts": [{"type": "text", "content": planted.answer}]}
    return _shared_facts(planted) | {
        "gen_ai.provider.name": "vllm",
        "gen_ai.usage.input_tokens": planted.input_tokens,
        "gen_ai.usage.output_tokens": planted.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": planted.cached_tokens,
        "gen_ai.system_instructions": _json([{"type": "text", "content": planted.system}] if planted.system else []),
        "gen_ai.input.messages": _json(said),
        "gen_ai.output.messages": _json([heard | {"finish_reason": planted.finish_reason}] if planted.answer else []),
    }


def _span_facts_1_36(planted: Planted) -> Record:
    return _shared_facts(planted) | {
        "gen_ai.system": "vllm",
        "gen_ai.usage.prompt_tokens": planted.input_tokens,
        "gen_ai.usage.completion_tokens": planted.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": planted.cached_tokens,
    }


def _events_1_36(planted: Planted) -> list[Record]:
    """Texts as events of the span, each with its body as JSON."""
    said: list[tuple[str, Mapping[str, Any]]] = []
    if planted.system:
        said.append(("gen_ai.system.message", {"role": "system", "content": planted.system}))
    said += [(f"gen_ai.{role}.message", {"role": role, "content": text}) for role, text in _messages(planted)]
    if planted.answer:
        message = {"role": "assistant", "content": planted.answer}
        said.append(("gen_ai.choice", {"index": 0, "finish_reason": planted.finish_reason, "message": message}))
    return [
        {
            "timeUnixNano": _nanoseconds(planted.timestamp),
            "name": name,
            "attributes": _attributes({"gen_ai.system": "vllm", "gen_ai.event.content": _json([content], 0)}),
        }
        for name, content in said
    ]


def _json(items: Sequence[Any], only: int | None = None) -> str | None:
    """The items as JSON, or only one of them; None where there are none."""
    if not items:
        return None
    return json.dumps(items if only is None else items[only], ensure_ascii=False)


def _attributes(facts: Mapping[str, Any]) -> list[Record]:
    """OTLP's attributes of those facts that are there."""
    return [{"key": key, "value": _value(value)} for key, value in facts.items() if value is not None]


def _value(value: Any) -> Record:
    if isinstance(value, list):
        return {"arrayValue": {"values": [_value(each) for each in value]}}
    kinds: list[tuple[type, Record]] = [
        (bool, {"boolValue": value}),
        (int, {"intValue": str(value)}),
        (float, {"doubleValue": value}),
    ]
    return next((written for kind, written in kinds if isinstance(value, kind)), {"stringValue": str(value)})
