"""When collecting runs: metrics, inventory and interactions each quarter of an hour, and scoring after them; bills
hourly, prices daily, one run a customer; late restatements as their sources list them; standing checks."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from time import monotonic

import dagster as dg

from optiinfra_pipelines.clouds.billing import TABLE_OF, billing_connections, changed_periods
from optiinfra_pipelines.clouds.collection import (
    SETTLED,
    TABLES,
    WINDOWED,
    Kind,
    collecting_connections,
    days_with_gaps,
)
from optiinfra_pipelines.customers import Customer
from optiinfra_pipelines.defs.collection_checks import expectation_keys
from optiinfra_pipelines.defs.partitions import (
    CUSTOMER_DAYS,
    CUSTOMER_MONTHS,
    CUSTOMERS,
    day_key,
    partition_key,
)
from optiinfra_pipelines.defs.quality.assets import SCORED
from optiinfra_pipelines.defs.warehouse_resource import CustomersResource, WarehouseResource
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.llm.sampling import days_waiting
from optiinfra_pipelines.tables.cloud import CLOUD_PROVIDERS
from optiinfra_pipelines.tables.contract import Table
from optiinfra_pipelines.tables.gate import GATE_TABLES
from optiinfra_pipelines.warehouse.protocol import WarehouseError
from optiinfra_pipelines.windows import DAY, WINDOW, BillingPeriod, floor_day, periods_to_refresh

_DAYS_BACK = 3  # that a gap is filled by itself; older ones are backfilled by hand
_LISTING_SECONDS = 40  # of the 60 that a tick has
_UNDER_WAY = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]

_EACH_TICK: tuple[Kind, ...] = ("inventory", "metrics", "llm_interactions")

SCORING = [dg.AssetKey([table.schema, table.name]) for table in (*SCORED, *GATE_TABLES)]

billing_job = dg.define_asset_job(
    "billing_job",
    selection=dg.AssetSelection.assets(*[[table.schema, table.name] for table in TABLE_OF.values()]),
    partitions_def=CUSTOMER_MONTHS,
    description="Collects one customer's bills of one month from every connection.",
)
collection_job = dg.define_asset_job(
    "collection_job",
    selection=dg.AssetSelection.assets(
        *[["raw", TABLES[kind][provider].name] for kind in _EACH_TICK for provider in CLOUD_PROVIDERS]
    )
    - dg.AssetSelection.checks(*expectation_keys(_EACH_TICK)),
    partitions_def=CUSTOMER_DAYS,
    description="Collects one customer's inventory, and what is due of one day's metrics and LLM interactions.",
)
expectations_job = dg.define_asset_job(
    "expectations_job",
    selection=dg.AssetSelection.checks(*expectation_keys(_EACH_TICK)),
    partitions_def=CUSTOMER_DAYS,
    description="Judges one customer's metrics, inventory and interactions of one day by Great Expectations suites.",
)
backfill_job = dg.define_asset_job(
    "backfill_job",
    selection=dg.AssetSelection.assets(
        *[["raw", TABLES[kind][provider].name] for kind in WINDOWED for provider in CLOUD_PROVIDERS]
    ).without_checks(),
    partitions_def=CUSTOMER_DAYS,
    description="Collects the metrics and interactions of days gone by that were not collected when they were today.",
)
scoring_job = dg.define_asset_job(
    "scoring_job",
    selection=dg.AssetSelection.assets(*SCORING),
    partitions_def=CUSTOMER_DAYS,
    description="Measures one customer's interactions of one day, puts what is in the sample before the judge, and "
    "concludes from the scores.",
    tags={"dagster/priority": "-1"},  # collecting goes first: it waits for nobody's limits
)
prices_job = dg.define_asset_job(
    "prices_job",
    selection=dg.AssetSelection.assets(*[["raw", TABLES["prices"][p].name] for p in CLOUD_PROVIDERS]),
    partitions_def=CUSTOMER_DAYS,
    description="Collects the list prices of the regions that one customer uses.",
)
anchors_job = dg.define_asset_job(
    "anchors_job",
    selection=dg.AssetSelection.assets(["quality", "anchor_scores"]),
    description="Puts the frozen anchors before the judge, to tell its drift from an application's.",
)
anchors_schedule = dg.ScheduleDefinition(
    name="anchors_schedule",
    job=anchors_job,
    cron_schedule="10 4 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
standing_checks_job = dg.define_asset_job(
    "standing_checks_job",
    selection=dg.AssetSelection.checks_for_assets(
        ["raw", "collection_runs"], ["raw", "loads"], ["quality", "judge_calibrations"]
    ),
    description="Judges what is true now: is every connection collected, the ledger in order, the judge calibrated.",
)
standing_checks_schedule = dg.ScheduleDefinition(
    name="standing_checks_schedule",
    job=standing_checks_job,
    cron_schedule="30 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)


@dg.schedule(job=billing_job, cron_schedule="5 * * * *", default_status=dg.DefaultScheduleStatus.RUNNING)
def billing_schedule(
    context: dg.ScheduleEvaluationContext, customers: CustomersResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Hourly: the current month of each customer, and the previous one through the 10th."""
    tick = context.scheduled_execution_time
    skipped = []
    for customer in customers.load().customers:
        context.instance.add_dynamic_partitions("customer", [customer.id])
        for period in periods_to_refresh(tick):
            if _under_way(context.instance, "billing_job", partition_key(customer.id, period)):
                skipped.append(f"{customer.id} {period}")
                continue
            yield _request(customer, period, _tables(customer), f"{customer.id}@{period}@{tick:%Y-%m-%dT%H:%M}")
    _tell(context, skipped)


@dg.schedule(job=collection_job, cron_schedule="*/15 * * * *", default_status=dg.DefaultScheduleStatus.RUNNING)
def collection_schedule(
    context: dg.ScheduleEvaluationContext, customers: CustomersResource, warehouse: WarehouseResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Each quarter of an hour: inventory, and the metrics and interactions that are due: of today, of yesterday until
    it has settled, and of the days before where a gap was left."""
    tick = context.scheduled_execution_time
    opened = warehouse.open_briefly()

    def days(customer: Customer) -> dict[datetime, tuple[Kind, ...]]:
        found: dict[datetime, tuple[Kind, ...]] = {floor_day(tick): _EACH_TICK}
        if tick < floor_day(tick) + SETTLED + WINDOW:
            found[floor_day(tick - SETTLED - WINDOW)] = WINDOWED
        try:
            for kind in WINDOWED:
                for day in days_with_gaps(opened, customer, kind, tick, _DAYS_BACK):
                    found[day.start] = tuple(dict.fromkeys((*found.get(day.start, ()), kind)))
        except WarehouseError as error:  # a run that writes is not worth missing the tick
            context.log.warning(f"{customer.id}: earlier days were not looked at: {error}")
        return found

    yield from _daily(context, customers, collection_job.name, days)


@dg.schedule(job=scoring_job, cron_schedule="7,22,37,52 * * * *", default_status=dg.DefaultScheduleStatus.RUNNING)
def scoring_schedule(
    context: dg.ScheduleEvaluationContext, customers: CustomersResource, warehouse: WarehouseResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Each quarter of an hour, after collecting: the interactions of today, of yesterday until it has settled, and of
    the days before where some are waiting for the judge."""
    tick, opened, skipped = context.scheduled_execution_time, warehouse.open_briefly(), []
    for customer in customers.load().customers:
        if not day_assets(customer, ("llm_interactions",)):
            continue
        context.instance.add_dynamic_partitions("customer", [customer.id])
        days = {floor_day(tick), floor_day(tick - SETTLED - 2 * WINDOW)}
        try:
            days |= days_waiting(opened, customer, tick, _DAYS_BACK)
        except WarehouseError as error:
            context.log.warning(f"{customer.id}: earlier days were not looked at: {error}")
        for day in sorted(days, reverse=True):
            key = day_key(customer.id, day)
            if _under_way(context.instance, scoring_job.name, key):
                skipped.append(str(key))
            else:
                yield dg.RunRequest(
                    run_key=f"{key}@{tick:%Y-%m-%dT%H:%M}", partition_key=key, tags={"customer": customer.id}
                )
    _tell(context, skipped)


@dg.schedule(job=prices_job, cron_schedule="20 3 * * *", default_status=dg.DefaultScheduleStatus.RUNNING)
def prices_schedule(
    context: dg.ScheduleEvaluationContext, customers: CustomersResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Daily: the list prices of the regions that each customer uses."""
    day = floor_day(context.scheduled_execution_time)
    yield from _daily(context, customers, prices_job.name, lambda customer: {day: ("prices",)})


@dg.schedule(job=expectations_job, cron_schedule="40 3 * * *", default_status=dg.DefaultScheduleStatus.RUNNING)
def expectations_schedule(
    context: dg.ScheduleEvaluationContext, customers: CustomersResource
) -> Iterator[dg.RunRequest]:
    """Daily: whether the metrics, the inventory and the interactions of yesterday are plausible."""
    yesterday = floor_day(context.scheduled_execution_time) - DAY
    for customer in customers.load().customers:
        if day_assets(customer, _EACH_TICK):
            context.instance.add_dynamic_partitions("customer", [customer.id])
            yield dg.RunRequest(partition_key=day_key(customer.id, yesterday), tags={"customer": customer.id})


def _daily(
    context: dg.ScheduleEvaluationContext,
    customers: CustomersResource,
    job_name: str,
    days: Callable[[Customer], dict[datetime, tuple[Kind, ...]]],
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    skipped = []
    for customer in customers.load().customers:
        context.instance.add_dynamic_partitions("customer", [customer.id])
        for day, kinds in days(customer).items():
            key, assets = day_key(customer.id, day), day_assets(customer, kinds)
            if assets and _under_way(context.instance, job_name, key):
                skipped.append(str(key))
            elif assets:
                tick = f"{context.scheduled_execution_time:%Y-%m-%dT%H:%M}"
                yield dg.RunRequest(
                    run_key=f"{key}@{tick}", partition_key=key, asset_selection=assets, tags={"customer": customer.id}
                )
    _tell(context, skipped)


def day_assets(customer: Customer, kinds: Sequence[Kind]) -> list[dg.AssetKey]:
    """The assets of those kinds that the customer's connections deliver."""
    return [
        dg.AssetKey(["raw", TABLES[kind][provider].name])
        for kind in kinds
        for provider in CLOUD_PROVIDERS
        if collecting_connections(customer, provider, kind)
    ]


def _tell(context: dg.ScheduleEvaluationContext, skipped: Sequence[str]) -> None:
    if skipped:
        context.log.warning(f"left out, for the previous run is still going: {', '.join(skipped)}")


@dg.sensor(job=billing_job, minimum_interval_seconds=3600, default_status=dg.DefaultSensorStatus.RUNNING)
def restated_bills_sensor(
    context: dg.SensorEvaluationContext, customers: CustomersResource, warehouse: WarehouseResource
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Months of any age whose files are not the ones loaded: restated late, backdated, or never loaded.

    A tick lists for at most 40 s and the next one goes on with the customer after; one that cannot be listed is left
    out with its reason, and its hourly run will fail and say so.
    """
    opened, began = warehouse.open(), monotonic()
    for customer in _from(customers.load().customers, context.cursor):
        if monotonic() - began > _LISTING_SECONDS:
            context.update_cursor(customer.id)
            return
        context.instance.add_dynamic_partitions("customer", [customer.id])
        try:
            changed = list(changed_periods(opened, customer))
        except (CollectionError, WarehouseError) as error:
            context.log.error(f"{customer.id}: {error}")
            continue
        due: dict[BillingPeriod, list[Table]] = {}
        for table, period in changed:
            due.setdefault(period, []).append(table)
        for period, tables in due.items():
            if not _under_way(context.instance, "billing_job", partition_key(customer.id, period)):
                yield _request(customer, period, tables, None)
    context.update_cursor("")


def _from(customers: Sequence[Customer], first: str | None) -> Iterator[Customer]:
    """The customers from the one with id `first` on; all where there is none such."""
    ids = [each.id for each in customers]
    yield from customers[ids.index(first) if first in ids else 0 :]


def _request(customer: Customer, period: BillingPeriod, tables: list[Table], run_key: str | None) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=run_key,
        partition_key=partition_key(customer.id, period),
        asset_selection=[dg.AssetKey([table.schema, table.name]) for table in tables],
        tags={"customer": customer.id},
    )


def _tables(customer: Customer) -> list[Table]:
    return [table for table in TABLE_OF.values() if billing_connections(customer, table)]


def _under_way(instance: dg.DagsterInstance, job_name: str, key: str) -> bool:
    tags = {"dagster/partition": str(key)}
    return bool(instance.get_runs(dg.RunsFilter(job_name=job_name, statuses=_UNDER_WAY, tags=tags), limit=1))


@dg.sensor(minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.RUNNING)
def customers_sensor(context: dg.SensorEvaluationContext, customers: CustomersResource) -> dg.SensorResult:
    """Keeps the customer partitions as customers.yaml has them; history of a customer that left is kept."""
    known = set(context.instance.get_dynamic_partitions("customer"))
    new = [each for each in customers.load().ids if each not in known]
    requests = [CUSTOMERS.build_add_request(new)] if new else []
    return dg.SensorResult(dynamic_partitions_requests=requests, skip_reason=None if new else "no new customer")
