"""A process whose children have a day judged and can be killed: it has everything imported, so a child begins at once.

`python -m optiinfra_pipelines_tests.llm.scorer ADDRESS` reads lines of run id, seconds, now and the day's budget. It
evaluates THE_DAY in a forked child, kills the child where it is not done by then, and prints its exit status.
"""

import os
import select
import signal
import sys
from datetime import datetime
from pathlib import Path

import clickhouse_connect  # noqa: F401
import groq  # noqa: F401

from optiinfra_pipelines.customers import Connection, Customer
from optiinfra_pipelines.llm import scoring
from optiinfra_pipelines.llm.evaluation import evaluate
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.warehouse.clickhouse import ClickHouseWarehouse
from optiinfra_pipelines.warehouse.duckdb import DuckDBWarehouse
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines_tests.conftest import address_of
from optiinfra_pipelines_tests.llm.interactions import THE_DAY

CLAIMED_AT_ONCE, BATCH = 16, 32  # fewer than the product's, so that a kill leaves many batches behind and before it
ACME = Customer(
    id="acme",
    name="Acme",
    connections=(Connection.model_validate({"id": "vultr-main", "provider": "vultr", "collect": ["inventory"]}),),
)


def open_scorer(address: str, run_id: str) -> Warehouse:
    """The warehouse at `address`, a path or a server's URL, as one run opens it."""
    if address.startswith("http"):
        return ClickHouseWarehouse(address_of(address), run_id=run_id)
    return DuckDBWarehouse(Path(address), run_id=run_id)


def main() -> None:
    """Serve until standard input closes."""
    address = sys.argv[1]
    scoring.CLAIMED_AT_ONCE, scoring.BATCH = CLAIMED_AT_ONCE, BATCH
    for line in sys.stdin:
        run_id, seconds, now, budget = line.split()
        child = os.fork()
        if child == 0:
            os.environ["LLM_BUDGET_USD_PER_DAY"] = os.environ["LLM_BUDGET_USD_PER_RUN"] = budget
            evaluate(open_scorer(address, run_id), Settings(), ACME, THE_DAY, datetime.fromisoformat(now))
            os._exit(0)
        running = os.pidfd_open(child)
        if not select.select([running], [], [], float(seconds))[0]:
            os.kill(child, signal.SIGKILL)  # which nobody has waited for: the id is still the child's
        os.close(running)
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main()
