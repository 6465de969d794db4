"""The benchmarks of the gate on few replicates: each figure keeps its goal, and bulk figures are those of the product.

Limits allow for the scatter of so few; `make bench ONLY=gate` measures on many.
"""

import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from optiinfra_pipelines.quality.baseline import freeze
from optiinfra_pipelines.quality.gate import judge_gate
from optiinfra_pipelines.quality.monitor import Monitor, ScoredWindow
from optiinfra_pipelines.quality.policy import METRICS, Policy
from optiinfra_pipelines.quality.sample import Sample
from optiinfra_pipelines.windows import WINDOW
from optiinfra_pipelines_tests.benchmarks import gate
from optiinfra_pipelines_tests.benchmarks.bench import Bench
from optiinfra_pipelines_tests.benchmarks.gate_streams import FIVE_LEVELS, KINDS, Kind

ROWS = gate.QUICK.days // 2  # of the smallest case
GOALS = {
    "gate_false_alarms_n5": 1.1,
    "gate_false_alarms_n20": 1.1,
    "gate_false_alarms_n50": 1.1,
    "gate_delay_12_points_n20": 5,
    "gate_delay_5_points_n20": 15,
    "gate_reject_no_change": 0.01,
    "gate_approve_5_points": 0.025,
    "gate_reject_12_points_n200": 0.99,
    "gate_96_looks": 0.01,
    "gate_7_metrics": 0.05,
    "gate_sessions": 0.05,
    "gate_day_night": 1.5,
    "gate_1000_applications": 30,
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """One quick run, so that what figures share is simulated once."""
    return Bench(2_000, Path(tmp_path_factory.mktemp("bench")))


def scatter(name: str, goal: float) -> float:
    """Three standard errors of a figure that stands at its goal; of a time, what a shared machine may add."""
    if "applications" in name:
        return 3 * goal
    if "alarms" in name or "day_night" in name:
        return 3 * 2 * math.sqrt(goal / (gate.QUICK.streams / 2))
    return 3 * math.sqrt(goal * (1 - goal) / ROWS) if goal < 1 else 0.0


@pytest.mark.parametrize("each", gate.GATE, ids=lambda each: each.name)
def test_a_figure_of_the_gate_keeps_its_goal(each: gate.Benchmark, bench: Bench) -> None:
    pair, goal = each.run(bench), GOALS[each.name]
    sign = 1 if each.better == "lower" else -1
    assert sign * pair.value <= sign * goal + scatter(each.name, goal)
    if each.better == "lower" and pair.baseline is not None and "delay" not in each.name:
        assert pair.value < pair.baseline


def test_every_figure_that_was_asked_for_exists() -> None:
    assert [each.name for each in gate.GATE] == list(GOALS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_bulk_verdicts_are_those_of_the_gate(kind: Kind) -> None:
    rng, policy = np.random.default_rng(3), Policy(metrics={"quality": METRICS["quality"]})
    said = set()
    for drop, n in ((0.0, 400), (0.03, 60), (0.06, 200), (0.12, 90)):
        scores = kind.worse(drop).draw(rng, (25, n))
        frozen = [freeze(Sample.of(kind.draw(rng, (1_000,)).tolist())) for _ in scores]
        mean, error = (np.asarray([getattr(each, name) for each in frozen]) for name in ("mean", "error"))
        bulk = gate.looked(kind, scores, np.ones_like(scores), mean, error**2, n)
        for row, (one, rejected, approved) in enumerate(zip(frozen, bulk.rejected, bulk.approved, strict=True)):
            verdict = judge_gate({"quality": one}, {"quality": Sample.of(scores[row].tolist())}, policy).verdict
            said.add(verdict)
            assert verdict == ("REJECT" if rejected else "APPROVE" if approved else "INCONCLUSIVE")
    assert said == {"REJECT", "APPROVE", "INCONCLUSIVE"}


def test_bulk_alarms_are_those_of_the_monitor(bench: Bench) -> None:
    rng, start = np.random.default_rng(4), datetime(2026, 11, 1, tzinfo=UTC)
    frozen = [freeze(Sample.of(FIVE_LEVELS.draw(rng, (2_000,)).tolist())) for _ in range(4)]
    scores = np.concatenate([FIVE_LEVELS.worse(drop).draw(rng, (50, 4, 20)) for drop in (0.0, 0.1, 0.0, 0.1)])
    together = gate.calibrated(frozen, FIVE_LEVELS, 20)
    alarms, first, _ = together.run(iter(scores.mean(axis=2)))
    for stream, one in enumerate(frozen):
        monitor = Monitor(one, METRICS["quality"], Policy())
        state, raised = monitor.start(20), math.inf
        for window, row in enumerate(scores[:, stream]):
            state = monitor.step(state, [ScoredWindow(start + window * WINDOW, Sample.of(row.tolist()))])
            raised = min(raised, window + 1) if state["alarm"] else raised
        assert (state["alarms"], raised) == (alarms[stream], first[stream])
    assert alarms.sum() >= 8
