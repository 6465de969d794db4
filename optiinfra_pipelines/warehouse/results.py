"""What a query hands back, made the same for every engine."""

import pyarrow as pa

UTC_MICROSECONDS = pa.timestamp("us", tz="UTC")


def in_utc(table: pa.Table) -> pa.Table:
    """`table` with every timestamp as microseconds in UTC and dictionary-encoded text as plain text."""
    for index, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type) and field.type != UTC_MICROSECONDS:
            column = table.column(index).cast(pa.timestamp("us", tz=field.type.tz)).cast(UTC_MICROSECONDS)
            table = table.set_column(index, field.name, column)
        elif pa.types.is_dictionary(field.type):
            table = table.set_column(index, field.name, table.column(index).cast(field.type.value_type))
    return table
