"""What tests of runs share: an instance that knows the customer acme, and the gate run on one of its days."""

from collections.abc import Callable, Iterator
from datetime import datetime

import dagster as dg
import pytest

from optiinfra_pipelines.defs.partitions import day_key
from optiinfra_pipelines.tables.gate import GATE_TABLES

Checks = dict[str, dg.AssetCheckEvaluation]
Judged = Callable[[datetime], Checks]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("customer", ["acme"])
        yield instance


@pytest.fixture
def judged(instance: dg.DagsterInstance) -> Judged:
    """Runs the gate's assets on the day of a moment; the checks that were evaluated, by name."""
    from optiinfra_pipelines.definitions import defs

    def run(at: datetime) -> Checks:
        result = defs.resolve_job_def("scoring_job").execute_in_process(
            instance=instance,
            partition_key=day_key("acme", at),
            asset_selection=[dg.AssetKey([table.schema, table.name]) for table in GATE_TABLES],
        )
        return {each.check_name: each for each in result.get_asset_check_evaluations()}

    return run
