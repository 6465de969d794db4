"""Traces in files: OTLP/JSON as the OpenTelemetry Collector's exporters write it, one request a line, or flat records.

A call may be told by a span and by events in other lines and files, and by each more than once. So everything of
interest is first put aside in a temporary database on disk, by span; memory stays flat however much there is.
"""

import gzip
import json
import pickle
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from optiinfra_pipelines.clouds.collecting import Source
from optiinfra_pipelines.clouds.focus.locations import Location, StoredObject, open_location
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.llm.genai import CALL_EVENTS, MARKS, happened, interaction
from optiinfra_pipelines.llm.interaction import Found, Interaction, Unreadable
from optiinfra_pipelines.llm.otlp import Event, Span, telemetry
from optiinfra_pipelines.places import LlmSource
from optiinfra_pipelines.windows import Window, as_utc

LATE = timedelta(hours=1)  # a span is written when its call has ended and its batch is full: within the hour
_NAMES = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz")
_SHOWN = 2_000  # characters of a line that is no JSON
_NEVER = datetime.min.replace(tzinfo=UTC)
# The rowid keeps the order in which things were read; nothing of it outlives the connection, so no journal is kept.
_TOLD = """
PRAGMA journal_mode = OFF;
CREATE TABLE told (call BLOB NOT NULL, digest BLOB NOT NULL, told BLOB NOT NULL, UNIQUE (call, digest));
"""


def trace_interactions(source: Source, place: LlmSource, span: Window) -> Iterator[Found]:
    """Every call of a model that began in `span` and is told in the files below the place, each once.

    Files are .json, .jsonl and .ndjson, compressed by gzip where .gz follows. With `place.folders` only those of the
    hours of `span` and of LATE after are listed; without, files that were last changed before `span` are left out.
    CollectionError where the location cannot be read; a line or file that cannot be read is Unreadable.
    """
    location = open_location(place, source.credentials)
    with closing(sqlite3.connect("")) as aside, TemporaryDirectory() as folder:
        aside.executescript(_TOLD)
        for stored in _objects(location, place, span):
            yield from _put_aside(aside, location, stored, span, Path(folder))
        yield from _called(aside, place, span)


def _objects(location: Location, place: LlmSource, span: Window) -> Iterator[StoredObject]:
    if place.folders is None:
        begin = as_utc(span.start).timestamp() * 1e9
        found = (each for each in location.list() if not (each.version.isdecimal() and int(each.version) < begin))
    else:
        found = (each for folder in _folders(place.folders, span) for each in location.list(folder))
    for stored in found:
        if stored.path.lower().endswith(_NAMES) or stored.path == location.root:
            yield stored


def _folders(pattern: str, span: Window) -> list[str]:
    """The folders of the hours from the first of `span` until LATE after its end, in order."""
    hour = as_utc(span.start).replace(minute=0, second=0, microsecond=0)
    folders = []
    while hour < as_utc(span.end) + LATE:
        folders.append(hour.strftime(pattern).strip("/"))
        hour += timedelta(hours=1)
    return list(dict.fromkeys(folders))


def _put_aside(
    aside: sqlite3.Connection, location: Location, stored: StoredObject, span: Window, folder: Path
) -> Iterator[Unreadable]:
    """Put aside what one file tells of calls of models in `span`; gives what cannot be read."""
    path = location.fetch(stored, folder)
    try:
        for told in _records(path, stored):
            if isinstance(told, Unreadable):
                yield told
            elif _matters(told, span):
                _keep(aside, told)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield Unreadable({"file": stored.uri}, f"is no whole gzip file ({type(error).__name__})")
    except OSError as error:
        raise CollectionError(
            "transient", f"{stored.uri} cannot be read ({error.strerror or error}); run again"
        ) from error
    finally:
        if path.is_relative_to(folder):
            path.unlink()


def _records(path: Path, stored: StoredObject) -> Iterator[Span | Event | Unreadable]:
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1 and line.strip() in (b"[", b"{"):  # one value over many lines
                line += file.read()
            if line.strip():
                yield from _line(line, {"file": stored.uri, "line": number})


def _line(line: bytes, where: dict[str, Any]) -> list[Span | Event | Unreadable]:
    try:
        return [
            Unreadable(where | dict(told.record), told.reason) if isinstance(told, Unreadable) else told
            for told in telemetry(json.loads(line))
        ]
    except (ValueError, RecursionError):
        reason = "is no JSON" if line.endswith(b"\n") else "is no JSON as far as it goes: the file ends within the line"
        return [Unreadable(where | {"text": line[:_SHOWN].decode(errors="replace")}, reason)]


def _matters(told: Span | Event, span: Window) -> bool:
    """Whether it is about a model, and may be about a call that began in `span`."""
    if isinstance(told, Event):
        if told.name not in CALL_EVENTS:
            return False
    elif not any(mark in told.attributes for mark in MARKS):
        return False
    began, ended = happened(told)
    latest = span.end + LATE if isinstance(told, Event) else span.end
    return began is None or ended is None or (began < latest and ended >= span.start)


def _keep(aside: sqlite3.Connection, told: Span | Event) -> None:
    digest = sha256(repr(told).encode(errors="replace")).digest()
    call = f"{told.trace_id}:{told.span_id}" if told.trace_id and told.span_id else ""
    call = call or str(told.attributes.get("gen_ai.response.id") or digest.hex())
    row = (call.encode(errors="replace"), digest, pickle.dumps(told, pickle.HIGHEST_PROTOCOL))
    aside.execute("INSERT OR IGNORE INTO told VALUES (?, ?, ?)", row)


def _called(aside: sqlite3.Connection, place: LlmSource, span: Window) -> Iterator[Found]:
    rows = aside.execute("SELECT call, told FROM told ORDER BY call, rowid")
    for _, of_call in groupby(rows, key=lambda row: bytes(row[0])):
        pieces: list[Span | Event] = [pickle.loads(blob) for _, blob in of_call]
        events = [each for each in pieces if isinstance(each, Event)]
        # of a span that was also written before its end, the whole
        whole = max(
            (each for each in pieces if isinstance(each, Span)), key=lambda each: each.end or _NEVER, default=None
        )
        found = interaction(whole, events, place.application_label, place.variant_label)
        began = found.timestamp if isinstance(found, Interaction) else happened(whole or events[0])[0]
        if found is not None and (began is None or span.contains(began)):
            yield replace(found, at=began) if isinstance(found, Unreadable) else found
