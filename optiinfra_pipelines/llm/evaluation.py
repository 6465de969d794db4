"""Evaluating one customer's day from the settings on: whether there is a judge that may be asked, what it has cost so
far, and if not, why nothing is evaluated. No score is ever made up for what was not judged."""

from datetime import datetime, timedelta
from decimal import Decimal

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.customers import Customer
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.llm.interaction import Texts
from optiinfra_pipelines.llm.judge import Judge, fingerprint_of
from optiinfra_pipelines.llm.limits import Limits, Spent
from optiinfra_pipelines.llm.redaction import open_redactor
from optiinfra_pipelines.llm.scoring import Evaluation, evaluate_day, judge_account, record_standing
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.tables.llm import JUDGE_CALLS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import Window, floor_day

RUN_SECONDS = 300.0  # that one run may ask the judge for; embedded, collecting waits for it
PROBE = timedelta(hours=1)  # after which a judge that is blocked is asked once more


def evaluate(warehouse: Warehouse, settings: Settings, customer: Customer, day: Window, now: datetime) -> Evaluation:
    """Have judged what is waiting of the customer's UTC day, where there is a judge and money for it; say how the day
    stands in any case. Raises WarehouseError alone: whatever keeps the judge from judging is a result."""
    version = ""
    try:
        version = open_redactor(settings, customer.redact).version
        kept = hindrance(warehouse, settings, now)
        if kept is None:
            limits = open_limits(warehouse, settings, now)
            with Judge(settings, limits, version) as judge:
                spent = limits.exhausted(*judge.reserved(Texts()))
                if spent is None:
                    return evaluate_day(warehouse, settings, customer, judge, day, now, RUN_SECONDS)
                kept = (spent.kind, f"not evaluated: {spent}")
    except CollectionError as error:
        kept = (error.kind, str(error))
    fingerprint = fingerprint_of(settings, version)
    result = Evaluation(evaluated=False, reason=kept[0], explanation=kept[1])
    record_standing(warehouse, settings, customer, fingerprint, settings.groq_model, day, result)
    return result


def open_limits(warehouse: Warehouse, settings: Settings, now: datetime) -> Limits:
    """The limits of the settings, less what was used of them on this UTC day, by whatever run: money by all accounts,
    requests and tokens by this one."""
    [row] = warehouse.query(
        "SELECT sum(cost) AS usd, sum(CASE WHEN judge_account = $account THEN requests ELSE 0 END) AS requests,"
        " sum(CASE WHEN judge_account = $account THEN coalesce(input_tokens, 0) - coalesce(cached_tokens, 0)"
        " + coalesce(output_tokens, 0) ELSE 0 END) AS tokens"
        f" FROM {warehouse.current(JUDGE_CALLS)} c WHERE called_at >= $day",
        {"account": judge_account(settings), "day": naive_utc(floor_day(now))},
    ).to_pylist()
    spent = Spent(int(row["requests"] or 0), int(row["tokens"] or 0), row["usd"] or Decimal(0))
    return Limits(
        requests_per_minute=settings.llm_requests_per_minute,
        tokens_per_minute=settings.llm_tokens_per_minute,
        requests_per_day=settings.llm_requests_per_day,
        tokens_per_day=settings.llm_tokens_per_day,
        usd_per_day=settings.llm_budget_usd_per_day,
        usd_per_run=settings.llm_budget_usd_per_run,
        spent=spent,
    )


def hindrance(warehouse: Warehouse, settings: Settings, now: datetime) -> tuple[str, str] | None:
    """Why the judge may not be asked now: (reason, explanation); None where it may."""
    if not settings.llm_enabled:
        return "disabled", "not evaluated: LLM_ENABLED is false"
    if not settings.groq_api_key.get_secret_value():
        return "no_key", "not evaluated: GROQ_API_KEY is not set; set it, or add it to .env"
    of_judge = "judge_account = $account AND judge_model = $model"
    params = {"account": judge_account(settings), "model": settings.groq_model}
    waits = warehouse.query(
        f"SELECT error_kind, error, retry_at FROM {warehouse.current(JUDGE_CALLS)} c WHERE {of_judge}"
        " AND retry_at > $now AND error_kind <> 'budget' ORDER BY retry_at DESC LIMIT 1",
        {**params, "now": naive_utc(now)},
    ).to_pylist()
    for row in waits:
        return row["error_kind"], f"not evaluated before {row['retry_at']:%Y-%m-%d %H:%M} UTC: {row['error']}"
    blocks = warehouse.query(
        f"SELECT error_kind, error FROM {warehouse.current(JUDGE_CALLS)} c WHERE {of_judge}"
        " AND status = 'blocked' AND collected_at > $probe ORDER BY collected_at DESC LIMIT 1",
        {**params, "probe": naive_utc(now - PROBE)},
    ).to_pylist()
    for row in blocks:
        return row["error_kind"], f"not evaluated: {row['error']}; it is asked again within the hour"
    return None
