-- one row per source row that was refused and is not replaced by a newer load

with

rejected as (
    select * from {{ current_rows(source('raw', 'rejected_rows'), 'load_id') }}
),

-- a row whose month cannot be read is met again by the load of every month of a mixed location
met as (
    select
        *,
        row_number() over (
            partition by customer_id, connection_id, table_name, source, row_number
            order by load_id desc
        ) as recency
    from rejected
)

select {{ described_columns() }}
from met
where recency = 1
