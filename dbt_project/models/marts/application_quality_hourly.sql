-- one row per customer, provider, application, model, variant, metric, judge and UTC hour

with

scores as (
    select
        *,
        {{ utc_hour('timestamp') }} as hour,
        1 / sampling_probability as weight
    from {{ current_rows(source('quality', 'application_metrics')) }}
)

select
    customer_id,
    provider,
    application_id,
    max(application_name) as application_name,
    model_name,
    variant,
    metric_type,
    judge_fingerprint,
    hour,
    count(case when not flagged then 1 end) as scores,
    count(case when flagged then 1 end) as scores_flagged,
    count(distinct case when not flagged then conversation_id end) as conversations,
    sum(case when not flagged then weight end) as interactions_estimated,
    sum(case when not flagged then score * weight end) / sum(case when not flagged then weight end) as mean_score,
    {{ sample_deviation('case when not flagged then score end') }} as score_deviation,
    min(case when not flagged then score end) as lowest_score,
    {{ quantile('case when not flagged then score end', 0.5) }} as p50_score,
    {{ quantile('case when not flagged then score end', 0.95) }} as p95_score
from scores
group by customer_id, provider, application_id, model_name, variant, metric_type, judge_fingerprint, hour
