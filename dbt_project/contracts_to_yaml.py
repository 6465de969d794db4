"""Writes what dbt has to know of the table contracts: sources, and the models that keep the FOCUS columns.

Run it after a contract in optiinfra_pipelines/tables changed: `python dbt_project/contracts_to_yaml.py`.
What people write themselves (the other models and their tests) is not touched.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from optiinfra_pipelines.tables import ALL_TABLES, BILLING_TABLES
from optiinfra_pipelines.tables.billing import LINEAGE
from optiinfra_pipelines.tables.cloud import INVENTORY, METRICS, PRICES
from optiinfra_pipelines.tables.contract import Column, Table, Type
from optiinfra_pipelines.tables.focus import FOCUS_1_2, FOCUS_COLUMNS
from optiinfra_pipelines.tables.llm import LLM_INTERACTIONS

PROJECT = Path(__file__).parent
_NOTE = "Written by contracts_to_yaml.py from optiinfra_pipelines/tables; change it there."
_BILLING = (*FOCUS_COLUMNS, *LINEAGE)
_OWNERS = ("x_customer_id", "x_provider", "x_connection_id")
_STAGING_BILLING = (
    "One row is one charge that counts today: every charge of the load that readers see of each slice, over all "
    "providers, in the FOCUS columns and with the lineage of each row (x_...)."
)
_FOCUS_1_2 = (
    "One row is one charge that counts today, in exactly the 57 columns of FOCUS 1.2 under their own names, so that "
    "published FOCUS queries run unchanged; then x_customer_id, x_provider and x_connection_id, to narrow a query to "
    "one customer. On ClickHouse amounts are Decimal(76, 21): a quotient of two narrower decimals overflows there."
)


_IS_CURRENT = Column(
    "is_current", Type.BOOLEAN, "Whether it is the resource's newest row and no whole listing since then lacks it."
)


def main() -> None:
    """Write every file."""
    for path, content in files().items():
        (PROJECT / path).write_text(content, encoding="utf-8")


def files() -> Mapping[str, str]:
    """Path inside the project -> what that file has to hold."""
    owners = tuple(column for column in LINEAGE if column.name in _OWNERS)
    return {
        "models/sources.yml": _yaml({"version": 2, "sources": list(_sources(ALL_TABLES))}),
        "models/focus_columns.md": _doc_blocks(_BILLING),
        "models/staging/billing.yml": _model("billing", _STAGING_BILLING, _BILLING),
        "models/staging/metrics.yml": _described_model("metrics", METRICS["aws"].description, METRICS["aws"].columns),
        "models/staging/llm_interactions.yml": _described_model(
            "llm_interactions", LLM_INTERACTIONS["aws"].description, LLM_INTERACTIONS["aws"].columns
        ),
        "models/staging/prices.yml": _described_model("prices", PRICES["aws"].description, PRICES["aws"].columns),
        "models/staging/inventory.yml": _described_model(
            "inventory", INVENTORY["aws"].description, (*INVENTORY["aws"].columns, _IS_CURRENT)
        ),
        "models/marts/focus_1_2.yml": _model("focus_1_2", _FOCUS_1_2, (*FOCUS_1_2, *owners)),
    }


def _sources(tables: Iterable[Table]) -> Iterator[dict[str, Any]]:
    tables = list(tables)
    for schema in dict.fromkeys(table.schema for table in tables):
        yield {
            "name": schema,
            "schema": f"{{{{ 'optiinfra_{schema}' if target.type == 'clickhouse' else '{schema}' }}}}",
            "tables": [_source(table) for table in tables if table.schema == schema],
        }


def _source(table: Table) -> dict[str, Any]:
    described = _documented if table in BILLING_TABLES else _described
    return {
        "name": table.name,
        "description": table.description,
        "columns": [described(column) for column in table.columns],
    }


def _model(name: str, description: str, columns: Iterable[Column]) -> str:
    model = {"name": name, "description": description, "columns": [_documented(column) for column in columns]}
    return _yaml({"version": 2, "models": [model]})


def _described_model(name: str, description: str, columns: Iterable[Column]) -> str:
    model = {"name": name, "description": description, "columns": [_described(column) for column in columns]}
    return _yaml({"version": 2, "models": [model]})


def _documented(column: Column) -> dict[str, str]:
    entry = {"name": column.name, "description": f"{{{{ doc('{column.name}') }}}}"}
    return entry | ({"data_type": "decimal(38, 21)"} if column.type is Type.MONEY else {})


def _described(column: Column) -> dict[str, str]:
    return {"name": column.name, "description": _with_unit(column)}


def _with_unit(column: Column) -> str:
    return f"{column.description} Unit: {column.unit}." if column.unit else column.description


def _doc_blocks(columns: Iterable[Column]) -> str:
    blocks = (f"{{% docs {column.name} %}}\n{_with_unit(column)}\n{{% enddocs %}}\n" for column in columns)
    return "\n".join((f"<!-- {_NOTE} -->\n", *blocks))


def _yaml(content: Mapping[str, Any]) -> str:
    return f"# {_NOTE}\n" + yaml.dump(content, Dumper=_Plain, sort_keys=False, width=116, allow_unicode=True)


class _Plain(yaml.SafeDumper):
    """Without anchors: the columns of two billing tables are the same objects, and are written out twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


if __name__ == "__main__":
    main()
