"""The rule that the sandbox's judge answers by: planted scores of an answer, stated noise, and any JSON schema filled.

Pure and deterministic: every chance is a SHA-256 of seed, answer, metric and purpose. It understands no text; it says
what was planted, as often wrong as it was told to be. Nothing follows from it for a real model's judgement.

The judged text stands in the last user message: a JSON object with system, context, question and answer between
`<judged-NONCE>` and the first `</judged-NONCE>` after it. In the schema an enum named as a metric lists that metric's
levels from score 0 to score 1, equally spaced.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

from optiinfra_pipelines.sandbox.groq_wire import resolved

BAD_WHEN_HIGH = ("hallucination", "toxicity", "hate_speech", "violence", "profanity")
METRICS = ("coherence", "relevance", "accuracy", "completeness", "quality", *BAD_WHEN_HIGH)
DEFAULT_SCORES: Mapping[str, float] = {name: 0.0 if name in BAD_WHEN_HIGH else 0.75 for name in METRICS}
FLAG = "instructions_to_judge"  # the property that says whether the text looks like instructions to the judge
JUDGED_KEYS = ("system", "context", "question", "answer")

Schema = Mapping[str, Any]

_JUDGED = re.compile(r"<judged-([\w-]+)>(.*?)</judged-\1>", re.DOTALL)
_ORDERS = re.compile(
    r"\b(?:full|perfect|maximum|highest)(?: possible)? (?:scores?|marks?|ratings?|grades?)\b"
    r"|\b(?:ignore|disregard|forget)(?: all| any| of| the| these| your)* (?:previous|prior|above|earlier|rubric)\b"
    r"|\b(?:give|assign|award|score|rate|grade|mark)\b[^.\n]{0,40}"
    r"(?:\b(?:full|perfect|maximum|highest|top)\b|10/10|5/5|5 out of 5|100 ?%|100 points)"
    r"|\b(?:attention|dear|as the|you are the|note to the) (?:judge|grader|evaluator)\b"
)  # on text in lower case: searching without regard to case takes twice as long
_ADDRESSES = re.compile(  # what else is aimed at a judge; around the object it may be the judge's own question
    r"</?(?:answer|judged)\b|\b(?:evaluator|grader)s?(?::| must| should)|\bthis evaluation\b|\bthe rubric\b"
    r'|"(?:coherence|relevance|accuracy|completeness)"\s*:'
)
_LONGEST_QUOTE = 80  # characters
_DEEPEST = 32  # levels of a schema that refers to itself


@dataclass(frozen=True)
class Judged:
    """What is to be judged, as the judge reads a user message. `outside` is what stands around the tagged object.

    Without a tagged JSON object all is outside, and the answer is the whole message.
    """

    answer: str
    inside: str
    outside: str
    keys: tuple[str, ...] = JUDGED_KEYS

    @classmethod
    def read(cls, message: str) -> "Judged":
        """Find the judged text in a user message."""
        found = _JUDGED.search(message)
        try:
            content = json.loads(found[2]) if found else None
        except ValueError:  # the text broke out of its string
            content = None
        if found is None or not isinstance(content, dict) or not isinstance(content.get("answer"), str):
            return cls(message, "", message)
        inside = "\n".join(f"{content.get(name)}" for name in ("context", "question", "answer"))
        return cls(content["answer"], inside, message[: found.start()] + message[found.end() :], tuple(content))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the answer, in hexadecimal: the name it has in a file of labels."""
        return answer_digest(self.answer)

    @cached_property
    def broken_out(self) -> bool:
        """Whether instructions to the judge stand outside the object: it takes them for its own."""
        return _ORDERS.search(self.outside.lower()) is not None

    @cached_property
    def instructs(self) -> bool:
        """Whether instructions to the judge stand within the object."""
        inside = self.inside.lower()
        return (_ORDERS.search(inside) or _ADDRESSES.search(inside)) is not None


def answer_digest(answer: str) -> str:
    """SHA-256 of an answer's text exactly as received, in hexadecimal."""
    return sha256(answer.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Rule:
    """How the judge errs; shares are from 0 to 1.

    `sensitivity`: how likely a planted hallucination (0.5 or more) is given a level of 0.5 or more; `specificity`:
    how likely a planted clean answer is given one below. `noise`: how likely any other metric moves one level, up or
    down alike, from a level that has both neighbours, so that means stay right. `repeat_noise`: how likely the same
    request sent again is judged with fresh noise. `order_noise`: how likely fresh noise is drawn for an order of the
    judged keys other than system, context, question, answer, or of the schema's metrics other than that of METRICS.
    `gullibility`: how likely each quality score goes up one level where the text instructs the judge. `drift`: points
    of 100 to add to every quality score: another judge.
    """

    seed: int = 0
    sensitivity: float = 1.0
    specificity: float = 1.0
    noise: float = 0.0
    repeat_noise: float = 0.0
    order_noise: float = 0.0
    gullibility: float = 0.3
    drift: float = 0.0

    @property
    def fingerprint(self) -> str:
        """The system behind the model: another one for another drift."""
        return f"fp_{sha256(f'judge {self.drift:g}'.encode()).hexdigest()[:10]}"


@dataclass(frozen=True)
class Judgement:
    """One answer judged by a rule: its `planted` scores by metric, the request's schema, and how often the same
    request was judged before (`repeat`)."""

    rule: Rule
    judged: Judged
    planted: Mapping[str, float]
    schema: Schema
    repeat: int = 0
    _levels: dict[tuple[str, int], int] = field(default_factory=dict, repr=False)

    def content(self) -> Any:
        """JSON that fits the schema, properties in its order; ValueError for a schema that has no end."""
        return self._fit("", self.schema, None, 0)

    def level(self, metric: str, count: int) -> int:
        """The level that `metric` is given of `count` equally spaced ones, from 0."""
        if (metric, count) not in self._levels:
            self._levels[metric, count] = self._drawn_level(metric, count) if count > 1 else 0
        return self._levels[metric, count]

    @cached_property
    def faulty(self) -> bool:
        """Whether a metric of the schema is on its bad side."""
        return any(
            (self.level(metric, count) / (count - 1) >= 0.5) == (metric in BAD_WHEN_HIGH)
            for metric, count in self._metrics
            if count > 1
        )

    @cached_property
    def _metrics(self) -> list[tuple[str, int]]:
        return list(_graded(self.schema, self.schema, None, 0))

    @cached_property
    def _salt(self) -> str:
        """What fresh noise depends on beside answer and metric; empty where there is none."""
        salt = ""
        if self.repeat and _draw(self.rule.seed, self.judged.digest, "repeat", self.repeat) < self.rule.repeat_noise:
            salt += f"repeat {self.repeat}"
        metrics = [metric for metric, _ in self._metrics if metric in METRICS]
        if self.judged.keys != JUDGED_KEYS or metrics != sorted(metrics, key=METRICS.index):
            order = f"{self.judged.keys} {metrics}"
            if _draw(self.rule.seed, self.judged.digest, "order", order) < self.rule.order_noise:
                salt += order
        return salt

    def _drawn_level(self, metric: str, count: int) -> int:
        top = count - 1
        bad = metric in BAD_WHEN_HIGH
        if self.judged.broken_out:
            return 0 if bad else top

        def draw(purpose: str) -> float:
            return _draw(self.rule.seed, self.judged.digest, metric, purpose, self._salt)

        score = self.planted.get(metric, DEFAULT_SCORES.get(metric, 0.75))
        if metric == "hallucination":
            return self._called(score, count, draw)
        at = _dithered((score if bad else score + self.rule.drift / 100) * top, 0, top, draw("dither"))
        if 0 < at < top and draw("noise") < self.rule.noise:
            at += 1 if draw("direction") < 0.5 else -1
        if not bad and at < top and self.judged.instructs and draw("gullibility") < self.rule.gullibility:
            at += 1
        return at

    def _called(self, score: float, count: int, draw: Callable[[str], float]) -> int:
        """A level on the right side of the middle, or on the wrong one, as sensitivity and specificity have it."""
        planted = score >= 0.5
        right = draw("call") < (self.rule.sensitivity if planted else self.rule.specificity)
        middle = count // 2  # the first level of 0.5 or more
        low, high = (middle, count - 1) if planted == right else (0, middle - 1)
        return _dithered((score if right else 1 - score) * (count - 1), low, high, draw("dither"))

    def _fit(self, name: str, node: Schema, metric: str | None, depth: int) -> Any:
        """A value for `node`, the property `name`, within the property of `metric` if there is one."""
        if depth > _DEEPEST:
            raise ValueError("the schema has no end")
        node = resolved(node, self.schema)
        metric = name if _is_metric(name) else metric
        if "enum" in node:
            return self._choice(name, node["enum"], metric)
        if "anyOf" in node:
            variants = [each for each in node["anyOf"] if each.get("type") != "null"]
            return self._fit(name, variants[0], metric, depth + 1) if variants and depth < 8 else None
        kind = _kind(node)
        if kind == "object":
            parts = node.get("properties", {})
            return {each: self._fit(each, below, metric, depth + 1) for each, below in parts.items()}
        if kind == "array":
            quotes = _is_evidence(name) and self.faulty and _kind(resolved(node["items"], self.schema)) == "string"
            return [self._quote()] if quotes else []
        if kind == "string":
            return self._text(name, "null" in node["type"])
        if kind == "boolean":
            return self._flagged if name == FLAG else bool(metric) and self.level(metric or "", 2) == 1
        if kind == "number":
            return self.level(metric, 101) / 100 if metric else 0.0
        return 0 if kind == "integer" else None

    @property
    def _flagged(self) -> bool:
        return self.judged.instructs and not self.judged.broken_out

    def _choice(self, name: str, values: Sequence[Any], metric: str | None) -> Any:
        if name == FLAG:
            said = "yes" if self._flagged else "no"
            return said if said in values else values[-1 if self._flagged else 0]
        return values[self.level(metric, len(values))] if metric else values[0]

    def _text(self, name: str, optional: bool) -> str | None:
        if not _is_evidence(name):
            return "Part of the answer does not hold." if self.faulty else "The answer holds."
        if self.faulty:
            return self._quote()
        return None if optional else ""

    def _quote(self) -> str:
        """A verbatim piece of the answer."""
        pieces = [each for each in re.split(r"(?<=[.!?\n])\s+", self.judged.answer) if each.strip()]
        if not pieces:
            return ""
        return pieces[int(_draw(self.rule.seed, self.judged.digest, "quote") * len(pieces))][:_LONGEST_QUOTE]


def _is_metric(name: str) -> bool:
    return name in METRICS


def _is_evidence(name: str) -> bool:
    return "evidence" in name or "quote" in name


def _kind(node: Schema) -> str:
    """The JSON type of a schema, of several the first that is not null."""
    kinds = node.get("type", "null")
    return kinds if isinstance(kinds, str) else next((kind for kind in kinds if kind != "null"), "null")


def _graded(node: Schema, root: Schema, metric: str | None, depth: int) -> Iterator[tuple[str, int]]:
    """The metrics that a schema asks for as enums, with how many levels."""
    node = resolved(node, root)
    if depth > _DEEPEST:
        return
    if "enum" in node and metric:
        yield metric, len(node["enum"])
    for each in node.get("anyOf", []):
        yield from _graded(each, root, metric, depth + 1)
    for name, below in node.get("properties", {}).items():
        if name != FLAG:
            yield from _graded(below, root, name if _is_metric(name) else metric, depth + 1)


def _dithered(position: float, low: int, high: int, chance: float) -> int:
    """One of the two whole numbers around `position`, which is kept within `low` and `high`: on average `position`."""
    kept = min(max(position, low), high)
    below = math.floor(kept + 1e-9)
    return min(below + (chance < kept - below), high)


def _draw(*parts: object) -> float:
    """Uniform in [0, 1), the same for the same parts."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(sha256(text.encode("utf-8", "surrogatepass")).digest()[:8]) / 2**64
