"""A ClickHouse server on loopback: the HTTP interface of ClickHouse in front of the real engine, embedded by chDB.

Belongs here: the wire (bodies, compression, authentication, headers, error statuses), injected faults, the process.
Does not: statements, settings and sessions, which are clickhouse_engine's.

Beside the ClickHouse interface stands one control endpoint, `/sandbox/faults`. POST a JSON object to make the next
`times` (1) statements that match the regular expression `match` (any) fail: with an exception `code` (202, 209, 241,
252, ...) and, where given, another HTTP `status`; or with the connection dropped, `"drop": "before"` the statement
runs or `"after"` it did. GET lists the faults still armed, DELETE disarms them.
"""

import argparse
import base64
import binascii
import contextlib
import email
import hmac
import importlib
import io
import itertools
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO, cast
from urllib.parse import parse_qsl, urlsplit

from optiinfra_pipelines.sandbox.clickhouse_engine import (
    CHUNK,
    RESULT_VERBS,
    ClickHouseException,
    Engine,
    Result,
    Session,
    Statement,
)

SPOOL_IN_MEMORY = 8 << 20  # bytes of a request or result kept in memory before it goes to a temporary file
STATEMENT_HEAD = 1 << 20  # bytes of a body in which INSERT ... FORMAT must end; ClickHouse's max_query_size is 256 KiB
READY_SECONDS = 60  # far above the measured start of about 1 s; a server silent for longer hangs
SESSION_SECONDS = 60  # ClickHouse's default_session_timeout
STOP_SECONDS = 30  # running statements are cut off at the end of their current block

# URL parameters that the HTTP interface consumes itself; of the others param_* are the statement's, the rest settings.
TRANSPORT_PARAMS = re.compile(
    "query|database|default_format|user|password|query_id|session_id|session_timeout|session_check|quota_key|role|"
    "buffer_size|wait_end_of_query|client_protocol_version|compress|decompress|enable_http_compression|"
    "send_progress_in_http_headers|http_headers_progress_interval_ms|param_.*"
)

# HTTP status by exception name, after ClickHouse's src/Server/HTTP/exceptionCodeToHTTPStatus.cpp; the rest is 500.
NAMES_BY_STATUS = {
    400: "BAD_ARGUMENTS CANNOT_COMPILE_REGEXP CANNOT_PARSE_TEXT CANNOT_PARSE_ESCAPE_SEQUENCE "
    "CANNOT_PARSE_QUOTED_STRING CANNOT_PARSE_DATE CANNOT_PARSE_DATETIME CANNOT_PARSE_NUMBER CANNOT_PARSE_UUID "
    "CANNOT_PARSE_INPUT_ASSERTION_FAILED DUPLICATE_COLUMN ILLEGAL_COLUMN THERE_IS_NO_COLUMN UNEXPECTED_AST_STRUCTURE "
    "SYNTAX_ERROR INCORRECT_DATA TYPE_MISMATCH VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE",
    401: "REQUIRED_PASSWORD",
    403: "UNKNOWN_USER WRONG_PASSWORD AUTHENTICATION_FAILED ACCESS_DENIED",
    404: "UNKNOWN_TABLE UNKNOWN_FUNCTION UNKNOWN_IDENTIFIER UNKNOWN_TYPE UNKNOWN_STORAGE UNKNOWN_DATABASE "
    "UNKNOWN_SETTING UNKNOWN_AGGREGATE_FUNCTION UNKNOWN_FORMAT UNKNOWN_DATABASE_ENGINE UNKNOWN_TYPE_OF_QUERY",
    408: "TIMEOUT_EXCEEDED",
    413: "QUERY_IS_TOO_LARGE",
    501: "NOT_IMPLEMENTED",
    503: "SOCKET_TIMEOUT CANNOT_OPEN_FILE CANNOT_SCHEDULE_TASK",
}
STATUS_BY_NAME = {name: status for status, names in NAMES_BY_STATUS.items() for name in names.split()}


class ServerFailed(Exception):
    """The server process ended or hung before it was ready; the message carries its standard error."""


class BodyTruncated(Exception):
    """The client went away before its request was whole; nothing of it may run."""


class ConnectionDropped(Exception):
    """A fault asks for the connection to end without an answer."""


@dataclass
class Fault:
    """What happens to the next `times` statements that match; see the module's docstring."""

    match: str = ""
    times: int = 1
    code: int = 0
    status: int = 0
    drop: Literal["", "before", "after"] = ""

    def __post_init__(self) -> None:
        re.compile(self.match)
        if not (self.code or self.drop) or self.drop not in ("", "before", "after"):
            raise ValueError("a fault needs a code, or drop: before or after")


class Server(ThreadingHTTPServer):
    """The listening server: engine, password and armed faults that its connections share."""

    daemon_threads = True  # idle keep-alive connections must not hold the process up
    request_queue_size = 128

    def __init__(self, port: int, engine: Engine, password: str) -> None:
        super().__init__(("127.0.0.1", port), Connection)
        self.engine, self.password = engine, password
        self.faults: list[Fault] = []
        self._lock = threading.Lock()

    def take_fault(self, statement: str) -> Fault | None:
        """The first armed fault that matches, one time of it used up."""
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.match, statement, re.IGNORECASE):
                    fault.times -= 1
                    self.faults = [armed for armed in self.faults if armed.times > 0]
                    return fault
        return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are everyday; anything else is printed with its traceback."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def decompress(parts: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Undo a Content-Encoding, frame after frame: clickhouse-connect sends one lz4 or zstd frame per block."""
    decoder: Any = None
    for part in parts:
        while part:
            decoder = decoder if decoder is not None and not decoder.eof else new_decoder(encoding)
            try:
                yield decoder.decompress(part)
            except (RuntimeError, OSError, zlib.error) as error:
                raise ClickHouseException(271, "CANNOT_DECOMPRESS", f"{encoding}: {error}") from error
            part = (decoder.unused_data or b"") if decoder.eof else b""
    if decoder is not None and not decoder.eof:
        raise ClickHouseException(271, "CANNOT_DECOMPRESS", f"the {encoding} body ends inside a frame")


def new_decoder(encoding: str) -> Any:
    """A streaming decoder with decompress, eof and unused_data; lz4 and zstd by the packages that the client uses."""
    if encoding in ("gzip", "deflate"):
        return zlib.decompressobj(wbits=47)  # 32 + 15: the header says which of the two it is
    if encoding == "lz4":
        return importlib.import_module("lz4.frame").LZ4FrameDecompressor()
    if encoding == "zstd":
        return importlib.import_module("backports.zstd").ZstdDecompressor()
    raise ClickHouseException(48, "NOT_IMPLEMENTED", f"Content-Encoding {encoding} is not supported by the sandbox")


class Connection(BaseHTTPRequestHandler):
    """One connection of a client; every request is read whole before any of it runs."""

    protocol_version = "HTTP/1.1"
    rbufsize = wbufsize = 1 << 16
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        """Answer a request; one cut short by its client or by a fault ends the connection without an answer."""
        url = urlsplit(self.path)
        self.params = dict(parse_qsl(url.query, keep_blank_values=True))
        try:
            with tempfile.SpooledTemporaryFile(SPOOL_IN_MEMORY) as spool:
                body = cast(BinaryIO, spool)
                self.read_body(body)
                if url.path == "/" and (self.params.get("query") or spool.read(1)):
                    body.seek(0)
                    self.execute(body)
                elif url.path in ("/", "/ping", "/replicas_status"):
                    self.answer(200, b"Ok.\n")
                elif url.path == "/sandbox/faults":
                    self.control_faults(body.read())
                else:
                    self.answer(404, f"There is no handle {url.path}\n".encode())
        except (BodyTruncated, ConnectionDropped, ConnectionError):
            self.close_connection = True
        except ClickHouseException as error:
            self.answer_exception(error)

    do_POST = do_DELETE = do_GET

    def read_body(self, body: BinaryIO) -> None:
        """Take the whole body in, decompressed; what multipart/form-data carries becomes parameters."""
        encoding = self.headers.get("Content-Encoding", "identity")
        try:
            parts = self.body_parts()
            for part in parts if encoding == "identity" else decompress(parts, encoding):
                body.write(part)
        except ClickHouseException:
            self.close_connection = True  # the rest of the body is still on its way
            raise
        body.seek(0)
        if self.headers.get_content_type() == "multipart/form-data":
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            for field in cast(list[Message], email.message_from_bytes(head + body.read()).get_payload()):
                if field.get_filename():
                    raise ClickHouseException(48, "NOT_IMPLEMENTED", "the sandbox takes no external data tables")
                name = str(field.get_param("name", header="Content-Disposition"))
                self.params[name] = cast(bytes, field.get_payload(decode=True)).decode()
            body.seek(0)
            body.truncate()

    def body_parts(self) -> Iterator[bytes]:
        """The body as sent, unchunked; BodyTruncated where the connection ends before the body does."""
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            yield from self.exactly(int(self.headers.get("Content-Length") or 0))
            return
        while size := int(self.line().split(b";")[0], 16):
            yield from self.exactly(size)
            self.line()
        while self.line().strip():
            pass

    def exactly(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes of the connection."""
        while size:
            part = self.rfile.read(min(size, CHUNK))
            if not part:
                raise BodyTruncated
            size -= len(part)
            yield part

    def line(self) -> bytes:
        """The next line of a chunked body's framing."""
        line = self.rfile.readline(CHUNK)
        if not line.endswith(b"\n"):
            raise BodyTruncated
        return line

    def execute(self, body: BinaryIO) -> None:
        """Run the statement in the `query` parameter and the body, which are one text as in ClickHouse."""
        self.authenticate()
        if "1" in (self.params.get("compress"), self.params.get("decompress")):
            message = "the sandbox compresses by Content-Encoding only, not in ClickHouse's own block format"
            raise ClickHouseException(48, "NOT_IMPLEMENTED", message)
        query = self.params.get("query", "").rstrip().encode()
        head = body.read(STATEMENT_HEAD)
        text = query + b"\n" + head if query and head else query or head
        statement = Statement.read(text)
        if self.command == "GET" and statement.verb not in RESULT_VERBS | {"SET", "USE"}:
            message = "Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly."
            raise ClickHouseException(164, "READONLY", message)
        fault = self.server.take_fault(text[: statement.data_start or None].decode(errors="replace"))
        if fault and fault.drop == "before":
            raise ConnectionDropped
        if fault and fault.code:
            name = self.server.engine.error_name(fault.code)
            message = "injected by /sandbox/faults"
            self.answer_exception(ClickHouseException(fault.code, name, message), fault.status)
            return
        with self.session() as session:
            session.prepare(statement.verb, self.params.get("database", ""), self.settings())
            if statement.insert_format:
                offset = statement.data_start - (len(text) - len(head))
                body.seek(max(offset, 0))
                data = body if offset >= 0 else io.BytesIO(text[statement.data_start : offset or None] + body.read())
                into = text[: statement.insert_end].decode()
                result = session.insert(into, statement.insert_format, self.bindings(), data)
            else:
                default_format = self.params.get("default_format", "TabSeparated")
                result = session.run(statement, text + body.read(), self.bindings(), default_format)
            with contextlib.closing(result.parts):
                self.answer_result(result, drop=fault is not None)

    def session(self) -> contextlib.AbstractContextManager[Session]:
        """The session that the request names, or one of its own."""
        timeout = float(self.params.get("session_timeout") or SESSION_SECONDS)
        must_exist = self.params.get("session_check") == "1"
        return self.server.engine.session(self.params.get("session_id", ""), timeout, must_exist=must_exist)

    def settings(self) -> dict[str, str]:
        """The engine settings among the URL parameters."""
        settings = {n: v for n, v in self.params.items() if not TRANSPORT_PARAMS.fullmatch(n)}
        for name in settings:
            if not re.fullmatch(r"\w+", name):
                raise ClickHouseException(115, "UNKNOWN_SETTING", f"Setting {name} is not a name of a setting.")
        return settings

    def bindings(self) -> dict[str, str]:
        """The values of the statement's {name:Type} placeholders."""
        return {n.removeprefix("param_"): v for n, v in self.params.items() if n.startswith("param_")}

    def authenticate(self) -> None:
        """Check user and password, from wherever ClickHouse takes them, when the server has a password."""
        user = self.headers.get("X-ClickHouse-User") or self.params.get("user") or "default"
        password = self.headers.get("X-ClickHouse-Key") or self.params.get("password") or ""
        scheme, _, credentials = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            with contextlib.suppress(binascii.Error, UnicodeDecodeError):
                user, _, password = base64.b64decode(credentials).decode().partition(":")
        if self.server.password and not hmac.compare_digest(password.encode(), self.server.password.encode()):
            message = f"{user}: Authentication failed: password is incorrect, or there is no user with such name."
            raise ClickHouseException(516, "AUTHENTICATION_FAILED", message)

    # --- answering

    def answer_result(self, result: Result, *, drop: bool) -> None:
        """Send a result: in chunks as the engine produces it, or whole once it is complete, as wait_end_of_query asks.

        With `drop` the statement runs to its end and the connection ends without an answer.
        """
        if result.format and self.params.get("wait_end_of_query", "0") == "0" and not drop:
            self.answer_in_chunks(result)
            return
        with tempfile.SpooledTemporaryFile(SPOOL_IN_MEMORY) as spool:
            for part in result.parts:
                spool.write(part)
            if drop:
                raise ConnectionDropped
            size = spool.tell()
            spool.seek(0)
            self.start_answer(200, {"Content-Length": str(size)}, result)
            shutil.copyfileobj(spool, self.wfile, CHUNK)

    def answer_in_chunks(self, result: Result) -> None:
        """Send blocks as they come; an error after the first one ends the body the way ClickHouse does."""
        first = next(result.parts, b"")
        tag = secrets.token_hex(8)
        self.start_answer(200, {"Transfer-Encoding": "chunked", "X-ClickHouse-Exception-Tag": tag}, result)
        try:
            for part in itertools.chain([first], result.parts):
                if part:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
        except ClickHouseException as error:
            text = error.text(self.server.engine.version)
            marked = f"\r\n__exception__\r\n{tag}\r\n{text}{len(text.encode())} {tag}\r\n__exception__\r\n".encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(marked), marked))
            self.close_connection = True

    def answer_exception(self, error: ClickHouseException, status: int = 0) -> None:
        """Send an error as ClickHouse does; its HTTP status follows from its name unless one is given."""
        body = error.text(self.server.engine.version).encode()
        headers = {"Content-Length": str(len(body)), "X-ClickHouse-Exception-Code": str(error.code)}
        self.start_answer(status or STATUS_BY_NAME.get(error.name, 500), headers)
        self.wfile.write(body)

    def answer(self, status: int, body: bytes) -> None:
        """Send a short answer."""
        self.start_answer(status, {"Content-Length": str(len(body))})
        self.wfile.write(body)

    def start_answer(self, status: int, headers: dict[str, str], result: Result | None = None) -> None:
        """Send the status line and headers, with those by which ClickHouse describes a result."""
        self.send_response(status)
        headers["Content-Type"] = "text/plain; charset=UTF-8"
        headers["X-ClickHouse-Query-Id"] = self.params.get("query_id") or str(uuid.uuid4())
        headers["X-ClickHouse-Timezone"] = "UTC"
        if result is not None:
            headers["X-ClickHouse-Summary"] = json.dumps(result.summary)
            if result.format:
                headers["X-ClickHouse-Format"] = result.format
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def control_faults(self, body: bytes) -> None:
        """Arm (POST), list (GET) or disarm (DELETE) faults."""
        if self.command == "DELETE":
            self.server.faults = []
        elif self.command == "POST":
            try:
                self.server.faults.append(Fault(**json.loads(body)))
            except (ValueError, TypeError, re.error) as error:
                self.answer(400, f"{error}\n".encode())
                return
        self.answer(200, json.dumps([asdict(fault) for fault in self.server.faults]).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing per request: what ran is in system.query_log."""


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, or, where asked, until standard input closes."""
    parser = argparse.ArgumentParser(
        description="A ClickHouse HTTP server on 127.0.0.1, over the embedded engine chDB."
    )
    parser.add_argument("--port", type=int, default=8123, help="0 takes a free one")
    parser.add_argument("--path", type=Path, required=True, help="the folder that holds the data")
    parser.add_argument("--password", default="", help="what clients must send; any user may")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with the process that holds the pipe")
    options = parser.parse_args(arguments)
    try:
        engine = Engine(options.path)
        server = Server(options.port, engine, options.password)
    except (ClickHouseException, OSError) as error:
        parser.exit(1, f"cannot serve {options.path} on port {options.port}: {error}\n")

    def stop(*_: object) -> None:
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if options.until_stdin_closes:
        threading.Thread(target=lambda: stop(sys.stdin.read()), daemon=True).start()
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever(poll_interval=0.05)
    server.server_close()
    engine.close()
    os._exit(0)  # a statement may still run in a thread of the engine, which crashes in an interpreter that is leaving


@contextlib.contextmanager
def serve_clickhouse(path: Path, *, password: str = "", port: int = 0) -> Iterator[str]:
    """Run the server in a process of its own on the data in `path`; yields its URL, http://127.0.0.1:<port>.

    ServerFailed, with the process's standard error, where it does not come up.
    """
    command = [sys.executable, "-m", "optiinfra_pipelines.sandbox.clickhouse_server", "--until-stdin-closes"]
    command += ["--path", str(path), "--port", str(port), "--password", password]
    with tempfile.TemporaryFile("w+") as stderr:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True)
        hung = threading.Timer(READY_SECONDS, process.kill)
        try:
            hung.start()
            ready = cast(TextIO, process.stdout).readline()
            if not ready.startswith("listening on "):
                process.wait()
                stderr.seek(0)
                raise ServerFailed(f"the ClickHouse server on {path} did not start: {stderr.read().strip()}")
            hung.cancel()
            yield ready.removeprefix("listening on ").strip()
        finally:
            hung.cancel()
            process.terminate()
            try:
                process.communicate(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


if __name__ == "__main__":
    main()
