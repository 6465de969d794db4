"""Labelled answers out of the files that a judge is calibrated on: HaluEval's and RAGTruth's. Records in, texts and
labels out; asking the judge is in `calibration.py`."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.llm.interaction import Texts

HALLUCINATION = "hallucination"
SOURCES = "source_info.jsonl"  # of RAGTruth: what its answers rest on, beside the file of the answers
_SHAPES = (
    "HaluEval general (user_query, chatgpt_response, hallucination), HaluEval question answering (knowledge, question, "
    "right_answer, hallucinated_answer), dialogue (knowledge, dialogue_history, right_response, hallucinated_response) "
    "and summarization (document, right_summary, hallucinated_summary), RAGTruth (source_id, response, labels)"
)
_SUMMARIZE = "Summarize the document."  # what HaluEval's summaries were asked for; the file has no words for it

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Labelled:
    """One answer and, by metric, whether people found the fault in it. `id` is unique within its file."""

    id: str
    texts: Texts
    labels: Mapping[str, bool]


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no labelled answer: file name, number from 1, and the reason, without values."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """What a file holds: its labelled answers, and the lines that are none."""

    items: tuple[Labelled, ...]
    bad: tuple[BadLine, ...]


class _Unusable(ValueError):
    """A record that is no labelled answer; the message is the reason."""


class _UnknownShape(_Unusable):
    """A record of none of the shapes."""


def read_labelled(path: Path) -> LabelledFile:
    """The labelled answers of a file of JSON lines of one of the shapes; blank lines are no lines.

    CollectionError where the file, or RAGTruth's source_info.jsonl beside it, cannot be read (not_configured), and
    where no line has a known shape (malformed).
    """
    items: dict[str, Labelled] = {}
    bad: list[BadLine] = []
    sources: Mapping[str, Record] | None = None
    known = False
    for number, line in _lines(path):
        try:
            record = _record(line)
            if _has(record, "source_id", "response", "labels") and sources is None:
                sources = _sources(path, bad)
            for item in _items(record, number, sources or {}):
                name = item.id if item.id not in items else f"{item.id}@{number}"
                items[name] = replace(item, id=name)
            known = True
        except _Unusable as error:
            known = known or not isinstance(error, _UnknownShape)
            bad.append(BadLine(path.name, number, str(error)))
    if not known:
        raise CollectionError("malformed", f"{path} has no line of a known shape; known are, one a line: {_SHAPES}")
    return LabelledFile(tuple(items.values()), tuple(bad))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as lines:
            yield from ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    except OSError as error:
        raise CollectionError("not_configured", f"{path} cannot be read: {error.strerror}") from error


def _record(line: bytes) -> Record:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise _UnknownShape("no JSON") from None
    if not isinstance(record, dict):
        raise _UnknownShape("no JSON object")
    return record


def _sources(path: Path, bad: list[BadLine]) -> dict[str, Record]:
    """RAGTruth's sources by id; lines that are none go to `bad`."""
    beside = path.with_name(SOURCES)
    if not beside.is_file():
        raise CollectionError("not_configured", f"{path} is RAGTruth's: its {SOURCES} must lie beside it")
    found: dict[str, Record] = {}
    for number, line in _lines(beside):
        try:
            record = _record(line)
            if not _has(record, "source_id", "source_info", "prompt"):
                raise _UnknownShape("without source_id, source_info or prompt")
            found[str(record["source_id"])] = record
        except _Unusable as error:
            bad.append(BadLine(SOURCES, number, str(error)))
    return found


def _items(record: Record, line: int, sources: Mapping[str, Record]) -> Iterator[Labelled]:
    if _has(record, "user_query", "chatgpt_response", HALLUCINATION):
        yield _general(record, line)
    elif _has(record, "knowledge", "question", "right_answer", "hallucinated_answer"):
        yield from _pair(record, line, "answer", _text(record, "knowledge"), _text(record, "question"))
    elif _has(record, "knowledge", "dialogue_history", "right_response", "hallucinated_response"):
        yield from _pair(record, line, "response", _text(record, "knowledge"), _text(record, "dialogue_history"))
    elif _has(record, "document", "right_summary", "hallucinated_summary"):
        yield from _pair(record, line, "summary", _text(record, "document"), _SUMMARIZE)
    elif _has(record, "source_id", "response", "labels"):
        yield _ragtruth(record, line, sources)
    else:
        raise _UnknownShape("its fields are of no known shape")


def _general(record: Record, line: int) -> Labelled:
    label = {"yes": True, "no": False}.get(str(record[HALLUCINATION]).strip().lower())
    if label is None:
        raise _Unusable(f"{HALLUCINATION} is neither yes nor no")
    texts = Texts(input=_text(record, "user_query"), output=_text(record, "chatgpt_response"))
    return Labelled(str(record.get("ID", line)), texts, {HALLUCINATION: label})


def _pair(record: Record, line: int, answer: str, context: str, question: str) -> Iterator[Labelled]:
    """Two answers to one question: the right one and the hallucinated one; neither where one of them is no text."""
    right, wrong = _text(record, f"right_{answer}"), _text(record, f"hallucinated_{answer}")
    yield Labelled(f"{line}-right", Texts("", context, question, right), {HALLUCINATION: False})
    yield Labelled(f"{line}-hallucinated", Texts("", context, question, wrong), {HALLUCINATION: True})


def _ragtruth(record: Record, line: int, sources: Mapping[str, Record]) -> Labelled:
    """Positive where a span is marked, but for spans marked `implicit_true`: true by common knowledge, which the
    rubric counts as supported."""
    spans = record["labels"]
    if not isinstance(spans, list) or not all(isinstance(span, dict) for span in spans):
        raise _Unusable("labels is no list of spans")
    source = sources.get(str(record["source_id"]))
    if source is None:
        raise _Unusable(f"its source is not in {SOURCES}")
    context, question = _asked(source)
    label = any(span.get("implicit_true") is not True for span in spans)
    texts = Texts("", context, question, _text(record, "response"))
    return Labelled(str(record.get("id", line)), texts, {HALLUCINATION: label})


def _asked(source: Record) -> tuple[str, str]:
    """What the answers of a source rest on, and their prompt without it. `source_info` is a text (summaries), has
    passages (questions) or is an object, which the prompt quotes as Python writes it (data to text)."""
    info = source["source_info"]
    if isinstance(info, dict) and isinstance(info.get("passages"), str):
        info = info["passages"]
    if not isinstance(info, str | dict) or not str(info).strip():
        raise _Unusable("source_info of its source is neither a text nor an object")
    context = info if isinstance(info, str) else json.dumps(info, ensure_ascii=False)
    return context, _text(source, "prompt").replace(str(info).strip(), "(the context)")


def _has(record: Record, *names: str) -> bool:
    return all(name in record for name in names)


def _text(record: Record, name: str) -> str:
    value = record[name]
    if not isinstance(value, str):
        raise _Unusable(f"{name} is no text")
    if not value.strip():
        raise _Unusable(f"{name} is empty")
    return value
