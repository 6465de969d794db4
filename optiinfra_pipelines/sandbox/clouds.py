"""The sandbox's clouds together: every server in a process of its own, and what customers.yaml says of them."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from optiinfra_pipelines.sandbox import prometheus_server
from optiinfra_pipelines.sandbox.fleet import Fleet
from optiinfra_pipelines.sandbox.fleet_truths import server


@dataclass(frozen=True)
class Clouds:
    """The running servers of a fleet: their URLs by cloud, and the Prometheus server that watches Vultr's machines."""

    fleet: Fleet
    urls: Mapping[str, str]

    def connections(self, customer_id: str) -> list[dict[str, Any]]:
        """The customer's entries under `connections` in customers.yaml."""
        found = []
        for cloud in self.fleet.clouds:
            connection = server(cloud).connection(customer_id, self.urls[cloud])
            if cloud == "vultr":
                connection["prometheus"] = prometheus_server.prometheus(customer_id, self.urls["prometheus"])
                connection["credentials"] |= prometheus_server.credentials(customer_id)
            found.append(connection)
        return found

    def environment(self) -> dict[str, str]:
        """The environment variables that the connections name."""
        found = dict(prometheus_server.environment(self.fleet.customers))
        for cloud in self.fleet.clouds:
            found |= server(cloud).environment(self.fleet.customers)
        return found


@contextmanager
def serve_clouds(fleet: Fleet, latency: float = 0.0) -> Iterator[Clouds]:
    """Run the servers of the fleet's clouds; each answer takes `latency` seconds longer."""
    given = (fleet.today, fleet.customers, fleet.machines, latency)
    with ExitStack() as running:
        urls: dict[str, str] = {
            cloud: running.enter_context(getattr(server(cloud), f"serve_{cloud}")(*given)) for cloud in fleet.clouds
        }
        urls["prometheus"] = running.enter_context(prometheus_server.serve_prometheus(*given))
        yield Clouds(fleet, urls)
