-- one row per customer, provider, billing period and currency

{{ config(order_by=['customer_id', 'provider', 'billing_period']) }}

with

costs_daily as (
    select * from {{ ref('costs_daily') }}
)

select
    customer_id,
    provider,
    billing_period,
    currency,
    sum(billed_cost) as billed_cost,
    sum(effective_cost) as effective_cost,
    sum(contracted_cost) as contracted_cost,
    sum(list_cost) as list_cost,
    sum(negotiated_savings) as negotiated_savings,
    sum(commitment_savings) as commitment_savings,
    sum(total_savings) as total_savings,
    {{ sum_bigint('rows') }} as rows
from costs_daily
group by customer_id, provider, billing_period, currency
