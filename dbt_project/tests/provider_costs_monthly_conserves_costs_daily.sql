-- for every customer and currency the amounts of marts.provider_costs_monthly are those of marts.costs_daily

{{ config(meta={'dagster': {'ref': {'name': 'provider_costs_monthly'}}}) }}

with

both_sides as (
    select customer_id, currency, rows, billed_cost, coalesce(effective_cost, 0) as effective_cost
    from {{ ref('costs_daily') }}
    union all
    select customer_id, currency, -rows, -billed_cost, -coalesce(effective_cost, 0)
    from {{ ref('provider_costs_monthly') }}
)

select
    customer_id,
    currency,
    sum(rows) as rows_lost,
    sum(billed_cost) as billed_cost_lost,
    sum(effective_cost) as effective_cost_lost
from both_sides
group by customer_id, currency
having sum(rows) <> 0 or sum(billed_cost) <> 0 or sum(effective_cost) <> 0
