"""Contracts of what LLM applications said and what it was worth: interactions, scores, calls of the judge, its errors.

Interactions stand in one raw table per provider; scores of all of them in one long table. Verdicts drawn from scores
are contracts of their own.
"""

from optiinfra_pipelines.tables.cloud import CLOUD_PROVIDERS, OWNER, CloudProvider
from optiinfra_pipelines.tables.columns import count, figure, flag, json, label, money, text, time
from optiinfra_pipelines.tables.contract import Kind, Table

CONTENT_STATES = ("full", "redacted", "truncated", "missing")
CALL_STATUSES = ("in_flight", "succeeded", "failed", "abandoned", "blocked")

_APPLICATION = (
    label("application_id", "Application that asked; `unknown` where neither the record nor customers.yaml tells."),
    label("application_name", "Its name for people."),
)


def _interactions(provider: CloudProvider) -> Table:
    return Table(
        schema="raw",
        name=f"{provider}_llm_interactions",
        description="One row is one request to a model and its answer, as logged by the cloud or a trace.",
        kind=Kind.KEYED,
        columns=(
            *OWNER,
            label("account_id", "AWS account, GCP project, Azure workspace; empty where the source has none."),
            label("region", "The cloud's own region id, where the source tells.", nullable=True),
            text("interaction_id", "UUIDv5 of customer, source and the source's own id: collected again, the same."),
            text("native_id", "The source's own id, such as Bedrock's requestId or trace id and span id."),
            time("timestamp", "When the request began, or when the source logged it."),
            time("window_start", "Start of the 15-minute window that `timestamp` lies in."),
            *_APPLICATION,
            label("model_name", "Model that answered, as the source names it."),
            label("variant", "Which of several ways to answer, such as an A/B arm; empty where there is one."),
            text("conversation_id", "Conversation or session; null where the source has none.", nullable=True),
            label("operation", "chat, text_completion, generate_content, embeddings, ... (OpenTelemetry)."),
            text("input", "What the user said last.", nullable=True),
            text("output", "What the model answered.", nullable=True),
            text("system", "System instructions.", nullable=True),
            text("context", "Earlier turns, documents and tool results that the answer may rest on.", nullable=True),
            label(
                "content_state",
                "full; redacted: whole, with placeholders for personal data; truncated; missing.",
                allowed=CONTENT_STATES,
            ),
            count("redactions", "Values that placeholders stand for.", "values"),
            label("redactor_version", "Version of the redactor that saw the texts."),
            count("input_tokens", "Tokens of the request, cached ones among them.", "tokens", nullable=True),
            count("output_tokens", "Tokens of the answer, reasoning among them.", "tokens", nullable=True),
            count("cached_tokens", "Tokens of the request that were read from a cache.", "tokens", nullable=True),
            count("reasoning_tokens", "Tokens of the answer spent on reasoning.", "tokens", nullable=True),
            figure("latency_ms", "From the request to the whole answer.", "ms"),
            figure("time_to_first_token_ms", "From the request to the first token.", "ms"),
            label(
                "finish_reason", "Why the model stopped: stop, length, content_filter, tool_calls, ...", nullable=True
            ),
            flag(
                "refused", "The model declined, or a filter did; null where there is no text to tell by.", nullable=True
            ),
            label("error_type", "What went wrong, where the request failed: the source's own code.", nullable=True),
            text("trace_id", "Trace, 32 hexadecimal digits.", nullable=True),
            text("span_id", "Span, 16 hexadecimal digits.", nullable=True),
            figure(
                "sampling_unit",
                "Uniform in [0, 1), by SHA-256 of interaction_id: the lowest of a stratum are judged.",
                nullable=False,
            ),
            json("details", "What else the source told, as a JSON object."),
            label("source", "Service or place that delivered the row, such as bedrock:s3://bucket/prefix."),
            time("collected_at", "When the collection began; of two rows with one key the later one is current."),
        ),
        key=("customer_id", "interaction_id"),
        order_by=("customer_id", "window_start", "application_id", "interaction_id"),
    )


LLM_INTERACTIONS = {provider: _interactions(provider) for provider in CLOUD_PROVIDERS}

APPLICATION_METRICS = Table(
    schema="quality",
    name="application_metrics",
    description="One row is one score of one interaction, by a judge or measured.",
    kind=Kind.KEYED,
    columns=(
        text("score_id", "UUIDv5 of interaction, metric type, metric set and judge fingerprint: one score for each."),
        time("timestamp", "Of the interaction."),
        *OWNER,
        *_APPLICATION,
        label(
            "metric_type",
            "coherence, relevance, accuracy, completeness, quality, hallucination, toxicity, hate_speech, violence, "
            "profanity; measured: latency_ms, time_to_first_token_ms, input_tokens, output_tokens, total_tokens, "
            "tokens_per_second, error, refusal.",
        ),
        figure("score", "0 to 1 for what is judged; measured ones in the unit of their name.", nullable=False),
        json("details", "Level, evidence and reason as the judge gave them."),
        label("model_name", "Model that answered."),
        json("metadata", "Judge model and metric set version."),
        time("collected_at", "When it was scored; of two rows with one key the later one is current."),
        text("interaction_id", "Interaction, as in raw."),
        label("variant", "Variant of the interaction."),
        text("conversation_id", "Conversation of the interaction: scores of one are not independent.", nullable=True),
        label("judge_fingerprint", "Judge, prompt, schema and redactor that made the score; empty for measured ones."),
        text("judge_call_id", "Call in quality.judge_calls; null for measured ones.", nullable=True),
        figure(
            "sampling_probability",
            "How likely the interaction was to be judged: weights are its inverse; 1 for measured ones.",
            nullable=False,
        ),
        flag("flagged", "The text looks like instructions to the judge: counted, and left out of the gate."),
    ),
    key=("customer_id", "score_id"),
    near="timestamp",
    order_by=("customer_id", "application_id", "metric_type", "timestamp", "score_id"),
)

JUDGE_CALLS = Table(
    schema="quality",
    name="judge_calls",
    description="One row is one interaction put before the judge, written before it is sent and settled after.",
    kind=Kind.KEYED,
    columns=(
        text("call_id", "UUIDv5 of interaction, judge fingerprint and the number of the attempt to have it judged."),
        label("customer_id", "Customer."),
        text("interaction_id", "Interaction, as in raw; an anchor's id for what is judged to watch the judge."),
        time("interaction_timestamp", "Of the interaction."),
        label("judge_fingerprint", "Judge, prompt, schema and redactor."),
        label("judge_model", "Model that judges."),
        label("judge_account", "Hash of the judge's address and key: whose limits, money and blocks count."),
        label("status", "How it stands.", allowed=CALL_STATUSES),
        label("error_kind", "truncated, invalid_json, refused, throttled, transient, auth, ...", nullable=True),
        text("error", "What happened and what to do.", nullable=True),
        count("requests", "Requests sent, retries among them.", "requests"),
        count("input_tokens", "Tokens sent, cached ones among them.", "tokens", nullable=True),
        count("cached_tokens", "Tokens sent that the judge had cached.", "tokens", nullable=True),
        count("output_tokens", "Tokens answered, reasoning among them.", "tokens", nullable=True),
        count("reasoning_tokens", "Tokens answered that were reasoning.", "tokens", nullable=True),
        money("cost", "Price of all its requests; of one in flight: what is reserved.", "USD"),
        figure("latency_ms", "Of the last request.", "ms"),
        figure("sampling_probability", "How likely the interaction was to be judged.", nullable=False),
        flag("flagged", "The text looks like instructions to the judge."),
        label("system_fingerprint", "What the provider says of the system behind the model.", nullable=True),
        text("request_id", "The provider's own id of the last request.", nullable=True),
        time("retry_at", "Before this the judge does not want to be asked again.", nullable=True),
        label("run_id", "Dagster run."),
        time("called_at", "When it was written ahead."),
        time("collected_at", "When it was last settled; of two rows with one key the later one is current."),
    ),
    key=("customer_id", "call_id"),
    near="interaction_timestamp",
    order_by=("customer_id", "interaction_timestamp", "interaction_id", "call_id"),
)

JUDGE_CALIBRATIONS = Table(
    schema="quality",
    name="judge_calibrations",
    description="One row is one figure of the judge's errors, measured on labelled data by the calibration command.",
    kind=Kind.KEYED,
    columns=(
        text("calibration_id", "One run of the command."),
        label("judge_fingerprint", "Judge, prompt, schema and redactor."),
        label("judge_model", "Model that judges."),
        label("dataset", "Name of the labelled file."),
        label("metric_type", "Metric that the labels are of, such as hallucination."),
        label("figure", "sensitivity, specificity, self_agreement, order_sensitivity, price_per_1000, failed."),
        figure("value", "Estimate: a share, or USD.", nullable=False),
        figure("lower", "Lower end of the 95 % interval (Wilson); null for a price."),
        figure("upper", "Upper end of it; null for a price."),
        count("n", "Items behind it.", "items"),
        time("collected_at", "When it was measured."),
    ),
    key=("calibration_id", "metric_type", "figure"),
    order_by=("judge_fingerprint", "dataset", "collected_at"),
)

ANCHOR_SCORES = Table(
    schema="quality",
    name="anchor_scores",
    description="One row is one score of one frozen anchor on one UTC day, beside the score that it should have.",
    kind=Kind.KEYED,
    columns=(
        time("day", "UTC day on which it was judged."),
        label("anchor_id", "Anchor, as in llm/anchors.json."),
        label("judge_fingerprint", "Judge, prompt, schema and redactor."),
        label("judge_model", "Model that judges."),
        label("metric_type", "As in quality.application_metrics."),
        figure("score", "Score in [0, 1].", nullable=False),
        figure("expected_score", "Score that the anchor should have.", nullable=False),
        flag("canary", "A bad answer that tells its judge to call it good."),
        label("system_fingerprint", "What the provider says of the system behind the model.", nullable=True),
        time("collected_at", "When it was judged."),
    ),
    key=("day", "anchor_id", "judge_fingerprint", "metric_type"),
    order_by=("judge_fingerprint", "metric_type", "day", "anchor_id"),
)

SCORING_RUNS = Table(
    schema="quality",
    name="scoring_runs",
    description=(
        "One row is how one customer's interactions of one UTC day stand before one judge, as the last run left it: "
        "collected = scored + failed + skipped + waiting."
    ),
    kind=Kind.KEYED,
    columns=(
        label("customer_id", "Customer."),
        time("day", "UTC day of the interactions."),
        label("judge_fingerprint", "Judge, prompt, schema and redactor."),
        label("judge_model", "Model that judges."),
        flag("evaluated", "False: nothing could be judged, for `reason`."),
        label(
            "reason",
            "Why some are waiting: disabled, no_key, budget, limit, blocked, throttled, deadline, ...",
            nullable=True,
        ),
        text("explanation", "The same for people: what happened, and what to do.", nullable=True),
        count("collected", "Interactions of the day.", "interactions"),
        count("scored", "Judged.", "interactions"),
        count("failed", "Not judged after every attempt that is allowed.", "interactions"),
        count("skipped_no_text", "Not judged: a side has no text.", "interactions"),
        count("skipped_truncated", "Not judged: the source cut a text.", "interactions"),
        count("skipped_request_failed", "Not judged: the request failed.", "interactions"),
        count("skipped_operation", "Not judged: no answer in words, such as an embedding.", "interactions"),
        count("skipped_not_sampled", "Not judged: not in the sample.", "interactions"),
        count("waiting", "In the sample and not judged yet.", "interactions"),
        count("flagged", "Judged, and left out of the gate: the text looks like instructions.", "interactions"),
        count("requests", "Requests that this run sent.", "requests"),
        money("cost", "What this run's requests cost.", "USD"),
        label("run_id", "Dagster run."),
        time("collected_at", "When the run ended; of two rows with one key the later one is current."),
    ),
    key=("customer_id", "day", "judge_fingerprint"),
    order_by=("customer_id", "day", "judge_fingerprint"),
)

LLM_TABLES = (
    *LLM_INTERACTIONS.values(),
    APPLICATION_METRICS,
    JUDGE_CALLS,
    SCORING_RUNS,
    JUDGE_CALIBRATIONS,
    ANCHOR_SCORES,
)
