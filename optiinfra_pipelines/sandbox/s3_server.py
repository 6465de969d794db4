"""An S3 server on loopback for the sandbox: moto behind a gate that checks the access key and injects faults.

Runs in a process of its own (`python -m optiinfra_pipelines.sandbox.s3_server --port 0`); objects live in its memory.
What lies in the buckets is the business of `exports.py`. Imported only where such a server is wanted: it needs moto.
"""

import argparse
import json
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http import HTTPStatus
from threading import Lock
from typing import Any, Literal
from urllib.parse import unquote
from xml.sax.saxutils import escape

HOST = "127.0.0.1"
FAULTS_PATH = "/sandbox/faults"
FAULT_KINDS = ("status", "reset", "truncate")
ERROR_CODES = {  # S3's own words, from the "Error responses" page of its API reference
    403: ("AccessDenied", "Access Denied"),
    404: ("NoSuchKey", "The specified key does not exist."),
    500: ("InternalError", "We encountered an internal error. Please try again."),
    503: ("SlowDown", "Please reduce your request rate."),
}
_CREDENTIAL = re.compile(r"Credential=([^/&,]+)/")


@dataclass
class Fault:
    """What to do to the next `times` requests whose "METHOD /path?query" begins with `match`.

    `status` answers with that HTTP status and an S3 error body, `reset` resets the connection before an answer,
    `truncate` promises the whole body in Content-Length and sends the first half of it.
    """

    kind: Literal["status", "reset", "truncate"] = "status"
    status: int = 503
    times: int = 1
    match: str = ""

    @classmethod
    def parse(cls, body: bytes) -> "Fault":
        """The fault described by a JSON object with these field names; ValueError where it is not one."""
        try:
            fault = cls(**json.loads(body))
        except TypeError as error:
            raise ValueError(str(error)) from error
        if fault.kind not in FAULT_KINDS:
            raise ValueError(f"kind is one of {', '.join(FAULT_KINDS)}, not {fault.kind}")
        HTTPStatus(fault.status)
        return fault


class Gate:
    """WSGI middleware: faults and the access-key check in front of an S3 application, and `/sandbox/faults` itself.

    POST adds a fault, GET lists those with requests left, DELETE forgets all of them.
    """

    def __init__(self, application: Any, access_key: str | None = None) -> None:
        self._application = application
        self._access_key = access_key
        self._faults: list[Fault] = []
        self._lock = Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == FAULTS_PATH:
            return self._control(environ, start_response)
        fault = self._next_fault(environ)
        if fault and fault.kind == "status":
            return _error(environ, start_response, fault.status, *ERROR_CODES.get(fault.status, ("InternalError", "")))
        if fault and fault.kind == "reset":
            _reset(environ["werkzeug.socket"])
        if refusal := self._refusal(environ):
            return _error(environ, start_response, 403, *refusal)
        body = self._application(environ, start_response)
        return _first_half(body) if fault else body

    def _control(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        status = HTTPStatus.OK
        with self._lock:
            if environ["REQUEST_METHOD"] == "POST":
                try:
                    self._faults.append(Fault.parse(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))))
                except ValueError as error:
                    status = HTTPStatus.BAD_REQUEST
                    answer: Any = {"error": str(error)}
            elif environ["REQUEST_METHOD"] == "DELETE":
                self._faults.clear()
            if status == HTTPStatus.OK:
                answer = [asdict(fault) for fault in self._faults]
        body = json.dumps(answer).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response(f"{status.value} {status.phrase}", headers)
        return [body]

    def _next_fault(self, environ: dict[str, Any]) -> Fault | None:
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}"
        with self._lock:
            for fault in self._faults:
                if request.startswith(fault.match):
                    fault.times -= 1
                    if fault.times <= 0:
                        self._faults.remove(fault)
                    return fault
        return None

    def _refusal(self, environ: dict[str, Any]) -> tuple[str, str] | None:
        if self._access_key is None:
            return None
        signed = environ.get("HTTP_AUTHORIZATION", "") or unquote(environ.get("QUERY_STRING", ""))
        found = _CREDENTIAL.search(signed)
        if found is None:
            return ERROR_CODES[403]
        if found[1] != self._access_key:
            return "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."
        return None


def _error(environ: dict[str, Any], start_response: Any, status: int, code: str, message: str) -> Iterable[bytes]:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{message}</Message>"
        f"<Resource>{escape(environ['PATH_INFO'])}</Resource><RequestId>SANDBOX</RequestId></Error>"
    ).encode()
    if environ["REQUEST_METHOD"] == "HEAD":
        body = b""
    headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
    start_response(f"{status} {HTTPStatus(status).phrase}", headers)
    return [body]


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(connection.detach())  # with nothing lingering, a close is a TCP reset
    raise ConnectionResetError("a fault of the sandbox")


def _first_half(body: Iterable[bytes]) -> Iterable[bytes]:
    whole = b"".join(body)
    return [whole[: len(whole) // 2]]


def serve(port: int, access_key: str | None) -> None:
    """Serve S3 on loopback until the process ends, and print the address; port 0 takes a free one."""
    from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    class QuietRequestHandler(MotoRequestHandler):
        def log_request(self, *_: Any) -> None:
            """One line a request would drown the sandbox's own output."""

        def connection_dropped(self, *_: Any) -> None:
            self.close_connection = True  # after a reset there is no second request to wait for

    gate = Gate(create_backend_app("s3"), access_key)
    server = make_server(HOST, port, gate, threaded=True, request_handler=QuietRequestHandler)
    print(f"listening on http://{HOST}:{server.port}", flush=True)
    server.serve_forever()


@contextmanager
def serve_s3(access_key: str | None = None) -> Iterator[str]:
    """Run the server in a process of its own and yield its URL; RuntimeError where it does not start.

    With `access_key` given, a request signed with another key is answered 403 InvalidAccessKeyId.
    """
    command = [sys.executable, "-m", "optiinfra_pipelines.sandbox.s3_server", "--port", "0"]
    if access_key is not None:
        command += ["--access-key", access_key]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith("listening on "):
            raise RuntimeError("the sandbox's S3 server did not start; is the `sandbox` extra installed?")
        yield line.removeprefix("listening on ").strip()
    finally:
        process.kill()  # it has nothing to lose, and a supervisor may have made it deaf to SIGTERM
        process.wait()
        if process.stdout:
            process.stdout.close()


def main(arguments: list[str] | None = None) -> None:
    """Command line of the server."""
    parser = argparse.ArgumentParser(prog="python -m optiinfra_pipelines.sandbox.s3_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0, the default, takes a free one")
    parser.add_argument("--access-key", help="the one access key id that is accepted; any is without this option")
    options = parser.parse_args(arguments)
    serve(options.port, options.access_key)


if __name__ == "__main__":
    main()
