-- one row is one resource on one UTC day as last seen on it, on any cloud

{{ config(query_settings={'join_use_nulls': 1}) }}

with

snapshots as (
    {{ all_clouds('inventory') }}
),

connections as (
    select * from {{ current_rows(source('raw', 'connections')) }}
),

collecting as (
    select
        customer_id,
        connection_id
    from connections
    where active and collects like '%inventory%'
),

-- what an inventory that came whole does not hold is gone; one that failed in part says nothing of what it lacks ...
listed as (
    select
        customer_id,
        connection_id,
        max(window_start) as listed_at
    from {{ source('raw', 'collection_runs') }}
    where kind = 'inventory' and status = 'succeeded'
    group by customer_id, connection_id
),

-- ... but of the lists that did come: a resource that its own list held no more is gone as well
numbered as (
    select
        *,
        row_number() over (
            partition by customer_id, connection_id, account_id, resource_type, resource_id
            order by snapshot_day desc
        ) as recency,
        max(snapshot_at) over (
            partition by customer_id, connection_id, account_id, resource_type, region, zone
        ) as same_list_at
    from snapshots
)

select
    {% for column in model.columns.keys() if column != 'is_current' -%}
    numbered.{{ column }} as {{ column }},
    {% endfor -%}
    numbered.recency = 1
        and collecting.connection_id is not null
        and numbered.snapshot_at >= numbered.same_list_at
        and (listed.listed_at is null or numbered.snapshot_at >= listed.listed_at) as is_current
from numbered
left join listed
    on numbered.customer_id = listed.customer_id
    and numbered.connection_id = listed.connection_id
left join collecting
    on numbered.customer_id = collecting.customer_id
    and numbered.connection_id = collecting.connection_id
