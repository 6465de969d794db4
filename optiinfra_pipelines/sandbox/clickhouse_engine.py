"""The ClickHouse engine of the sandbox: chDB behind sessions as ClickHouse's HTTP interface has them.

Belongs here: reading statements, sessions with settings and temporary tables, results in parts, errors with codes.
Does not: anything of HTTP, which is clickhouse_server's. A process holds one engine, on one data folder.
"""

import json
import re
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlencode

CHUNK = 1 << 20  # bytes handed to the engine at a time
RESULT_VERBS = frozenset(["SELECT", "WITH", "FROM", "SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN", "CHECK", "KILL"])
# Formats without a header or footer around the whole result: blocks may be sent as the engine produces them.
BLOCK_FORMATS = frozenset(["Native", "TabSeparated", "TSV", "CSV", "RowBinary", "JSONEachRow"])

# chDB logs queries only when a configuration asks for it. A session's own statements, marked, are left out of what
# clients find under the usual name. The system database lives in memory: the log begins anew with each start.
CONFIG = """<clickhouse>
    <timezone>UTC</timezone>
    <query_log><database>system</database><table>query_log_of_engine</table></query_log>
</clickhouse>
"""
OWN = "/* sandbox */ "
QUERY_LOG = (
    f"CREATE VIEW system.query_log AS SELECT * FROM system.query_log_of_engine WHERE NOT startsWith(query, '{OWN}')"
)

TOKEN = re.compile(
    rb"""\s+ | --[^\n]* | \#[\ !][^\n]* | /\*.*?\*/ | '(?:\\.|''|[^'\\])*' | "(?:\\.|""|[^"\\])*" | `(?:\\.|[^`\\])*`
    | (?P<open>[(\[{]) | (?P<close>[)\]}]) | (?P<end>;) | (?P<word>[A-Za-z_]\w*) | .""",
    re.VERBOSE | re.DOTALL,
)
FORMAT_OF_DATA = re.compile(rb"\s+(\w+)[ \t\f]*;?\r?\n?")
FORMAT_OF_RESULT = re.compile(rb"\s+(\w+)\s*(?:;|$|(?:SETTINGS|INTO)\b)", re.IGNORECASE)
BLANK = re.compile(rb"(?:\s+|--[^\n]*|/\*.*?\*/|;)*$", re.DOTALL)


class ClickHouseException(Exception):
    """An error as ClickHouse reports it: numeric code, symbolic name and message."""

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(message)
        self.code, self.name, self.message = code, name, message

    @classmethod
    def of_engine(cls, error: RuntimeError) -> "ClickHouseException":
        """Read code, message and name out of the text that chDB puts into its exceptions."""
        text = re.sub(r"\s*\(version [^)]*\)\s*$", "", str(error))
        found = re.search(r"Code: (\d+)\. DB::Exception: (.*?)(?: \(([A-Z0-9_]+)\))?\s*$", text, re.DOTALL)
        return cls(int(found[1]), found[3] or "", found[2]) if found else cls(1002, "UNKNOWN_EXCEPTION", text)

    def text(self, version: str) -> str:
        """The response body of a ClickHouse server of that version."""
        return f"Code: {self.code}. DB::Exception: {self.message} ({self.name}) (version {version} (official build))\n"


@dataclass(frozen=True)
class Statement:
    """What the server must know of a statement: its verb, the formats it names, and where inline data starts."""

    verb: str
    insert_format: str = ""  # of INSERT ... FORMAT
    insert_end: int = 0  # bytes of INSERT ... before FORMAT
    data_start: int = 0  # bytes before the data that follows FORMAT
    output_format: str = ""
    inserts: bool = False

    @classmethod
    def read(cls, text: bytes) -> "Statement":
        """Scan outside quotes, comments and brackets; of an INSERT with data, no further than where that starts."""
        verb, output_format, inserts, depth = "", "", False, 0
        for token in TOKEN.finditer(text):
            match token.lastgroup:
                case "open":
                    depth += 1
                case "close":
                    depth -= 1
                case "end" if depth == 0 and not BLANK.match(text, token.end()):
                    message = f"Syntax error (Multi-statements are not allowed): failed at position {token.end()}"
                    raise ClickHouseException(62, "SYNTAX_ERROR", message)
                case "word":
                    word = token.group().upper().decode()
                    verb = verb or word
                    inserts = inserts or (depth == 0 and word == "INSERT")
                    if depth or word not in ("FORMAT", "VALUES", "SELECT"):
                        continue
                    if verb == "INSERT":
                        name = FORMAT_OF_DATA.match(text, token.end()) if word == "FORMAT" else None
                        if name is None:
                            return cls(verb, inserts=True)
                        return cls(verb, name[1].decode(), token.start(), name.end(), inserts=True)
                    if word == "FORMAT" and (name := FORMAT_OF_RESULT.match(text, token.end())):
                        output_format = name[1].decode()
        return cls(verb, output_format=output_format, inserts=inserts)


@dataclass
class Result:
    """The answer to a statement: bytes in parts, their format ("" where there is no result) and the counts.

    The counts of a result still being read grow with it. Close `parts` to abandon it.
    """

    parts: Generator[bytes, None, None]
    format: str
    summary: dict[str, str]


def quote(value: str) -> str:
    """A ClickHouse string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


@dataclass
class Session:
    """One connection to the engine, used by one request at a time: current database, settings, temporary tables."""

    connection: Any
    lock: threading.Lock = field(default_factory=threading.Lock)
    expires: float = 0.0  # on time.monotonic(); 0 is a session of one request
    _database: str = ""
    _applied: dict[str, str] = field(default_factory=dict)
    _before: dict[str, str] = field(default_factory=dict)

    def prepare(self, verb: str, database: str, settings: Mapping[str, str]) -> None:
        """Set the request's database and settings; those of the previous request go back to what they were."""
        if database and database != self._database:
            self.query(f"{OWN}USE `{database.replace('`', '``')}`")
            self._database = database
        if verb == "USE":
            self._database = ""
        self._apply({} if verb == "SET" else settings)  # what SET sets must outlast the request

    def _apply(self, settings: Mapping[str, str]) -> None:
        changed = {name: value for name, value in settings.items() if self._applied.get(name) != value}
        unknown = [name for name in changed if name not in self._before]
        if unknown and self.expires:
            names = ", ".join(map(quote, unknown))
            sql = f"{OWN}SELECT name, value, changed FROM system.settings WHERE name IN ({names})"
            rows = [json.loads(line) for line in self.query(sql, "JSONEachRow").bytes().splitlines()]
            self._before |= {row["name"]: quote(row["value"]) if row["changed"] else "DEFAULT" for row in rows}
        dropped = {name: literal for name, literal in self._before.items() if name not in settings}
        assignments = dropped | {name: quote(value) for name, value in changed.items()}
        if assignments:
            self._applied = {}
            self.query(f"{OWN}SET " + ", ".join(f"`{name}` = {literal}" for name, literal in assignments.items()))
        self._applied = dict(settings)
        self._before = {name: literal for name, literal in self._before.items() if name in settings}

    def query(self, sql: str | bytes, format: str = "TabSeparated", params: Mapping[str, str] | None = None) -> Any:
        """One statement, answered by chDB's own result object."""
        try:
            return self.connection.query(sql, format, params=dict(params or {}))
        except RuntimeError as error:
            raise ClickHouseException.of_engine(error) from error

    def run(self, statement: Statement, sql: bytes, params: Mapping[str, str], default_format: str) -> Result:
        """Run a statement that carries no data; ClickHouseException if it fails before its first block."""
        format = (statement.output_format or default_format) if statement.verb in RESULT_VERBS else ""
        if statement.verb in ("SELECT", "WITH", "FROM") and format in BLOCK_FORMATS and not statement.inserts:
            return self._stream(sql, format, params)
        started = time.perf_counter_ns()
        answer = self.query(sql, format or default_format, params)
        read = summary(started, "read", answer.storage_rows_read(), answer.storage_bytes_read())
        written = summary(started, "written", answer.rows_written(), answer.bytes_written())
        return Result(generate([answer.bytes()]), format, read | written)

    def _stream(self, sql: bytes, format: str, params: Mapping[str, str]) -> Result:
        started = time.perf_counter_ns()

        def blocks() -> Generator[bytes, None, None]:
            rows = size = 0
            try:
                with self.connection.send_query(sql, format, params=dict(params)) as stream:
                    yield b""
                    for block in stream:
                        rows, size = rows + block.rows_read(), size + block.bytes_read()
                        result.summary |= summary(started, "read", rows, size)
                        yield block.bytes()
            except RuntimeError as error:
                raise ClickHouseException.of_engine(error) from error

        result = Result(blocks(), format, summary(started, "read", 0, 0))
        next(result.parts)
        return result

    def insert(self, into: str, format: str, params: Mapping[str, str], data: BinaryIO) -> Result:
        """Run `into FORMAT format` on data, which the engine parses while it is handed over."""
        started = time.perf_counter_ns()
        for name, value in params.items():
            self.query(f"{OWN}SET param_{name} = {quote(value)}")
        try:
            with self.connection.send_insert(into, format) as insert:
                while part := data.read(CHUNK):
                    insert.append(part)
                done = insert.finish()
        except RuntimeError as error:
            raise ClickHouseException.of_engine(error) from error
        return Result(generate(()), "", summary(started, "written", done.rows_written, done.bytes_written))


def generate(parts: Iterable[bytes]) -> Generator[bytes, None, None]:
    """Parts that are there already, as a result's parts."""
    yield from parts


def summary(started_ns: int, direction: str, rows: int, size: int) -> dict[str, str]:
    """Counts under the names of X-ClickHouse-Summary; direction is read or written, size in bytes."""
    elapsed = time.perf_counter_ns() - started_ns
    return {f"{direction}_rows": str(rows), f"{direction}_bytes": str(size), "elapsed_ns": str(elapsed)}


class Engine:
    """The embedded server: sessions over one data folder. Statements of different sessions run in parallel."""

    def __init__(self, path: Path) -> None:
        import chdb

        path.mkdir(parents=True, exist_ok=True)
        config = path / "sandbox_config.xml"
        config.write_text(CONFIG)
        self._connect = chdb.connect
        self._path = str(path.resolve())
        try:
            self._first = Session(chdb.connect(f"{self._path}?{urlencode({'config-file': str(config)})}"))
        except RuntimeError as error:
            raise ClickHouseException.of_engine(error) from error
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        self.version = self._value("version()")
        self._first.query("SYSTEM FLUSH LOGS")  # creates the log's table
        self._first.query(QUERY_LOG)

    def _value(self, expression: str) -> str:
        return self._first.query(f"{OWN}SELECT {expression}", "TSVRaw").bytes().decode().strip()

    def error_name(self, code: int) -> str:
        """The symbolic name of an exception code, such as UNKNOWN_TABLE for 60."""
        return self._value(f"errorCodeToName({code})")

    @contextmanager
    def session(self, session_id: str, timeout: float, *, must_exist: bool = False) -> Iterator[Session]:
        """A session for one request: the named one, kept for `timeout` seconds after it, or one that ends with it."""
        session = self._named_session(session_id, must_exist) if session_id else self._open()
        try:
            yield session
        finally:
            if session_id:
                session.expires = time.monotonic() + timeout
                session.lock.release()
            else:
                session.connection.close()

    def _open(self) -> Session:
        # clickhouse-local's default, which chDB shares, takes `x` for `SELECT x`; a server does not.
        return Session(self._connect(f"{self._path}?implicit_select=0"))

    def _named_session(self, session_id: str, must_exist: bool) -> Session:
        with self._lock:
            now = time.monotonic()
            for name, session in list(self._sessions.items()):
                if session.expires < now and session.lock.acquire(blocking=False):
                    session.connection.close()
                    del self._sessions[name]
            if session_id not in self._sessions:
                if must_exist:
                    raise ClickHouseException(372, "SESSION_NOT_FOUND", "Session not found.")
                self._sessions[session_id] = self._open()
            session = self._sessions[session_id]
            if not session.lock.acquire(blocking=False):
                message = f"Session {session_id} is locked by a concurrent client."
                raise ClickHouseException(373, "SESSION_IS_LOCKED", message)
            session.expires = float("inf")
            return session

    def close(self) -> None:
        """Close every connection that no request is using; the engine ends with its last connection."""
        with self._lock:
            for session in self._sessions.values():
                if session.lock.acquire(blocking=False):
                    session.connection.close()
        self._first.connection.close()
