-- one row per customer, connection, kind, service, operation and UTC day on which an API was called

with

api_calls as (
    select * from {{ source('raw', 'api_calls') }}
)

select
    customer_id,
    provider,
    connection_id,
    kind,
    service,
    operation,
    {{ utc_day('called_at') }} as call_day,
    {{ sum_bigint('calls') }} as requests,
    {{ sum_bigint('units') }} as charged_units,
    sum(price) as list_price
from api_calls
group by 1, 2, 3, 4, 5, 6, 7
