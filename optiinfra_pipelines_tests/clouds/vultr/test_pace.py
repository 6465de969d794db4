"""No more requests a second leave for Vultr's public API than it takes from one address."""

from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import httpx

from optiinfra_pipelines.clouds.vultr.client import Pace

REQUEST = httpx.Request("GET", "https://api.vultr.com/v2/instances")


def test_a_burst_within_the_limit_passes_at_once() -> None:
    pace = Pace(1000)
    began = monotonic()
    for _ in range(100):
        pace(REQUEST)
    assert monotonic() - began < 0.1


def test_requests_beyond_the_limit_wait_for_their_turn_in_all_threads() -> None:
    pace = Pace(200)
    began = monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: pace(REQUEST), range(260)))
    assert monotonic() - began >= 60 / 200 * 0.95
