"""What every HTTP server of the sandbox has in common: faults that can be switched on, latency, a count of requests,
and running in a process of its own. What a server answers is its application's business.
"""

import json
import os
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from io import BytesIO
from threading import Event, Lock
from typing import Any, cast

HOST = "127.0.0.1"
FAULTS_PATH = "/sandbox/faults"
REQUESTS_PATH = "/sandbox/requests"
GATE_KINDS = ("status", "reset", "truncate", "cut", "hang")
FAULT_IN_ENVIRON = "sandbox.fault"

ErrorBody = Callable[[int, Mapping[str, Any]], tuple[str, bytes]]
"""An error as the simulated service writes it: status and WSGI environ -> content type and body."""


@dataclass
class Fault:
    """What to do to the next `times` requests whose "METHOD /path?query" holds `match`.

    `status` answers with that HTTP status and `headers`, `reset` resets the connection before an answer, `truncate`
    promises the whole body in Content-Length and sends half of it, `cut` sends half and says so, `hang` answers after
    `seconds`. Any other kind is the application's: it finds the fault in its environ.
    """

    kind: str = "status"
    status: int = 503
    times: int = 1
    match: str = ""
    seconds: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, body: bytes, kinds: Sequence[str]) -> "Fault":
        """The fault described by a JSON object with these field names; ValueError where it is not one of `kinds`."""
        try:
            fault = cls(**json.loads(body))
        except TypeError as error:
            raise ValueError(str(error)) from error
        if fault.kind not in kinds:
            raise ValueError(f"kind is one of {', '.join(kinds)}, not {fault.kind}")
        HTTPStatus(fault.status)
        return fault

    def listed(self) -> dict[str, Any]:
        """The fault as JSON; without what it does not have."""
        return {name: value for name, value in asdict(self).items() if value or name not in ("seconds", "headers")}


class Gate:
    """WSGI middleware: `/sandbox/faults` (POST adds a fault, GET lists, DELETE forgets), `/sandbox/requests` (GET
    counts by "METHOD /path", DELETE begins anew), and in front of everything else faults and `latency` seconds.

    `kinds` are the application's own faults beside those of the gate.
    """

    def __init__(self, application: Any, error: ErrorBody, kinds: Sequence[str] = (), latency: float = 0.0) -> None:
        self._application = application
        self._error = error
        self._kinds = (*GATE_KINDS, *kinds)
        self._latency = latency
        self._faults: list[Fault] = []
        self._requests: Counter[str] = Counter()
        self._lock = Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == FAULTS_PATH:
            return self._control_faults(environ, start_response)
        if environ["PATH_INFO"] == REQUESTS_PATH:
            return self._control_requests(environ, start_response)
        fault = self._next_fault(environ)
        wait = self._latency + (fault.seconds if fault else 0.0)
        if wait:
            Event().wait(wait)
        if fault is None:
            return _iterable(self._application(environ, start_response))
        if fault.kind == "status":
            content_type, body = self._error(fault.status, environ)
            return answer(start_response, fault.status, body, content_type, fault.headers)
        if fault.kind == "reset":
            _reset(environ["werkzeug.socket"])
        if fault.kind == "truncate":
            return _first_half(self._application(environ, start_response))
        if fault.kind == "cut":
            return self._cut(environ, start_response)
        environ[FAULT_IN_ENVIRON] = fault
        return _iterable(self._application(environ, start_response))

    def _cut(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        said: list[Any] = []
        body = b"".join(self._application(environ, lambda *answered: said.extend(answered)))
        kept = body[: len(body) // 2]
        headers = [(name, value) for name, value in said[1] if name.lower() != "content-length"]
        start_response(said[0], [*headers, ("Content-Length", str(len(kept)))])
        return [kept]

    def _control_faults(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with self._lock:
            if environ["REQUEST_METHOD"] == "POST":
                try:
                    self._faults.append(Fault.parse(read_body(environ), self._kinds))
                except ValueError as error:
                    return answer_json(start_response, {"error": str(error)}, HTTPStatus.BAD_REQUEST)
            elif environ["REQUEST_METHOD"] == "DELETE":
                self._faults.clear()
            return answer_json(start_response, [fault.listed() for fault in self._faults])

    def _control_requests(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with self._lock:
            if environ["REQUEST_METHOD"] == "DELETE":
                self._requests.clear()
            return answer_json(start_response, dict(self._requests))

    def _next_fault(self, environ: dict[str, Any]) -> Fault | None:
        path = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        request = f"{path}?{environ.get('QUERY_STRING', '')}"
        with self._lock:
            self._requests[path] += 1
            for fault in self._faults:
                if fault.match in request:
                    fault.times -= 1
                    if fault.times <= 0:
                        self._faults.remove(fault)
                    return fault
        return None


def read_body(environ: Mapping[str, Any]) -> bytes:
    """The request's body."""
    return bytes(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))


def answer(
    start_response: Any,
    status: int,
    body: bytes,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Iterable[bytes]:
    """Start an answer of that status and give its body."""
    said = {"Content-Type": content_type, "Content-Length": str(len(body)), **(headers or {})}
    start_response(f"{int(status)} {HTTPStatus(status).phrase}", list(said.items()))
    return [body]


def answer_json(
    start_response: Any, content: Any, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Iterable[bytes]:
    """Start an answer with `content` as JSON."""
    return answer(start_response, status, json.dumps(content).encode(), "application/json", headers)


def _iterable(body: Any) -> Iterable[bytes]:
    return cast(Iterable[bytes], body)


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(connection.detach())  # with nothing lingering, a close is a TCP reset
    raise ConnectionResetError("a fault of the sandbox")


def _first_half(body: Iterable[bytes]) -> Iterable[bytes]:
    whole = b"".join(body)
    return [whole[: len(whole) // 2]]


def serve(application: Any, port: int, handler: type | None = None) -> None:
    """Serve a WSGI application on loopback until the process ends, and print the address; port 0 takes a free one.

    `handler` is the application's own werkzeug request handler; without one connections are kept (HTTP/1.1).
    """
    from werkzeug.serving import WSGIRequestHandler, make_server

    class KeepingConnections(WSGIRequestHandler):
        """Keeps connections, as the clouds do; werkzeug's own run_wsgi closes each after one answer."""

        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one segment: two wait on each other (Nagle, delayed acknowledgements)

        def run_wsgi(self) -> None:
            environ = self.make_environ()
            environ["wsgi.input"] = BytesIO(self.rfile.read(int(environ.get("CONTENT_LENGTH") or 0)))
            application: Any = self.server.app
            said: list[Any] = []
            body = b"".join(application(environ, lambda *answered: said.extend(answered)))
            code, phrase = said[0].split(" ", 1)
            self.send_response(int(code), phrase)
            for name, value in said[1]:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
            if len(body) != int(dict(said[1]).get("Content-Length", len(body))):
                self.close_connection = True  # a fault: the rest never comes

    base: Any = handler or KeepingConnections

    class QuietRequestHandler(base):
        def log_request(self, *_: Any) -> None:
            """One line a request would drown the sandbox's own output."""

        def connection_dropped(self, *_: Any) -> None:
            self.close_connection = True  # after a reset there is no second request to wait for

    server = make_server(HOST, port, application, threaded=True, request_handler=QuietRequestHandler)
    print(f"listening on http://{HOST}:{server.port}", flush=True)
    server.serve_forever()


@contextmanager
def serve_apart(module: str, *arguments: str) -> Iterator[str]:
    """Run `python -m module --port 0 arguments...` and yield the URL it prints; RuntimeError where it prints none."""
    command = [sys.executable, "-m", module, "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith("listening on "):
            raise RuntimeError(f"{module} did not start; is the `sandbox` extra installed?")
        yield line.removeprefix("listening on ").strip()
    finally:
        process.kill()  # it has nothing to lose, and a supervisor may have made it deaf to SIGTERM
        process.wait()
        if process.stdout:
            process.stdout.close()
