"""One billing period of one connection, from its files into the warehouse: the place where the parts meet."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from optiinfra_pipelines.clouds.focus.layouts import PeriodFiles, known_periods, period_files, unplaced_files
from optiinfra_pipelines.clouds.focus.locations import Location
from optiinfra_pipelines.clouds.focus.normaliser import Origin, normalise
from optiinfra_pipelines.clouds.focus.reader import RowSet, row_sets
from optiinfra_pipelines.clouds.focus.totals import Invoice, Total, Totals
from optiinfra_pipelines.customers import BillingSource
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.tables.contract import Table
from optiinfra_pipelines.tables.operations import LOADS, REJECTED_ROWS, SOURCE_TOTALS
from optiinfra_pipelines.warehouse.protocol import Load, Warehouse
from optiinfra_pipelines.windows import BillingPeriod

_RAGGED = "line: has more or fewer fields than the header"


@dataclass(frozen=True)
class Bill:
    """Whose bill it is and where it lies. `provider` is the connection's: aws, ..., or focus for a mixed location."""

    customer_id: str
    connection_id: str
    provider: str
    source: BillingSource
    location: Location

    def slice(self, period: BillingPeriod) -> str:
        """The restatable set that one period of this bill is."""
        return f"{self.customer_id}/{self.connection_id}/{period}"


@dataclass(frozen=True)
class LoadedPeriod:
    """How loading a period ended: `unchanged` when the files are the ones already loaded, or there are none yet."""

    status: Literal["succeeded", "unchanged"]
    load_id: str | None = None
    rows: int = 0
    rows_read: int = 0
    rows_rejected: int = 0
    files: int = 0


@dataclass
class _Tally:
    rows: int = 0
    rejected: int = 0
    columns: set[str] = field(default_factory=set)
    layouts: set[str] = field(default_factory=set)
    totals: dict[Invoice, Total] = field(default_factory=dict)


def load_period(warehouse: Warehouse, table: Table, bill: Bill, period: BillingPeriod) -> LoadedPeriod:
    """Load `period` of `bill` into `table`, whole or not at all; CollectionError or WarehouseError say why not.

    The same files again change nothing. Rows that the contract refuses go to raw.rejected_rows of the same load.
    """
    files = period_files(bill.location, bill.source, period)
    before = newest_load(warehouse, table, bill.slice(period))
    if not files.objects and before and before["rows"]:
        raise CollectionError(
            "not_configured",
            f"{bill.location.uri} has no files for {period} any more; the {before['rows']} rows loaded before stay "
            "visible. Check the connection's location, or the export's retention",
        )
    if not files.objects or (before and before["fingerprint"] == files.fingerprint):
        return LoadedPeriod("unchanged", files=len(files.objects))
    with warehouse.replace_slice(table, bill.slice(period)) as load:
        tally = _load_files(load, table, bill, files, period)
        load.summary.rows_read = tally.rows + tally.rejected
        load.summary.rows_rejected = tally.rejected
        load.summary.fingerprint = files.fingerprint
        load.summary.details = {
            "columns_present": sorted(tally.columns),
            "layouts": sorted(tally.layouts),
            "objects": [{"uri": each.uri, "bytes": each.size} for each in files.objects[:1000]],
            "object_count": len(files.objects),
        }
    return LoadedPeriod(
        "succeeded", load.load_id, tally.rows, tally.rows + tally.rejected, tally.rejected, len(files.objects)
    )


def newest_load(warehouse: Warehouse, table: Table, slice: str) -> dict[str, object] | None:
    """The ledger's row (load_id, rows, fingerprint) of the load that readers see of `slice`; None before the first."""
    found = warehouse.query(
        f"SELECT load_id, rows, fingerprint FROM {warehouse.name(LOADS)} WHERE table_name = $table_name"
        " AND slice = $slice AND state = 'committed' ORDER BY recorded_at DESC LIMIT 1",
        {"table_name": table.full_name, "slice": slice},
    ).to_pylist()
    return found[0] if found else None


def periods_of(bill: Bill) -> list[BillingPeriod]:
    """Every billing period that the bill's files hold rows of, oldest first; files without a named period are read."""
    found = known_periods(bill.location)
    if bill.source.layout == "files":
        with row_sets(bill.location, unplaced_files(bill.location)) as sets:
            for rows in sets:
                found |= _periods_inside(rows, bill.source.defaults)
    return sorted(found)


def _periods_inside(rows: RowSet, defaults: Mapping[str, str]) -> set[BillingPeriod]:
    totals = Totals(rows.schema.names, defaults)
    column = totals.columns.get("BillingPeriodStart")
    if column is None:
        return set()
    totals.columns = {"BillingPeriodStart": column}
    for batch in rows.columns([column]):
        totals.add(batch)
    return {BillingPeriod(each.billing_period) for each in totals.by_invoice if each.billing_period is not None}


def _load_files(load: Load, table: Table, bill: Bill, files: PeriodFiles, period: BillingPeriod) -> _Tally:
    tally = _Tally()
    origin = Origin(
        customer_id=bill.customer_id,
        connection_id=bill.connection_id,
        provider=bill.provider,
        period=period if files.mixed else None,
        defaults=bill.source.defaults,
    )
    with row_sets(bill.location, files.objects) as sets:
        for rows in sets:
            _load_rows(load, table, rows, origin, tally)
    _insert_totals(load, table, bill, period, tally.totals, mixed=files.mixed)
    return tally


def _load_rows(load: Load, table: Table, rows: RowSet, origin: Origin, tally: _Tally) -> None:
    plan = normalise(rows.schema, origin, rows.relation)
    totals = Totals(rows.schema.names, origin.defaults)
    accepted = _insert_accepted(load, rows, plan.accepted, totals)
    rejected = 0
    if accepted < rows.row_count:
        named = f"SELECT *, '{table.full_name}' AS table_name FROM ({plan.rejected})"
        rejected = load.insert(rows.rows(), into=REJECTED_ROWS, select=named)
    if origin.period is None and accepted + rejected != rows.row_count:
        raise CollectionError(
            "malformed",
            f"{rows.files[0][0].uri} and {len(rows.files) - 1} more: {rows.row_count} rows read, {accepted} accepted"
            f" and {rejected} rejected do not add up; nothing of this period was loaded",
        )
    tally.rows += accepted
    tally.rejected += rejected + _insert_ragged(load, table, rows, origin)
    tally.columns |= set(plan.columns_present)
    tally.layouts.add(plan.version)
    for invoice, total in totals.by_invoice.items():
        tally.totals.setdefault(invoice, Total()).add(total)


def _insert_accepted(load: Load, rows: RowSet, select: str, totals: Totals) -> int:
    """Insert the good rows, and sum the source's own digits meanwhile: of CSV as it passes, of Parquet beside it."""
    if "BilledCost" not in totals.columns:
        return load.insert(rows.rows(), select=select)
    if not rows.is_parquet:
        return load.insert(rows.rows(totals.add), select=select)
    with ThreadPoolExecutor(1) as beside:
        summing = beside.submit(totals.add_all, rows.columns(totals.columns.values()))
        accepted = load.insert(None, select=select)
        summing.result()
    return accepted


def _insert_ragged(load: Load, table: Table, rows: RowSet, origin: Origin) -> int:
    if not rows.ragged:
        return 0
    lines = [
        {
            "customer_id": origin.customer_id,
            "connection_id": origin.connection_id,
            "table_name": table.full_name,
            "source": line.source,
            "row_number": line.row_number,
            "reason": _RAGGED,
            "payload": _payload(line.text, line.expected, line.actual),
        }
        for line in rows.ragged
    ]
    return load.insert(pa.Table.from_pylist(lines), into=REJECTED_ROWS)


def _payload(text: str, expected: int, actual: int) -> str:
    import json

    return json.dumps({"line": text, "fields_expected": expected, "fields_found": actual})


def _insert_totals(
    load: Load, table: Table, bill: Bill, period: BillingPeriod, totals: Mapping[Invoice, Total], *, mixed: bool
) -> None:
    lines = [
        {
            "customer_id": bill.customer_id,
            "connection_id": bill.connection_id,
            "table_name": table.full_name,
            "provider_name": invoice.provider_name,
            "billing_period": invoice.billing_period or "unknown",
            "invoice_id": invoice.invoice_id,
            "currency": invoice.currency,
            "rows": total.rows,
            "billed_cost": total.billed_cost,
            "effective_cost": total.effective_cost,
        }
        for invoice, total in totals.items()
        if not mixed or invoice.billing_period in (str(period), None)
    ]
    if lines:
        schema = pa.schema([SOURCE_TOTALS.column(name).arrow for name in lines[0]])
        load.insert(pa.Table.from_pylist(lines, schema=schema), into=SOURCE_TOTALS)
