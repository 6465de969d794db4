-- two ways to aggregate a visible load, by invoice and by day, come to the same amounts and rows

{{ config(meta={'dagster': {'ref': {'name': 'billing_totals'}}}) }}

with

both_sides as (
    select load_id, currency, rows, billed_cost, coalesce(effective_cost, 0) as effective_cost
    from {{ ref('billing_totals') }}
    where load_id in (select load_id from {{ ref('loads') }} where recency = 1)
    union all
    select load_id, currency, -rows, -billed_cost, -coalesce(effective_cost, 0)
    from {{ ref('costs_daily') }}
)

select
    load_id,
    currency,
    sum(rows) as rows_lost,
    sum(billed_cost) as billed_cost_lost,
    sum(effective_cost) as effective_cost_lost
from both_sides
group by load_id, currency
having sum(rows) <> 0 or sum(billed_cost) <> 0 or sum(effective_cost) <> 0
