"""An S3 server on loopback for the sandbox: moto behind the sandbox's gate, and a check of the access key.

Runs in a process of its own (`python -m optiinfra_pipelines.sandbox.s3_server --port 0`); objects live in its memory.
What lies in the buckets is the business of `exports.py`. Imported only where such a server is wanted: it needs moto.
"""

import argparse
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import unquote
from xml.sax.saxutils import escape

from optiinfra_pipelines.sandbox.gate import Gate, answer, serve, serve_apart

ERROR_CODES = {  # S3's own words, from the "Error responses" page of its API reference
    403: ("AccessDenied", "Access Denied"),
    404: ("NoSuchKey", "The specified key does not exist."),
    500: ("InternalError", "We encountered an internal error. Please try again."),
    503: ("SlowDown", "Please reduce your request rate."),
}
_CREDENTIAL = re.compile(r"Credential=([^/&,]+)/")


class KeyCheck:
    """WSGI middleware in front of an S3 application: a request signed with another key than `access_key` is refused."""

    def __init__(self, application: Any, access_key: str) -> None:
        self._application = application
        self._access_key = access_key

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        refusal = self._refusal(environ)
        if refusal is None:
            return self._application(environ, start_response)
        content_type, body = _error(environ, *refusal)
        return answer(start_response, 403, body, content_type)

    def _refusal(self, environ: Mapping[str, Any]) -> tuple[str, str] | None:
        signed = environ.get("HTTP_AUTHORIZATION", "") or unquote(environ.get("QUERY_STRING", ""))
        found = _CREDENTIAL.search(signed)
        if found is None:
            return ERROR_CODES[403]
        if found[1] != self._access_key:
            return "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."
        return None


def error_body(status: int, environ: Mapping[str, Any]) -> tuple[str, bytes]:
    """An error as S3 writes it; see `gate.ErrorBody`."""
    return _error(environ, *ERROR_CODES.get(status, ("InternalError", "")))


def _error(environ: Mapping[str, Any], code: str, message: str) -> tuple[str, bytes]:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{message}</Message>"
        f"<Resource>{escape(environ['PATH_INFO'])}</Resource><RequestId>SANDBOX</RequestId></Error>"
    ).encode()
    return "application/xml", b"" if environ["REQUEST_METHOD"] == "HEAD" else body


def serve_s3(access_key: str | None = None) -> AbstractContextManager[str]:
    """Run the server in a process of its own and yield its URL; RuntimeError where it does not start.

    With `access_key` given, a request signed with another key is answered 403 InvalidAccessKeyId.
    """
    options = ("--access-key", access_key) if access_key is not None else ()
    return serve_apart("optiinfra_pipelines.sandbox.s3_server", *options)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the server."""
    parser = argparse.ArgumentParser(prog="python -m optiinfra_pipelines.sandbox.s3_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0, the default, takes a free one")
    parser.add_argument("--access-key", help="the one access key id that is accepted; any is without this option")
    options = parser.parse_args(arguments)
    from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app

    application: Any = create_backend_app("s3")
    if options.access_key is not None:
        application = KeyCheck(application, options.access_key)
    serve(Gate(application, error_body), options.port, MotoRequestHandler)


if __name__ == "__main__":
    main()
