"""How results look in the UI: verdicts as check results, contracts as column schemas."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from optiinfra_pipelines.tables.contract import Table
from optiinfra_pipelines.verdicts import MOST_ROWS, Verdict


def check_result(verdict: Verdict, **metadata: Any) -> dg.AssetCheckResult:
    """The verdict with its numbers and its rows as a table; further metadata by name."""
    shown = {**metadata, **verdict.numbers}
    if verdict.rows:
        shown["findings"] = as_table(verdict.rows)
    return dg.AssetCheckResult(
        passed=verdict.passed,
        severity=dg.AssetCheckSeverity[verdict.severity],
        description=verdict.sentence,
        metadata=shown,
    )


def as_table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """At most 20 rows as a table; every value as text, for Dagster tables hold no decimals or times."""
    records = [dg.TableRecord({name: _text(value) for name, value in row.items()}) for row in rows[:MOST_ROWS]]
    columns = [dg.TableColumn(name, "string") for name in rows[0]]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns))


def _text(value: Any) -> str | int | float | bool | None:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def table_metadata(table: Table) -> dict[str, Any]:
    """The definition metadata of a table's asset: its name and its columns with type, unit and meaning."""
    columns = [
        dg.TableColumn(
            column.name,
            column.type.value,
            description=f"{column.description} Unit: {column.unit}." if column.unit else column.description,
            constraints=dg.TableColumnConstraints(nullable=column.nullable),
        )
        for column in table.columns
    ]
    return {"dagster/table_name": table.full_name, "dagster/column_schema": dg.TableSchema(columns)}
