import json
from dataclasses import replace

import pytest

from optiinfra_pipelines.alerts.message import MOST_DETAIL, Alert, body, first_numbers, format_number, headline, shorten

REJECTED = Alert(
    kind="failed_check",
    customer="acme",
    provider="aws",
    asset="quality.verdicts",
    check="quality_is_not_inferior_to_baseline",
    severity="ERROR",
    numbers=(("observed", 71.25), ("baseline", 83), ("margin", 5)),
    link="https://dagster.example/runs/42",
    partition="acme|2026-10-07",
    detail="quality fell by 11.75 points",
)


def test_an_alert_names_customer_provider_asset_check_numbers_and_the_link_to_its_run():
    assert REJECTED.title == "ERROR: quality_is_not_inferior_to_baseline failed on quality.verdicts (acme, aws)"
    assert REJECTED.text == (
        "customer: acme · provider: aws · asset: quality.verdicts\n"
        "check: quality_is_not_inferior_to_baseline\n"
        "partition: acme|2026-10-07\n"
        "observed = 71.25, baseline = 83, margin = 5\n"
        "quality fell by 11.75 points\n"
        "https://dagster.example/runs/42"
    )


def test_a_recovery_says_ok_in_place_of_its_severity():
    recovered = replace(REJECTED, kind="recovered_check")
    assert recovered.title == "OK: quality_is_not_inferior_to_baseline recovered on quality.verdicts (acme, aws)"


def test_several_alerts_in_one_message_are_counted_in_its_title_and_each_keeps_its_link():
    second = replace(REJECTED, kind="recovered_check", link="https://dagster.example/runs/43")
    assert headline([REJECTED]) == REJECTED.title
    assert headline([REJECTED, REJECTED, second]) == "OptiInfra: 2 new failures, 1 recovered"
    assert headline([second, second]) == "OptiInfra: 2 recovered"
    assert "/runs/42" in body([REJECTED, second])
    assert "/runs/43" in body([REJECTED, second])


def test_what_was_measured_comes_before_other_numbers_whatever_their_order():
    measures = {"Execution Duration": 0.1, "a": 1, "baseline": 2.0, "observed": 3.0, "z": 4}
    assert first_numbers(measures) == (("observed", 3.0), ("baseline", 2.0), ("a", 1))
    assert first_numbers({"dagster_dbt/failed_row_count": 7}) == (("failed_row_count", 7),)


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345678, "12,345,678"), (3.0, "3"), (0.000123456789, "0.000123457"), (98765.4321, "98,765.43"), (0, "0")],
)
def test_numbers_are_written_for_people(value: float, text: str):
    assert format_number(value) == text


def test_a_number_that_is_not_finite_leaves_the_json_valid():
    alert = replace(REJECTED, numbers=(("observed", float("nan")), ("baseline", float("inf"))))
    assert json.loads(json.dumps(alert.as_json(), allow_nan=False))["numbers"] == {"observed": "nan", "baseline": "inf"}
    assert "observed = nan, baseline = inf" in alert.text


def test_a_long_detail_is_one_line_cut_to_length():
    text = shorten("first\n  second " + "x" * 1000)
    assert text.startswith("first second xxx")
    assert len(text) == MOST_DETAIL
