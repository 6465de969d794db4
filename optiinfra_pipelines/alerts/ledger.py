"""When an alert is due: pure bookkeeping over what was observed in an event log. A failure is told once, its recovery
once, and nothing is forgotten until it was delivered. No Dagster here and no network."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from optiinfra_pipelines.alerts.message import Alert

MOST_ALERTS = 20  # in one message; Slack takes at most 50 blocks, and nobody reads further
MOST_FAILING = 1_000  # subjects remembered as failing; the cursor stays below about 100 kB


@dataclass(frozen=True)
class Observation:
    """Something seen in the event log at storage id `position`: `subject` is failing in the way `failure` names
    (for example ERROR), or is well (None). `alert` is what there is to say if that is news; None: say nothing."""

    position: int
    subject: str
    failure: str | None
    alert: Alert | None


@dataclass(frozen=True)
class Page:
    """The observations after some position, ascending, and the position up to which the event log was read."""

    observations: Sequence[Observation]
    position: int


@dataclass(frozen=True)
class Ledger:
    """How far one notifier has been told, and what it has been told is failing: subject -> failure."""

    position: int | None = None
    failing: Mapping[str, str] = field(default_factory=dict)

    def after(self, page: Page) -> tuple["Ledger", tuple[Alert, ...]]:
        """The ledger once the alerts that `page` makes due are delivered, and those alerts.

        News is a subject that begins to fail, fails in another way, or recovers. At most MOST_ALERTS at a time (what
        was observed at one position stays together); the rest of the page is due at the next call.
        """
        failing = dict(self.failing)
        due: list[Alert] = []
        for position, together in groupby(page.observations, key=lambda observation: observation.position):
            news = _news(failing, together)
            if due and len(due) + len(news) > MOST_ALERTS:
                return Ledger(position - 1, _newest(failing)), tuple(due)
            for observation in news:
                _remember(failing, observation)
            due += [observation.alert for observation in news if observation.alert]
        return Ledger(page.position, _newest(failing)), tuple(due)


def _news(failing: Mapping[str, str], observations: Iterable[Observation]) -> list[Observation]:
    latest = {observation.subject: observation for observation in observations}  # at one position the last one counts
    return [observation for observation in latest.values() if failing.get(observation.subject) != observation.failure]


def _remember(failing: dict[str, str], observation: Observation) -> None:
    failing.pop(observation.subject, None)
    if observation.failure is not None:
        failing[observation.subject] = observation.failure


def _newest(failing: dict[str, str]) -> dict[str, str]:
    return dict(list(failing.items())[-MOST_FAILING:])


@dataclass(frozen=True)
class Cursor:
    """A sensor's memory between ticks: one ledger per notifier, so that a dead channel holds up only itself."""

    ledgers: Mapping[str, Ledger] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None) -> "Cursor":
        """The cursor from its JSON; an empty one for None. ValueError where the text is not such JSON."""
        stored = json.loads(text) if text else {}
        return cls({name: Ledger(entry["position"], entry["failing"]) for name, entry in stored.items()})

    def to_json(self) -> str:
        """The cursor as JSON, readable in the web UI."""
        return json.dumps(
            {name: {"position": kept.position, "failing": dict(kept.failing)} for name, kept in self.ledgers.items()}
        )

    def ledger(self, name: str) -> Ledger:
        """The ledger of notifier `name`; for one not seen before (a rotated token, a first Slack channel) the ledger
        that is furthest, so that a change of settings neither repeats old alerts nor loses those still owed."""
        if name in self.ledgers:
            return self.ledgers[name]
        return max(self.ledgers.values(), key=lambda kept: kept.position or 0, default=Ledger())
