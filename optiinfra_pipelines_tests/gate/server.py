"""A scripted HTTP server on loopback, and a clock that passes where somebody waits."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

Answer = Callable[[Request], Response]
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@dataclass
class Received:
    """One request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """`script` is answered first, then every request as `otherwise` says."""

    otherwise: Answer
    url: str = ""
    script: deque[Answer] = field(default_factory=deque)
    received: list[Received] = field(default_factory=list)

    def __call__(self, request: Request) -> Response:
        target = request.environ["RAW_URI"]
        self.received.append(Received(request.method, target, dict(request.headers), request.get_data()))
        return (self.script.popleft() if self.script else self.otherwise)(request)

    def answers(self, *script: Answer) -> None:
        self.script.extend(script)


def status(code: int, headers: dict[str, str] | None = None, body: str = "") -> Answer:
    return lambda _: Response(body, code, headers)


@contextmanager
def served(otherwise: Answer) -> Iterator[Server]:
    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, *_: Any) -> None:
            """Silence."""

    running = Server(otherwise)
    http = make_server("127.0.0.1", 0, Request.application(running), threaded=True, request_handler=Quiet)
    http.daemon_threads = True  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever, args=[0.01])
    thread.start()
    running.url = f"http://127.0.0.1:{http.port}"
    try:
        yield running
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


@dataclass
class Clock:
    """The time of day, which passes when somebody sleeps."""

    at: datetime = NOON
    waits: list[float] = field(default_factory=list)

    def __call__(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.at += timedelta(seconds=seconds)

    def passes(self, **span: float) -> None:
        self.at += timedelta(**span)
