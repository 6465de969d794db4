"""dbt's own tests find what they are there for: rows that went missing, or stand twice, behind the loads' back."""

from pathlib import Path

import duckdb
import pytest

from optiinfra_pipelines_tests.dbt_project.conftest import History
from optiinfra_pipelines_tests.dbt_project.dbt_runs import Dbt

pytestmark = pytest.mark.xdist_group("dbt")


def test_a_row_lost_from_a_raw_table_fails_the_tests_that_count_and_sum(
    duckdb_history: History, tmp_path: Path
) -> None:
    path = tmp_path / "warehouse.duckdb"
    path.write_bytes(duckdb_history.target.warehouse.path.read_bytes())
    with duckdb.connect(str(path)) as con:
        con.execute("DELETE FROM raw.aws_billing WHERE ChargeCategory = 'Tax'")
        con.execute("INSERT INTO marts.provider_costs_monthly FROM marts.provider_costs_monthly LIMIT 1")
    dbt = Dbt({"OPTIINFRA_DUCKDB_PATH": str(path)}, tmp_path)
    code, _ = dbt.attempt("test")
    assert code == 1
    assert {name for name, status in dbt.test_results().items() if status == "fail"} == {
        "visible_loads_are_whole",
        "costs_daily_conserves_billing",
        "provider_costs_monthly_conserves_costs_daily",
        "provider_costs_monthly_has_one_row_per_grain",
    }


def test_an_unexplained_invoice_is_a_warning(history: History) -> None:
    assert history.tests["no_invoice_is_unexplained"] == "warn"
    assert set(history.tests.values()) == {"pass", "warn"}
