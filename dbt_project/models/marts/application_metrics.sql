-- one row is one score of one interaction, with what was asked and answered

{{ config(materialized='view') }}

with

scores as (
    select * from {{ current_rows(source('quality', 'application_metrics')) }}
),

interactions as (
    select
        customer_id,
        interaction_id,
        input as prompt_text,
        output as response_text,
        trace_id,
        span_id
    from {{ ref('llm_interactions') }}
)

select
    scores.score_id as score_id,
    scores.timestamp as timestamp,
    scores.customer_id as customer_id,
    scores.provider as provider,
    scores.connection_id as connection_id,
    scores.application_id as application_id,
    scores.application_name as application_name,
    scores.metric_type as metric_type,
    scores.score as score,
    interactions.prompt_text as prompt_text,
    interactions.response_text as response_text,
    scores.details as details,
    scores.model_name as model_name,
    scores.variant as variant,
    scores.conversation_id as conversation_id,
    scores.metadata as metadata,
    scores.interaction_id as interaction_id,
    scores.judge_fingerprint as judge_fingerprint,
    scores.judge_call_id as judge_call_id,
    scores.sampling_probability as sampling_probability,
    scores.flagged as flagged,
    interactions.trace_id as trace_id,
    interactions.span_id as span_id,
    scores.collected_at as collected_at
from scores
left join interactions
    on scores.customer_id = interactions.customer_id
    and scores.interaction_id = interactions.interaction_id
