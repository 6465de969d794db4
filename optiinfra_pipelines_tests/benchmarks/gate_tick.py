"""One tick of the gate through the warehouse: customers of 50 applications by ten metrics, all gated and monitored.

Before the tick every application has a day of scores with a baseline frozen from it, and a night of which all but the
newest window was judged; a tenth got a new model at midnight and is being looked at. All of it is made by the product
for two applications and then copied, for the tick's work does not depend on whose scores they are.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from time import perf_counter, process_time
from typing import Any

import numpy as np
import pyarrow as pa

from optiinfra_pipelines.applications import Application
from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.customers import Connection, Customer
from optiinfra_pipelines.gate.judging import judge_customer, judge_streams
from optiinfra_pipelines.gate.writing import row_id
from optiinfra_pipelines.quality.policy import METRICS
from optiinfra_pipelines.tables.gate import BASELINES, DEPLOYMENTS, MONITOR_STATES, VERDICTS
from optiinfra_pipelines.tables.llm import APPLICATION_METRICS
from optiinfra_pipelines.warehouse.duckdb import DuckDBWarehouse
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import DAY, WINDOW, Window
from optiinfra_pipelines_tests.benchmarks.gate_streams import FIVE_LEVELS
from optiinfra_pipelines_tests.benchmarks.warehouses import warehouse_at

PER_CUSTOMER, EVERY_TENTH, N, BEFORE = 50, 10, 20, 21  # scores of a window: of the night, and of the day before
MIDNIGHT, WINDOWS = datetime(2026, 11, 20, tzinfo=UTC), 10
NAMES = tuple(name for name, metric in METRICS.items() if metric.high == 1.0)
_CONNECTION = Connection.model_validate({"id": "aws-main", "provider": "aws", "collect": ["inventory"]})
_TABLES = (DEPLOYMENTS, BASELINES, VERDICTS, MONITOR_STATES)


def tick(address: str, applications: int) -> Mapping[str, float]:
    """Task: one tick of that many applications; seconds, CPU seconds, and what was judged."""
    warehouse = warehouse_at(address)
    assert isinstance(warehouse, DuckDBWarehouse)
    _before(warehouse)
    names = [f"customer-{number:02d}" for number in range(max(applications // PER_CUSTOMER, 1))]
    _copy(warehouse, names, [f"application-{number:02d}" for number in range(min(applications, PER_CUSTOMER))])
    day, now = Window(MIDNIGHT, MIDNIGHT + DAY), MIDNIGHT + WINDOWS * WINDOW
    began, cpu = perf_counter(), process_time()
    judged = judge_streams(warehouse, [_customer(name) for name in names], day, now).values()
    return {
        "seconds": perf_counter() - began,
        "cpu": process_time() - cpu,
        "states": sum(each.written["monitor_states"] for each in judged),
        "looks": sum(each.written["verdicts"] for each in judged),
        "baselines": sum(each.written["baselines"] for each in judged),
        "scores": warehouse.query("SELECT count(*) AS n FROM quality.application_metrics").to_pylist()[0]["n"],
    }


def _customer(name: str) -> Customer:
    """A customer all of whose metrics are gated."""
    margins = {each: METRICS[each].margin for each in NAMES}
    ids = ("plain", "deployed", *(f"application-{number:02d}" for number in range(PER_CUSTOMER)))
    gated = tuple(Application(id=id, margins=margins) for id in ids)
    return Customer(id=name, name=name, connections=(_CONNECTION,), applications=gated)


def _before(warehouse: Warehouse) -> None:
    """The day before and the night, of an application as it was and of one with a new model, judged by the product but
    for the newest window."""
    rng, yesterday = np.random.default_rng(1000), Window(MIDNIGHT - DAY, MIDNIGHT)
    rows = [row for id in ("plain", "deployed") for row in _scores(rng, id, "old", yesterday.start, 96, BEFORE)]
    rows += _scores(rng, "plain", "old", MIDNIGHT, WINDOWS, N)
    rows += _scores(rng, "deployed", "new", MIDNIGHT, WINDOWS, N)
    rows.sort(key=lambda row: row["timestamp"])
    warehouse.upsert(APPLICATION_METRICS, pa.Table.from_pylist(rows, schema=APPLICATION_METRICS.arrow_schema))
    judge_customer(warehouse, _customer("template"), yesterday, MIDNIGHT)
    today = Window(MIDNIGHT, MIDNIGHT + DAY)
    judge_customer(warehouse, _customer("template"), today, MIDNIGHT + (WINDOWS - 1) * WINDOW)


def _scores(
    rng: np.random.Generator, application: str, model: str, start: datetime, windows: int, n: int
) -> Iterator[dict[str, Any]]:
    for metric in NAMES:
        drawn = FIVE_LEVELS.draw(rng, (windows * n,)).tolist()
        for number, score in enumerate(drawn):
            at = naive_utc(start + number * WINDOW / n)
            interaction = f"{application} {model} {at:%d %H:%M:%S.%f}"
            yield {
                "score_id": f"{interaction} {metric}",
                "timestamp": at,
                "customer_id": "template",
                "provider": "aws",
                "connection_id": "aws-main",
                "application_id": application,
                "application_name": application,
                "metric_type": metric,
                "score": score if METRICS[metric].bad == "down" else 1 - score,
                "details": "{}",
                "model_name": model,
                "metadata": "{}",
                "collected_at": at + timedelta(minutes=1),
                "interaction_id": interaction,
                "variant": "",
                "conversation_id": f"{application} {model} {at:%d} {number // 3}",
                "judge_fingerprint": "judge-1",
                "judge_call_id": None,
                "sampling_probability": 1.0,
                "flagged": False,
            }


def _copy(warehouse: DuckDBWarehouse, customers: list[str], applications: list[str]) -> None:
    """Everything of the two applications for all customers' applications, every tenth of which is a deployed one."""
    import duckdb

    made = {table: warehouse.query(f"SELECT * FROM {table.full_name}").to_pylist() for table in _TABLES}
    for customer in customers:
        for table, rows in made.items():
            copies = [
                _copied(row, customer, id)
                for number, id in enumerate(applications)
                for row in rows
                if row["application_id"] == ("plain" if number % EVERY_TENTH else "deployed")
            ]
            warehouse.upsert(table, pa.Table.from_pylist(copies, schema=table.arrow_schema))
    with duckdb.connect(str(warehouse.path)) as con:
        for night in (False, True):  # as scores come: by time
            con.execute(
                "INSERT INTO quality.application_metrics BY NAME SELECT m.* REPLACE (customer.id AS customer_id,"
                " copy.id AS application_id, copy.id AS application_name)"
                " FROM quality.application_metrics m, (SELECT unnest($customers) AS id) customer,"
                " (SELECT unnest($applications) AS id, unnest($originals) AS original) copy"
                " WHERE m.customer_id = 'template' AND m.application_id = copy.original"
                " AND (m.timestamp >= $midnight) = $night",
                {
                    "customers": customers,
                    "applications": applications,
                    "originals": ["plain" if n % EVERY_TENTH else "deployed" for n in range(len(applications))],
                    "midnight": naive_utc(MIDNIGHT),
                    "night": night,
                },
            )
        for table in (APPLICATION_METRICS, *_TABLES):
            con.execute(f"DELETE FROM {table.full_name} WHERE customer_id = 'template'")


def _copied(row: Mapping[str, Any], customer: str, application: str) -> dict[str, Any]:
    """A row of the gate's tables as another customer's application has it, with the ids that the product gives."""
    about = (customer, row["provider"], application, row["model_name"], row["variant"])
    ids: dict[str, str] = {}
    if "deployment_id" in row:
        ids["deployment_id"] = row_id(*about)
    if "verdict_id" in row:
        ids["verdict_id"] = row_id(ids["deployment_id"], str(row["look"]))
    for name, at in (("baseline_id", "frozen_at"), ("state_id", "day")):
        if name in row:
            ids[name] = row_id(*about, row["metric_type"], row["judge_fingerprint"], row[at])
    times = {name: naive_utc(value) for name, value in row.items() if isinstance(value, datetime)}
    return {
        **row,
        **times,
        **ids,
        "customer_id": customer,
        "application_id": application,
        "application_name": application,
    }
