"""Google Cloud collected: inventory, metrics and prices of the projects of one connection."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

from optiinfra_pipelines.clouds.collecting import Findings, Source
from optiinfra_pipelines.clouds.gcp import catalog, parser
from optiinfra_pipelines.clouds.gcp.client import Access, GoogleCloud, open_cloud
from optiinfra_pipelines.clouds.gcp.series import SECONDS, Devices, Points, devices_of, gpu_memory_tables, metric_tables
from optiinfra_pipelines.clouds.gcp.vocabulary import (
    ALIGNERS,
    COMPUTE_SERVICE,
    GPU_MEMORY,
    QUERIES,
    SQL_SERVICE,
    MetricQuery,
)
from optiinfra_pipelines.clouds.vocabulary import Statistic
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.tables.cloud import INVENTORY, PRICES
from optiinfra_pipelines.windows import Window

_THREADS = 8
_TYPES_A_FILTER = 40  # names in one filter of machineTypes: keeps the URL under 4 kB
# Monitoring's 404 where nothing in the project ever wrote a metric, such as an agent's where no agent runs
_NEVER_WRITTEN = "Cannot find metric(s)"
Task = Callable[[], Findings]


class GcpCollector:
    """One connection's projects. A part is one list, metric type or price list of one project."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._access = Access(source)

    def inventory(self) -> Findings:
        """Machines, disks, snapshots, images, addresses and Cloud SQL instances of every project.

        A zone that does not answer is a failure that names it. CollectionError: auth where nothing at all may be
        read, not_configured where there are no credentials.
        """
        with open_cloud(self._source, self._access) as cloud, ThreadPoolExecutor(_THREADS) as pool:
            found = Findings()
            for project in self._projects(cloud):
                found.add(_inventory(cloud, project, pool))
        return _none_if_all_refused(found)

    def metrics(self, resources: Sequence[Mapping[str, Any]], span: Window) -> Findings:
        """Every metric type that something in `resources` can have, and those of models, one request a statistic.

        timeSeries.list takes one metric type and one aligner and answers for all resources of a project at once.
        Where the budget ends on the way, rows that were paid for are kept and the first failure says so.
        """
        with open_cloud(self._source, self._access) as cloud, ThreadPoolExecutor(_THREADS) as pool:
            tasks: list[Task] = []
            for project in self._projects(cloud):
                own = [row for row in resources if row["account_id"] == project]
                devices = devices_of(own)
                tasks += [
                    partial(_measured, cloud, _Question(project, query, span, devices, expected))
                    for query, expected in _worth_asking(own)
                ]
            found = _gathered(pool, tasks)
        return _none_if_all_refused(found)

    def prices(self) -> Findings:
        """List prices of Compute Engine and Cloud SQL in the connection's regions: of SKUs, and of machine types
        that they add up to."""
        regions = _regions(self._source)
        found = Findings()
        with open_cloud(self._source, self._access) as cloud, ThreadPoolExecutor(_THREADS) as pool:
            project = self._projects(cloud)[0]
            types = pool.submit(_machine_types, cloud, project)
            databases = pool.submit(_skus, cloud, SQL_SERVICE)
            with found.part():
                rows = list(catalog.price_rows(_readable(found, _skus(cloud, COMPUTE_SERVICE)), regions))
                found.add_rows(PRICES["gcp"], rows)
                with found.part():
                    listing = types.result()
                    found.add_rows(PRICES["gcp"], list(catalog.machine_price_rows(rows, listing.items)))
                    found.failures += missing(self._source, project, "machineTypes", listing)
            with found.part():
                found.add_rows(PRICES["gcp"], list(catalog.price_rows(_readable(found, databases.result()), regions)))
        return _none_if_all_refused(found)

    @staticmethod
    def _projects(cloud: GoogleCloud) -> tuple[str, ...]:
        cloud.access.headers()  # refused or silent for everything: raised here, before any part
        return cloud.access.projects


def missing(source: Source, project: str, kind: str, listing: parser.Listing) -> list[CollectionError]:
    """One failure for each scope that a listing lacks."""
    return [
        CollectionError(
            "transient", f"{source.name}: {kind} of {project} {scope or 'as a whole'}: {why}; the others came"
        )
        for scope, why in listing.missing.items()
    ]


def _inventory(cloud: GoogleCloud, project: str, pool: ThreadPoolExecutor) -> Findings:
    found = Findings()

    def lists(kind: str, pages: Callable[[], Iterable[Any]]) -> Callable[[], parser.Listing]:
        future = pool.submit(_listing, pages, kind)

        def result() -> parser.Listing:
            listing, error = future.result()
            found.failures += ([error] if error else []) + missing(cloud.source, project, kind, listing)
            return listing

        return result

    aggregated = {kind: lists(kind, partial(cloud.aggregated, project, kind)) for kind in ("disks", "addresses")}
    plain = {kind: lists(kind, partial(cloud.global_list, project, kind)) for kind in ("snapshots", "images")}
    databases = lists("Cloud SQL instances", partial(cloud.databases, project))
    instances = lists("instances", partial(cloud.aggregated, project, "instances"))().items
    types = parser.Listing()
    for names in _batches(parser.type_names(instances), _TYPES_A_FILTER):
        expression = " OR ".join(f'(name = "{name}")' for name in names)
        listing = lists("machineTypes", partial(cloud.aggregated, project, "machineTypes", expression))()
        types.items += listing.items
    links, images = parser.Links.of(instances), plain["images"]()
    rows = chain(
        parser.machine_rows(project, instances, parser.machine_shapes(types.items)),
        parser.volume_rows(project, aggregated["disks"]().items, links),
        parser.address_rows(project, aggregated["addresses"]().items, links),
        parser.snapshot_rows(project, plain["snapshots"]().items, images.items, images.whole and not images.missing),
        parser.image_rows(project, images.items),
        parser.database_rows(databases().items),
    )
    regions = _regions(cloud.source)
    wanted = [row for row in rows if not regions or row["region"] in (*regions, "global", None)]
    found.add_rows(INVENTORY["gcp"], wanted)
    return found


def _regions(source: Source) -> frozenset[str]:
    return frozenset(source.connection.regions)


def _listing(pages: Callable[[], Iterable[Any]], kind: str) -> tuple[parser.Listing, CollectionError | None]:
    listing = parser.Listing()
    try:
        for page in pages():
            listing.add(page, kind)
    except CollectionError as error:
        listing.whole = False
        return listing, error
    return listing, None


@dataclass(frozen=True)
class _Question:
    """What is asked of Monitoring in one project; `expected` is how many series an answer will have, about."""

    project: str
    query: MetricQuery
    span: Window
    devices: Devices
    expected: int


def _worth_asking(resources: Sequence[Mapping[str, Any]]) -> Iterator[tuple[MetricQuery, int]]:
    """The queries that something may answer and how many resources at most: no machine, no metric of machines. What
    is stopped by now may have run in the span. Models are in no inventory, and always asked for."""
    counts = Counter(row["resource_type"] for row in resources) | Counter({"model": 1})
    gpus = int(sum(row["gpu_count"] or 0 for row in resources))
    for query in QUERIES:
        count = gpus if query.needs_gpu else counts[query.mapping.resource_type]
        if count:
            yield query, count


def _measured(cloud: GoogleCloud, question: _Question) -> Findings:
    """The rows of one metric type. What came before an answer broke off is kept, for it has been paid for; not so
    where rows are sums over series: a sum over some of them is false."""
    query, span, found = question.query, question.span, Findings()
    asked = {each: Points() for each in query.mapping.wanted}
    with found.part():
        for statistic in asked:
            points = Points() if query.is_summed else asked[statistic]
            _read(points, cloud, question, statistic)
            asked[statistic] = points
    if query.mapping.native == GPU_MEMORY:
        found.tables += gpu_memory_tables(asked["average"], asked["maximum"], span)
    else:
        for statistic, points in asked.items():
            found.tables += metric_tables(query, statistic, points, span, question.devices)
    found.tables = [table for table in found.tables if table.num_rows]
    unreachable = sorted({each for points in asked.values() for each in points.unreachable})
    if unreachable:
        what = f"{cloud.source.name}: monitoring timeSeries.list of {query.mapping.native} in {question.project}"
        found.failures.append(CollectionError("transient", f"{what} lacks {', '.join(unreachable)}; the others came"))
    return found


def _read(points: Points, cloud: GoogleCloud, question: _Question, statistic: Statistic) -> None:
    query = question.query
    terms = [f'project = "{question.project}"', f'metric.type = "{query.mapping.native}"']
    terms += [f'metric.labels.{name} = "{value}"' for name, value in query.labels.items()]
    aligner, expression = ALIGNERS[statistic], " AND ".join(terms)
    try:
        for page in cloud.series(question.project, expression, aligner, question.span, SECONDS, question.expected):
            points.add(page, question.project, query, _regions(cloud.source))
    except CollectionError as error:
        if error.kind != "not_configured" or _NEVER_WRITTEN not in str(error):
            raise


def _machine_types(cloud: GoogleCloud, project: str) -> parser.Listing:
    listing = parser.Listing()
    for page in cloud.aggregated(project, "machineTypes"):
        listing.add(page, "machineTypes")
    return listing


def _skus(cloud: GoogleCloud, service_id: str) -> list[Any]:
    return [sku for page in cloud.skus(service_id) for sku in page.get("skus") or ()]


def _readable(found: Findings, skus: Iterable[Any]) -> list[Any]:
    readable = []
    for sku in skus:
        with found.part():  # one without a price keeps none of the others
            readable.append(catalog.whole(sku))
    return readable


def _gathered(pool: ThreadPoolExecutor, tasks: Iterable[Task]) -> Findings:
    found = Findings()
    for each in pool.map(lambda task: task(), tasks):
        found.add(each)
    return found


def _batches(names: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (names[at : at + size] for at in range(0, len(names), size))


def _none_if_all_refused(found: Findings) -> Findings:
    """The same findings, a spent budget first; CollectionError where nothing came and every part was refused."""
    if found.failures and not found.row_count and all(error.kind == "auth" for error in found.failures):
        raise found.failures[0]
    found.failures.sort(key=lambda error: error.kind != "budget")
    return found
