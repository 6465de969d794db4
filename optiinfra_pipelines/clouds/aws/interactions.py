"""Bedrock's model invocation logs in a bucket or folder: which objects matter for a span of time, and their records.

What a record means is in `llm/bedrock.py`.
https://docs.aws.amazon.com/bedrock/latest/userguide/model-invocation-logging.html
"""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from optiinfra_pipelines.clouds.collecting import Source
from optiinfra_pipelines.clouds.focus.locations import Location, StoredObject, open_location
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.llm.bedrock import logged_at, parse
from optiinfra_pipelines.llm.interaction import Found, Interaction, Unreadable
from optiinfra_pipelines.places import CREDENTIALS, LlmSource
from optiinfra_pipelines.windows import Window, as_utc

_HOUR = timedelta(hours=1)
LATENESS = _HOUR
"""How long after a request its record may be written: so long after a span's end folders are still looked at."""

_ELSEWHERE = re.compile(r"HTTP status (?:301|307|400)")  # what S3 says of a bucket in another region
_ROOT, _LOGS, _BODIES = "AWSLogs", "BedrockModelInvocationLogs", "/data/"


def bedrock_interactions(source: Source, place: LlmSource, span: Window) -> Iterator[Found]:
    """Every interaction of `span` in the logs at `place`, each once, and every line there that cannot be read; one that
    tells no time lies where the hour of its folder begins.

    `place.location` holds AWSLogs, or is it; all its accounts and regions are read, or those that the connection
    names. Of each, only the folders of the hours from the span's first to LATENESS after its end are listed. What is
    kept in memory is one object at a time and the ids of a region. A body in an object of its own is looked for below
    the location, and then where the log says; without it that text is missing. CollectionError: not_configured where
    there are no such logs; auth, throttled, transient.
    """
    logs = _Logs(source, place, open_location(place, _credentials(source, place)))
    for folder in logs.regions():
        seen: set[str] = set()
        for hour in _hours(span):
            for stored in logs.objects(f"{folder}/{hour:%Y/%m/%d/%H}"):
                for found in _records(logs, stored, span):
                    if isinstance(found, Interaction):
                        if found.native_id in seen:
                            continue
                        seen.add(found.native_id)
                    else:
                        found = replace(found, at=logged_at(found.record) or hour)
                        if not span.contains(found.at or hour):
                            continue  # it tells no time: it counts where its hour begins
                    yield found


def _credentials(source: Source, place: LlmSource) -> dict[str, Any]:
    return {name: value for name, value in source.credentials.items() if name in CREDENTIALS[place.scheme]}


def _hours(span: Window) -> Iterator[datetime]:
    at = as_utc(span.start).replace(minute=0, second=0, microsecond=0)
    while at < as_utc(span.end) + LATENESS and span.start < span.end:
        yield at
        at += _HOUR


@dataclass(frozen=True)
class _Logs:
    """The logs at one place, and the account of requests for them."""

    source: Source
    place: LlmSource
    location: Location

    def regions(self) -> list[str]:
        """The folders of regions, below the location, that the connection wants."""
        connection = self.source.connection
        root = "" if self.location.root.rpartition("/")[2] == _ROOT else _ROOT
        accounts = [f"{each}/{_LOGS}".lstrip("/") for each in self._folders(root, connection.accounts)]
        found = [folder for each in accounts for folder in self._folders(each, ())]
        if not found:
            raise CollectionError(
                "not_configured",
                f"{self.location.uri} has no {_ROOT}/<account>/{_LOGS}/<region>"
                f"{' of accounts ' + ', '.join(connection.accounts) if connection.accounts else ''}; check the location"
                " and that Bedrock's model invocation logging is on",
            )
        return [each for each in found if not connection.regions or each.rpartition("/")[2] in connection.regions]

    def objects(self, hour: str) -> list[StoredObject]:
        """The logs of one hour, by path: neither bodies nor what Bedrock writes to try its permission."""
        self._count("ListObjectsV2")
        return [
            each
            for each in self.location.list(hour)
            if each.path.endswith((".json.gz", ".json")) and _BODIES not in each.path.partition(hour)[2]
        ]

    def read(self, stored: StoredObject) -> bytes:
        self._count("GetObject")
        return self.location.read(stored)

    def body(self, uri: str) -> bytes | None:
        """The object of a large body; None where it is gone, or not ours to read."""
        path = uri.partition("://")[2]
        if ".." in path.split("/"):
            return None
        below = path.partition(f"{_ROOT}/")[2]
        root = self.location.root.removesuffix(f"/{_ROOT}")
        paths = [f"{root}/{_ROOT}/{below}"] if below else []
        paths += [path] if self.place.scheme == "s3" else []
        for each in dict.fromkeys(paths):
            try:
                self._count("HeadObject")
                if (stored := self.location.object_at(each)) is not None:
                    return self.read(stored)
            except CollectionError as error:
                if error.kind not in ("auth", "not_configured") and not _ELSEWHERE.search(str(error)):
                    raise
        return None

    def _folders(self, below: str, wanted: tuple[str, ...]) -> list[str]:
        """Folders right below `below`, whose names are `wanted` where any are, as paths below the location."""

        self._count("ListObjectsV2")
        return [f"{below}/{name}".lstrip("/") for name in self.location.folders(below) if not wanted or name in wanted]

    def _count(self, operation: str) -> None:
        if self.place.scheme:
            self.source.calls.add(self.place.scheme, operation)


def _records(logs: _Logs, stored: StoredObject, span: Window) -> Iterator[Found]:
    number = 0
    try:
        for number, line in enumerate(_lines(logs.read(stored), stored), start=1):
            if line.strip():
                yield from _record(logs, line, span, {"object": stored.uri, "line": number})
    except (EOFError, gzip.BadGzipFile, zlib.error):
        yield Unreadable({"object": stored.uri, "line": number + 1}, "the object's gzip is broken from here on")


def _lines(content: bytes, stored: StoredObject) -> Iterator[bytes]:
    stream = io.BytesIO(content)
    return gzip.GzipFile(fileobj=stream) if stored.path.endswith(".gz") else stream


def _record(logs: _Logs, line: bytes, span: Window, where: dict[str, Any]) -> Iterator[Found]:
    """The interaction of a line, where it lies in `span`; a large body is fetched for no other."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        yield Unreadable(where, "the line is no JSON that can be read")
        return
    if not isinstance(record, dict):
        yield Unreadable(where, "the line is no JSON object")
        return
    at = logged_at(record)
    if at is not None and not span.contains(at):
        return
    try:
        yield parse(record, logs.place, logs.body)
    except RecursionError:
        yield Unreadable(where, "a body is nested too deeply to be read")
