"""The checks of what is collected by day, per customer: contract, gaps, plausible values, vocabulary."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

import dagster as dg
from dagster_duckdb import DuckDBResource

from optiinfra_pipelines.clouds.collection import TABLES, WINDOWED, Kind, due_windows
from optiinfra_pipelines.clouds.vocabulary import GPU_MODELS, METRICS, RESOURCE_TYPES, STATES
from optiinfra_pipelines.defs.partitions import CUSTOMER_DAYS, customer_and_day
from optiinfra_pipelines.defs.rendering import check_result
from optiinfra_pipelines.defs.warehouse_resource import WarehouseResource
from optiinfra_pipelines.expectations import judge_interactions, judge_inventory, judge_metrics, judge_prices
from optiinfra_pipelines.tables.cloud import CloudProvider
from optiinfra_pipelines.tables.contract import Table
from optiinfra_pipelines.tables.operations import COLLECTION_RUNS
from optiinfra_pipelines.verdicts import (
    Verdict,
    collapse,
    contract,
    contract_query,
    gaps,
    plausible_metrics,
    vocabulary,
)
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import DAY, Window

DAY_COLUMN: Mapping[Kind, str] = {
    "metrics": "window_start",
    "inventory": "snapshot_day",
    "prices": "price_day",
    "llm_interactions": "window_start",
}
_SAMPLE = 20_000  # rows that the expectations look at
_JUDGES = {
    "metrics": judge_metrics,
    "inventory": judge_inventory,
    "prices": judge_prices,
    "llm_interactions": judge_interactions,
}
_FRAMES: Mapping[Kind, str] = {
    "metrics": "SELECT metric_name, unit, statistic, value, window_seconds FROM sample",
    "inventory": "SELECT resource_type, resource_id, vcpus, memory_gib, storage_gib FROM sample",
    "llm_interactions": "SELECT content_state, input_tokens, output_tokens, latency_ms, sampling_unit FROM sample",
    "prices": "SELECT CAST(price AS DOUBLE) AS price, currency, unit, price_type FROM sample",
}

Judge = Callable[[Warehouse, Table, str, Window], Verdict]


def collection_checks(provider: CloudProvider) -> Sequence[dg.AssetChecksDefinition]:
    """The checks of a provider's four tables, each evaluated for the partition that was materialised."""
    return [
        *(_check(provider, kind, f"{kind}_follows_contract", _follows_contract, blocking=True) for kind in TABLES),
        *(_check(provider, kind, f"{kind}_have_no_gap", _no_gap) for kind in WINDOWED),
        _check(provider, "metrics", "metrics_are_plausible", _plausible),
        _check(provider, "metrics", "metrics_speak_the_vocabulary", _metric_words),
        _check(provider, "inventory", "inventory_speaks_the_vocabulary", _inventory_words),
        _check(provider, "inventory", "inventory_did_not_collapse", _no_collapse),
        *(_expectations(provider, kind) for kind in TABLES),
    ]


def _check(
    provider: CloudProvider, kind: Kind, name: str, judge: Judge, *, blocking: bool = False
) -> dg.AssetChecksDefinition:
    table = TABLES[kind][provider]

    @dg.asset_check(
        asset=[table.schema, table.name],
        name=name,
        description=judge.__doc__,
        blocking=blocking,
        partitions_def=CUSTOMER_DAYS,
    )
    def check(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource) -> dg.AssetCheckResult:
        customer_id, day = customer_and_day(context.partition_key)
        verdict = judge(warehouse.open(context.run.run_id), table, customer_id, day)
        return check_result(verdict, customer=customer_id, provider=provider)

    return check


def _kind(table: Table) -> Kind:
    return next(kind for kind, tables in TABLES.items() if table in tables.values())


def _of_day(warehouse: Warehouse, table: Table, customer_id: str, day: Window) -> str:
    """A parenthesised SELECT of one customer's current rows of one day; both parts are checked where they enter."""
    column = DAY_COLUMN[_kind(table)]
    return (
        f"(SELECT * FROM {warehouse.current(table)} c WHERE customer_id = '{customer_id}'"
        f" AND {column} >= TIMESTAMP '{day.start:%Y-%m-%d %H:%M:%S}'"
        f" AND {column} < TIMESTAMP '{day.end:%Y-%m-%d %H:%M:%S}')"
    )


def _follows_contract(warehouse: Warehouse, table: Table, customer_id: str, day: Window) -> Verdict:
    """Every row has what its contract requires, and no key stands twice."""
    counts = warehouse.query(contract_query(table, _of_day(warehouse, table, customer_id, day))).to_pylist()[0]
    return contract(table, counts)


def _no_gap(warehouse: Warehouse, table: Table, customer_id: str, day: Window) -> Verdict:
    """Each 15-minute window of the day that is over was collected from every connection that ever succeeded."""
    kind = _kind(table)
    rows = warehouse.query(
        "SELECT connection_id, window_start, max(started_at) AS began"
        f" FROM {warehouse.name(COLLECTION_RUNS)} r WHERE kind = $kind AND status <> 'failed'"
        " AND customer_id = $customer AND provider = $provider AND window_start >= $start AND window_start < $end"
        " GROUP BY connection_id, window_start",
        {
            "kind": kind,
            "customer": customer_id,
            "provider": table.name.removesuffix(f"_{kind}"),
            "start": day.start.replace(tzinfo=None),
            "end": day.end.replace(tzinfo=None),
        },
    ).to_pylist()
    held: dict[str, list[datetime]] = {}
    for row in rows:
        held.setdefault(row["connection_id"], []).append(row["window_start"])
    now = datetime.now(UTC)
    return gaps(
        {
            connection: [window.start for window in due_windows(kind, day, now, [(at, now) for at in starts])]
            for connection, starts in held.items()
        }
    )


def _plausible(warehouse: Warehouse, table: Table, customer_id: str, day: Window) -> Verdict:
    """Percentages lie in 0 to 100, nothing is negative, nothing was measured in the future."""
    limits = "CASE metric_name " + " ".join(
        f"WHEN '{metric.name}' THEN {metric.highest}" for metric in METRICS.values() if metric.highest is not None
    )
    rows = warehouse.query(
        "SELECT metric_name, unit, sum(CASE WHEN value < 0 THEN 1 ELSE 0 END) AS negative,"
        f" sum(CASE WHEN value > {limits} END THEN 1 ELSE 0 END) AS too_high,"
        " sum(CASE WHEN window_start > collected_at THEN 1 ELSE 0 END) AS in_future,"
        " count(*) AS measured, min(value) AS lowest, max(value) AS highest"
        f" FROM {_of_day(warehouse, table, customer_id, day)} m GROUP BY metric_name, unit ORDER BY metric_name"
    ).to_pylist()
    return plausible_metrics(rows)


def _metric_words(warehouse: Warehouse, table: Table, customer_id: str, day: Window) -> Verdict:
    """Every metric, unit and resource type is one of the vocabulary; others are kept as the cloud wrote them."""
    units = {metric.name: metric.unit for metric in METRICS.values()}
    rows = warehouse.query(
        "SELECT metric_name, unit, resource_type, count(*) AS n"
        f" FROM {_of_day(warehouse, table, customer_id, day)} m GROUP BY metric_name, unit, resource_type"
    ).to_pylist()
    return vocabulary(
        [
            ("metric_name", f"{row['metric_name']} in {row['unit']}", row["n"])
            for row in rows
            if units.get(row["metric_name"]) != row["unit"]
        ]
        + [
            ("resource_type", row["resource_type"], row["n"])
            for row in rows
            if row["resource_type"] not in RESOURCE_TYPES
        ],
        sum(row["n"] for row in rows),
    )


def _inventory_words(warehouse: Warehouse, table: Table, customer_id: str, day: Window) -> Verdict:
    """Every resource type, state and GPU model is one of the vocabulary; others are kept as the cloud wrote them."""
    rows = warehouse.query(
        "SELECT resource_type, state, gpu_model, count(*) AS n"
        f" FROM {_of_day(warehouse, table, customer_id, day)} i GROUP BY resource_type, state, gpu_model"
    ).to_pylist()
    return vocabulary(list(_unknown_words(rows)), sum(row["n"] for row in rows))


def _unknown_words(rows: Iterable[Mapping[str, object]]) -> Iterable[tuple[str, str, int]]:
    for row in rows:
        kind, state, gpu, count = str(row["resource_type"]), row["state"], row["gpu_model"], int(str(row["n"]))
        if kind not in RESOURCE_TYPES:
            yield "resource_type", kind, count
        elif state is not None and kind in STATES and state not in STATES[kind]:
            yield f"state of a {kind}", str(state), count
        if gpu is not None and gpu not in GPU_MODELS:
            yield "gpu_model", str(gpu), count


def _no_collapse(warehouse: Warehouse, table: Table, customer_id: str, day: Window) -> Verdict:
    """No connection lists much less of a resource type than in its inventory before."""
    both = Window(day.start - DAY, day.end)
    params: dict[str, str | datetime] = {
        "customer": customer_id,
        "provider": table.name.removesuffix("_inventory"),
        "start": both.start.replace(tzinfo=None),
        "end": both.end.replace(tzinfo=None),
    }
    taken: dict[str, list[datetime]] = {}
    for row in warehouse.query(
        f"SELECT DISTINCT connection_id, window_start FROM {warehouse.name(COLLECTION_RUNS)} r"
        " WHERE kind = 'inventory' AND status = 'succeeded' AND customer_id = $customer AND provider = $provider"
        " AND window_start >= $start AND window_start < $end ORDER BY window_start DESC",
        params,
    ).to_pylist():
        taken.setdefault(row["connection_id"], []).append(row["window_start"])
    seen = warehouse.query(
        "SELECT connection_id, resource_type, resource_id, max(snapshot_at) AS seen_at"
        f" FROM {_of_day(warehouse, table, customer_id, both)} i GROUP BY connection_id, resource_type, resource_id"
    ).to_pylist()
    counted: dict[tuple[str, str], dict[str, int]] = {}
    for row in seen:
        newest, *earlier = taken.get(row["connection_id"], [row["seen_at"]])
        if not earlier or row["seen_at"] < earlier[0]:
            continue
        count = counted.setdefault((row["connection_id"], row["resource_type"]), {"before": 0, "now": 0})
        count["before"] += 1
        count["now"] += row["seen_at"] >= newest
    return collapse(
        [{"connection_id": connection, "resource_type": kind, **n} for (connection, kind), n in sorted(counted.items())]
    )


def expectation_keys(kinds: Iterable[Kind]) -> list[dg.AssetCheckKey]:
    """The Great Expectations checks of those kinds: importing that library costs 5 s of CPU, too much for each tick."""
    return [
        dg.AssetCheckKey(dg.AssetKey([table.schema, table.name]), _expectations_name(kind))
        for kind in kinds
        for table in TABLES[kind].values()
    ]


def _expectations_name(kind: Kind) -> str:
    return "inventory_meets_expectations" if kind == "inventory" else f"{kind}_meet_expectations"


def _expectations(provider: CloudProvider, kind: Kind) -> dg.AssetChecksDefinition:
    table = TABLES[kind][provider]

    @dg.asset_check(
        asset=[table.schema, table.name],
        name=_expectations_name(kind),
        description=f"A Great Expectations suite over a sample of the day's {kind}.",
        partitions_def=CUSTOMER_DAYS,
    )
    def check(
        context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource, scratch: DuckDBResource
    ) -> dg.AssetCheckResult:
        customer_id, day = customer_and_day(context.partition_key)
        opened = warehouse.open(context.run.run_id)
        sample = opened.query(f"SELECT * FROM {_of_day(opened, table, customer_id, day)} t LIMIT {_SAMPLE}")
        if sample.num_rows == 0:
            nothing = Verdict(True, "WARN", "there are no rows to judge", {"sample_size": 0})
            return check_result(nothing, customer=customer_id, provider=provider)
        with scratch.get_connection() as con:
            con.register("sample", sample)
            frame = con.execute(_FRAMES[kind]).df()
        return check_result(_JUDGES[kind](frame), customer=customer_id, provider=provider)

    return check
