"""Which interactions are judged, and how each one of a customer's day stands before a judge: one statement for both.

Of each application, model, variant and 15 minutes the interactions with the lowest `sampling_unit` are judged: as many
as the rate says, and at least the minimum. That is a simple random sample of the stratum, the same each time, whose
probability is its size by the stratum's. How many are enough for what is in `planning.py`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.customers import Customer
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.tables.llm import APPLICATION_METRICS, JUDGE_CALLS, LLM_INTERACTIONS, SCORING_RUNS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import DAY, Window, floor_day

ATTEMPTS = 3  # to have one interaction judged, each with its own retries
LEASE = timedelta(minutes=20)  # longer than a run: a call in flight for longer is one that nobody waits for
SWITCHED_OFF = ("disabled", "no_key")  # reasons that a person gave
SKIPPED = ("no_text", "truncated", "request_failed", "operation", "not_sampled")
_MOVED = timedelta(hours=1)
_AT_ONCE = 50_000  # interactions looked at together: what keeps memory flat
_JUDGED_OPERATIONS = ("chat", "text_completion", "generate_content")


@dataclass(frozen=True)
class Rates:
    """How much of an application is judged: a share of each stratum, and a number at least."""

    share: Decimal
    minimum: int


def rates(settings: Settings, customer: Customer) -> tuple[Rates, dict[str, Rates]]:
    """The usual rates, and those of the applications for which customers.yaml says otherwise."""
    usual = Rates(settings.sampling_rate, settings.samples_per_window)
    return usual, {
        each.id: Rates(
            usual.share if each.sampling_rate is None else each.sampling_rate,
            usual.minimum if each.samples_per_window is None else each.samples_per_window,
        )
        for each in customer.applications
    }


def of_span(customer_id: str, span: Window) -> dict[str, str | int | float | datetime]:
    """Parameters of a query about a customer's span: customer, start and its exclusive end."""
    return {"customer": customer_id, "start": naive_utc(span.start), "end": naive_utc(span.end)}


def interactions(warehouse: Warehouse, columns: str, time: str = "window_start") -> str:
    """SQL for `columns` of a customer's interactions of all clouds whose `time` lies in a span; see `of_span`."""
    return " UNION ALL ".join(
        f"SELECT {columns} FROM {warehouse.current(table)} i"
        f" WHERE customer_id = $customer AND {time} >= $start AND {time} < $end"
        for table in LLM_INTERACTIONS.values()
    )


def parts(warehouse: Warehouse, customer: Customer, day: Window) -> list[Window]:
    """The day in parts of whole 15-minute windows, with few enough interactions each to be looked at together; strata
    lie within windows. None where the day has no interactions."""
    rows = warehouse.query(
        f"SELECT window_start, count(*) AS interactions FROM ({interactions(warehouse, 'window_start')}) i"
        " GROUP BY window_start ORDER BY window_start",
        of_span(customer.id, day),
    ).to_pylist()
    found, start, held = [], day.start, 0
    for row in rows:
        begins = row["window_start"].replace(tzinfo=UTC)
        if held and held + row["interactions"] > _AT_ONCE:
            found.append(Window(start, begins))
            start, held = begins, 0
        held += row["interactions"]
    return [*found, Window(start, day.end)] if rows else []


def standing(
    warehouse: Warehouse, settings: Settings, customer: Customer, fingerprint: str, span: Window, now: datetime
) -> pa.Table:
    """How many interactions of `span` are in each state: columns state, interactions, flagged.

    `span` must begin and end with 15-minute windows. States: scored, failed, held (in flight in another run),
    waiting, and skipped_... for each of SKIPPED.
    """
    statement, params = _states(warehouse, settings, customer, fingerprint, span, now)
    return warehouse.query(
        f"{statement} SELECT state, count(*) AS interactions, sum(flagged) AS flagged FROM states s GROUP BY state",
        params,
    )


def waiting(
    warehouse: Warehouse, settings: Settings, customer: Customer, fingerprint: str, span: Window, now: datetime
) -> pa.Table:
    """The interactions of `span` that are to be judged now, newest first: where money is short, a drop of now matters
    more than the morning's. Columns interaction_id, provider, timestamp, window_start, sampling_probability, calls
    (that were made for it before)."""
    statement, params = _states(warehouse, settings, customer, fingerprint, span, now)
    return warehouse.query(
        f"{statement} SELECT interaction_id, provider, timestamp, window_start, sampling_probability, calls"
        " FROM states s WHERE state = 'waiting' ORDER BY window_start DESC, sampling_unit",
        params,
    )


def _states(
    warehouse: Warehouse, settings: Settings, customer: Customer, fingerprint: str, span: Window, now: datetime
) -> tuple[str, dict[str, str | int | float | datetime]]:
    every = interactions(
        warehouse,
        "interaction_id, provider, timestamp, window_start, application_id, model_name, variant, sampling_unit,"
        " content_state, operation, error_type",
    )
    usual, others = rates(settings, customer)
    params = of_span(customer.id, span) | {
        "from": naive_utc(span.start - _MOVED),  # a time that a later, fuller record moved over the border
        "until": naive_utc(span.end + _MOVED),
        "fingerprint": fingerprint,
        "alive": naive_utc(now - LEASE),
        "share": float(usual.share),
        "minimum": usual.minimum,
    }
    share, minimum = "", ""
    for number, (application, rate) in enumerate(others.items()):
        params |= {f"a{number}": application, f"s{number}": float(rate.share), f"m{number}": rate.minimum}
        share += f" WHEN application_id = $a{number} THEN $s{number}"
        minimum += f" WHEN application_id = $a{number} THEN $m{number}"
    chosen = f"CASE{minimum} ELSE $minimum END", f"CASE{share} ELSE $share END"
    return _statement(every, warehouse.current(JUDGE_CALLS), *(chosen if others else ("$minimum", "$share"))), params


def _statement(found: str, calls: str, minimum: str, share: str) -> str:
    """The statement that ends in `states`; `minimum` and `share` are SQL over an interaction's application."""
    operations = ", ".join(f"'{each}'" for each in _JUDGED_OPERATIONS)
    return f"""
    WITH found AS ({found}),
    called AS (
        SELECT interaction_id, count(*) AS calls,
               max(CASE WHEN status = 'succeeded' THEN 1 ELSE 0 END) AS scored,
               sum(CASE WHEN status = 'failed' AND error_kind <> 'transient' THEN 1 ELSE 0 END) AS failures,
               max(CASE WHEN status = 'in_flight' AND called_at > $alive THEN 1 ELSE 0 END) AS held,
               max(CASE WHEN status = 'succeeded' AND flagged THEN 1 ELSE 0 END) AS flagged
        FROM {calls} c
        WHERE customer_id = $customer AND interaction_timestamp >= $from AND interaction_timestamp < $until
          AND judge_fingerprint = $fingerprint
        GROUP BY interaction_id
    ),
    reasoned AS (
        SELECT f.*,
               CASE WHEN error_type IS NOT NULL THEN 'request_failed'
                    WHEN operation NOT IN ({operations}) THEN 'operation'
                    WHEN content_state = 'missing' THEN 'no_text'
                    WHEN content_state = 'truncated' THEN 'truncated' ELSE '' END AS unfit
        FROM found f
    ),
    placed AS (
        SELECT r.*,
               row_number() OVER (PARTITION BY provider, application_id, model_name, variant, window_start, unfit
                                  ORDER BY sampling_unit, interaction_id) AS place,
               count(*) OVER (PARTITION BY provider, application_id, model_name, variant, window_start, unfit) AS size
        FROM reasoned r
    ),
    sized AS (
        SELECT p.*, greatest(least(CAST(size AS DOUBLE), CAST({minimum} AS DOUBLE)),
                             ceil({share} * size - 0.000000001)) AS wanted
        FROM placed p
    ),
    states AS (
        SELECT s.interaction_id AS interaction_id, provider, timestamp, window_start, sampling_unit,
               wanted / size AS sampling_probability, coalesce(c.calls, 0) AS calls, coalesce(c.flagged, 0) AS flagged,
               CASE WHEN coalesce(c.scored, 0) = 1 THEN 'scored'
                    WHEN coalesce(c.failures, 0) >= {ATTEMPTS} THEN 'failed'
                    WHEN coalesce(c.held, 0) = 1 THEN 'held'
                    WHEN unfit <> '' THEN concat('skipped_', unfit)
                    WHEN place > wanted THEN 'skipped_not_sampled' ELSE 'waiting' END AS state
        FROM sized s LEFT JOIN called c ON s.interaction_id = c.interaction_id
    )
    """


def days_waiting(warehouse: Warehouse, customer: Customer, now: datetime, days: int) -> set[datetime]:
    """Starts of the earlier days, `days` of them at most, of which interactions wait for the judge, or came after the
    day was last looked at. Not those that wait because people switched the judge off."""
    today = floor_day(now)
    newest = {}
    for row in warehouse.query(
        f"SELECT day, collected, waiting, reason FROM {warehouse.current(SCORING_RUNS)} t"
        " WHERE customer_id = $customer AND day >= $start AND day < $today ORDER BY collected_at",
        {"customer": customer.id, "start": naive_utc(today - days * DAY), "today": naive_utc(today)},
    ).to_pylist():
        newest[row["day"]] = row
    found = set()
    for back in range(1, days + 1):
        day = Window(today - back * DAY, today - (back - 1) * DAY)
        known = newest.get(day.start)
        waits = known is not None and known["waiting"] > 0 and known["reason"] not in SWITCHED_OFF
        if waits or _collected(warehouse, customer, day) > (known["collected"] if known else 0):
            found.add(day.start)
    return found


def _collected(warehouse: Warehouse, customer: Customer, day: Window) -> int:
    found = interactions(warehouse, "window_start")
    counted = warehouse.query(f"SELECT count(*) AS n FROM ({found}) i", of_span(customer.id, day))
    return int(counted["n"][0].as_py())


def settle_leftovers(warehouse: Warehouse, customer: Customer, fingerprint: str, span: Window, now: datetime) -> None:
    """Close calls in flight that nobody waits for, of a run that was killed: those whose scores were written have
    succeeded, the others are abandoned. What was reserved for them counts as spent."""
    of_judge = of_span(customer.id, span) | {"fingerprint": fingerprint}
    left = warehouse.query(
        f"SELECT * FROM {warehouse.current(JUDGE_CALLS)} c WHERE customer_id = $customer"
        " AND interaction_timestamp >= $start AND interaction_timestamp < $end AND judge_fingerprint = $fingerprint"
        " AND status = 'in_flight' AND called_at <= $alive",
        of_judge | {"alive": naive_utc(now - LEASE)},
    )
    if not left.num_rows:
        return
    scored = warehouse.query(
        f"SELECT DISTINCT judge_call_id FROM {warehouse.current(APPLICATION_METRICS)} m WHERE customer_id = $customer"
        " AND timestamp >= $start AND timestamp < $end AND judge_fingerprint = $fingerprint",
        of_judge,
    )
    written = set(scored.column("judge_call_id").to_pylist())
    rows = [
        row
        | {"status": "succeeded" if row["call_id"] in written else "abandoned", "collected_at": naive_utc(now)}
        | ({} if row["call_id"] in written else {"error_kind": "killed", "error": "its run ended before the answer"})
        for row in left.to_pylist()
    ]
    warehouse.upsert(JUDGE_CALLS, pa.Table.from_pylist(rows, schema=JUDGE_CALLS.arrow_schema))
