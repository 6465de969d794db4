"""The sandbox's Azure as clients see it: refusals, pages, and its own figures."""

from collections.abc import Iterator
from datetime import date

import httpx
import pytest

from optiinfra_pipelines.customers import Connection
from optiinfra_pipelines.sandbox.azure_server import connection, environment, serve_azure

TODAY = date(2026, 11, 20)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve_azure(TODAY, machines=3) as served:
        yield served


def _token(url: str, customer: str) -> dict[str, str]:
    entry = connection(customer, url)
    values = environment([customer])
    form = {name: values[entry["credentials"][name]] for name in ("client_id", "client_secret")}
    tenant = values[entry["credentials"]["tenant_id"]]
    answer = httpx.post(f"{url}/login/{tenant}/oauth2/v2.0/token", data=form | {"grant_type": "client_credentials"})
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def _graph(url: str, headers: dict[str, str], **options: object) -> httpx.Response:
    body = {"query": "resources", "options": options}
    return httpx.post(f"{url}/management/providers/Microsoft.ResourceGraph/resources", json=body, headers=headers)


def test_the_connection_is_valid(url: str) -> None:
    assert Connection.model_validate(connection("acme", url)).provider == "azure"


def test_without_a_token_azure_says_so_in_its_words(url: str) -> None:
    answer = _graph(url, {})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "InvalidAuthenticationToken")


def test_anothers_subscription_is_forbidden(url: str) -> None:
    account = connection("globex", url)["accounts"][0]
    answer = httpx.get(f"{url}/management/subscriptions/{account}/resources", headers=_token(url, "acme"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "AuthorizationFailed")


def test_pages_are_as_small_as_asked_and_together_whole(url: str) -> None:
    headers = _token(url, "acme")
    whole = _graph(url, headers, **{"$top": 1000}).json()
    seen, token = [], None
    while True:
        page = _graph(url, headers, **{"$top": 4}, **({"$skipToken": token} if token else {})).json()
        assert page["count"] == len(page["data"]) <= 4
        assert page["totalRecords"] == whole["count"]
        seen += page["data"]
        token = page.get("$skipToken")
        if token is None:
            break
    assert seen == whole["data"]


def test_a_token_of_no_page_is_refused(url: str) -> None:
    assert _graph(url, _token(url, "acme"), **{"$skipToken": "made-up"}).status_code == 400


def test_more_than_50_resources_in_a_batch_are_refused(url: str) -> None:
    account = connection("acme", url)["accounts"][0]
    params = {"metricnames": "Percentage CPU", "aggregation": "average", "metricnamespace": "x"}
    answer = httpx.post(
        f"{url}/metrics/subscriptions/{account}/metrics:getBatch",
        params=params,
        json={"resourceids": ["/none"] * 51},
        headers=_token(url, "acme"),
    )
    assert answer.status_code == 400
