-- one row per customer, UTC day of the interactions and judge

{{ config(materialized='view', query_settings={'join_use_nulls': 1}) }}

with

standing as (
    select * from {{ current_rows(source('quality', 'scoring_runs')) }}
),

calls as (
    select
        customer_id,
        {{ utc_day('interaction_timestamp') }} as day,
        judge_fingerprint,
        count(*) as judge_calls,
        {{ sum_bigint('requests') }} as judge_requests,
        {{ sum_bigint('coalesce(input_tokens, 0) + coalesce(output_tokens, 0)') }} as judge_tokens,
        sum(cost) as judge_cost
    from {{ current_rows(source('quality', 'judge_calls')) }}
    group by customer_id, {{ utc_day('interaction_timestamp') }}, judge_fingerprint
)

select
    standing.customer_id as customer_id,
    {{ utc_day('standing.day') }} as day,
    standing.judge_fingerprint as judge_fingerprint,
    standing.judge_model as judge_model,
    standing.evaluated as evaluated,
    standing.reason as reason,
    standing.explanation as explanation,
    standing.collected as collected,
    standing.scored as scored,
    standing.failed as failed,
    standing.skipped_no_text as skipped_no_text,
    standing.skipped_truncated as skipped_truncated,
    standing.skipped_request_failed as skipped_request_failed,
    standing.skipped_operation as skipped_operation,
    standing.skipped_not_sampled as skipped_not_sampled,
    standing.waiting as waiting,
    standing.flagged as flagged,
    coalesce(calls.judge_calls, 0) as judge_calls,
    coalesce(calls.judge_requests, 0) as judge_requests,
    coalesce(calls.judge_tokens, 0) as judge_tokens,
    coalesce(calls.judge_cost, 0) as judge_cost
from standing
left join calls
    on standing.customer_id = calls.customer_id
    and {{ utc_day('standing.day') }} = calls.day
    and standing.judge_fingerprint = calls.judge_fingerprint
