"""`python -m optiinfra_pipelines.defs.materialize`: every month of every customer, then the marts and the checks.

The same jobs as the schedules run, one after the other in this process and into the same instance, so the UI shows
them; `--bills-only` leaves marts, standing checks and summary out. Ends 0 when every run succeeded; a failed check is
a finding, not a failure.
"""

import subprocess
import sys
from collections.abc import Iterator

import dagster as dg
from rich.console import Console
from rich.progress import track

from optiinfra_pipelines.clouds.billing import TABLE_OF, billing_connections, open_bill
from optiinfra_pipelines.clouds.focus.loader import periods_of
from optiinfra_pipelines.customers import Customers, load_customers
from optiinfra_pipelines.defs.partitions import partition_key
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.settings import load_settings
from optiinfra_pipelines.summary import print_summary
from optiinfra_pipelines.warehouse import open_warehouse
from optiinfra_pipelines.warehouse.protocol import WarehouseError
from optiinfra_pipelines.windows import BillingPeriod

Months = dict[tuple[str, BillingPeriod], set[str]]  # (customer id, period) -> the tables that it concerns

_MARTS = [
    sys.executable,
    *["-m", "dagster", "job", "execute", "-m", "optiinfra_pipelines.marts_definitions", "-j", "derived_job"],
]
_QUIET = {"loggers": {"console": {"config": {"log_level": "WARNING"}}}}


def main() -> int:
    """Materialise everything that customers.yaml names; 0 when every run succeeded."""
    console = Console(stderr=True)
    try:
        settings = load_settings()
        months = _months(load_customers(settings.customers))
    except (CollectionError, WarehouseError) as error:
        console.print(f"[red]cannot go on:[/red] {error}", highlight=False)
        return 1
    bills_only = "--bills-only" in sys.argv[1:]
    with dg.DagsterInstance.get() as instance:
        runs = _bills(instance, months, console) if bills_only else _everything(instance, months, console)
        failed = [name for name, succeeded in runs if not succeeded]
        checks = _failed_checks(instance)
    if not bills_only and not failed:
        print_summary(open_warehouse(settings), checks, Console())
    for name in failed:
        console.print(f"[red]run failed:[/red] {name}; see it in the UI with `make up`, or in the lines above")
    return 1 if failed else 0


def _months(customers: Customers) -> Months:
    """Every month that the customers' bills hold."""
    found: Months = {}
    for customer in customers.customers:
        for table in TABLE_OF.values():
            for connection in billing_connections(customer, table):
                for period in periods_of(open_bill(customer, connection)):
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


def _everything(instance: dg.DagsterInstance, months: Months, console: Console) -> Iterator[tuple[str, bool]]:
    from optiinfra_pipelines.definitions import defs

    yield from _bills(instance, months, console)
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
        dg.EventRecordsFilter(dg.DagsterEventType.ASSET_CHECK_EVALUATION), ascending=True, limit=100_000
    )
    for record in page:
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
