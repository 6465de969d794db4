"""`python -m optiinfra_pipelines.defs.materialize`: every month of every customer's bills, inventory and prices of now,
the metrics and LLM interactions of the last days and their scores, then the marts and the checks.

The same jobs as the schedules run, one after the other in this process and into the same instance, so the UI shows
them; `--bills-only` leaves everything but the bills out. Ends 0 when every run succeeded; a failed check is a finding,
not a failure.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain

import dagster as dg
from rich.console import Console
from rich.progress import track

from optiinfra_pipelines.clouds.billing import TABLE_OF, billing_connections, months_of
from optiinfra_pipelines.clouds.collection import WINDOWED, Kind
from optiinfra_pipelines.customers import Customer, Customers, load_customers
from optiinfra_pipelines.defs.partitions import day_key, partition_key
from optiinfra_pipelines.defs.schedules import SCORING, day_assets
from optiinfra_pipelines.defs.warehouse_resource import WarehouseResource
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.settings import Settings, load_settings
from optiinfra_pipelines.summary import print_summary
from optiinfra_pipelines.warehouse import open_warehouse
from optiinfra_pipelines.warehouse.protocol import Warehouse, WarehouseError
from optiinfra_pipelines.windows import DAY, BillingPeriod, floor_day

Months = dict[tuple[str, BillingPeriod], set[str]]  # (customer id, period) -> the tables that it concerns

_MARTS = [
    sys.executable,
    *["-m", "dagster", "job", "execute", "-m", "optiinfra_pipelines.marts_definitions", "-j", "derived_job"],
]
_QUIET = {"loggers": {"console": {"config": {"log_level": "WARNING"}}}}


def main(arguments: list[str] | None = None) -> int:
    """Materialise everything that customers.yaml names; 0 when every run succeeded."""
    parser = argparse.ArgumentParser(prog="python -m optiinfra_pipelines.defs.materialize", description=__doc__)
    parser.add_argument("--bills-only", action="store_true", help="collect the bills and nothing else")
    parser.add_argument("--days", type=int, default=14, help="UTC days, today among them (14)")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        settings = load_settings()
        customers = load_customers(settings.customers)
        months = _months(WarehouseResource().open(), settings, customers)
    except (CollectionError, WarehouseError) as error:
        console.print(f"[red]cannot go on:[/red] {error}", highlight=False)
        return 1
    with dg.DagsterInstance.get() as instance:
        runs = _bills(instance, months, console)
        if not options.bills_only:
            runs = chain(
                runs, _days(instance, customers, options.days, console), _derived(instance, customers, console)
            )
        failed = [name for name, succeeded in runs if not succeeded]
        checks = _failed_checks(instance)
    if not options.bills_only and not failed:
        print_summary(open_warehouse(settings), checks, Console())
    for name in failed:
        console.print(f"[red]run failed:[/red] {name}; see it in the UI with `make up`, or in the lines above")
    return 1 if failed else 0


def _months(warehouse: Warehouse, settings: Settings, customers: Customers) -> Months:
    """Every month that the customers' bills hold."""
    found: Months = {}
    for customer in customers.customers:
        for table in TABLE_OF.values():
            for connection in billing_connections(customer, table):
                for period in months_of(warehouse, settings, customer, connection):
                    found.setdefault((customer.id, period), set()).add(table.full_name)
    return dict(sorted(found.items()))


def _bills(instance: dg.DagsterInstance, months: Months, console: Console) -> Iterator[tuple[str, bool]]:
    """Run after run: its name, and whether it succeeded."""
    from optiinfra_pipelines.definitions import defs

    billing = defs.resolve_job_def("billing_job")
    for (customer_id, period), tables in track(
        months.items(), "collecting bills", console=console, disable=not console.is_terminal
    ):
        instance.add_dynamic_partitions("customer", [customer_id])
        result = billing.execute_in_process(
            instance=instance,
            partition_key=partition_key(customer_id, period),
            asset_selection=[dg.AssetKey(name.split(".")) for name in sorted(tables)],
            tags={"customer": customer_id},
            raise_on_error=False,
            run_config=_QUIET,
        )
        yield f"billing of {customer_id} {period}", result.success


def _days(
    instance: dg.DagsterInstance, customers: Customers, days: int, console: Console
) -> Iterator[tuple[str, bool]]:
    """Now first, for metrics are asked for what the inventory lists; then the days before, and the scores of all."""
    from optiinfra_pipelines.definitions import defs

    today = floor_day(datetime.now(UTC))
    wanted: list[tuple[str, Customer, datetime, list[dg.AssetKey]]] = []
    for customer in customers.customers:
        given: list[tuple[str, datetime, tuple[Kind, ...]]] = [
            ("collection_job", today, ("inventory", *WINDOWED)),
            ("prices_job", today, ("prices",)),
            *(("backfill_job", today - back * DAY, WINDOWED) for back in range(1, days)),
        ]
        wanted += [(job_name, customer, day, day_assets(customer, kinds)) for job_name, day, kinds in given]
        if day_assets(customer, ("llm_interactions",)):
            wanted += [("scoring_job", customer, today - back * DAY, SCORING) for back in reversed(range(days))]
    for job_name, customer, day, assets in track(
        wanted, "collecting clouds, asking the judge", console=console, disable=not console.is_terminal
    ):
        if not assets:
            continue
        instance.add_dynamic_partitions("customer", [customer.id])
        result = defs.resolve_job_def(job_name).execute_in_process(
            instance=instance,
            partition_key=day_key(customer.id, day),
            asset_selection=assets,
            tags={"customer": customer.id},
            raise_on_error=False,
            run_config=_QUIET,
        )
        yield f"{job_name} of {customer.id} {day:%Y-%m-%d}", result.success


def _derived(instance: dg.DagsterInstance, customers: Customers, console: Console) -> Iterator[tuple[str, bool]]:
    from optiinfra_pipelines.definitions import defs

    if any(day_assets(customer, ("llm_interactions",)) for customer in customers.customers):
        anchors = defs.resolve_job_def("anchors_job")
        result = anchors.execute_in_process(instance=instance, raise_on_error=False, run_config=_QUIET)
        yield "anchors_job", result.success
    with console.status("building marts"):
        # A process of its own: dbt keeps the embedded warehouse open for as long as it lives.
        marts = subprocess.run(_MARTS, capture_output=True, text=True, check=False)
    if marts.returncode:
        console.print(marts.stdout[-4000:], marts.stderr[-4000:], markup=False, highlight=False)
    yield "derived_job", marts.returncode == 0
    standing = defs.resolve_job_def("standing_checks_job")
    result = standing.execute_in_process(instance=instance, raise_on_error=False, run_config=_QUIET)
    yield "standing_checks_job", result.success


def _failed_checks(instance: dg.DagsterInstance) -> list[tuple[str, str, str]]:
    """(asset, check, what it said) of each check whose newest evaluation, per partition, failed."""
    newest: dict[tuple[str, str, str], dg.AssetCheckEvaluation] = {}
    page = instance.get_event_records(
        dg.EventRecordsFilter(dg.DagsterEventType.ASSET_CHECK_EVALUATION), ascending=False, limit=100_000
    )
    for record in reversed(page):
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        found = event.asset_check_evaluation_data
        newest[(found.asset_key.to_user_string(), found.check_name, str(found.partition or ""))] = found
    return [
        (f"{asset} {partition}".strip(), check, found.description or "")
        for (asset, check, partition), found in sorted(newest.items(), key=lambda each: each[0])
        if not found.passed
    ]


if __name__ == "__main__":
    sys.exit(main())
