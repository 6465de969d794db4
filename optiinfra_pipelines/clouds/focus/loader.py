"""One billing period of one connection, from its files into the warehouse: the place where the parts meet."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

import pyarrow as pa

from optiinfra_pipelines.clouds.focus.layouts import PeriodFiles, known_periods, period_files, unplaced_files
from optiinfra_pipelines.clouds.focus.locations import Location, StoredObject
from optiinfra_pipelines.clouds.focus.normaliser import Origin, normalise
from optiinfra_pipelines.clouds.focus.reader import RowSet, row_sets
from optiinfra_pipelines.clouds.focus.totals import Invoice, Total, Totals
from optiinfra_pipelines.customers import BillingSource
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.tables.contract import Table
from optiinfra_pipelines.tables.operations import LOADS, REJECTED_ROWS, SOURCE_TOTALS
from optiinfra_pipelines.warehouse.ledger import COMMITTED
from optiinfra_pipelines.warehouse.protocol import Load, Warehouse, WarehouseError
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

    def add(self, other: "_Tally") -> None:
        self.rows += other.rows
        self.rejected += other.rejected
        self.columns |= other.columns
        self.layouts |= other.layouts
        for invoice, total in other.totals.items():
            self.totals.setdefault(invoice, Total()).add(total)


def load_period(warehouse: Warehouse, table: Table, bill: Bill, period: BillingPeriod) -> LoadedPeriod:
    """Load `period` of `bill` into `table`, whole or not at all; CollectionError or WarehouseError say why not.

    The same files again change nothing. Rows that the contract refuses go to raw.rejected_rows of the same load.
    """
    files = period_files(bill.location, bill.source, period)
    before = newest_load(warehouse, table, bill.slice(period))
    if not files.objects and before and before["rows"]:
        raise _vanished(bill, period, before["rows"])
    if not files.objects or (before and before["fingerprint"] == files.fingerprint):
        return LoadedPeriod("unchanged", files=len(files.objects))
    with warehouse.replace_slice(table, bill.slice(period)) as load:
        tally = _load_files(load, table, bill, files, period)
        if not files.placed and before and before["rows"] and not (tally.rows or tally.rejected):
            raise _vanished(bill, period, before["rows"])
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


def _vanished(bill: Bill, period: BillingPeriod, rows: object) -> CollectionError:
    return CollectionError(
        "not_configured",
        f"{bill.location.uri} has nothing of {period} any more; the {rows} rows loaded before stay visible. Check the "
        "connection's location, or the export's retention",
    )


def newest_load(warehouse: Warehouse, table: Table, slice: str) -> dict[str, object] | None:
    """The ledger's row (load_id, rows, fingerprint) of the load that readers see of `slice`; None before the first."""
    sql = COMMITTED.format(loads=warehouse.name(LOADS)) + " LIMIT 1"
    found = warehouse.query(sql, {"table_name": table.full_name, "slice": slice}).to_pylist()
    return found[0] if found else None


def periods_of(bill: Bill) -> list[BillingPeriod]:
    """Every billing period that the bill's files hold rows of, oldest first; files without a named period are read.

    CollectionError (malformed) where there are rows in such files and not one says which month it is of.
    """
    found = known_periods(bill.location)
    if bill.source.layout != "files":
        return sorted(found)
    inside: set[str | None] = set()
    with row_sets(bill.location, unplaced_files(bill.location)) as sets:
        for rows in sets:
            inside |= _months_inside(rows, bill.source.defaults)
    if inside == {None}:
        raise _no_month(bill.location)
    return sorted(found | {BillingPeriod(month) for month in inside if month is not None})


def _no_month(location: Location) -> CollectionError:
    return CollectionError(
        "malformed",
        f"below {location.uri} not one row of the files whose paths name no period has a BillingPeriodStart that can be"
        " read; check the connection's location, or give the column a default in its billing section",
    )


def _months_inside(rows: RowSet, defaults: Mapping[str, str]) -> set[str | None]:
    totals = Totals(rows.schema.names, defaults)
    totals.columns = {name: own for name, own in totals.columns.items() if name == "BillingPeriodStart"}
    totals.add_all(rows.columns(totals.columns.values()))
    return {invoice.billing_period for invoice in totals.by_invoice}


def _load_files(load: Load, table: Table, bill: Bill, files: PeriodFiles, period: BillingPeriod) -> _Tally:
    origin = Origin(bill.customer_id, bill.connection_id, bill.provider, None, bill.source.defaults)
    tally = _Tally()
    with row_sets(bill.location, files.placed) as sets:
        for rows in sets:
            _load_rows(load, table, rows, origin, tally)
    if files.mixed:
        _load_mixed(load, table, bill.location, files.mixed, replace(origin, period=period), tally)
    _insert_totals(load, table, bill, tally.totals)
    return tally


def _load_mixed(
    load: Load, table: Table, location: Location, objects: Sequence[StoredObject], origin: Origin, tally: _Tally
) -> None:
    """Load the rows of `origin.period` from files that hold several periods.

    Rows whose month cannot be read are of no period: the load of the files' earliest one takes them, so that each is
    rejected once however many periods are loaded.
    """
    mixed, ragged = _Tally(), False
    with row_sets(location, objects) as sets:
        for rows in sets:
            _load_rows(load, table, rows, origin, mixed)
            ragged = ragged or bool(rows.ragged)
    months = {invoice.billing_period for invoice in mixed.totals}
    own: set[str | None] = {str(origin.period)}
    if None in months or ragged:
        earliest = min((month for month in months if month is not None), default=None)
        if earliest is None:
            raise _no_month(location)
        if earliest in own:
            own.add(None)
            mixed.rejected += _load_unplaced(load, table, location, objects, origin)
    mixed.totals = {invoice: total for invoice, total in mixed.totals.items() if invoice.billing_period in own}
    tally.add(mixed)


def _load_unplaced(
    load: Load, table: Table, location: Location, objects: Sequence[StoredObject], origin: Origin
) -> int:
    rejected = 0
    with row_sets(location, objects) as sets:
        for rows in sets:
            select = normalise(rows.schema, origin, rows.relation).unplaced
            rejected += _insert_rejected(load, table, rows, select) + _insert_ragged(load, table, rows, origin)
    return rejected


def _load_rows(load: Load, table: Table, rows: RowSet, origin: Origin, tally: _Tally) -> None:
    plan = normalise(rows.schema, origin, rows.relation)
    totals = Totals(rows.schema.names, origin.defaults)
    if rows.is_parquet:  # the source's own digits are summed meanwhile: of Parquet beside it, of CSV as it passes
        with ThreadPoolExecutor(1) as beside:
            summing = beside.submit(totals.add_all, rows.columns(totals.columns.values()))
            accepted = _insert(load, rows, plan.accepted)
            summing.result()
    else:
        accepted = _insert(load, rows, plan.accepted, watch=totals.add)
    expected = rows.row_count if origin.period is None else totals.rows_of(str(origin.period))
    rejected = _insert_rejected(load, table, rows, plan.rejected) if accepted < expected else 0
    if accepted + rejected != expected:
        raise CollectionError(
            "malformed",
            f"{rows.files[0][0].uri} and {len(rows.files) - 1} more: {expected} rows read, {accepted} accepted"
            f" and {rejected} rejected do not add up; nothing of this period was loaded",
        )
    if origin.period is None:
        rejected += _insert_ragged(load, table, rows, origin)
    tally.add(_Tally(accepted, rejected, set(plan.columns_present), {plan.version}, totals.by_invoice))


def _insert_rejected(load: Load, table: Table, rows: RowSet, select: str) -> int:
    return _insert(load, rows, f"SELECT *, '{table.full_name}' AS table_name FROM ({select})", into=REJECTED_ROWS)


def _insert(
    load: Load,
    rows: RowSet,
    select: str,
    *,
    into: Table | None = None,
    watch: Callable[[pa.RecordBatch], None] | None = None,
) -> int:
    try:
        return load.insert(rows.rows(watch), into=into, select=select)
    except WarehouseError:
        rows.check()  # is it the file's fault?
        raise


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


def _insert_totals(load: Load, table: Table, bill: Bill, totals: Mapping[Invoice, Total]) -> None:
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
    ]
    if not lines:
        return
    schema = pa.schema([SOURCE_TOTALS.column(name).arrow for name in lines[0]])
    try:
        rows = pa.Table.from_pylist(lines, schema=schema)
    except pa.ArrowInvalid as error:
        raise CollectionError(
            "malformed", f"the costs below {bill.location.uri} add up to more than a warehouse can hold ({error})"
        ) from error
    load.insert(rows, into=SOURCE_TOTALS)
