"""Contracts of what is concluded from scores: deployments, baselines, verdicts, monitors, comparisons of variants.

A stream is one application of a customer on one provider; a deployment is a model or variant that is new in its stream.
Ids are UUIDv5 of what a row is about, so that the same data make the same rows.
"""

from optiinfra_pipelines.tables.columns import count, figure, flag, json, label, text, time
from optiinfra_pipelines.tables.contract import Kind, Table
from optiinfra_pipelines.tables.explanations import EXPLANATIONS
from optiinfra_pipelines.tables.rollbacks import ROLLBACK_REQUESTS

OUTCOMES = ("APPROVE", "REJECT", "INCONCLUSIVE")
CAUSES = ("application", "judge", "both", "undetermined")

_STREAM = (
    label("customer_id", "Customer."),
    label("provider", "Cloud: aws, gcp, azure, vultr."),
    label("application_id", "Application."),
    label("application_name", "Its name for people."),
)
_LABEL = (
    *_STREAM,
    label("model_name", "Model that answered."),
    label("variant", "Its variant; empty where there is one."),
)
_JUDGE = label("judge_fingerprint", "Judge that made the scores; empty for measured ones.")
_WRITTEN = time("collected_at", "When it was written; of two rows with one key the later one is current.")

DEPLOYMENTS = Table(
    schema="quality",
    name="deployments",
    description="One row is one deployment: a model or variant that is new in its stream, seen from the data or told.",
    kind=Kind.KEYED,
    columns=(
        text("deployment_id", "UUIDv5 of stream, model and variant; of one that was told, of its time also."),
        *_LABEL,
        time("deployed_at", "When it was first seen to answer, or the time that was told."),
        label("previous_model", "Model that it is held against; null where there is none.", nullable=True),
        label("previous_variant", "Variant that it is held against; null where there is none.", nullable=True),
        flag("told", "Somebody told of it; false: seen from the data."),
        text("note", "What was said of it, such as a version of the prompt."),
        _WRITTEN,
    ),
    key=("customer_id", "deployment_id"),
    order_by=("customer_id", "application_id", "deployed_at", "deployment_id"),
)

BASELINES = Table(
    schema="quality",
    name="baselines",
    description=(
        "One row is one frozen set of scores of one metric; the history is kept. Of one model, variant, metric and "
        "judge the newest row is the one in force."
    ),
    kind=Kind.KEYED,
    columns=(
        text("baseline_id", "UUIDv5 of stream, model, variant, metric, judge and frozen_at."),
        *_LABEL,
        label("metric_type", "As in quality.application_metrics."),
        _JUDGE,
        time("frozen_at", "Its scores lie before this; it is in force from here on."),
        time("first_at", "Of the earliest score in it."),
        text("reason", "Why it was frozen, and whether a new judge made it necessary."),
        flag("told", "Somebody had it frozen; it is in force whatever came before."),
        text("baseline_key", "Hash of the scores: equal for equal baselines; states and verdicts name it."),
        count("n", "Scores in it.", "scores"),
        count("n_sessions", "Conversations in it; a score without one counts as one.", "conversations"),
        figure("mean", "Weighted mean, in units of the score.", nullable=False),
        figure("spread", "Standard deviation of a score.", nullable=False),
        figure("error", "Standard error of the mean, conversations as clusters.", nullable=False),
        figure("icc", "How alike scores of one conversation are, 0 to 1.", nullable=False),
        figure(
            "window_size", "Mean scores of a 15-minute window that has any: what the monitor expects.", nullable=False
        ),
        json("baseline", "Scores, weights, conversations by number, strata: what quality.Baseline is made of."),
        _WRITTEN,
    ),
    key=("customer_id", "baseline_id"),
    order_by=("customer_id", "application_id", "metric_type", "frozen_at", "baseline_id"),
)

VERDICTS = Table(
    schema="quality",
    name="verdicts",
    description=(
        "One row is one look at one deployment: the verdict from all scores since it began. A look follows each 15 "
        "minutes with new scores, until the verdict is final."
    ),
    kind=Kind.KEYED,
    columns=(
        text("verdict_id", "UUIDv5 of the deployment and looked_at."),
        text("deployment_id", "Deployment, as in quality.deployments."),
        *_LABEL,
        label("previous_model", "Model that it was held against; null where there was none.", nullable=True),
        label("previous_variant", "Variant that it was held against; null where there was none.", nullable=True),
        time("deployed_at", "When the deployment began."),
        count("look", "Windows since then, this one included.", "windows"),
        time("looked_at", "End of the look's window: scores before it count."),
        label("judge_fingerprint", "Judge whose scores were used; empty without any."),
        label("verdict", "APPROVE, REJECT or INCONCLUSIVE.", allowed=OUTCOMES),
        text("reason", "Why, for people: a sentence for each metric that decides."),
        flag("final", "No look follows."),
        label("metric_type", "Gated metric that decides: the others stand in `metrics`.", nullable=True),
        count("n", "Scores of it since the deployment.", "scores"),
        count("n_sessions", "Conversations of them.", "conversations"),
        count("baseline_n", "Scores in its baseline; 0 without one.", "scores"),
        text("baseline_key", "Its baseline, as in quality.baselines; null without one.", nullable=True),
        figure("observed", "Weighted mean of the scores."),
        figure("baseline_mean", "Mean that the baseline expects of the same hours."),
        figure("estimate", "Change in the bad direction."),
        figure("lower", "Its lower bound at alpha_reject, over all looks."),
        figure("upper", "Its upper bound at alpha_approve, over all looks."),
        figure("margin", "Change that matters."),
        figure("alpha_spent", "Part of alpha_reject that looks so far can have used."),
        figure("alpha_reject", "Chance that a metric that did not get worse is ever called REJECT.", nullable=False),
        figure("alpha_approve", "Chance that one that lost its margin is ever called APPROVE.", nullable=False),
        count(
            "more_needed",
            "Scores until a verdict if the estimate stays; null: more do not help.",
            "scores",
            nullable=True,
        ),
        json("metrics", "The whole verdict with every gated metric (quality.gate.Verdict)."),
        _WRITTEN,
    ),
    key=("customer_id", "verdict_id"),
    order_by=("customer_id", "application_id", "deployed_at", "look", "verdict_id"),
)

MONITOR_STATES = Table(
    schema="quality",
    name="monitor_states",
    description="One row is how the monitor of one metric stands at the end of one UTC day, or as far as the day went.",
    kind=Kind.KEYED,
    columns=(
        text("state_id", "UUIDv5 of stream, model, variant, metric, judge and day."),
        *_LABEL,
        label("metric_type", "As in quality.application_metrics."),
        _JUDGE,
        time("day", "UTC day."),
        time("seen_until", "Scores before this were seen: the end of the day once it is over."),
        text("baseline_key", "Baseline, as in quality.baselines; null: there is none yet.", nullable=True),
        flag("alarm", "The CUSUM is over its threshold and has not come back to 0."),
        flag("betting_alarm", "The test that assumes nothing but the range of scores agrees."),
        time("alarm_since", "Window that raised the alarm.", nullable=True),
        time("change_start", "Estimated start of the change.", nullable=True),
        count("alarms", "Alarms raised since the baseline was frozen.", "alarms"),
        figure("height", "The CUSUM; 0 without a baseline.", nullable=False),
        figure("threshold", "Its height at which an alarm is raised: one false one in 30 days."),
        figure("observed", "Weighted mean of the day's scores."),
        figure("baseline_mean", "Mean of the baseline."),
        figure("margin", "Change that matters."),
        count("n", "Scores of the day.", "scores"),
        label("cause", "Of an alarm, as the anchors tell.", nullable=True, allowed=CAUSES),
        text("explanation", "How it stands, for people."),
        count("scores_seen", "Scores since the baseline was frozen: equal, and nothing came late.", "scores"),
        time("newest_at", "Newest collected_at of them.", nullable=True),
        json("state", "The monitor's state, from which the next window goes on."),
        _WRITTEN,
    ),
    key=("customer_id", "state_id"),
    order_by=("customer_id", "application_id", "metric_type", "day", "state_id"),
)

COMPARISONS = Table(
    schema="quality",
    name="comparisons",
    description=(
        "One row is two variants of an application side by side by one metric, from all scores of the time in which "
        "both answered to the end of one UTC day: quality and cost per request."
    ),
    kind=Kind.KEYED,
    columns=(
        text("comparison_id", "UUIDv5 of stream, both models and variants, metric, judge and day."),
        *_STREAM,
        label("model_a", "Model of a, which ran first or is called control."),
        label("variant_a", "Variant a."),
        label("model_b", "Model of b, the candidate."),
        label("variant_b", "Variant b."),
        label("metric_type", "As in quality.application_metrics."),
        _JUDGE,
        time("day", "UTC day."),
        time("since", "When both had begun to answer."),
        time("seen_until", "Scores before this were seen."),
        flag("paired", "Both answered the same prompts (shadow); false: users were split."),
        label("verdict", "APPROVE: b is non-inferior; REJECT: b is worse; INCONCLUSIVE.", allowed=OUTCOMES),
        text("sentence", "The decision for people: what b saves, and whether it is non-inferior."),
        count("n_a", "Scores of a.", "scores"),
        count("n_b", "Scores of b.", "scores"),
        count("users_a", "Conversations of a.", "conversations"),
        count("users_b", "Conversations of b.", "conversations"),
        figure("quality_a", "Weighted mean of a."),
        figure("quality_b", "Weighted mean of b."),
        figure("difference", "b - a, in units of the score."),
        figure("difference_low", "Lower end of its 95 % interval."),
        figure("difference_high", "Upper end of it."),
        figure("p_value", "Of no difference, two-sided."),
        figure("margin", "Change that matters."),
        figure("worse", "Change in the bad direction."),
        figure("lower", "Its lower bound at alpha_reject, over all looks."),
        figure("upper", "Its upper bound at alpha_approve, over all looks."),
        label("cost_unit", "USD by the prices of customers.yaml; tokens where a model has none."),
        figure("cost_a", "Cost of a request of a, in cost_unit."),
        figure("cost_b", "Cost of a request of b, in cost_unit."),
        figure("saving", "Share of a's cost that b saves."),
        figure("saving_low", "Lower end of its 95 % interval."),
        figure("saving_high", "Upper end of it."),
        _WRITTEN,
    ),
    key=("customer_id", "comparison_id"),
    order_by=("customer_id", "application_id", "metric_type", "day", "comparison_id"),
)

GATE_TABLES = (DEPLOYMENTS, BASELINES, VERDICTS, MONITOR_STATES, COMPARISONS, ROLLBACK_REQUESTS, EXPLANATIONS)
