"""staging.inventory: what is there now, and what is gone."""

import pytest

from optiinfra_pipelines_tests.dbt_project.conftest import History

pytestmark = pytest.mark.xdist_group("dbt")


def test_what_its_own_list_lacks_is_gone_and_what_a_failed_list_lacks_is_not(history: History) -> None:
    current = {row["resource_id"]: row["is_current"] for row in history.after["first"]["staging.inventory"]}
    assert current == {
        "still-there": True,
        "deleted-since": False,
        "in-a-zone-that-failed": True,
        "of-a-list-that-failed": True,
        "deleted-long-ago": False,
        "of-a-connection-that-left": False,
    }
