"""Baselines of series: when they are frozen, from which scores, and which one is in force at a moment.

A series gets its first baseline by itself at the end of the UTC day on which it has enough scores, or after a week with
fewer; earlier where another label is deployed after it. Somebody may have others frozen. A new judge is a new series:
its baseline says so. What was deployed makes one by itself only once it is accepted. All of it follows from the scores
alone.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.gate.deployments import Standing
from optiinfra_pipelines.gate.scores import Activity, Label, Scores, Series, read_activity, read_scores
from optiinfra_pipelines.gate.writing import Row, as_json, label_columns, row_id, write_changed
from optiinfra_pipelines.quality.baseline import Baseline, Stratum, freeze
from optiinfra_pipelines.quality.policy import METRICS, Policy
from optiinfra_pipelines.quality.sample import Sample
from optiinfra_pipelines.tables.gate import BASELINES
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import DAY

REACH = 28 * DAY  # that a baseline's scores go back
MOST = 5_000  # scores of a baseline, the newest: more make no verdict surer
SETTLED = timedelta(hours=1)  # after the end of a day: its last scores are in
PATIENCE = 7 * DAY  # after which fewer scores than the target are enough
_STRATA = '{"by_stratum": '  # that a stored baseline begins with


@dataclass(frozen=True, eq=False)
class Frozen:
    """A baseline of a series, in force from `frozen_at` on; `window_size`: its mean scores of a window with any."""

    series: Series
    frozen_at: datetime
    first_at: datetime
    reason: str
    told: bool
    window_size: float
    baseline: Baseline


@dataclass
class Baselines:
    """The baselines of one customer's series before `activity.until`; those not stored yet are made when asked for.

    `deployed`: how labels stand that were deployed. `made`: what was made, to be written.
    """

    held: Warehouse
    customer_id: str
    activity: Activity
    policy: Policy = field(default_factory=Policy)
    deployed: dict[Label, Standing] = field(default_factory=dict)
    made: list[Frozen] = field(default_factory=list)
    _known: dict[Series, list[Frozen]] = field(default_factory=dict)
    _thin: dict[tuple[Series, datetime], Frozen | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for each in _stored(self.held, self.customer_id, self.activity.until):
            self._known.setdefault(each.series, []).append(each)

    def in_force(self, series: Series, at: datetime) -> Frozen | None:
        """The newest baseline of a series that was frozen by `at`; None where there is none."""
        self._settle(series, at)
        return max(
            (each for each in self._known.get(series, ()) if each.frozen_at <= at),
            key=lambda each: (each.frozen_at, each.told),
            default=None,
        )

    def at_deployment(self, series: Series, at: datetime) -> Frozen | None:
        """The baseline that a deployment at `at` is held against: the one in force, or else one of the scores so far.

        Of fewer scores than a baseline needs it is not kept, and says in a verdict how many there are.
        """
        found = self.in_force(series, at)
        if found is not None or (series, at) in self._thin:
            return found or self._thin[series, at]
        made = self._freeze(series, at, "frozen because another model or variant was deployed")
        if made is not None and made.baseline.n >= self.policy.baseline_min:
            self._keep(made)
        else:
            self._thin[series, at] = made
        return made

    def told_after(self, label: Label, at: datetime) -> datetime | None:
        """When somebody first had a baseline of a label frozen, at a moment or later."""
        told = (each for series, known in self._known.items() if series.label == label for each in known if each.told)
        return min((each.frozen_at for each in told if each.frozen_at >= at), default=None)

    def progress(self, series: Series) -> str:
        """How far a series without a baseline is from one, for people."""
        usable = sum(day.usable for day in self.activity.days.get(series, ()))
        said = f"no baseline yet: {usable} of {self.policy.baseline_target} scores are in"
        return said + self._new_judge(series)

    def _settle(self, series: Series, by: datetime) -> None:
        """Make the baseline that the series gets by itself, if it is due by then, unless it has an earlier one."""
        known = self._known.get(series, ())
        # what is frozen stays: scores that came late since may have moved the day on which enough were in
        if any(not each.told for each in known):
            return
        standing = self.deployed.get(series.label)
        due = due_at(self.activity, series, self.policy, standing)
        if due is None or due > by or any(each.frozen_at <= due for each in known):
            return
        since = standing.at if standing else None
        made = self._freeze(series, due, "frozen because enough scores were in", since)
        if made is not None and made.baseline.n >= self.policy.baseline_min:
            self._keep(made)

    def _keep(self, made: Frozen) -> None:
        self.made.append(made)
        self._known.setdefault(made.series, []).append(made)

    def _freeze(self, series: Series, at: datetime, why: str, since: datetime | None = None) -> Frozen | None:
        reason = why + self._new_judge(series)
        return freeze_series(self.held, self.customer_id, series, at, reason, told=False, since=since)

    def _new_judge(self, series: Series) -> str:
        days = self.activity.days.get(series, ())
        before = [
            judge
            for judge in self.activity.judges(series.label, series.metric)
            if judge != series.judge
            and days
            and self.activity.days[Series(series.label, series.metric, judge)][0].first_at < days[0].first_at
        ]
        return f"; judge {series.judge} replaced {before[-1]}, whose scores do not compare" if before else ""


def due_at(activity: Activity, series: Series, policy: Policy, standing: Standing | None = None) -> datetime | None:
    """End of the UTC day on which a series had enough scores for a baseline of its own accord, an hour ago at least;
    None: not yet. Of a label that was deployed only scores since then count, once it is accepted."""
    days = activity.days.get(series, ())
    if standing is not None:
        if standing.accepted is None:
            return None
        days = tuple(day for day in days if day.first_at >= standing.at)
    for place, day in enumerate(days):
        end = day.start + DAY
        usable = sum(each.usable for each in days[: place + 1] if each.start >= end - REACH)
        waited = end - days[0].start >= PATIENCE
        accepted = standing is None or standing.accepted is None or standing.accepted <= end
        if accepted and (usable >= policy.baseline_target or (waited and usable >= policy.baseline_min)):
            return end if end + SETTLED <= activity.until else None
    return None


def freeze_series(
    held: Warehouse,
    customer_id: str,
    series: Series,
    at: datetime,
    reason: str,
    *,
    told: bool,
    since: datetime | None = None,
) -> Frozen | None:
    """Freeze the newest scores of a series before `at`, of those from `since` on; None where there are not two
    conversations."""
    first = max(at - REACH, since or at - REACH)
    scores = read_scores(held, customer_id, first, at, [series.metric], series.label).get(series, Scores())
    sample = scores.sample(most=MOST)
    if sample.n_sessions < 2:
        return None
    kept = scores.at[-MOST:]
    size = sample.n / max(len(scores.windows(kept[0], at)), 1)
    return Frozen(series, at, kept[0], reason, told, size, freeze(sample, series.judge))


def freeze_now(
    warehouse: Warehouse,
    customer_id: str,
    at: datetime,
    note: str,
    now: datetime,
    applications: Collection[str] = (),
    since: datetime | None = None,
) -> list[Frozen]:
    """Freeze a new baseline of every series seen in the week before `at` by its newest judge, of all applications or of
    those named, from the scores of the last four weeks or from `since` on. Series with fewer scores than a baseline
    needs are left out."""
    least = Policy().baseline_min
    with warehouse.session() as held:
        activity, found = read_activity(held, customer_id, at), []
        for label in activity.labels(at - PATIENCE):
            if applications and label.application_id not in applications:
                continue
            for metric in METRICS:
                for judge in activity.judges(label, metric)[-1:]:
                    series = Series(label, metric, judge)
                    made = freeze_series(held, customer_id, series, at, note, told=True, since=since)
                    found += [made] if made is not None and made.baseline.n >= least else []
        write_baselines(held, customer_id, activity.names, found, now)
    return found


def write_baselines(
    held: Warehouse, customer_id: str, names: Mapping[str, str], made: Collection[Frozen], now: datetime
) -> int:
    """Write baselines; how many were not there yet. A stored one never changes: late scores do not count."""
    ids = [_id(customer_id, each) for each in made]
    known = held.query(
        f"SELECT baseline_id FROM {held.current(BASELINES)} b WHERE customer_id = $customer",
        {"customer": customer_id},
    )
    there = set(known.column("baseline_id").to_pylist())
    rows = [_row(customer_id, names, each) for id, each in zip(ids, made, strict=True) if id not in there]
    return write_changed(held, BASELINES, rows, "customer_id = $customer AND false", {"customer": customer_id}, now)


def _row(customer_id: str, names: Mapping[str, str], each: Frozen) -> Row:
    baseline = each.baseline
    return {
        "baseline_id": _id(customer_id, each),
        **label_columns(customer_id, each.series.label, names),
        "metric_type": each.series.metric,
        "judge_fingerprint": each.series.judge,
        "frozen_at": each.frozen_at,
        "first_at": each.first_at,
        "reason": each.reason,
        "told": each.told,
        "baseline_key": baseline.key,
        "n": baseline.n,
        "n_sessions": baseline.n_sessions,
        "mean": baseline.mean,
        "spread": baseline.spread,
        "error": baseline.error,
        "icc": baseline.icc,
        "window_size": each.window_size,
        "baseline": _STRATA
        + as_json({label: vars(each) for label, each in baseline.strata.items()})
        + ", "
        + as_json(baseline.to_dict())[1:],
    }


def _id(customer_id: str, each: Frozen) -> str:
    return row_id(customer_id, *each.series.parts, each.frozen_at)


def _stored(held: Warehouse, customer_id: str, until: datetime) -> list[Frozen]:
    rows: list[dict[str, Any]] = held.query(
        f"SELECT * FROM {held.current(BASELINES)} b WHERE customer_id = $customer AND frozen_at <= $until"
        " ORDER BY frozen_at, baseline_id",
        {"customer": customer_id, "until": naive_utc(until)},
    ).to_pylist()
    return [
        Frozen(
            Series.of(row),
            row["frozen_at"],
            row["first_at"],
            row["reason"],
            row["told"],
            row["window_size"],
            _Stored(row),
        )
        for row in rows
    ]


class _Stored(Baseline):
    """The baseline of a stored row. Its thousands of scores are parsed when they are asked for: a monitor that goes on
    needs none, and a tick has a baseline for each of its monitors."""

    _row: Mapping[str, Any]

    def __init__(self, row: Mapping[str, Any]) -> None:
        strata, _ = json.JSONDecoder().raw_decode(row["baseline"], len(_STRATA))
        vars(self).update({name: row[name] for name in ("mean", "spread", "error", "icc")})
        vars(self).update(
            fingerprint=row["judge_fingerprint"],
            strata={label: Stratum(**each) for label, each in strata.items()},
            key=row["baseline_key"],
            _row=row,
        )

    @property
    def n(self) -> int:
        return int(self._row["n"])

    @property
    def n_sessions(self) -> int:
        return int(self._row["n_sessions"])

    @cached_property
    def sample(self) -> Sample:
        return Baseline.from_dict(json.loads(self._row["baseline"])).sample
