"""Table contracts: the one place for columns, types, units, keys and meaning. No I/O, no engine, no Dagster."""

from optiinfra_pipelines.tables.billing import BILLING_TABLES
from optiinfra_pipelines.tables.cloud import CLOUD_TABLES
from optiinfra_pipelines.tables.contract import Column, Kind, Table, Type
from optiinfra_pipelines.tables.gate import GATE_TABLES
from optiinfra_pipelines.tables.llm import LLM_TABLES
from optiinfra_pipelines.tables.operations import OPERATION_TABLES

ALL_TABLES = (*OPERATION_TABLES, *BILLING_TABLES, *CLOUD_TABLES, *LLM_TABLES, *GATE_TABLES)

__all__ = [
    "ALL_TABLES",
    "BILLING_TABLES",
    "CLOUD_TABLES",
    "GATE_TABLES",
    "LLM_TABLES",
    "OPERATION_TABLES",
    "Column",
    "Kind",
    "Table",
    "Type",
]
