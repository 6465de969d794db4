-- one row per slice and currency that was loaded more than once: its newest load beside the one before

{{ config(order_by=['customer_id', 'slice']) }}

with

loads as (
    select * from {{ ref('loads') }}
    where recency <= 2
),

totals as (
    select * from {{ ref('billing_totals') }}
),

restated as (
    select
        customer_id,
        connection_id,
        table_name,
        slice,
        max(case when recency = 1 then load_id end) as newest_load_id,
        max(case when recency = 2 then load_id end) as previous_load_id,
        max(case when recency = 1 then committed_at end) as newest_committed_at,
        max(case when recency = 2 then committed_at end) as previous_committed_at
    from loads
    group by customer_id, connection_id, table_name, slice
    having max(recency) = 2
),

amounts as (
    select
        loads.table_name as table_name,
        loads.slice as slice,
        totals.currency as currency,
        {{ sum_bigint('case when loads.recency = 1 then totals.rows else 0 end') }} as rows,
        {{ sum_bigint('case when loads.recency = 2 then totals.rows else 0 end') }} as previous_rows,
        sum(case when loads.recency = 1 then totals.billed_cost else 0 end) as billed_cost,
        sum(case when loads.recency = 2 then totals.billed_cost else 0 end) as previous_billed_cost,
        sum(case when loads.recency = 1 then coalesce(totals.effective_cost, 0) else 0 end) as effective_cost,
        sum(case when loads.recency = 2 then coalesce(totals.effective_cost, 0) else 0 end) as previous_effective_cost
    from totals
    inner join loads on totals.load_id = loads.load_id
    group by loads.table_name, loads.slice, totals.currency
)

select
    restated.customer_id as customer_id,
    restated.connection_id as connection_id,
    restated.table_name as table_name,
    restated.slice as slice,
    amounts.currency as currency,
    restated.newest_load_id as load_id,
    restated.previous_load_id as previous_load_id,
    restated.newest_committed_at as loaded_at,
    restated.previous_committed_at as previously_loaded_at,
    amounts.rows as rows,
    amounts.previous_rows as previous_rows,
    amounts.rows - amounts.previous_rows as rows_difference,
    amounts.billed_cost as billed_cost,
    amounts.previous_billed_cost as previous_billed_cost,
    amounts.billed_cost - amounts.previous_billed_cost as billed_cost_difference,
    amounts.effective_cost as effective_cost,
    amounts.previous_effective_cost as previous_effective_cost,
    amounts.effective_cost - amounts.previous_effective_cost as effective_cost_difference
from restated
inner join amounts on restated.table_name = amounts.table_name and restated.slice = amounts.slice
