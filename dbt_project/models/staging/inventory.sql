-- one row is one resource on one UTC day as last seen on it, on any cloud

with

snapshots as (
    {{ all_clouds('inventory') }}
),

-- what a listing that came whole does not hold is gone; one that failed in part says nothing of what it lacks
listed as (
    select
        customer_id,
        connection_id,
        max(window_start) as listed_at
    from {{ source('raw', 'collection_runs') }}
    where kind = 'inventory' and status = 'succeeded'
    group by customer_id, connection_id
),

numbered as (
    select
        *,
        row_number() over (
            partition by customer_id, connection_id, account_id, resource_type, resource_id
            order by snapshot_day desc
        ) as recency
    from snapshots
)

select
    {% for column in model.columns.keys() if column != 'is_current' -%}
    numbered.{{ column }} as {{ column }},
    {% endfor -%}
    numbered.recency = 1 and (listed.listed_at is null or numbered.snapshot_at >= listed.listed_at) as is_current
from numbered
left join listed
    on numbered.customer_id = listed.customer_id
    and numbered.connection_id = listed.connection_id
