"""Runs FOCUS rules over a billing table and says of each, per provider: pass, fail or not applicable. No Dagster.

Rules on rows take one aggregated scan; rules on groups one further query, since they group by keys of their own;
examples of broken rules one more. A statement is only split where it would outgrow an engine's limits.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

import pyarrow as pa

from optiinfra_pipelines.clouds.focus.applicability import supported_criteria
from optiinfra_pipelines.clouds.focus.rule_checks import (
    Check,
    Compiler,
    CompositeCheck,
    GroupCheck,
    NoCheck,
    PresenceCheck,
    RowCheck,
)
from optiinfra_pipelines.clouds.focus.rule_sql import DIALECTS, Dialect, identifier
from optiinfra_pipelines.tables.billing import FOCUS_BILLING
from optiinfra_pipelines.tables.focus import FOCUS_COLUMNS
from optiinfra_pipelines.tables.rule import Present, Rule
from optiinfra_pipelines.warehouse.protocol import Engine

Query = Callable[[str], pa.Table]
Status = Literal["pass", "fail", "not_applicable"]

_SINCE = {column.name: column.since for column in FOCUS_COLUMNS}
_TYPES = {column.name: column.type for column in FOCUS_BILLING.columns}
_ORDER = ("x_source", "x_row_number")  # makes the example the first broken row, the same on every run
_IDENTITY = ("x_customer_id", *_ORDER, "BillingAccountId", "ResourceId")
_EDGES = ("lowest", "highest")
_STATEMENT_BYTES = 200_000  # ClickHouse parses at most 262,144 bytes of a statement (max_query_size)
_STATEMENT_COUNTS = 1_000  # DuckDB plans so many counts in 0.2 s; the time grows with the square
_STATEMENT_EXAMPLES = 120  # and so many argMin in 0.2 s, but 1,000 in 20 s and gigabytes


@dataclass(frozen=True)
class RuleResult:
    """How a rule fares on one provider's rows.

    `rows_checked` met the rule's condition, `rows_failed` of them broke it. For a rule on groups they are the rows of
    those groups; for one that consists of rules, the most that any of them has. `example` is the first broken row
    (by source and row number) or group: its place, and the columns that the rule reads, as JSON values.
    """

    rule: Rule
    provider: str
    status: Status
    reason: str = ""
    rows_checked: int = 0
    rows_failed: int = 0
    example: dict[str, Any] = field(default_factory=dict)


def run_rules(
    query: Query,
    relation: str,
    rules: Iterable[Rule],
    engine: Engine,
    present: Mapping[str, frozenset[str]],
    criteria: Mapping[str, frozenset[str]] | None = None,
) -> list[RuleResult]:
    """One result for each rule and each `x_provider` with rows in `relation`, in the order of rules, then providers.

    `relation` stands after FROM and has the columns of a billing table; `query` runs one statement on `engine`.
    `present` names the FOCUS columns that each provider's source delivered (the table has them all); `criteria`
    replaces what `applicability` declares for the providers that it names. Raises ValueError where two rules have one
    id, and whatever `query` raises.
    """
    compiler = Compiler(list(rules), relation, DIALECTS[engine], _TYPES)
    run = _Run(query, relation, DIALECTS[engine], compiler, present, criteria or {})
    run.count_rows()
    run.count_groups()
    results = [run.result(rule, provider) for rule in compiler.rules.values() for provider in sorted(run.rows)]
    return run.with_examples(results)


def excuse_newer(results: Iterable[RuleResult], versions: Mapping[str, str]) -> list[RuleResult]:
    """`results` without blame for columns that a provider's layout cannot have: `versions` names it per provider, 1.0
    to 1.3, or cur. A FOCUS 1.0 file has no column of 1.1; a Cost and Usage Report promises none at all."""

    def excused(result: RuleResult) -> RuleResult:
        version = versions.get(result.provider, "")
        if result.status != "fail" or not isinstance(result.rule.requirement, Present):
            return result
        if version != "cur" and _SINCE.get(result.rule.column, "") <= version:
            return result
        layout = "a Cost and Usage Report" if version == "cur" else f"FOCUS {version}"
        reason = f"the files are {layout}, which does not have this column"
        return replace(result, status="not_applicable", reason=reason, rows_failed=0, example={})

    return [excused(each) for each in results]


def failures(results: Iterable[RuleResult]) -> list[dict[str, Any]]:
    """Broken rules as table rows of plain values, the most rows first; `example` is JSON text. A rule that consists of
    rules is left out: those that broke stand for it."""
    broken = [r for r in results if r.status == "fail" and not r.rule.children]
    broken.sort(key=lambda r: (-r.rows_failed, r.rule.id, r.provider))
    return [
        {
            "provider": r.provider,
            "rule": r.rule.id,
            "origin": r.rule.origin,
            "column": r.rule.column,
            "keyword": r.rule.keyword,
            "text": r.rule.text,
            "rows_failed": r.rows_failed,
            "rows_checked": r.rows_checked,
            "reason": r.reason,
            "example": json.dumps(r.example, ensure_ascii=False),
        }
        for r in broken
    ]


def tally(results: Iterable[RuleResult]) -> dict[Status, int]:
    """How many results have each status."""
    counts: dict[Status, int] = {"pass": 0, "fail": 0, "not_applicable": 0}
    for result in results:
        counts[result.status] += 1
    return counts


class _Run:
    """One run: its checks, what was counted, and the verdicts that follow."""

    def __init__(
        self,
        query: Query,
        relation: str,
        dialect: Dialect,
        compiler: Compiler,
        present: Mapping[str, frozenset[str]],
        criteria: Mapping[str, frozenset[str]],
    ) -> None:
        self._query, self._relation, self._dialect = query, relation, dialect
        self._compiler, self._present, self._criteria = compiler, present, criteria
        self._checks: dict[str, Check] = {rule.id: compiler.check(rule) for rule in compiler.rules.values()}
        self._results: dict[tuple[str, str], RuleResult] = {}
        self.rows: dict[str, int] = {}  # provider -> rows
        self._counts: dict[tuple[str, str], int] = {}  # predicate, provider -> rows
        self._groups: dict[tuple[str, str], dict[str, Any]] = {}  # rule id, provider -> counts and broken group

    def count_rows(self) -> None:
        """Count, per provider, all rows and those that meet each predicate."""
        checks = [check for check in self._checks.values() if isinstance(check, RowCheck)]
        predicates = dict.fromkeys(sql for check in checks for sql in (check.when, check.fails) if sql)
        # count(*) FILTER says the same, at half the speed in DuckDB
        aggregates = {"": "count(*)", **{sql: f"count(CASE WHEN {sql} THEN 1 END)" for sql in predicates}}
        self._counts = self._scan(aggregates, _STATEMENT_COUNTS)
        self.rows = {provider: rows for (predicate, provider), rows in self._counts.items() if not predicate}

    def count_groups(self) -> None:
        """Judge the rules on groups, all in one statement."""
        selects = {id: check.select for id, check in self._checks.items() if isinstance(check, GroupCheck)}
        ids = list(selects)
        pieces = [f"SELECT {i} AS rule, * FROM ({selects[id]}) AS g{i}" for i, id in enumerate(ids)]
        for part in _split(pieces, _STATEMENT_EXAMPLES):
            for row in self._query(" UNION ALL ".join(part)).to_pylist():
                self._groups[ids[row["rule"]], row["provider"]] = row

    def result(self, rule: Rule, provider: str) -> RuleResult:
        """The verdict on one rule, without an example row."""
        key = (rule.id, provider)
        if key not in self._results:
            self._results[key] = self._verdict(rule, provider)
        return self._results[key]

    def with_examples(self, results: list[RuleResult]) -> list[RuleResult]:
        """The results, each that failed on rows with the first row that broke it."""
        order = self._dialect.record_of(identifier(name) for name in _ORDER)
        aggregates: dict[str, str] = {}
        for check in {self._checks[result.rule.id]: None for result in results if result.status == "fail"}:
            if isinstance(check, RowCheck):
                row = self._dialect.record_of(identifier(name) for name in _shown(check))
                aggregates[_example_key(check)] = f"argMin({row}, {order}) FILTER (WHERE {check.fails})"
        found = self._scan(aggregates, _STATEMENT_EXAMPLES)
        return [self._with_example(result, found) for result in results]

    def _with_example(self, result: RuleResult, found: Mapping[tuple[str, str], Any]) -> RuleResult:
        check = self._checks[result.rule.id]
        if result.status != "fail" or not isinstance(check, RowCheck):
            return result
        values = found[_example_key(check), result.provider].values()
        example = {name: _plain(value) for name, value in zip(_shown(check), values, strict=True)}
        return replace(result, example=example)

    def _scan(self, aggregates: Mapping[str, str], most: int) -> dict[tuple[str, str], Any]:
        """Each aggregate per provider, by its key and the provider: one pass over the relation for `most` of them."""
        found = {}
        keys = iter(aggregates)
        for part in _split(list(aggregates.values()), most):
            picked = ["x_provider AS provider", *(f"{sql} AS c{i}" for i, sql in enumerate(part))]
            answer = self._query(f"SELECT {', '.join(picked)} " + f"FROM {self._relation} GROUP BY x_provider")
            names = [next(keys) for _ in part]
            for row in answer.to_pylist():
                for position, name in enumerate(names):
                    found[name, row["provider"]] = row[f"c{position}"]
        return found

    def _verdict(self, rule: Rule, provider: str) -> RuleResult:
        check = self._checks[rule.id]
        reason = self._not_applicable(rule, check, provider)
        if reason:
            return RuleResult(rule, provider, "not_applicable", reason)
        match check:
            case PresenceCheck(column):
                there = column in self._present[provider]
                rows = self.rows[provider]
                why = "" if there else f"the source of {provider} has no column {column}"
                return _judged(rule, provider, rows, 0 if there else rows, why)
            case CompositeCheck(children):
                return self._composite(rule, children, provider)
            case GroupCheck():
                return self._group(rule, check, provider)
            case RowCheck(when, fails):
                failed = self._counts[fails, provider] if fails else 0
                return _judged(rule, provider, self._counts[when, provider], failed, rule.note)
            case NoCheck(why):
                return RuleResult(rule, provider, "not_applicable", why)

    def _not_applicable(self, rule: Rule, check: Check, provider: str) -> str:
        """Why the rule does not apply to the provider; empty where it does."""
        if rule.keyword == "MAY":
            return "a permission (MAY) cannot be broken"
        lacking = self._lacking(rule, provider)
        if lacking:
            return f"{provider} is not declared to meet {' and '.join(lacking)}"
        columns = self._present.get(provider)
        if isinstance(check, PresenceCheck) and columns is None:
            return f"the columns of the source of {provider} are not known"
        if isinstance(check, RowCheck | GroupCheck) and columns is not None:
            absent = [name for name in check.columns if name not in columns and not name.startswith("x_")]
            if absent:
                return f"the source of {provider} has no column {' and '.join(absent)}"
        return ""

    def _lacking(self, rule: Rule, provider: str) -> list[str]:
        """Criteria that keep the rule, or every composite through which it is reached, from applying."""
        met = self._criteria.get(provider)
        if met is None:
            met = supported_criteria(provider, self._present.get(provider))
        own = [criterion for criterion in rule.criteria if criterion not in met]
        if own:
            return own
        parents = [self._lacking(parent, provider) for parent in self._compiler.parents.get(rule.id, ())]
        return parents[0] if parents and all(parents) else []

    def _composite(self, rule: Rule, children: tuple[str, ...], provider: str) -> RuleResult:
        known = [self._compiler.rules[child] for child in children if child in self._compiler.rules]
        results = [self.result(child, provider) for child in known]
        judged = [result for result in results if result.status != "not_applicable"]
        if not judged:
            return RuleResult(rule, provider, "not_applicable", "none of the rules that it consists of is applicable")
        broken = [result.rule.id for result in judged if result.status == "fail"]
        return RuleResult(
            rule=rule,
            provider=provider,
            status="fail" if broken else "pass",
            reason=f"broken: {', '.join(broken)}" if broken else "",
            rows_checked=max(result.rows_checked for result in judged),
            rows_failed=max(result.rows_failed for result in judged),
        )

    def _group(self, rule: Rule, check: GroupCheck, provider: str) -> RuleResult:
        row = self._groups.get((rule.id, provider))
        if row is None or not row["failed"]:
            return _judged(rule, provider, int(row["checked"]) if row else 0, 0, rule.note)
        low, high = ((_plain(Decimal(row[name])) if check.numbers and row[name] else row[name]) for name in _EDGES)
        values = (row["key"], low, high, row["amount"])
        example = {label: value for label, value in zip(check.labels, values, strict=True) if label}
        return replace(_judged(rule, provider, int(row["checked"]), int(row["failed"]), rule.note), example=example)


def _judged(rule: Rule, provider: str, checked: int, failed: int, note: str) -> RuleResult:
    status: Status = "fail" if failed else "pass"
    return RuleResult(rule, provider, status, note if failed else "", checked, failed)


def _shown(check: RowCheck) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*_IDENTITY, *check.read)))


def _example_key(check: RowCheck) -> str:
    return f"{_shown(check)} {check.fails}"


def _plain(value: Any) -> Any:
    """A cell as JSON holds it: decimals as their digits, times in ISO 8601."""
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat() + "Z"
    return value


def _split(pieces: list[str], most: int) -> Iterator[list[str]]:
    """The pieces in order, in as few runs as keep a statement within an engine's limits: at most `most` in one."""
    run: list[str] = []
    size = 0
    for piece in pieces:
        if run and (len(run) == most or size + len(piece.encode()) > _STATEMENT_BYTES):
            yield run
            run, size = [], 0
        run.append(piece)
        size += len(piece.encode()) + len(" UNION ALL ")
    if run:
        yield run
