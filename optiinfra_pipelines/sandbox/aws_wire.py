"""The four wires that AWS services speak, from the server's side: requests read, answers and errors written, signatures
checked. Shapes come from botocore's own service models. What is answered is in `aws_server.py`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

_CREDENTIAL = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/aws4_request")
_SIGNED = re.compile(r"SignedHeaders=([^, ]+)")
_SIGNATURE = re.compile(r"Signature=([0-9a-f]+)")
_SERVICES = {"monitoring": "cloudwatch", "tagging": "resourcegroupstaggingapi"}  # signing name -> model
_JSON = "application/json"
_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
REQUEST_ID = "7a62c49f-347e-4fc4-9331-6e8e0a5e0b2c"


@dataclass(frozen=True)
class Signature:
    """Who signed a request, for which service (the name of its model) and region."""

    access_key_id: str
    region: str
    service: str


@dataclass(eq=False)
class Refusal(Exception):
    """An error to be answered: the service's own code and words."""

    status: int
    code: str
    message: str


@dataclass(frozen=True)
class Request:
    """One call. `parameters` are as written: flat names (Filter.1.Value.1) of query services, else a tree."""

    signature: Signature
    operation: str
    parameters: Mapping[str, Any]


def signature_of(environ: Mapping[str, Any]) -> Signature | None:
    """Who signed; None where nobody did."""
    match = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
    return Signature(match[1], match[2], _SERVICES.get(match[3], match[3])) if match else None


def signed_with(environ: Mapping[str, Any], body: bytes, secret: str) -> bool:
    """Whether the request's Signature Version 4 was made with that secret key."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    written = environ["HTTP_AUTHORIZATION"]
    credential, names, said = _CREDENTIAL.search(written), _SIGNED.search(written), _SIGNATURE.search(written)
    if not (credential and names and said):
        return False
    query = environ.get("QUERY_STRING", "")
    url = f"http://{environ['HTTP_HOST']}{environ['PATH_INFO']}{'?' if query else ''}{query}"
    headers = {name: _header(environ, name) for name in names[1].split(";") if name != "host"}
    request = AWSRequest(environ["REQUEST_METHOD"], url, headers, body)
    request.context["timestamp"] = environ.get("HTTP_X_AMZ_DATE", "")
    auth = SigV4Auth(Credentials(credential[1], secret), credential[3], credential[2])
    text = auth.string_to_sign(request, auth.canonical_request(request))
    return bool(auth.signature(text, request) == said[1])


def read_request(environ: Mapping[str, Any], body: bytes, signature: Signature) -> Request:
    """The call that a request makes; Refusal where it is none."""
    protocol, path = _protocol(signature.service), environ["PATH_INFO"]
    if protocol in ("ec2", "query"):
        parameters: dict[str, Any] = dict(parse_qsl(body.decode(), keep_blank_values=True))
        return Request(signature, str(parameters.get("Action")), parameters)
    if protocol == "json":
        return Request(signature, environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2], json.loads(body))
    if path.endswith("/2015-03-31/functions"):
        return Request(signature, "ListFunctions", dict(parse_qsl(environ.get("QUERY_STRING", ""))))
    raise Refusal(404, "UnknownOperationException", f"nothing is at {path}")


def write_answer(request: Request, content: Mapping[str, Any]) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of an answer whose members are named as in the service's model."""
    service, operation = request.signature.service, request.operation
    protocol = _protocol(service)
    if protocol in ("ec2", "query"):
        model = _model(service).operation_model(operation)
        namespace = _model(service).metadata.get("xmlNamespace") or "http://ec2.amazonaws.com/doc/2016-11-15/"
        inner = _xml_members(model.output_shape, content, protocol)
        if protocol == "ec2":
            inner = f"<requestId>{REQUEST_ID}</requestId>{inner}"
        else:
            wrapper = model.output_shape.serialization["resultWrapper"]
            meta = f"<ResponseMetadata><RequestId>{REQUEST_ID}</RequestId></ResponseMetadata>"
            inner = f"<{wrapper}>{inner}</{wrapper}>{meta}"
        text = f'{_XML}<{operation}Response xmlns="{namespace}">{inner}</{operation}Response>'
        return text.encode(), {"Content-Type": "text/xml;charset=UTF-8"}
    kind = f"application/x-amz-json-{_model(service).metadata.get('jsonVersion')}" if protocol == "json" else _JSON
    return json.dumps(content, default=_seconds).encode(), {"Content-Type": kind, "x-amzn-RequestId": REQUEST_ID}


def write_error(signature: Signature | None, refusal: Refusal) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of an error as the service writes it."""
    service = signature.service if signature else "ec2"
    protocol, code, message = _protocol(service), refusal.code, escape(refusal.message)
    if protocol == "ec2":
        error = f"<Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
        text = f"<Response>{error}<RequestID>{REQUEST_ID}</RequestID></Response>"
        return text.encode(), {"Content-Type": "text/xml;charset=UTF-8"}
    if protocol == "query":
        error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
        text = f"<ErrorResponse>{error}<RequestId>{REQUEST_ID}</RequestId></ErrorResponse>"
        return text.encode(), {"Content-Type": "text/xml"}
    body = json.dumps({"__type": code, "message": refusal.message}).encode()
    return body, {"Content-Type": _JSON, "x-amzn-ErrorType": code, "x-amzn-query-error": f"{code};Sender"}


@cache
def _model(service: str) -> Any:
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


@cache
def _protocol(service: str) -> str:
    return str(_model(service).resolved_protocol)


def _header(environ: Mapping[str, Any], name: str) -> str:
    key = name.upper().replace("-", "_")
    return str(environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}", ""))


def _xml_members(shape: Any, content: Mapping[str, Any], protocol: str) -> str:
    parts = []
    for name, value in content.items():
        if value is not None:
            member = shape.members[name]
            parts.append(_xml(member, member.serialization.get("name", name), value, protocol))
    return "".join(parts)


def _xml(shape: Any, tag: str, value: Any, protocol: str) -> str:
    if shape.type_name == "structure":
        inner = _xml_members(shape, value, protocol)
    elif shape.type_name == "list":
        item = shape.member.serialization.get("name", "item" if protocol == "ec2" else "member")
        inner = "".join(_xml(shape.member, item, each, protocol) for each in value)
    elif shape.type_name == "boolean":
        inner = "true" if value else "false"
    elif isinstance(value, datetime):
        inner = value.strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03d}Z"
    else:
        inner = escape(str(value))
    return f"<{tag}>{inner}</{tag}>"


def _seconds(at: datetime) -> float:
    return at.timestamp()
