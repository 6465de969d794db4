"""The sandbox's Prometheus answers as the HTTP API of Prometheus says."""

from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest

from optiinfra_pipelines.clouds.prometheus.vocabulary import exporter_query
from optiinfra_pipelines.sandbox.prometheus_server import FAULTS, environment, serve_prometheus
from optiinfra_pipelines_tests.clouds.vultr.sandbox import TODAY
from optiinfra_pipelines_tests.sandbox.test_vultr_server import NAMES

END = int(datetime(TODAY.year, TODAY.month, TODAY.day, tzinfo=UTC).timestamp())
PATH = "/acme/vultr/api/v1/query_range"


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """A client with acme's token."""
    [token] = environment(["acme"]).values()
    with (
        serve_prometheus(TODAY) as url,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}) as client,
    ):
        yield client


def asked(query: str, points: int = 2) -> dict[str, str | int]:
    return {"query": query, "start": END - 900 * (points - 1), "end": END, "step": 900}


def test_a_range_query_answers_a_matrix_with_numbers_as_text(client: httpx.Client) -> None:
    answer = client.get(PATH, params=asked(exporter_query("node", "instance"))).json()
    assert (answer["status"], answer["data"]["resultType"]) == ("success", "matrix")
    first = answer["data"]["result"][0]
    assert [at for at, _ in first["values"]] == [END - 900, END]
    assert all(isinstance(value, str) for _, value in first["values"])
    assert set(first["metric"]) == {"machine", "metric"}


def test_more_than_11_000_points_a_series_are_refused(client: httpx.Client) -> None:
    answer = client.get(PATH, params=asked("node_cpu_seconds_total", 11_001))
    assert (answer.status_code, answer.json()["errorType"]) == (400, "bad_data")
    assert "11,000 points" in answer.json()["error"]


def test_a_metric_that_no_exporter_has_is_bad_data(client: httpx.Client) -> None:
    answer = client.get(PATH, params=asked("avg_over_time(node_unheard_of[15m])"))
    assert (answer.status_code, answer.json()["status"]) == (400, "error")


def test_an_expression_that_forgets_percent_gets_a_fraction(client: httpx.Client) -> None:
    named = 'label_replace(rate(node_cpu_seconds_total[15m]), "machine", "$1", "instance", "(.+)")'
    share = f"1 - avg by (machine) ({named})"
    both = [client.get(PATH, params=asked(query)).json()["data"]["result"] for query in (share, f"100 * ({share})")]
    fraction, percent = (float(result[0]["values"][0][1]) for result in both)
    assert percent == pytest.approx(100 * fraction)


def test_clamps_bound_what_is_answered(client: httpx.Client) -> None:
    named = 'label_replace(rate(node_cpu_seconds_total[15m]), "machine", "$1", "instance", "(.+)")'
    busy = f"100 * (1 - avg by (machine) ({named}))"
    clamped = f"clamp_max(clamp_min({busy}, 20), 40)"
    result = client.get(PATH, params=asked(clamped)).json()["data"]["result"]
    assert {float(value) for series in result for _, value in series["values"]} == {20.0, 40.0}


def test_a_token_opens_its_own_customer_alone(client: httpx.Client) -> None:
    assert client.get("/globex/vultr/api/v1/query_range", params=asked("node_cpu_seconds_total")).status_code == 401
    assert client.get("/nobody/vultr/api/v1/query_range").status_code == 404


def test_every_fault_of_the_matrix_is_there_or_said_not_to_be() -> None:
    assert tuple(FAULTS) == NAMES
