"""Creating tables: again without effect, with columns added, and not at all where that cannot be enough."""

from dataclasses import replace

import pytest

from optiinfra_pipelines.tables import ALL_TABLES
from optiinfra_pipelines.tables.contract import Column, Kind, Table, Type
from optiinfra_pipelines.warehouse.clickhouse import create_statements
from optiinfra_pipelines.warehouse.protocol import SchemaConflict, Warehouse

_TYPES = tuple(Column(each.value, each, f"A {each.value} that isn't needed.", nullable=True) for each in Type)


@pytest.fixture
def table(request: pytest.FixtureRequest) -> Table:
    """A table of this test's own, with a column of every type."""
    return Table(
        schema="scratch",
        name=request.node.originalname,
        description="What a test needs; it's gone with the server.",
        kind=Kind.APPENDED,
        columns=(Column("id", Type.STRING, "Which.", nullable=False), *_TYPES),
        order_by=("id",),
    )


def columns_of(warehouse: Warehouse, table: Table) -> list[str]:
    return warehouse.query(f"SELECT * FROM {warehouse.current(table)} t").column_names


def test_creating_tables_again_changes_nothing(warehouse: Warehouse) -> None:
    warehouse.create_tables(ALL_TABLES)
    for table in ALL_TABLES:
        assert columns_of(warehouse, table) == list(table.column_names)


def test_a_nullable_column_that_a_contract_gains_is_added_and_old_rows_hold_null(
    warehouse: Warehouse, table: Table
) -> None:
    warehouse.create_tables([table])
    warehouse.append(table, table.arrow_schema.empty_table().from_pylist([{"id": "a"}]).select(["id"]))
    gained = (Column("note", Type.STRING, "Later.", low_cardinality=True), Column("price", Type.MONEY, "Later."))
    wider = replace(table, columns=table.columns + gained)
    warehouse.create_tables([wider])
    [row] = warehouse.query(f"SELECT * FROM {warehouse.current(wider)} t").to_pylist()
    assert row == dict.fromkeys(wider.column_names, None) | {"id": "a"}


def test_a_column_that_a_contract_lost_stays_and_new_rows_hold_null(warehouse: Warehouse, table: Table) -> None:
    warehouse.create_tables([table])
    narrower = replace(table, columns=table.columns[:1])
    warehouse.create_tables([narrower])
    warehouse.append(narrower, narrower.arrow_schema.empty_table().from_pylist([{"id": "a"}]))
    [row] = warehouse.query(f"SELECT * FROM {warehouse.current(table)} t").to_pylist()
    assert row == dict.fromkeys(table.column_names, None) | {"id": "a"}


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (Column("money", Type.FLOAT, "Was exact."), "scratch.{name}.money is "),
        (Column("integer", Type.STRING, "Was a number."), "scratch.{name}.integer is "),
        (Column("owner", Type.STRING, "New.", nullable=False), "scratch.{name}.owner is new and not nullable"),
    ],
)
def test_a_change_that_no_added_column_can_express_is_refused_by_name_and_nothing_is_altered(
    warehouse: Warehouse, table: Table, column: Column, said: str
) -> None:
    warehouse.create_tables([table])
    other = replace(table, name=f"{table.name}_beside")
    kept = tuple(each for each in table.columns if each.name != column.name)
    changed = replace(table, columns=(*kept, column, Column("note", Type.STRING, "Could be added.")))
    with pytest.raises(SchemaConflict, match=said.format(name=table.name)) as refused:
        warehouse.create_tables([other, changed])
    assert "nothing was changed" in str(refused.value)
    assert columns_of(warehouse, table) == list(table.column_names)
    known = warehouse.query(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = $schema",
        {"schema": warehouse.database("scratch")},
    )
    assert other.name not in known["table_name"].to_pylist()


def test_every_conflict_is_named_at_once(warehouse: Warehouse, table: Table) -> None:
    warehouse.create_tables([table])
    wrong = {"money": Type.FLOAT, "boolean": Type.STRING, "timestamp": Type.STRING}
    columns = tuple(replace(each, type=wrong.get(each.name, each.type)) for each in table.columns)
    with pytest.raises(SchemaConflict) as refused:
        warehouse.create_tables([replace(table, columns=columns)])
    assert all(f".{name} is " in str(refused.value) for name in wrong)


def test_descriptions_reach_the_warehouse(clickhouse_warehouse: Warehouse, table: Table) -> None:
    clickhouse_warehouse.create_tables([table])
    found = clickhouse_warehouse.query(
        "SELECT comment FROM system.columns WHERE database = $database AND table = $table AND name = 'money'",
        {"database": clickhouse_warehouse.database("scratch"), "table": table.name},
    )
    assert found["comment"].to_pylist() == ["A money that isn't needed."]


def test_on_a_cluster_every_table_is_replicated_and_distributed_by_what_it_is_ordered_by(table: Table) -> None:
    keyed = replace(
        table,
        kind=Kind.KEYED,
        columns=(*table.columns[:1], Column("collected_at", Type.TIMESTAMP, "When.", nullable=False)),
        key=("id",),
    )
    local, distributed = create_statements(keyed, cluster="main")
    name = f"optiinfra_scratch.{table.name}"
    assert local.startswith(
        f"CREATE TABLE IF NOT EXISTS {name}_local ON CLUSTER main (\n    `id` String COMMENT 'Which.'"
    )
    assert (
        "ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}',"
        " `collected_at`) ORDER BY (`id`)"
    ) in local
    assert distributed == (
        f"CREATE TABLE IF NOT EXISTS {name} ON CLUSTER main AS {name}_local"
        f" ENGINE = Distributed('main', 'optiinfra_scratch', '{table.name}_local', cityHash64(`id`))"
    )


def test_without_a_cluster_there_is_one_plain_table_that_recognises_a_block_sent_again(table: Table) -> None:
    [statement] = create_statements(table)
    assert statement.startswith(f"CREATE TABLE IF NOT EXISTS optiinfra_scratch.{table.name} (\n")
    assert ") ENGINE = MergeTree() ORDER BY (`id`)" in statement
    assert "non_replicated_deduplication_window = 1000" in statement
    assert statement.endswith("COMMENT 'What a test needs; it''s gone with the server.'")
