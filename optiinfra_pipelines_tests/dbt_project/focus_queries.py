"""The published FOCUS use cases as statements that an engine can run.

They are written for no engine in particular: MySQL's JSON functions and loose grouping, names in any case, `?` for
values. What is changed here is syntax; the columns, conditions and groups are the published ones.
"""

from pathlib import Path

import sqlglot
import yaml
from sqlglot import exp

from optiinfra_pipelines.tables.focus import FOCUS_1_2
from optiinfra_pipelines.warehouse.protocol import Engine

START, END = "2024-09-01 00:00:00", "2024-10-02 00:00:00"
VALUES = {"ProviderName": "AWS", "SubAccountId": "sub-7", "PricingCurrency": "TOKENS", "PricingUnit": "TOKENS"}
TAG, TAG_VALUE = "Application", "chat"

_NAMES = {column.name.lower(): column.name for column in FOCUS_1_2}


def published(folder: Path) -> dict[str, str]:
    """Name -> statement of each use case as published, in MySQL's dialect more than in any other."""
    return _statements(folder / "focus_use_cases.yaml")


def adjusted(folder: Path) -> dict[str, str]:
    """Name -> statement of each use case that its publishers mended, in DuckDB's dialect."""
    return _statements(folder / "focus_use_cases_adjustments.yaml")


def _statements(path: Path) -> dict[str, str]:
    return {name: entry["sql"] for name, entry in yaml.safe_load(path.read_text()).items()}


def translated(sql: str, read: str, engine: Engine, marts: str, *, limited: bool) -> str:
    """`sql` for `engine` on `marts`.focus_1_2, without its LIMIT unless `limited`; sqlglot.ParseError for no SQL.

    1. The table and its columns get their names: `BillingAccountID` is BillingAccountId (ClickHouse tells them apart).
    2. A `?` becomes a value that fits the column it stands beside; within a JSON path, a tag's key.
    3. Tags["key"] and MySQL's JSON functions become the engine's.
    4. On ClickHouse a decimal divided by zero is an error, elsewhere it is null: the divisor becomes null there.
    5. On ClickHouse an alias does not hide a column in WHERE, as in every other SQL: that is a setting there.
    """
    text = sql.replace("'$.?'", f"'$.{TAG}'").replace("'$.' || ?", f"'$.{TAG}'")
    tree = sqlglot.parse_one(text, dialect=read)
    if not limited:
        tree.set("limit", None)
    tree = tree.transform(_with_json_functions).transform(_with_names, marts).transform(_with_value)
    if engine == "duckdb":
        return tree.sql("duckdb")
    return (
        tree.transform(_empty_as_null).transform(_zero_as_null).sql("clickhouse")
        + " SETTINGS prefer_column_name_to_alias = 1"
    )


def _with_json_functions(node: exp.Expression) -> exp.Expression:
    if isinstance(node, exp.Bracket):
        return _json_text(node.this, f"$.{TAG}")
    if not isinstance(node, exp.Anonymous):
        return node
    if node.name.upper() == "JSON_UNQUOTE":
        extract = node.expressions[0]
        return exp.JSONExtractScalar(this=extract.this, expression=extract.expression)
    if node.name.upper() == "JSON_CONTAINS_PATH":
        column, mode, *paths = node.expressions
        present = [exp.Not(this=exp.Is(this=_json_text(column, path.name), expression=exp.Null())) for path in paths]
        return exp.or_(*present) if mode.name == "one" else exp.and_(*present)
    return node


def _json_text(column: exp.Expression, path: str) -> exp.Expression:
    arrow = sqlglot.parse_one(f"x -> '{path}'", "duckdb")
    return exp.JSONExtractScalar(this=column.copy(), expression=arrow.expression)


def _with_names(node: exp.Expression, marts: str) -> exp.Expression:
    if isinstance(node, exp.Table) and node.name == "focus_data_table":
        return exp.table_("focus_1_2", db=marts)
    if isinstance(node, exp.Column) and node.name.lower() in _NAMES:
        return exp.column(_NAMES[node.name.lower()])
    return node


def _with_value(node: exp.Expression) -> exp.Expression:
    if not isinstance(node, exp.Placeholder):
        return node
    comparison = node.parent
    if isinstance(comparison, exp.GT | exp.GTE):
        return exp.Literal.string(START)
    if isinstance(comparison, exp.LT | exp.LTE):
        return exp.Literal.string(END)
    assert isinstance(comparison, exp.EQ)
    column = comparison.this
    return exp.Literal.string(VALUES[column.name] if isinstance(column, exp.Column) else TAG_VALUE)


def _empty_as_null(node: exp.Expression) -> exp.Expression:
    """ClickHouse extracts an empty text where the others extract null."""
    if isinstance(node, exp.JSONExtractScalar) and not isinstance(node.parent, exp.Nullif):
        return exp.Nullif(this=node.copy(), expression=exp.Literal.string(""))
    return node


def _zero_as_null(node: exp.Expression) -> exp.Expression:
    if isinstance(node, exp.Div) and not isinstance(node.expression, exp.Nullif):
        divisor = exp.Nullif(this=exp.paren(node.expression.copy()), expression=exp.Literal.number(0))
        return exp.Div(this=node.this.copy(), expression=divisor)
    return node
