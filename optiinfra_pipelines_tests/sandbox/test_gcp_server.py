"""The sandbox's Google Cloud speaks the recorded wire: credentials, pages, errors."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice

import httpx
import pytest
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from optiinfra_pipelines.sandbox.fleet import Fleet
from optiinfra_pipelines.sandbox.gcp_server import (
    FAULTS,
    GoogleCloud,
    connection,
    environment,
    serve_gcp,
    shown_resources,
    shown_series,
)
from optiinfra_pipelines.sandbox.gcp_wire import WIRES, time_series, window_starts
from optiinfra_pipelines_tests.clouds.gcp.conftest import FLEET, TODAY

ACME, GLOBEX = "acme-llm-prod-4471", "globex-ml-8852"
CPU = "compute.googleapis.com/instance/cpu/utilization"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve_gcp(TODAY) as address:
        yield address


@pytest.fixture(scope="module")
def acme(url: str) -> Iterator[httpx.Client]:
    key = json.loads(environment(["acme"])["SANDBOX_GCP_KEY_ACME"]) | {"token_uri": f"{url}/token"}
    credentials = service_account.Credentials.from_service_account_info(key, scopes=["any"])
    credentials.refresh(Request())
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {credentials.token}"}) as client:
        yield client


def _series(client: httpx.Client, **changes: str) -> httpx.Response:
    asked = {
        "filter": f'project = "{ACME}" AND metric.type = "{CPU}"',
        "interval.startTime": "2026-11-19T10:00:00Z",
        "interval.endTime": "2026-11-19T10:45:00Z",
        "aggregation.alignmentPeriod": "900s",
        "aggregation.perSeriesAligner": "ALIGN_MEAN",
    }
    return client.get(f"/v3/projects/{ACME}/timeSeries", params=asked | changes)


def test_a_request_without_a_good_token_is_refused_as_google_refuses_it(url: str) -> None:
    for headers in ({}, {"Authorization": "Bearer guessed"}):
        answer = httpx.get(f"{url}/compute/v1/projects/{ACME}/aggregated/disks", headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["status"] == "UNAUTHENTICATED"
        assert answer.json()["error"]["errors"][0]["reason"] == "authError"


def test_a_token_of_one_customer_does_not_open_another_project(acme: httpx.Client) -> None:
    for path in (f"/compute/v1/projects/{GLOBEX}/aggregated/disks", f"/v1/projects/{GLOBEX}/instances"):
        assert acme.get(path).status_code == 403


def test_a_signature_by_another_key_is_an_invalid_grant(url: str) -> None:
    keys = environment(["acme", "globex"])
    acme, globex = (json.loads(keys[f"SANDBOX_GCP_KEY_{name}"]) for name in ("ACME", "GLOBEX"))
    forged = acme | {"private_key": globex["private_key"], "token_uri": f"{url}/token"}
    credentials = service_account.Credentials.from_service_account_info(forged, scopes=["any"])
    with pytest.raises(Exception, match=r"Invalid JWT Signature") as refused:
        credentials.refresh(Request())
    assert type(refused.value).__name__ == "RefreshError"


def test_lists_are_paged_by_opaque_cursors_that_belong_to_their_query(acme: httpx.Client) -> None:
    path, found, cursor = f"/compute/v1/projects/{ACME}/aggregated/instances", [], None
    while True:
        page = acme.get(path, params={"maxResults": 2, **({"pageToken": cursor} if cursor else {})}).json()
        found += [item["name"] for scope in page["items"].values() for item in scope.get("instances", [])]
        cursor = page.get("nextPageToken")
        if cursor is None:
            break
        assert not cursor.isdigit()
        stolen = acme.get(f"/compute/v1/projects/{ACME}/global/images", params={"pageToken": cursor})
        assert stolen.status_code == 400
    assert found == [each.name for each in FLEET.of("acme", "gcp", "machine")]


def test_pages_of_time_series_count_points_and_a_series_may_span_two(acme: httpx.Client) -> None:
    whole = _series(acme).json()
    assert whole["unit"] == "10^2.%"
    ends = [point["interval"]["endTime"] for point in whole["timeSeries"][0]["points"]]
    assert ends == ["2026-11-19T10:45:00Z", "2026-11-19T10:30:00Z", "2026-11-19T10:15:00Z"]  # newest first
    first = _series(acme, pageSize="2").json()
    second = _series(acme, pageSize="2", pageToken=first["nextPageToken"]).json()
    assert [len(each["points"]) for each in first["timeSeries"]] == [2]
    assert [len(each["points"]) for each in second["timeSeries"]] == [1, 1]
    assert first["timeSeries"][0]["resource"] == second["timeSeries"][0]["resource"]


def test_time_series_are_of_one_metric_type_and_a_fitting_aligner(acme: httpx.Client) -> None:
    two = f'metric.type = "{CPU}" OR metric.type = "agent.googleapis.com/memory/percent_used"'
    assert _series(acme, filter=two).status_code == 400
    assert _series(acme, filter='metric.type = "no.such/type"').status_code == 404
    assert _series(acme, **{"aggregation.perSeriesAligner": "ALIGN_DELTA"}).status_code == 400


def test_whole_numbers_are_text_and_their_mean_is_a_double(acme: httpx.Client) -> None:
    connections = 'metric.type = "cloudsql.googleapis.com/database/network/connections"'
    maximum = _series(acme, filter=connections, **{"aggregation.perSeriesAligner": "ALIGN_MAX"}).json()
    mean = _series(acme, filter=connections).json()
    assert isinstance(maximum["timeSeries"][0]["points"][0]["value"]["int64Value"], str)
    assert isinstance(mean["timeSeries"][0]["points"][0]["value"]["doubleValue"], float)


def test_a_page_of_2000_machines_is_rendered_in_well_under_a_second() -> None:
    fleet = Fleet(TODAY, ("acme",), machines=2000, clouds=("gcp",))
    starts = window_starts(datetime(2026, 11, 19, 10, tzinfo=UTC), datetime(2026, 11, 19, 10, 15, tzinfo=UTC))
    list(islice(time_series(fleet, "acme", CPU, "ALIGN_MEAN", starts), 1))
    began = time.process_time()
    for native in (CPU, "compute.googleapis.com/instance/disk/read_bytes_count"):
        aligner = "ALIGN_MEAN" if native == CPU else "ALIGN_DELTA"
        assert sum(1 for _ in time_series(fleet, "acme", native, aligner, starts)) >= 2000
    assert time.process_time() - began < 2


def test_everything_that_is_shown_has_a_wire_and_secrets_are_recognisable() -> None:
    shown = {series.metric for series in shown_series(FLEET, "acme")}
    wires = {wire.metric for wire in WIRES.values()} - {"tokens"} | {"input_tokens", "output_tokens"}
    assert shown == wires
    assert len(shown_resources(FLEET, "acme")) == len(FLEET.of("acme", "gcp")) - 1  # a model is in no inventory
    assert "canary-gcp-acme-key" in environment(["acme"])["SANDBOX_GCP_KEY_ACME"]
    assert set(connection("acme", "http://x")["credentials"].values()) == set(environment(["acme"]))
    assert len(FAULTS) == 14
    assert isinstance(GoogleCloud(FLEET), GoogleCloud)
