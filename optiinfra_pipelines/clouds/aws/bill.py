"""The bill as Cost Explorer tells it, for accounts without an export: days, services and usage types, no resources.

What Cost Explorer cannot say stays null: resources, list and contracted prices, the invoice. Each request costs money
(client.COST_EXPLORER_PRICE), so a period is two questions: what was used, and everything else by its record type.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa

from optiinfra_pipelines.clouds.aws.client import HOME_REGION, Account, open_accounts
from optiinfra_pipelines.clouds.aws.vocabulary import CHARGE_CATEGORIES
from optiinfra_pipelines.clouds.collecting import Findings, Source
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.windows import BillingPeriod

# Cost Explorer keeps the last 13 months and the current one unless more is asked for:
# https://docs.aws.amazon.com/cost-management/latest/userguide/ce-enable.html
MONTHS = 14
COLUMNS = (
    *("BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd"),
    *("BillingAccountId", "SubAccountId", "BillingCurrency", "BilledCost", "EffectiveCost"),
    *("ChargeCategory", "ChargeClass", "ChargeDescription", "ConsumedQuantity", "ConsumedUnit"),
    *("ProviderName", "PublisherName", "InvoiceIssuerName", "ServiceName", "SkuMeter"),
    *("x_Estimated", "x_RecordType", "x_UsageType"),
)
_OTHER_THAN_USAGE = {"Dimensions": {"Key": "RECORD_TYPE", "Values": list(CHARGE_CATEGORIES)}}
_METRICS = ["UnblendedCost", "AmortizedCost", "UsageQuantity"]
Row = dict[str, str | None]


class CostExplorerBill:
    """The bill of cost-explorer://account; see `collecting.BillSource`."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def periods(self) -> Iterable[BillingPeriod]:
        """Of the current month and the thirteen before it those that cost something: one paid question an account."""
        newest = oldest = BillingPeriod.of(datetime.now(UTC))
        for _ in range(MONTHS - 1):
            oldest = oldest.previous
        found = set()
        for account in self._accounts():
            for page in self._pages(account, oldest.start, newest.end, "MONTHLY", ("RECORD_TYPE",), None):
                for result in page["ResultsByTime"]:
                    amounts = [each["Metrics"][name]["Amount"] for each in result["Groups"] for name in _METRICS]
                    if any(Decimal(_amount(amount)) for amount in amounts):
                        found.add(BillingPeriod(result["TimePeriod"]["Start"][:7]))
        return sorted(found)

    def rows(self, period: BillingPeriod) -> pa.Table:
        """One row a day, service and usage type, and one a day, service and record type of what is no usage.

        CollectionError where any account of the connection cannot be read: half a bill is none.
        """
        found = [row for account in self._accounts() for row in self._account_rows(account, period)]
        return pa.Table.from_pylist(found, schema=pa.schema([(name, pa.string()) for name in COLUMNS]))

    def _accounts(self) -> list[Account]:
        findings = Findings()
        accounts = open_accounts(self._source, findings)
        if findings.failures:
            raise findings.failures[0]
        return accounts

    def _pages(
        self,
        account: Account,
        start: datetime,
        end: datetime,
        granularity: str,
        grouping: tuple[str, ...],
        wanted: Mapping[str, Any] | None,
    ) -> Iterator[Any]:
        tests = [wanted] if wanted else []
        if self._source.connection.accounts:
            tests.append({"Dimensions": {"Key": "LINKED_ACCOUNT", "Values": [account.account_id]}})
        filtered: dict[str, Any] = {}
        if tests:
            filtered["Filter"] = {"And": tests} if len(tests) > 1 else tests[0]
        return account.pages(
            *("ce", HOME_REGION, "GetCostAndUsage"),
            TimePeriod={"Start": f"{start:%Y-%m-%d}", "End": f"{end:%Y-%m-%d}"},
            Granularity=granularity,
            Metrics=_METRICS,
            GroupBy=[{"Type": "DIMENSION", "Key": key} for key in grouping],
            **filtered,
        )

    def _account_rows(self, account: Account, period: BillingPeriod) -> Iterator[Row]:
        alone = bool(self._source.connection.accounts)
        owner = {"SubAccountId" if alone else "BillingAccountId": account.account_id}
        for grouping, wanted in (
            (("SERVICE", "USAGE_TYPE"), {"Not": _OTHER_THAN_USAGE}),
            (("SERVICE", "RECORD_TYPE"), _OTHER_THAN_USAGE),
        ):
            for page in self._pages(account, period.start, period.end, "DAILY", grouping, wanted):
                for result in page["ResultsByTime"]:
                    for row in charge_rows(result, grouping, period):
                        yield {**row, **owner}


def charge_rows(result: Mapping[str, Any], grouping: tuple[str, str], period: BillingPeriod) -> Iterator[Row]:
    """The rows of one day of ResultsByTime, amounts in the digits that were printed; groups of nothing are left out.

    CollectionError (malformed) where an amount is no number.
    """
    start = datetime.fromisoformat(result["TimePeriod"]["Start"]).replace(tzinfo=UTC)
    for group in result["Groups"]:
        said = dict(zip(grouping, group["Keys"], strict=True))
        costs = {name: _amount(group["Metrics"][name]["Amount"]) for name in _METRICS}
        if not any(Decimal(amount) for amount in costs.values()):
            continue
        record = said.get("RECORD_TYPE", "Usage")
        usage = group["Metrics"]["UsageQuantity"]
        measured = record == "Usage" and usage["Unit"] != "N/A"  # N/A: a sum over units that cannot be added
        yield {
            "BillingPeriodStart": f"{period.start:%Y-%m-%dT%H:%M:%SZ}",
            "BillingPeriodEnd": f"{period.end:%Y-%m-%dT%H:%M:%SZ}",
            "ChargePeriodStart": f"{start:%Y-%m-%dT%H:%M:%SZ}",
            "ChargePeriodEnd": f"{start + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}",
            "BillingCurrency": group["Metrics"]["UnblendedCost"]["Unit"],
            "BilledCost": costs["UnblendedCost"],
            "EffectiveCost": costs["AmortizedCost"],
            "ChargeCategory": CHARGE_CATEGORIES.get(record, "Usage"),
            "ChargeClass": "Correction" if record == "Refund" else None,
            "ChargeDescription": f"{said['SERVICE']} {said.get('USAGE_TYPE', record)}",
            "ConsumedQuantity": costs["UsageQuantity"] if measured else None,
            "ConsumedUnit": usage["Unit"] if measured else None,
            "ProviderName": "AWS",
            "PublisherName": "AWS",
            "InvoiceIssuerName": "AWS",
            "ServiceName": said["SERVICE"],
            "SkuMeter": said.get("USAGE_TYPE"),
            "x_Estimated": str(bool(result.get("Estimated"))).lower(),
            "x_RecordType": record if "RECORD_TYPE" in said else None,
            "x_UsageType": said.get("USAGE_TYPE"),
        }


def _amount(printed: str) -> str:
    """The amount as it was printed, sure to be a number; exponents (7.0E-10) are written out."""
    try:
        number = Decimal(printed)
    except InvalidOperation:
        raise CollectionError("malformed", f"ce GetCostAndUsage: {printed!r} is no amount") from None
    return printed if "E" not in printed.upper() else f"{number:f}"
