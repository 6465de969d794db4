-- one row per load, billing account, sub account, service, region, charge category, application, environment, currency,
-- billing period and UTC day on which the charge begins

{{ config(order_by=['customer_id', 'billing_period', 'charge_day']) }}
{%- set built = last_build() %}

with

loads as (
    select * from {{ ref('loads') }} where recency = 1
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
    select * from {{ ref('billing') }}
    where x_load_id {{ in_anywhere() }} (select load_id from new_loads)
),

-- tags and months stay as they are until hours have become days: a text is then taken apart once, not per charge
days as (
    select
        x_customer_id as customer_id,
        x_provider as provider,
        x_connection_id as connection_id,
        x_load_id as load_id,
        BillingAccountId as billing_account_id,
        SubAccountId as sub_account_id,
        ServiceCategory as service_category,
        ServiceName as service_name,
        RegionId as region_id,
        ChargeCategory as charge_category,
        Tags as tags,
        BillingCurrency as currency,
        BillingPeriodStart as billing_period_start,
        {{ utc_day('ChargePeriodStart') }} as charge_day,
        sum(BilledCost) as billed_cost,
        sum(EffectiveCost) as effective_cost,
        sum(ContractedCost) as contracted_cost,
        sum(ListCost) as list_cost,
        sum(case when ChargeCategory = 'Usage' then ListCost - ContractedCost end) as negotiated_savings,
        sum(case when ChargeCategory = 'Usage' then ContractedCost - EffectiveCost end) as commitment_savings,
        sum(case when ChargeCategory = 'Usage' then ListCost - EffectiveCost end) as total_savings,
        cast(count(*) as bigint) as rows
    from charges
    group by all
),

tagged as (
    select
        *,
        {{ utc_month('billing_period_start') }} as billing_period,
        {{ json_text('tags', ['application', 'Application', 'app', 'App']) }} as application,
        {{ json_text('tags', ['environment', 'Environment', 'env', 'Env']) }} as environment
    from days
),

costs as (
    select
        customer_id,
        provider,
        connection_id,
        load_id,
        billing_account_id,
        sub_account_id,
        service_category,
        service_name,
        region_id,
        charge_category,
        application,
        environment,
        currency,
        billing_period,
        charge_day,
        sum(billed_cost) as billed_cost,
        sum(effective_cost) as effective_cost,
        sum(contracted_cost) as contracted_cost,
        sum(list_cost) as list_cost,
        sum(negotiated_savings) as negotiated_savings,
        sum(commitment_savings) as commitment_savings,
        sum(total_savings) as total_savings,
        {{ sum_bigint('rows') }} as rows
    from tagged
    group by all
)

select {{ described_columns() }} from costs
{% if built -%}
union all
select {{ described_columns() }} from {{ built }}
where load_id in (select load_id from kept_loads)
{%- endif %}
