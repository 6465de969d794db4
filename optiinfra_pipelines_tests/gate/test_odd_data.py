"""Odd data through the warehouse, on both engines: each kind of it gets a stated verdict that names what is odd, and
none is approved, where sound data of the same sizes are."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import pytest

from optiinfra_pipelines.gate.judging import judge_customer
from optiinfra_pipelines.gate.standing import states_of, verdicts_in_force
from optiinfra_pipelines.gate_verdicts import no_drop, not_inferior
from optiinfra_pipelines.tables.gate import VERDICTS
from optiinfra_pipelines.warehouse.protocol import Warehouse
from optiinfra_pipelines_tests.gate.replay import made_rows, score_row, write_scores
from optiinfra_pipelines_tests.gate.test_judging import NEW, OLD, START, acme, day, rows_of

Rows = list[dict[str, Any]]
DEPLOYED = START + timedelta(hours=30)
CUSTOMER = acme(margins={"quality": "0.2", "hallucination": "0.2", "toxicity": "0.1"}, deadline_hours="4")
JUDGED = {"quality", "hallucination", "toxicity"}
WAITS = "no baseline yet: 160 of 2000 scores are in"
CALM = "no change is seen"
BLIND = "none of the day's scores is usable"


@cache
def before(hours: int = 30, **given: Any) -> Rows:
    """600 scores of the old model by each metric."""
    return list(made_rows(OLD, START, hours, seed=1, **given))


@cache
def after(hours: int = 4, **given: Any) -> Rows:
    """160 scores of the new model by each metric."""
    return list(made_rows(NEW, DEPLOYED, hours, per_hour=40, seed=2, **given))


def scored(rows: Rows, score: float | Callable[[float], float], metric: str = "quality") -> Rows:
    """The rows with another score of one metric."""
    return [
        row | {"score": score(row["score"]) if callable(score) else score} if row["metric_type"] == metric else row
        for row in rows
    ]


def by_turns(rows: Rows) -> Rows:
    """The rows as two judges gave them, each every other interaction."""
    return [row | {"judge_fingerprint": f"judge-{1 + place // 3 % 2}"} for place, row in enumerate(rows)]


@dataclass(frozen=True)
class Odd:
    """Scores before and after a deployment, what the verdict says of them, and how the monitor of quality stands: its
    usable scores and what it says."""

    before: Rows
    after: Rows
    reason: str
    n: int
    explanation: str = CALM
    verdict: str = "INCONCLUSIVE"


def first(rows: Rows, score: float) -> Rows:
    """The rows with another score in the first one, which is of quality."""
    return [rows[0] | {"score": score}, *rows[1:]]


ODD = {
    "thin": Odd(before(), after(1)[:60], "quality: 20 scores; a verdict needs 30 at least", 20),
    "constant": Odd(
        before(),
        scored(after(), 0.75),
        "all 160 scores are 0.75: is the judge or the application stuck",
        160,
        "scores are worse by 13 points",
    ),
    "constant and perfect": Odd(before(), scored(after(), 1.0), "quality: all 160 scores are 1: is the judge or", 160),
    "constant and worthless": Odd(
        before(), scored(after(), 0.0), "quality: worse by 88.3 points", 160, "scores are worse by 88", "REJECT"
    ),
    "constant before and after": Odd(
        scored(before(), 0.75), scored(after(), 0.75), "quality: all 600 scores of the baseline are 0.75", 160
    ),
    "constant before": Odd(scored(before(), 0.75), after(), "quality: all 600 scores of the baseline are 0.75", 160),
    "one session": Odd(before(), after(conversation_id="one"), "160 scores count like 1.0 sessions", 160),
    "one session before": Odd(before(conversation_id="one"), after(), "quality: there is no baseline", 160, WAITS),
    "no baseline": Odd(
        [score_row(OLD, START, "a", "error", 0.0)], after(), "quality: there is no baseline", 160, WAITS
    ),
    "thin baseline": Odd(before(8), after(), "quality: the baseline has 160 scores and needs 200", 160, WAITS),
    "NaN": Odd(before(), scored(after(), math.nan), "quality: no score is usable: 0 are flagged", 0, BLIND),
    "NaN before": Odd(scored(before(), math.nan), after(), "quality: there is no baseline", 160, WAITS),
    "infinite": Odd(before(), scored(after(), math.inf), "addresses the judge, 160 missing", 0, BLIND),
    "infinite downwards": Odd(before(), scored(after(), -math.inf), "addresses the judge, 160 missing", 0, BLIND),
    "infinite before": Odd(scored(before(), math.inf), after(), "quality: there is no baseline", 160, WAITS),
    "sampled by no chance": Odd(
        before(), after(sampling_probability=0.0), "addresses the judge, 160 missing", 0, BLIND
    ),
    "sampled by an unknown chance": Odd(
        before(), after(sampling_probability=math.nan), "the judge, 160 missing", 0, BLIND
    ),
    "all flagged": Odd(before(), after(flagged=True), "160 are flagged as text that addresses the judge", 0, BLIND),
    "all flagged before": Odd(before(flagged=True), after(), "quality: there is no baseline", 160, WAITS),
    "percent": Odd(
        before(),
        scored(after(), lambda score: 100 * score),
        "scores lie outside 0 to 1: they are not of this metric",
        160,
    ),
    "percent before": Odd(
        scored(before(), lambda score: 100 * score), after(), "scores lie outside 0 to 1", 160, "scores are worse by"
    ),
    "negative": Odd(
        before(), scored(after(), -0.5), "160 scores lie outside 0 to 1", 160, "scores are worse by 138 points"
    ),
    "one outside": Odd(before(), first(after(), 1.5), "quality: 1 scores lie outside 0 to 1", 160),
    "another judge": Odd(
        before(), after(judge_fingerprint="judge-2"), "quality: there is no baseline of this judge yet", 160, WAITS
    ),
    "two judges": Odd(
        before(),
        by_turns(after()),
        "quality: there is no baseline of this judge yet",
        80,
        "80 of 2000 scores are in; judge judge-2 replaced judge-1, whose scores do not compare",
    ),
}


def judged(warehouse: Warehouse, odd: Odd) -> Iterator[dict[str, Any]]:
    """The monitor states of the new model, once its day was judged."""
    write_scores(warehouse, odd.before + odd.after)
    judge_customer(warehouse, CUSTOMER, day(1), START + timedelta(days=60))
    return (row for row in states_of(warehouse, "acme", day(1)) if row["model_name"] == NEW.model_name)


@pytest.mark.parametrize("odd", [pytest.param(odd, id=name) for name, odd in ODD.items()])
def test_odd_data_get_a_verdict_that_names_what_is_odd_and_are_not_approved(warehouse: Warehouse, odd: Odd) -> None:
    states = {row["metric_type"]: row for row in judged(warehouse, odd)}
    looks = rows_of(warehouse, VERDICTS)
    assert "APPROVE" not in {row["verdict"] for row in looks}
    assert (looks[-1]["verdict"], looks[-1]["final"]) == (odd.verdict, True)
    assert odd.reason in looks[-1]["reason"]

    said = not_inferior(verdicts_in_force(warehouse, "acme", day(1)))
    assert (said.passed, said.severity) == (False, "ERROR" if odd.verdict == "REJECT" else "WARN")
    assert odd.reason in said.sentence

    assert states.keys() == JUDGED
    quality = states["quality"]
    assert (quality["n"], quality["observed"] is None) == (odd.n, odd.n == 0)
    assert odd.explanation in quality["explanation"]
    assert quality["alarm"] == ("worse" in odd.explanation)
    assert all(math.isfinite(value) for row in states.values() for value in row.values() if isinstance(value, float))
    assert no_drop(list(states.values())).passed == (not quality["alarm"] and odd.n > 0)


def test_sound_data_of_the_same_sizes_are_approved(warehouse: Warehouse) -> None:
    states = list(judged(warehouse, Odd(before(), after(), "", 160)))
    said = not_inferior(verdicts_in_force(warehouse, "acme", day(1)))
    assert (said.passed, said.sentence.split()[0]) == (True, "APPROVE")
    assert no_drop(states).passed
