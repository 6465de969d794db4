-- one row per load, provider name, billing period, invoice and currency: what the warehouse holds, superseded loads too

{{ config(materialized='table', order_by=['load_id']) }}
{%- set built = last_build() %}

with

loads as (
    select * from {{ ref('loads') }}
),

{% if built -%}
kept_loads as (
    {{ loads_kept(built) }}
),

{% endif -%}
new_loads as (
    select load_id from loads
    {% if built %}where load_id not in (select load_id from kept_loads){% endif %}
),

charges as (
    {% for table in billing_tables() -%}
    select x_load_id, ProviderName, BillingPeriodStart, InvoiceId, BillingCurrency, BilledCost, EffectiveCost
    from {{ source('raw', table) }}
    where x_load_id {{ in_anywhere() }} (select load_id from new_loads)
    {{ 'union all' if not loop.last }}
    {% endfor %}
),

totals as (
    select
        x_load_id as load_id,
        ProviderName as provider_name,
        {{ utc_month('BillingPeriodStart') }} as billing_period,
        InvoiceId as invoice_id,
        BillingCurrency as currency,
        cast(count(*) as bigint) as rows,
        sum(BilledCost) as billed_cost,
        sum(EffectiveCost) as effective_cost
    from charges
    group by x_load_id, ProviderName, {{ utc_month('BillingPeriodStart') }}, InvoiceId, BillingCurrency
)

select {{ described_columns() }} from totals
{% if built -%}
union all
select {{ described_columns() }} from {{ built }}
where load_id in (select load_id from kept_loads)
{%- endif %}
