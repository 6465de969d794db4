"""Contracts of what LLM applications said and what it was worth: interactions, scores, calls of the judge, its errors.

Interactions stand in one raw table per provider; scores of all of them in one long table. Verdicts drawn from scores
are contracts of their own.
"""

from optiinfra_pipelines.tables.cloud import CLOUD_PROVIDERS, OWNER, CloudProvider
from optiinfra_pipelines.tables.contract import Column, Kind, Table, Type

CONTENT_STATES = ("full", "redacted", "truncated", "missing")
CALL_STATUSES = ("in_flight", "succeeded", "failed", "abandoned", "blocked")


def _text(name: str, description: str, *, nullable: bool = False, allowed: tuple[str, ...] = ()) -> Column:
    return Column(name, Type.STRING, description, nullable=nullable, allowed=allowed, low_cardinality=True)


def _body(name: str, description: str) -> Column:
    return Column(name, Type.STRING, description)


def _id(name: str, description: str, *, nullable: bool = False) -> Column:
    return Column(name, Type.STRING, description, nullable=nullable)


def _count(name: str, description: str, unit: str = "tokens", *, nullable: bool = True) -> Column:
    return Column(name, Type.INTEGER, description, nullable=nullable, unit=unit)


def _time(name: str, description: str, *, nullable: bool = False) -> Column:
    return Column(name, Type.TIMESTAMP, description, nullable=nullable, unit="UTC")


_APPLICATION = (
    _text("application_id", "Application that asked; `unknown` where neither the record nor customers.yaml tells."),
    _text("application_name", "Its name for people."),
)


def _interactions(provider: CloudProvider) -> Table:
    return Table(
        schema="raw",
        name=f"{provider}_llm_interactions",
        description="One row is one request to a model and its answer, as logged by the cloud or a trace.",
        kind=Kind.KEYED,
        columns=(
            *OWNER,
            _text("account_id", "AWS account, GCP project, Azure workspace; empty where the source has none."),
            _text("region", "The cloud's own region id, where the source tells.", nullable=True),
            _id("interaction_id", "UUIDv5 of customer, source and the source's own id: collected again, the same."),
            _id("native_id", "The source's own id, such as Bedrock's requestId or trace id and span id."),
            _time("timestamp", "When the request began, or when the source logged it."),
            _time("window_start", "Start of the 15-minute window that `timestamp` lies in."),
            *_APPLICATION,
            _text("model_name", "Model that answered, as the source names it."),
            _text("variant", "Which of several ways to answer, such as an A/B arm; empty where there is one."),
            _id("conversation_id", "Conversation or session; null where the source has none.", nullable=True),
            _text("operation", "chat, text_completion, generate_content, embeddings, ... (OpenTelemetry)."),
            _body("input", "What the user said last."),
            _body("output", "What the model answered."),
            _body("system", "System instructions."),
            _body("context", "Earlier turns, documents and tool results that the answer may rest on."),
            _text(
                "content_state",
                "full; redacted: whole, with placeholders for personal data; truncated; missing.",
                allowed=CONTENT_STATES,
            ),
            _count("redactions", "Values that placeholders stand for.", "values", nullable=False),
            _text("redactor_version", "Version of the redactor that saw the texts."),
            _count("input_tokens", "Tokens of the request, cached ones among them."),
            _count("output_tokens", "Tokens of the answer, reasoning among them."),
            _count("cached_tokens", "Tokens of the request that were read from a cache."),
            _count("reasoning_tokens", "Tokens of the answer spent on reasoning."),
            Column("latency_ms", Type.FLOAT, "From the request to the whole answer.", unit="ms"),
            Column("time_to_first_token_ms", Type.FLOAT, "From the request to the first token.", unit="ms"),
            _text(
                "finish_reason", "Why the model stopped: stop, length, content_filter, tool_calls, ...", nullable=True
            ),
            Column(
                "refused", Type.BOOLEAN, "The model declined, or a filter did; null where there is no text to tell by."
            ),
            _text("error_type", "What went wrong, where the request failed: the source's own code.", nullable=True),
            _id("trace_id", "Trace, 32 hexadecimal digits.", nullable=True),
            _id("span_id", "Span, 16 hexadecimal digits.", nullable=True),
            Column(
                "sampling_unit",
                Type.FLOAT,
                "Uniform in [0, 1), by SHA-256 of interaction_id: the lowest of a stratum are judged.",
                nullable=False,
            ),
            Column("details", Type.JSON, "What else the source told, as a JSON object.", nullable=False),
            _text("source", "Service or place that delivered the row, such as bedrock:s3://bucket/prefix."),
            _time("collected_at", "When the collection began; of two rows with one key the later one is current."),
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
        _id("score_id", "UUIDv5 of interaction, metric type, metric set and judge fingerprint: one score for each."),
        _time("timestamp", "Of the interaction."),
        *OWNER,
        *_APPLICATION,
        _text(
            "metric_type",
            "coherence, relevance, accuracy, completeness, quality, hallucination, toxicity, hate_speech, violence, "
            "profanity; measured: latency_ms, time_to_first_token_ms, input_tokens, output_tokens, total_tokens, "
            "tokens_per_second, error, refusal.",
        ),
        Column(
            "score", Type.FLOAT, "0 to 1 for what is judged; measured ones in the unit of their name.", nullable=False
        ),
        Column("details", Type.JSON, "Level, evidence and reason as the judge gave them.", nullable=False),
        _text("model_name", "Model that answered."),
        Column("metadata", Type.JSON, "Judge model and metric set version.", nullable=False),
        _time("collected_at", "When it was scored; of two rows with one key the later one is current."),
        _id("interaction_id", "Interaction, as in raw."),
        _text("variant", "Variant of the interaction."),
        _id("conversation_id", "Conversation of the interaction: scores of one are not independent.", nullable=True),
        _text("judge_fingerprint", "Judge, prompt, schema and redactor that made the score; empty for measured ones."),
        _id("judge_call_id", "Call in quality.judge_calls; null for measured ones.", nullable=True),
        Column(
            "sampling_probability",
            Type.FLOAT,
            "How likely the interaction was to be judged: weights are its inverse; 1 for measured ones.",
            nullable=False,
        ),
        Column(
            "flagged",
            Type.BOOLEAN,
            "The text looks like instructions to the judge: counted, and left out of the gate.",
            nullable=False,
        ),
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
        _id("call_id", "UUIDv5 of interaction, judge fingerprint and the number of the attempt to have it judged."),
        _text("customer_id", "Customer."),
        _id("interaction_id", "Interaction, as in raw; an anchor's id for what is judged to watch the judge."),
        _time("interaction_timestamp", "Of the interaction."),
        _text("judge_fingerprint", "Judge, prompt, schema and redactor."),
        _text("judge_model", "Model that judges."),
        _text("judge_account", "Hash of the judge's address and key: whose limits, money and blocks count."),
        _text("status", "How it stands.", allowed=CALL_STATUSES),
        _text("error_kind", "truncated, invalid_json, refused, throttled, transient, auth, ...", nullable=True),
        Column("error", Type.STRING, "What happened and what to do."),
        _count("requests", "Requests sent, retries among them.", "requests", nullable=False),
        _count("input_tokens", "Tokens sent, cached ones among them."),
        _count("cached_tokens", "Tokens sent that the judge had cached."),
        _count("output_tokens", "Tokens answered, reasoning among them."),
        _count("reasoning_tokens", "Tokens answered that were reasoning."),
        Column(
            "cost",
            Type.MONEY,
            "Price of all its requests; of one in flight: what is reserved.",
            nullable=False,
            unit="USD",
        ),
        Column("latency_ms", Type.FLOAT, "Of the last request.", unit="ms"),
        Column("sampling_probability", Type.FLOAT, "How likely the interaction was to be judged.", nullable=False),
        Column("flagged", Type.BOOLEAN, "The text looks like instructions to the judge.", nullable=False),
        _text("system_fingerprint", "What the provider says of the system behind the model.", nullable=True),
        _id("request_id", "The provider's own id of the last request.", nullable=True),
        _time("retry_at", "Before this the judge does not want to be asked again.", nullable=True),
        _text("run_id", "Dagster run."),
        _time("called_at", "When it was written ahead."),
        _time("collected_at", "When it was last settled; of two rows with one key the later one is current."),
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
        _id("calibration_id", "One run of the command."),
        _text("judge_fingerprint", "Judge, prompt, schema and redactor."),
        _text("judge_model", "Model that judges."),
        _text("dataset", "Name of the labelled file."),
        _text("metric_type", "Metric that the labels are of, such as hallucination."),
        _text("figure", "sensitivity, specificity, self_agreement, order_sensitivity, price_per_1000, failed."),
        Column("value", Type.FLOAT, "Estimate: a share, or USD.", nullable=False),
        Column("lower", Type.FLOAT, "Lower end of the 95 % interval (Wilson); null for a price."),
        Column("upper", Type.FLOAT, "Upper end of it; null for a price."),
        _count("n", "Items behind it.", "items", nullable=False),
        _time("collected_at", "When it was measured."),
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
        _time("day", "UTC day on which it was judged."),
        _text("anchor_id", "Anchor, as in llm/anchors.json."),
        _text("judge_fingerprint", "Judge, prompt, schema and redactor."),
        _text("judge_model", "Model that judges."),
        _text("metric_type", "As in quality.application_metrics."),
        Column("score", Type.FLOAT, "Score in [0, 1].", nullable=False),
        Column("expected_score", Type.FLOAT, "Score that the anchor should have.", nullable=False),
        Column("canary", Type.BOOLEAN, "A bad answer that tells its judge to call it good.", nullable=False),
        _text("system_fingerprint", "What the provider says of the system behind the model.", nullable=True),
        _time("collected_at", "When it was judged."),
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
        _text("customer_id", "Customer."),
        _time("day", "UTC day of the interactions."),
        _text("judge_fingerprint", "Judge, prompt, schema and redactor."),
        _text("judge_model", "Model that judges."),
        Column("evaluated", Type.BOOLEAN, "False: nothing could be judged, for `reason`.", nullable=False),
        _text(
            "reason",
            "Why some are waiting: disabled, no_key, budget, limit, blocked, throttled, deadline, ...",
            nullable=True,
        ),
        Column("explanation", Type.STRING, "The same for people: what happened, and what to do."),
        _count("collected", "Interactions of the day.", "interactions", nullable=False),
        _count("scored", "Judged.", "interactions", nullable=False),
        _count("failed", "Not judged after every attempt that is allowed.", "interactions", nullable=False),
        _count("skipped_no_text", "Not judged: a side has no text.", "interactions", nullable=False),
        _count("skipped_truncated", "Not judged: the source cut a text.", "interactions", nullable=False),
        _count("skipped_request_failed", "Not judged: the request failed.", "interactions", nullable=False),
        _count(
            "skipped_operation", "Not judged: no answer in words, such as an embedding.", "interactions", nullable=False
        ),
        _count("skipped_not_sampled", "Not judged: not in the sample.", "interactions", nullable=False),
        _count("waiting", "In the sample and not judged yet.", "interactions", nullable=False),
        _count(
            "flagged",
            "Judged, and left out of the gate: the text looks like instructions.",
            "interactions",
            nullable=False,
        ),
        _count("requests", "Requests that this run sent.", "requests", nullable=False),
        Column("cost", Type.MONEY, "What this run's requests cost.", nullable=False, unit="USD"),
        _text("run_id", "Dagster run."),
        _time("collected_at", "When the run ended; of two rows with one key the later one is current."),
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
