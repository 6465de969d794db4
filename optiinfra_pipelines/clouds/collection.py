"""Collecting metrics, inventory, prices and LLM interactions: which windows are due, every connection asked, rows
judged and written, each attempt recorded. How a cloud is asked is in `clouds/<provider>/`; schedules and results are
Dagster's business.
"""

import json
import logging
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any, Literal, cast

import pyarrow as pa
import pyarrow.compute as pc

from optiinfra_pipelines.clouds.bookkeeping import api_budget, open_source, record_calls, record_connections
from optiinfra_pipelines.clouds.collecting import Calls, Collector, Findings, Source, collected_schema, naive_utc
from optiinfra_pipelines.customers import Connection, Customer
from optiinfra_pipelines.errors import CollectionError, ErrorKind
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.tables.cloud import INVENTORY, METRICS, PRICES, CloudProvider
from optiinfra_pipelines.tables.contract import Table, Type
from optiinfra_pipelines.tables.llm import LLM_INTERACTIONS
from optiinfra_pipelines.tables.operations import COLLECTION_RUNS, REJECTED_ROWS
from optiinfra_pipelines.warehouse.protocol import Warehouse, WarehouseError
from optiinfra_pipelines.windows import DAY, WINDOW, Window, floor_day, floor_window, windows

Kind = Literal["metrics", "inventory", "prices", "llm_interactions"]
TABLES: Mapping[Kind, Mapping[CloudProvider, Table]] = {
    "metrics": METRICS,
    "inventory": INVENTORY,
    "prices": PRICES,
    "llm_interactions": LLM_INTERACTIONS,
}
WINDOWED: tuple[Kind, ...] = ("metrics", "llm_interactions")  # what is told of each 15 minutes, and later as well
# Clouds deliver some points late: CloudWatch and Cloud Monitoring within minutes, guest agents within the hour. A
# window that was read before it was this old is read once more.
SETTLED = timedelta(hours=1)
# Logs of interactions are delivered some minutes after the fact: a window is not read before most of it is there.
COMPLETE = timedelta(minutes=5)
_TEXTS_AT_ONCE = timedelta(hours=4)
_COLLECTORS: Mapping[str, tuple[str, str]] = {
    "aws": ("optiinfra_pipelines.clouds.aws.collector", "AwsCollector"),
    "gcp": ("optiinfra_pipelines.clouds.gcp.collector", "GcpCollector"),
    "azure": ("optiinfra_pipelines.clouds.azure.collector", "AzureCollector"),
    "vultr": ("optiinfra_pipelines.clouds.vultr.collector", "VultrCollector"),
}
_SUCCEEDED = "status <> 'failed'"
# A part that a person has to set right first, such as a denied region, does not make every window due for ever.
_READ = f"({_SUCCEEDED} OR (rows > 0 AND error_kind IN ('auth', 'not_configured')))"
_LOG = logging.getLogger("optiinfra_pipelines")
_OUTSIDE = "window_start: lies outside the windows that were asked for"


@dataclass
class Attempt:
    """How collecting one kind from one connection ended. No `windows`: nothing was due, and nothing was asked."""

    connection_id: str
    windows: list[Window] = field(default_factory=list)
    rows: int = 0
    rows_rejected: int = 0
    requests: int = 0
    price: Decimal = Decimal(0)
    error: CollectionError | WarehouseError | None = None

    def add(self, other: "Attempt") -> None:
        """Add what a later part of the same collection brought; the first error stays."""
        self.windows += other.windows
        self.rows += other.rows
        self.rows_rejected += other.rows_rejected
        self.requests += other.requests
        self.price += other.price
        self.error = self.error or other.error


def open_collector(source: Source) -> Collector:
    """The collector of the source's provider; nothing is contacted."""
    module, name = _COLLECTORS[source.connection.provider]
    return cast(Collector, getattr(import_module(module), name)(source))


def collecting_connections(customer: Customer, provider: CloudProvider, kind: Kind) -> list[Connection]:
    """The connections of `customer` from which `kind` is collected on `provider`."""
    return [each for each in customer.connections if each.provider == provider and kind in each.collect]


def collect_day(
    warehouse: Warehouse,
    settings: Settings,
    customer: Customer,
    provider: CloudProvider,
    kind: Kind,
    day: Window,
    now: datetime,
) -> list[Attempt]:
    """Collect what is due of one UTC day from every connection; one that fails leaves the others be.

    The warehouse is not held while clouds are asked.
    """
    connections = collecting_connections(customer, provider, kind)
    with warehouse.session() as held:
        record_connections(held, customer)
        tried = _tried(held, customer, kind, day)
        due = {each.id: due_windows(kind, day, now, tried.get(each.id, ())) for each in connections}
        known = {
            each.id: known_resources(held, customer, each, due[each.id][0])
            for each in connections
            if due[each.id] and kind == "metrics"
        }
        calls = api_budget(held, settings, customer, now)
    done = {each.id: Attempt(each.id) for each in connections}
    for part in _parts(kind, due):
        asked = [
            _ask(settings, customer, each, kind, part[each.id], known.get(each.id, ()), calls)
            for each in connections
            if part.get(each.id)
        ]
        with warehouse.session() as held:
            for answer in asked:
                _write(held, customer, kind, answer, now)
        for answer in asked:
            done[answer.attempt.connection_id].add(answer.attempt)
    return list(done.values())


def _parts(kind: Kind, due: Mapping[str, list[Window]]) -> Iterator[dict[str, list[Window]]]:
    """What is asked and written at one time, by connection: texts of a whole day would not fit into memory."""
    if kind != "llm_interactions":
        yield from [dict(due)] if any(due.values()) else []
        return
    starts = sorted({window.start for windows in due.values() for window in windows})
    while starts:
        until = starts[0] + _TEXTS_AT_ONCE
        yield {
            connection: [each for each in windows if starts[0] <= each.start < until]
            for connection, windows in due.items()
        }
        starts = [start for start in starts if start >= until]


def due_windows(kind: Kind, day: Window, now: datetime, tried: Iterable[tuple[datetime, datetime]]) -> list[Window]:
    """The windows of `day` to collect at `now`, oldest first. `tried`: (window start, begin) of successful attempts.

    Metrics and interactions: each 15 minutes that are over and were not read, or not read since they settled.
    Inventory and prices are only to be had of now: the current 15 minutes, or the current day, once.
    """
    newest: dict[datetime, datetime] = {}
    for start, began in tried:
        newest[start] = max(began, newest.get(start, began))
    if kind in WINDOWED:
        buffer = COMPLETE if kind == "llm_interactions" else timedelta(0)
        return [
            window
            for window in windows(day.start, min(day.end, floor_window(now - buffer)))
            if window.start not in newest or newest[window.start] < window.end + SETTLED <= now
        ]
    if not day.contains(now):
        return []
    start = floor_window(now) if kind == "inventory" else day.start
    window = Window(start, start + (WINDOW if kind == "inventory" else DAY))
    return [] if start in newest else [window]


def _tried(
    warehouse: Warehouse, customer: Customer, kind: Kind, day: Window
) -> dict[str, list[tuple[datetime, datetime]]]:
    """By connection: the windows that were read, and when last. What was read in part counts from the second time on:
    a right that was given back meanwhile fills the gap at once."""
    rows = warehouse.query(
        "SELECT connection_id, window_start, max(started_at) AS began"
        f" FROM {warehouse.name(COLLECTION_RUNS)} r WHERE customer_id = $customer AND kind = $kind"
        f" AND {_READ if kind in WINDOWED else _SUCCEEDED}"
        " AND window_start >= $start AND window_start < $end GROUP BY connection_id, window_start"
        f" HAVING count(*) > 1 OR max(CASE WHEN {_SUCCEEDED} THEN 1 ELSE 0 END) = 1",
        {"customer": customer.id, "kind": kind, "start": naive_utc(day.start), "end": naive_utc(day.end)},
    ).to_pylist()
    found: dict[str, list[tuple[datetime, datetime]]] = {}
    for row in rows:
        found.setdefault(row["connection_id"], []).append((row["window_start"], row["began"]))
    return found


@dataclass
class _Answer:
    """What one connection answered, before it is written."""

    connection: Connection
    attempt: Attempt
    findings: Findings
    calls: Calls
    seconds: float = 0.0


def _ask(
    settings: Settings,
    customer: Customer,
    connection: Connection,
    kind: Kind,
    due: list[Window],
    resources: Sequence[Mapping[str, object]],
    day_calls: Calls,
) -> _Answer:
    began = monotonic()
    answer = _Answer(connection, Attempt(connection.id, due), Findings(), Calls(day_calls.left, day_calls.budget))
    try:
        source = open_source(settings, customer, connection, answer.calls)
        span = Window(due[0].start, due[-1].end)
        answer.findings = (
            _llm_findings(source, settings, customer, span)
            if kind == "llm_interactions"
            else _findings(source, kind, resources, span)
        )
        answer.attempt.error = _joined(answer.findings.failures)
    except CollectionError as error:
        answer.attempt.error = error
    except Exception as error:  # noqa: BLE001 - a mistake of ours in one provider's reader must not cost the others their rows
        answer.attempt.error = mistake(error, f"{customer.id}/{connection.id}")
    made = answer.calls.made.values()
    answer.attempt.requests = sum(count for count, _, _ in made)
    answer.attempt.price = sum((price for _, _, price in made), Decimal(0))
    answer.seconds = monotonic() - began
    day_calls.left = answer.calls.left
    return answer


def _findings(source: Source, kind: Kind, resources: Sequence[Mapping[str, object]], span: Window) -> Findings:
    collector = open_collector(source)
    if kind == "metrics" and not resources and "inventory" in source.connection.collect:
        raise CollectionError(
            "not_configured", f"{source.name}: metrics are asked for what the inventory lists, and there is none yet"
        )
    if kind == "inventory":
        return collector.inventory()
    if kind == "prices":
        return collector.prices()
    findings = collector.metrics(resources, span)
    if source.connection.prometheus is not None:
        from optiinfra_pipelines.clouds.prometheus.client import prometheus_metrics

        table = METRICS[cast(CloudProvider, source.connection.provider)]
        with findings.part():
            findings.add(prometheus_metrics(source, table, resources, span))
    return findings


def _llm_findings(source: Source, settings: Settings, customer: Customer, span: Window) -> Findings:
    """The interactions of `span` that the connection's places hold."""
    from optiinfra_pipelines.llm.collecting import llm_interactions

    table = LLM_INTERACTIONS[cast(CloudProvider, source.connection.provider)]
    return llm_interactions(source, table, settings, customer, span)


def known_resources(
    warehouse: Warehouse, customer: Customer, connection: Connection, since: Window
) -> list[dict[str, object]]:
    """The newest inventory row of each resource of the connection that was there a day before `since`, or after."""
    rows = warehouse.query(
        f"SELECT * FROM {warehouse.current(INVENTORY[cast(CloudProvider, connection.provider)])} i"
        " WHERE customer_id = $customer AND connection_id = $connection AND snapshot_day >= $day ORDER BY snapshot_at",
        {
            "customer": customer.id,
            "connection": connection.id,
            "day": naive_utc(floor_day(since.start) - DAY),
        },
    ).to_pylist()
    return list({(row["account_id"], row["resource_type"], row["resource_id"]): row for row in rows}.values())


def _write(warehouse: Warehouse, customer: Customer, kind: Kind, answer: _Answer, now: datetime) -> None:
    """Write what was found, and in any case that it was tried."""
    began = monotonic()
    try:
        _write_rows(warehouse, customer, kind, answer, now)
    except WarehouseError as error:
        answer.attempt.error = error
    seconds = answer.seconds + monotonic() - began
    _record(warehouse, customer, answer.connection, kind, answer.attempt, now, seconds)
    record_calls(warehouse, customer, answer.connection, kind, answer.calls, now)


def _write_rows(warehouse: Warehouse, customer: Customer, kind: Kind, answer: _Answer, now: datetime) -> None:
    """Write what keeps the contract, and what does not to raw.rejected_rows."""
    connection, attempt, due = answer.connection, answer.attempt, answer.attempt.windows
    table = TABLES[kind][cast(CloudProvider, connection.provider)]
    found = answer.findings.tables or [collected_schema(table).empty_table()]
    rows = _with_owner(table, pa.concat_tables(found), customer, connection, due, now)
    if kind in WINDOWED:
        rows = rows.filter(_not_held(rows, due))
    good, reasons = judge(table, rows, due if kind in WINDOWED else ())
    bad = rows.filter(pc.invert(good))
    kept = rows.filter(good)
    attempt.rows = warehouse.upsert(table, kept) if kept.num_rows else 0
    held = _held(due) if kind in WINDOWED else []
    unfit = [(row, why) for row, why in answer.findings.unfit if row.get("window_start") not in held]
    refused = [*_with_reasons(bad, reasons), *unfit]
    attempt.rows_rejected = len(refused)
    slices: dict[str, list[dict[str, Any]]] = {}
    for row, why in refused:  # of interactions by their own window: read again when it has settled, refused once
        own = row.get("window_start") if kind == "llm_interactions" else None
        at = f"{own if isinstance(own, datetime) else due[0].start:%Y-%m-%dT%H:%M}"
        slices.setdefault(at, []).append(_refused(table, customer.id, connection.id, row, why))
    for at, lines in slices.items():
        for number, line in enumerate(lines, 1):
            line |= {"row_number": number, "source": f"{line['source']}@{at}"}  # which numbers the attempt's rows
        with warehouse.replace_slice(REJECTED_ROWS, f"{customer.id}/{connection.id}/{kind}/{at}") as load:
            load.insert(pa.Table.from_pylist(lines))
            load.summary.rows_read = (attempt.rows if at == min(slices) else 0) + len(lines)
            load.summary.rows_rejected = len(lines)


def _with_owner(
    table: Table, rows: pa.Table, customer: Customer, connection: Connection, due: Sequence[Window], now: datetime
) -> pa.Table:
    stamps = {
        "customer_id": customer.id,
        "provider": connection.provider,
        "connection_id": connection.id,
        "snapshot_day": naive_utc(floor_day(due[-1].start)),
        "snapshot_at": naive_utc(due[-1].start),
        "price_day": naive_utc(floor_day(due[-1].start)),
        "collected_at": naive_utc(now),
    }
    columns = [
        rows.column(column.name)
        if column.name in rows.schema.names
        else pa.repeat(pa.scalar(stamps[column.name], column.type.arrow), rows.num_rows)
        for column in table.columns
    ]
    return pa.table(columns, schema=table.arrow_schema)


def judge(table: Table, rows: pa.Table, due: Sequence[Window]) -> tuple[pa.Array, list[str | None]]:
    """Which rows keep the contract (a mask), and for each of the others the first reason, in the order of the rows.

    `due`: the windows that were asked for; a metric of another one is refused, whatever clock wrote it. None: any.
    A metric of a day, such as Vultr's bandwidth, counts by the day's last window.
    """
    broken = [
        (f"{column.name}: is missing", pc.is_null(rows.column(column.name)))
        for column in table.columns
        if not column.nullable
    ]
    broken += [
        (f"{column.name}: is no finite number", pc.invert(pc.fill_null(pc.is_finite(rows.column(column.name)), True)))
        for column in table.columns
        if column.type is Type.FLOAT
    ]
    if due:
        first, last = naive_utc(due[0].start), naive_utc(due[-1].end)
        start = rows.column("window_start")
        end = pc.add(start, _lengths(rows))
        inside = pc.and_(pc.greater(end, pa.scalar(first)), pc.less_equal(end, pa.scalar(last)))
        broken.append((_OUTSIDE, pc.invert(pc.fill_null(inside, False))))
    reasons: list[str | None] = [None] * rows.num_rows
    good = pa.chunked_array([pa.repeat(True, rows.num_rows)])
    for reason, mask in broken:
        if pc.any(mask).as_py():
            for position in pc.indices_nonzero(mask).to_pylist():
                reasons[position] = reasons[position] or reason
            good = pc.and_(good, pc.invert(mask))
    return good, reasons


def _lengths(rows: pa.Table) -> pa.Array | pa.Scalar:
    """How long each row's window is; that of an interaction is the 15 minutes that it lies in."""
    if "window_seconds" not in rows.schema.names:
        return pa.scalar(WINDOW, pa.duration("us"))
    return pc.cast(pc.multiply(rows.column("window_seconds"), 1_000_000), pa.duration("us"))


def _not_held(rows: pa.Table, due: Sequence[Window]) -> pa.Array:
    """A mask: all but the 15-minute windows between the due ones, which came along with them and are held."""
    held = pc.is_in(rows.column("window_start"), pa.array(_held(due), pa.timestamp("us")))
    return pc.invert(pc.and_(held, pc.equal(_lengths(rows), pa.scalar(WINDOW, pa.duration("us")))))


def _held(due: Sequence[Window]) -> list[datetime]:
    """The starts of the windows between the due ones."""
    asked = {window.start for window in due}
    return [naive_utc(each.start) for each in windows(due[0].start, due[-1].end) if each.start not in asked]


def _with_reasons(rows: pa.Table, reasons: Sequence[str | None]) -> Iterable[tuple[Mapping[str, object], str]]:
    return zip(rows.to_pylist(), (why for why in reasons if why), strict=True)


def _refused(
    table: Table, customer_id: str, connection_id: str, row: Mapping[str, object], reason: str
) -> dict[str, Any]:
    return {
        "customer_id": customer_id,
        "connection_id": connection_id,
        "table_name": table.full_name,
        "source": str(row.get("source")),
        "reason": reason,
        "payload": json.dumps(row, default=str, sort_keys=True),
    }


def mistake(error: Exception, owner: str) -> CollectionError:
    """A mistake of this program as one connection's failure: where it is, without the values that led to it."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}:{place.lineno}"
    _LOG.error(
        "%s: %s in %s\n%s", owner, type(error).__name__, where, "".join(traceback.format_tb(error.__traceback__))
    )
    return CollectionError(
        "malformed",
        f"{owner}: {type(error).__name__} in {where}: the answer has a shape that this program does not know; "
        "the log has the way there",
    )


def _joined(failures: Sequence[CollectionError]) -> CollectionError | None:
    """One error for all parts that failed, of the first one's kind; None where none did."""
    if not failures:
        return None
    kind: ErrorKind = failures[0].kind
    more = f" (and {len(failures) - 5} more)" if len(failures) > 5 else ""
    return CollectionError(kind, "; ".join(str(each) for each in failures[:5]) + more)


def _record(
    warehouse: Warehouse,
    customer: Customer,
    connection: Connection,
    kind: Kind,
    attempt: Attempt,
    now: datetime,
    seconds: float,
) -> None:
    """One row of raw.collection_runs for each window."""
    error = attempt.error
    shared = {"customer_id": customer.id, "provider": connection.provider, "connection_id": connection.id, "kind": kind}
    run = {
        **shared,
        "status": "failed" if error else "succeeded",
        "error_kind": error.kind if isinstance(error, CollectionError) else ("conflict" if error else None),
        "error": str(error) if error else None,
        "duration_seconds": seconds,
        "run_id": warehouse.run_id,
        "started_at": naive_utc(now),
    }
    rows = [
        {
            **run,
            "window_start": naive_utc(window.start),
            "window_end": naive_utc(window.end),
            "rows": share,
            "rows_rejected": rejected,
        }
        for window, share, rejected in _shares(attempt)
    ]
    warehouse.append(COLLECTION_RUNS, pa.Table.from_pylist(rows, schema=COLLECTION_RUNS.arrow_schema))


def _shares(attempt: Attempt) -> Iterator[tuple[Window, int, int]]:
    """Each window with its share of the attempt's rows; the last one takes what does not divide."""
    count = len(attempt.windows)
    for number, window in enumerate(attempt.windows, 1):
        last = number == count
        rows, rejected = attempt.rows // count, attempt.rows_rejected // count
        yield (
            window,
            attempt.rows - rows * (count - 1) if last else rows,
            attempt.rows_rejected - rejected * (count - 1) if last else rejected,
        )


def days_with_gaps(warehouse: Warehouse, customer: Customer, kind: Kind, now: datetime, days: int) -> list[Window]:
    """Earlier days, `days` of them at most, of which `kind` is due: of connections that had been tried by then."""
    today = floor_day(now)
    tried = warehouse.query(
        f"SELECT connection_id, window_start, max(CASE WHEN {_READ} THEN started_at END) AS began"
        f" FROM {warehouse.name(COLLECTION_RUNS)} r WHERE customer_id = $customer AND kind = $kind"
        " AND window_start >= $start GROUP BY connection_id, window_start",
        {"customer": customer.id, "kind": kind, "start": naive_utc(today - days * DAY)},
    ).to_pylist()
    named = {each.id for each in customer.connections if kind in each.collect}
    found = []
    for back in range(days, 0, -1):
        day = Window(today - back * DAY, today - (back - 1) * DAY)
        for connection in named:
            own = [row for row in tried if row["connection_id"] == connection]
            since = [row["window_start"] for row in own if row["window_start"] < day.end]
            read = [(row["window_start"], row["began"]) for row in own if row["began"] is not None]
            if since and any(window.start >= min(since) for window in due_windows(kind, day, now, read)):
                found.append(day)
                break
    return found
