"""A fault of the wire passes unseen, or is one recorded failure beside whole lists; the next run is whole."""

import pytest

from optiinfra_pipelines.clouds.vultr.collector import VultrCollector
from optiinfra_pipelines.sandbox.vultr_server import FAULTS
from optiinfra_pipelines_tests.clouds.vultr.sandbox import open_source, rows_of, switched_on

RECOVERED = ("throttled", "server_error_500", "server_error_503", "connection_reset", "timeout", "truncated_json")
RECORDED = {  # the failure's kind, and the resources that are then missing
    "partial_page": ("malformed", "machine"),
    "endless_cursor": ("malformed", "machine"),
    "repeated_page": ("malformed", "machine"),
    "permission_denied": ("auth", "database"),
}


def test_every_fault_that_vultr_can_have_is_tried() -> None:
    assert {name for name, fault in FAULTS.items() if fault is not None} == {*RECOVERED, *RECORDED}


@pytest.mark.parametrize("name", RECOVERED)
def test_a_passing_fault_leaves_no_trace(vultr_url: str, name: str) -> None:
    fault = FAULTS[name]
    assert fault is not None
    usual = VultrCollector(open_source(vultr_url)).inventory()
    with switched_on(vultr_url, fault):
        findings = VultrCollector(open_source(vultr_url, timeout=0.5)).inventory()
    assert findings.failures == []
    assert rows_of(findings) == rows_of(usual)


@pytest.mark.parametrize("name", RECORDED)
def test_a_lasting_fault_is_one_failure_and_the_next_run_is_whole(vultr_url: str, name: str) -> None:
    fault = FAULTS[name]
    assert fault is not None
    kind, missing = RECORDED[name]
    with switched_on(vultr_url, fault):
        findings = VultrCollector(open_source(vultr_url, timeout=0.5)).inventory()
    following = VultrCollector(open_source(vultr_url)).inventory()
    assert [failure.kind for failure in findings.failures] == [kind]
    assert "acme/vultr-api" in str(findings.failures[0])
    assert following.failures == []
    assert rows_of(findings) == [row for row in rows_of(following) if row["resource_type"] != missing]
