-- one row per customer, connection and kind that is collected or ever was

{{ config(materialized='view', query_settings={'join_use_nulls': 1}) }}

with

connections as (
    select * from {{ current_rows(source('raw', 'connections')) }}
),

collection_runs as (
    select * from {{ source('raw', 'collection_runs') }}
),

api_calls as (
    select
        customer_id,
        connection_id,
        kind,
        {{ sum_bigint('calls') }} as api_requests_today,
        sum(price) as api_price_today
    from {{ source('raw', 'api_calls') }}
    where {{ utc_day('called_at') }} = {{ utc_day(utc_now()) }}
    group by customer_id, connection_id, kind
),

expected as (
    select
        customer_id,
        connection_id,
        {{ each_item('collects') }} as kind,
        provider,
        active
    from connections
),

attempts as (
    select
        *,
        max(case when status <> 'failed' then started_at end)
            over (partition by customer_id, connection_id, kind) as newest_success_at,
        max(case when status = 'succeeded' then started_at end)
            over (partition by customer_id, connection_id, kind) as newest_collection_at,
        row_number()
            over (partition by customer_id, connection_id, kind, window_start order by started_at desc) as recency
    from collection_runs
),

attempted as (
    select
        customer_id,
        connection_id,
        kind,
        argMax(provider, started_at) as provider,
        max(started_at) as last_attempt_at,
        argMax(status, started_at) as last_status,
        max(newest_success_at) as last_success_at,
        {{ sum_bigint("case when status = 'succeeded' and started_at = newest_collection_at then rows end") }} as last_rows,
        {{ sum_bigint("case when status = 'succeeded' and started_at = newest_collection_at then rows_rejected end") }}
            as last_rows_rejected,
        count(distinct case
            when status = 'failed' and started_at > coalesce(newest_success_at, timestamp '1970-01-01') then started_at
        end) as consecutive_failures,
        -- inventory and prices are of now: a window of theirs that failed cannot be read again
        count(case when status = 'failed' and recency = 1 and kind not in ('inventory', 'prices') then 1 end)
            as failing_windows,
        argMax(error_kind, case when status = 'failed' then started_at end) as last_error_kind,
        argMax(error, case when status = 'failed' then started_at end) as last_error
    from attempts
    group by customer_id, connection_id, kind
),

everything as (
    select customer_id, connection_id, kind from expected
    union distinct
    select customer_id, connection_id, kind from attempted
)

select
    everything.customer_id as customer_id,
    everything.connection_id as connection_id,
    everything.kind as kind,
    coalesce(expected.provider, attempted.provider) as provider,
    coalesce(expected.active, false) as active,
    coalesce(attempted.last_status, 'never_attempted') as status,
    attempted.last_attempt_at as last_attempt_at,
    attempted.last_success_at as last_success_at,
    date_diff('second', attempted.last_success_at, {{ utc_now() }}) / 3600 as hours_since_last_success,
    attempted.last_rows as last_rows,
    attempted.last_rows_rejected as last_rows_rejected,
    cast(coalesce(attempted.consecutive_failures, 0) as bigint) as consecutive_failures,
    cast(coalesce(attempted.failing_windows, 0) as bigint) as failing_windows,
    attempted.last_error_kind as last_error_kind,
    attempted.last_error as last_error,
    cast(coalesce(api_calls.api_requests_today, 0) as bigint) as api_requests_today,
    coalesce(api_calls.api_price_today, cast(0 as decimal(38, 21))) as api_price_today
from everything
left join expected
    on everything.customer_id = expected.customer_id
    and everything.connection_id = expected.connection_id
    and everything.kind = expected.kind
left join attempted
    on everything.customer_id = attempted.customer_id
    and everything.connection_id = attempted.connection_id
    and everything.kind = attempted.kind
left join api_calls
    on everything.customer_id = api_calls.customer_id
    and everything.connection_id = api_calls.connection_id
    and everything.kind = api_calls.kind
