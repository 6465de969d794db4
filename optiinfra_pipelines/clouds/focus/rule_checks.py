"""Compiles rules into SQL checks on rows or on groups of rows, with what they inherit from composite rules.

Text building only; `rules.py` runs the checks. What cannot be compiled keeps its reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optiinfra_pipelines.clouds.focus.rule_sql import Dialect, NotDecidable, Predicates
from optiinfra_pipelines.tables.contract import Type
from optiinfra_pipelines.tables.rule import (
    And,
    DistinctCount,
    Expr,
    Implies,
    IsNot,
    Or,
    Present,
    Rule,
    RuleHolds,
    SumsEqual,
    columns_of,
)


@dataclass(frozen=True)
class RowCheck:
    """Predicates of the rows that a rule judges ("" for all) and of those that break it ("" for none)."""

    when: str
    fails: str
    columns: tuple[str, ...]  # read by the requirement
    read: tuple[str, ...]  # read by requirement or condition


@dataclass(frozen=True)
class GroupCheck:
    """One SELECT of provider, checked, failed and the first broken group: key, lowest, highest (texts), amount.

    `numbers`: lowest and highest are decimals, which the engines print with and without trailing zeros.
    """

    select: str
    columns: tuple[str, ...]
    labels: tuple[str, str, str, str]  # what an example calls these four; "" leaves one out
    numbers: bool


@dataclass(frozen=True)
class PresenceCheck:
    column: str


@dataclass(frozen=True)
class CompositeCheck:
    children: tuple[str, ...]


@dataclass(frozen=True)
class NoCheck:
    reason: str


Check = RowCheck | GroupCheck | PresenceCheck | CompositeCheck | NoCheck


class Compiler:
    """Checks for a set of rules over one relation with the columns `types`, in one dialect."""

    def __init__(self, rules: Sequence[Rule], relation: str, dialect: Dialect, types: Mapping[str, Type]) -> None:
        self.rules = {rule.id: rule for rule in rules}
        if len(self.rules) < len(rules):
            twice = {rule.id for rule in rules if self.rules[rule.id] is not rule}
            raise ValueError(f"several rules have the id {', '.join(sorted(twice))}")
        self.parents: dict[str, list[Rule]] = {}
        for rule in self.rules.values():
            for child in rule.children:
                self.parents.setdefault(child, []).append(rule)
        self._relation = relation
        self._dialect = dialect
        self._predicates = Predicates(dialect, types)

    def check(self, rule: Rule) -> Check:
        """The rule's check; a NoCheck with the reason where rows cannot decide it."""
        if rule.children:
            return CompositeCheck(rule.children)
        if isinstance(rule.requirement, Present):
            return PresenceCheck(rule.requirement.column)
        try:
            condition = self._condition(rule)
            match rule.requirement:
                case DistinctCount():
                    return self._distinct_count(rule.requirement, condition)
                case SumsEqual():
                    return self._sums_equal(rule.requirement, condition)
                case _:
                    return self._row_check(self._inlined(rule.requirement), condition)
        except NotDecidable as error:
            return NoCheck(str(error))

    def _row_check(self, requirement: Expr, condition: Expr | None) -> RowCheck:
        when = self._predicates.of(condition) if condition else ""
        holds = self._predicates.of(requirement)
        fails = "" if holds == "TRUE" else f"{when} AND NOT ({holds})" if when else f"NOT ({holds})"
        columns = columns_of(requirement)
        read = tuple(dict.fromkeys((*columns, *(columns_of(condition) if condition else ()))))
        return RowCheck(when, fails, columns, read)

    def _condition(self, rule: Rule) -> Expr | None:
        """The rule's own condition, and that of one of the composites through which alone it is reached."""
        inherited = [self._condition(parent) for parent in self.parents.get(rule.id, ())]
        some = [condition for condition in dict.fromkeys(inherited) if condition is not None]
        if not some or None in inherited:
            return rule.condition
        return And((rule.condition, Or(tuple(some)))) if rule.condition else Or(tuple(some))

    def _inlined(self, expr: Expr) -> Expr:
        """`expr` with the rules that it refers to in place of the references, so that it can be judged row by row."""
        match expr:
            case And(items):
                return And(tuple(self._inlined(item) for item in items))
            case Or(items):
                return Or(tuple(self._inlined(item) for item in items))
            case RuleHolds(rule_id) if rule_id in self.rules:
                rule = self.rules[rule_id]
                requirement = self._inlined(rule.requirement)
                return Implies(rule.condition, requirement) if rule.condition else requirement
            case RuleHolds(rule_id):
                raise NotDecidable(f"rule {rule_id}, which it refers to, is not among the rules")
            case _:
                return expr

    def _where(self, *conditions: Expr | None) -> str:
        return "WHERE " + " AND ".join(self._predicates.of(condition) for condition in conditions if condition)

    def _distinct_count(self, expr: DistinctCount, condition: Expr | None) -> GroupCheck:
        key, column = self._predicates.column(expr.per), self._predicates.column(expr.column)
        text = self._dialect.text.format
        groups = [
            f"SELECT x_provider, {text(key)} AS k, count(*) AS n, count(DISTINCT {column}) AS found,",
            f"coalesce({text(f'min({column})')}, '') AS low, coalesce({text(f'max({column})')}, '') AS high",
            f"FROM {self._relation}",
            self._where(condition, IsNot(expr.per, None)),
            f"GROUP BY x_provider, {key}",
        ]
        select = self._group_select(groups, f"found <> {int(expr.count)}", "TRUE")
        labels = (expr.per, expr.column, f"another {expr.column}", "distinct")
        return GroupCheck(select, columns_of(expr), labels, self._predicates.is_number(expr.column))

    def _sums_equal(self, expr: SumsEqual, condition: Expr | None) -> GroupCheck:
        predicates, real = self._predicates, self._dialect.real.format
        sides = {"l": (expr.left, expr.left_when), "r": (expr.right, expr.right_when)}
        picked = ["count(*) AS n"]
        for side, (column, when) in sides.items():
            only = f"FILTER (WHERE {predicates.of(when)})"
            picked.append(f"coalesce(sum({predicates.column(column)}) {only}, 0) AS {side}")
            picked.append(f"count(*) {only} AS {side}n")
            for edge, bound in zip(("min", "max"), expr.span or (), strict=False):
                picked.append(f"{edge}({predicates.column(bound)}) {only} AS {side}{edge}")
        key = predicates.column(expr.per)
        groups = [
            f"SELECT x_provider, {self._dialect.text.format(key)} AS k, {', '.join(picked)}",
            f"FROM {self._relation}",
            self._where(condition, IsNot(expr.per, None), Or((expr.left_when, expr.right_when))),
            f"GROUP BY x_provider, {key}",
        ]
        judged = "ln > 0 AND rn > 0 AND lmin = rmin AND lmax = rmax" if expr.span else "TRUE"
        equal = predicates.near(real("l"), real("r"), "n")
        text = self._dialect.text.format
        named = f"SELECT *, {text('l')} AS low, {text('r')} AS high, n AS found FROM ({' '.join(groups)}) AS sums"
        select = self._group_select([named], f"NOT ({equal})", judged)
        labels = (expr.per, f"sum of {expr.left}", f"sum of {expr.right} to match", "")
        return GroupCheck(select, columns_of(expr), labels, numbers=True)

    def _group_select(self, groups: list[str], broken: str, judged: str) -> str:
        first = ", ".join(
            f"coalesce(argMin({value}, k) FILTER (WHERE {broken}), '') AS {name}"
            for name, value in (("key", "k"), ("lowest", "low"), ("highest", "high"))
        )
        found = f"coalesce(argMin(found, k) FILTER (WHERE {broken}), 0)"
        return " ".join(
            [
                "SELECT x_provider AS provider, coalesce(sum(n), 0) AS checked,",
                f"coalesce(sum(n) FILTER (WHERE {broken}), 0) AS failed, {first}, {found} AS amount",
                f"FROM ({' '.join(groups)}) AS grouped",
                f"WHERE {judged} GROUP BY x_provider",
            ]
        )
