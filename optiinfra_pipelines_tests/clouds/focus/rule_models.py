"""Builds small FOCUS model files for the tests of the rules."""

import json
from typing import Any

from optiinfra_pipelines.clouds.focus.rule_model import load_model
from optiinfra_pipelines.tables.rule import Rule


def check(function: str, **arguments: Any) -> dict[str, Any]:
    """A check of a model file."""
    return {"CheckFunction": function, **arguments}


def every(*rule_ids: str, function: str = "AND") -> dict[str, Any]:
    """The check that refers to other rules."""
    return check(function, Items=[check("CheckModelRule", ModelRuleId=rule_id) for rule_id in rule_ids])


def rule(
    column: str,
    requirement: dict[str, Any],
    *,
    keyword: str = "MUST",
    condition: dict[str, Any] | None = None,
    criteria: tuple[str, ...] = (),
    type: str = "Static",
) -> dict[str, Any]:
    """An entry of ModelRules."""
    return {
        "Function": "Validation",
        "Reference": column,
        "EntityType": "Column",
        "ModelVersionIntroduced": "1.2",
        "Status": "Active",
        "ApplicabilityCriteria": list(criteria),
        "Type": type,
        "ValidationCriteria": {
            "MustSatisfy": f"{column} {keyword} ...",
            "Keyword": keyword,
            "Requirement": requirement,
            "Condition": condition or {},
            "Dependencies": [],
        },
    }


def model_bytes(rules: dict[str, Any]) -> bytes:
    """A model file with those ModelRules."""
    return json.dumps({"Details": {"FOCUSVersion": "1.2"}, "ModelRules": rules}).encode()


def model(rules: dict[str, Any]) -> list[Rule]:
    """The rules of such a file, loaded."""
    return load_model(model_bytes(rules))
