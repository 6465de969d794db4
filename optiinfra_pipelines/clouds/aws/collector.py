"""What is asked of AWS, in which order and how much of it at once; joins the client and the parsers.

Regions and services are asked side by side; one that fails is one part's failure.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from optiinfra_pipelines.clouds.aws import parser, price_list
from optiinfra_pipelines.clouds.aws.client import HOME_REGION, THREADS, Account, open_accounts, regions
from optiinfra_pipelines.clouds.aws.series import (
    LISTED_NAMESPACES,
    Query,
    batches,
    listed_queries,
    measured,
    metric_rows,
    queries,
    still_listed,
)
from optiinfra_pipelines.clouds.collecting import Findings, Source
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.tables.cloud import INVENTORY, PRICES
from optiinfra_pipelines.windows import Window

Item = TypeVar("Item")
Found = TypeVar("Found")
Place = tuple[Account, str]
Listed = tuple[str, str, str, str, Mapping[str, Any]]
# What each service lists: the field of parser.Listing, service, operation, field of the answer, parameters.
_LISTS: tuple[Listed, ...] = (
    ("reservations", "ec2", "DescribeInstances", "Reservations", {"MaxResults": 1000}),
    ("volumes", "ec2", "DescribeVolumes", "Volumes", {"MaxResults": 500}),
    ("snapshots", "ec2", "DescribeSnapshots", "Snapshots", {"OwnerIds": ["self"], "MaxResults": 1000}),
    ("images", "ec2", "DescribeImages", "Images", {"Owners": ["self"], "MaxResults": 1000}),
    (
        "template_versions",
        "ec2",
        "DescribeLaunchTemplateVersions",
        "LaunchTemplateVersions",
        {"Versions": ["$Latest", "$Default"], "MaxResults": 200},
    ),
    ("addresses", "ec2", "DescribeAddresses", "Addresses", {}),
    ("databases", "rds", "DescribeDBInstances", "DBInstances", {"MaxRecords": 100}),
    ("functions", "lambda", "ListFunctions", "Functions", {"MaxItems": 50}),
)
_VALUES_PER_FILTER = 200  # of one EC2 filter; describing by name would fail on a class that EC2 does not sell


class AwsCollector:
    """AWS by its own APIs for one Source; see `collecting.Collector`. The constructor contacts nobody."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def inventory(self) -> Findings:
        """Instances, volumes, snapshots, images, addresses, databases and functions of every account and region."""
        findings = Findings()
        with ThreadPoolExecutor(THREADS) as pool:
            places = _places(pool, self._source, findings)
            asked = [(place, what) for place in places for what in _LISTS]
            answers = _side_by_side(pool, findings, asked, lambda each: _listed(*each[0], each[1]))
            asked_for = frozenset(what[0] for what in _LISTS)
            listings = {place: parser.Listing(place[0].account_id, place[1], unlisted=asked_for) for place in places}
            for (place, what), items in answers:
                listed: dict[str, Any] = {what[0]: items}
                listings[place] = replace(listings[place], unlisted=listings[place].unlisted - {what[0]}, **listed)
            described = _side_by_side(
                pool, findings, listings.items(), lambda each: _described(*each[0], each[1], findings)
            )
        for _, listing in described:
            findings.add_rows(INVENTORY["aws"], list(parser.rows(listing)))
        return findings

    def metrics(self, resources: Sequence[Mapping[str, Any]], span: Window) -> Findings:
        """15-minute windows of CloudWatch for `resources`, and for the models of Bedrock that were called.

        Where the budget ends on the way, rows that were paid for are kept and the first failure says so.
        """
        findings = Findings()
        with ThreadPoolExecutor(THREADS) as pool:
            places = _places(pool, self._source, findings)
            series = _side_by_side(pool, findings, places, lambda place: _series(*place, resources, span, findings))
            work = [(place, batch) for place, found in series for batch in batches(found, span)]
            for _, part in _side_by_side(pool, findings, work, lambda each: _measured(*each[0], each[1], span)):
                findings.add(part)
        findings.failures.sort(key=lambda error: error.kind != "budget")
        return findings

    def prices(self) -> Findings:
        """On-demand list prices of machines, volumes, snapshots, addresses and databases in the regions."""
        findings = Findings()
        with ThreadPoolExecutor(THREADS) as pool:
            places = _places(pool, self._source, findings)
            one_of = {region: account for account, region in places}  # list prices are the same for every account
            work = [(account, region, what) for region, account in one_of.items() for what in price_list.PRODUCTS]
            for _, part in _side_by_side(pool, findings, work, lambda each: _priced(*each)):
                findings.add(part)
        return findings


def _places(pool: ThreadPoolExecutor, source: Source, findings: Findings) -> list[Place]:
    """Every account with every region of it."""
    accounts = open_accounts(source, findings)
    found = _side_by_side(pool, findings, accounts, regions)
    return [(account, region) for account, names in found for region in names]


def _side_by_side(
    pool: ThreadPoolExecutor, findings: Findings, work: Iterable[Item], ask: Callable[[Item], Found]
) -> list[tuple[Item, Found]]:
    """What `ask` gave for each of `work`, side by side; a CollectionError is that one's failure.

    Where credentials are refused for all of it, that is raised.
    """
    items = list(work)
    futures = [pool.submit(ask, item) for item in items]
    found, failures = [], []
    for item, future in zip(items, futures, strict=True):
        try:
            found.append((item, future.result()))
        except CollectionError as error:
            failures.append(error)
    if items and not found and all(error.kind == "auth" for error in failures):
        raise failures[0]
    findings.failures += failures
    return found


def _listed(account: Account, region: str, what: Listed) -> list[Any]:
    _, service, operation, answer, parameters = what
    return [item for page in account.pages(service, region, operation, **parameters) for item in page.get(answer, ())]


def _described(account: Account, region: str, listing: parser.Listing, findings: Findings) -> parser.Listing:
    """The listing with what its instance types are and which tags its functions have, where they could be told."""
    names = listing.type_names
    for first in range(0, len(names), _VALUES_PER_FILTER):
        wanted = {"Name": "instance-type", "Values": names[first : first + _VALUES_PER_FILTER]}
        with findings.part():
            pages = account.pages("ec2", region, "DescribeInstanceTypes", Filters=[wanted], MaxResults=100)
            types = {each["InstanceType"]: each for page in pages for each in page["InstanceTypes"]}
            listing = replace(listing, types={**listing.types, **types})
    if listing.functions:
        with findings.part():
            pages = account.pages(
                *("resourcegroupstaggingapi", region, "GetResources"),
                ResourceTypeFilters=["lambda:function"],
                ResourcesPerPage=100,
            )
            found = [each for page in pages for each in page["ResourceTagMappingList"]]
            tags = {each["ResourceARN"]: parser.tags_of(each.get("Tags")) for each in found}
            listing = replace(listing, function_tags=tags)
    return listing


def _series(
    account: Account, region: str, resources: Sequence[Mapping[str, Any]], span: Window, findings: Findings
) -> list[Query]:
    """The series to ask of one region: those of its resources, and those that agents and models are listed with."""
    here = [each for each in resources if (each["account_id"], each["region"]) == (account.account_id, region)]
    machines = [each for each in here if each["resource_type"] == "machine" and measured(each)]
    among = still_listed(span, datetime.now(UTC))
    found = list(queries(here))
    for namespace in LISTED_NAMESPACES if machines else ("AWS/Bedrock",):
        with findings.part():
            pages = account.pages("cloudwatch", region, "ListMetrics", Namespace=namespace, **among)
            listed = [metric for page in pages for metric in page["Metrics"]]
            found += listed_queries(listed, account.account_id, machines)
    return found


def _measured(account: Account, region: str, series: Sequence[Query], span: Window) -> Findings:
    findings = Findings()
    pages = account.pages(
        *("cloudwatch", region, "GetMetricData"),
        MetricDataQueries=[query.asked(number) for number, query in enumerate(series)],
        StartTime=span.start,
        EndTime=span.end,
        ScanBy="TimestampAscending",
    )
    results: list[Mapping[str, Any]] = []
    try:
        for page in pages:
            results += page["MetricDataResults"]
    except CollectionError as error:  # what earlier pages brought is kept, it has been paid for
        findings.failures.append(error)
    findings.tables.append(metric_rows(series, results, span))
    last = {each["Id"]: each["StatusCode"] for each in results}
    broken = sorted({status for status in last.values() if status != "Complete"})
    if broken:
        count = sum(status != "Complete" for status in last.values())
        what = f"{account.source.name}: cloudwatch GetMetricData in {region} of account {account.account_id}"
        findings.failures.append(
            CollectionError("transient", f"{what}: {count} of {len(series)} metrics came as {', '.join(broken)}")
        )
    return findings


def _priced(account: Account, region: str, what: price_list.Product) -> Findings:
    filters = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in what.filters.items()]
    filters.append({"Type": "TERM_MATCH", "Field": "regionCode", "Value": region})
    pages = account.pages(
        *("pricing", HOME_REGION, "GetProducts"),
        ServiceCode=what.service,
        Filters=filters,
        FormatVersion="aws_v1",
        MaxResults=100,
    )
    findings, rows = Findings(), list[dict[str, Any]]()
    for text in (text for page in pages for text in page["PriceList"]):
        with findings.part():  # one product that cannot be read keeps none of the others
            rows += price_list.rows(text, what.kind)
    findings.add_rows(PRICES["aws"], rows)
    return findings
