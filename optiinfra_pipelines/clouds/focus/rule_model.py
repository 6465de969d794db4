"""Reads a published FOCUS model file (such as model-1.2.json of the FOCUS validator) into rules. No SQL, no running.

What this module makes of a model, beside finopsfoundation/focus_validator 2.0:

| model                     | here                                          | focus_validator                     |
|---------------------------|-----------------------------------------------|-------------------------------------|
| Dynamic, no requirement   | not applicable: knowledge outside the data    | skipped                             |
| MAY                       | not applicable: a permission cannot be broken | skipped                             |
| several criteria          | all are needed ("... and publishes prices")   | any is enough                       |
| child of a composite      | under criteria and condition of a parent      | conditions of all, one level up     |
| {"AND": ...}, misnamed    | read as what is meant                         | condition ignored, judges all rows  |
|   ColumnName in conditions|                                               |                                     |
| "not X" of a null         | holds: null is not X                          | does not hold in conditions         |
| "is X", format of a null  | unknown: neither broken nor a condition met   | the same                            |
| OR of checks              | every row needs one of them                   | passes once any row has one         |
| OR of rules               | every row needs one of them                   | passes once any row has one         |
| AND of rules              | fails with any child, SHOULD included         | the same                            |
| column absent at source   | presence fails, its other rules do not apply  | they fail too                       |
| a x b = c                 | up to the rounding of printed digits          | exact on doubles                    |
| FormatString              | no trace of broken Unicode                    | ASCII only                          |
| FormatNumeric             | no plus sign                                  | plus allowed                        |
| FormatKeyValue            | JSON object of scalars, keys unique           | any JSON                            |
| FormatCurrency            | three capitals, or a virtual currency's name  | three capitals                      |
| CheckDecimalValue         | the column's type                             | skipped                             |
| CheckDistinctCount        | rows without a key belong to no group         | null is a group                     |
| unknown check function    | that rule is not applicable                   | the file is refused                 |
| no row meets a condition  | pass, with rows_checked 0                     | pass                                |
"""

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, get_args

from optiinfra_pipelines.tables.rule import (
    And,
    AtLeast,
    DistinctCount,
    Expr,
    HasFormat,
    HasType,
    Is,
    IsNot,
    Keyword,
    NotSame,
    Or,
    Present,
    Product,
    Rule,
    RuleHolds,
    Same,
    Undecidable,
    references,
)

OUTSIDE_THE_DATA = "needs knowledge outside the data"

# Statements of the 1.2 model that contradict the page of the specification which they quote; both were read.
_CONTRADICTIONS = {
    "BilledCost-C-005-C": "takes a ProviderName spelled otherwise than InvoiceIssuerName for a third party",
    "CommitmentDiscountQuantity-C-007-C": "demands null of corrections, where the page permits it",
    "CommitmentDiscountStatus-C-003-C": "demands a value where the page demands null",
    "CommitmentDiscountStatus-C-004-C": "judges rows without CommitmentDiscountId, where the page means those with it",
    "CommitmentDiscountStatus-C-005-M": "lists Active, Expired and Pending, where the page allows Used and Unused",
    "ConsumedQuantity-C-006-C": "judges corrections, where the page means all other rows",
    "EffectiveCost-C-005-C": "judges every purchase, where the page means those that cover future charges",
    "InvoiceId-C-004-C": "demands null of every row, where the page means charges without an invoice",
    "InvoiceId-C-005-C": "demands a value of every row, where the page means charges with an invoice",
    "PricingCurrencyEffectiveCost-C-004-M": "judges PricingCurrencyListUnitPrice",
}


class ModelError(ValueError):
    """A model file is not what it should be; the message names the rule and what is wrong with it."""


def load_model(source: Path | bytes) -> list[Rule]:
    """The rules of a FOCUS model file, given as its path or its bytes, in the file's order.

    Every entry of ModelRules becomes one rule. A check that is unknown or lacks an argument makes its rule
    undecidable, since published models have a few; ModelError is for files that are no such model.
    """
    try:
        model = json.loads(source if isinstance(source, bytes) else source.read_bytes(), parse_float=Decimal)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"the model file is not JSON: {error}") from error
    entries = model.get("ModelRules") if isinstance(model, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise ModelError("the model file has no ModelRules object; it should be a FOCUS model such as model-1.2.json")
    version = str(_member("the model file", model.get("Details", {}), "FOCUSVersion", str, default="unknown"))
    rules = [_rule(rule_id, entry, version) for rule_id, entry in entries.items()]
    _check_references(rules)
    return rules


def _rule(rule_id: str, entry: Any, version: str) -> Rule:
    where = f"rule {rule_id}"
    if not isinstance(entry, dict):
        raise ModelError(f"{where} is not an object")
    criteria = _member(where, entry, "ValidationCriteria", dict)
    keyword = _member(where, criteria, "Keyword", str)
    if keyword not in get_args(Keyword):
        raise ModelError(f"{where}: Keyword {keyword!r} is none of {', '.join(get_args(Keyword))}")
    applicability = _member(where, entry, "ApplicabilityCriteria", list, default=[])
    if not all(isinstance(name, str) for name in applicability):
        raise ModelError(f"{where}: ApplicabilityCriteria are not all strings")
    requirement = _member(where, criteria, "Requirement", dict, default={})
    condition = _member(where, criteria, "Condition", dict, default={})
    return Rule(
        id=rule_id,
        column=_member(where, entry, "Reference", str),
        keyword=keyword,
        text=_member(where, criteria, "MustSatisfy", str, default=""),
        requirement=_requirement(where, entry, requirement),
        condition=_expr(f"{where}, Condition", condition) if condition else None,
        criteria=tuple(applicability),
        origin=f"FOCUS {version}",
        note=_CONTRADICTIONS.get(rule_id, "") if version == "1.2" else "",
    )


def _requirement(where: str, entry: dict[str, Any], requirement: dict[str, Any]) -> Expr:
    status = entry.get("Status", "Active")
    if status != "Active":
        return Undecidable(f"the model marks it {status}")
    if not requirement or entry.get("Type") == "Dynamic":
        return Undecidable(OUTSIDE_THE_DATA)
    return _expr(f"{where}, Requirement", requirement)


def _expr(where: str, node: Any) -> Expr:
    if not isinstance(node, dict):
        raise ModelError(f"{where}: {node!r} is not a check")
    if "CheckFunction" not in node and len(node) == 1:  # {"AND": [...]} and {"AND": {...}} occur in 1.2
        ((function, items),) = node.items()
        node = {"CheckFunction": function, "Items": items if isinstance(items, list) else [items]}
    function = _member(where, node, "CheckFunction", str)
    if function in ("AND", "OR"):
        items = tuple(_expr(where, item) for item in _member(f"{where}, {function}", node, "Items", list))
        if not items:
            raise ModelError(f"{where}: {function} has no Items")
        return And(items) if function == "AND" else Or(items)
    if function not in _CHECKS:
        return Undecidable(f"check function {function} is not known here")
    build, arguments = _CHECKS[function]
    if "ColumnName" in arguments and "ColumnName" not in node:  # misnamed in two conditions of 1.2
        node = {**node, "ColumnName": node.get("CheckCondition")}
    wrong = [name for name in arguments if not _fits(name, node.get(name, ...))]
    if wrong:
        return Undecidable(f"the model gives {function} no usable {' and '.join(wrong)}")
    return build(*(node[name] for name in arguments))


def _fits(argument: str, value: Any) -> bool:
    if argument == "Value":
        return value is None or isinstance(value, str | int | Decimal)
    return isinstance(value, int if argument == "ExpectedCount" else str)


def _typed(kind: Any) -> Callable[..., Expr]:
    return lambda column: HasType(column, kind)


def _formatted(format: Any) -> Callable[..., Expr]:
    return lambda column: HasFormat(column, format)


_COLUMN, _PAIR = ("ColumnName",), ("ColumnAName", "ColumnBName")
_CHECKS: Mapping[str, tuple[Callable[..., Expr], tuple[str, ...]]] = {
    "CheckDecimalValue": (_typed("decimal"), _COLUMN),
    "CheckDistinctCount": (DistinctCount, (*_PAIR, "ExpectedCount")),
    "CheckGreaterOrEqualThanValue": (AtLeast, ("ColumnName", "Value")),
    "CheckModelRule": (RuleHolds, ("ModelRuleId",)),
    "CheckNationalCurrency": (_formatted("national_currency"), _COLUMN),
    "CheckNotSameValue": (NotSame, _PAIR),
    "CheckNotValue": (IsNot, ("ColumnName", "Value")),
    "CheckSameValue": (Same, _PAIR),
    "CheckValue": (Is, ("ColumnName", "Value")),
    "ColumnByColumnEqualsColumnValue": (Product, (*_PAIR, "ResultColumnName")),
    "ColumnPresent": (Present, _COLUMN),
    "FormatCurrency": (_formatted("currency"), _COLUMN),
    "FormatDateTime": (_formatted("datetime"), _COLUMN),
    "FormatKeyValue": (_formatted("key_value"), _COLUMN),
    "FormatNumeric": (_formatted("numeric"), _COLUMN),
    "FormatString": (_formatted("string"), _COLUMN),
    "FormatUnit": (_formatted("unit"), _COLUMN),
    "TypeDateTime": (_typed("datetime"), _COLUMN),
    "TypeDecimal": (_typed("decimal"), _COLUMN),
    "TypeString": (_typed("string"), _COLUMN),
}


def _member(where: str, node: Any, name: str, kind: type, default: Any = None) -> Any:
    """`node[name]`, of type `kind`; ModelError where it is missing or of another type."""
    value = node.get(name, default) if isinstance(node, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ModelError(f"{where}: {name} is {'missing' if value is None else f'not of type {kind.__name__}'}")
    return value


def _check_references(rules: list[Rule]) -> None:
    needs = {rule.id: references(rule.requirement) for rule in rules}
    for rule in rules:
        for target in needs[rule.id]:
            if target not in needs:
                raise ModelError(f"rule {rule.id}, Requirement: it refers to rule {target}, which does not exist")
        if rule.condition is not None and references(rule.condition):
            raise ModelError(f"rule {rule.id}, Condition: it refers to another rule, which only a Requirement can")
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        raise ModelError(f"rules refer to each other in a circle: {' -> '.join(error.args[1])}") from error
