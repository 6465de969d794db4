"""What is true of the published bills at one stage: the manifest that tests and benchmarks hold the product to.

Reckoned in plain Python from the charges themselves, never from the product's readers. Amounts are exact decimals,
written as strings; only files that belong to the current bill count, so older runs and assemblies are absent.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from optiinfra_pipelines.sandbox.bills import Charge
from optiinfra_pipelines.sandbox.flaws import Flaw
from optiinfra_pipelines.sandbox.line_items import FOCUS_MAPPING
from optiinfra_pipelines.sandbox.scenario import Bill, Scenario


@dataclass(frozen=True)
class DataFile:
    """One file of a current bill and the charges in it, in its order."""

    uri: str
    bill: Bill
    month: str
    charges: list[Charge]


@dataclass(frozen=True)
class InvoiceTruth:
    """Accepted rows and their exact sums for one invoice; `invoice_id` is None for a period not yet invoiced."""

    customer_id: str
    connection_id: str
    provider: str
    billing_period: str
    invoice_id: str | None
    currency: str
    rows: int
    billed_cost: str
    effective_cost: str


@dataclass(frozen=True)
class ProviderTruth:
    """Accepted rows and their exact sums over all billing periods of one customer and cloud."""

    customer_id: str
    provider: str
    currency: str
    rows: int
    billed_cost: str
    effective_cost: str


@dataclass(frozen=True)
class FileTruth:
    """Rows of one file: `rows` are accepted, `rows_rejected` are not, the file holds both."""

    uri: str
    customer_id: str
    connection_id: str
    billing_period: str
    rows: int
    rows_rejected: int


@dataclass(frozen=True)
class RejectedRow:
    """A row that must not be loaded. `reason` is one of `flaws.REASONS`; rows are counted from 1, headers are not."""

    uri: str
    row_number: int
    reason: str
    column: str | None
    printed: str | None


@dataclass(frozen=True)
class Violation:
    """A loaded row that breaks one rule of FOCUS."""

    uri: str
    row_number: int
    rule_id: str
    rule: str
    column: str


@dataclass(frozen=True)
class NormalisedValue:
    """A loaded value printed in the wrong case, and how FOCUS spells it."""

    uri: str
    row_number: int
    column: str
    printed: str
    expected: str


@dataclass(frozen=True)
class Truths:
    """All planted truths of one scenario at one stage."""

    seed: int
    end_date: str
    days: int
    scale: int
    stage: int
    cur_to_focus: dict[str, Any]
    invoices: tuple[InvoiceTruth, ...]
    providers: tuple[ProviderTruth, ...]
    files: tuple[FileTruth, ...]
    rejected: tuple[RejectedRow, ...]
    violations: tuple[Violation, ...]
    normalised: tuple[NormalisedValue, ...]

    def to_json(self) -> str:
        """The manifest as a JSON document."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, document: str) -> "Truths":
        """The manifest that `to_json` wrote."""
        fields = json.loads(document)
        for name, kind in _PARTS.items():
            fields[name] = tuple(kind(**part) for part in fields[name])
        return cls(**fields)

    def rejected_by_file(self) -> Counter[tuple[str, str]]:
        """How many rows are to be rejected, by file and reason."""
        return Counter((row.uri, row.reason) for row in self.rejected)


_PARTS: dict[str, Any] = {
    "invoices": InvoiceTruth,
    "providers": ProviderTruth,
    "files": FileTruth,
    "rejected": RejectedRow,
    "violations": Violation,
    "normalised": NormalisedValue,
}


def truths(scenario: Scenario, stage: int, files: Iterable[DataFile]) -> Truths:
    """Reckon the manifest from the files that make up the current bills."""
    files = list(files)
    return Truths(
        seed=scenario.seed,
        end_date=scenario.end_date.isoformat(),
        days=scenario.days,
        scale=scenario.scale,
        stage=stage,
        cur_to_focus=FOCUS_MAPPING,
        invoices=tuple(_invoices(files)),
        providers=tuple(_providers(files)),
        files=tuple(_file(file) for file in files),
        rejected=tuple(_rejected(files)),
        violations=tuple(_violations(files)),
        normalised=tuple(_normalised(files)),
    )


@dataclass
class _Sum:
    rows: int = 0
    billed_cost: Decimal = Decimal(0)
    effective_cost: Decimal = Decimal(0)

    def add(self, charge: Charge) -> None:
        self.rows += 1
        self.billed_cost += charge.billed_cost
        self.effective_cost += charge.effective_cost

    def columns(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "billed_cost": f"{self.billed_cost:f}",
            "effective_cost": f"{self.effective_cost:f}",
        }


def _invoices(files: list[DataFile]) -> list[InvoiceTruth]:
    sums: dict[tuple[str, str, str, str, str | None, str], _Sum] = {}
    for file in files:
        bill = file.bill
        for charge in file.charges:
            if charge.accepted:
                key = (bill.customer_id, bill.connection_id, bill.cloud, file.month, charge.invoice_id, charge.currency)
                sums.setdefault(key, _Sum()).add(charge)
    return [InvoiceTruth(*key, **total.columns()) for key, total in sums.items()]


def _providers(files: list[DataFile]) -> list[ProviderTruth]:
    sums: dict[tuple[str, str, str], _Sum] = {}
    for file in files:
        for charge in file.charges:
            if charge.accepted:
                key = (file.bill.customer_id, file.bill.cloud, charge.currency)
                sums.setdefault(key, _Sum()).add(charge)
    return [ProviderTruth(*key, **total.columns()) for key, total in sums.items()]


def _file(file: DataFile) -> FileTruth:
    rows = sum(charge.accepted for charge in file.charges)
    bill = file.bill
    return FileTruth(file.uri, bill.customer_id, bill.connection_id, file.month, rows, len(file.charges) - rows)


def _flawed(files: list[DataFile], outcome: str) -> Iterator[tuple[str, int, Flaw, Charge]]:
    for file in files:
        for number, charge in enumerate(file.charges, start=1):
            if charge.flaw and charge.flaw.outcome == outcome:
                yield file.uri, number, charge.flaw, charge


def _printed(charge: Charge, column: str | None) -> str | None:
    value = charge.values[column] if column else None
    return None if value is None else str(value)


def _rejected(files: list[DataFile]) -> Iterator[RejectedRow]:
    for uri, number, flaw, charge in _flawed(files, "rejected"):
        yield RejectedRow(uri, number, flaw.reason, flaw.column, _printed(charge, flaw.column))


def _violations(files: list[DataFile]) -> Iterator[Violation]:
    for uri, number, flaw, _ in _flawed(files, "violation"):
        for rule_id, rule in flaw.rules:
            yield Violation(uri, number, rule_id, rule, flaw.column or "")


def _normalised(files: list[DataFile]) -> Iterator[NormalisedValue]:
    for uri, number, flaw, charge in _flawed(files, "normalised"):
        column = flaw.column or ""
        yield NormalisedValue(uri, number, column, charge.values[column], charge.right_value)
