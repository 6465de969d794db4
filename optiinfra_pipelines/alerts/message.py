"""What an alert says: the Alert itself and its two forms, text for people and one JSON object for machines."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["failed_check", "recovered_check", "failed_run", "recovered_run", "stale", "fresh"]
Severity = Literal["ERROR", "WARN"]

MOST_NUMBERS = 3
MOST_DETAIL = 300  # characters; the run page, one link away, has the rest
# Dagster returns metadata sorted by name, so what a check measured goes first by these names, then the rest.
LEADING_NUMBERS = ("observed", "baseline", "threshold", "margin", "expected", "difference", "sample_size")
_NOT_MEASURED = ("Execution Duration",)  # dagster-dbt puts it on every test

_VERB: dict[Kind, str] = {
    "failed_check": "failed",
    "recovered_check": "recovered",
    "failed_run": "run failed",
    "recovered_run": "run recovered",
    "stale": "is stale",
    "fresh": "is fresh again",
}


@dataclass(frozen=True)
class Alert:
    """One change that someone should know of.

    `asset` is schema.table, or for a run the job; `check` is None unless the alert is about a check; `numbers` are
    the first three measures; `link` leads to the run (for freshness: to the asset); `detail` is one short sentence.
    """

    kind: Kind
    customer: str
    provider: str
    asset: str
    check: str | None
    severity: Severity
    numbers: tuple[tuple[str, float], ...]
    link: str
    partition: str | None = None
    detail: str = ""

    @property
    def is_recovery(self) -> bool:
        return self.kind in ("recovered_check", "recovered_run", "fresh")

    @property
    def title(self) -> str:
        """One line: what changed, where, whose, and how grave."""
        what = f"{self.check} {_VERB[self.kind]} on {self.asset}" if self.check else f"{self.asset} {_VERB[self.kind]}"
        return f"{'OK' if self.is_recovery else self.severity}: {what} ({self.customer}, {self.provider})"

    @property
    def text(self) -> str:
        """A few lines: customer, provider, asset, check, numbers, detail and link."""
        lines = [f"customer: {self.customer} · provider: {self.provider} · asset: {self.asset}"]
        if self.check:
            lines.append(f"check: {self.check}")
        if self.partition:
            lines.append(f"partition: {self.partition}")
        if self.numbers:
            lines.append(", ".join(f"{name} = {format_number(value)}" for name, value in self.numbers))
        if self.detail:
            lines.append(self.detail)
        return "\n".join([*lines, self.link])

    def as_json(self) -> dict[str, Any]:
        """The alert as a JSON object; a number that is not finite becomes text."""
        return {
            "kind": self.kind,
            "title": self.title,
            "customer": self.customer,
            "provider": self.provider,
            "asset": self.asset,
            "check": self.check,
            "partition": self.partition,
            "severity": self.severity,
            "numbers": {name: value if math.isfinite(value) else str(value) for name, value in self.numbers},
            "detail": self.detail,
            "link": self.link,
        }


def first_numbers(measures: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """The three measures that an alert shows: those named in LEADING_NUMBERS first, then the others as they come."""
    leading = [name for name in LEADING_NUMBERS if name in measures]
    others = [name for name in measures if name not in LEADING_NUMBERS and name not in _NOT_MEASURED]
    return tuple((name.rpartition("/")[2], measures[name]) for name in [*leading, *others][:MOST_NUMBERS])


def format_number(value: float) -> str:
    """Digits as a person reads them: integers whole, fractions to six significant digits, no exponent below 1e15."""
    if isinstance(value, int) or (math.isfinite(value) and abs(value) < 1e15 and value == int(value)):
        return f"{int(value):,}"
    return f"{value:,.2f}" if 1e4 <= abs(value) < 1e15 else f"{value:.6g}"


def shorten(text: str) -> str:
    """`text` on one line of at most MOST_DETAIL characters."""
    line = " ".join(text.split())
    return line if len(line) <= MOST_DETAIL else line[: MOST_DETAIL - 1] + "…"


def headline(alerts: Sequence[Alert]) -> str:
    """Title of one message that carries `alerts`: the alert's own where there is one, else how many of which kind."""
    if len(alerts) == 1:
        return alerts[0].title
    recovered = sum(alert.is_recovery for alert in alerts)
    failed = len(alerts) - recovered
    counts = [f"{failed} new failure{'s' if failed > 1 else ''}"] if failed else []
    counts += [f"{recovered} recovered"] if recovered else []
    return "OptiInfra: " + ", ".join(counts)


def body(alerts: Iterable[Alert]) -> str:
    """Text of one message that carries `alerts`, each under its title."""
    return "\n\n".join(f"{alert.title}\n{alert.text}" for alert in alerts)
