"""Contracts of what is concluded from scores: deployments, baselines, verdicts, monitors, comparisons of variants.

A stream is one application of a customer on one provider; a deployment is a model or variant that is new in its stream.
Ids are UUIDv5 of what a row is about, so that the same data make the same rows.
"""

from optiinfra_pipelines.tables.contract import Column, Kind, Table, Type

OUTCOMES = ("APPROVE", "REJECT", "INCONCLUSIVE")
CAUSES = ("application", "judge", "both", "undetermined")


def _text(name: str, description: str, *, nullable: bool = False, allowed: tuple[str, ...] = ()) -> Column:
    return Column(name, Type.STRING, description, nullable=nullable, allowed=allowed, low_cardinality=True)


def _id(name: str, description: str, *, nullable: bool = False) -> Column:
    return Column(name, Type.STRING, description, nullable=nullable)


def _said(name: str, description: str) -> Column:
    return Column(name, Type.STRING, description, nullable=False)


def _json(name: str, description: str) -> Column:
    return Column(name, Type.JSON, description, nullable=False)


def _count(name: str, description: str, unit: str = "scores", *, nullable: bool = False) -> Column:
    return Column(name, Type.INTEGER, description, nullable=nullable, unit=unit)


def _figure(name: str, description: str, unit: str | None = None, *, nullable: bool = True) -> Column:
    return Column(name, Type.FLOAT, description, nullable=nullable, unit=unit)


def _flag(name: str, description: str) -> Column:
    return Column(name, Type.BOOLEAN, description, nullable=False)


def _time(name: str, description: str, *, nullable: bool = False) -> Column:
    return Column(name, Type.TIMESTAMP, description, nullable=nullable, unit="UTC")


_STREAM = (
    _text("customer_id", "Customer."),
    _text("provider", "Cloud: aws, gcp, azure, vultr."),
    _text("application_id", "Application."),
    _text("application_name", "Its name for people."),
)
_LABEL = (
    *_STREAM,
    _text("model_name", "Model that answered."),
    _text("variant", "Its variant; empty where there is one."),
)
_JUDGE = _text("judge_fingerprint", "Judge that made the scores; empty for measured ones.")
_WRITTEN = _time("collected_at", "When it was written; of two rows with one key the later one is current.")

DEPLOYMENTS = Table(
    schema="quality",
    name="deployments",
    description="One row is one deployment: a model or variant that is new in its stream, seen from the data or told.",
    kind=Kind.KEYED,
    columns=(
        _id("deployment_id", "UUIDv5 of stream, model and variant; of one that was told, of its time also."),
        *_LABEL,
        _time("deployed_at", "When it was first seen to answer, or the time that was told."),
        _text("previous_model", "Model that it is held against; null where there is none.", nullable=True),
        _text("previous_variant", "Variant that it is held against; null where there is none.", nullable=True),
        _flag("told", "Somebody told of it; false: seen from the data."),
        _said("note", "What was said of it, such as a version of the prompt."),
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
        _id("baseline_id", "UUIDv5 of stream, model, variant, metric, judge and frozen_at."),
        *_LABEL,
        _text("metric_type", "As in quality.application_metrics."),
        _JUDGE,
        _time("frozen_at", "Its scores lie before this; it is in force from here on."),
        _time("first_at", "Of the earliest score in it."),
        _said("reason", "Why it was frozen, and whether a new judge made it necessary."),
        _flag("told", "Somebody had it frozen; it is in force whatever came before."),
        _id("baseline_key", "Hash of the scores: equal for equal baselines; states and verdicts name it."),
        _count("n", "Scores in it."),
        _count("n_sessions", "Conversations in it; a score without one counts as one.", "conversations"),
        _figure("mean", "Weighted mean, in units of the score.", nullable=False),
        _figure("spread", "Standard deviation of a score.", nullable=False),
        _figure("error", "Standard error of the mean, conversations as clusters.", nullable=False),
        _figure("icc", "How alike scores of one conversation are, 0 to 1.", nullable=False),
        _figure(
            "window_size", "Mean scores of a 15-minute window that has any: what the monitor expects.", nullable=False
        ),
        _json("baseline", "Scores, weights, conversations by number, strata: what quality.Baseline is made of."),
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
        _id("verdict_id", "UUIDv5 of the deployment and the look."),
        _id("deployment_id", "Deployment, as in quality.deployments."),
        *_LABEL,
        _text("previous_model", "Model that it was held against; null where there was none.", nullable=True),
        _text("previous_variant", "Variant that it was held against; null where there was none.", nullable=True),
        _time("deployed_at", "When the deployment began."),
        _count("look", "Windows since then, this one included.", "windows"),
        _time("looked_at", "End of the look's window: scores before it count."),
        _text("judge_fingerprint", "Judge whose scores were used; empty without any."),
        _text("verdict", "APPROVE, REJECT or INCONCLUSIVE.", allowed=OUTCOMES),
        _said("reason", "Why, for people: a sentence for each metric that decides."),
        _flag("final", "No look follows."),
        _text("metric_type", "Gated metric that decides: the others stand in `metrics`.", nullable=True),
        _count("n", "Scores of it since the deployment."),
        _count("n_sessions", "Conversations of them.", "conversations"),
        _count("baseline_n", "Scores in its baseline; 0 without one."),
        _id("baseline_key", "Its baseline, as in quality.baselines; null without one.", nullable=True),
        _figure("observed", "Weighted mean of the scores."),
        _figure("baseline_mean", "Mean that the baseline expects of the same hours."),
        _figure("estimate", "Change in the bad direction."),
        _figure("lower", "Its lower bound at alpha_reject, over all looks."),
        _figure("upper", "Its upper bound at alpha_approve, over all looks."),
        _figure("margin", "Change that matters."),
        _figure("alpha_spent", "Part of alpha_reject that looks so far can have used."),
        _figure("alpha_reject", "Chance that a metric that did not get worse is ever called REJECT.", nullable=False),
        _figure("alpha_approve", "Chance that one that lost its margin is ever called APPROVE.", nullable=False),
        _count("more_needed", "Scores until a verdict if the estimate stays; null: more do not help.", nullable=True),
        _json("metrics", "The whole verdict with every gated metric (quality.gate.Verdict)."),
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
        _id("state_id", "UUIDv5 of stream, model, variant, metric, judge and day."),
        *_LABEL,
        _text("metric_type", "As in quality.application_metrics."),
        _JUDGE,
        _time("day", "UTC day."),
        _time("seen_until", "Scores before this were seen: the end of the day once it is over."),
        _id("baseline_key", "Baseline, as in quality.baselines; null: there is none yet.", nullable=True),
        _flag("alarm", "The CUSUM is over its threshold and has not come back to 0."),
        _flag("betting_alarm", "The test that assumes nothing but the range of scores agrees."),
        _time("alarm_since", "Window that raised the alarm.", nullable=True),
        _time("change_start", "Estimated start of the change.", nullable=True),
        _count("alarms", "Alarms raised since the baseline was frozen.", "alarms"),
        _figure("height", "The CUSUM; 0 without a baseline.", nullable=False),
        _figure("threshold", "Its height at which an alarm is raised: one false one in 30 days."),
        _figure("observed", "Weighted mean of the day's scores."),
        _figure("baseline_mean", "Mean of the baseline."),
        _figure("margin", "Change that matters."),
        _count("n", "Scores of the day."),
        _text("cause", "Of an alarm, as the anchors tell.", nullable=True, allowed=CAUSES),
        _said("explanation", "How it stands, for people."),
        _count("scores_seen", "Scores since the baseline was frozen: equal, and nothing came late."),
        _time("newest_at", "Newest collected_at of them.", nullable=True),
        _json("state", "The monitor's state, from which the next window goes on."),
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
        _id("comparison_id", "UUIDv5 of stream, both models and variants, metric, judge and day."),
        *_STREAM,
        _text("model_a", "Model of a, which ran first or is called control."),
        _text("variant_a", "Variant a."),
        _text("model_b", "Model of b, the candidate."),
        _text("variant_b", "Variant b."),
        _text("metric_type", "As in quality.application_metrics."),
        _JUDGE,
        _time("day", "UTC day."),
        _time("since", "When both had begun to answer."),
        _time("seen_until", "Scores before this were seen."),
        _flag("paired", "Both answered the same prompts (shadow); false: users were split."),
        _text("verdict", "APPROVE: b is non-inferior; REJECT: b is worse; INCONCLUSIVE.", allowed=OUTCOMES),
        _said("sentence", "The decision for people: what b saves, and whether it is non-inferior."),
        _count("n_a", "Scores of a."),
        _count("n_b", "Scores of b."),
        _count("users_a", "Conversations of a.", "conversations"),
        _count("users_b", "Conversations of b.", "conversations"),
        _figure("quality_a", "Weighted mean of a."),
        _figure("quality_b", "Weighted mean of b."),
        _figure("difference", "b - a, in units of the score."),
        _figure("difference_low", "Lower end of its 95 % interval."),
        _figure("difference_high", "Upper end of it."),
        _figure("p_value", "Of no difference, two-sided."),
        _figure("margin", "Change that matters."),
        _figure("worse", "Change in the bad direction."),
        _figure("lower", "Its lower bound at alpha_reject, over all looks."),
        _figure("upper", "Its upper bound at alpha_approve, over all looks."),
        _text("cost_unit", "USD by the prices of customers.yaml; tokens where a model has none."),
        _figure("cost_a", "Cost of a request of a, in cost_unit."),
        _figure("cost_b", "Cost of a request of b, in cost_unit."),
        _figure("saving", "Share of a's cost that b saves."),
        _figure("saving_low", "Lower end of its 95 % interval."),
        _figure("saving_high", "Upper end of it."),
        _WRITTEN,
    ),
    key=("customer_id", "comparison_id"),
    order_by=("customer_id", "application_id", "metric_type", "day", "comparison_id"),
)

GATE_TABLES = (DEPLOYMENTS, BASELINES, VERDICTS, MONITOR_STATES, COMPARISONS)
