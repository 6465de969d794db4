"""The sandbox's clouds together: every server in a process of its own, and what customers.yaml says of them."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from optiinfra_pipelines.sandbox import prometheus_server
from optiinfra_pipelines.sandbox.fleet import Fleet, FleetCloud
from optiinfra_pipelines.sandbox.fleet_truths import server
from optiinfra_pipelines.sandbox.interaction_logs import llm_credentials, llm_places


@dataclass(frozen=True)
class Clouds:
    """The running servers of a fleet: their URLs by cloud, and the Prometheus server that watches Vultr's machines.

    `logs` is the S3 server that holds logs of interactions; without one, connections collect none.
    """

    fleet: Fleet
    urls: Mapping[str, str]
    logs: str | None = None

    def connections(self, customer_id: str) -> list[dict[str, Any]]:
        """The customer's entries under `connections` in customers.yaml."""
        found = []
        for cloud in self.fleet.clouds:
            connection = server(cloud).connection(customer_id, self.urls[cloud])
            if cloud == "vultr":
                connection["prometheus"] = prometheus_server.prometheus(customer_id, self.urls["prometheus"])
                connection["credentials"] |= prometheus_server.credentials(customer_id)
            found += [connection, *self._logging(customer_id, cloud, connection)]
        return found

    def _logging(self, customer_id: str, cloud: FleetCloud, connection: dict[str, Any]) -> list[dict[str, Any]]:
        """Give the cloud's connection its log of interactions; AWS's lies in another account, with a connection of its
        own."""
        places = llm_places(customer_id, cloud, self.logs) if self.logs else []
        if not places:
            return []
        apart: dict[str, Any] = {"id": "aws-logs", "provider": "aws", "collect": [], "credentials": {}}
        logging = apart if cloud == "aws" else connection
        logging["llm"] = places
        logging["collect"] = [*logging["collect"], "llm_interactions"]
        logging["credentials"] = logging["credentials"] | llm_credentials(cloud)
        return [logging] if logging is apart else []

    def environment(self) -> dict[str, str]:
        """The environment variables that the connections name."""
        found = dict(prometheus_server.environment(self.fleet.customers))
        for cloud in self.fleet.clouds:
            found |= server(cloud).environment(self.fleet.customers)
        return found


@contextmanager
def serve_clouds(fleet: Fleet, latency: float = 0.0, logs: str | None = None) -> Iterator[Clouds]:
    """Run the servers of the fleet's clouds; each answer takes `latency` seconds longer. `logs`: see Clouds."""
    given = (fleet.today, fleet.customers, fleet.machines, latency)
    with ExitStack() as running:
        urls: dict[str, str] = {
            cloud: running.enter_context(getattr(server(cloud), f"serve_{cloud}")(*given)) for cloud in fleet.clouds
        }
        urls["prometheus"] = running.enter_context(prometheus_server.serve_prometheus(*given))
        yield Clouds(fleet, urls, logs)
