"""Evaluating one customer's day from the settings on: whether there is a judge that may be asked, what it has cost so
far, and if not, why nothing is evaluated. No score is ever made up for what was not judged."""

from datetime import datetime, timedelta
from decimal import Decimal

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.customers import Customer
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.llm.judge import Judge, fingerprint_of
from optiinfra_pipelines.llm.limits import Limits, Spent
from optiinfra_pipelines.llm.redaction import open_redactor
from optiinfra_pipelines.llm.scoring import Evaluation, evaluate_day, judge_account, record_standing
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.tables.llm import JUDGE_CALLS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines.windows import Window, floor_day

RUN_SECONDS = 600.0  # that one run may ask the judge for: less than the quarter of an hour until the next one
PROBE = timedelta(hours=1)  # after which a judge that is blocked is asked once more


def evaluate(warehouse: Warehouse, settings: Settings, customer: Customer, day: Window, now: datetime) -> Evaluation:
    """Have judged what is waiting of the customer's UTC day, where there is a judge and money for it; say how the day
    stands in any case. Raises WarehouseError alone: whatever keeps the judge from judging is a result."""
    version = open_redactor(settings, customer).version
    fingerprint = fingerprint_of(settings, version)
    kept = hindrance(warehouse, settings, now)
    if kept is None:
        try:
            limits = open_limits(warehouse, settings, now)
            with Judge(settings, limits, version) as judge:
                return evaluate_day(warehouse, settings, customer, judge, day, now, RUN_SECONDS)
        except CollectionError as error:
            kept = (error.kind, str(error))
    result = Evaluation(evaluated=False, reason=kept[0], explanation=kept[1])
    record_standing(warehouse, settings, customer, fingerprint, settings.groq_model, day, result)
    return result


def open_limits(warehouse: Warehouse, settings: Settings, now: datetime) -> Limits:
    """The limits of the settings, less what the judge's account has used of them on this UTC day, by whatever run."""
    [row] = warehouse.query(
        "SELECT sum(requests) AS requests, sum(cost) AS usd,"
        " sum(coalesce(input_tokens, 0) - coalesce(cached_tokens, 0) + coalesce(output_tokens, 0)) AS tokens"
        f" FROM {warehouse.current(JUDGE_CALLS)} c WHERE judge_account = $account AND called_at >= $day",
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
    rows = warehouse.query(
        f"SELECT status, error_kind, error, retry_at, collected_at FROM {warehouse.current(JUDGE_CALLS)} c"
        " WHERE judge_account = $account AND judge_model = $model AND collected_at >= $since"
        " AND (status = 'blocked' OR (retry_at > $now AND error_kind <> 'budget')) ORDER BY collected_at DESC LIMIT 1",
        {
            "account": judge_account(settings),
            "model": settings.groq_model,
            "since": naive_utc(now - timedelta(days=2)),
            "now": naive_utc(now),
        },
    ).to_pylist()
    for row in rows:
        if row["retry_at"] is not None and row["retry_at"] > now:
            return row["error_kind"], f"not evaluated before {row['retry_at']:%Y-%m-%d %H:%M} UTC: {row['error']}"
        if row["status"] == "blocked" and row["collected_at"] > now - PROBE:
            return row["error_kind"], f"not evaluated: {row['error']}; it is asked again within the hour"
    return _spent_out(warehouse, settings, now)


def _spent_out(warehouse: Warehouse, settings: Settings, now: datetime) -> tuple[str, str] | None:
    """The hindrance that one more call, as dear as the dearest one, would exceed the day's budget as it is now."""
    [row] = warehouse.query(
        f"SELECT sum(cost) AS spent, max(cost) AS dearest FROM {warehouse.current(JUDGE_CALLS)} c"
        " WHERE judge_account = $account AND called_at >= $day",
        {"account": judge_account(settings), "day": naive_utc(floor_day(now))},
    ).to_pylist()
    spent, budget = row["spent"] or Decimal(0), settings.llm_budget_usd_per_day
    if spent + (row["dearest"] or Decimal(0)) <= budget:
        return None
    return "budget", (
        f"not evaluated: the day's budget of {budget} USD is spent ({spent:f} USD); "
        "it goes on tomorrow, or raise LLM_BUDGET_USD_PER_DAY"
    )
