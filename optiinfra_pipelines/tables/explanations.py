"""Contract of what is said of rejected deployments to people. Writing them is in `gate/explanations.py`."""

from optiinfra_pipelines.tables.columns import json, label, money, text, time
from optiinfra_pipelines.tables.contract import Kind, Table

EXPLANATIONS = Table(
    schema="quality",
    name="explanations",
    description="One row is what one rejecting verdict says to people: a text that states no figure but the verdict's.",
    kind=Kind.KEYED,
    columns=(
        text("verdict_id", "Verdict, as in quality.verdicts."),
        label("customer_id", "Customer."),
        label("application_id", "Application."),
        text("deployment_id", "Deployment that was rejected."),
        text("text", "The explanation."),
        label("written_by", "Model that wrote it, or template: no model could, or it stated what was not measured."),
        json("objections", "Why a model's text was not used, as a list."),
        money("cost", "What asking the model cost.", "USD"),
        time("collected_at", "When it was written."),
    ),
    key=("customer_id", "verdict_id"),
    order_by=("customer_id", "application_id", "verdict_id"),
)
