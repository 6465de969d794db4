-- one row per slice, billing period, provider name, invoice and currency that the source or the warehouse knows

{{ config(order_by=['customer_id', 'slice']) }}

{%- set printed_cost = matched(
    'lower(payload)',
    '"(?:billedcost|line_item_unblended_cost|lineitem/unblendedcost)":"?([-+$0-9.,e ]+)["}]'
) %}

with

loads as (
    select * from {{ ref('loads') }} where recency = 1
),

source_totals as (
    select * from {{ ref('source_totals') }}
),

billing_totals as (
    select * from {{ ref('billing_totals') }}
    where load_id in (select load_id from loads)
),

rejected_rows as (
    select
        load_id,
        reason,
        -- what the totals counted of the row; where its own cost was refused they counted nothing
        case
            when reason not like 'BilledCost:%'
                then {{ exact_number("replace(replace(trim(" ~ printed_cost ~ "), '$', ''), ',', '')") }}
        end as billed_cost
    from {{ ref('rejected_rows') }}
),

sides as (
    select
        'source' as side, load_id, provider_name, billing_period, invoice_id, currency, rows, billed_cost, effective_cost
    from source_totals
    union all
    -- lines with too few or too many fields are in no total: nobody knows which invoice they belong to
    select
        'source' as side, load_id, null, 'unknown', null, null, cast(count(*) as bigint), null, null
    from rejected_rows
    where reason like 'line:%'
    group by load_id
    union all
    select
        'warehouse' as side, load_id, provider_name, billing_period, invoice_id, currency, rows, billed_cost, effective_cost
    from billing_totals
    union all
    select
        'rejected' as side, load_id, null, 'unknown', null, null, cast(count(*) as bigint), sum(billed_cost), null
    from rejected_rows
    group by load_id
),

slices as (
    select
        load_id,
        {{ sum_bigint("case when side = 'rejected' then rows else 0 end") }} as rejected_rows,
        sum(case when side = 'source' then rows else -rows end) as unexplained_rows,
        sum(case when side = 'source' then coalesce(billed_cost, 0) else -coalesce(billed_cost, 0) end)
            as unexplained_billed_cost
    from sides
    group by load_id
),

lines as (
    select
        load_id,
        provider_name,
        billing_period,
        invoice_id,
        currency,
        {{ sum_bigint("case when side = 'source' then rows end") }} as source_rows,
        {{ sum_bigint("case when side = 'warehouse' then rows end") }} as warehouse_rows,
        sum(case when side = 'source' then billed_cost end) as source_billed_cost,
        sum(case when side = 'warehouse' then billed_cost end) as warehouse_billed_cost,
        sum(case when side = 'source' then effective_cost end) as source_effective_cost,
        sum(case when side = 'warehouse' then effective_cost end) as warehouse_effective_cost
    from sides
    where side <> 'rejected'
    group by load_id, provider_name, billing_period, invoice_id, currency
),

compared as (
    select
        *,
        coalesce(warehouse_rows, 0) - coalesce(source_rows, 0) as rows_difference,
        coalesce(warehouse_billed_cost, 0) - coalesce(source_billed_cost, 0) as billed_cost_difference,
        case
            when source_effective_cost is not null
                then coalesce(warehouse_effective_cost, 0) - source_effective_cost
        end as effective_cost_difference
    from lines
)

select
    loads.customer_id as customer_id,
    loads.connection_id as connection_id,
    compared.provider_name as provider_name,
    compared.billing_period as billing_period,
    compared.invoice_id as invoice_id,
    compared.currency as currency,
    loads.table_name as table_name,
    loads.slice as slice,
    loads.load_id as load_id,
    compared.source_rows as source_rows,
    compared.warehouse_rows as warehouse_rows,
    compared.rows_difference as rows_difference,
    compared.source_billed_cost as source_billed_cost,
    compared.warehouse_billed_cost as warehouse_billed_cost,
    compared.billed_cost_difference as billed_cost_difference,
    compared.source_effective_cost as source_effective_cost,
    compared.warehouse_effective_cost as warehouse_effective_cost,
    compared.effective_cost_difference as effective_cost_difference,
    slices.rejected_rows as rejected_rows,
    case
        when compared.rows_difference = 0
            and compared.billed_cost_difference = 0
            and coalesce(compared.effective_cost_difference, 0) = 0
            then 'reconciled'
        when compared.rows_difference < 0
            and slices.unexplained_rows = 0
            and slices.unexplained_billed_cost = 0
            then 'rejected_rows'
        else 'unexplained'
    end as status
from compared
inner join loads on compared.load_id = loads.load_id
inner join slices on compared.load_id = slices.load_id
