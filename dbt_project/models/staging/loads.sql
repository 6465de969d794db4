-- one row per committed load whose rows the warehouse still holds; the newest of its slice is what readers see

with

events as (
    select * from {{ source('raw', 'loads') }}
),

held as (
    select
        load_id,
        table_name,
        slice,
        max(case when state = 'committed' then rows end) as rows,
        max(case when state = 'committed' then rows_read end) as rows_read,
        max(case when state = 'committed' then rows_rejected end) as rows_rejected,
        max(case when state = 'committed' then run_id end) as run_id,
        max(case when state = 'committed' then recorded_at end) as committed_at
    from events
    group by load_id, table_name, slice
    having max(case when state = 'committed' then 1 else 0 end) = 1
       and max(case when state = 'discarded' then 1 else 0 end) = 0
)

select
    load_id,
    table_name,
    slice,
    {{ path_part('slice', 1) }} as customer_id,
    {{ path_part('slice', 2) }} as connection_id,
    rows,
    rows_read,
    rows_rejected,
    run_id,
    committed_at,
    row_number() over (partition by table_name, slice order by committed_at desc, load_id desc) as recency
from held
