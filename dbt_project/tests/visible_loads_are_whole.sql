-- every visible load of a billing table has in staging.billing as many rows as it committed, no more and no fewer

{{ config(meta={'dagster': {'ref': {'name': 'billing'}}}) }}

with

rows_by_load as (
    select load_id, -rows as rows
    from {{ ref('loads') }}
    where recency = 1 and table_name in ('raw.{{ billing_tables() | join("', 'raw.") }}')
    union all
    select x_load_id as load_id, cast(count(*) as bigint) as rows
    from {{ ref('billing') }}
    group by x_load_id
)

select load_id, sum(rows) as surplus_rows
from rows_by_load
group by load_id
having sum(rows) <> 0
