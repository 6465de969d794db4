"""The recorded answers of Vultr's API in the shared data: fixtures of govultr, examples of the OpenAPI document."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any


def fixture_answers(data: Path, name: str, path: str) -> list[dict[str, Any]]:
    """The answers that `govultr_fixtures/<name>.json` records for requests to a path that ends with `path`."""
    file = data / "finops" / "vultr" / "govultr_fixtures" / f"{name}.json"
    recorded = json.loads(file.read_text(), parse_float=Decimal)
    return [each["response"] for each in recorded if each["path"].endswith(path)]


def fixture(data: Path, name: str, path: str) -> dict[str, Any]:
    """The one answer that is recorded for `path`."""
    [answer] = fixture_answers(data, name, path)
    return answer


def examples(data: Path, path: str) -> Iterator[dict[str, Any]]:
    """The answers to GET `path` that the OpenAPI document has for examples."""
    document = json.loads((data / "finops" / "vultr" / "vultr_openapi_v2.json").read_text(), parse_float=Decimal)
    content = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]
    for example in content["examples"].values():
        yield example["value"]


def gpu_plans(data: Path) -> dict[str, Any]:
    """The recorded plans with GPUs: bare_metal and vm_instances."""
    text = (data / "finops" / "vultr" / "vultr_plans_gpu_sample.json").read_text()
    return dict(json.loads(text, parse_float=Decimal))
