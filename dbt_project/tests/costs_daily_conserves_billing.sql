-- for every load and currency the amounts and rows of marts.costs_daily are those of staging.billing to the last digit

{{ config(meta={'dagster': {'ref': {'name': 'costs_daily'}}}) }}

with

both_sides as (
    select
        x_load_id as load_id,
        BillingCurrency as currency,
        cast(count(*) as bigint) as rows,
        sum(BilledCost) as billed_cost,
        coalesce(sum(EffectiveCost), 0) as effective_cost,
        coalesce(sum(ContractedCost), 0) as contracted_cost,
        coalesce(sum(ListCost), 0) as list_cost
    from {{ ref('billing') }}
    group by x_load_id, BillingCurrency
    union all
    select
        load_id,
        currency,
        -cast(sum(rows) as bigint) as rows,
        -sum(billed_cost) as billed_cost,
        -coalesce(sum(effective_cost), 0) as effective_cost,
        -coalesce(sum(contracted_cost), 0) as contracted_cost,
        -coalesce(sum(list_cost), 0) as list_cost
    from {{ ref('costs_daily') }}
    group by load_id, currency
)

select
    load_id,
    currency,
    sum(rows) as rows_lost,
    sum(billed_cost) as billed_cost_lost,
    sum(effective_cost) as effective_cost_lost,
    sum(contracted_cost) as contracted_cost_lost,
    sum(list_cost) as list_cost_lost
from both_sides
group by load_id, currency
having sum(rows) <> 0
    or sum(billed_cost) <> 0
    or sum(effective_cost) <> 0
    or sum(contracted_cost) <> 0
    or sum(list_cost) <> 0
