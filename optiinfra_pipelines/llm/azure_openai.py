"""Requests to Azure OpenAI out of the rows of three tables of Azure Monitor: API Management's log of language models,
its log of the gateway, and Azure OpenAI's own diagnostics. Pure; `clouds/azure/interactions.py` asks for the rows."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from functools import reduce
from typing import Any

from optiinfra_pipelines.llm.interaction import UNKNOWN, Found, Interaction, Texts, Unreadable, conversation
from optiinfra_pipelines.llm.openai_bodies import body, clean, count, decoded, messages_of, read_answer, read_request

# https://learn.microsoft.com/azure/azure-monitor/reference/tables/apimanagementgatewayllmlog and .../...gatewaylogs;
# https://learn.microsoft.com/azure/api-management/api-management-howto-llm-logs on its pieces of 32 KB
LLM_LOG = "ApiManagementGatewayLlmLog"
GATEWAY_LOG = "ApiManagementGatewayLogs"
DIAGNOSTICS = "AzureDiagnostics"

Row = Mapping[str, Any]
_CHAT = re.compile(r"chat[/_-]?completions?", re.IGNORECASE)
_OPERATIONS = (  # of an operation's id or the end of a path, such as ChatCompletions_Create or /v1/responses
    (_CHAT, "chat"),
    (re.compile(r"(^|/)(create[_-]?)?responses?([_-]?create)?$", re.IGNORECASE), "chat"),
    (re.compile(r"embeddings?([_-]?create)?$", re.IGNORECASE), "embeddings"),
    (re.compile(r"completions?([_-]?create)?$", re.IGNORECASE), "text_completion"),
)
_OF_A_MODEL = ("messages", "choices", "usage", "model")
_DEPLOYMENT = re.compile(r"/deployments/([^/]+)")


def requests_of(rows: Sequence[tuple[str, Row]], application_label: str, variant_label: str) -> list[Found]:
    """The requests that rows of one CorrelationId tell of: usually one, and none where no model was asked.

    A row is a table's name and its columns, or a record of a diagnostic setting as it is sent to storage. What the
    log of language models tells is preferred to the gateway's, and that to the diagnostics; of the texts, the whole
    ones are. Application and variant are the request's metadata of these labels. `timestamp` is the earliest time of
    the rows: each table's TimeGenerated is about when the request came in.
    """
    unreadable: list[Found] = []
    told: dict[str, list[Row]] = {LLM_LOG: [], GATEWAY_LOG: [], DIAGNOSTICS: []}
    for table, row in rows:
        try:
            told[table].append(_facts(row))
        except ValueError as problem:
            unreadable.append(Unreadable(row, str(problem)))
    attempts, nameless = _attempts(told[LLM_LOG])
    unreadable += [
        Unreadable(facts["row"], "names no RequestId, and its CorrelationId holds several") for facts in nameless
    ]
    others = [_gateway(facts, application_label, variant_label, bool(attempts)) for facts in told[GATEWAY_LOG]]
    others += [_diagnostic(facts) for facts in told[DIAGNOSTICS]]
    known = [each for each in others if each is not None]
    if len(attempts) > 1:
        found = [reduce(_filled, [_llm(pieces), *map(_shared, known)]) for pieces in attempts]
        found = [replace(each, native_id=f"{each.native_id}/{each.details['request_id']}") for each in found]
    else:
        both = [*map(_llm, attempts), *known]
        found = [reduce(_filled, both)] if both else []
    return [*found, *unreadable]


def _attempts(rows: Sequence[Row]) -> tuple[list[list[Row]], list[Row]]:
    """The rows of each RequestId, and those that belong to none of several. One request's rows need not all name it."""
    named: dict[str, list[Row]] = {}
    for facts in rows:
        named.setdefault(_str(facts.get("requestid")), []).append(facts)
    if len(named.keys() - {""}) <= 1:
        return [list(rows)] if rows else [], []
    nameless = named.pop("", [])
    return list(named.values()), nameless


def moment(row: Row) -> datetime | None:
    """When Azure says that a row came to be; None where it says nothing that can be read."""
    try:
        at = datetime.fromisoformat(_str(row.get("TimeGenerated") or row.get("time")))
    except ValueError:
        return None
    return at.astimezone(UTC) if at.tzinfo else None


def _facts(row: Row) -> Row:
    """The columns of a row and its properties by lower-case names; ValueError where it is none of this parser's."""
    facts = {name.lower(): value for name, value in row.items()}
    properties = facts.pop("properties", None) or facts.pop("properties_s", None)
    if isinstance(properties, str):
        properties = _object(properties)
    if properties is not None and not isinstance(properties, Mapping):
        raise ValueError("its properties are no JSON object")
    facts = {name.lower(): value for name, value in (properties or {}).items()} | facts
    if not _str(facts.get("correlationid")):
        raise ValueError("has no CorrelationId")
    facts["at"] = moment(row)
    if facts["at"] is None:
        raise ValueError("has no TimeGenerated that can be read")
    facts["row"] = row
    return facts


def _object(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("its properties are no JSON object") from None


def _llm(rows: Sequence[Row]) -> Interaction:
    """One request out of its rows in the log of language models: pieces of texts, and one row with tokens."""
    asked, asked_cut = _pieces(rows, "requestmessages")
    answered, answered_cut = _pieces(rows, "responsemessages")
    numbers = sorted({_sequence(row) for row in rows})
    output = "\n\n".join(each.text for each in messages_of(answered) if each.text)
    tokens = [count(_most(rows, name)) for name in ("prompttokens", "completiontokens")]
    streamed = _first(rows, "isstreamcompletion")
    details = {
        "deployment": _str(_first(rows, "deploymentname")),
        "api_version": _str(_first(rows, "apiversion")),
        "request_id": _str(_first(rows, "requestid")),
        "streamed": streamed if isinstance(streamed, bool) else None,
        "tables": [LLM_LOG],
    }
    return Interaction(
        native_id=rows[0]["correlationid"],
        timestamp=min(row["at"] for row in rows),
        model_name=_str(_first(rows, "modelname")) or UNKNOWN,
        texts=conversation(messages_of(asked), output),
        truncated=asked_cut or answered_cut or numbers != list(range(len(numbers))),
        operation=_operation(_str(_first(rows, "operationname"))) or "chat",
        region=_region(_first(rows, "region")),
        # a request has tokens: 0 is what rows say that tell of none
        input_tokens=tokens[0] or None,
        output_tokens=tokens[1] if any(tokens) else None,
        details=_told(details),
    )


def _pieces(rows: Sequence[Row], column: str) -> tuple[list[Any], bool]:
    """The messages in a column of several rows, and whether any of their pieces is missing.

    Each row holds an array of messages, or a piece of one array's text. Where arrays meet, the last message of one
    goes on in the first message of the next when both are of one role.
    """
    pieces: dict[int, Any] = {}
    for row in sorted(rows, key=_sequence):
        if row.get(column) not in (None, "", "null", "[]", []):
            pieces.setdefault(_sequence(row), row[column])
    if not pieces:
        return [], False
    numbers = list(pieces)
    unbroken = [pieces[number] for at, number in enumerate(numbers) if number == numbers[0] + at]
    missing = len(unbroken) < len(numbers)
    arrays = [_array(piece) for piece in pieces.values()]
    if all(arrays):
        return reduce(_continued, arrays), missing  # type: ignore[arg-type]
    found, cut = decoded("".join(each if isinstance(each, str) else json.dumps(each) for each in unbroken))
    return found if isinstance(found, list) else [], missing or cut


def _array(piece: Any) -> list[Any] | None:
    if isinstance(piece, str):
        try:
            piece = json.loads(piece)
        except (ValueError, RecursionError):
            return None
    if isinstance(piece, Mapping):
        return [piece]
    return piece if isinstance(piece, list) else None


def _continued(messages: list[Any], more: list[Any]) -> list[Any]:
    last, first = messages[-1], more[0]
    if isinstance(last, Mapping) and isinstance(first, Mapping) and last.get("role") == first.get("role"):
        contents = last.get("content"), first.get("content")
        if all(isinstance(each, str) for each in contents):
            return [*messages[:-1], {**last, **first, "content": "".join(contents)}, *more[1:]]  # type: ignore[arg-type]
    return [*messages, *more]


def _sequence(row: Row) -> int:
    return count(row.get("sequencenumber")) or 0


def _gateway(facts: Row, application_label: str, variant_label: str, of_a_model: bool) -> Interaction | None:
    """One request out of the gateway's log, which has one row for each; None where it went to no model.

    `of_a_model`: the log of language models says that it did.
    """
    asked, asked_cut = body(facts.get("requestbody") or facts.get("backendrequestbody"))
    answered, answered_cut = body(facts.get("responsebody") or facts.get("backendresponsebody"))
    path = _str(facts.get("url")).partition("?")[0].rstrip("/")  # behind it there may be a key
    operation = _operation(path) or _operation(_str(facts.get("operationid")))
    deployment = _DEPLOYMENT.search(path)
    sure = "/openai/" in path.lower() or deployment or _CHAT.search(f"{path} {facts.get('operationid')}")
    of_bodies = any(name in each for name in _OF_A_MODEL for each in (asked, answered))
    get = _str(facts.get("method")).upper() not in ("POST", "")
    if not of_a_model and (operation is None or get or not (sure or of_bodies)):
        return None
    request, answer = read_request(asked), read_answer(answered)
    status = _status(facts.get("responsecode"))
    details = {
        "deployment": deployment.group(1) if deployment else "",
        "api_id": _str(facts.get("apiid")),
        "product_id": _str(facts.get("productid")),
        "subscription_id": _str(facts.get("apimsubscriptionid")),
        "operation_id": _str(facts.get("operationid")),
        "url": path,
        "status": status,
        "backend_status": _status(facts.get("backendresponsecode")),
        "backend_ms": _milliseconds(facts.get("backendtime")),
        "choices": answer.choices if answer.choices > 1 else None,
        "content_filter": dict(answer.content_filter),
        "tables": [GATEWAY_LOG],
    }
    return Interaction(
        native_id=facts["correlationid"],
        timestamp=facts["at"],
        model_name=answer.model or request.model or UNKNOWN,
        texts=conversation(request.messages, answer.output),
        truncated=asked_cut or answered_cut or bool(facts.get("truncated")),
        application=request.metadata.get(application_label, ""),
        variant=request.metadata.get(variant_label, ""),
        conversation_id=request.conversation_id,
        operation=operation or "chat",
        region=_region(facts.get("region")),
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
        cached_tokens=answer.cached_tokens,
        reasoning_tokens=answer.reasoning_tokens,
        latency_ms=_milliseconds(facts.get("totaltime", facts.get("durationms"))),
        finish_reason=answer.finish_reason,
        error_type=answer.error_type or (str(status) if status and status >= 400 else None),
        details=_told(details),
    )


def _diagnostic(facts: Row) -> Interaction | None:
    """One request out of Azure OpenAI's diagnostics, which hold no texts; None for a log of anything else."""
    model, deployment = _str(facts.get("modelname")), _str(facts.get("modeldeploymentname"))
    operation = _str(facts.get("operationname"))
    if facts.get("category", "RequestResponse") != "RequestResponse":
        return None
    if not model and not deployment and _operation(operation) is None:
        return None
    version = _str(facts.get("modelversion"))
    status = _status(facts.get("resultsignature"))
    stream = _str(facts.get("streamtype"))
    details = {
        "deployment": deployment,
        "api_version": _str(facts.get("apiname")).rpartition(" ")[2],
        "streamed": not stream.startswith("Non-") if stream else None,
        "status": status,
        "tables": [DIAGNOSTICS],
    }
    return Interaction(
        native_id=facts["correlationid"],
        timestamp=facts["at"],
        model_name=(f"{model}-{version}" if version and not model.endswith(version) else model) or UNKNOWN,
        operation=_operation(operation) or operation or "chat",
        region=_region(facts.get("location")),
        latency_ms=_milliseconds(facts.get("durationms")),
        error_type=str(status) if status and status >= 400 else None,
        details=_told(details),
    )


def _filled(first: Interaction, second: Interaction) -> Interaction:
    """`first`, and where it tells nothing, `second`."""
    told = {}
    for each in fields(Interaction):
        mine = getattr(first, each.name)
        told[each.name] = getattr(second, each.name) if mine in (None, "", UNKNOWN) else mine
    if re.fullmatch(rf"{re.escape(first.model_name)}-\d{{4}}.*", second.model_name):
        told["model_name"] = second.model_name  # the same model, with its version
    better = max((first, second), key=_worth)
    tables = [*first.details["tables"], *second.details["tables"]]
    told |= {
        "timestamp": min(first.timestamp, second.timestamp),
        "texts": better.texts,
        "truncated": better.truncated,
        "details": {**second.details, **first.details, "tables": list(dict.fromkeys(tables))},
    }
    return Interaction(**told)


def _worth(found: Interaction) -> tuple[int, bool]:
    """How much its texts tell, to compare with another's."""
    return ("missing", "truncated", "full").index(found.content_state), found.texts != Texts()


def _shared(found: Interaction) -> Interaction:
    """What is true of each of several requests that the gateway made for one."""
    kept = ("native_id", "timestamp", "application", "variant", "conversation_id", "operation", "region")
    told: dict[str, Any] = {name: getattr(found, name) for name in kept}
    of_one = ("content_filter", "choices", "backend_ms", "backend_status", "status", "deployment")
    return Interaction(**told, details={name: value for name, value in found.details.items() if name not in of_one})


def _operation(named: str) -> str | None:
    return next((operation for pattern, operation in _OPERATIONS if pattern.search(named)), None)


def _region(named: Any) -> str | None:
    """The id of a region: East US is eastus."""
    return _str(named).replace(" ", "").lower() or None


def _status(value: Any) -> int | None:
    return int(value) if str(value).isdecimal() and len(str(value)) == 3 else None


def _milliseconds(value: Any) -> float | None:
    """A duration; None where it is none, and where it is negative, as Azure OpenAI's sometimes are."""
    try:
        duration = float(value)
    except (TypeError, ValueError):
        return None
    return duration if 0 <= duration < float("inf") else None


def _told(details: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in details.items() if value not in (None, "", {})}


def _first(rows: Sequence[Row], name: str) -> Any:
    return next((row[name] for row in rows if row.get(name) not in (None, "")), None)


def _most(rows: Sequence[Row], name: str) -> int | None:
    return max((number for row in rows if (number := count(row.get(name))) is not None), default=None)


def _str(value: Any) -> str:
    return clean(value) if isinstance(value, str) else ""
