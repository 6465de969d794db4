"""The Vultr collector: which lists are asked for, and what becomes of one that fails. Shapes are the parsers'.

CPU, memory, disk and GPU metrics are not to be had from Vultr; a Prometheus source of the connection brings them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, TypeVar

from optiinfra_pipelines.clouds.collecting import Findings, Source
from optiinfra_pipelines.clouds.vultr import inventory as parsed
from optiinfra_pipelines.clouds.vultr.client import VultrApi
from optiinfra_pipelines.clouds.vultr.metrics import days_that_end, parse_bandwidth
from optiinfra_pipelines.clouds.vultr.prices import PlanKind, price_rows
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.tables.cloud import INVENTORY, METRICS, PRICES
from optiinfra_pipelines.windows import Window

AT_ONCE = 8
ALL_PLANS = {"type": "all"}  # without it GPU plans (vcg) are left out
Item = TypeVar("Item")
Rows = list[dict[str, Any]]


class VultrCollector:
    """Inventory, bandwidth and prices of one Vultr account; see collecting.Collector."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.api = VultrApi(source)

    def inventory(self) -> Findings:
        """Every instance, bare-metal server, volume, snapshot, reserved address, database and inference subscription.

        A list that fails is one failure and the others come; CollectionError where all fail for want of rights.
        """
        lists: list[Callable[[], Rows]] = [
            self._instances,
            self._bare_metals,
            lambda: [parsed.block(each) for each in self.api.list("/blocks", "blocks")],
            lambda: [parsed.snapshot(each) for each in self.api.list("/snapshots", "snapshots")],
            lambda: [parsed.block_snapshot(each) for each in self.api.list("/blocks/snapshots", "snapshots")],
            lambda: [parsed.reserved_ip(each) for each in self.api.list("/reserved-ips", "reserved_ips")],
            lambda: [row for each in self.api.list("/databases", "databases") for row in parsed.databases(each)],
            self._inference,
        ]
        rows, failures = _gathered(lambda ask: ask(), lists)
        findings = Findings(failures=failures)
        findings.add_rows(INVENTORY["vultr"], parsed.as_rows(rows))
        return findings

    def metrics(self, resources: Sequence[Mapping[str, Any]], span: Window) -> Findings:
        """Bytes in and out of each machine, one figure a UTC day, of the days whose last 15 minutes lie in `span`.

        Any other span asks nothing: the figure of a day that goes on would be taken for the whole of it.
        """
        days = days_that_end(span)
        machines = [each for each in resources if each["resource_type"] == "machine" and days]
        rows, failures = _gathered(lambda machine: self._bandwidth(machine, days), machines)
        findings = Findings(failures=failures)
        findings.add_rows(METRICS["vultr"], rows)
        return findings

    def prices(self) -> Findings:
        """List prices of machine, bare-metal and database plans in the connection's regions."""
        lists: list[tuple[PlanKind, str, str, Mapping[str, str]]] = [
            ("machine", "/plans", "plans", ALL_PLANS),
            ("bare_metal", "/plans-metal", "plans_metal", {}),
            ("database", "/databases/plans", "plans", {}),
        ]
        regions = self.source.connection.regions
        rows, failures = _gathered(lambda each: list(price_rows(self.api.list(*each[1:]), each[0], regions)), lists)
        findings = Findings(failures=failures)
        findings.add_rows(PRICES["vultr"], rows)
        return findings

    def _bandwidth(self, machine: Mapping[str, Any], days: Sequence[datetime]) -> Rows:
        kind = "bare-metals" if json.loads(machine["details"]).get("kind") == "bare_metal" else "instances"
        try:
            answer = self.api.get(f"/{kind}/{machine['resource_id']}/bandwidth")
        except CollectionError as error:
            if error.kind == "not_configured":  # 404: the machine went after the inventory was taken
                return []
            raise
        return parse_bandwidth(answer, machine["resource_id"], days, f"vultr:/v2/{kind}/{{id}}/bandwidth")

    def _instances(self) -> Rows:
        # nearly every account has instances: their plans are asked for beside them and not after
        with ThreadPoolExecutor(1) as pool:
            plans = pool.submit(self.api.list, "/plans", "plans", ALL_PLANS)
            found = self.api.list("/instances", "instances")
        by_id = {each["id"]: each for each in plans.result()}
        return [parsed.instance(each, by_id) for each in found]

    def _bare_metals(self) -> Rows:
        found = self.api.list("/bare-metals", "bare_metals")
        plans = {each["id"]: each for each in self.api.list("/plans-metal", "plans_metal")} if found else {}
        return [parsed.bare_metal(each, plans) for each in found]

    def _inference(self) -> Rows:
        subscriptions = self.api.list("/inference", "subscriptions")
        return [
            parsed.inference(each, self.api.get(f"/inference/{each['id']}/usage").get("usage", {}))
            for each in subscriptions
        ]


def _gathered(ask: Callable[[Item], Rows], items: Sequence[Item]) -> tuple[Rows, list[CollectionError]]:
    """The rows of all `items`, AT_ONCE asked at a time, and the failures; raised where all are refused for want of
    rights: then it is the key and not a part."""

    def one(item: Item) -> Rows | CollectionError:
        try:
            return ask(item)
        except CollectionError as error:
            return error

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(one, items))
    failures = [each for each in answers if isinstance(each, CollectionError)]
    if failures and len(failures) == len(answers) and all(each.kind in ("auth", "budget") for each in failures):
        raise failures[0]
    return [row for each in answers if not isinstance(each, CollectionError) for row in each], failures
