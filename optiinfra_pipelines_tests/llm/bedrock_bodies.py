"""Bodies of Bedrock's invocation log as AWS documents them, by family of models, and the record that they lie in.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html
"""

from collections.abc import Mapping
from typing import Any

CLAUDE = "anthropic.claude-sonnet-4-20250514-v1:0"
METRICS = {
    "amazon-bedrock-invocationMetrics": {
        "inputTokenCount": 7,
        "outputTokenCount": 3,
        "invocationLatency": 640,
        "firstByteLatency": 210,
    }
}


def record(asked: Any = None, answered: Any = None, operation: str = "InvokeModel", **more: Any) -> dict[str, Any]:
    return {
        "schemaType": "ModelInvocationLog",
        "timestamp": "2026-08-01T10:00:02Z",
        "accountId": "111122223333",
        "region": "us-east-1",
        "requestId": "request-1",
        "operation": operation,
        "modelId": CLAUDE,
        "input": {"inputContentType": "application/json", "inputBodyJson": asked},
        "output": {"outputContentType": "application/json", "outputBodyJson": answered},
    } | more


def converse(*content: Mapping[str, Any], stop: str = "end_turn") -> dict[str, Any]:
    return {"output": {"message": {"role": "assistant", "content": list(content)}}, "stopReason": stop}


def user(*content: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


ANTHROPIC = {"anthropic_version": "bedrock-2023-05-31", "system": "Be brief."} | {
    "messages": [user({"type": "text", "text": "Largest?"})]
}
LLAMA = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user"
    "<|end_header_id|>\n\nLargest?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n"
)
LLAMA_4 = (
    "<|begin_of_text|><|header_start|>system<|header_end|>\n\nBe brief.<|eot|><|header_start|>user<|header_end|>"
    "\n\nLargest?<|eot|><|header_start|>assistant<|header_end|>"
)
DEEPSEEK = "<｜begin▁of▁sentence｜>Be brief.<｜User｜>Largest?<｜Assistant｜><think>\n"
MISTRAL = "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nLargest? [/INST]"
CHAT = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Largest?"}]}
NOVA = {"schemaVersion": "messages-v1", "system": [{"text": "Be brief."}], "messages": [user({"text": "Largest?"})]}
COMMAND_R = {"message": "Largest?", "preamble": "Be brief."}
TITAN = {"inputText": "Largest?", "textGenerationConfig": {"maxTokenCount": 9}}

# family: the request, the whole answer, the events of the same answer, the operation
FAMILIES: dict[str, tuple[Any, Any, list[Any], str]] = {
    "anthropic messages": (
        ANTHROPIC,
        {
            "type": "message",
            "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Jupiter."}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 7, "output_tokens": 3},
        },
        [
            {"type": "message_start", "message": {"content": [], "usage": {"input_tokens": 7, "output_tokens": 1}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
            {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Jupi"}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "ter."}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
            {"type": "message_stop"} | METRICS,
        ],
        "chat",
    ),
    "anthropic text": (
        {"prompt": "Be brief.\n\nHuman: Largest?\n\nAssistant:", "max_tokens_to_sample": 9},
        {"type": "completion", "completion": "Jupiter.", "stop_reason": "stop_sequence", "stop": "\n\nHuman:"},
        [
            {"type": "completion", "completion": "Jupi", "stop_reason": None},
            {"type": "completion", "completion": "ter.", "stop_reason": "stop_sequence"} | METRICS,
        ],
        "text_completion",
    ),
    "nova": (
        NOVA,
        converse({"text": "Jupiter."}) | {"usage": {"inputTokens": 7, "outputTokens": 3, "totalTokens": 10}},
        [
            {"messageStart": {"role": "assistant"}},
            {"contentBlockDelta": {"delta": {"text": "Jupi"}, "contentBlockIndex": 0}},
            {"contentBlockDelta": {"delta": {"text": "ter."}, "contentBlockIndex": 0}},
            {"contentBlockStop": {"contentBlockIndex": 0}},
            {"messageStop": {"stopReason": "end_turn"}},
            {"metadata": {"usage": {"inputTokens": 7, "outputTokens": 3}, "metrics": {}}} | METRICS,
        ],
        "chat",
    ),
    "titan": (
        TITAN,
        {
            "inputTextTokenCount": 7,
            "results": [{"tokenCount": 3, "outputText": "Jupiter.", "completionReason": "FINISH"}],
        },
        [
            {"index": 0, "inputTextTokenCount": 7, "outputText": "Jupi", "completionReason": None},
            {"index": 0, "totalOutputTextTokenCount": 3, "outputText": "ter.", "completionReason": "FINISH"} | METRICS,
        ],
        "text_completion",
    ),
    "llama 3": (
        {"prompt": LLAMA, "max_gen_len": 9},
        {"generation": "Jupiter.", "prompt_token_count": 7, "generation_token_count": 3, "stop_reason": "stop"},
        [
            {"generation": "Jupi", "prompt_token_count": 7, "generation_token_count": 1, "stop_reason": None},
            {"generation": "ter.", "prompt_token_count": None, "generation_token_count": 3, "stop_reason": "stop"}
            | METRICS,
        ],
        "text_completion",
    ),
    "llama 4": (
        {"prompt": LLAMA_4},
        {"generation": "Jupiter.", "prompt_token_count": 7, "generation_token_count": 3, "stop_reason": "stop"},
        [{"generation": "Jupiter.", "stop_reason": "stop"} | METRICS],
        "text_completion",
    ),
    "mistral text": (
        {"prompt": MISTRAL, "max_tokens": 9},
        {"outputs": [{"text": "Jupiter.", "stop_reason": "stop"}]},
        [
            {"outputs": [{"text": "Jupi", "stop_reason": None}]},
            {"outputs": [{"text": "ter.", "stop_reason": "stop"}]} | METRICS,
        ],
        "text_completion",
    ),
    "mistral chat": (
        CHAT,
        {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Jupiter."}, "stop_reason": "stop"}]},
        [
            {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Jupi"}, "stop_reason": None}]},
            {"choices": [{"index": 0, "message": {"content": "ter."}, "stop_reason": "stop"}]} | METRICS,
        ],
        "chat",
    ),
    "command r": (
        COMMAND_R,
        {"text": "Jupiter.", "finish_reason": "COMPLETE", "chat_history": [{"role": "USER", "message": "Largest?"}]},
        [
            {"event_type": "stream-start", "is_finished": False},
            {"event_type": "text-generation", "is_finished": False, "text": "Jupi"},
            {"event_type": "text-generation", "is_finished": False, "text": "ter."},
            {"event_type": "stream-end", "finish_reason": "COMPLETE", "response": {"text": "Jupiter."}} | METRICS,
        ],
        "chat",
    ),
    "command": (
        {"prompt": "Be brief.\n\nHuman: Largest?\n\nAssistant:"},
        {"generations": [{"id": "1", "text": "Jupiter.", "finish_reason": "COMPLETE"}], "prompt": "..."},
        [
            {"text": "Jupi", "is_finished": False},
            {"text": "ter.", "is_finished": False},
            {"is_finished": True, "finish_reason": "COMPLETE"} | METRICS,
        ],
        "text_completion",
    ),
    "jamba": (
        CHAT,
        {
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Jupiter."}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
        },
        [
            {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Jupi"}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {"content": "ter."}, "finish_reason": "stop"}]} | METRICS,
        ],
        "chat",
    ),
    "deepseek r1": (
        {"prompt": DEEPSEEK, "max_tokens": 9},
        {"choices": [{"text": "Hm.\n</think>\n\nJupiter.", "stop_reason": "stop"}]},
        [
            {"choices": [{"text": "Hm.\n</th", "stop_reason": None}]},
            {"choices": [{"text": "ink>\n\nJupiter.", "stop_reason": "stop"}]} | METRICS,
        ],
        "text_completion",
    ),
    "deepseek v3": (
        CHAT,
        {
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Jupiter.", "reasoning_content": "Hm."},
                    "finish_reason": "stop",
                }
            ]
        },
        [
            {"choices": [{"index": 0, "delta": {"reasoning_content": "Hm."}}]},
            {"choices": [{"index": 0, "delta": {"content": "Jupiter."}, "finish_reason": "stop"}]} | METRICS,
        ],
        "chat",
    ),
}
