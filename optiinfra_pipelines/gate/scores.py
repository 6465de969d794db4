"""Scores as the gate needs them, read from quality.application_metrics: by series, in the order of time.

A series is one metric of one label by one judge; a label is a model and variant of an application on a provider.
"""

import math
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from functools import cached_property
from typing import Any

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.llm.measuring import MEASURES
from optiinfra_pipelines.quality.monitor import ScoredWindow
from optiinfra_pipelines.quality.policy import METRICS, stratum
from optiinfra_pipelines.quality.sample import Sample
from optiinfra_pipelines.tables.llm import APPLICATION_METRICS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import WINDOW, floor_window

_SEEN_BY = "error"  # measured of every interaction, judged or not
_LARGEST = 1e12  # of a score or weight, as in quality.sample


@dataclass(frozen=True, order=True)
class Label:
    """A model and variant of one application on one provider, of a customer that the caller knows."""

    provider: str
    application_id: str
    model_name: str
    variant: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Label":
        """The label that a row of a table names."""
        return cls(row["provider"], row["application_id"], row["model_name"], row["variant"])

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """What tells it from other labels of the customer, as ids are made of."""
        return self.provider, self.application_id, self.model_name, self.variant

    @property
    def stream(self) -> tuple[str, str]:
        """Provider and application: where its label stands beside others."""
        return self.provider, self.application_id

    def __str__(self) -> str:
        return f"{self.model_name} {self.variant}".strip()


@dataclass(frozen=True, order=True)
class Series:
    """One metric of a label by one judge; the judge of what is measured is empty."""

    label: Label
    metric: str
    judge: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Series":
        """The series that a row of a table names."""
        return cls(Label.of(row), row["metric_type"], row["judge_fingerprint"])

    @property
    def parts(self) -> tuple[str, ...]:
        """What tells it from other series of the customer, as ids are made of."""
        return *self.label.parts, self.metric, self.judge


@dataclass
class Scores:
    """The scores of one series by time, each with its weight, conversation, flag and interaction."""

    at: list[datetime] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    session: list[str | None] = field(default_factory=list)
    flagged: list[bool] = field(default_factory=list)
    interaction: list[str] = field(default_factory=list)

    def sample(self, start: datetime | None = None, end: datetime | None = None, most: int | None = None) -> Sample:
        """Those of [start, end), the newest `most` of them, held against the hours of their day."""
        first = 0 if start is None else bisect_left(self.at, start)
        last = len(self.at) if end is None else bisect_left(self.at, end)
        if most is not None:
            first = max(first, last - most)
        return self._between(first, last)

    def windows(self, start: datetime, end: datetime) -> list[ScoredWindow]:
        """The 15-minute windows of [start, end) that have scores."""
        first, last = bisect_left(self.at, start), bisect_left(self.at, end)
        found = []
        while first < last:
            window = floor_window(self.at[first])
            following = bisect_left(self.at, window + WINDOW, first, last)
            found.append(ScoredWindow(window, self._between(first, following)))
            first = following
        return found

    def _between(self, first: int, last: int) -> Sample:
        return Sample.of(
            self.score[first:last],
            self.weight[first:last],
            self.session[first:last],
            [stratum(at.hour) for at in self.at[first:last]],
            self.flagged[first:last],
        )


@dataclass
class Tally:
    """What a stretch of time holds of one series: usable scores and their weighted mean, and of the scores before a
    mark how many there are and when the newest was collected."""

    n: int = 0
    seen: int = 0
    newest_at: datetime | None = None
    _weights: list[float] = field(default_factory=list)
    _weighted: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float | None:
        """The same bytes in whatever order the scores came; None of no usable score."""
        return math.fsum(self._weighted) / math.fsum(self._weights) if self.n else None

    def add(self, score: float, weight: float, count: int) -> None:
        """Take in so many equal scores."""
        if abs(score) <= _LARGEST and 0 < weight <= _LARGEST:
            self.n += count
            self._weights.append(weight * count)
            self._weighted.append(weight * count * score)


@dataclass(frozen=True)
class DayOf:
    """What one UTC day holds of one series."""

    start: datetime
    scores: int
    usable: int  # not flagged
    first_at: datetime
    last_at: datetime
    newest_at: datetime  # collected


@dataclass(frozen=True)
class Activity:
    """Which series a customer has before `until`, day by day, and the names of its applications."""

    until: datetime
    days: Mapping[Series, tuple[DayOf, ...]]
    names: Mapping[str, str]

    def labels(self, start: datetime | None = None) -> dict[Label, tuple[datetime, datetime]]:
        """First and last time of each label, of those that were seen on a day from `start` on; sorted."""
        found: dict[Label, tuple[datetime, datetime]] = {}
        for series, days in self.days.items():
            chosen = [day for day in days if start is None or day.start >= start]
            if chosen:
                first, last = chosen[0].first_at, max(day.last_at for day in chosen)
                known = found.get(series.label, (first, last))
                found[series.label] = (min(first, known[0]), max(last, known[1]))
        return dict(sorted(found.items()))

    def last_before(self, label: Label, at: datetime) -> datetime | None:
        """When a label was last seen before `at`; of the day that `at` lies in, its first time counts."""
        times = [
            day.last_at if day.last_at < at else day.first_at
            for series, days in self.days.items()
            if series.label == label
            for day in days
            if day.first_at < at
        ]
        return max(times, default=None)

    def judges(self, label: Label, metric: str) -> list[str]:
        """Judges of a metric of a label, the one with the newest score last."""
        found = self._last_by_judge.get((label, metric), {})
        return sorted(found, key=lambda judge: (found[judge], judge))

    @cached_property
    def _last_by_judge(self) -> dict[tuple[Label, str], dict[str, datetime]]:
        found: dict[tuple[Label, str], dict[str, datetime]] = {}
        for series, days in self.days.items():
            found.setdefault((series.label, series.metric), {})[series.judge] = days[-1].last_at
        return found

    def seen(self, series: Series, before: datetime | None = None) -> tuple[int, datetime | None]:
        """How many scores a series has, and when the newest was collected, on days before `before`."""
        days = [day for day in self.days.get(series, ()) if before is None or day.start < before]
        return sum(day.scores for day in days), max((day.newest_at for day in days), default=None)


def is_measured(metric: str) -> bool:
    """Whether a metric needs no judge."""
    return metric in MEASURES


def read_activity(held: Warehouse, customer_id: str, until: datetime) -> Activity:
    """The customer's series before `until`, in one pass over its scores."""
    names = _listed((*METRICS, _SEEN_BY))
    rows = held.query(
        "SELECT provider, application_id, model_name, variant, metric_type, judge_fingerprint,"
        " CAST(timestamp AS DATE) AS day, count(*) AS scores, sum(CASE WHEN flagged THEN 0 ELSE 1 END) AS usable,"
        " min(timestamp) AS first_at, max(timestamp) AS last_at, max(collected_at) AS newest_at,"
        f" max(application_name) AS name FROM {held.current(APPLICATION_METRICS)} m"
        f" WHERE customer_id = $customer AND timestamp < $until AND metric_type IN ({names})"
        " GROUP BY provider, application_id, model_name, variant, metric_type, judge_fingerprint, day"
        " ORDER BY day, name",
        {"customer": customer_id, "until": naive_utc(until)},
    ).to_pylist()
    days: dict[Series, list[DayOf]] = {}
    for row in rows:
        days.setdefault(Series.of(row), []).append(
            DayOf(
                datetime.combine(row["day"], time(), UTC),
                int(row["scores"]),
                int(row["usable"]),
                row["first_at"],
                row["last_at"],
                row["newest_at"],
            )
        )
    named: dict[str, str] = {}
    for row in rows:
        named.setdefault(row["application_id"], row["name"])  # the first one stays: a name must not depend on `until`
    return Activity(until, {series: tuple(days[series]) for series in sorted(days)}, named)


def read_scores(
    held: Warehouse,
    customer_id: str,
    start: datetime,
    end: datetime,
    metrics: Collection[str],
    label: Label | None = None,
) -> dict[Series, Scores]:
    """The scores of [start, end) by series, of one label or of all of the customer's."""
    if not metrics:
        return {}
    chosen = (
        ""
        if label is None
        else " AND provider = $provider AND application_id = $application AND model_name = $model"
        " AND variant = $variant"
    )
    params: dict[str, Any] = {"customer": customer_id, "start": naive_utc(start), "end": naive_utc(end)}
    if label is not None:
        params |= {"provider": label.provider, "application": label.application_id}
        params |= {"model": label.model_name, "variant": label.variant}
    rows = held.query(
        "SELECT provider, application_id, model_name, variant, metric_type, judge_fingerprint, timestamp, score,"
        f" sampling_probability, conversation_id, flagged, interaction_id FROM {held.current(APPLICATION_METRICS)} m"
        f" WHERE customer_id = $customer AND timestamp >= $start AND timestamp < $end"
        f" AND metric_type IN ({_listed(sorted(metrics))}){chosen} ORDER BY timestamp, score_id",
        params,
    )
    found: dict[tuple[str, ...], Scores] = {}
    for row in _rows(rows.to_pydict()):
        into = found.get(row[:6])
        if into is None:
            into = found[row[:6]] = Scores()
        into.at.append(row[6])
        into.score.append(row[7])
        into.weight.append(_weight(row[8]))
        into.session.append(row[9] or None)
        into.flagged.append(row[10])
        into.interaction.append(row[11])
    return {Series(Label(*key[:4]), *key[4:]): scores for key, scores in found.items()}


def read_tallies(
    held: Warehouse, customer_id: str, start: datetime, end: datetime, mark: datetime, metrics: Collection[str]
) -> dict[Series, Tally]:
    """What [start, end) holds of each series, and what of it lies before `mark`: counted by equal scores, for a day
    has many scores of few levels."""
    if not metrics:
        return {}
    rows = held.query(
        "SELECT provider, application_id, model_name, variant, metric_type, judge_fingerprint, score,"
        " sampling_probability, flagged, timestamp < $mark AS seen, count(*) AS scores, max(collected_at) AS newest_at"
        f" FROM {held.current(APPLICATION_METRICS)} m WHERE customer_id = $customer AND timestamp >= $start"
        f" AND timestamp < $end AND metric_type IN ({_listed(sorted(metrics))}) GROUP BY provider, application_id,"
        " model_name, variant, metric_type, judge_fingerprint, score, sampling_probability, flagged, seen",
        {"customer": customer_id, "start": naive_utc(start), "end": naive_utc(end), "mark": naive_utc(mark)},
    )
    found: dict[tuple[str, ...], Tally] = {}
    for *key, score, probability, flagged, seen, count, newest_at in _rows(rows.to_pydict()):
        tally = found.setdefault(tuple(key), Tally())
        if not flagged:
            tally.add(score, _weight(probability), count)
        if seen:
            tally.seen += count
            tally.newest_at = max(newest_at, tally.newest_at or newest_at)
    return {Series(Label(*key[:4]), *key[4:]): tally for key, tally in found.items()}


def _weight(probability: float) -> float:
    return 1 / probability if probability > 0 else math.nan


def _rows(columns: Mapping[str, list[Any]]) -> Iterator[tuple[Any, ...]]:
    return zip(*columns.values(), strict=True)


def _listed(metrics: Collection[str]) -> str:
    return ", ".join(f"'{each}'" for each in metrics)
