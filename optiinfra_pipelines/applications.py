"""What customers.yaml says of an application: how much of it is judged, when it got worse, and what follows then."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from optiinfra_pipelines.places import Model, Text, web_address
from optiinfra_pipelines.quality.policy import METRICS, Policy
from optiinfra_pipelines.refusals import refuse_keys, variable_name


class RollbackWebhook(Model):
    """Where an application's rollback is asked for: an https address, and the NAME of the environment variable that
    holds the secret which signs the requests."""

    url: Annotated[str, AfterValidator(web_address)]
    secret: Annotated[str, AfterValidator(variable_name)]


class TokenPrice(Model):
    """What a model costs, in USD per million tokens."""

    input: Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
    output: Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]


def _known_margins(margins: Mapping[str, float]) -> Mapping[str, float]:
    refuse_keys([name for name in margins if name not in METRICS], tuple(METRICS), "is no metric with a margin")
    for name, margin in margins.items():
        most = 1.0 if METRICS[name].relative else METRICS[name].high - METRICS[name].low
        if margin >= most:
            raise ValueError(f"{name}: a margin of {margin:g} is all there is to lose; 0.05 means 5 points of 100")
    return margins


class Application(Model):
    """One LLM application of a customer, by the id that its interactions carry, where it differs from the settings.

    Of each 15 minutes, model and variant, `sampling_rate` of its interactions are judged, and at least
    `samples_per_window`; absent: OPTIINFRA_SAMPLING_RATE and OPTIINFRA_SAMPLES_PER_WINDOW.

    `margins` are the changes that matter, by metric, in units of its score (0.05: 5 points; a share for latency_ms): a
    metric named here is gated, the others keep their defaults. A deployment still undecided `deadline_hours` after it
    began is held for a person or rejected, as `at_deadline` says. A REJECT is told to `rollback_webhook`. `prices`,
    by model, make the costs of variants that are compared.
    """

    id: Text
    name: Text | None = None
    sampling_rate: Annotated[Decimal, Field(ge=0, le=1)] | None = None
    samples_per_window: Annotated[int, Field(ge=0)] | None = None
    margins: Annotated[
        Mapping[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]], AfterValidator(_known_margins)
    ] = Field(default_factory=dict)
    deadline_hours: Annotated[int, Field(ge=1, le=24 * 90)] = 24
    at_deadline: Literal["hold", "reject"] = "hold"
    rollback_webhook: RollbackWebhook | None = None
    prices: Mapping[str, TokenPrice] = Field(default_factory=dict)

    @property
    def policy(self) -> Policy:
        """How sure verdicts on it must be, and of how much."""
        gated = Policy(deadline_looks=4 * self.deadline_hours, at_deadline=self.at_deadline)
        return gated.with_margins(self.margins)
