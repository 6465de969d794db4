"""Azure collected: inventory, metrics and prices of the subscriptions of one connection."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from optiinfra_pipelines.clouds.azure import parser, price_list, series
from optiinfra_pipelines.clouds.azure.client import INVENTORY_QUERY, REGIONS_QUERY, Access, Azure, open_azure
from optiinfra_pipelines.clouds.azure.vocabulary import NAMESPACES
from optiinfra_pipelines.clouds.collecting import Findings, Source
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.tables.cloud import INVENTORY, PRICES
from optiinfra_pipelines.windows import Window

if TYPE_CHECKING:
    from optiinfra_pipelines.clouds.azure.monitor import Monitor

_THREADS = 8
Sizes = dict[tuple[str, str], parser.Size]
Task = Callable[[], Findings]


class AzureCollector:
    """One connection's subscriptions. A part is one batch of metrics, one subscription's logs, one region's list."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._access = Access(source)
        self._sizes: dict[str, Sizes] = {}

    def inventory(self) -> Findings:
        """Machines, disks, snapshots, images, addresses and SQL databases of every subscription, by one query.

        What VM sizes have, and when images and addresses were created, other lists tell: where one of those fails the
        rows come without. A subscription of customers.yaml that may not be read is a failure. CollectionError: auth
        where nothing at all may be read.
        """
        with open_azure(self._source, self._access) as azure, ThreadPoolExecutor(_THREADS) as pool:
            found, records = Findings(), list(azure.graph(INVENTORY_QUERY))
            seen = {parser.subscription_of(each) for each in records if parser.kind_of(each) == parser.SUBSCRIPTION}
            found.failures += self._unseen(seen)
            known = parser.Known()
            regions = _first_subscriptions(records)
            sizes = [pool.submit(self._region_sizes, azure, region, account) for region, account in regions.items()]
            dated = {
                parser.subscription_of(each)
                for each in records
                if parser.kind_of(each) in (parser.ADDRESSES, *parser.IMAGES)
            }
            times = [pool.submit(azure.created, each, parser.DATED_BY_LISTS) for each in sorted(dated)]
            known.sizes = _merged(found, sizes)
            known.created = _merged(found, times)
            known.read(records)
            rows = parser.inventory_rows(records, known)
            found.add_rows(INVENTORY["azure"], [row for row in rows if self._wanted(row["region"])])
        return found

    def metrics(self, resources: Sequence[Mapping[str, Any]], span: Window) -> Findings:
        """Platform metrics in batches of one subscription, region and type, and one query of guest metrics a
        subscription with machines. What is stopped by now is asked for as well: it may have run in the span."""
        from optiinfra_pipelines.clouds.azure.monitor import Monitor

        batches = list(_batches(resources))
        machines: dict[str, set[str]] = {}
        for each in resources:
            if each["resource_type"] == "machine":
                machines.setdefault(each["account_id"], set()).add(each["resource_id"])
        if not batches:
            return Findings()
        self._access.token("metrics")  # refused for everything: raised here, before any part
        monitor = Monitor(self._source, self._access)
        tasks: list[Task] = [partial(_platform_metrics, monitor, *batch, span) for batch in batches]
        tasks += [partial(_guest_metrics, monitor, account, ids, span) for account, ids in machines.items()]
        found = Findings()
        with ThreadPoolExecutor(_THREADS) as pool:
            for each in pool.map(lambda task: task(), tasks):
                found.add(each)
        if not found.row_count and found.failures and all(each.kind == "auth" for each in found.failures):
            raise found.failures[0]
        return found

    def prices(self) -> Findings:
        """Retail prices of machines, disks, databases and addresses in the connection's regions; without any named,
        in those that something runs in."""
        with open_azure(self._source, self._access) as azure, ThreadPoolExecutor(_THREADS) as pool:
            places = {each["id"]: each["subscription"] for each in azure.graph(REGIONS_QUERY)}
            regions = self._source.connection.regions or tuple(places)
            account = next(iter(self._source.connection.accounts or places.values()), None)
            tasks = [partial(self._region_prices, azure, each, places.get(each, account)) for each in regions]
            found = Findings()
            for each in pool.map(lambda task: task(), tasks):
                found.add(each)
        return found

    def _region_prices(self, azure: Azure, region: str, account: str | None) -> Findings:
        found, sizes = Findings(), {}
        if account is not None:
            with found.part():
                sizes = self._region_sizes(azure, region, account)
        items = []
        with found.part():
            for item in azure.prices(price_list.wanted_in(region)):
                with found.part():  # one without a price keeps none of the others
                    items.append(price_list.whole(item))
        found.add_rows(PRICES["azure"], price_list.price_rows(items, sizes))
        return found

    def _region_sizes(self, azure: Azure, region: str, account: str) -> Sizes:
        if region not in self._sizes:
            self._sizes[region] = parser.sizes_of(azure.sizes(account, region))
        return self._sizes[region]

    def _wanted(self, region: str | None) -> bool:
        return not self._source.connection.regions or region in self._source.connection.regions

    def _unseen(self, seen: set[str]) -> Iterator[CollectionError]:
        for account in self._source.connection.accounts:
            if account.lower() not in seen:
                yield CollectionError(
                    "auth",
                    f"{self._source.name}: Resource Graph shows nothing of subscription {account}; give the app the"
                    " Reader role on it, or take it out of `accounts`",
                )


def _first_subscriptions(records: Iterable[parser.Record]) -> dict[str, str]:
    """The regions that have machines, each with a subscription that may list its sizes."""
    found: dict[str, str] = {}
    for record in records:
        if parser.kind_of(record) == parser.VIRTUAL_MACHINES:
            found.setdefault(record["location"].lower(), parser.subscription_of(record))
    return found


def _merged(found: Findings, futures: Iterable[Any]) -> dict[Any, Any]:
    merged: dict[Any, Any] = {}
    for future in futures:
        with found.part():
            merged |= future.result()
    return merged


def _batches(resources: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, list[str]]]:
    """(region, resource type, ids) of each request: Azure takes resources of one subscription, region and type."""
    from optiinfra_pipelines.clouds.azure.monitor import BATCH

    groups: dict[tuple[str, str, str], list[str]] = {}
    for row in resources:
        kind = row["resource_type"]
        if kind in NAMESPACES and row["region"]:
            groups.setdefault((row["account_id"], row["region"], kind), []).append(row["resource_id"])
    for (_, region, kind), ids in sorted(groups.items()):
        for at in range(0, len(ids), BATCH):
            yield region, kind, ids[at : at + BATCH]


def _platform_metrics(
    monitor: "Monitor", region: str, resource_type: str, resource_ids: Sequence[str], span: Window
) -> Findings:
    found = Findings()
    with found.part():
        values = monitor.metrics(region, resource_type, resource_ids, span)
        found.tables.append(series.metric_table(values, resource_type, span))
    return found


def _guest_metrics(monitor: "Monitor", account: str, wanted: set[str], span: Window) -> Findings:
    found = Findings()
    with found.part():
        answer = monitor.guests(account, span)
        if answer is not None:
            found.tables.append(series.guest_table(answer, span, wanted))
            if answer.get("error"):
                raise CollectionError(
                    "transient",
                    f"logs query of subscription {account} came in part: {answer['error'].get('message')}",
                )
    return found
