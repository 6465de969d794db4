"""Dagster's event log as observations: the only place that knows how checks, runs and freshness look in it.

Checks and runs are read by the *end of runs* in ascending storage id, because that is the one cross-run cursor that
every event log storage has: on Dagster's default SQLite, `get_event_records` refuses a storage-id cursor for check
evaluations. Whether an observation is news is decided in `optiinfra_pipelines.alerts.ledger`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import dagster as dg
from dagster import DagsterEventType as EventType

from optiinfra_pipelines.alerts.ledger import Observation, Page
from optiinfra_pipelines.alerts.message import Alert, Kind, Severity, first_numbers, shorten

RunEnd = Literal[EventType.RUN_SUCCESS, EventType.RUN_FAILURE, EventType.RUN_CANCELED]
RUN_ENDS: tuple[RunEnd, ...] = (EventType.RUN_SUCCESS, EventType.RUN_FAILURE, EventType.RUN_CANCELED)
LOOK_BACK = timedelta(days=1)  # how far a sensor's first tick looks
RUNS_A_TICK = 100  # read in 0.2 s from SQLite; a tick may take 60 s
STATES_A_TICK = 500
ALL_CUSTOMERS, ALL_PROVIDERS = "all customers", "all providers"

_RAW_TABLE = re.compile(r"(aws|gcp|azure|vultr|focus)_")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_DBT_ERRORS = "Errors parsed from dbt logs:"
_STALE: Mapping[str, Severity] = {"FAIL": "ERROR", "WARN": "WARN"}


@dataclass(frozen=True)
class EndedRun:
    """A run with the event that ended it, at storage id `position` of the cross-run log."""

    position: int
    run: dg.DagsterRun
    event: dg.DagsterEvent

    @property
    def partition(self) -> str | None:
        tags = self.run.tags
        first, last = tags.get("dagster/asset_partition_range_start"), tags.get("dagster/asset_partition_range_end")
        return tags.get("dagster/partition") or (f"{first}...{last}" if first else None)

    @property
    def customer(self) -> str:
        tags = self.run.tags
        return tags.get("customer") or tags.get("dagster/partition/customer") or _customer_of(self.partition)

    @property
    def subject(self) -> str:
        """What fails or recovers: the job on a partition; for a run of chosen assets, those assets."""
        chosen = sorted(key.to_user_string() for key in self.run.asset_selection or ())
        return "|".join(filter(None, (self.run.job_name, self.partition, self.run.tags.get("customer"), *chosen)))


def check_page(instance: dg.DagsterInstance, web_url: str, after: int | None) -> Page:
    """Check evaluations of the runs that ended after storage id `after` (None: within LOOK_BACK).

    Left out: failed error-severity dbt tests. They fail their run, which `run_page` tells of.
    """
    runs, position = _ended_runs(instance, after)
    observations = [
        _check_observation(ended, evaluation, partition, web_url)
        for ended in runs
        for _, evaluation, partition in _evaluations(_records(instance, ended, EventType.ASSET_CHECK_EVALUATION))
        if not _is_told_by_its_run(evaluation)
    ]
    return Page(observations, position)


def run_page(instance: dg.DagsterInstance, web_url: str, after: int | None) -> Page:
    """Runs that failed or succeeded after storage id `after` (None: within LOOK_BACK).

    Left out: cancelled runs, and runs that failed only because blocking checks failed, which `check_page` tells of.
    """
    runs, position = _ended_runs(instance, after)
    return Page([seen for ended in runs if (seen := _run_observation(instance, ended, web_url))], position)


def freshness_page(instance: dg.DagsterInstance, web_url: str, after: int | None) -> Page:
    """Changes of freshness after storage id `after`; None: the present state of every asset that has one."""
    change = EventType.FRESHNESS_STATE_CHANGE
    if after is None:
        newest = instance.get_event_records(dg.EventRecordsFilter(change), limit=1)
        position = newest[0].storage_id if newest else 0
        states = instance.get_freshness_state_records(list(instance.get_asset_keys()))
        return Page(
            [
                _freshness_observation(instance, position, key, state.freshness_state.value, state.updated_at, web_url)
                for key, state in states.items()
            ],
            position,
        )
    records = instance.get_event_records(
        dg.EventRecordsFilter(change, after_cursor=after), limit=STATES_A_TICK, ascending=True
    )
    observations = []
    for record in records:
        event = record.event_log_entry.dagster_event
        assert event is not None  # of a Dagster event type, so it holds one
        seen: Any = event.event_specific_data  # FreshnessStateChange, which dagster does not export
        at = datetime.fromtimestamp(seen.state_change_timestamp, UTC)
        observations.append(
            _freshness_observation(instance, record.storage_id, seen.key, seen.new_state.value, at, web_url)
        )
    return Page(observations, records[-1].storage_id if records else after)


def _ended_runs(instance: dg.DagsterInstance, after: int | None) -> tuple[list[EndedRun], int]:
    """The next runs that ended, ascending, and the storage id up to which none is missing from them."""
    # Read up to the newest end known before the three reads begin: what ends between them waits for the next tick.
    newest = [instance.fetch_run_status_changes(end, limit=1).records for end in RUN_ENDS]
    horizon = max([after or 0, *(page[0].storage_id for page in newest if page)])
    since = None if after is not None else (datetime.now(UTC) - LOOK_BACK).timestamp()
    pages = [
        instance.fetch_run_status_changes(
            dg.RunStatusChangeRecordsFilter(end, after_storage_id=after, after_timestamp=since),
            limit=RUNS_A_TICK,
            ascending=True,
        ).records
        for end in RUN_ENDS
    ]
    horizon = min([horizon, *(page[-1].storage_id for page in pages if len(page) == RUNS_A_TICK)])
    records = sorted(
        (record for page in pages for record in page if record.storage_id <= horizon), key=lambda r: r.storage_id
    )
    ids = [record.event_log_entry.run_id for record in records]
    runs = {run.run_id: run for run in instance.get_runs(dg.RunsFilter(run_ids=ids))} if ids else {}
    ended = [
        EndedRun(record.storage_id, runs[record.event_log_entry.run_id], record.event_log_entry.dagster_event)
        for record in records
        if record.event_log_entry.run_id in runs and record.event_log_entry.dagster_event
    ]
    return ended, horizon


def _records(instance: dg.DagsterInstance, ended: EndedRun, *types: EventType) -> list[dg.DagsterEvent]:
    wanted = {*types, EventType.ASSET_MATERIALIZATION_PLANNED}
    records = instance.get_records_for_run(ended.run.run_id, of_type=wanted).records
    return [event for record in records if (event := record.event_log_entry.dagster_event)]


def _evaluations(
    events: Iterable[dg.DagsterEvent],
) -> Iterator[tuple[str | None, dg.AssetCheckEvaluation, str | None]]:
    """Each check evaluation with its step and partition: its own, or that of the asset made in the same step."""
    planned: dict[str | None, str | None] = {}
    for event in events:
        if event.event_type is EventType.ASSET_MATERIALIZATION_PLANNED:
            planned[event.step_key] = event.asset_materialization_planned_data.partition
        elif event.event_type is EventType.ASSET_CHECK_EVALUATION:
            evaluation = event.asset_check_evaluation_data
            yield event.step_key, evaluation, evaluation.partition or planned.get(event.step_key)


def _is_told_by_its_run(evaluation: dg.AssetCheckEvaluation) -> bool:
    unique_id = _texts(evaluation).get("unique_id", "")
    is_dbt_test = unique_id.startswith(("test.", "unit_test."))
    return is_dbt_test and not evaluation.passed and evaluation.severity is dg.AssetCheckSeverity.ERROR


def _check_observation(
    ended: EndedRun, evaluation: dg.AssetCheckEvaluation, partition: str | None, web_url: str
) -> Observation:
    texts = _texts(evaluation)
    asset, check = _table(evaluation.asset_key), evaluation.check_name
    customer = texts.get("customer") or _customer_of(partition)
    provider = texts.get("provider") or _provider_of([evaluation.asset_key])
    severity: Severity = "ERROR" if evaluation.severity is dg.AssetCheckSeverity.ERROR else "WARN"
    alert = Alert(
        kind="recovered_check" if evaluation.passed else "failed_check",
        customer=customer,
        provider=provider,
        asset=asset,
        check=check,
        severity=severity,
        numbers=first_numbers(_measures(evaluation)),
        link=f"{web_url}/runs/{ended.run.run_id}",
        partition=partition,
        detail=shorten(evaluation.description or ""),
    )
    whose = (texts.get("customer"), texts.get("provider"))
    subject = "|".join(filter(None, (asset, check, partition, *whose)))
    return Observation(ended.position, subject, None if evaluation.passed else severity, alert)


def _run_observation(instance: dg.DagsterInstance, ended: EndedRun, web_url: str) -> Observation | None:
    if ended.event.event_type is EventType.RUN_SUCCESS:
        alert = _run_alert(ended, "recovered_run", f"job {ended.run.job_name}", ALL_PROVIDERS, "", web_url)
        return Observation(ended.position, ended.subject, None, alert)
    if ended.event.event_type is not EventType.RUN_FAILURE:
        return None
    events = _records(instance, ended, EventType.STEP_FAILURE, EventType.ASSET_CHECK_EVALUATION)
    failures = [event for event in events if event.event_type is EventType.STEP_FAILURE]
    told = _steps_that_failed_by_checks(events)
    untold = [event for event in failures if event.step_key not in told]
    if failures and not untold:
        return None
    steps = {event.step_key for event in untold}
    assets = [
        event.asset_materialization_planned_data.asset_key
        for event in events
        if event.event_type is EventType.ASSET_MATERIALIZATION_PLANNED and event.step_key in steps
    ]
    named = ", ".join(dict.fromkeys(map(_table, assets))) if len(assets) <= 3 else ""
    failure = ", ".join(sorted(filter(None, steps)))
    reason = f"job {ended.run.job_name}: {_reason(untold[0] if untold else ended.event)}"
    asset = named or failure or f"job {ended.run.job_name}"
    alert = _run_alert(ended, "failed_run", asset, _provider_of(assets), reason, web_url)
    return Observation(ended.position, ended.subject, failure or "failed", alert)


def _steps_that_failed_by_checks(events: Sequence[dg.DagsterEvent]) -> set[str | None]:
    """Steps whose only fault is a failed blocking check that `check_page` tells of."""
    by_checks = {
        event.step_key
        for event in events
        if event.event_type is EventType.STEP_FAILURE
        and (error := event.step_failure_data.error)
        and error.cls_name == "DagsterAssetCheckFailedError"
    }
    told = {
        step
        for step, evaluation, _ in _evaluations(events)
        if evaluation.blocking and not evaluation.passed and not _is_told_by_its_run(evaluation)
    }
    return by_checks & told


def _run_alert(ended: EndedRun, kind: Kind, asset: str, provider: str, detail: str, web_url: str) -> Alert:
    return Alert(
        kind=kind,
        customer=ended.customer,
        provider=provider,
        asset=asset,
        check=None,
        severity="ERROR",
        numbers=(),
        link=f"{web_url}/runs/{ended.run.run_id}",
        partition=ended.partition,
        detail=shorten(detail),
    )


def _freshness_observation(
    instance: dg.DagsterInstance, position: int, key: dg.AssetKey, state: str, at: datetime, web_url: str
) -> Observation:
    severity = _STALE.get(state)
    last = instance.get_latest_materialization_event(key) if severity else None
    hours = round((at.timestamp() - last.timestamp) / 3600, 1) if last else None
    alert = Alert(
        kind="stale" if severity else "fresh",
        customer=ALL_CUSTOMERS,
        provider=_provider_of([key]),
        asset=_table(key),
        check=None,
        severity=severity or "ERROR",
        numbers=(("hours_since_last_update", hours),) if hours is not None else (),
        link=f"{web_url}/assets/{'/'.join(key.path)}",
    )
    # UNKNOWN and NOT_APPLICABLE are no recovery: the asset was wiped, or lost its policy
    return Observation(position, _table(key), severity, alert if severity or state == "PASS" else None)


def _reason(event: dg.DagsterEvent) -> str:
    """The innermost error of a step failure or run failure, without its module path."""
    failure = event.step_failure_data if event.event_type is EventType.STEP_FAILURE else event.job_failure_data
    error = failure.error if failure else None  # a run that was never started has no failure data
    while error and error.cause:
        error = error.cause
    text = _ANSI.sub("", error.message if error else event.message or "")
    text = text.partition(_DBT_ERRORS)[2] or text
    return re.sub(r"^(\w+\.)+(?=\w+: )", "", text.strip())


def _texts(evaluation: dg.AssetCheckEvaluation) -> dict[str, str]:
    return {
        name: value.text
        for name, value in evaluation.metadata.items()
        if isinstance(value, dg.TextMetadataValue) and value.text
    }


def _measures(evaluation: dg.AssetCheckEvaluation) -> dict[str, float]:
    return {
        name: value.value
        for name, value in evaluation.metadata.items()
        if isinstance(value, dg.IntMetadataValue | dg.FloatMetadataValue) and value.value is not None
    }


def _table(key: dg.AssetKey) -> str:
    return ".".join(key.path)


def _customer_of(partition: str | None) -> str:
    """Partition keys join their dimensions by name: customer|day, customer|month."""
    customer, divided, _ = (partition or "").partition("|")
    return customer if divided else ALL_CUSTOMERS


def _provider_of(keys: Iterable[dg.AssetKey]) -> str:
    providers = {
        match.group(1) if key.path[0] == "raw" and (match := _RAW_TABLE.match(key.path[-1])) else ALL_PROVIDERS
        for key in keys
    }
    return providers.pop() if len(providers) == 1 else ALL_PROVIDERS
