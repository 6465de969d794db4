"""Interactions before the judge: how near to the ideal time, in how much memory, at how much CPU of the product's own.

The interactions are made of the sandbox's conversations, about 1,500 characters each, every tenth with personal data.
The judge is the sandbox's server; for the CPU figure it answers within the process, and what that takes is taken off.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from decimal import Decimal
from random import Random
from threading import Lock
from time import perf_counter, process_time, thread_time

import pyarrow as pa

from optiinfra_pipelines.customers import Connection, Customer
from optiinfra_pipelines.llm import rubric
from optiinfra_pipelines.llm.evaluation import RUN_SECONDS, evaluate
from optiinfra_pipelines.llm.interaction import Interaction, Message, Texts, conversation
from optiinfra_pipelines.llm.judge import Judge, Outcome, fingerprint_of
from optiinfra_pipelines.llm.limits import Limits
from optiinfra_pipelines.llm.redaction import Redactor
from optiinfra_pipelines.llm.scoring import evaluate_day
from optiinfra_pipelines.sandbox.groq_server import environment, serve_groq
from optiinfra_pipelines.sandbox.interaction_texts import SCRIPTS, answer, documents, personal, question
from optiinfra_pipelines.sandbox.interactions import scores_of
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.windows import DAY, Window
from optiinfra_pipelines_tests.benchmarks.bench import Bench
from optiinfra_pipelines_tests.benchmarks.child import TaskFailed, run_apart
from optiinfra_pipelines_tests.benchmarks.figures import Benchmark, Pair, typical
from optiinfra_pipelines_tests.benchmarks.warehouses import empty_warehouse, warehouse_at
from optiinfra_pipelines_tests.llm.interactions import THE_DAY, interaction, write

IN_FLIGHT, LATENCY = 32, 0.4
NOW = THE_DAY.end + timedelta(minutes=5)
ACME = Customer(
    id="acme",
    name="Acme",
    connections=(Connection.model_validate({"id": "vultr-main", "provider": "vultr", "collect": ["inventory"]}),),
)
INTERACTIONS, REMEMBERED, WAITING = 10_000, 1_000_000, 500
_AT_ONCE = 2_000  # interactions made and written at a time
_ANSWER = json.dumps(
    {
        "reasoning": "The answer names each step in order and rests on the documents; one lesser point is missing.",
        **{metric: levels[-2 if metric in rubric.QUALITY else 0] for metric, levels in rubric.LEVELS.items()},
        "evidence": "",
        "instructions_to_judge": "no",
    }
)


def spoken(number: int, of: int, day: Window = THE_DAY) -> Interaction:
    """The `number`-th of so many interactions that are spread evenly over the day."""
    random = Random(number)
    application, script = random.choice(list(SCRIPTS.items()))
    turns = []
    for turn in range(3):
        topic = random.choice(script.topics)
        case = f"[{random.randrange(16**8):08x}]"
        turns += [
            Message("user", question(topic, random, turn)),
            Message("assistant", answer(script, topic, scores_of(case[1:-1]), case, random).replace(f" {case}", "")),
        ]
    last = turns.pop()
    if number % 10 == 0:
        turns[-1] = Message("user", f"{turns[-1].text} {personal(random)[2]}")
    found = conversation(
        [Message("system", script.system), Message("tool", documents(topic, random)), *turns], last.text
    )
    return interaction(
        number, application=application, timestamp=day.start + number * (day.end - day.start) / of, texts=found
    )


def fill(address: str, interactions: int, day: Window = THE_DAY) -> Mapping[str, float]:
    """Task: write so many interactions of one day, as they are collected; how many."""
    warehouse = warehouse_at(address)
    for first in range(0, interactions, _AT_ONCE):
        write(
            warehouse, [spoken(each, interactions, day) for each in range(first, min(first + _AT_ONCE, interactions))]
        )
    return {"interactions": interactions}


def judged(address: str, url: str) -> Mapping[str, float]:
    """Task: have all interactions of the day judged by the server at `url`; how many, and seconds."""
    os.environ.update(environment(url) | {"LLM_CONCURRENCY": str(IN_FLIGHT), "LLM_BUDGET_USD_PER_RUN": "1000"})
    os.environ["LLM_BUDGET_USD_PER_DAY"] = "1000"
    began = perf_counter()
    done = evaluate(warehouse_at(address), Settings(), ACME, THE_DAY, NOW)
    seconds = perf_counter() - began
    if done.reason or done.states.keys() - {"scored"}:
        raise ValueError(f"not all were judged: {done}")
    return {"seconds": seconds, "judged": done.judged, "scored": done.states["scored"]}


class Answering(Judge):
    """A judge that answers within the process; `seconds` is the CPU that its answers took."""

    seconds, _lock = 0.0, Lock()

    def ask(self, texts: Texts, deadline: float, order: Sequence[str] = rubric.ORDER) -> Outcome:
        began = thread_time()
        outcome = Outcome(
            "succeeded",
            rubric.read(_ANSWER, texts),
            requests=1,
            input_tokens=1_900,
            output_tokens=250,
            cost=Decimal("0.0002"),
        )
        with self._lock:
            self.seconds += thread_time() - began
        return outcome


def overhead(address: str, interactions: int) -> Mapping[str, float]:
    """Task: everything that is done for an interaction but asking the judge; milliseconds of CPU each, on one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ |= environment("http://127.0.0.1:9")
    settings, warehouse = Settings(), warehouse_at(address)
    before = Window(THE_DAY.start - DAY, THE_DAY.start)
    fill(address, 100, before)
    fill(address, interactions)
    with Answering(settings, Limits(), Redactor().version) as judge:
        evaluate_day(warehouse, settings, ACME, judge, before, NOW, RUN_SECONDS)  # imports, and compiles patterns
        judge.seconds, began = 0.0, process_time()
        done = evaluate_day(warehouse, settings, ACME, judge, THE_DAY, NOW, RUN_SECONDS)
        seconds = process_time() - began - judge.seconds
    if done.states != {"scored": interactions}:
        raise ValueError(f"not all were judged: {done}")
    return {"ms": 1000 * seconds / interactions}


def remember(address: str, interactions: int, waiting: int) -> Mapping[str, float]:
    """Task: write one day of so many interactions of which all but `waiting` are judged, with their calls and scores;
    megabytes of the file."""
    import duckdb

    samples = [spoken(each, interactions).texts for each in range(min(interactions, 500))]
    texts = pa.Table.from_pylist([{"sample": number, **asdict(each)} for number, each in enumerate(samples)])
    metrics = pa.table({"metric_type": [*rubric.LEVELS, "quality"]})
    redactor = Redactor().version
    fingerprint = fingerprint_of(Settings(), redactor)
    step = (THE_DAY.end - THE_DAY.start) / interactions
    own = "'acme' AS customer_id, 'vultr' AS provider, 'vultr-main' AS connection_id, number, interaction_id, timestamp"
    own += ", 'support-copilot' AS application_id, 'Support Copilot' AS application_name, 'llama-3.1-70b' AS model_name"
    own += ", '' AS variant, timestamp + INTERVAL 5 MINUTE AS collected_at"
    with duckdb.connect(address, config={"memory_limit": "1GB", "preserve_insertion_order": False}) as con:
        con.register("texts", texts)
        con.register("metrics", metrics)
        con.execute(
            f"CREATE TEMP VIEW said AS SELECT {own} FROM (SELECT range AS number,"
            " CAST(CAST(md5(CAST(range AS VARCHAR)) AS UUID) AS VARCHAR) AS interaction_id,"
            f" TIMESTAMP '{THE_DAY.start:%Y-%m-%d}' + range * INTERVAL {step.total_seconds() * 1e6:.0f} MICROSECOND"
            f" AS timestamp FROM range({interactions}))"
        )
        con.execute(
            "INSERT INTO raw.vultr_llm_interactions BY NAME SELECT s.* EXCLUDE (number), '' AS account_id,"
            " interaction_id AS native_id, time_bucket(INTERVAL 15 MINUTE, timestamp) AS window_start,"
            " 'chat' AS operation, concat(t.input, ' ', number) AS input, concat(t.output, ' ', number) AS output,"
            " t.system, concat(t.context, ' ', number) AS context, 'full' AS content_state, 0 AS redactions,"
            f" '{redactor}' AS redactor_version, hash(number) / 18446744073709551616.0 AS sampling_unit,"
            " 'sandbox' AS source, '{}' AS details FROM said s JOIN texts t"
            " ON s.number % (SELECT count(*) FROM texts) = t.sample"
        )
        con.execute(
            f"CREATE TEMP VIEW told AS SELECT *, '{fingerprint}' AS judge_fingerprint, 1.0 AS sampling_probability,"
            " false AS flagged FROM said"
            f" WHERE number % {interactions // waiting} <> 0 OR number >= {interactions // waiting * waiting}"
        )
        con.execute(
            "INSERT INTO quality.judge_calls BY NAME SELECT customer_id, interaction_id, interaction_id AS call_id,"
            " timestamp AS interaction_timestamp, judge_fingerprint, 'openai/gpt-oss-20b' AS judge_model,"
            " 'account' AS judge_account, 'succeeded' AS status, '' AS error, 1 AS requests, 1900 AS input_tokens,"
            " 250 AS output_tokens, 0.0002 AS cost, sampling_probability, flagged, 'before' AS run_id,"
            " collected_at AS called_at, collected_at FROM told"
        )
        con.execute(
            "INSERT INTO quality.application_metrics BY NAME SELECT t.* EXCLUDE (number), metric_type, 0.75 AS score,"
            " CAST(CAST(md5(concat(interaction_id, metric_type)) AS UUID) AS VARCHAR) AS score_id,"
            """ '{"level": "clear"}' AS details, '{"judge_model": "gpt-oss-20b", "metric_set": "1"}' AS metadata,"""
            " interaction_id AS judge_call_id FROM told t CROSS JOIN metrics"
        )
    return {"megabytes": os.path.getsize(address) / 1e6}


def _rows(bench: Bench, all_of_them: int, few: int) -> int:
    return all_of_them if bench.rows >= 1_000_000 else few


def _concurrency(bench: Bench) -> Pair:
    interactions = _rows(bench, INTERACTIONS, 4 * IN_FLIGHT)
    with empty_warehouse("duckdb") as address, serve_groq(latency=LATENCY) as url:
        bench.say(f"writing {interactions:,} interactions")
        run_apart(fill, address, interactions)
        bench.say(f"judging them, {IN_FLIGHT} in flight, {LATENCY:g} s each")
        seconds = run_apart(judged, address, url).numbers["seconds"]
    return Pair(seconds, interactions * LATENCY / IN_FLIGHT)


def _memory(bench: Bench) -> Pair:
    interactions, waiting = _rows(bench, REMEMBERED, 2_000), _rows(bench, WAITING, 100)
    with empty_warehouse("duckdb") as address, serve_groq() as url:
        bench.say(f"writing {interactions:,} interactions, all but {waiting} judged")
        written = run_apart(remember, address, interactions, waiting).numbers["megabytes"]
        outcome = run_apart(judged, address, url)
    if (outcome.numbers["judged"], outcome.numbers["scored"]) != (waiting, interactions):
        raise TaskFailed(f"{waiting} of {interactions} were to be judged: {outcome.numbers}")
    bench.say(f"resumed in {outcome.numbers['seconds']:.1f} s; the file had {written:,.0f} MB")
    return Pair(outcome.peak_mb)


def _overhead(bench: Bench) -> Pair:
    def one() -> Pair:
        with empty_warehouse("duckdb") as address:
            return Pair(run_apart(overhead, address, _rows(bench, INTERACTIONS, 300)).numbers["ms"])

    bench.say("judging within the process, on one core")
    return typical([one() for _ in range(bench.rounds)])


JUDGING = (
    Benchmark(
        "judge_concurrency",
        "s",
        "lower",
        f"ideal time: {INTERACTIONS:,} at {LATENCY * 1000:.0f} ms, {IN_FLIGHT} in flight",
        "<= 1.15",
        _concurrency,
    ),
    Benchmark("judge_peak_memory", "MB", "lower", None, "< 500", _memory),
    Benchmark("judge_overhead", "ms", "lower", None, "< 1", _overhead),
)
